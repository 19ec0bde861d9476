//! What the server has done, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters since the start, and the state of now.
#[derive(Default)]
pub(super) struct Metrics {
    /// Answers by path and status.
    answers: Mutex<BTreeMap<(&'static str, u16), u64>>,
    microseconds: AtomicU64,
    prompt_tokens: AtomicU64,
    answer_tokens: AtomicU64,
    cancelled: AtomicU64,
    running: AtomicU64,
    waiting: AtomicU64,
    free_tokens: AtomicU64,
}

impl Metrics {
    /// A request was answered. `path`: one that the server has, or `other`.
    pub(super) fn answered(&self, path: &'static str, status: u16, time: Duration) {
        let mut answers = self.answers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *answers.entry((path, status)).or_default() += 1;
        self.microseconds.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// Tokens of a prompt.
    pub(super) fn prompt(&self, tokens: usize) {
        self.prompt_tokens.fetch_add(tokens as u64, Ordering::Relaxed);
    }

    /// Tokens of an answer.
    pub(super) fn tokens(&self, tokens: usize) {
        self.answer_tokens.fetch_add(tokens as u64, Ordering::Relaxed);
    }

    /// A client left before its answer was whole.
    pub(super) fn cancelled(&self) {
        self.cancelled.fetch_add(1, Ordering::Relaxed);
    }

    /// The state after a step.
    pub(super) fn cache(&self, (running, waiting): (usize, usize), free_tokens: usize) {
        self.running.store(running as u64, Ordering::Relaxed);
        self.waiting.store(waiting as u64, Ordering::Relaxed);
        self.free_tokens.store(free_tokens as u64, Ordering::Relaxed);
    }

    /// The page.
    pub(super) fn text(&self) -> String {
        let mut page = String::new();
        let answers = self.answers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let name = "llm_foundry_requests_total";
        page.push_str(&format!("# HELP {name} Requests answered.\n# TYPE {name} counter\n"));
        for ((path, status), count) in answers.iter() {
            let _ = writeln!(page, "{name}{{path=\"{path}\",status=\"{status}\"}} {count}");
        }
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed) as f64;
        let rows = [
            ("request_seconds_total", "counter", "Time spent on requests.", read(&self.microseconds) / 1e6),
            ("prompt_tokens_total", "counter", "Tokens of prompts.", read(&self.prompt_tokens)),
            ("generated_tokens_total", "counter", "Tokens generated.", read(&self.answer_tokens)),
            ("cancelled_total", "counter", "Texts whose client left early.", read(&self.cancelled)),
            ("running", "gauge", "Texts being generated.", read(&self.running)),
            ("waiting", "gauge", "Texts waiting for room.", read(&self.waiting)),
            ("free_cache_tokens", "gauge", "Room in the key/value cache.", read(&self.free_tokens)),
        ];
        for (name, kind, help, value) in rows {
            let name = format!("llm_foundry_{name}");
            page.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"));
        }
        page
    }
}
