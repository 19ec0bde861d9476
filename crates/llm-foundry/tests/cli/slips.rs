//! Slips that people make in configurations: each is named with its place and a remedy, and all of them at once.

use crate::support::Room;

/// A configuration, what must be said about it, and in how many problems.
const SLIPS: &[(&str, usize, &[&str])] = &[
    // What is inside of a misspelt section is looked at as well.
    (
        "model: {name_or_path: m}\ndta: {train: x, max_lenght: long}\ntrainning: {learning_rate: fast, epochs: 3}\noutput_dir: o\n",
        6,
        &[
            "did you mean `data`?",
            "unknown key `max_lenght` in `data`",
            "`data.max_length` must be a whole number, found the text `long`",
            "did you mean `training`?",
            "`training.learning_rate` must be a number, found the text `fast`",
            "did you mean `num_train_epochs`?",
        ],
    ),
    // A value where a section belongs.
    (
        "model: some/model\ndata: x.jsonl\n",
        2,
        &["write `model: {name_or_path: some/model}`", "write `data: {train: x.jsonl}`"],
    ),
    // Every key of every source.
    (
        "model: {name_or_path: m}\ndata:\n  sources:\n    - path: a.jsonl\n      weight: 1\n    - pth: b.jsonl\n      \
         wieght: 2\n  train: x\noutput_dir: o\n",
        3,
        &[
            "unknown key `pth` in `data.sources.1`",
            "did you mean `weight`?",
            "`data.train` and `data.sources` are both given",
        ],
    ),
    // Another program's file.
    (
        "base_model: m\nmicro_batch_size: 2\n",
        2,
        &["looks like a configuration of Axolotl", "import-config config.yaml"],
    ),
    ("model_name_or_path: m\nfinetuning_type: lora\n", 2, &["looks like a configuration of LLaMA-Factory"]),
    // Not YAML.
    ("model:\n\tname_or_path: m\n", 1, &["config.yaml:2:", "indent with spaces"]),
    ("data:\n  train: [x.jsonl\noutput_dir: o\n", 1, &["the `[` of line 2 may not be closed"]),
    ("training:\n  seed: 1\n   max_steps: 3\n", 1, &["config.yaml:3:", "begin in the same column"]),
    ("data: {train: *.jsonl}\n", 1, &["in quotes"]),
    // Wrong values: the message names what would be right.
    (
        "model: {name_or_path: m}\ndata: {train: [a, 3]}\nlora: {trainable_token_indices: [[2]], layers_to_transform: [x]}\n\
         training: {max_time: soon, memory_budget: much}\noutput_dir: o\n",
        5,
        &[
            "an item of `data.train` must be a text, found the number `3`",
            "must be a token or its id",
            "an item of `lora.layers_to_transform` must be a whole number",
            "`training.max_time` must be a length of time such as 90m, 1h30m, 2d",
            "an amount such as 2GB, 800MiB or 50%",
        ],
    ),
    // Keys that exclude or need each other.
    (
        "model: {name_or_path: m, load_in_4bit: true}\ndata: {train: x, packing: true, max_length: null}\n\
         training: {load_best_model_at_end: true, run_name: x, loraplus_lr_ratio: 16}\noutput_dir: o\n",
        5,
        &[
            "add a section `lora` to train an adapter on them",
            "packing needs a row length, but `data.max_length` is null",
            "`training.load_best_model_at_end` asks for evaluations",
            "the run is reported to no tracker",
            "is about adapters, but there is no section `lora`",
        ],
    ),
    (
        "model: {name_or_path: m, load_in_8bit: true, bnb_4bit_use_double_quant: true}\ndata: {train: x, eval: e.jsonl, eval_fraction: 0.1}\n\
         lora: {adapter: a, r: 8}\ntraining: {max_time: 1h, save_only_model: true, early_stopping_threshold: 0.1}\noutput_dir: o\n",
        5,
        &[
            "`model.bnb_4bit_use_double_quant` is given, but not `load_in_4bit`",
            "`data.eval_fraction` and `data.eval` are both given",
            "the adapter in `lora.adapter` decides it",
            "`save_only_model` leaves out what that needs",
            "nothing stops early",
        ],
    ),
    ("", 2, &["`model.name_or_path` is missing", "`data.train` is missing"]),
    ("- model: m\n", 1, &["found a list"]),
];

#[test]
fn every_slip_is_named_with_its_remedy() {
    for (config, problems, words) in SLIPS {
        let room = Room::new();
        room.write("config.yaml", config);
        let said = room.foundry(&["plan", "config.yaml"]).expect_refusal(words);
        let found = said.err.matches("error: ").count();
        assert_eq!(found, *problems, "{config}\n{}", said.err);
    }
}

#[test]
fn a_file_that_is_not_there_has_a_neighbour_or_a_way_out() {
    let room = Room::new();
    room.write("my_run.yaml", "");
    room.foundry(&["plan", "my_rnu.yaml"]).expect_refusal(&["did you mean my_run.yaml?"]);
    room.foundry(&["plan", "elsewhere.yaml"]).expect_refusal(&["llm-foundry init"]);
}
