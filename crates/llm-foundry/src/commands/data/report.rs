//! `llm-foundry data report`: counts that show silent truncation, lost labels and missing ends before a run.

use crate::cli::{MachineArgs, ReportArgs};
use crate::failure::Outcome;
use foundry_data::DataReport;
use serde_json::{Value, json};
use std::io::Write;

/// Prints the report of the training data and, where there is some, of the evaluation data.
pub(crate) fn run(args: &ReportArgs, machine: &MachineArgs) -> Outcome {
    let (corpus, _) = super::load(&args.config, machine)?;
    let eval = corpus.eval.as_ref().map(|eval| &eval.report);
    let text = if args.json {
        let eval = eval.map(to_json);
        format!("{:#}\n", json!({ "train": to_json(&corpus.train.report), "eval": eval }))
    } else {
        let eval = eval.map_or_else(String::new, |report| format!("\nevaluation data\n{report}\n"));
        format!("training data\n{}\n{eval}", corpus.train.report)
    };
    anstream::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// The counts, and what they come to.
fn to_json(report: &DataReport) -> Value {
    let mut value = serde_json::to_value(report).unwrap_or_default();
    value["eos_trained_percent"] = json!(report.eos_trained_percent());
    let of = |p: f64| report.lengths.percentile(p);
    value["length_percentiles"] =
        json!({"p50": of(50.0), "p90": of(90.0), "p99": of(99.0), "max": report.lengths.longest()});
    value["warnings"] = json!(report.warnings());
    value
}
