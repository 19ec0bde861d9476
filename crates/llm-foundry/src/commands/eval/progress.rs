//! How far a task is: a bar on a terminal, a line every half minute elsewhere.

use crate::console::{duration, is_interactive, thousands};
use foundry_eval::{EvalError, GenerateRequest, LanguageModel, LogLikelihood, ScoreRequest};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// Requests that are handed on at once: enough for the model to share beginnings and fill rows, few enough to see it
/// move.
const SCORES: usize = 1024;
const TEXTS: usize = 128;
const LINE_EVERY: Duration = Duration::from_secs(30);

/// A model whose answers are counted.
pub(super) struct Reported<M> {
    model: M,
    title: String,
    quiet: bool,
    bar: Option<ProgressBar>,
    began: Instant,
    last_line: Instant,
}

impl<M: LanguageModel> Reported<M> {
    pub(super) fn new(model: M, title: String, quiet: bool) -> Self {
        Self { model, title, quiet, bar: None, began: Instant::now(), last_line: Instant::now() }
    }

    fn report(&mut self, done: usize, total: usize) {
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

impl<M: LanguageModel> LanguageModel for Reported<M> {
    fn encode(&mut self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, EvalError> {
        self.model.encode(text, add_special_tokens)
    }

    fn log_likelihood(&mut self, requests: &[ScoreRequest]) -> Result<Vec<LogLikelihood>, EvalError> {
        let mut answers = Vec::with_capacity(requests.len());
        for part in requests.chunks(SCORES) {
            self.report(answers.len(), requests.len());
            answers.extend(self.model.log_likelihood(part)?);
        }
        self.report(answers.len(), requests.len());
        Ok(answers)
    }

    fn generate_until(&mut self, requests: &[GenerateRequest]) -> Result<Vec<String>, EvalError> {
        let mut answers = Vec::with_capacity(requests.len());
        for part in requests.chunks(TEXTS) {
            self.report(answers.len(), requests.len());
            answers.extend(self.model.generate_until(part)?);
        }
        self.report(answers.len(), requests.len());
        Ok(answers)
    }
}
