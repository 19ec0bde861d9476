//! `llm-foundry init`: a commented configuration for a model and a file of data.
//!
//! What is not given is asked for, on a terminal. Model and data are then looked at as `plan` does, and what fits them
//! is written: rows as long as the examples, a chat template where the model has none, four bits where memory is short.

mod answers;
mod draft;

use crate::cli::{InitArgs, MachineArgs};
use crate::config::{self, Config};
use crate::console::say;
use crate::failure::{Failure, Outcome};
use crate::hub::Need;
use crate::machine::Machine;
use crate::output_dir::write_whole;
use crate::plan::Plan;
pub(crate) use answers::Method;

use answers::Answers;
use draft::Choice;
use foundry_data::Shape;

/// Rows are no longer than this, whatever examples there are.
const LONGEST_ROW: usize = 4096;
/// Rows are no shorter than this: packed, they cost nothing, and long rows are computed faster.
const SHORTEST_ROW: usize = 512;
/// Tokens that an update should see.
const TOKENS_OF_UPDATE: usize = 8192;
/// Updates that a run should have.
const FEWEST_UPDATES: usize = 30;
/// From so many examples on some are kept back.
const ENOUGH_TO_KEEP_BACK: usize = 50;

/// Asks, looks, writes.
pub(crate) fn run(args: &InitArgs, machine_args: &MachineArgs) -> Outcome {
    let quiet = machine_args.quiet;
    if args.output.exists() && !args.force {
        return Err(Failure::Input(format!(
            "{} is there; choose another place with -o, or replace it with --force",
            args.output.display()
        )));
    }
    let answers = Answers::complete(args)?;
    if args.no_check {
        let text = draft::text(&answers, &Choice::unseen(&answers));
        config::from_text(&args.output.display().to_string(), text.clone(), &[])?;
        write_whole(&args.output, &text)?;
        say(quiet, format!("{}: neither model nor data were looked at", args.output.display()));
        return Ok(());
    }
    let machine = Machine::choose(machine_args, None)?;
    let found = fit(&answers, machine, quiet)?;
    write_whole(&args.output, &found.text)?;
    say(quiet, found.plan.summary().trim_end());
    let path = args.output.display();
    say(
        quiet,
        format!(
            "\n{path} is written. Look at it, then:\n  llm-foundry plan {path}\n  llm-foundry train {path}"
        ),
    );
    if let Err(Failure::Input(why)) = found.plan.check_memory(&found.config) {
        say(quiet, format!("\nwarning: {why}"));
    }
    Ok(())
}

/// A configuration that plans.
struct Found {
    text: String,
    config: Config,
    plan: Plan,
}

/// Tries what suits most models and data first, then what some need.
fn fit(answers: &Answers, machine: Machine, quiet: bool) -> Outcome<Found> {
    let first = Choice::unseen(answers);
    let template = Choice { chat_template: Some("chatml"), ..first.clone() };
    let seen = planned(answers, first, machine, quiet).or_else(|first_error| {
        // A model without a chat template gets a common one. If that is not what was wrong, the first error is.
        planned(answers, template, machine, quiet).map_err(|_| first_error)
    })?;
    let (choice, mut found) = (suited(answers, &seen), None);
    for (assistant_only_loss, multi_turn_auto) in [(true, false), (true, true), (false, false)] {
        if assistant_only_loss && !choice.assistant_only_loss {
            continue;
        }
        let choice = Choice { assistant_only_loss, multi_turn_auto, ..choice.clone() };
        let attempt = planned(answers, choice, machine, quiet);
        let attempt = attempt.and_then(|seen| seen.found.plan.check_data(&seen.found.config).map(|()| seen));
        match attempt {
            Ok(seen) => {
                found = Some(seen);
                break;
            }
            Err(error) if !assistant_only_loss => return Err(error),
            Err(_) => {}
        }
    }
    let seen = found.ok_or_else(|| Failure::Input("nothing was tried".into()))?;
    if answers.method.is_none() && seen.found.plan.check_memory(&seen.found.config).is_err() {
        let choice = Choice { method: Method::Qlora, ..seen.choice.clone() };
        if let Ok(smaller) = planned(answers, choice, machine, quiet) {
            say(
                quiet,
                "memory is short, so the model's weights are kept in 4 bits (--method says otherwise)",
            );
            return Ok(smaller.found);
        }
    }
    Ok(seen.found)
}

/// A choice and what it comes to.
struct Seen {
    choice: Choice,
    found: Found,
}

fn planned(answers: &Answers, choice: Choice, machine: Machine, quiet: bool) -> Outcome<Seen> {
    let text = draft::text(answers, &choice);
    let resolved = config::from_text("the new configuration", text.clone(), &[])?;
    let plan = Plan::make(&resolved, machine, Need::Description, quiet, None)?;
    if plan.corpus.is_none() {
        let why = plan.notes.first().cloned().unwrap_or_else(|| "there is no data".into());
        return Err(Failure::Input(why));
    }
    Ok(Seen { choice, found: Found { text, config: resolved.config, plan } })
}

/// What suits the examples that were seen.
fn suited(answers: &Answers, seen: &Seen) -> Choice {
    let plan = &seen.found.plan;
    let Some(corpus) = &plan.corpus else { return seen.choice.clone() };
    let report = &corpus.train.report;
    let is_text = report.format == Some(Shape::Text);
    let most = plan.subject.decoder.max_position_embeddings.min(LONGEST_ROW);
    let wanted = match is_text {
        // Documents are cut into rows in any case.
        true => 1024,
        false => report.lengths.percentile(99.0).next_power_of_two().max(SHORTEST_ROW),
    };
    let max_length = wanted.min(most);
    let rows = report.tokens.div_ceil(max_length).max(1);
    let epochs = if is_text { 1 } else { 3 };
    let accumulation = (TOKENS_OF_UPDATE / max_length).clamp(1, (rows * epochs / FEWEST_UPDATES).max(1));
    Choice {
        max_length,
        is_text,
        epochs,
        accumulation,
        examples: Some(report.examples),
        eval_fraction: (answers.eval.is_none() && report.examples >= ENOUGH_TO_KEEP_BACK).then_some(0.05),
        assistant_only_loss: matches!(report.format, Some(Shape::Messages | Shape::ShareGpt)),
        streamed: corpus.stream.is_some(),
        ..seen.choice.clone()
    }
}
