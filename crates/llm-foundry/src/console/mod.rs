//! What people see while a command works: bars on a terminal, plain lines elsewhere, nothing with `--quiet`.

mod answers;
mod lines;
mod numbers;
mod sparkline;
mod training;
#[cfg(feature = "hub")]
mod transfer;

pub(crate) use answers::AnswerProgress;
pub(crate) use lines::ConsoleLines;
pub(crate) use numbers::{bytes, duration, thousands};
pub(crate) use sparkline::{Trace, sparkline};
pub(crate) use training::TrainingConsole;
#[cfg(feature = "hub")]
pub(crate) use transfer::DownloadBar;

use std::io::IsTerminal;

/// Standard error is a terminal that can redraw a line.
pub(crate) fn is_interactive() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A line on standard error, unless quiet.
pub(crate) fn say(quiet: bool, text: impl std::fmt::Display) {
    if !quiet {
        anstream::eprintln!("{text}");
    }
}
