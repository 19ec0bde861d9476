//! Which examples stay: by the length and the characters of their texts, without exact duplicates, and without texts of
//! the evaluation data.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::example::{Example, Message};

/// Which characters count as expected ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Charset {
    /// ASCII.
    Ascii,
    /// Letters of Latin alphabets, ASCII, and punctuation and symbols of any kind.
    Latin,
}

impl Charset {
    fn holds(self, c: char) -> bool {
        match self {
            Charset::Ascii => c.is_ascii(),
            // Latin-1 Supplement, Latin Extended-A and -B, IPA, Latin Extended Additional.
            Charset::Latin => !c.is_alphabetic() || matches!(c, '\0'..='\u{2af}' | '\u{1e00}'..='\u{1eff}'),
        }
    }
}

/// Leaves out examples by their texts (of a conversation: all turns together).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TextFilter {
    /// The fewest characters.
    pub min_chars: Option<usize>,
    /// The most characters.
    pub max_chars: Option<usize>,
    /// Expected characters.
    pub charset: Option<Charset>,
    /// The least part of the characters that must be expected ones; 1 when `None`.
    pub min_charset_fraction: Option<f64>,
    /// Leave out examples with an answer that says nothing.
    pub drop_empty_answers: bool,
}

impl TextFilter {
    /// Whether an example stays.
    pub(crate) fn keeps(&self, example: &Example) -> bool {
        if *self == Self::default() {
            return true;
        }
        if self.drop_empty_answers && example.has_empty_answer() {
            return false;
        }
        let (mut chars, mut expected) = (0usize, 0usize);
        for_each_text(example, &mut |text| {
            for c in text.chars() {
                chars += 1;
                expected += usize::from(self.charset.is_none_or(|charset| charset.holds(c)));
            }
        });
        let least = self.min_charset_fraction.unwrap_or(1.0) * chars as f64;
        self.min_chars.is_none_or(|min| chars >= min)
            && self.max_chars.is_none_or(|max| chars <= max)
            && expected as f64 >= least
    }
}

/// Calls `take` with every text of an example.
fn for_each_text(example: &Example, take: &mut dyn FnMut(&str)) {
    let mut turns = |messages: &[Message]| {
        for message in messages {
            texts_of(&message.content, take);
        }
    };
    match example {
        Example::Messages { messages, .. } => turns(messages),
        Example::PromptCompletionMessages { prompt, completion, .. } => {
            turns(prompt);
            turns(completion);
        }
        Example::Text(text) => take(text),
        Example::PromptCompletion { prompt, completion } => {
            take(prompt);
            take(completion);
        }
    }
}

/// Calls `take` with every text inside a JSON value, types of content parts left out.
fn texts_of(value: &Value, take: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => take(text),
        Value::Array(items) => items.iter().for_each(|item| texts_of(item, take)),
        Value::Object(fields) => {
            fields.iter().filter(|(key, _)| *key != "type").for_each(|(_, value)| texts_of(value, take));
        }
        _ => {}
    }
}

/// Finds examples that are equal to an earlier one: 16 bytes of SHA-256 for each different example.
#[derive(Debug, Default)]
pub(crate) struct Deduplication {
    seen: HashSet<u128>,
}

impl Deduplication {
    /// Whether this example is the first of its kind.
    pub(crate) fn is_new(&mut self, example: &Example) -> bool {
        let digest = Sha256::digest(format!("{example:?}"));
        let mut first = [0u8; 16];
        first.copy_from_slice(&digest[..16]);
        self.seen.insert(u128::from_le_bytes(first))
    }
}

/// Runs of words that training data must not share with evaluation data.
///
/// As in Brown et al., "Language Models are Few-Shot Learners" (2020), appendix C: texts in lower case, cut into words
/// at everything that is neither letter nor digit, compared in runs of n words.
#[derive(Debug)]
pub(crate) struct NgramSet {
    n: usize,
    seen: HashSet<u64>,
}

impl NgramSet {
    /// An empty set of runs of `n` words.
    pub(crate) fn new(n: usize) -> Self {
        Self { n: n.max(1), seen: HashSet::new() }
    }

    /// Adds every run of the texts in a row of evaluation data. A shorter text has no run.
    pub(crate) fn add(&mut self, row: &Value) {
        let (n, seen) = (self.n, &mut self.seen);
        texts_of(row, &mut |text| {
            runs(text, n, &mut |run| {
                seen.insert(run);
                false
            });
        });
    }

    /// Whether an example has one of the runs.
    pub(crate) fn touches(&self, example: &Example) -> bool {
        let mut found = false;
        for_each_text(example, &mut |text| {
            found = found || runs(text, self.n, &mut |run| self.seen.contains(&run));
        });
        found
    }
}

/// Calls `take` with a hash of every run of `n` words until it says true; whether it did.
fn runs(text: &str, n: usize, take: &mut dyn FnMut(u64) -> bool) -> bool {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let hashes: Vec<u64> = words.map(|word| fnv(word.chars().flat_map(char::to_lowercase))).collect();
    hashes.windows(n).any(|run| take(run.iter().fold(0, |sum: u64, word| mix(sum ^ word))))
}

/// FNV-1a over characters: short words, no key, the same everywhere.
fn fnv(chars: impl Iterator<Item = char>) -> u64 {
    chars.fold(0xcbf2_9ce4_8422_2325, |hash, c| (hash ^ u64::from(c)).wrapping_mul(0x100_0000_01b3))
}

fn mix(word: u64) -> u64 {
    let word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word ^ (word >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(text: &str) -> Example {
        Example::Text(text.to_owned())
    }

    #[test]
    fn length_and_characters_decide() {
        let filter = TextFilter { min_chars: Some(3), max_chars: Some(5), ..TextFilter::default() };
        let kept: Vec<bool> =
            ["ab", "äbc", "abcde", "abcdef"].iter().map(|t| filter.keeps(&text(t))).collect();
        assert_eq!(kept, [false, true, true, false], "characters, not bytes");
        let ascii = TextFilter { charset: Some(Charset::Ascii), ..TextFilter::default() };
        assert!(ascii.keeps(&text("plain")) && !ascii.keeps(&text("naïve")));
        let most = TextFilter { min_charset_fraction: Some(0.8), ..ascii };
        assert!(most.keeps(&text("naïve")) && !most.keeps(&text("да, yes")));
        let latin = TextFilter { charset: Some(Charset::Latin), ..TextFilter::default() };
        assert!(latin.keeps(&text("naïve – œuvre 1€")) && !latin.keeps(&text("мир")));
        let chat = Example::Messages {
            messages: vec![Message::text("user", "ab"), Message::text("assistant", "cd")],
            extras: Default::default(),
        };
        assert!(filter.keeps(&chat), "all turns count together");
    }

    #[test]
    fn only_the_first_of_equal_examples_is_new() {
        let mut seen = Deduplication::default();
        assert!(seen.is_new(&text("a")) && seen.is_new(&text("b")) && !seen.is_new(&text("a")));
        let pair = |prompt: &str, completion: &str| Example::PromptCompletion {
            prompt: prompt.to_owned(),
            completion: completion.to_owned(),
        };
        assert!(seen.is_new(&pair("a", "bc")) && seen.is_new(&pair("ab", "c")), "the cut counts");
    }

    #[test]
    fn shared_runs_of_words_are_found_whatever_their_spelling() {
        let mut set = NgramSet::new(4);
        set.add(&json!({"question": "How many eggs does Janet sell?", "choices": ["too short"]}));
        assert!(set.touches(&text("so, HOW many... eggs\ndoes he")));
        assert!(!set.touches(&text("how many eggs")) && !set.touches(&text("how many big eggs does Janet")));
        assert!(!set.touches(&text("too short")));
    }
}
