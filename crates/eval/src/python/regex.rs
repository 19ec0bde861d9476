//! Python's `re` on fancy-regex: what differs in the syntax is rewritten.

use fancy_regex::{Captures, Regex};

/// Steps of backtracking after which a search gives up.
const BACKTRACKS: usize = 1_000_000;

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    regex: Regex,
}

/// A pattern that is not valid, or too much work on a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PatternError(pub(crate) String);

impl Pattern {
    /// `re.compile(pattern)`.
    pub(crate) fn new(pattern: &str) -> Result<Self, PatternError> {
        let regex = fancy_regex::RegexBuilder::new(&translated(pattern)).backtrack_limit(BACKTRACKS).build();
        regex.map(|regex| Self { regex }).map_err(|error| PatternError(error.to_string()))
    }

    /// `findall`: the match, or of a pattern with groups the groups, of each match.
    pub(crate) fn find_all(&self, text: &str) -> Result<Vec<Match>, PatternError> {
        let groups = self.regex.captures_len() - 1;
        let mut found = Vec::new();
        for captures in self.regex.captures_iter(text) {
            let captures = captures.map_err(|error| PatternError(error.to_string()))?;
            let group = |i: usize| captures.get(i).map_or("", |m| m.as_str()).to_owned();
            found.push(match groups {
                0 => Match::Whole(group(0)),
                1 => Match::Whole(group(1)),
                _ => Match::Groups((1..=groups).map(group).collect()),
            });
        }
        Ok(found)
    }

    /// Whether `re.search` finds anything.
    pub(crate) fn is_found(&self, text: &str) -> Result<bool, PatternError> {
        self.regex.is_match(text).map_err(|error| PatternError(error.to_string()))
    }

    /// `re.split` by a pattern without groups that never matches nothing.
    pub(crate) fn split<'t>(&self, text: &'t str) -> Result<Vec<&'t str>, PatternError> {
        let (mut parts, mut last) = (Vec::new(), 0);
        for found in self.regex.find_iter(text) {
            let found = found.map_err(|error| PatternError(error.to_string()))?;
            parts.push(&text[last..found.start()]);
            last = found.end();
        }
        parts.push(&text[last..]);
        Ok(parts)
    }

    /// `re.sub(pattern, replacement, text, count)`; `count` 0: all.
    pub(crate) fn substitute(
        &self,
        text: &str,
        replacement: &str,
        count: usize,
    ) -> Result<String, PatternError> {
        let replacer = |captures: &Captures<'_, str>| expand(replacement, captures);
        let replaced = self.regex.try_replacen(text, count, replacer);
        replaced.map(|text| text.into_owned()).map_err(|error| PatternError(error.to_string()))
    }
}

/// One item of what `findall` returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Match {
    /// Of a pattern without groups, or the only group.
    Whole(String),
    /// Of a pattern with several groups.
    Groups(Vec<String>),
}

impl Match {
    /// The match; of several groups the first.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Whole(text) => text,
            Self::Groups(groups) => groups.first().map_or("", String::as_str),
        }
    }
}

/// Python's replacement templates: `\1`, `\g<1>`, `\n`, `\\`.
fn expand(template: &str, captures: &Captures<'_, str>) -> String {
    let mut out = String::new();
    let mut chars = template.chars().peekable();
    let group = |i: usize| captures.get(i).map_or("", |m| m.as_str());
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some(digit @ '0'..='9') => {
                let mut number = digit as usize - '0' as usize;
                if let Some(next) = chars.next_if(char::is_ascii_digit) {
                    number = number * 10 + (next as usize - '0' as usize);
                }
                out.push_str(group(number));
            }
            Some('g') => {
                let name: String = chars.by_ref().skip(1).take_while(|&c| c != '>').collect();
                match name.parse() {
                    Ok(number) => out.push_str(group(number)),
                    Err(_) => out.push_str(captures.name(&name).map_or("", |m| m.as_str())),
                }
            }
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some(other) => {
                if other != '\\' {
                    out.push('\\');
                }
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
    out
}

/// `\Z` means the very end in Python, `$` also the place before a last line break (unless it is of lines), and `\<` a
/// plain character; in a set, `[` and `&&` and `~~` are plain characters there.
fn translated(pattern: &str) -> String {
    let end = if is_of_lines(pattern) { "$" } else { r"(?=\n?\z)" };
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars().peekable();
    let (mut in_set, mut set_is_empty) = (false, false);
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let next = chars.next().unwrap_or('\\');
                if in_set || !"<>".contains(next) {
                    out.push('\\');
                }
                out.push(if next == 'Z' && !in_set { 'z' } else { next });
                set_is_empty = false;
            }
            '$' if !in_set => out.push_str(end),
            '[' if !in_set => {
                (in_set, set_is_empty) = (true, true);
                out.push(c);
                if let Some(negation) = chars.next_if_eq(&'^') {
                    out.push(negation);
                }
            }
            // The first `]` of a set is one of its characters.
            ']' if in_set && set_is_empty => {
                out.push_str("\\]");
                set_is_empty = false;
            }
            ']' if in_set => {
                in_set = false;
                out.push(c);
            }
            '[' | '&' | '~' if in_set => {
                out.push('\\');
                out.push(c);
                set_is_empty = false;
            }
            c => {
                out.push(c);
                set_is_empty = false;
            }
        }
    }
    out
}

/// Whether a pattern has the flag `m`.
fn is_of_lines(pattern: &str) -> bool {
    pattern.match_indices("(?").any(|(at, opening)| {
        let flags = pattern[at + opening.len()..].chars().take_while(char::is_ascii_alphabetic);
        flags.collect::<String>().contains('m')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(pattern: &str, text: &str) -> Vec<Match> {
        Pattern::new(pattern).unwrap().find_all(text).unwrap()
    }

    #[test]
    fn findall_gives_matches_or_groups() {
        let words = |items: &[&str]| items.iter().map(|w| Match::Whole((*w).into())).collect::<Vec<_>>();
        assert_eq!(whole(r"[a-c]+", "abxc"), words(&["ab", "c"]));
        assert_eq!(whole(r"#### (\-?[0-9\.\,]+)", "so #### -1,2."), words(&["-1,2."]));
        let groups = whole(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", "7 and $12");
        let expected = [["", "7"], ["$12", ""]].map(|g| Match::Groups(g.map(String::from).to_vec()));
        assert_eq!(groups, expected);
        // python: re.findall(r"(?<=a)b", "ab b"), re.findall(r"[[]x]", "[x]"), re.findall(r"a\Z", "a\n")
        assert_eq!(whole(r"(?<=a)b", "ab b"), words(&["b"]));
        assert_eq!(whole(r"[[]x", "[x]"), words(&["[x"]));
        assert_eq!(whole(r"[]x]+", "]x]"), words(&["]x]"]));
        assert_eq!(whole(r"a\Z", "a\n"), []);
        // python: re.findall of the same
        assert_eq!(whole(r"is (\d+)$", "The answer is 5\n"), words(&["5"]));
        assert_eq!(whole(r"a$", "a\nb"), []);
        assert_eq!(whole(r"(?m)a$", "a\na"), words(&["a", "a"]));
        assert_eq!(whole(r"\$\d[$]", "$5$"), words(&["$5$"]));
        assert_eq!(whole(r"\<answer\>(.*?)\</answer\>", "x<answer>7</answer>"), words(&["7"]));
    }

    #[test]
    fn substitution_is_pythons() {
        let sub = |pattern: &str, replacement: &str, text: &str| {
            Pattern::new(pattern).unwrap().substitute(text, replacement, 0).unwrap()
        };
        assert_eq!(sub(r"\(\s*([^\)]*?)\s*\)", r"(\1)", "( a b )"), "(a b)");
        assert_eq!(sub(r"(?P<x>a)", r"<\g<x>\g<1>$1>", "ba"), "b<aa$1>");
        assert_eq!(sub("(?s).*#### ", "", "x\n#### 4"), "4");
        assert_eq!(Pattern::new("a").unwrap().substitute("aaa", "b", 2).unwrap(), "bba");
    }

    #[test]
    fn texts_are_searched_and_split() {
        let stars = Pattern::new(r"\s?\*\*\*\s?").unwrap();
        // python: re.split(r"\s?\*\*\*\s?", "a *** b***")
        assert_eq!(stars.split("a *** b***"), Ok(vec!["a", "b", ""]));
        assert_eq!((stars.is_found("a***"), stars.is_found("a**")), (Ok(true), Ok(false)));
    }

    #[test]
    fn what_is_not_valid_or_too_much_is_an_error() {
        assert!(Pattern::new("(").is_err());
        let slow = Pattern::new(r"^(?:(x+)+\1)+y").unwrap();
        assert!(slow.find_all(&"x".repeat(100)).is_err());
    }
}
