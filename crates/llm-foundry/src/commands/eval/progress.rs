//! How far a task is: a bar on a terminal, a line every half minute elsewhere.

use crate::console::{duration, is_interactive, thousands};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

const LINE_EVERY: Duration = Duration::from_secs(30);

/// What is shown of a task.
pub(super) struct Progress {
    title: String,
    quiet: bool,
    bar: Option<ProgressBar>,
    began: Instant,
    last_line: Instant,
}

impl Progress {
    pub(super) fn new(title: String, quiet: bool) -> Self {
        Self { title, quiet, bar: None, began: Instant::now(), last_line: Instant::now() }
    }

    /// So many of the requests have been answered.
    pub(super) fn report(&mut self, done: usize, total: usize) {
        if self.quiet {
            return;
        }
        let seconds = self.began.elapsed().as_secs_f64();
        if is_interactive() {
            let bar = self.bar.get_or_insert_with(|| {
                let style =
                    ProgressStyle::with_template("{msg} [{wide_bar}] {pos}/{len} {per_sec} {eta} left");
                ProgressBar::new(0).with_style(style.expect("the template is valid"))
            });
            bar.set_length(total as u64);
            bar.set_message(self.title.clone());
            bar.set_position(done as u64);
        } else if self.last_line.elapsed() > LINE_EVERY && done > 0 {
            self.last_line = Instant::now();
            let left = seconds / done as f64 * (total - done) as f64;
            crate::console::tell!(
                "{}: {} of {} requests, {:.1} a second, {} left",
                self.title,
                thousands(done as u64),
                thousands(total as u64),
                done as f64 / seconds,
                duration(left)
            );
        }
    }

    /// The task is done.
    pub(super) fn finish(self, documents: usize) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if !self.quiet {
            let seconds = self.began.elapsed().as_secs_f64();
            let rate = documents as f64 / seconds.max(1e-9);
            crate::console::tell!(
                "{}: {} documents in {} ({rate:.1} a second)",
                self.title,
                thousands(documents as u64),
                duration(seconds)
            );
        }
    }
}
