//! Examples to tokens and labels, on several threads, in order.
//!
//! What is appended, which special tokens are added and which labels are masked is TRL 1.16's `_prepare_dataset`
//! (`trl/trainer/sft_trainer.py`).

use std::borrow::Cow;

use foundry_formats::Tokenizer;
use serde_json::{Map, Value};

use crate::IGNORED;
use crate::chat::ChatTemplate;
use crate::dataset::Sequence;
use crate::error::{DataError, Place};
use crate::example::{ChatExtras, Example, Message};
use crate::mask::common_prefix;
use crate::pipeline::RowId;
use crate::shape::Shape;
use crate::spec::{DataSpec, MultiTurn, TrainOn};
use crate::turns::rewrites_history;

impl Tokenized {
    /// What was tokenised before.
    pub(crate) fn before(sequence: Sequence, bos: Option<u32>) -> Self {
        let double_bos = bos.is_some_and(|bos| sequence.tokens.starts_with(&[bos, bos]));
        Self { sequence, double_bos, ..Self::default() }
    }

    /// What stands for the example that it is of, whatever number of rows that makes.
    pub(crate) fn example(&self) -> RowId {
        let mut first = self.row;
        first.at.offset -= self.since_example.min(first.at.offset);
        first
    }
}

/// Everything that tokenising one example needs.
pub(crate) struct Tokenizing<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    template: Option<ChatTemplate>,
    pub(crate) kwargs: &'a Map<String, Value>,
    completion_only: bool,
    pub(crate) assistant_only: bool,
    pub(crate) train_on: Option<&'a TrainOn>,
    pub(crate) multi_turn: MultiTurn,
    /// Learned turns may end with any token.
    pub(crate) allows_plain_ends: bool,
    /// The template renders plain turns of the assistant differently once later messages follow.
    pub(crate) rewrites: bool,
    /// Texts of the named special tokens.
    pub(crate) special: Vec<String>,
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
    /// A conversation whose earlier turns are rendered differently once later ones follow.
    pub(crate) rewritten: bool,
    /// The first of the rows that a conversation was split into.
    pub(crate) first_of_split: bool,
    /// Turns of the assistant, or their ends, are outside the template's generation tags.
    pub(crate) tags_leave_out: bool,
    /// A learned turn ends with no special token.
    pub(crate) plain_end: bool,
    /// A message had `content: null` and called no tool.
    pub(crate) null_content: bool,
    /// An answer says nothing.
    pub(crate) empty_answer: bool,
    /// It is not the first row of its example.
    pub(crate) continues: bool,
    /// The number of its source.
    pub(crate) source_number: usize,
    /// The number of its file among all files.
    pub(crate) file_number: usize,
    /// Where it stands.
    pub(crate) row: RowId,
    /// Documents of a token file between the first one of its example and this one.
    pub(crate) since_example: u64,
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
        if shape.has_completion() && spec.train_on.is_some() && spec.completion_only_loss == Some(true) {
            return Err(DataError::LearnedTwice);
        }
        let in_two_parts = !shape.is_chat() || shape.has_completion();
        if spec.train_on.is_some() && !shape.is_chat() {
            return Err(DataError::TurnsWithoutChat { key: "train_on", shape });
        }
        if spec.multi_turn != MultiTurn::Whole && in_two_parts {
            return Err(DataError::TurnsWithoutChat { key: "multi_turn", shape });
        }
        let source = spec.chat_template.as_deref().or_else(|| tokenizer.chat_template());
        let template = match (shape.is_chat(), source) {
            (false, _) => None,
            (true, Some(source)) => {
                let compiled = ChatTemplate::compile(source, tokenizer.special_tokens())?;
                Some(spec.rendered_at.into_iter().fold(compiled, ChatTemplate::at))
            }
            (true, None) => return Err(DataError::NoChatTemplate { shape }),
        };
        let append_eos = if spec.append_eos && !shape.is_chat() {
            Some(tokenizer.eos_token().ok_or(DataError::NoEosToken)?)
        } else {
            None
        };
        let mut special: Vec<String> =
            tokenizer.special_tokens().into_iter().map(|(_, token)| token).collect();
        // The longest first: one token may end like another.
        special.sort_by_key(|token| std::cmp::Reverse(token.len()));
        let rewrites =
            template.as_ref().is_some_and(|t| rewrites_history(t, &spec.chat_template_kwargs, &special));
        Ok(Self {
            tokenizer,
            template,
            kwargs: &spec.chat_template_kwargs,
            // Whoever chooses turns means all of the conversation.
            completion_only: spec
                .completion_only_loss
                .unwrap_or(shape.has_completion() && spec.train_on.is_none()),
            assistant_only: spec.assistant_only_loss,
            train_on: spec.train_on.as_ref(),
            multi_turn: spec.multi_turn,
            allows_plain_ends: spec.allow_missing_eos,
            rewrites,
            special,
            append_eos,
            bos: tokenizer.bos_token().and_then(|token| tokenizer.token_to_id(token)),
        })
    }

    /// Whether its template needs threads with much stack.
    pub(crate) fn needs_deep_stack(&self) -> bool {
        self.template.as_ref().is_some_and(ChatTemplate::needs_deep_stack)
    }

    /// Tokenises one example: a row, or several where a conversation is split.
    pub(crate) fn example(&self, example: &Example, place: &Place) -> Result<Vec<Tokenized>, DataError> {
        let mut rows = match example {
            Example::Text(text) => {
                let tokens = self.encode(&self.with_eos(text), place)?;
                vec![Tokenized { sequence: all_labelled(tokens), ..Tokenized::default() }]
            }
            Example::PromptCompletion { prompt, completion } => {
                let before = self.encode(prompt, place)?;
                let whole = self.encode(&format!("{prompt}{}", self.with_eos(completion)), place)?;
                vec![self.after_prompt(&before, all_labelled(whole))]
            }
            Example::Messages { messages, extras } => self.rows(messages, extras, place)?,
            Example::PromptCompletionMessages { prompt, completion, extras } => {
                let messages = [prompt.as_slice(), completion].concat();
                let (before, whole) = self.in_two_parts(&messages, prompt.len(), extras, place)?;
                let (tags_leave_out, plain_end) = (whole.tags_leave_out, whole.plain_end);
                vec![Tokenized { tags_leave_out, plain_end, ..self.after_prompt(&before, whole.sequence) }]
            }
        };
        let null_content = match example {
            Example::Messages { messages, .. } => has_null(messages),
            Example::PromptCompletionMessages { prompt, completion, .. } => {
                has_null(prompt) || has_null(completion)
            }
            Example::Text(_) | Example::PromptCompletion { .. } => false,
        };
        let empty_answer = example.has_empty_answer();
        for row in &mut rows {
            row.double_bos = self.bos.is_some_and(|bos| row.sequence.tokens.starts_with(&[bos, bos]));
            row.null_content = null_content;
            row.empty_answer = empty_answer;
        }
        Ok(rows)
    }

    /// The text, ended by the EOS token's text unless it ends so already.
    fn with_eos<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.append_eos {
            Some(eos) if !text.ends_with(eos) => Cow::Owned(format!("{text}{eos}")),
            _ => Cow::Borrowed(text),
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

    /// The template; `new` has made sure that conversations have one.
    pub(crate) fn template(&self) -> &ChatTemplate {
        self.template.as_ref().expect("conversations are only tokenised with a template")
    }

    pub(crate) fn merged_kwargs(&self, extras: &ChatExtras) -> Map<String, Value> {
        let mut kwargs = self.kwargs.clone();
        kwargs.extend(extras.chat_template_kwargs.iter().map(|(k, v)| (k.clone(), v.clone())));
        kwargs
    }

    /// Plain text: with the special tokens that the tokenizer adds.
    fn encode(&self, text: &str, place: &Place) -> Result<Vec<u32>, DataError> {
        self.tokenizer
            .encode(text, true)
            .map_err(|source| DataError::Tokenizer { place: place.clone(), source: Box::new(source) })
    }

    /// Rendered text: the template has written all special tokens.
    pub(crate) fn tokenize_rendered(&self, text: &str, place: &Place) -> Result<Vec<u32>, DataError> {
        self.tokenizer
            .encode(text, false)
            .map_err(|source| DataError::Tokenizer { place: place.clone(), source: Box::new(source) })
    }
}

pub(crate) fn all_labelled(tokens: Vec<u32>) -> Sequence {
    Sequence { labels: tokens.iter().map(|&t| t as i32).collect(), tokens }
}

fn has_null(messages: &[Message]) -> bool {
    messages.iter().any(|m| m.content.is_null() && m.rest.get("tool_calls").is_none_or(Value::is_null))
}
