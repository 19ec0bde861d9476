//! How deep the values of a template can nest, told from its source.
//!
//! Walking, comparing, printing or dropping a value recurses as deep as it is nested, and a stack that overflows ends
//! the process. `{% set %}` is bounded while the template runs (see `nesting`); all other ways to nest a value are
//! written in the source: a bracket or a filter of one expression adds a level, inside `for`, `with`, `macro` and
//! `call` blocks, inside calls of macros. Their product bounds the depth. Real templates (TRL's 72) have at most 10
//! brackets and filters in an expression and 4 blocks in each other.

use std::cell::Cell;

use super::TemplateError;

/// Most opening brackets and filters of one tag.
const MOST_OPENINGS: usize = 64;
/// Most blocks that bind values, one in another.
const MOST_BLOCKS: usize = 10;
/// minijinja's limit of recursion, in its units: 4 and the open scopes for each call of a macro.
pub(super) const RECURSION: usize = 300;
/// Calls of macros in each other that [`RECURSION`] allows.
const MOST_CALLS: usize = RECURSION / 5;
/// Levels that a thread's usual stack (2 MB) holds: a level takes at most a kilobyte.
const LEVELS_OF_A_USUAL_STACK: usize = 1500;
/// Room for all levels that the limits above allow.
const DEEP_STACK: usize = 128 << 20;

/// What the source of a template has, counted tag by tag.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    openings: usize,
    blocks: usize,
    deepest_blocks: usize,
    recurses: bool,
    line: usize,
    /// The line of the first tag that is too much.
    excess: Option<(usize, &'static str)>,
}

impl Limits {
    /// Counts the lines before the next tag.
    pub(super) fn text(&mut self, text: &str) {
        self.line += text.matches('\n').count();
    }

    /// Counts a tag, `{{ … }}` or `{% … %}`.
    pub(super) fn tag(&mut self, tag: &str) {
        let openings = openings(tag);
        self.openings = self.openings.max(openings);
        if openings > MOST_OPENINGS {
            self.excess.get_or_insert((self.line, "more than 64 brackets and filters in one tag"));
        }
        let word = tag.strip_prefix("{%").map(|code| code.trim_start_matches(['-', '+']).trim_start());
        let word =
            word.and_then(|code| code.split(|c: char| !c.is_alphanumeric()).next()).unwrap_or_default();
        match word {
            "for" | "with" | "macro" | "call" => {
                self.blocks += 1;
                self.recurses |= word == "macro" || tag.contains("recursive");
            }
            "endfor" | "endwith" | "endmacro" | "endcall" => self.blocks = self.blocks.saturating_sub(1),
            _ => {}
        }
        self.deepest_blocks = self.deepest_blocks.max(self.blocks);
        if self.blocks > MOST_BLOCKS {
            self.excess
                .get_or_insert((self.line, "more than 10 loops, macros and other blocks in each other"));
        }
        self.text(tag);
    }

    /// Refuses a template that could nest values beyond [`DEEP_STACK`].
    pub(super) fn check(&self) -> Result<(), TemplateError> {
        match self.excess {
            None => Ok(()),
            Some((line, what)) => {
                Err(TemplateError::Syntax { line: Some(line + 1), message: format!("{what}: simplify it") })
            }
        }
    }

    /// Whether a usual stack may be too small.
    pub(super) fn needs_deep_stack(&self) -> bool {
        let calls = if self.recurses { MOST_CALLS } else { 1 };
        calls * (self.deepest_blocks + 1) * self.openings.max(1) > LEVELS_OF_A_USUAL_STACK
    }

    /// Runs `render` where the stack suffices: on this thread if it does, else on one of its own.
    pub(super) fn run<T: Send>(&self, render: impl FnOnce() -> T + Send) -> Result<T, TemplateError> {
        if !self.needs_deep_stack() || IS_DEEP.get() {
            return Ok(render());
        }
        std::thread::scope(|scope| {
            let thread = thread(true).spawn_scoped(scope, || on_its_stack(true, render));
            let thread = thread.map_err(|e| TemplateError::Failed {
                line: None,
                message: format!(
                    "this template needs a thread with a stack of 128 MB, and there is none: {e}"
                ),
            })?;
            Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }
}

thread_local! {
    /// The stack of this thread holds all that templates are allowed.
    static IS_DEEP: Cell<bool> = const { Cell::new(false) };
}

/// A thread to be, with a usual stack or one for all templates (of which only what is used takes memory).
pub(crate) fn thread(is_deep: bool) -> std::thread::Builder {
    let builder = std::thread::Builder::new();
    if is_deep { builder.stack_size(DEEP_STACK) } else { builder }
}

/// Runs what a thread made by [`thread`] is for.
pub(crate) fn on_its_stack<T>(is_deep: bool, run: impl FnOnce() -> T) -> T {
    IS_DEEP.set(is_deep);
    run()
}

/// Opening brackets and bars outside texts.
fn openings(tag: &str) -> usize {
    let (mut count, mut quote, mut escaped) = (0, None, false);
    for c in tag.chars().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None if "([{|".contains(c) => count += 1,
            None => {}
        }
    }
    count
}
