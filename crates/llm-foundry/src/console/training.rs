//! Progress of a training run.

use super::{ConsoleLines, Trace, bytes, duration, is_interactive, thousands};
use foundry_engine::callbacks::{Callback, Flow};
use foundry_engine::{
    EngineError, EvalReport, LogRecord, SaveReport, StartReport, StepReport, Summary, TaskReport,
};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// Without a terminal a line appears at least this often.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Width of the curve of losses beside the bar: all of it fits into a terminal of 80 columns.
const CURVE: usize = 10;

/// A bar with loss and its curve, speed, time left and memory on a terminal; plain lines elsewhere.
pub(crate) struct TrainingConsole {
    bar: Option<ProgressBar>,
    lines: ConsoleLines,
    last_line: Instant,
    started_at: u64,
    /// Exponential means over steps: they follow changes and do not jump.
    loss: Option<f64>,
    /// The losses of all steps, as the bar draws them.
    losses: Trace,
    seconds: Option<f64>,
    tokens_per_second: Option<f64>,
    peak_rss: Option<u64>,
    /// Seconds of training at the last line of the log.
    logged_seconds: f64,
}

impl TrainingConsole {
    /// `lines` gets a copy of what is printed.
    pub(crate) fn new(lines: ConsoleLines) -> Self {
        Self {
            bar: None,
            lines,
            last_line: Instant::now(),
            started_at: 0,
            loss: None,
            losses: Trace::default(),
            seconds: None,
            tokens_per_second: None,
            peak_rss: None,
            logged_seconds: 0.0,
        }
    }

    fn line(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => crate::console::tell!("{text}"),
        }
        self.lines.add(text);
        self.last_line = Instant::now();
    }

    /// How much of the time since the last line went into waiting for data, where it is worth a word.
    fn waiting(&mut self, record: &LogRecord) -> String {
        let passed = record.seconds - std::mem::replace(&mut self.logged_seconds, record.seconds);
        let share = 100.0 * record.data_seconds / passed.max(1e-9);
        if share > 1.0 { format!("  {share:.0} % waiting for data") } else { String::new() }
    }

    fn status(&self) -> String {
        let curve = self.losses.line(CURVE);
        let curve = if curve.is_empty() { curve } else { format!(" {curve}") };
        let loss = self.loss.map_or_else(String::new, |loss| format!("loss {loss:.4}{curve}"));
        let speed = self.tokens_per_second.map_or_else(String::new, |speed| format!(", {speed:.0} tokens/s"));
        let memory = self.peak_rss.map_or_else(String::new, |rss| format!(", {}", bytes(rss)));
        format!("{loss}{speed}{memory}")
    }
}

fn blend(old: Option<f64>, new: f64) -> Option<f64> {
    Some(old.map_or(new, |old| 0.8 * old + 0.2 * new))
}

impl Callback for TrainingConsole {
    fn on_start(&mut self, report: &StartReport) -> Result<(), EngineError> {
        self.started_at = report.step;
        if let Some(path) = &report.resumed_from {
            self.line(&format!(
                "going on from {} (step {} of {})",
                path.display(),
                report.step,
                report.total_steps
            ));
        }
        for change in &report.changed {
            self.line(&format!("changed since that checkpoint: {change}"));
        }
        if is_interactive() {
            // Where a terminal is too narrow, its end is cut off: the time left is asked for first.
            let style = "{bar:10} {pos}/{len}  {prefix}  {msg}";
            let style = ProgressStyle::with_template(style).expect("the template is valid");
            let bar = ProgressBar::new(report.total_steps).with_style(style);
            bar.set_position(report.step);
            self.bar = Some(bar);
        }
        Ok(())
    }

    fn on_step(&mut self, report: &StepReport) -> Result<Flow, EngineError> {
        self.loss = blend(self.loss, report.loss);
        self.losses.add(report.loss);
        self.seconds = blend(self.seconds, report.seconds);
        self.tokens_per_second =
            blend(self.tokens_per_second, report.tokens as f64 / report.seconds.max(1e-9));
        self.peak_rss = foundry_engine::memory::peak_rss_bytes();
        let left = (report.total_steps - report.step) as f64 * self.seconds.unwrap_or(0.0);
        let status = self.status();
        if let Some(bar) = &self.bar {
            bar.set_message(status);
            bar.set_prefix(format!("{} left", duration(left)));
            bar.set_position(report.step);
        } else if self.last_line.elapsed() > LINE_EVERY {
            let (step, total) = (report.step, report.total_steps);
            self.line(&format!("step {step}/{total}  {status}, {} left", duration(left)));
        }
        Ok(Flow::Continue)
    }

    fn on_log(&mut self, record: &mut LogRecord) -> Result<(), EngineError> {
        let speed = record.tokens_per_second.map_or_else(String::new, |s| format!("  {s:.0} tokens/s"));
        let waiting = self.waiting(record);
        let memory = match self.bar {
            Some(_) => String::new(),
            None => record.peak_rss_bytes.map_or_else(String::new, |rss| format!("  {}", bytes(rss))),
        };
        self.line(&format!(
            "step {:<5} epoch {:<6.2} loss {:<8.4} accuracy {:<6.3} grad norm {:<8.3} lr {:.2e}{speed}{memory}{waiting}",
            record.step,
            record.epoch,
            record.loss,
            record.mean_token_accuracy,
            record.grad_norm,
            record.learning_rate
        ));
        Ok(())
    }

    fn on_evaluate(&mut self, report: &EvalReport) -> Result<Flow, EngineError> {
        let best = if report.is_best { ", the best so far" } else { "" };
        self.line(&format!(
            "step {:<5} evaluation: loss {:.4}, perplexity {:.2}, accuracy {:.3} over {} tokens in {}{best}",
            report.step,
            report.eval_loss,
            report.eval_perplexity,
            report.eval_mean_token_accuracy,
            thousands(report.eval_tokens),
            duration(report.eval_seconds)
        ));
        Ok(Flow::Continue)
    }

    fn on_task(&mut self, report: &TaskReport) -> Result<(), EngineError> {
        let error = report.stderr.map_or_else(String::new, |stderr| format!(" ± {stderr:.4}"));
        let TaskReport { step, task, metric, value, .. } = report;
        self.line(&format!("step {step:<5} {task}: {metric} {value:.4}{error}"));
        Ok(())
    }

    fn on_save(&mut self, report: &SaveReport) -> Result<(), EngineError> {
        let (path, seconds) = (report.path.display(), duration(report.seconds));
        self.line(&format!("step {:<5} checkpoint {path} ({seconds})", report.step));
        Ok(())
    }

    fn on_end(&mut self, summary: &Summary) -> Result<(), EngineError> {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let speed = summary.tokens as f64 / summary.seconds.max(1e-9);
        let memory =
            self.peak_rss.map_or_else(String::new, |rss| format!(", at most {} of memory", bytes(rss)));
        self.line(&format!(
            "{} of {} steps, {} tokens in {} ({speed:.0} tokens/s), mean loss {:.4}{memory}",
            summary.step,
            summary.total_steps,
            thousands(summary.tokens),
            duration(summary.seconds),
            summary.train_loss
        ));
        Ok(())
    }
}
