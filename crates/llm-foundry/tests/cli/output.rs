//! Help, colours, versions.

use crate::support::{Room, Said};

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let said = Room::new().foundry(&["--help"]).expect_done();
    for word in ["train", "plan", "chat", "generate", "schema", "130 interrupted", "FOUNDRY_ISA"] {
        assert!(said.out.contains(word), "no `{word}` in:\n{}", said.out);
    }
    let said = Room::new().foundry(&["--version"]).expect_done();
    assert!(said.out.starts_with("llm-foundry "));
}

#[test]
fn colours_appear_only_where_they_are_wanted() {
    let room = Room::new();
    room.write("config.yaml", "modle: 1\n");
    let plain = room.foundry(&["train", "config.yaml"]);
    assert!(!plain.err.contains('\u{1b}'), "no colours without a terminal: {}", plain.err);
    let forced =
        room.command(&["train", "config.yaml"]).env("CLICOLOR_FORCE", "1").output().expect("it starts");
    assert!(Said::from(forced).err.contains('\u{1b}'));
    let forced =
        room.command(&["train", "config.yaml"]).env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1").output();
    assert!(!Said::from(forced.expect("it starts")).err.contains('\u{1b}'), "NO_COLOR wins");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let room = Room::new();
    let mut child =
        room.command(&["schema"]).stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    assert!(child.wait().expect("it ends").success());
}
