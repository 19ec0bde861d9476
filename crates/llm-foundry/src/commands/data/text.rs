//! A row of tokens as text: where it is learned, where special tokens stand, and where a sequence ends.

use crate::failure::{Failure, Outcome};
use foundry_data::{IGNORED, PackedRow};
use foundry_formats::Tokenizer;
use std::collections::HashMap;
use std::fmt::Write;

/// How pieces are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// By colour: learned text is green, masked text grey, special tokens are inverted.
    Colour,
    /// By marks: ⟦learned⟧.
    Marks,
}

/// Text of consecutive tokens that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    text: String,
    learned: bool,
    special: bool,
}

/// Turns rows into text; remembers which tokens are special.
pub(super) struct RowText<'a> {
    tokenizer: &'a Tokenizer,
    style: Style,
    special: HashMap<u32, bool>,
}

impl<'a> RowText<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, style: Style) -> Self {
        Self { tokenizer, style, special: HashMap::new() }
    }

    /// The sequences of a row, each with its length and its text.
    pub(super) fn row(&mut self, row: &PackedRow) -> Outcome<String> {
        let mut out = String::new();
        let mut start = 0;
        for (number, &length) in row.seq_lens.iter().enumerate() {
            let range = start..start + length as usize;
            start = range.end;
            let (tokens, labels) = (&row.tokens[range.clone()], &row.labels[range]);
            let learned = labels.iter().filter(|&&label| label != IGNORED).count();
            let title = format!(
                "── sequence {} of {}: {length} tokens, {learned} learned ",
                number + 1,
                row.seq_lens.len()
            );
            let _ = writeln!(out, "{title}{}", "─".repeat(78_usize.saturating_sub(title.chars().count())));
            for piece in self.pieces(tokens, labels)? {
                self.write(&mut out, &piece);
            }
            if !out.ends_with('\n') {
                out.push('\n');
            }
        }
        Ok(out)
    }

    /// Cuts a sequence where the mask or the kind of token changes.
    fn pieces(&mut self, tokens: &[u32], labels: &[i32]) -> Outcome<Vec<Piece>> {
        let mut pieces = Vec::new();
        let mut start = 0;
        // What is decoded so far: a piece alone would lose the space before its first word in some tokenizers.
        let mut before = String::new();
        while start < tokens.len() {
            let kind = (labels[start] != IGNORED, self.is_special(tokens[start])?);
            let mut end = start + 1;
            // Special tokens stand alone: each is a thing of its own.
            while end < tokens.len()
                && !kind.1
                && (labels[end] != IGNORED, self.is_special(tokens[end])?) == kind
            {
                end += 1;
            }
            let after = self.decode(&tokens[..end])?;
            // A character cut in two by the mask is shown as U+FFFD on both sides.
            let text = match after.strip_prefix(before.as_str()) {
                Some(text) if !kind.1 => text.to_owned(),
                _ => self.decode(&tokens[start..end])?,
            };
            pieces.push(Piece { text, learned: kind.0, special: kind.1 });
            before = after;
            start = end;
        }
        Ok(pieces)
    }

    /// Whether a token is left out of text shown to people.
    fn is_special(&mut self, token: u32) -> Outcome<bool> {
        if let Some(&known) = self.special.get(&token) {
            return Ok(known);
        }
        let visible = self.tokenizer.decode(&[token], true).map_err(Failure::input)?;
        let special = visible.is_empty() && !self.decode(&[token])?.is_empty();
        self.special.insert(token, special);
        Ok(special)
    }

    fn decode(&self, tokens: &[u32]) -> Outcome<String> {
        self.tokenizer.decode(tokens, false).map_err(Failure::input)
    }

    fn write(&self, out: &mut String, piece: &Piece) {
        let text = visible(&piece.text);
        match (self.style, piece.learned, piece.special) {
            (Style::Marks, true, _) => {
                // Pieces that follow each other share their marks.
                if out.ends_with('⟧') {
                    out.pop();
                } else {
                    out.push('⟦');
                }
                let _ = write!(out, "{text}⟧");
            }
            (Style::Marks, false, _) => out.push_str(&text),
            // The end of each line ends the colour, so that a pager can begin anywhere.
            (Style::Colour, learned, special) => {
                let code = match (learned, special) {
                    (true, false) => "32",
                    (true, true) => "32;7",
                    (false, false) => "2",
                    (false, true) => "2;7",
                };
                for line in text.split_inclusive('\n') {
                    let (words, end) = line.strip_suffix('\n').map_or((line, ""), |words| (words, "\n"));
                    let _ = write!(out, "\u{1b}[{code}m{words}\u{1b}[0m{end}");
                }
            }
        }
    }
}

/// Line breaks get a sign, and control characters (which might steer a terminal) become pictures of themselves.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("↵\n"),
            '\t' => out.push('⇥'),
            '\u{7f}' => out.push('␡'),
            c if (c as u32) < 0x20 => out.push(char::from_u32(0x2400 + c as u32).unwrap_or('\u{FFFD}')),
            c if c.is_control() => out.push('\u{FFFD}'),
            // Marks that reorder the line would make the preview lie.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn tokenizer() -> Tokenizer {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/fixtures/tiny_tokenizer");
        Tokenizer::from_dir(&dir).expect("the fixture")
    }

    /// A row whose every second sequence token from `from` on is learned.
    fn row(tokenizer: &Tokenizer, parts: &[(&str, bool)]) -> PackedRow {
        let mut row = PackedRow::default();
        for (text, learned) in parts {
            let ids = tokenizer.encode(text, false).expect("ids");
            row.labels.extend(ids.iter().map(|&id| if *learned { id as i32 } else { IGNORED }));
            row.tokens.extend(ids);
        }
        row.seq_lens.push(row.tokens.len() as u32);
        row
    }

    #[test]
    fn marks_stand_around_what_is_learned() {
        let tokenizer = tokenizer();
        let said = row(
            &tokenizer,
            &[("<|im_start|>user\nhi<|im_end|>", false), ("the cat<|im_end|>", true), ("\n", false)],
        );
        let text = RowText::new(&tokenizer, Style::Marks).row(&said).expect("text");
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(lines, ["<|im_start|>user↵", "hi<|im_end|>⟦the cat<|im_end|>⟧↵"], "{text}");
        let (tokens, learned) = (said.tokens.len(), said.labelled());
        assert!(
            text.starts_with(&format!("── sequence 1 of 1: {tokens} tokens, {learned} learned ─")),
            "{text}"
        );
    }

    #[test]
    fn colours_end_with_their_line_and_special_tokens_are_inverted() {
        let tokenizer = tokenizer();
        let said = row(&tokenizer, &[("hi\nthere", false), ("<|im_end|>", true)]);
        let text = RowText::new(&tokenizer, Style::Colour).row(&said).expect("text");
        assert!(text.contains("\u{1b}[2mhi↵\u{1b}[0m\n\u{1b}[2mthere\u{1b}[0m"), "{text:?}");
        assert!(text.contains("\u{1b}[32;7m<|im_end|>\u{1b}[0m"), "{text:?}");
    }

    #[test]
    fn data_cannot_steer_the_terminal() {
        assert_eq!(visible("a\u{1b}[2J\u{9b}\u{202e}\tb"), "a␛[2J\u{FFFD}\u{FFFD}⇥b");
    }
}
