//! `'…%s…' % value`, which Python and Jinja2 understand and minijinja does not: it becomes `'…%s…'|format(value)`.
//!
//! Only a text literal on the left is recognised: anything else may be a number, whose remainder minijinja takes
//! itself.

/// The code of a tag with its percent formats rewritten; `None` if there is none.
pub(super) fn rewrite(code: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = code;
    while let Some((literal_end, percent)) = next_format(rest) {
        let operand = &rest[percent + 1..];
        let Some(length) = operand_length(operand) else {
            break;
        };
        let value = operand[..length].trim();
        out.push_str(&rest[..literal_end]);
        out.push_str("|format(");
        out.push_str(arguments(value));
        out.push(')');
        rest = &operand[length..];
    }
    if out.is_empty() {
        return None;
    }
    out.push_str(rest);
    Some(out)
}

/// The values of a tuple in parentheses, or the one value.
fn arguments(value: &str) -> &str {
    match value.strip_prefix('(').and_then(|v| v.strip_suffix(')')) {
        // Only if the first bracket is closed by the last.
        Some(inner) if bracket_length(value) == Some(value.len()) && !inner.trim().is_empty() => {
            inner.trim().strip_suffix(',').unwrap_or(inner)
        }
        Some(_) if value[1..value.len() - 1].trim().is_empty() => "",
        _ => value,
    }
}

/// Ends of a text literal that a `%` follows: of the literal, and the place of the `%`.
fn next_format(code: &str) -> Option<(usize, usize)> {
    let bytes = code.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'\'' && bytes[at] != b'"' {
            at += 1;
            continue;
        }
        let end = at + literal_length(&code[at..])?;
        let space = code[end..].len() - code[end..].trim_start().len();
        if bytes.get(end + space) == Some(&b'%') && bytes.get(end + space + 1) != Some(&b'}') {
            return Some((end, end + space));
        }
        at = end;
    }
    None
}

/// Length of the text literal that `code` begins with, quotes included.
fn literal_length(code: &str) -> Option<usize> {
    let quote = code.chars().next()?;
    let mut escaped = false;
    for (at, c) in code.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Length of the bracket that `code` begins with, up to the bracket that closes it.
fn bracket_length(code: &str) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    while at < code.len() {
        let c = code[at..].chars().next()?;
        match c {
            '\'' | '"' => {
                at += literal_length(&code[at..])?;
                continue;
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at += c.len_utf8();
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// Length of the operand after a `%`: a sign, a literal, name, number or bracket, and what binds tighter than `%`
/// (attributes, indices, calls, filters).
fn operand_length(code: &str) -> Option<usize> {
    let mut at = code.len() - code.trim_start_matches([' ', '\n', '\t', '-']).len();
    at += primary_length(&code[at..])?;
    loop {
        let space = code[at..].len() - code[at..].trim_start().len();
        let next = &code[at + space..];
        at = match next.chars().next() {
            Some('[' | '(') => at + space + bracket_length(next)?,
            Some(sign @ ('.' | '|')) if !(sign == '|' && next.starts_with("||")) => {
                let after = &next[1..];
                let gap = after.len() - after.trim_start().len();
                at + space + 1 + gap + primary_length(after.trim_start())?
            }
            _ => return Some(at),
        };
    }
}

fn primary_length(code: &str) -> Option<usize> {
    match code.chars().next()? {
        '\'' | '"' => literal_length(code),
        '(' | '[' | '{' => bracket_length(code),
        c if c.is_alphanumeric() || c == '_' => {
            Some(code.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(code.len()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    #[test]
    fn formats_become_filters() {
        let cases = [
            ("'%s' % x", "'%s'|format(x)"),
            ("'%s-%d' % (a, b[1]) ~ c", "'%s-%d'|format(a, b[1]) ~ c"),
            ("'%s' % (a,)", "'%s'|format(a)"),
            ("\"%5.1f\" % m.x.y(2)|abs + 'b%%' % ()", "\"%5.1f\"|format(m.x.y(2)|abs) + 'b%%'|format()"),
            ("'%s' % (a)['b'] if 'x' % 'y)' else 1", "'%s'|format((a)['b']) if 'x'|format('y)') else 1"),
        ];
        for (from, to) in cases {
            assert_eq!(rewrite(from).as_deref(), Some(to), "{from}");
        }
        for same in ["7 % 3", "x % y", "'a' ~ 'b%'", "'it\\'s % x'", "'%s' %", "'unfinished % x"] {
            assert_eq!(rewrite(same), None, "{same}");
        }
    }
}
