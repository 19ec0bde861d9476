//! `llm-foundry data preview`: rows as the model sees them.

use super::text::{RowText, Style};
use crate::cli::{MachineArgs, PreviewArgs};
use crate::corpus::Stream;
use crate::failure::{Failure, Outcome};
use foundry_data::{Dataset, PackedRow, survey};
use foundry_formats::Tokenizer;
use serde_json::json;
use std::io::Write;

/// Prints rows, in the order of the data set.
pub(crate) fn run(args: &PreviewArgs, machine: &MachineArgs) -> Outcome {
    let (mut corpus, tokenizer) = super::load(&args.config, machine)?;
    let name = if args.eval { "evaluation" } else { "training" };
    let (mut first, mut is_start) = (0, false);
    if !args.eval
        && let Some(stream) = &corpus.stream
    {
        is_start = true;
        (first, corpus.train) = stretch(stream, &tokenizer, args.from, args.rows)?;
    }
    let eval = match (args.eval, &corpus.eval) {
        (false, _) => None,
        (true, Some(eval)) => Some(eval),
        (true, None) => {
            return Err(Failure::Input(
                "--eval: there is no evaluation data; give `data.eval` or `data.eval_fraction`".into(),
            ));
        }
    };
    let known = first + eval.map_or_else(|| corpus.rows(), |eval| eval.rows.len());
    if args.from >= known {
        return Err(Failure::Input(format!(
            "--from {}: the {name} data has {known} row(s), numbered from 0",
            args.from
        )));
    }
    let mut out = anstream::stdout();
    let colour = anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
    let mut text = RowText::new(&tokenizer, if colour { Style::Colour } else { Style::Marks });
    let of = if is_start { "a stream".to_owned() } else { known.to_string() };
    for index in (args.from..known).take(args.rows) {
        let row = match eval {
            Some(eval) => eval.rows[index].clone(),
            None => corpus.row(index - first)?,
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
            "row {index} of {of} ({name} data): {} tokens, {} learned, {} sequence(s)",
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

/// The rows of a stream from the chunk that has row `from` to the one that has the last wanted row, in the order of the
/// sources, and the number of the first.
fn stretch(stream: &Stream, tokenizer: &Tokenizer, from: usize, wanted: usize) -> Outcome<(usize, Dataset)> {
    let (mut first, mut rows) = (0, Vec::new());
    let report = survey(&stream.spec, tokenizer, &mut |chunk| {
        if first + rows.len() <= from {
            // Nothing before was wanted.
            first += rows.len();
            rows.clear();
        }
        rows.extend(chunk);
        first + rows.len() < from.saturating_add(wanted)
    });
    Ok((first, Dataset { rows, report: report.map_err(Failure::input)? }))
}
