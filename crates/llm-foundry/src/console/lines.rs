//! What was printed while a command worked, for whoever keeps it.

use std::cell::RefCell;
use std::rc::Rc;

/// Lines of the console that nobody has taken yet. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConsoleLines(Option<Rc<RefCell<Vec<String>>>>);

impl ConsoleLines {
    /// Lines that somebody will take; the default keeps none.
    pub(crate) fn kept() -> Self {
        Self(Some(Rc::default()))
    }

    /// A line was printed; it may be several lines of text.
    pub(crate) fn add(&self, text: &str) {
        if let Some(lines) = &self.0 {
            lines.borrow_mut().extend(text.lines().map(str::to_owned));
        }
    }

    /// The lines since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        self.0.as_ref().map(|lines| lines.take()).unwrap_or_default()
    }
}
