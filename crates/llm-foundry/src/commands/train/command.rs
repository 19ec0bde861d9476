//! The command that a run was started with, as a shell takes it.

use crate::cli::{MachineArgs, TrainArgs};
use crate::shell_words::quoted;

/// It, without options that only say where to begin.
pub(super) fn of(args: &TrainArgs, machine: &MachineArgs) -> String {
    let config = args.config.config.display().to_string();
    let mut words = vec!["llm-foundry".to_owned(), "train".to_owned(), config];
    words.extend(args.config.overrides.iter().cloned());
    // What the environment says it says again.
    let given = |name: &str, value: &String| std::env::var(name).as_ref() != Ok(value);
    let threads = machine.threads.map(|threads| threads.to_string());
    let options = [("--threads", "FOUNDRY_THREADS", threads), ("--isa", "FOUNDRY_ISA", machine.isa.clone())];
    for (option, name, value) in options {
        if let Some(value) = value.filter(|value| given(name, value)) {
            words.extend([option.to_owned(), value]);
        }
    }
    if args.json {
        words.push("--json".to_owned());
    }
    if machine.quiet {
        words.push("--quiet".to_owned());
    }
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}
