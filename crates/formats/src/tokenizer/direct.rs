//! A short way to the ids of byte-level BPE: words cut by our own scanner, tokens of known words from a cache. Merging
//! stays the crate's.
//!
//! It is taken for the pre-tokenizers that `pieces` knows, where nothing else of the tokenizer looks at more than a
//! word: no normalizer (or NFC and a text that NFC leaves alone), added tokens that match just themselves, a template
//! that puts tokens before and after. Probes are compared with the crate before it is used; for all else the crate
//! encodes.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use tokenizers::{Model, ModelWrapper};

use super::byte_atoms::alphabet;
use super::byte_level;
use super::pieces::Pattern;
use super::word_cache::{LONGEST, WordCache};

/// Texts that must come out as the crate has them, in addition to the added tokens.
const PROBES: [&str; 6] = [
    "",
    " It's  what WE'LL\tsay,\r\n\n  isn't it?  (x=10_000; y)\n\n\n",
    "naïve Œuvre 中文字 한국어 ελληνικά עברית हिन्दी ไทย ² ½ Ⅷ ٣ 1234567",
    "🙂👩‍👩‍👧 \u{a0}\u{2003}\u{3000}x \u{85}\u{b}\u{c}\u{1c}y \u{200b}\u{feff}z 'ſ 'S",
    "e\u{301}\u{323} \u{1e9b}\u{323} \u{0}\u{7f}\u{10ffff} don't DON'T l'été '' 'r 'v 'l",
    "   \n \t \n  if x:\n        return {'a': [1, 22, 333, 4444]}  # …\n",
];
/// Bytes from this one on begin characters that NFC may change (U+0300 and above).
const FIRST_OF_COMBINING: u8 = 0xcc;

/// What the crate would find, found directly.
#[derive(Debug)]
pub(super) struct Direct {
    pattern: Pattern,
    /// Texts are brought into NFC first.
    composes: bool,
    /// Added tokens: those looked for first, and those looked for in what is left.
    added: [Added; 2],
    /// Tokens that the template puts before a text, and after it.
    around: [Vec<u32>; 2],
    /// Caches that no thread uses at the moment.
    caches: Mutex<Vec<WordCache>>,
}

impl Clone for Direct {
    fn clone(&self) -> Self {
        let (added, around) = (self.added.clone(), self.around.clone());
        Self { pattern: self.pattern, composes: self.composes, added, around, caches: Mutex::default() }
    }
}

/// Ids and, where they were asked for, byte ranges of the text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Encoded {
    pub(super) ids: Vec<u32>,
    pub(super) offsets: Option<Vec<(usize, usize)>>,
}

impl Direct {
    /// The short way for a tokenizer; `None` where there is none.
    pub(super) fn of(inner: &tokenizers::Tokenizer) -> Option<Self> {
        let ModelWrapper::BPE(bpe) = inner.get_model() else { return None };
        let draws = bpe.dropout.is_some_and(|dropout| dropout != 0.0);
        let affix = |affix: &Option<String>| affix.as_ref().is_some_and(|affix| !affix.is_empty());
        if draws || affix(&bpe.continuing_subword_prefix) || affix(&bpe.end_of_word_suffix) {
            return None;
        }
        let value = |part: Result<Value, serde_json::Error>| part.ok();
        let composes = match inner.get_normalizer() {
            None => false,
            Some(normalizer) if value(serde_json::to_value(normalizer))?["type"] == "NFC" => true,
            Some(_) => return None,
        };
        let pre_tokenizer = value(serde_json::to_value(inner.get_pre_tokenizer()?))?;
        let pattern = match byte_level::pre_of(&json!({ "pre_tokenizer": pre_tokenizer })).ok()?.name {
            "gpt-2" => Pattern::Gpt2,
            "smollm" => Pattern::DigitsGpt2,
            "llama-bpe" => Pattern::Llama3,
            "qwen2" => Pattern::Qwen2,
            _ => return None,
        };
        let around = match inner.get_post_processor() {
            None => Default::default(),
            Some(processor) => around(&value(serde_json::to_value(processor))?)?,
        };
        let direct =
            Self { pattern, composes, added: added(inner, composes)?, around, caches: Mutex::default() };
        direct.agrees(inner).then_some(direct)
    }

    /// Whether the probes have the crate's ids.
    fn agrees(&self, inner: &tokenizers::Tokenizer) -> bool {
        let mut probes: Vec<String> = PROBES.iter().map(|probe| (*probe).to_owned()).collect();
        let tokens = self.added.iter().flat_map(|added| added.ids.keys());
        let mut tokens: Vec<&str> = tokens.filter_map(|token| std::str::from_utf8(token).ok()).collect();
        tokens.sort_unstable();
        tokens.truncate(100);
        probes.push(tokens.iter().map(|token| format!("{token}a {token}\n{token}{token}")).collect());
        probes.iter().all(|text| {
            [false, true].into_iter().all(|special| match self.encode(inner, text, special, false) {
                Some(found) => {
                    inner.encode_fast(text.as_str(), special).is_ok_and(|e| e.get_ids() == found.ids)
                }
                None => true,
            })
        })
    }

    /// Ids of a text, with the byte range of each if `with_offsets`; `None` where only the crate can tell.
    pub(super) fn encode(
        &self,
        inner: &tokenizers::Tokenizer,
        text: &str,
        add_special_tokens: bool,
        with_offsets: bool,
    ) -> Option<Encoded> {
        if self.composes && text.bytes().any(|byte| byte >= FIRST_OF_COMBINING) {
            return None;
        }
        let mut cache = self.caches().pop().unwrap_or_else(WordCache::new);
        let encoded = Encoded {
            ids: Vec::with_capacity(text.len() / 3),
            offsets: with_offsets.then(|| Vec::with_capacity(text.len() / 3)),
        };
        let mut encoding = Encoding { direct: self, inner, text, cache: &mut cache, encoded };
        let [before, after] = &self.around;
        if add_special_tokens {
            encoding.outside(before);
        }
        let is_known = encoding.parts(0..text.len(), &self.added);
        if add_special_tokens {
            encoding.outside(after);
        }
        let encoded = encoding.encoded;
        self.caches().push(cache);
        is_known.then_some(encoded)
    }

    fn caches(&self) -> std::sync::MutexGuard<'_, Vec<WordCache>> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A text on its way to ids.
struct Encoding<'a> {
    direct: &'a Direct,
    inner: &'a tokenizers::Tokenizer,
    text: &'a str,
    cache: &'a mut WordCache,
    encoded: Encoded,
}

impl Encoding<'_> {
    /// Tokens that no part of the text stands for.
    fn outside(&mut self, ids: &[u32]) {
        ids.iter().for_each(|&id| self.push(id, 0, 0));
    }

    fn push(&mut self, id: u32, start: usize, end: usize) {
        self.encoded.ids.push(id);
        if let Some(offsets) = &mut self.encoded.offsets {
            offsets.push((start, end));
        }
    }

    /// A part of the text, in which the added tokens are still to be found; false where only the crate can tell.
    fn parts(&mut self, part: std::ops::Range<usize>, added: &[Added]) -> bool {
        let Some((first, rest)) = added.split_first() else { return self.words(part) };
        let mut start = part.start;
        while let Some((at, end, id)) = first.find(&self.text.as_bytes()[..part.end], start) {
            if !self.parts(start..at, rest) {
                return false;
            }
            self.push(id, at, end);
            start = end;
        }
        self.parts(start..part.end, rest)
    }

    /// A part of the text without added tokens.
    fn words(&mut self, part: std::ops::Range<usize>) -> bool {
        let base = part.start;
        let text = &self.text[part];
        self.direct.pattern.words(text, |at, word| self.word(text, base, at, word))
    }

    fn word(&mut self, text: &str, base: usize, at: usize, word: &str) -> bool {
        let bytes = word.as_bytes();
        let known = if bytes.len() > LONGEST { None } else { self.cache.get(bytes) };
        if let Some(tokens) = known {
            self.encoded.ids.extend_from_slice(tokens.ids);
            let Some(offsets) = &mut self.encoded.offsets else { return true };
            let mut start = at;
            for len in tokens.lens {
                let end = start + usize::from(*len);
                offsets.push(in_characters(text, base, start, end));
                start = end;
            }
            return tokens.is_covered;
        }
        // The crate's merger has some 32 bytes for each byte of a word.
        if bytes.len() > super::LONGEST_TEXT {
            return false;
        }
        let Some(merged) = Merged::of(self.inner, word) else { return false };
        if bytes.len() <= LONGEST && merged.ids.len() <= LONGEST {
            let lens: Vec<u8> = merged.lens.iter().map(|&len| len.min(LONGEST) as u8).collect();
            self.cache.insert(bytes, &merged.ids, &lens, merged.is_covered);
        }
        let mut start = at;
        for (&id, &len) in merged.ids.iter().zip(&merged.lens) {
            let end = start + len;
            // Where bytes have no token the lengths mean nothing, and offsets are not asked for here.
            let (from, to) =
                if merged.is_covered { in_characters(text, base, start, end) } else { (base, base) };
            self.push(id, from, to);
            start = end;
        }
        merged.is_covered || self.encoded.offsets.is_none()
    }
}

/// The characters that a range of bytes touches, as a range of the whole text that begins `base` bytes earlier.
fn in_characters(text: &str, base: usize, mut start: usize, mut end: usize) -> (usize, usize) {
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    while !text.is_char_boundary(end) {
        end += 1;
    }
    (base + start, base + end)
}

/// The tokens that a word is merged to.
struct Merged {
    ids: Vec<u32>,
    /// Bytes of the word that each is.
    lens: Vec<usize>,
    /// Every byte belongs to a token.
    is_covered: bool,
}

impl Merged {
    /// As the crate merges the word; `None` if it refuses.
    fn of(inner: &tokenizers::Tokenizer, word: &str) -> Option<Self> {
        let spelling = alphabet();
        let spelled: String = word.bytes().map(|byte| spelling[usize::from(byte)]).collect();
        let tokens = inner.get_model().tokenize(&spelled).ok()?;
        let mut end = 0;
        let mut is_covered = true;
        let mut lens = Vec::with_capacity(tokens.len());
        for token in &tokens {
            let (from, to) = token.offsets;
            // Of a letter of two bytes that falls back, each byte is a token: half a byte of the word.
            is_covered &= from == end && spelled.is_char_boundary(from) && spelled.is_char_boundary(to);
            // Each character of the spelling is a byte of the word.
            lens.push(spelled.get(from..to).map_or(0, |part| part.chars().count()));
            end = to;
        }
        let is_covered = is_covered && end == spelled.len();
        Some(Self { ids: tokens.iter().map(|token| token.id).collect(), lens, is_covered })
    }
}

/// Added tokens: the leftmost one counts, and of those that begin there the longest.
#[derive(Clone, Debug, Default)]
struct Added {
    ids: HashMap<Vec<u8>, u32>,
    /// Whether a token begins with this byte.
    begins: Vec<bool>,
    /// By first byte: the lengths that occur, longest first.
    lengths: Vec<Vec<usize>>,
}

impl Added {
    fn new(tokens: Vec<(String, u32)>) -> Self {
        let mut lengths = vec![BTreeSet::new(); 256];
        let mut ids = HashMap::new();
        for (token, id) in tokens {
            lengths[usize::from(token.as_bytes()[0])].insert(token.len());
            ids.insert(token.into_bytes(), id);
        }
        let begins = lengths.iter().map(|lengths| !lengths.is_empty()).collect();
        Self {
            ids,
            begins,
            lengths: lengths.into_iter().map(|set| set.into_iter().rev().collect()).collect(),
        }
    }

    /// Start, end and id of the first one from `start`.
    fn find(&self, text: &[u8], start: usize) -> Option<(usize, usize, u32)> {
        if self.ids.is_empty() {
            return None;
        }
        let begins: &[bool; 256] = self.begins.as_slice().try_into().ok()?;
        for (at, &byte) in text.iter().enumerate().skip(start).filter(|(_, byte)| begins[usize::from(**byte)])
        {
            for &length in &self.lengths[usize::from(byte)] {
                let id = text.get(at..at + length).and_then(|token| self.ids.get(token));
                if let Some(&id) = id {
                    return Some((at, at + length, id));
                }
            }
        }
        None
    }
}

/// The added tokens of a tokenizer; `None` where one looks at what is around it.
fn added(inner: &tokenizers::Tokenizer, composes: bool) -> Option<[Added; 2]> {
    if inner.get_encode_special_tokens() {
        return None;
    }
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for (id, token) in inner.get_added_tokens_decoder() {
        let may_change = composes && token.content.bytes().any(|byte| byte >= FIRST_OF_COMBINING);
        if token.single_word || token.lstrip || token.rstrip || may_change || token.content.is_empty() {
            return None;
        }
        if token.normalized { &mut second } else { &mut first }.push((token.content, id));
    }
    Some([Added::new(first), Added::new(second)])
}

/// What a post-processor puts before and after a text, if that is all it does to ids.
fn around(processor: &Value) -> Option<[Vec<u32>; 2]> {
    let nothing = || Some([Vec::new(), Vec::new()]);
    match processor["type"].as_str()? {
        "ByteLevel" => nothing(),
        "Sequence" => {
            let parts = processor["processors"].as_array()?;
            let mut templates = parts.iter().filter(|part| part["type"] != "ByteLevel");
            match (templates.next(), templates.next()) {
                (None, _) => nothing(),
                (Some(template), None) if template["type"] == "TemplateProcessing" => around(template),
                _ => None,
            }
        }
        "TemplateProcessing" => {
            let mut found = [Vec::new(), Vec::new()];
            let mut texts = 0;
            for piece in processor["single"].as_array()? {
                if let Some(token) = piece["SpecialToken"]["id"].as_str() {
                    let ids = processor["special_tokens"][token]["ids"].as_array()?;
                    for id in ids {
                        found[texts.min(1)].push(u32::try_from(id.as_u64()?).ok()?);
                    }
                } else {
                    texts += usize::from(piece["Sequence"]["id"] == "A");
                }
            }
            (texts == 1).then_some(found)
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "direct_tests.rs"]
mod tests;
