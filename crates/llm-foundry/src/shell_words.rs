//! Words of commands that are shown to be typed.

/// A word as POSIX shells read it (XCU 2.2.2).
pub(crate) fn quoted(word: &str) -> String {
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
