//! Where the turns of a conversation stand in its rendered text.
//!
//! A template with `{% generation %}` tags says where the assistant speaks. For any other template, and for turns of
//! other roles, the conversation is rendered again up to each turn: what that adds is the turn. Every rendering is
//! checked to be a beginning of the whole; a template that fails the check renders a turn differently depending on what
//! follows, and a mask over it would be a guess.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use serde_json::{Map, Value};

use crate::chat::{ChatTemplate, OpenConversation, Rendered, TemplateError};
use crate::example::Message;

/// Why a turn cannot be found.
#[derive(Debug)]
pub(crate) enum TurnProblem {
    /// A part of the conversation could not be rendered.
    Template(TemplateError),
    /// The renderings do not fit together at this message.
    NotPrefixPreserving {
        /// Index of the message.
        message: usize,
        /// What differs.
        problem: &'static str,
    },
    /// Too many messages for their length.
    TooLong {
        /// Messages of the conversation.
        messages: usize,
        /// Bytes of it, rendered.
        bytes: usize,
    },
}

/// Renderings that are remembered: the turn after one needs those of the one before it.
const REMEMBERED: usize = 4;
/// Work that finding turns may take, as messages times bytes of the whole: each turn is found by rendering all before
/// it. A minute or two.
const MOST_WORK: usize = 1 << 32;

/// How many messages, with a generation prompt or without one, and their text.
type Beginning = ((usize, bool), Rc<Rendered>);

/// Renderings of the beginnings of a conversation.
pub(crate) struct Renderings<'t> {
    open: OpenConversation<'t>,
    last: RefCell<VecDeque<Beginning>>,
}

impl<'t> Renderings<'t> {
    pub(crate) fn new(open: OpenConversation<'t>) -> Self {
        Self { open, last: RefCell::default() }
    }

    /// The first `count` messages, with a generation prompt or without one.
    pub(crate) fn first(&self, count: usize, prompt: bool) -> Result<Rc<Rendered>, TemplateError> {
        let key = (count, prompt);
        if let Some((_, known)) = self.last.borrow().iter().find(|(known, _)| *known == key) {
            return Ok(Rc::clone(known));
        }
        let rendered = Rc::new(self.open.render(count, prompt)?);
        let mut last = self.last.borrow_mut();
        if last.len() == REMEMBERED {
            last.pop_front();
        }
        last.push_back((key, Rc::clone(&rendered)));
        Ok(rendered)
    }
}

/// A rendered conversation.
pub(crate) struct Turns<'a> {
    pub(crate) renderings: &'a Renderings<'a>,
    pub(crate) messages: &'a [Message],
    /// All messages, without a generation prompt.
    pub(crate) whole: &'a str,
    /// Texts of special tokens, which a template may put behind the last turn.
    pub(crate) special: &'a [String],
}

impl Turns<'_> {
    /// The first `count` messages.
    fn first(&self, count: usize, prompt: bool) -> Result<Rc<Rendered>, TurnProblem> {
        if self.messages.len().saturating_mul(self.whole.len()) > MOST_WORK {
            return Err(TurnProblem::TooLong { messages: self.messages.len(), bytes: self.whole.len() });
        }
        self.renderings.first(count, prompt).map_err(TurnProblem::Template)
    }

    /// The text of message `index` that is learned: its words and what ends the turn, without what begins it.
    ///
    /// An assistant's turn begins after the generation prompt, as it will when the model answers. Where there is none,
    /// and for other roles, it begins where its content does.
    pub(crate) fn learned(&self, index: usize) -> Result<Range<usize>, TurnProblem> {
        let with = self.first(index + 1, false)?;
        let end = self.end_of(&with.text, index)?;
        let start = match self.after_prompt(&with.text, index)? {
            Some(start) => start,
            None => self.content_start(&with.text, index)?,
        };
        Ok(start.min(end)..end)
    }

    /// All text of message `index`, from the end of the message before it.
    pub(crate) fn extent(&self, index: usize) -> Result<Range<usize>, TurnProblem> {
        let end = self.end_of(&self.first(index + 1, false)?.text, index)?;
        let start = match index {
            0 => 0,
            _ => self.end_of(&self.first(index, false)?.text, index - 1)?,
        };
        Ok(start.min(end)..end)
    }

    /// The first turn of the assistant that later messages change.
    pub(crate) fn rewritten(&self) -> Result<Option<usize>, TurnProblem> {
        for (index, message) in self.messages.iter().enumerate() {
            if message.role != "assistant" || index + 1 == self.messages.len() {
                continue;
            }
            match self.end_of(&self.first(index + 1, false)?.text, index) {
                Err(TurnProblem::NotPrefixPreserving { .. }) => return Ok(Some(index)),
                Err(other) => return Err(other),
                Ok(_) => {}
            }
        }
        Ok(None)
    }

    /// Where the text that `with` (the conversation up to message `index`) has in common with the whole ends.
    fn end_of(&self, with: &str, index: usize) -> Result<usize, TurnProblem> {
        let common = common_bytes(with, self.whole);
        let mut end = with.len();
        // Some templates end a conversation with a token that no turn in its middle has.
        while end > common {
            let words = with[..end].trim_end().len().max(common);
            if words < end {
                end = words;
                continue;
            }
            let token = self.special.iter().find(|token| !token.is_empty() && with[..end].ends_with(*token));
            let Some(token) = token else {
                let problem = "the template renders it differently once later messages follow";
                return Err(TurnProblem::NotPrefixPreserving { message: index, problem });
            };
            end -= token.len();
        }
        Ok(end)
    }

    /// Where an assistant's turn begins; `None` where no generation prompt says so.
    fn after_prompt(&self, with: &str, index: usize) -> Result<Option<usize>, TurnProblem> {
        if self.messages[index].role != "assistant" || index == 0 {
            return Ok(None);
        }
        // A template may refuse a conversation that ends here, or have no prompt.
        let Ok(before) = self.first(index, true) else { return Ok(None) };
        let before = before.text.as_str();
        if self.first(index, false).is_ok_and(|bare| bare.text == before) {
            return Ok(None);
        }
        if !with.starts_with(before) {
            // The assistant goes on speaking: there is no prompt between its turns.
            if self.messages[index - 1].role == "assistant" {
                return Ok(None);
            }
            let problem = "the template's generation prompt is not how it begins this turn";
            return Err(TurnProblem::NotPrefixPreserving { message: index, problem });
        }
        Ok(Some(before.len()))
    }

    /// Where the content of message `index` begins: two renderings that differ in nothing else part there.
    fn content_start(&self, with: &str, index: usize) -> Result<usize, TurnProblem> {
        let saying = |words: &str| {
            let mut message = self.messages[index].clone();
            message.content = Value::String(words.to_owned());
            self.renderings.open.render_with(index, &message).map(|rendered| rendered.text)
        };
        if let (Ok(a), Ok(b)) = (saying("Alpha"), saying("Omega"))
            && a != b
        {
            // Calls of tools stand before or in place of content in some templates.
            return Ok(common_bytes(&a, &b).min(common_bytes(with, &a).max(common_bytes(with, &b))));
        }
        Ok(self.extent(index)?.start)
    }
}

/// Length of the common beginning, which ends between characters.
fn common_bytes(a: &str, b: &str) -> usize {
    let mut common = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    while !a.is_char_boundary(common) {
        common -= 1;
    }
    common
}

/// Whether plain turns of the assistant are rendered differently once later messages follow. A template that cannot
/// render the probe counts as one that does not: its conversations show by themselves.
pub(crate) fn rewrites_history(
    template: &ChatTemplate,
    kwargs: &Map<String, Value>,
    special: &[String],
) -> bool {
    let messages = ["user", "assistant", "user", "assistant"].map(|role| Message::text(role, "Well, yes."));
    let Ok(open) = template.open(&messages, None, kwargs) else { return false };
    let renderings = Renderings::new(open);
    let Ok(whole) = renderings.first(messages.len(), false) else { return false };
    let turns = Turns { renderings: &renderings, messages: &messages, whole: &whole.text, special };
    matches!(turns.rewritten(), Ok(Some(_)))
}
