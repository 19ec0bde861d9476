//! `llm-foundry data preview`: rows as the model sees them.

use super::text::{RowText, Style};
use crate::cli::{MachineArgs, PreviewArgs};
use crate::failure::{Failure, Outcome};
use foundry_data::PackedRow;
use serde_json::json;
use std::io::Write;

/// Prints rows, in the order of the data set.
pub(crate) fn run(args: &PreviewArgs, machine: &MachineArgs) -> Outcome {
    let (corpus, tokenizer) = super::load(&args.config, machine)?;
    let name = if args.eval { "evaluation" } else { "training" };
    let eval = match (args.eval, &corpus.eval) {
        (false, _) => None,
        (true, Some(eval)) => Some(eval),
        (true, None) => {
            return Err(Failure::Input(
                "--eval: there is no evaluation data; give `data.eval` or `data.eval_fraction`".into(),
            ));
        }
    };
    let rows = eval.map_or_else(|| corpus.rows(), |eval| eval.rows.len());
    if args.from >= rows {
        return Err(Failure::Input(format!(
            "--from {}: the {name} data has {rows} row(s), numbered from 0",
            args.from
        )));
    }
    let mut out = anstream::stdout();
    let colour = anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
    let mut text = RowText::new(&tokenizer, if colour { Style::Colour } else { Style::Marks });
    for index in (args.from..rows).take(args.rows) {
        let row = match eval {
            Some(eval) => eval.rows[index].clone(),
            None => corpus.row(index)?,
        };
        if args.json {
            let text = tokenizer.decode(&row.tokens, false).map_err(Failure::input)?;
            let PackedRow { tokens, labels, seq_lens } = row;
            let object =
                json!({"row": index, "tokens": tokens, "labels": labels, "seq_lens": seq_lens, "text": text});
            writeln!(out, "{object}")?;
            continue;
        }
        writeln!(
            out,
            "row {index} of {rows} ({name} data): {} tokens, {} learned, {} sequence(s)",
            row.tokens.len(),
            row.labelled(),
            row.seq_lens.len()
        )?;
        writeln!(out, "{}", text.row(&row)?)?;
    }
    if !args.json {
        let key = match colour {
            true => "\u{1b}[32mgreen\u{1b}[0m: learned; \u{1b}[2mgrey\u{1b}[0m: only read",
            false => "⟦…⟧: learned; the rest is only read",
        };
        writeln!(out, "{key}. ↵ line break; `<…>` inverted or as it is: special tokens")?;
        for warning in eval.map_or(&corpus.train.report, |eval| &eval.report).warnings() {
            writeln!(out, "warning: {warning}")?;
        }
    }
    Ok(())
}
