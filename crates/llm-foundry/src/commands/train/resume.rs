//! Which checkpoint `--resume` means, and whether this run may go on from it.

use super::facts::{RENDERED_AT, facts};
use crate::checkpoint_dir::before;
use crate::config::DataSection;
use crate::console;
use crate::failure::{Failure, Outcome};
use crate::model_source::expand_home;
use crate::output_dir::{Existing, has_run};
use crate::plan::Plan;
use crate::stream_facts::speak_like;
use foundry_engine::checkpoint::{
    Checkpoint, CheckpointError, Facts, Search, Successor, open, search, sweep_leftovers,
};
use foundry_engine::{Timetable, TrainingArgs};
use std::path::Path;

/// `latest` of the output directory, the one named, or with `auto` the latest if there is one: jobs that are
/// started again and again give it always. Damaged checkpoints are passed over, and told.
pub(super) fn find(from: &str, output_dir: &Path, quiet: bool) -> Outcome<(Existing, Option<Checkpoint>)> {
    sweep_leftovers(output_dir).map_err(Failure::run)?;
    let path = expand_home(from);
    let dir = match from {
        "latest" | "auto" => output_dir,
        // The output directory itself, as transformers allows.
        _ if path.is_dir() && !path.join("manifest.json").exists() && !is_checkpoint(&path) => &path,
        _ => return named(&path).map(|checkpoint| (existing(&checkpoint, output_dir), Some(checkpoint))),
    };
    let found = search(dir).map_err(|e| Failure::Input(format!("--resume: {e}")))?;
    for (path, damage) in &found.damaged {
        console::say(quiet, format!("warning: {} is passed over: {damage}", path.display()));
    }
    for path in &found.model_only {
        let why = "it holds the model only (save_only_model)";
        console::say(quiet, format!("warning: {} is passed over: {why}", path.display()));
    }
    if from == "auto" && found.found.is_none() && found.damaged.is_empty() && found.model_only.is_empty() {
        // An attempt that was killed before its first checkpoint is kept, under another name.
        let existing = if has_run(dir) { Existing::MoveAside } else { Existing::Refuse };
        return Ok((existing, None));
    }
    match found {
        Search { found: Some(checkpoint), .. } => Ok((existing(&checkpoint, output_dir), Some(checkpoint))),
        nothing => Err(none(dir, &nothing)),
    }
}

/// What is in the output directory already goes on only if the checkpoint is one of it; another run is not touched.
fn existing(checkpoint: &Checkpoint, output_dir: &Path) -> Existing {
    if is_foreign(&checkpoint.path, output_dir) { Existing::Refuse } else { Existing::Continue }
}

/// Whether the checkpoint in `path` lies elsewhere than in the output directory: the run that goes on from it is a
/// branch, not the run that it is of.
pub(super) fn is_foreign(path: &Path, output_dir: &Path) -> bool {
    match (path.canonicalize(), output_dir.canonicalize()) {
        (Ok(path), Ok(output_dir)) => path.parent() != Some(&output_dir),
        _ => true,
    }
}

/// Copies the best checkpoint of a run that goes on in another directory, if it is to be the result. Without it the
/// result will be the last step, unless a better one comes.
pub(super) fn carry_best(
    args: &TrainingArgs,
    checkpoint: &Checkpoint,
    output_dir: &Path,
    quiet: bool,
) -> Outcome {
    let best = checkpoint
        .state
        .best
        .as_ref()
        .filter(|_| args.saves_best() && is_foreign(&checkpoint.path, output_dir));
    let Some(step) = best.map(|best| best.step) else { return Ok(()) };
    let name = format!("checkpoint-{step}");
    let from = checkpoint.path.with_file_name(&name);
    if let Err(error) = open(&from) {
        console::say(quiet, format!("warning: the best checkpoint so far is not carried over: {error}"));
        return Ok(());
    }
    // Swept away by the next start if this one ends here.
    let partial = output_dir.join(format!(".partial-{name}"));
    let failed = |e: std::io::Error| Failure::io("copy the best checkpoint to", &partial, &e);
    std::fs::create_dir_all(&partial).map_err(failed)?;
    for entry in std::fs::read_dir(&from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        std::fs::copy(entry.path(), partial.join(entry.file_name())).map_err(failed)?;
    }
    std::fs::rename(&partial, output_dir.join(&name)).map_err(failed)?;
    console::say(
        quiet,
        format!("the best checkpoint so far, {name}, was copied to {}", output_dir.display()),
    );
    Ok(())
}

/// The checkpoint in `path`; if it is damaged, the one before it is offered.
fn named(path: &Path) -> Outcome<Checkpoint> {
    open(path).map_err(|error| {
        let offer = match &error {
            CheckpointError::Damaged { .. } => {
                before(path, |dir| open(dir).is_ok_and(|c| !c.is_model_only()))
            }
            _ => None,
        };
        let offer = offer
            .map_or_else(String::new, |offer| format!("\n  sound before it: --resume {}", offer.display()));
        Failure::Input(format!("--resume: {error}{offer}"))
    })
}

fn none(dir: &Path, search: &Search) -> Failure {
    let what = match (search.damaged.is_empty(), search.model_only.is_empty()) {
        (true, true) => "",
        (false, _) => " that is whole",
        (true, false) => " that a run can go on from (save_only_model leaves out the optimiser's state)",
    };
    Failure::Input(format!(
        "--resume: {} holds no checkpoint{what}; start the run without --resume (an earlier attempt without checkpoints is \
         moved aside with --overwrite-output-dir)",
        dir.display()
    ))
}

fn is_checkpoint(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("checkpoint-"))
}

/// What this run's checkpoints are bound to. With a checkpoint to go on from, it must be that of the same run.
pub(super) fn facts_of(
    plan: &Plan,
    data: &DataSection,
    checkpoint: Option<&Checkpoint>,
    quiet: bool,
) -> Outcome<Facts> {
    let corpus = plan.corpus.as_ref().ok_or_else(no_data)?;
    let (mut facts, unreadable) = facts(&plan.subject, data, corpus, &plan.storage)?;
    if let Some(moment) = plan.rendered_at {
        facts.insert(RENDERED_AT.to_owned(), moment.into());
    }
    // That it is another run says more than that its base cannot be read.
    if let Some(checkpoint) = checkpoint {
        if speak_like(&checkpoint.state.facts, &mut facts) {
            let said = "warning: the checkpoint is of an older version: whether the streamed data and its settings are \
                        the same is not checked";
            console::say(quiet, said);
        }
        check(plan, &facts, checkpoint)?;
    }
    unreadable.map_or(Ok(facts), |error| Err(Failure::input(error)))
}

/// A run without data: a plan makes do, training does not.
pub(super) fn no_data() -> Failure {
    Failure::Input("there is no data to train on".into())
}

/// Refuses a checkpoint of another run, or beyond this one's end, before any weight is loaded. (The engine
/// checks again.)
fn check(plan: &Plan, facts: &Facts, checkpoint: &Checkpoint) -> Outcome {
    let batch_size = plan.args.per_device_train_batch_size;
    let batches = plan.corpus.as_ref().and_then(|corpus| corpus.batches_per_epoch(batch_size));
    let timetable = Timetable::of(&plan.args, batches).map_err(Failure::input)?;
    let epoch_is_known = batches.is_some();
    let args = &plan.args;
    let successor = Successor { args, facts, world_size: 1, timetable, epoch_is_known, optimizer: None };
    successor.accepts(checkpoint).map(|_| ()).map_err(Failure::input)
}
