//! From token ids, one at a time, to text that can be shown at once: never half a character, never part of a stop
//! string.

use foundry_formats::{FormatError, Tokenizer};

/// Tokens of a prompt that its answer is decoded after: enough to begin with a whole character.
const CONTEXT: usize = 8;

/// The tokens of those `stops` that are special tokens: these are not part of the text, so that no text ends with them.
pub fn special_stops(tokenizer: &Tokenizer, stops: &[String]) -> Vec<u32> {
    let is_special = |id: &u32| tokenizer.decode(&[*id], true).is_ok_and(|text| text.is_empty());
    stops.iter().filter_map(|stop| tokenizer.token_to_id(stop)).filter(is_special).collect()
}

/// Text of a growing list of tokens.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    stops: Vec<String>,
    ids: Vec<u32>,
    /// Tokens before `settled` are only context: what they said is in `text`.
    context: usize,
    settled: usize,
    text: String,
    /// Bytes of `text` already handed out.
    shown: usize,
    stopped: bool,
}

impl<'a> TextStream<'a> {
    /// Nothing yet. `stops`: texts that end the answer and are not part of it.
    pub fn new(tokenizer: &'a Tokenizer, stops: &[String]) -> Self {
        Self {
            tokenizer,
            stops: stops.iter().filter(|stop| !stop.is_empty()).cloned().collect(),
            ids: Vec::new(),
            context: 0,
            settled: 0,
            text: String::new(),
            shown: 0,
            stopped: false,
        }
    }

    /// Text that goes on from the last of `before`, so that a space at its beginning is not taken for that of a text.
    pub fn after(tokenizer: &'a Tokenizer, stops: &[String], before: &[u32]) -> Self {
        let context = before[before.len().saturating_sub(CONTEXT)..].to_vec();
        Self { settled: context.len(), ids: context, ..Self::new(tokenizer, stops) }
    }

    /// Takes a token and returns the text that can now be shown.
    ///
    /// # Errors
    /// The tokenizer cannot decode it.
    pub fn push(&mut self, id: u32) -> Result<&str, FormatError> {
        self.ids.push(id);
        let before = self.decode(self.context, self.settled)?;
        let after = self.decode(self.context, self.ids.len())?;
        // A character may need several tokens; until it is whole the decoder says U+FFFD.
        if after.len() > before.len() && !after.ends_with('\u{FFFD}') && after.is_char_boundary(before.len())
        {
            self.text.push_str(&after[before.len()..]);
            (self.context, self.settled) = (self.settled, self.ids.len());
        }
        self.cut_at_stop();
        let end = if self.stopped { self.text.len() } else { self.text.len() - self.held_back() };
        Ok(self.show(end))
    }

    /// A stop string has been met.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// What was held back, at the end.
    ///
    /// # Errors
    /// As [`TextStream::push`].
    pub fn finish(&mut self) -> Result<&str, FormatError> {
        if !self.stopped && self.settled < self.ids.len() {
            let before = self.decode(self.context, self.settled)?;
            let after = self.decode(self.context, self.ids.len())?;
            self.text.push_str(after.get(before.len()..).unwrap_or_default());
            self.settled = self.ids.len();
            self.cut_at_stop();
        }
        Ok(self.show(self.text.len()))
    }

    /// All of the text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn show(&mut self, end: usize) -> &str {
        let start = self.shown.min(end);
        self.shown = end.max(self.shown.min(self.text.len()));
        &self.text[start..end]
    }

    fn decode(&self, from: usize, to: usize) -> Result<String, FormatError> {
        self.tokenizer.decode(&self.ids[from..to], true)
    }

    fn cut_at_stop(&mut self) {
        let found = self.stops.iter().filter_map(|stop| self.text.find(stop.as_str())).min();
        if let Some(at) = found {
            self.text.truncate(at);
            self.stopped = true;
        }
    }

    /// Bytes at the end that may be the beginning of a stop string.
    fn held_back(&self) -> usize {
        let longest = |stop: &String| {
            let ends = stop.char_indices().map(|(at, _)| at).rev();
            ends.into_iter().find(|&at| at > 0 && self.text.ends_with(&stop[..at])).unwrap_or(0)
        };
        self.stops.iter().map(longest).max().unwrap_or(0)
    }
}
