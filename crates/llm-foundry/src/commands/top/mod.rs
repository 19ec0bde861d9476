//! `llm-foundry top RUN`: follows a run from what it writes, also one that is over or on another machine's disk.

#[cfg(feature = "tui")]
mod screen;
mod snapshot;
#[cfg(feature = "tui")]
mod terminal;
mod view;

use crate::cli::TopArgs;
use crate::failure::{Failure, Outcome};
use foundry_engine::callbacks::METRICS;
use std::io::{IsTerminal as _, Write as _};
use view::RunView;

/// Shows the run: on a terminal again and again until `q`, else once.
pub(crate) fn run(args: &TopArgs) -> Outcome {
    let dir = crate::model_source::expand_home(&args.run.to_string_lossy());
    if !dir.is_dir() {
        return Err(Failure::Input(format!(
            "{} is no directory; name the output_dir of a run",
            args.run.display()
        )));
    }
    if !dir.join(METRICS).exists() {
        return Err(Failure::Input(format!(
            "{} holds no run: there is no {METRICS} in it; name the output_dir of a run that has begun",
            args.run.display()
        )));
    }
    if args.once || !std::io::stdout().is_terminal() {
        let view = RunView::read(&dir)?;
        return Ok(anstream::stdout().write_all(snapshot::text(&view).as_bytes())?);
    }
    follow(&dir)
}

#[cfg(feature = "tui")]
fn follow(dir: &std::path::Path) -> Outcome {
    terminal::follow(dir)
}

#[cfg(not(feature = "tui"))]
fn follow(_: &std::path::Path) -> Outcome {
    Err(Failure::Input(
        "this program was built without the full screen (feature `tui`)\n  add --once to see how the run stands, or build \
         with --features tui"
            .into(),
    ))
}
