//! Tokenizers: `tokenizer.json` with its side files, or the tokenizer inside a GGUF, behind one type.

mod byte_atoms;
mod byte_level;
mod direct;
mod files;
mod from_gguf;
mod guard;
mod pieces;
mod save;
mod sentencepiece;
mod special;
mod to_gguf;
mod word_cache;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

use crate::{FormatError, gguf};
use direct::{Direct, Encoded};
pub use guard::{guarded, panic_is_guarded};
use special::SpecialTokens;

/// Text to token ids and back, as the model's own files define it.
///
/// Wraps the crate `tokenizers` (the one under transformers), so ids equal transformers'; for the usual kinds of
/// byte-level BPE words are cut here and remembered, which is many times faster. Truncation and padding that
/// a `tokenizer.json` may carry are switched off: whoever packs rows decides about lengths. `Sync`: encode from as
/// many threads as you like.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// `tokenizer.json`, or the GGUF it was made from: for messages.
    path: PathBuf,
    special: SpecialTokens,
    chat_template: Option<String>,
    stored: Arc<TokenizerFiles>,
    /// The short way to ids, made with the first text; must be forgotten when `inner` changes.
    direct: OnceLock<Option<Direct>>,
}

/// White-space characters in a row from which on the regex engine of the crate gives up (a million steps back) and
/// takes the rest of the text for one word, without an error.
const MOST_BLANKS: usize = 900_000;
/// Bytes of the longest text (on the short way: of the longest word) for the crate, which takes up to a hundred bytes
/// of memory for each.
const LONGEST_TEXT: usize = 32 << 20;

/// What [`Tokenizer::save`] writes.
#[derive(Clone, Debug)]
pub struct TokenizerFiles {
    /// `tokenizer.json`, byte for byte.
    tokenizer_json: Vec<u8>,
    /// `tokenizer_config.json` as an object, and its original bytes while it is unchanged.
    config: Map<String, Value>,
    config_bytes: Option<Vec<u8>>,
    /// `chat_template.jinja` if it should exist: it did, or the template is not in `config`.
    chat_template_jinja: Option<String>,
    /// Other side files (`special_tokens_map.json`, …), byte for byte.
    others: Vec<(&'static str, Vec<u8>)>,
}

impl Tokenizer {
    /// Reads the tokenizer of a Hugging Face directory: `tokenizer.json` with `tokenizer_config.json`,
    /// `special_tokens_map.json`, `added_tokens.json` and `chat_template.jinja` where they exist.
    ///
    /// # Errors
    /// [`FormatError::NotFound`], [`FormatError::InvalidTokenizer`], [`FormatError::InvalidJson`], [`FormatError::Io`].
    pub fn from_dir(dir: &Path) -> Result<Self, FormatError> {
        files::read_dir(dir)
    }

    /// Reads one `tokenizer.json` without looking at files next to it: no special-token roles, no chat template.
    ///
    /// # Errors
    /// [`FormatError::InvalidTokenizer`], [`FormatError::Io`].
    pub fn from_file(tokenizer_json: &Path) -> Result<Self, FormatError> {
        files::read_file(tokenizer_json)
    }

    /// Builds the tokenizer described by a GGUF file's metadata (kinds `gpt2` and `llama`), with its chat template.
    ///
    /// # Errors
    /// [`FormatError::GgufKeyMissing`], [`FormatError::GgufKey`], [`FormatError::GgufUnsupported`],
    /// [`FormatError::InvalidTokenizer`].
    pub fn from_gguf(gguf: &gguf::Gguf) -> Result<Self, FormatError> {
        from_gguf::build(gguf)
    }

    /// Token ids of a text. `add_special_tokens` applies the tokenizer's own template (BOS, EOS, …); special tokens
    /// written out in the text are recognised either way.
    ///
    /// # Errors
    /// [`FormatError::Tokenization`].
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, FormatError> {
        if let Some(found) = self.directly(text, add_special_tokens, false) {
            return Ok(found.ids);
        }
        self.check_text(text)?;
        let encoding = guarded(|| self.inner.encode_fast(text, add_special_tokens));
        Ok(encoding.map_err(|e| self.failed("encode this text", e))?.get_ids().to_vec())
    }

    /// Token ids and, for each, the byte range of the text it came from (an empty range for added special tokens).
    /// Where a `tokenizer.json` demands it, white space at the ends of tokens is left out of some ranges.
    ///
    /// # Errors
    /// [`FormatError::Tokenization`].
    #[expect(clippy::type_complexity, reason = "two parallel lists, no type worth a name")]
    pub fn encode_with_offsets(
        &self,
        text: &str,
        add_special_tokens: bool,
    ) -> Result<(Vec<u32>, Vec<(usize, usize)>), FormatError> {
        if let Some(Encoded { ids, offsets: Some(offsets) }) = self.directly(text, add_special_tokens, true) {
            return Ok((ids, offsets));
        }
        self.check_text(text)?;
        let encoding = guarded(|| self.inner.encode(text, add_special_tokens));
        let encoding = encoding.map_err(|e| self.failed("encode this text", e))?;
        Ok((encoding.get_ids().to_vec(), encoding.get_offsets().to_vec()))
    }

    /// The short way, where there is one for this tokenizer and this text.
    fn directly(&self, text: &str, add_special_tokens: bool, with_offsets: bool) -> Option<Encoded> {
        let made = || guarded(|| Ok::<_, String>(Direct::of(&self.inner))).unwrap_or_default();
        let direct = self.direct.get_or_init(made).as_ref()?;
        let encode = || Ok::<_, String>(direct.encode(&self.inner, text, add_special_tokens, with_offsets));
        guarded(encode).unwrap_or_default()
    }

    /// Refuses what the crate would encode wrongly without a word, or with all memory.
    fn check_text(&self, text: &str) -> Result<(), FormatError> {
        if text.len() > LONGEST_TEXT {
            let (path, bytes) = (self.path.clone(), text.len());
            return Err(FormatError::TextTooLong { path, bytes, most: LONGEST_TEXT });
        }
        if text.len() < MOST_BLANKS {
            return Ok(());
        }
        let mut run = 0;
        for c in text.chars() {
            run = if c.is_whitespace() { run + 1 } else { 0 };
            if run >= MOST_BLANKS {
                return Err(FormatError::TooManyBlanks { path: self.path.clone(), most: MOST_BLANKS });
            }
        }
        Ok(())
    }

    /// The text of token ids; ids outside the vocabulary are skipped, as transformers does.
    ///
    /// # Errors
    /// [`FormatError::Tokenization`].
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, FormatError> {
        guarded(|| self.inner.decode(ids, skip_special_tokens))
            .map_err(|e| self.failed("decode these ids", e))
    }

    /// The id of a token, written as in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id, written as in the vocabulary.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Number of tokens, added ones included (`len(tokenizer)` in Python).
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Every token, written as in the vocabulary, with its id; by rising id.
    pub fn vocabulary(&self) -> Vec<(u32, String)> {
        let mut tokens: Vec<_> =
            self.inner.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect();
        tokens.sort_unstable();
        tokens
    }

    /// How texts become tokens, in full: added tokens, normaliser, pre-tokeniser, model with its merges,
    /// post-processor, in the canonical spelling of the crate `tokenizers`. `None` for a tokenizer that was made from a
    /// GGUF, whose rules may be spelt in another way and do the same.
    pub fn rules(&self) -> Option<Vec<u8>> {
        const DECIDING: [&str; 5] =
            ["added_tokens", "normalizer", "pre_tokenizer", "model", "post_processor"];
        if self.path.extension().is_none_or(|end| end != "json") {
            return None;
        }
        let all = serde_json::to_value(&self.inner).ok()?;
        let rules: Vec<&Value> = DECIDING.iter().map(|part| &all[*part]).collect();
        serde_json::to_vec(&rules).ok()
    }

    /// Rows that an embedding needs for its tokens: the largest id and one. More than their number where ids are left
    /// out.
    pub fn rows(&self) -> usize {
        self.inner.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1)
    }

    /// The token that begins a sequence.
    pub fn bos_token(&self) -> Option<&str> {
        self.special.get("bos_token")
    }

    /// The token that ends a sequence.
    pub fn eos_token(&self) -> Option<&str> {
        self.special.get("eos_token")
    }

    /// The token for padding.
    pub fn pad_token(&self) -> Option<&str> {
        self.special.get("pad_token")
    }

    /// The token for what the vocabulary cannot express.
    pub fn unk_token(&self) -> Option<&str> {
        self.special.get("unk_token")
    }

    /// The id of [`Tokenizer::eos_token`].
    pub fn eos_token_id(&self) -> Option<u32> {
        self.eos_token().and_then(|t| self.token_to_id(t))
    }

    /// The id of [`Tokenizer::bos_token`].
    pub fn bos_token_id(&self) -> Option<u32> {
        self.bos_token().and_then(|t| self.token_to_id(t))
    }

    /// The named special tokens (`("bos_token", "<s>")`, …) that templates may refer to.
    pub fn special_tokens(&self) -> Vec<(String, String)> {
        self.special.named()
    }

    /// True if `encode(…, true)` puts a BOS token first.
    pub fn adds_bos(&self) -> bool {
        let Some(bos) = self.bos_token_id() else { return false };
        self.encode("a", true).is_ok_and(|ids| ids.first() == Some(&bos))
    }

    /// Makes a token of the vocabulary the one that ends a sequence, in the saved files too.
    ///
    /// # Errors
    /// [`FormatError::UnknownToken`].
    pub fn set_eos_token(&mut self, token: &str) -> Result<(), FormatError> {
        if self.token_to_id(token).is_none() {
            return Err(FormatError::UnknownToken { path: self.path.clone(), token: token.to_owned() });
        }
        self.special.set("eos_token", token);
        let stored = Arc::make_mut(&mut self.stored);
        stored.config.insert("eos_token".to_owned(), Value::from(token));
        stored.config_bytes = None;
        self.direct = OnceLock::new();
        special::apply_bos_eos(&mut self.inner, &self.special, &self.stored.config, &self.path)
    }

    /// Adds tokens that are matched whole (`special`: and left out of decoded text where special tokens are), in the
    /// saved files too. Each gets the next free id; one that is in the vocabulary keeps its own. Returns the ids.
    ///
    /// # Errors
    /// [`FormatError::InvalidTokenizer`] for an empty token, or where the crate `tokenizers` refuses one.
    pub fn add_tokens(&mut self, tokens: &[String], special: bool) -> Result<Vec<u32>, FormatError> {
        self.direct = OnceLock::new();
        let (inner, stored) = (&mut self.inner, &mut Arc::make_mut(&mut self.stored).tokenizer_json);
        special::add_tokens(inner, stored, tokens, special, &self.path)
    }

    /// The Jinja source that renders a conversation.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// Replaces the chat template, in the saved files too.
    pub fn set_chat_template(&mut self, source: String) {
        let stored = Arc::make_mut(&mut self.stored);
        if stored.config.shift_remove("chat_template").is_some() {
            stored.config_bytes = None;
        }
        stored.chat_template_jinja = Some(source.clone());
        self.chat_template = Some(source);
    }

    /// Bytes that can occur in UTF-8 text, but for which a byte-level (or byte-fallback) vocabulary has no token. Text
    /// with such bytes loses them silently when it is encoded: worth a warning. SmolLM2 has some.
    pub fn missing_byte_atoms(&self) -> Vec<u8> {
        byte_atoms::missing(&self.inner)
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json` and, where there is one, `chat_template.jinja` and other side
    /// files; unchanged files are copied byte for byte. Each file is complete or absent.
    /// Flushing the directory to disk is the caller's ([`crate::flush_tree`]).
    ///
    /// # Errors
    /// [`FormatError::Io`].
    pub fn save(&self, dir: &Path) -> Result<(), FormatError> {
        self.stored.save(dir)
    }

    /// What [`Tokenizer::save`] writes, for whoever writes it later.
    pub fn files(&self) -> Arc<TokenizerFiles> {
        Arc::clone(&self.stored)
    }

    fn failed(&self, action: &'static str, problem: String) -> FormatError {
        FormatError::Tokenization { path: self.path.clone(), action, problem }
    }
}

/// Parses a `tokenizer.json`; truncation and padding are switched off.
fn parse(bytes: &[u8], path: &Path) -> Result<tokenizers::Tokenizer, FormatError> {
    let invalid = |problem: String| FormatError::InvalidTokenizer { path: path.to_owned(), problem };
    // The crate panics where the JSON itself is broken inside some components, so the syntax is checked first.
    let json: Value = serde_json::from_slice(bytes)
        .map_err(|e| FormatError::InvalidJson { path: path.to_owned(), problem: e.to_string() })?;
    let mut inner: tokenizers::Tokenizer = serde_json::from_value(json).map_err(|e| {
        invalid(format!("{e}; fetch tokenizer.json again, or write it with a current transformers"))
    })?;
    inner.with_truncation(None).map_err(|e| invalid(format!("{e}; fetch tokenizer.json again")))?;
    inner.with_padding(None);
    Ok(inner)
}
