//! `llm-foundry data report`: counts that show silent truncation, lost labels and missing ends before a run.

use crate::cli::{MachineArgs, ReportArgs};
use crate::data_report;
use crate::failure::{Failure, Outcome};
use foundry_data::survey;
use std::io::Write;

/// Prints the report of the training data and, where there is some, of the evaluation data.
pub(crate) fn run(args: &ReportArgs, machine: &MachineArgs) -> Outcome {
    let (mut corpus, tokenizer) = super::load(&args.config, machine)?;
    if let Some(stream) = corpus.stream.take() {
        // What is trained on in pieces is counted in pieces, all of it.
        let counted = survey(&stream.spec, &tokenizer, &mut |_| true);
        corpus.train.report = counted.map_err(Failure::input)?;
    }
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
