//! Text in HTML: escaped, always.

/// A text as it may stand between tags and in quoted attributes. What a browser would not show, or what would make it
/// show another order than that of the characters, becomes U+FFFD.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push('\u{FFFD}'),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => {
                out.push('\u{FFFD}')
            }
            c => out.push(c),
        }
    }
    out
}

/// A table: heads (or none), rows of cells that are HTML already. The first column is the rows' head.
pub(super) fn table(class: &str, heads: &[String], rows: &[Vec<String>]) -> String {
    let cells = |tag: &str, cells: &[String]| -> String {
        cells.iter().map(|cell| format!("<{tag}>{cell}</{tag}>")).collect()
    };
    let head = match heads.is_empty() {
        true => String::new(),
        false => format!("<thead><tr>{}</tr></thead>", cells("th", heads)),
    };
    let mut html = format!("<div class=\"scroll\"><table class=\"{class}\">{head}<tbody>");
    for row in rows {
        let (head, rest) =
            row.split_first().map_or((String::new(), &[][..]), |(head, rest)| (head.clone(), rest));
        html.push_str(&format!("<tr><th scope=\"row\">{head}</th>{}</tr>\n", cells("td", rest)));
    }
    html.push_str("</tbody></table></div>\n");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_its_place() {
        assert_eq!(escaped("</td><script>\"&'"), "&lt;/td&gt;&lt;script&gt;&quot;&amp;&#39;");
        assert_eq!(escaped("a\u{0}b\u{1b}[2J\u{202e}c\nd"), "a\u{FFFD}b\u{FFFD}[2J\u{FFFD}c\nd");
    }
}
