//! Configurations made of several files, presets, interpolation and overrides, as `--print-config` shows them.

use crate::support::Room;

/// The printed configuration's line of a key.
#[track_caller]
fn line(room: &Room, args: &[&str], key: &str) -> String {
    let all = [&["plan", "config.yaml", "--print-config"], args].concat();
    let said = room.foundry(&all).expect_done();
    let found = said.out.lines().find(|line| line.trim_start().starts_with(&format!("{key}:")));
    found.unwrap_or_else(|| panic!("no {key} in\n{}", said.out)).trim().to_owned()
}

#[track_caller]
fn refused(room: &Room, args: &[&str], words: &[&str]) -> String {
    room.foundry(&[&["plan", "config.yaml"], args].concat()).expect_refusal(words).err
}

fn room(config: &str) -> Room {
    let room = Room::new();
    room.write("config.yaml", config);
    room.write(
        "shared/base.yaml",
        "extends: deeper/bottom.yaml\ndata:\n  train: [a.jsonl]\ntraining:\n  seed: 7\n  max_steps: 5\n",
    );
    room.write(
        "shared/deeper/bottom.yaml",
        "model: {name_or_path: some/model}\ntraining: {seed: 1, weight_decay: 0.5}\n",
    );
    room
}

#[test]
fn each_value_is_printed_with_the_place_it_comes_from() {
    let room = room("extends: shared/base.yaml\ntraining:\n  seed: 9\n");
    assert_eq!(line(&room, &[], "seed"), "seed: 9  # config.yaml:3");
    assert_eq!(line(&room, &[], "max_steps"), "max_steps: 5  # shared/base.yaml:6");
    assert_eq!(line(&room, &[], "weight_decay"), "weight_decay: 0.5  # shared/deeper/bottom.yaml:2");
    assert_eq!(line(&room, &[], "adam_beta1"), "adam_beta1: 0.9  # default");
    let argument = ["training.seed=11"];
    assert_eq!(line(&room, &argument, "seed"), "seed: 11  # command line: training.seed=11");
    assert_eq!(room.names(), ["config.yaml", "shared"], "nothing is written");
}

#[test]
fn the_order_of_a_defaults_list_decides() {
    let room = room("defaults: [_self_, shared/base.yaml]\ntraining: {seed: 9}\n");
    assert_eq!(line(&room, &[], "seed"), "seed: 7  # shared/base.yaml:5");
    room.write("config.yaml", "defaults: [shared/base.yaml]\ntraining: {seed: 9}\n");
    assert_eq!(line(&room, &[], "seed"), "seed: 9  # config.yaml:2");
    room.write("lora/small.yaml", "r: 3\n");
    room.write("config.yaml", "defaults:\n  - shared/base.yaml\n  - lora: small\n  - optional lora: none\n");
    assert_eq!(line(&room, &[], "r"), "r: 3  # lora/small.yaml:1");
    // As Hydra's users write it.
    room.write("config.yaml", "defaults: [shared/base, lora: small, preset: trl, _self_]\n");
    assert_eq!(line(&room, &[], "r"), "r: 3  # lora/small.yaml:1");
    assert_eq!(line(&room, &[], "seed"), "seed: 7  # shared/base.yaml:5");
    room.write("config.yaml", "extends: shared/bas\n");
    refused(&room, &[], &["cannot read shared/bas:"]);
}

#[test]
fn presets_lie_below_every_file() {
    let room = room("extends: shared/base.yaml\npreset: trl\nlora: {}\n");
    assert_eq!(line(&room, &[], "lora_dropout"), "lora_dropout: 0.05  # preset trl:15");
    assert_eq!(line(&room, &[], "seed"), "seed: 7  # shared/base.yaml:5");
    assert_eq!(line(&room, &["preset=unsloth"], "lora_alpha"), "lora_alpha: 16.0  # preset unsloth:7");
    refused(&room, &["preset=tlr"], &["unknown preset `tlr`", "did you mean `trl`?", "command line"]);
}

#[test]
fn interpolations_and_signed_overrides() {
    let room = room(
        "extends: shared/base.yaml\noutput_dir: runs/${oc.env:NO_SUCH_VARIABLE,x}-${training.seed}\n\
         training: {data_seed: '${.seed}'}\n",
    );
    assert_eq!(line(&room, &[], "output_dir"), "output_dir: runs/x-7  # config.yaml:2");
    assert!(line(&room, &["training.seed=3"], "data_seed").starts_with("data_seed: 3"));
    assert!(line(&room, &["~training.seed"], "output_dir").starts_with("output_dir: runs/x-42"));
    assert!(line(&room, &["+training.save_steps=3"], "save_steps").starts_with("save_steps: 3"));
    assert!(line(&room, &["++training.seed=3"], "seed").starts_with("seed: 3"));
    refused(&room, &["+training.seed=3"], &["`training.seed` is there already", "`++`"]);
    refused(&room, &["~training.save_steps"], &["is not in the configuration"]);
    refused(&room, &["~training.seed=8"], &["the number `7`, not the number `8`"]);
    refused(&room, &["output_dir='${nothing}'"], &["`nothing`, which does not exist", "command line"]);
    refused(&room, &["output_dir='${oc.env:NO_SUCH_VARIABLE}'"], &["no variable `NO_SUCH_VARIABLE`"]);
}

#[test]
fn a_mistake_is_shown_in_the_file_that_has_it() {
    let room = room("extends: shared/base.yaml\ntraining:\n  sede: 9\n");
    room.write(
        "shared/deeper/bottom.yaml",
        "model: {name_or_path: some/model}\ntraining:\n  weigth_decay: 1\n",
    );
    let words =
        ["config.yaml:3:3", "shared/deeper/bottom.yaml:3:3", "did you mean `weight_decay`?", "2 problems"];
    refused(&room, &[], &words);
    room.write("shared/deeper/bottom.yaml", "a: [1\n");
    refused(&room, &[], &["this is not YAML", "shared/deeper/bottom.yaml:"]);
    room.write("shared/deeper/bottom.yaml", "extends: ../base.yaml\n");
    refused(&room, &[], &["base.yaml builds on itself", "shared/deeper/bottom.yaml:1:10"]);
    room.write("config.yaml", "extends: missing.yaml\n");
    refused(&room, &[], &["cannot read missing.yaml", "config.yaml:1:10"]);
    room.write("config.yaml", "extends: {a: 1}\ndefaults: 3\npreset: [1]\n");
    refused(&room, &[], &["expected the path of a file", "`preset` must be a name", "both given"]);
    room.write("config.yaml", "extends: shared/base.yaml\nlora:\n");
    room.write("shared/deeper/bottom.yaml", "model: {name_or_path: some/model}\n");
    refused(&room, &[], &["section `lora` is empty"]);
    room.write("shared/deeper/bottom.yaml", "model: {name_or_path: some/model}\nlora: {r: 2}\n");
    let all = room.foundry(&["plan", "config.yaml", "--print-config"]).expect_done();
    assert!(all.out.contains("lora: null  # config.yaml:2"), "{}", all.out);
}
