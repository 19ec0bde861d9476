//! Single tokens as text.

use foundry_formats::Tokenizer;

/// The texts of a tokenizer's tokens.
pub(super) struct TokenTexts<'a> {
    tokenizer: &'a Tokenizer,
    /// A token and its text: others are decoded after it, so that a space at their beginning is not taken off.
    anchor: Option<(u32, String)>,
}

impl<'a> TokenTexts<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        let anchor = tokenizer.encode(".", false).ok().and_then(|ids| ids.last().copied());
        let anchor = anchor.and_then(|id| Some((id, tokenizer.decode(&[id], false).ok()?)));
        Self { tokenizer, anchor }
    }

    /// The text of a token; one that is no text by itself (part of a character) is called `token_id:N`.
    pub(super) fn one(&self, token: u32) -> String {
        let after = self.anchor.as_ref().and_then(|(anchor, before)| {
            let text = self.tokenizer.decode(&[*anchor, token], false).ok()?;
            text.strip_prefix(before).map(str::to_owned)
        });
        let text = after.or_else(|| self.tokenizer.decode(&[token], false).ok());
        text.filter(|text| !text.contains('\u{FFFD}')).unwrap_or_else(|| format!("token_id:{token}"))
    }

    /// Whether a token is text by itself, not part of a character.
    pub(super) fn is_text(&self, token: u32) -> bool {
        self.tokenizer.decode(&[token], false).is_ok_and(|text| !text.contains('\u{FFFD}'))
    }

    /// Whether it is part of what people see: text, and no special token.
    pub(super) fn is_shown(&self, token: u32) -> bool {
        self.is_text(token) && self.tokenizer.decode(&[token], true).is_ok_and(|text| !text.is_empty())
    }

    /// The text of many tokens.
    pub(super) fn all(&self, tokens: &[u32]) -> String {
        self.tokenizer.decode(tokens, true).unwrap_or_default()
    }
}
