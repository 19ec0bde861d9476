//! How text is cut into words before merging: the patterns of GPT-2, Llama 3 and Qwen 2, without a regex engine.
//!
//! Each function below reads its pattern from left to right at one place of the text: the first alternative that
//! matches there is the word, as long as its greedy parts reach. The classes of characters come from the tables that
//! the regex engine of the crate `tokenizers` has, so that they cannot differ from what it would find.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};

/// `\p{L}`
const LETTER: u8 = 1;
/// `\p{N}`
const NUMBER: u8 = 2;
/// `\s`
const SPACE: u8 = 4;
/// What Rust calls numeric, by which the crate's `Digits` cuts.
const NUMERIC: u8 = 8;
/// `[^\s\p{L}\p{N}]`
const OTHER: u8 = 0;
/// The classes that a pattern tells apart; a character is in at most one of them.
const CLASSES: u8 = LETTER | NUMBER | SPACE;

/// A way to cut text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2,
    /// As [`Pattern::Gpt2`] between numbers, each of which is a word (SmolLM's `Digits` before `ByteLevel`).
    DigitsGpt2,
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+`, then
    /// `\s+(?!\S)|\s+`
    Llama3,
    /// As [`Pattern::Llama3`] with `\p{N}` one by one.
    Qwen2,
}

impl Pattern {
    /// Calls `take` with every word of the text, in order; together they are the text. Stops where it says false, and
    /// returns what it said last.
    pub(super) fn words<'t>(self, text: &'t str, mut take: impl FnMut(usize, &'t str) -> bool) -> bool {
        let classes = &**TABLE;
        let mut start = 0;
        while start < text.len() {
            let end = match self {
                Pattern::DigitsGpt2 => until_numeric(classes, text, start),
                _ => text.len(),
            };
            // What lies behind the end of a part is not looked at, as the parts are texts of their own.
            let part = Text { text: &text[..end], classes };
            while start < end {
                let next = match self {
                    Pattern::Gpt2 | Pattern::DigitsGpt2 => part.gpt2(start),
                    Pattern::Llama3 => part.llama3(start, 3),
                    Pattern::Qwen2 => part.llama3(start, 1),
                };
                if !take(start, &text[start..next]) {
                    return false;
                }
                start = next;
            }
        }
        true
    }
}

/// The end of the part that begins at `start`: a numeric character alone, or all before the next one.
fn until_numeric(classes: &[u8], text: &str, start: usize) -> usize {
    let mut chars = text[start..].char_indices();
    let is_numeric = |c: char| classes[c as usize] & NUMERIC != 0;
    match chars.next() {
        Some((_, first)) if is_numeric(first) => start + first.len_utf8(),
        _ => chars.find(|(_, c)| is_numeric(*c)).map_or(text.len(), |(at, _)| start + at),
    }
}

/// A text and the classes of all characters.
#[derive(Clone, Copy)]
struct Text<'t> {
    text: &'t str,
    classes: &'t [u8],
}

impl Text<'_> {
    /// The class of the character at `at`, and its length; `None` at the end.
    fn class(self, at: usize) -> Option<(u8, usize)> {
        let byte = *self.text.as_bytes().get(at)?;
        if byte < 0x80 {
            return Some((self.classes[usize::from(byte)] & CLASSES, 1));
        }
        let c = self.text[at..].chars().next()?;
        Some((self.classes[c as usize] & CLASSES, c.len_utf8()))
    }

    fn is(self, at: usize, class: u8) -> bool {
        self.class(at).is_some_and(|(found, _)| found == class)
    }

    /// The end of the characters of one class from `at`.
    fn run(self, mut at: usize, class: u8) -> usize {
        while let Some((_, len)) = self.class(at).filter(|(found, _)| *found == class) {
            at += len;
        }
        at
    }

    fn is_newline(self, at: usize) -> bool {
        matches!(self.text.as_bytes().get(at), Some(b'\r' | b'\n'))
    }

    fn gpt2(self, at: usize) -> usize {
        let bytes = self.text.as_bytes();
        if bytes[at] == b'\'' {
            match bytes[at + 1..] {
                [b's' | b't' | b'm' | b'd', ..] => return at + 2,
                [b'r' | b'v', b'e', ..] | [b'l', b'l', ..] => return at + 3,
                _ => {}
            }
        }
        let start = at + usize::from(bytes[at] == b' ');
        match self.class(start) {
            Some((class, _)) if class != SPACE => self.run(start, class),
            _ => self.blanks(at),
        }
    }

    fn llama3(self, at: usize, most_digits: usize) -> usize {
        let bytes = self.text.as_bytes();
        if bytes[at] == b'\''
            && let Some(end) = self.contraction(at + 1)
        {
            return end;
        }
        let Some((class, len)) = self.class(at) else { return self.text.len() };
        match class {
            LETTER => return self.run(at, LETTER),
            NUMBER => return self.numbers(at, most_digits),
            _ => {}
        }
        if !self.is_newline(at) && self.is(at + len, LETTER) {
            return self.run(at + len, LETTER);
        }
        let start = at + usize::from(bytes[at] == b' ');
        if self.is(start, OTHER) {
            let mut end = self.run(start, OTHER);
            while self.is_newline(end) {
                end += 1;
            }
            return end;
        }
        let end = self.run(at, SPACE);
        match self.text[at..end].rfind(['\r', '\n']) {
            Some(last) => at + last + 1,
            None => self.blanks(at),
        }
    }

    /// `\p{N}{1,n}`
    fn numbers(self, mut at: usize, most: usize) -> usize {
        for _ in 0..most {
            match self.class(at) {
                Some((NUMBER, len)) => at += len,
                _ => break,
            }
        }
        at
    }

    /// `\s+(?!\S)|\s+`: all white space but the last character before a word, or that one.
    fn blanks(self, at: usize) -> usize {
        let (mut end, mut last) = (at, at);
        while let Some((SPACE, len)) = self.class(end) {
            last = end;
            end += len;
        }
        if end == self.text.len() || last == at { end } else { last }
    }

    /// The end of `s`, `t`, `re`, `ve`, `m`, `ll` or `d` in any case, after an apostrophe.
    fn contraction(self, at: usize) -> Option<usize> {
        let mut chars = self.text.get(at..)?.chars();
        let first = chars.next()?;
        let after = at + first.len_utf8();
        match folded(first)? {
            b's' | b't' | b'm' | b'd' => Some(after),
            letter => {
                let second = chars.next()?;
                let fits = matches!((letter, folded(second)?), (b'r' | b'v', b'e') | (b'l', b'l'));
                fits.then(|| after + second.len_utf8())
            }
        }
    }
}

/// The letter of a contraction that a character is, whatever its case.
fn folded(c: char) -> Option<u8> {
    static LETTERS: LazyLock<Vec<(char, u8)>> = LazyLock::new(|| {
        let of = |letter: u8| {
            let ranges = ranges(&format!("(?i:{})", char::from(letter)));
            ranges.into_iter().flat_map(move |(from, to)| (from..=to).map(move |c| (c, letter)))
        };
        b"stmdrvel".iter().flat_map(|&letter| of(letter)).collect()
    });
    LETTERS.iter().find(|(other, _)| *other == c).map(|(_, letter)| *letter)
}

/// The classes of every character.
static TABLE: LazyLock<Box<[u8]>> = LazyLock::new(|| {
    let mut table = vec![0; char::MAX as usize + 1].into_boxed_slice();
    for (class, bit) in [(r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", SPACE)] {
        for (from, to) in ranges(class) {
            table[from as usize..=to as usize].iter_mut().for_each(|classes| *classes |= bit);
        }
    }
    for c in ('\0'..=char::MAX).filter(|c| c.is_numeric()) {
        table[c as usize] |= NUMERIC;
    }
    table
});

/// The characters that a class of one character matches.
fn ranges(class: &str) -> Vec<(char, char)> {
    let parsed = regex_syntax::parse(class).expect("the classes above are valid");
    match parsed.kind() {
        HirKind::Class(Class::Unicode(class)) => class.iter().map(|r| (r.start(), r.end())).collect(),
        // Not reached by the classes above; a pattern without members would be found by the probes.
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(pattern: Pattern, text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        assert!(pattern.words(text, |at, word| {
            assert_eq!(&text[at..at + word.len()], word);
            found.push(word);
            true
        }));
        found
    }

    #[test]
    fn a_blank_goes_with_the_word_after_it() {
        let text = "It's  late,\n\n I'LL go 1234 …!\n\n ";
        let gpt2 = ["It", "'s", " ", " late", ",", "\n\n", " I", "'", "LL", " go", " 1234", " …!", "\n\n "];
        assert_eq!(words(Pattern::Gpt2, text), gpt2);
        let digits = words(Pattern::DigitsGpt2, "go 12 ²x");
        assert_eq!(digits, ["go", " ", "1", "2", " ", "²", "x"]);
        let llama3 = ["It", "'s", " ", " late", ",\n\n", " I", "'LL", " go", " ", "123", "4", " …!\n\n", " "];
        assert_eq!(words(Pattern::Llama3, text), llama3);
        assert_eq!(words(Pattern::Qwen2, "a 12(b"), ["a", " ", "1", "2", "(b"]);
        assert_eq!(words(Pattern::Llama3, "x\u{17f} 'ſ \r\n\t y"), ["xſ", " '", "ſ", " \r\n", "\t", " y"]);
        assert_eq!(words(Pattern::Llama3, "'ſ"), ["'ſ"], "the long s is an s in another case");
        assert_eq!(words(Pattern::Gpt2, ""), [""; 0]);
    }
}
