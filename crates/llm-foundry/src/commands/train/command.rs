//! The command that a run was started with, as a shell takes it.

use crate::cli::{MachineArgs, TrainArgs};

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

/// A word as POSIX shells read it (XCU 2.2.2).
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./=:-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn every_word_comes_out_of_a_shell_as_it_went_in() {
        let words = [
            "a.b=1",
            "",
            "a b",
            "data.train=x[0-9]*.jsonl",
            "$HOME",
            "it's",
            "a;b",
            "lora={r: 4}",
            "~/x",
            "ü\n",
        ];
        assert_eq!(quoted("training.seed=1"), "training.seed=1");
        let command = words.map(quoted).join(" ");
        let script = format!("printf '%s\\0' {command}");
        let said = std::process::Command::new("sh").args(["-c", &script]).output().expect("a shell");
        let said = String::from_utf8(said.stdout).expect("text");
        assert_eq!(said.split_terminator('\0').collect::<Vec<_>>(), words);
    }
}
