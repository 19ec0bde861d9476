//! What reports are called in trackers: the names of transformers' `Trainer`, and ours where it has none.

use foundry_engine::{EvalReport, LogRecord, Summary};

/// The axis of all curves.
pub(super) const AXIS: &str = "train/global_step";

/// What is measured with `training.profile` is a group of its own.
const PROFILE: &str = "profile/";

/// Names and values.
pub(super) type Values = Vec<(String, f64)>;

/// What a run is counted in, known before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// Rows of one optimiser step.
    pub(crate) rows_per_step: usize,
    /// Rows of the held-out split.
    pub(crate) eval_rows: usize,
    /// Rows evaluated at once.
    pub(crate) eval_batch: usize,
    /// Floating-point operations of a token.
    pub(crate) flops_per_token: f64,
}

/// A line of the log, by the names that `Trainer` gives it.
pub(super) fn of_log(record: &LogRecord) -> Values {
    let mut values = vec![
        ("loss", record.loss),
        ("grad_norm", record.grad_norm),
        ("learning_rate", record.learning_rate),
        ("epoch", record.epoch),
        ("num_tokens", record.tokens as f64),
        ("num_input_tokens_seen", record.tokens as f64),
        ("mean_token_accuracy", record.mean_token_accuracy),
        ("entropy", record.entropy),
        ("seconds", record.seconds),
        ("data_seconds", record.data_seconds),
    ];
    let known = [
        ("tokens_per_second", record.tokens_per_second),
        ("peak_rss_bytes", record.peak_rss_bytes.map(|bytes| bytes as f64)),
    ];
    values.extend(known.into_iter().filter_map(|(name, value)| Some((name, value?))));
    let profile = record.profile.iter().map(|(name, value)| (format!("{PROFILE}{name}"), *value));
    owned(values).into_iter().chain(profile).collect()
}

/// An evaluation.
pub(super) fn of_evaluation(report: &EvalReport, scale: &Scale) -> Values {
    let seconds = report.eval_seconds.max(1e-9);
    let batches = scale.eval_rows.div_ceil(scale.eval_batch.max(1));
    owned(vec![
        ("eval_loss", report.eval_loss),
        ("eval_runtime", report.eval_seconds),
        ("eval_samples_per_second", scale.eval_rows as f64 / seconds),
        ("eval_steps_per_second", batches as f64 / seconds),
        ("eval_perplexity", report.eval_perplexity),
        ("eval_mean_token_accuracy", report.eval_mean_token_accuracy),
        ("eval_entropy", report.eval_entropy),
        ("eval_tokens", report.eval_tokens as f64),
        ("epoch", report.epoch),
    ])
}

/// Figures of the whole run.
pub(super) fn of_summary(summary: &Summary, scale: &Scale) -> Values {
    let seconds = summary.seconds.max(1e-9);
    let mut values = vec![
        ("train_runtime", summary.seconds),
        ("train_samples_per_second", summary.step as f64 * scale.rows_per_step as f64 / seconds),
        ("train_steps_per_second", summary.step as f64 / seconds),
        ("train_tokens_per_second", summary.tokens as f64 / seconds),
        ("total_flos", scale.flops_per_token * summary.tokens as f64),
        ("train_loss", summary.train_loss),
    ];
    if let Some(best) = &summary.best {
        values.extend([("best_metric", best.value), ("best_global_step", best.step as f64)]);
    }
    owned(values)
}

/// How a tracker calls things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// As `Trainer` does: `loss`, `eval_loss`.
    Plain,
    /// As transformers' `rewrite_logs` does: `eval_loss` becomes `eval/loss`, and what is no evaluation's `train/…`.
    Grouped,
}

impl Naming {
    /// The values under this naming.
    pub(super) fn of(self, values: &Values) -> Values {
        let grouped = |name: &String| match name.strip_prefix("eval_") {
            _ if name.starts_with(PROFILE) => name.clone(),
            Some(rest) => format!("eval/{rest}"),
            None => format!("train/{name}"),
        };
        match self {
            Self::Plain => values.clone(),
            Self::Grouped => values.iter().map(|(name, value)| (grouped(name), *value)).collect(),
        }
    }
}

fn owned(values: Vec<(&str, f64)>) -> Values {
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
