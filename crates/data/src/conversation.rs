//! Conversations to tokens and labels: one row, or one for each learned turn.

use std::ops::Range;
use std::rc::Rc;

use crate::IGNORED;
use crate::chat::Rendered;
use crate::dataset::Sequence;
use crate::error::{DataError, Place};
use crate::example::{ChatExtras, Message};
use crate::mask::{common_prefix, ends_with_special, tokens_in_spans};
use crate::spec::{MultiTurn, TrainOn};
use crate::tokenize::{Tokenized, Tokenizing, all_labelled};
use crate::turns::{Renderings, TurnProblem, Turns};

const ASSISTANT: &str = "assistant";
const NO_SPECIAL_END: &str = "the template does not end this turn with a special token (one that the tokenizer does not \
                              know as such is named under `tokenizer.add_special_tokens`; `allow_missing_eos: true` \
                              takes turns as they end)";

/// A conversation with its labels.
pub(crate) struct Masked {
    pub(crate) sequence: Sequence,
    /// Turns of the assistant, or their ends, are outside the template's tags.
    pub(crate) tags_leave_out: bool,
    /// A learned turn ends with no special token, which was allowed.
    pub(crate) plain_end: bool,
}

impl From<Masked> for Tokenized {
    fn from(masked: Masked) -> Self {
        let Masked { sequence, tags_leave_out, plain_end } = masked;
        Self { sequence, tags_leave_out, plain_end, ..Self::default() }
    }
}

impl From<Sequence> for Masked {
    fn from(sequence: Sequence) -> Self {
        Self { sequence, tags_leave_out: false, plain_end: false }
    }
}

/// A conversation, or its beginning, and what renders it.
#[derive(Clone, Copy)]
pub(crate) struct Conversation<'a> {
    pub(crate) messages: &'a [Message],
    renderings: &'a Renderings<'a>,
    place: &'a Place,
}

impl Tokenizing<'_> {
    /// The rows of a conversation.
    pub(crate) fn rows(
        &self,
        messages: &[Message],
        extras: &ChatExtras,
        place: &Place,
    ) -> Result<Vec<Tokenized>, DataError> {
        let renderings = self.renderings(messages, extras, place)?;
        let chat = Conversation { messages, renderings: &renderings, place };
        let rendered = chat.whole()?;
        let rewritten = self.rewritten(&chat, &rendered)?;
        let split = match (self.multi_turn, rewritten) {
            (MultiTurn::Split, _) | (MultiTurn::Auto, Some(_)) => true,
            (MultiTurn::Refuse, Some(message)) => {
                return Err(DataError::RewrittenTurns { place: place.clone(), message });
            }
            _ => false,
        };
        if split {
            return self.split(&chat);
        }
        let learned = self.learned_turns(messages);
        match self.masked(&chat, &rendered, learned.as_deref()) {
            Ok(masked) => Ok(vec![Tokenized { rewritten: rewritten.is_some(), ..masked.into() }]),
            // Where only the last turn is learned, its row is the whole conversation.
            Err(DataError::NotPrefixPreserving { problem, .. })
                if self.multi_turn == MultiTurn::Auto
                    || (problem != NO_SPECIAL_END
                        && learned.is_some_and(|learned| is_last_only(&learned))) =>
            {
                self.split(&chat)
            }
            Err(error) => Err(error),
        }
    }

    /// A conversation as one row, whatever `multi_turn` says, one that comes in two parts: its first `prompt` messages
    /// with the header of the answer, and all of it.
    pub(crate) fn in_two_parts(
        &self,
        messages: &[Message],
        prompt: usize,
        extras: &ChatExtras,
        place: &Place,
    ) -> Result<(Vec<u32>, Masked), DataError> {
        let renderings = self.renderings(messages, extras, place)?;
        let chat = Conversation { messages, renderings: &renderings, place };
        let before = self.tokenize_rendered(&chat.first(prompt, true)?.text, place)?;
        let rendered = chat.whole()?;
        Ok((before, self.masked(&chat, &rendered, self.learned_turns(messages).as_deref())?))
    }

    fn renderings(
        &self,
        messages: &[Message],
        extras: &ChatExtras,
        place: &Place,
    ) -> Result<Renderings<'_>, DataError> {
        let open = match extras.chat_template_kwargs.is_empty() {
            true => self.template().open(messages, extras.tools.as_ref(), self.kwargs),
            false => self.template().open(messages, extras.tools.as_ref(), &self.merged_kwargs(extras)),
        };
        open.map(Renderings::new).map_err(|source| DataError::Render { place: place.clone(), source })
    }

    fn turns<'t>(&'t self, chat: &Conversation<'t>, whole: &'t str) -> Turns<'t> {
        Turns { renderings: chat.renderings, messages: chat.messages, whole, special: &self.special }
    }

    /// The first turn of the assistant that later messages change. Only looked for where it may happen: the template
    /// changes plain turns, or there are thoughts to leave out.
    fn rewritten(&self, chat: &Conversation, rendered: &Rendered) -> Result<Option<usize>, DataError> {
        let assistants = chat.messages.iter().filter(|m| m.role == ASSISTANT);
        let thoughts = |m: &Message| {
            m.rest.keys().any(|key| key.contains("reason") || key.contains("think"))
                || m.content.as_str().is_some_and(|text| text.contains("</"))
        };
        if assistants.clone().count() < 2 || !(self.rewrites || assistants.clone().any(thoughts)) {
            return Ok(None);
        }
        let turns = self.turns(chat, &rendered.text);
        turns.rewritten().map_err(|problem| placed(problem, chat.place))
    }

    /// Which turns are learned; `None`: everything is, but for what messages say themselves.
    fn learned_turns(&self, messages: &[Message]) -> Option<Vec<bool>> {
        let last = messages.iter().rposition(|m| m.role == ASSISTANT);
        let chosen = |(index, message): (usize, &Message)| match self.train_on {
            Some(TrainOn::Last) => Some(index) == last,
            Some(TrainOn::Roles(roles)) => roles.contains(&message.role),
            Some(TrainOn::All) | None => message.role == ASSISTANT,
        };
        let masks = self.train_on.is_some() || self.assistant_only;
        let learned = |at: (usize, &Message)| at.1.learn.unwrap_or_else(|| chosen(at));
        masks.then(|| messages.iter().enumerate().map(learned).collect())
    }

    /// A rendered conversation as tokens with labels where `learned` says so.
    fn masked(
        &self,
        chat: &Conversation,
        rendered: &Rendered,
        learned: Option<&[bool]>,
    ) -> Result<Masked, DataError> {
        let hides = |m: &Message| m.learn == Some(false);
        if learned.is_none() && !chat.messages.iter().any(hides) {
            return Ok(all_labelled(self.tokenize_rendered(&rendered.text, chat.place)?).into());
        }
        let turns = self.turns(chat, &rendered.text);
        let problem = |problem| placed(problem, chat.place);
        let encoded = self.tokenizer.encode_with_offsets(&rendered.text, false);
        let (tokens, offsets) = encoded
            .map_err(|source| DataError::Tokenizer { place: chat.place.clone(), source: Box::new(source) })?;
        let (mut tags_leave_out, mut plain_end) = (false, false);
        let kept = match learned {
            Some(learned) => {
                tags_leave_out = self.tags_leave_out(chat.messages, rendered, &tokens, &offsets);
                let spans = self.spans(&turns, rendered, learned).map_err(problem)?;
                plain_end = self.has_plain_end(&turns, learned, &tokens, &offsets, &spans, chat.place)?;
                let spans: Vec<Range<usize>> = spans.into_iter().map(|(_, span)| span).collect();
                tokens_in_spans(&offsets, &spans)
            }
            None => {
                let hidden = chat.messages.iter().enumerate().filter(|(_, m)| hides(m));
                let spans: Result<Vec<_>, _> = hidden.map(|(index, _)| turns.extent(index)).collect();
                tokens_in_spans(&offsets, &spans.map_err(problem)?)
                    .into_iter()
                    .map(|inside| !inside)
                    .collect()
            }
        };
        // A row may well say that nothing of it is learned, and roles need not speak in each; it is dropped and
        // counted.
        let is_meant = matches!(self.train_on, Some(TrainOn::Roles(_)))
            || chat.messages.iter().any(|m| m.learn.is_some());
        if !kept.contains(&true) && !is_meant {
            return Err(DataError::NoAssistantTokens { place: chat.place.clone() });
        }
        let label = |(&token, kept): (&u32, bool)| if kept { token as i32 } else { IGNORED };
        let labels = tokens.iter().zip(kept).map(label).collect();
        Ok(Masked { sequence: Sequence { tokens, labels }, tags_leave_out, plain_end })
    }

    /// The learned spans of the text, each with its message (for tags: the first learned one).
    fn spans(
        &self,
        turns: &Turns,
        rendered: &Rendered,
        learned: &[bool],
    ) -> Result<Vec<(usize, Range<usize>)>, TurnProblem> {
        let is_assistant = |index: usize| turns.messages[index].role == ASSISTANT;
        let chosen: Vec<usize> = (0..learned.len()).filter(|&index| learned[index]).collect();
        let tags = self.template().has_generation_tags();
        let assistants: Vec<usize> = (0..learned.len()).filter(|&index| is_assistant(index)).collect();
        if tags && chosen == assistants {
            return Ok(rendered.assistant_spans.iter().map(|span| (0, span.clone())).collect());
        }
        let mut spans = Vec::new();
        for index in chosen {
            if !(tags && is_assistant(index)) {
                spans.push((index, turns.learned(index)?));
                continue;
            }
            match turns.extent(index) {
                Ok(extent) => {
                    let inside = rendered
                        .assistant_spans
                        .iter()
                        .map(|span| span.start.max(extent.start)..span.end.min(extent.end));
                    spans.extend(inside.filter(|span| !span.is_empty()).map(|span| (index, span)));
                }
                // Rendered as it is, the tags still tell the turns apart where there is one for each.
                Err(TurnProblem::NotPrefixPreserving { .. })
                    if rendered.assistant_spans.len() == assistants.len() =>
                {
                    let nth = assistants.iter().take_while(|&&at| at < index).count();
                    spans.push((index, rendered.assistant_spans[nth].clone()));
                }
                Err(other) => return Err(other),
            }
        }
        Ok(spans)
    }

    /// Whether the template's tags mark fewer turns than the assistant has, or not the token that ends the last one.
    fn tags_leave_out(
        &self,
        messages: &[Message],
        rendered: &Rendered,
        tokens: &[u32],
        offsets: &[(usize, usize)],
    ) -> bool {
        let turns = messages.iter().filter(|message| message.role == ASSISTANT).count();
        let spans = &rendered.assistant_spans;
        let ends = |span| ends_with_special(self.tokenizer, tokens, offsets, span);
        self.template().has_generation_tags() && (spans.len() < turns || !spans.last().is_none_or(ends))
    }

    /// Each turn of the assistant found without tags must hold the token that ends it, or the model would not learn to
    /// stop; whether one does not, where that is allowed.
    fn has_plain_end(
        &self,
        turns: &Turns,
        learned: &[bool],
        tokens: &[u32],
        offsets: &[(usize, usize)],
        spans: &[(usize, Range<usize>)],
        place: &Place,
    ) -> Result<bool, DataError> {
        if self.template().has_generation_tags() || learned.is_empty() {
            return Ok(false);
        }
        for (message, span) in spans.iter().filter(|(index, _)| turns.messages[*index].role == ASSISTANT) {
            if !ends_with_special(self.tokenizer, tokens, offsets, span) {
                if self.allows_plain_ends {
                    return Ok(true);
                }
                let problem = NO_SPECIAL_END;
                return Err(DataError::NotPrefixPreserving {
                    place: place.clone(),
                    message: *message,
                    problem,
                });
            }
        }
        Ok(false)
    }

    /// A row for each learned turn: the conversation up to it, of which only it is learned.
    fn split(&self, chat: &Conversation) -> Result<Vec<Tokenized>, DataError> {
        let messages = chat.messages;
        let of_assistant = |m: &Message| m.learn.unwrap_or(m.role == ASSISTANT);
        let learned =
            self.learned_turns(messages).unwrap_or_else(|| messages.iter().map(of_assistant).collect());
        let mut rows = Vec::new();
        for index in (0..messages.len()).filter(|&index| learned[index]) {
            let part = Conversation { messages: &messages[..=index], ..*chat };
            rows.push(self.last_turn(&part)?);
        }
        if rows.is_empty() && !messages.iter().any(|m| m.learn.is_some()) {
            return Err(DataError::NoAssistantTokens { place: chat.place.clone() });
        }
        if rows.len() > 1 {
            rows[0].first_of_split = true;
        }
        Ok(rows)
    }

    /// A conversation of whose turns only the last is learned.
    fn last_turn(&self, chat: &Conversation) -> Result<Tokenized, DataError> {
        let last = chat.messages.len() - 1;
        let rendered = chat.whole()?;
        let learned: Vec<bool> = (0..=last).map(|index| index == last).collect();
        match self.masked(chat, &rendered, Some(&learned)) {
            Ok(masked) => Ok(masked.into()),
            // The template begins the turn otherwise than its prompt does: what they share is the prompt, as in TRL.
            Err(DataError::NotPrefixPreserving { .. }) => {
                let is_assistant = chat.messages[last].role == ASSISTANT;
                let before = chat.first(last, is_assistant)?;
                let before = self.tokenize_rendered(&before.text, chat.place)?;
                let mut sequence = all_labelled(self.tokenize_rendered(&rendered.text, chat.place)?);
                let start = common_prefix(&before, &sequence.tokens);
                sequence.labels[..start].fill(IGNORED);
                Ok(Tokenized { sequence, prompt_not_prefix: start < before.len(), ..Tokenized::default() })
            }
            Err(error) => Err(error),
        }
    }
}

impl Conversation<'_> {
    /// All messages, without a generation prompt.
    fn whole(&self) -> Result<Rc<Rendered>, DataError> {
        self.first(self.messages.len(), false)
    }

    /// The first messages.
    fn first(&self, count: usize, prompt: bool) -> Result<Rc<Rendered>, DataError> {
        let rendered = self.renderings.first(count, prompt);
        rendered.map_err(|source| DataError::Render { place: self.place.clone(), source })
    }
}

/// Whether of all turns only the last is learned.
fn is_last_only(learned: &[bool]) -> bool {
    learned.split_last().is_some_and(|(last, others)| *last && !others.contains(&true))
}

fn placed(problem: TurnProblem, place: &Place) -> DataError {
    let place = place.clone();
    match problem {
        TurnProblem::Template(source) => DataError::Render { place, source },
        TurnProblem::NotPrefixPreserving { message, problem } => {
            DataError::NotPrefixPreserving { place, message, problem }
        }
        TurnProblem::TooLong { messages, bytes } => DataError::TurnsTooLong { place, messages, bytes },
    }
}

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;
