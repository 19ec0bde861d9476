//! A run of a sweep, in a process of its own: its memory is its own, and what ends it does not end the sweep.

use crate::failure::{Failure, Outcome};
use crate::signals::{PARENT, PassedOn};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How often a run is asked whether it is over.
const ASKED_EVERY: Duration = Duration::from_millis(50);

/// How a process ended.
pub(super) struct Ended {
    /// `None`: killed.
    pub(super) code: Option<i32>,
}

/// Runs `llm-foundry` with these arguments and further variables; signals to the sweep are passed on to it.
pub(super) fn run(args: &[String], variables: &[(String, String)], signals: &mut PassedOn) -> Outcome<Ended> {
    let program = std::env::current_exe().map_err(|e| Failure::Run(format!("where is this program? {e}")))?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).envs(variables.iter().map(|(name, value)| (name, value)));
    // A sweep that is killed passes nothing on: its run then stops by itself.
    command.env(PARENT, std::process::id().to_string());
    // A group of its own: Ctrl-C reaches it once, by way of the sweep, and not from the terminal as well.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let failed = |e: std::io::Error| Failure::Run(format!("a run of the sweep cannot be started: {e}"));
    let mut child = command.spawn().map_err(failed)?;
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(Ended { code: status.code() });
        }
        signals.pass_on(child.id());
        std::thread::sleep(ASKED_EVERY);
    }
}
