//! `llm-foundry report`: the page about runs, made again or for several of them.

use crate::cli::RunReportArgs;
use crate::console::say;
use crate::failure::{Failure, Outcome};
use crate::report::{self, REPORT};
use std::path::{Path, PathBuf};

/// Writes the page.
pub(crate) fn run(args: &RunReportArgs, quiet: bool) -> Outcome {
    let mut runs = Vec::new();
    for dir in &args.runs {
        runs.extend(runs_in(dir)?);
    }
    let path = match (&args.output, args.runs.as_slice()) {
        (Some(path), _) => path.clone(),
        (None, [dir]) => dir.join(REPORT),
        (None, _) => PathBuf::from(REPORT),
    };
    report::write(&path, &report::of_runs(&runs)?)?;
    say(quiet, format!("{} run(s)", runs.len()));
    anstream::println!("{}", path.display());
    Ok(())
}

/// The directory itself, or the runs of the sweep in it.
fn runs_in(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let has_metrics = |dir: &Path| dir.join(foundry_engine::callbacks::METRICS).is_file();
    if has_metrics(dir) {
        return Ok(vec![dir.to_owned()]);
    }
    let entries = std::fs::read_dir(dir).map_err(|e| Failure::io("list", dir, &e))?;
    let mut below: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| has_metrics(path)).collect();
    below.sort();
    if below.is_empty() {
        return Err(Failure::Input(format!(
            "{}: there is no run here and none below: name the output directory of a run or of a sweep",
            dir.display()
        )));
    }
    Ok(below)
}
