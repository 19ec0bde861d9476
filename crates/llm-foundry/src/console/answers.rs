//! Progress of many answers.

use super::{duration, is_interactive, thousands};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// A bar on a terminal, a line every 30 seconds elsewhere, and what it came to at the end.
pub(crate) struct AnswerProgress {
    quiet: bool,
    bar: Option<ProgressBar>,
    began: Instant,
    last_line: Instant,
    wanted: usize,
    tokens: usize,
    finished: usize,
}

impl AnswerProgress {
    /// `wanted` answers are to come.
    pub(crate) fn new(quiet: bool, wanted: usize) -> Self {
        let bar = (!quiet && is_interactive()).then(|| {
            let style = "{pos}/{len} answers [{wide_bar}] {msg} {eta}";
            let style = ProgressStyle::with_template(style).expect("the template is valid");
            ProgressBar::new(wanted as u64).with_style(style)
        });
        let now = Instant::now();
        Self { quiet, bar, began: now, last_line: now, wanted, tokens: 0, finished: 0 }
    }

    /// So many tokens more, and so many answers that are whole now.
    pub(crate) fn token(&mut self, tokens: usize, finished: usize) {
        self.tokens += tokens;
        self.finished += finished;
        if let Some(bar) = &self.bar {
            bar.set_position(self.finished as u64);
            bar.set_message(format!("{:.0} tokens/s", self.rate()));
        } else if !self.quiet && self.last_line.elapsed() > Duration::from_secs(30) {
            crate::console::tell!(
                "  {} of {} answers, {:.0} tokens/s",
                self.finished,
                self.wanted,
                self.rate()
            );
            self.last_line = Instant::now();
        }
    }

    /// All are there.
    pub(crate) fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let (answers, tokens) = (thousands(self.finished as u64), thousands(self.tokens as u64));
        let (time, rate) = (duration(self.began.elapsed().as_secs_f64()), self.rate());
        super::say(self.quiet, format!("{answers} answers, {tokens} tokens in {time} ({rate:.0} tokens/s)"));
    }

    fn rate(&self) -> f64 {
        self.tokens as f64 / self.began.elapsed().as_secs_f64().max(1e-9)
    }
}
