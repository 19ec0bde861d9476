//! Progress of one download.

use super::{bytes, is_interactive};
use hf_hub::api::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// A bar on a terminal; elsewhere a line at the start and one every 30 seconds.
pub(crate) struct DownloadBar {
    quiet: bool,
    bar: Option<ProgressBar>,
    name: String,
    total: u64,
    done: u64,
    last_line: Option<Instant>,
}

impl DownloadBar {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { quiet, bar: None, name: String::new(), total: 0, done: 0, last_line: None }
    }
}

impl Progress for DownloadBar {
    fn init(&mut self, size: usize, filename: &str) {
        (self.name, self.total, self.done) = (filename.to_owned(), size as u64, 0);
        if self.quiet {
            return;
        }
        if is_interactive() {
            // hf-hub says `init` a second time when the body begins.
            let bar = self.bar.get_or_insert_with(|| {
                let style = "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
                let style = ProgressStyle::with_template(style).expect("the template is valid");
                ProgressBar::new(0).with_style(style)
            });
            bar.set_length(self.total);
            bar.set_position(0);
            bar.set_message(self.name.clone());
        } else if self.last_line.is_none() {
            crate::console::tell!("downloading {} ({})", self.name, bytes(self.total));
            self.last_line = Some(Instant::now());
        }
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        if let Some(bar) = &self.bar {
            bar.inc(size as u64);
        } else if self.last_line.is_some_and(|last| last.elapsed() > Duration::from_secs(30)) {
            crate::console::tell!("  {} of {}", bytes(self.done), bytes(self.total));
            self.last_line = Some(Instant::now());
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            crate::console::tell!("downloaded {} ({})", self.name, bytes(self.total));
        }
    }
}
