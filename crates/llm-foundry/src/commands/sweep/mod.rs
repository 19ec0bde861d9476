//! `llm-foundry train --multirun`: one run after another, for every combination of the swept values.
//!
//! Every configuration is read and checked before the first run; from then on a run that fails does not stop the rest.
//! `sweep.json` is written after each, so that `--resume` knows what is left after an interruption.

mod axes;
mod child;
mod forecast;
mod places;
mod record;
mod table;

pub(crate) use forecast::plan;

use crate::cli::{MachineArgs, TrainArgs};
use crate::config::{self, Config};
use crate::console::say;
use crate::failure::{Failure, Outcome};
use crate::model_source::expand_home;
use crate::output_dir::{self, Existing};
use crate::report;
use crate::signals::PassedOn;
use axes::Axis;
use places::Places;
use record::{Record, Results, Run, State};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The longest part of a directory's name that comes from swept values.
const LONGEST_NAME: usize = 100;

/// Runs the sweep.
pub(crate) fn run(args: &TrainArgs, machine: &MachineArgs) -> Outcome {
    let sweep = Sweep::plan(args, machine)?;
    let mut record = sweep.begin()?;
    let mut signals = PassedOn::install().map_err(Failure::run)?;
    for index in 0..record.runs.len() {
        if record.runs[index].state == State::Done {
            continue;
        }
        sweep.run_one(&mut record, index, &mut signals)?;
        if signals.asked_to_stop() {
            break;
        }
    }
    record.judge();
    record.write(&sweep.dir)?;
    let runs: Vec<PathBuf> = record.runs.iter().map(|run| sweep.dir.join(&run.name)).collect();
    report::leave_of_several(&sweep.dir, &runs, machine.quiet);
    anstream::stdout().write_all(table::table(&record).as_bytes())?;
    sweep.outcome(&record)
}

/// A sweep whose every configuration is sound.
struct Sweep<'a> {
    args: &'a TrainArgs,
    machine: &'a MachineArgs,
    /// Where the runs' directories are made.
    dir: PathBuf,
    /// Of each run: what keeps it apart from the others in trackers.
    places: Vec<Places>,
    planned: Record,
}

impl<'a> Sweep<'a> {
    fn plan(args: &'a TrainArgs, machine: &'a MachineArgs) -> Outcome<Self> {
        if let Some(from) = args.resume.as_deref().filter(|from| !["latest", "auto"].contains(from)) {
            let message = format!("--multirun --resume finds the checkpoints itself; take `{from}` away");
            return Err(Failure::Input(message));
        }
        let (keys, runs) = combined(&args.config.overrides)?;
        let configs = checked(args, &runs)?;
        let dir = common_dir(&configs)?.ok_or_else(|| {
            Failure::Input(format!(
                "{}: `output_dir` is missing: where should the runs go? Write it into the file, or add output_dir=DIR",
                args.config.config.display()
            ))
        })?;
        let places = places::places(&runs, &configs, &variable).map_err(Failure::Input)?;
        let config = args.config.config.display().to_string();
        let planned = Record { config, keys, compared_by: None, best: None, runs };
        Ok(Self { args, machine, dir, places, planned })
    }

    /// The record to work on: a new one, or that of the sweep that goes on.
    fn begin(&self) -> Outcome<Record> {
        let existing = match (&self.args.resume, self.args.overwrite_output_dir) {
            (Some(from), _) if from == "latest" || self.dir.join(record::SWEEP).exists() => {
                Existing::Continue
            }
            (_, true) => Existing::MoveAside,
            _ => Existing::Refuse,
        };
        output_dir::check(&self.dir, existing)?;
        let record = match existing {
            Existing::Continue => self.earlier()?,
            _ => self.planned.clone(),
        };
        if let Some(moved) = output_dir::prepare(&self.dir, existing)? {
            say(self.machine.quiet, format!("the earlier sweep was moved to {}", moved.display()));
        }
        record.write(&self.dir)?;
        Ok(record)
    }

    /// The record in the directory, if it is of this sweep.
    fn earlier(&self) -> Outcome<Record> {
        let mut record = Record::read(&self.dir)?;
        let told = |record: &Record| -> Vec<Vec<String>> {
            record.runs.iter().map(|run| run.overrides.clone()).collect()
        };
        if told(&record) != told(&self.planned) {
            return Err(Failure::Input(format!(
                "--resume: {} is another sweep than this one (its first run is {}); give the same overrides, or another \
                 output_dir",
                self.dir.display(),
                record.runs.first().map_or("none", |run| run.name.as_str())
            )));
        }
        // The rest is this command's: the file may have been moved.
        record.config.clone_from(&self.planned.config);
        Ok(record)
    }

    fn run_one(&self, record: &mut Record, index: usize, signals: &mut PassedOn) -> Outcome {
        let run = &mut record.runs[index];
        let dir = self.dir.join(&run.name);
        let again = run.state != State::Waiting;
        run.state = State::Running;
        let (name, mut overrides) = (run.name.clone(), run.overrides.clone());
        let places = &self.places[index];
        overrides.extend_from_slice(&places.overrides);
        record.write(&self.dir)?;
        say(self.machine.quiet, format!("\n[{}/{}] {name}", index + 1, record.runs.len()));
        let ended = child::run(&self.arguments(&overrides, &dir, again), &places.variables, signals)?;
        let run = &mut record.runs[index];
        run.exit_code = ended.code;
        run.state = match ended.code {
            Some(0) => State::Done,
            Some(130) => State::Interrupted,
            // Ended by a signal that asked the whole sweep to end.
            None if signals.asked_to_stop() => State::Interrupted,
            _ => State::Failed,
        };
        run.results = Results::read(&dir);
        record.write(&self.dir)
    }

    /// What follows the program's name.
    fn arguments(&self, overrides: &[String], dir: &Path, again: bool) -> Vec<String> {
        let mut words = vec!["train".to_owned(), self.args.config.config.display().to_string()];
        words.extend_from_slice(overrides);
        words.push(output_override(dir));
        if again {
            words.push("--resume=auto".into());
        }
        if self.machine.quiet {
            words.push("--quiet".into());
        }
        words.extend(self.machine.threads.map(|threads| format!("--threads={threads}")));
        words.extend(self.machine.isa.as_ref().map(|isa| format!("--isa={isa}")));
        words
    }

    fn outcome(&self, record: &Record) -> Outcome {
        let count = |state: fn(State) -> bool| record.runs.iter().filter(|run| state(run.state)).count();
        let open = count(|state| matches!(state, State::Waiting | State::Running | State::Interrupted));
        let failed = count(|state| state == State::Failed);
        let place = self.dir.display();
        if open > 0 {
            return Err(Failure::Interrupted(format!(
                "{open} of {} runs are not finished\n  continue with the same command and --resume",
                record.runs.len()
            )));
        }
        if failed > 0 {
            return Err(Failure::Run(format!(
                "{failed} of {} runs failed (their messages are above; {place}/{} has their exit codes); --resume tries \
                 them again",
                record.runs.len(),
                record::SWEEP
            )));
        }
        say(self.machine.quiet, format!("the runs are in {place}"));
        Ok(())
    }
}

/// A run that has not begun.
fn planned(index: usize, values: Vec<String>, axes: &[Axis], fixed: &[String]) -> Run {
    let pairs = || axes.iter().zip(&values);
    let keys = names(axes);
    let name: Vec<String> =
        pairs().map(|(axis, value)| format!("{}={value}", short(axis.name(), &keys))).collect();
    let mut overrides = fixed.to_vec();
    overrides.extend(pairs().map(|(axis, value)| format!("{}={value}", axis.key)));
    let name = format!("{:03}_{}", index + 1, file_name(&name.join("_")));
    Run { name, values, overrides, state: State::Waiting, exit_code: None, results: None }
}

/// The keys that are swept, without signs.
fn names(axes: &[Axis]) -> Vec<String> {
    axes.iter().map(|axis| axis.name().to_owned()).collect()
}

/// The last part of a key, where no other key of the sweep ends in it.
fn short<'k>(key: &'k str, keys: &[String]) -> &'k str {
    let leaf = key.rsplit('.').next().unwrap_or(key);
    let is_leaf = |other: &&String| other.rsplit('.').next() == Some(leaf);
    if keys.iter().filter(is_leaf).count() > 1 { key } else { leaf }
}

/// What every file system and shell takes.
fn file_name(text: &str) -> String {
    let kept = |c: char| c.is_ascii_alphanumeric() || "._=+-".contains(c);
    let mut name: String = text.chars().map(|c| if kept(c) { c } else { '-' }).collect();
    name.truncate(LONGEST_NAME);
    name
}

fn output_override(dir: &Path) -> String {
    format!("output_dir={}", config::yaml_scalar(&dir.display().to_string()))
}

/// The keys that are swept, and a run for every combination of their values.
fn combined(overrides: &[String]) -> Outcome<(Vec<String>, Vec<Run>)> {
    let (fixed, axes) = axes::axes(overrides).map_err(Failure::Input)?;
    if axes.is_empty() {
        let message = "--multirun: no override has several values; write for example \
            training.learning_rate=1e-4,2e-4 or training.seed=range(1,4)";
        return Err(Failure::Input(message.into()));
    }
    let combinations =
        axes::combinations(&axes).map_err(|why| Failure::Input(format!("--multirun: {why}")))?;
    let numbered = combinations.into_iter().enumerate();
    let runs = numbered.map(|(index, values)| planned(index, values, &axes, &fixed)).collect();
    Ok((names(&axes), runs))
}

/// The configurations of all runs, if every one is sound.
fn checked(args: &TrainArgs, runs: &[Run]) -> Outcome<Vec<Config>> {
    let load = |run: &Run| Ok(config::load(&args.config.config, &run.overrides)?.config);
    runs.iter().map(load).collect()
}

/// The directory of the sweep; `None`: none is named.
fn common_dir(configs: &[Config]) -> Outcome<Option<PathBuf>> {
    let own = |config: &Config| config.output_dir.as_deref().map(expand_home);
    let dir = configs.first().and_then(own);
    if configs.iter().any(|config| own(config) != dir) {
        let message = "--multirun: output_dir depends on what is swept; every run gets a directory of its own below it, \
            so write one that is the same for all";
        return Err(Failure::Input(message.into()));
    }
    Ok(dir)
}

/// The value of a variable of the environment.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_named_after_what_differs() {
        let axes = [("training.learning_rate", "1e-4"), ("lora.target_modules", "[q_proj, v_proj]")];
        let named = |axes: &[(&str, &str)]| {
            let axes: Vec<Axis> = axes
                .iter()
                .map(|(key, value)| Axis { key: (*key).into(), values: vec![(*value).into()] })
                .collect();
            let values = axes.iter().map(|axis| axis.values[0].clone()).collect();
            planned(11, values, &axes, &["seed=1".into()])
        };
        let run = named(&axes);
        assert_eq!(run.name, "012_learning_rate=1e-4_target_modules=-q_proj--v_proj-");
        assert_eq!(
            run.overrides,
            ["seed=1", "training.learning_rate=1e-4", "lora.target_modules=[q_proj, v_proj]"]
        );
        let run = named(&[("a.same", "1"), ("+b.same", "../x")]);
        assert_eq!(run.name, "012_a.same=1_b.same=..-x", "keys that end alike are written out");
        assert!(named(&[("a", &"x".repeat(500))]).name.len() <= LONGEST_NAME + 4);
    }
}
