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

/// A line on standard error. That it cannot be written (a terminal that has gone, a full disk behind a log) is no
/// reason to end what is going on.
macro_rules! tell {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(anstream::stderr(), $($words)*);
    }};
}
pub(crate) use tell;

/// The same without an end of line.
macro_rules! redraw {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(anstream::stderr(), $($words)*);
    }};
}
pub(crate) use redraw;

/// Standard error is a terminal that can redraw a line.
pub(crate) fn is_interactive() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A line on standard error, unless quiet.
pub(crate) fn say(quiet: bool, text: impl std::fmt::Display) {
    if !quiet {
        crate::console::tell!("{text}");
    }
}
