//! `llm-foundry data report`: counts that show silent truncation, lost labels and missing ends before a run.

use crate::cli::{MachineArgs, ReportArgs};
use crate::data_report;
use crate::failure::Outcome;
use std::io::Write;

/// Prints the report of the training data and, where there is some, of the evaluation data.
pub(crate) fn run(args: &ReportArgs, machine: &MachineArgs) -> Outcome {
    let (corpus, _) = super::load(&args.config, machine)?;
    let text = if args.json {
        format!("{:#}\n", data_report::of_corpus(&corpus))
    } else {
        let eval = corpus.eval.as_ref().map(|eval| &eval.report);
        let eval = eval.map_or_else(String::new, |report| format!("\nevaluation data\n{report}\n"));
        format!("training data\n{}\n{eval}", corpus.train.report)
    };
    anstream::stdout().write_all(text.as_bytes())?;
    Ok(())
}
