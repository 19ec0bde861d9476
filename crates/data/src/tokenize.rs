//! Examples to tokens and labels, on several threads, in order.
//!
//! What is appended, which special tokens are added and which labels are masked is TRL 1.16's `_prepare_dataset`
//! (`trl/trainer/sft_trainer.py`).

use std::path::Path;
use std::sync::Arc;

use foundry_formats::Tokenizer;
use serde_json::{Map, Value};

use crate::IGNORED;
use crate::chat::ChatTemplate;
use crate::dataset::Sequence;
use crate::error::{DataError, Place};
use crate::example::{ChatExtras, Example, Message};
use crate::mask::{SpanProblem, common_prefix, ends_with_special, spans_by_prefix, tokens_in_spans};
use crate::shape::Shape;
use crate::spec::DataSpec;

/// Everything that tokenising one example needs.
pub(crate) struct Tokenizing<'a> {
    tokenizer: &'a Tokenizer,
    template: Option<ChatTemplate>,
    kwargs: &'a Map<String, Value>,
    completion_only: bool,
    assistant_only: bool,
    append_eos: Option<&'a str>,
    bos: Option<u32>,
}

/// A tokenised example and what was noticed on the way.
#[derive(Debug, Default)]
pub(crate) struct Tokenized {
    /// Tokens and labels, not yet truncated.
    pub(crate) sequence: Sequence,
    /// The prompt's tokens are no prefix of the whole.
    pub(crate) prompt_not_prefix: bool,
    /// It begins with two BOS tokens.
    pub(crate) double_bos: bool,
    /// A message had `content: null`.
    pub(crate) null_content: bool,
    /// The file it comes from.
    pub(crate) source: Option<Arc<Path>>,
}

impl<'a> Tokenizing<'a> {
    /// Checks the settings against the shape of the data and compiles the template.
    pub(crate) fn new(spec: &'a DataSpec, tokenizer: &'a Tokenizer, shape: Shape) -> Result<Self, DataError> {
        if spec.completion_only_loss == Some(true) && !shape.has_completion() {
            return Err(DataError::CompletionOnlyWithoutCompletion { shape });
        }
        if spec.assistant_only_loss && !shape.is_chat() {
            return Err(DataError::AssistantOnlyWithoutChat { shape });
        }
        let source = spec.chat_template.as_deref().or_else(|| tokenizer.chat_template());
        let template = match (shape.is_chat(), source) {
            (false, _) => None,
            (true, Some(source)) => Some(ChatTemplate::compile(source, tokenizer.special_tokens())?),
            (true, None) => return Err(DataError::NoChatTemplate { shape }),
        };
        let append_eos = if spec.append_eos && !shape.is_chat() {
            Some(tokenizer.eos_token().ok_or(DataError::NoEosToken)?)
        } else {
            None
        };
        Ok(Self {
            tokenizer,
            template,
            kwargs: &spec.chat_template_kwargs,
            completion_only: spec.completion_only_loss.unwrap_or(shape.has_completion()),
            assistant_only: spec.assistant_only_loss,
            append_eos,
            bos: tokenizer.bos_token().and_then(|token| tokenizer.token_to_id(token)),
        })
    }

    /// Tokenises one example.
    pub(crate) fn example(&self, example: &Example, place: &Place) -> Result<Tokenized, DataError> {
        let mut out = match example {
            Example::Text(text) => {
                let tokens = self.encode(&self.with_eos(text), place)?;
                Tokenized { sequence: all_labelled(tokens), ..Tokenized::default() }
            }
            Example::PromptCompletion { prompt, completion } => {
                let before = self.encode(prompt, place)?;
                let whole = self.encode(&format!("{prompt}{}", self.with_eos(completion)), place)?;
                self.after_prompt(&before, all_labelled(whole))
            }
            Example::Messages { messages, extras } => {
                let sequence = self.conversation(messages, extras, place)?;
                Tokenized { sequence, null_content: has_null(messages), ..Tokenized::default() }
            }
            Example::PromptCompletionMessages { prompt, completion, extras } => {
                let before = self.render(prompt, extras, true, place)?.text;
                let before = self.tokenize_rendered(&before, place)?;
                let messages = [prompt.as_slice(), completion].concat();
                let mut out = self.after_prompt(&before, self.conversation(&messages, extras, place)?);
                out.null_content = has_null(&messages);
                out
            }
        };
        let tokens = &out.sequence.tokens;
        out.double_bos = self.bos.is_some_and(|bos| tokens.starts_with(&[bos, bos]));
        out.source = Some(Arc::clone(&place.path));
        Ok(out)
    }

    /// The text, ended by the EOS token's text unless it ends so already.
    fn with_eos(&self, text: &str) -> String {
        match self.append_eos {
            Some(eos) if !text.ends_with(eos) => format!("{text}{eos}"),
            _ => text.to_owned(),
        }
    }

    /// Masks the labels of the prompt: the tokens that `before` and the whole share.
    fn after_prompt(&self, before: &[u32], mut sequence: Sequence) -> Tokenized {
        let start = common_prefix(before, &sequence.tokens);
        if self.completion_only {
            sequence.labels[..start].fill(IGNORED);
        }
        Tokenized { sequence, prompt_not_prefix: start < before.len(), ..Tokenized::default() }
    }

    /// A whole conversation; with `assistant_only_loss` only the assistant's tokens have labels.
    fn conversation(
        &self,
        messages: &[Message],
        extras: &ChatExtras,
        place: &Place,
    ) -> Result<Sequence, DataError> {
        let rendered = self.render(messages, extras, false, place)?;
        if !self.assistant_only {
            return Ok(all_labelled(self.tokenize_rendered(&rendered.text, place)?));
        }
        let encoded = self.tokenizer.encode_with_offsets(&rendered.text, false);
        let (tokens, offsets) = encoded
            .map_err(|source| DataError::Tokenizer { place: place.clone(), source: Box::new(source) })?;
        let template = self.template();
        let spans = if template.has_generation_tags() {
            rendered.assistant_spans
        } else {
            let kwargs = self.merged_kwargs(extras);
            let spans = spans_by_prefix(template, messages, extras, &kwargs, &rendered.text)
                .map_err(|problem| span_error(problem, place))?;
            self.check_ends(&tokens, &offsets, &spans, messages, place)?;
            spans
        };
        let learned = tokens_in_spans(&offsets, &spans);
        if !learned.contains(&true) {
            return Err(DataError::NoAssistantTokens { place: place.clone() });
        }
        let label = |(&token, learned): (&u32, bool)| if learned { token as i32 } else { IGNORED };
        let labels = tokens.iter().zip(learned).map(label).collect();
        Ok(Sequence { tokens, labels })
    }

    /// Each span found by prefixes must hold the token that ends the turn, or the model would not learn to stop.
    fn check_ends(
        &self,
        tokens: &[u32],
        offsets: &[(usize, usize)],
        spans: &[std::ops::Range<usize>],
        messages: &[Message],
        place: &Place,
    ) -> Result<(), DataError> {
        let assistants = messages.iter().enumerate().filter(|(_, m)| m.role == "assistant");
        for ((message, _), span) in assistants.zip(spans) {
            if !ends_with_special(self.tokenizer, tokens, offsets, span) {
                let problem = "the template does not end this turn with a special token";
                return Err(DataError::NotPrefixPreserving { place: place.clone(), message, problem });
            }
        }
        Ok(())
    }

    /// The template; `new` has made sure that conversations have one.
    fn template(&self) -> &ChatTemplate {
        self.template.as_ref().expect("conversations are only tokenised with a template")
    }

    fn merged_kwargs(&self, extras: &ChatExtras) -> Map<String, Value> {
        let mut kwargs = self.kwargs.clone();
        kwargs.extend(extras.chat_template_kwargs.iter().map(|(k, v)| (k.clone(), v.clone())));
        kwargs
    }

    fn render(
        &self,
        messages: &[Message],
        extras: &ChatExtras,
        add_generation_prompt: bool,
        place: &Place,
    ) -> Result<crate::chat::Rendered, DataError> {
        let kwargs = self.merged_kwargs(extras);
        self.template()
            .render(messages, extras.tools.as_ref(), add_generation_prompt, &kwargs)
            .map_err(|source| DataError::Render { place: place.clone(), source })
    }

    /// Plain text: with the special tokens that the tokenizer adds.
    fn encode(&self, text: &str, place: &Place) -> Result<Vec<u32>, DataError> {
        self.tokenizer
            .encode(text, true)
            .map_err(|source| DataError::Tokenizer { place: place.clone(), source: Box::new(source) })
    }

    /// Rendered text: the template has written all special tokens.
    fn tokenize_rendered(&self, text: &str, place: &Place) -> Result<Vec<u32>, DataError> {
        self.tokenizer
            .encode(text, false)
            .map_err(|source| DataError::Tokenizer { place: place.clone(), source: Box::new(source) })
    }
}

fn all_labelled(tokens: Vec<u32>) -> Sequence {
    Sequence { labels: tokens.iter().map(|&t| t as i32).collect(), tokens }
}

fn has_null(messages: &[Message]) -> bool {
    messages.iter().any(|m| m.content.is_null())
}

fn span_error(problem: SpanProblem, place: &Place) -> DataError {
    let place = place.clone();
    match problem {
        SpanProblem::Template(source) => DataError::Render { place, source },
        SpanProblem::NotPrefixPreserving { message, problem } => {
            DataError::NotPrefixPreserving { place, message, problem }
        }
    }
}
