//! Counts of the data, for programs: what `data report --json` prints and what a run leaves as `data_report.json`.

use crate::corpus::Corpus;
use foundry_data::DataReport;
use serde_json::{Value, json};

/// Name of the file in a run's directory.
pub(crate) const DATA_REPORT: &str = "data_report.json";

/// The counts of training data and, where there is some, evaluation data (else `null`). `of_first_rows`: the training
/// data is streamed, and only its start was counted.
pub(crate) fn of_corpus(corpus: &Corpus) -> Value {
    let eval = corpus.eval.as_ref().map(|eval| of_set(&eval.report));
    let mut train = of_set(&corpus.train.report);
    train["of_first_rows"] = json!(corpus.stream.is_some());
    json!({ "train": train, "eval": eval })
}

/// The counts, and what they come to.
fn of_set(report: &DataReport) -> Value {
    let mut value = serde_json::to_value(report).unwrap_or_default();
    value["eos_trained_percent"] = json!(report.eos_trained_percent());
    let of = |p: f64| report.lengths.percentile(p);
    value["length_percentiles"] =
        json!({"p50": of(50.0), "p90": of(90.0), "p99": of(99.0), "max": report.lengths.longest()});
    value["warnings"] = json!(report.warnings());
    value
}
