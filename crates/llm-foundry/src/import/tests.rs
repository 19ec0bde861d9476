//! Other programs' configurations, and what becomes of each key.

use super::draft::Rule;
use super::*;

fn imported(text: &str) -> Imported {
    import("theirs.yaml", text, None).unwrap_or_else(|e| panic!("{e:?}"))
}

/// `text` is a configuration, and holds each of these lines (without comments).
#[track_caller]
fn expect(imported: &Imported, lines: &[&str]) {
    config::from_text("ours.yaml", imported.text.clone(), &[])
        .unwrap_or_else(|e| panic!("{e:?}\n{}", imported.text));
    let found: Vec<&str> =
        imported.text.lines().map(|line| line.split("  # ").next().unwrap_or(line).trim()).collect();
    for line in lines {
        assert!(found.contains(line), "no `{line}` in:\n{}", imported.text);
    }
}

fn lost(imported: &Imported) -> Vec<&str> {
    imported.lost.iter().map(|note| note.key.as_str()).collect()
}

#[test]
fn axolotl() {
    let imported = imported(
        "base_model: org/base\nload_in_4bit: true\nadapter: qlora\nlora_r: 32\nlora_alpha: 64\nlora_target_linear: true\n\
         datasets:\n  - path: a.jsonl\n    type: chat_template\n    field_messages: conversations\n    \
         message_property_mappings: {role: from, content: value}\n    roles_to_train: [assistant]\n\
         sequence_len: 4096\nsample_packing: true\nmicro_batch_size: 2\nnum_epochs: 4\noptimizer: paged_adamw_8bit\n\
         lr_scheduler: cosine\ncosine_min_lr_ratio: 0.1\nlearning_rate: '2e-4'\nwarmup_ratio: 0.1\nval_set_size: 0.05\n\
         wandb_project: p\nwandb_name: nice\nspecial_tokens: {eos_token: '<e>', pad_token: '<p>', bos_token: '<b>'}\n\
         flash_attention: true\nfsdp: [full_shard]\nrexx: 1\nloraplus_lr_ratio: 16\n",
    );
    assert_eq!(imported.program, Program::Axolotl);
    expect(
        &imported,
        &[
            "save_strategy: epoch",
            "save_total_limit: 4",
            "name_or_path: org/base",
            "load_in_4bit: true",
            "bnb_4bit_use_double_quant: true",
            "r: 32",
            "target_modules: all-linear",
            "train: a.jsonl",
            "format: sharegpt",
            "assistant_only_loss: true",
            "max_length: 4096",
            "packing: true",
            "optim: paged_adamw_8bit",
            "lr_scheduler_type: cosine_with_min_lr",
            "lr_scheduler_kwargs: {min_lr_rate: 0.1}",
            "learning_rate: 0.0002",
            "warmup_steps: 0.1",
            "eval_fraction: 0.05",
            "report_to: wandb",
            "project: p",
            "run_name: nice",
            "eos_token: \"<e>\"",
        ],
    );
    assert_eq!(lost(&imported), ["special_tokens.bos_token", "fsdp", "rexx", "excess_length_strategy"]);
    assert!(imported.text.contains("#   rexx: 1  (not known here as a key of Axolotl)"), "{}", imported.text);
}

#[test]
fn llama_factory_with_its_list_of_data_sets() {
    let room = tempfile::tempdir().expect("a temporary directory");
    let info = serde_json::json!({
        "chats": {"file_name": "chats.json", "formatting": "sharegpt", "tags": {"role_tag": "role", "content_tag": "content"}},
        "tasks": {"file_name": "tasks.json", "columns": {"prompt": "question", "response": "output", "system": "sys"}},
    });
    std::fs::write(room.path().join("dataset_info.json"), info.to_string()).expect("written");
    let dir = room.path().display();
    let imported = imported(&format!(
        "model_name_or_path: m\nstage: sft\nfinetuning_type: lora\nlora_target: q_proj,v_proj\nlora_rank: 4\n\
         quantization_bit: 4\ndouble_quantization: false\ndataset: chats,tasks\ndataset_dir: {dir}\n\
         max_samples: 100\ncutoff_len: 512\nneat_packing: true\nmask_history: true\ntemplate: vicuna\nfp16: true\n\
         warmup_ratio: 0.05\nvideo_fps: 2\nval_size: 0.1\neval_strategy: steps\neval_steps: 50\n"
    ));
    assert_eq!(imported.program, Program::LlamaFactory);
    let sources = format!(
        "sources: [{{path: [{dir}/chats.json], format: messages, take: 100}}, {{path: [{dir}/tasks.json], format: alpaca, \
         columns: {{instruction: question, system: sys}}, take: 100}}]"
    );
    expect(
        &imported,
        &[
            &sources,
            "target_modules: [q_proj, v_proj]",
            "r: 4",
            "lora_alpha: 8.0",
            "load_in_4bit: true",
            "bnb_4bit_use_double_quant: false",
            "packing: true",
            "train_on: last",
            "chat_template: vicuna",
            "learning_rate: 0.00005",
            "warmup_steps: 0.05",
            "eval_steps: 50",
        ],
    );
    assert_eq!(lost(&imported), ["fp16", "video_fps"]);
}

/// What a room with this `dataset_info.json` makes of a LLaMA-Factory file.
fn of_llama_factory(info: &serde_json::Value, text: &str) -> (String, Result<Imported, Failure>) {
    let room = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(room.path().join("dataset_info.json"), info.to_string()).expect("written");
    let dir = room.path().display().to_string();
    let text = format!("model_name_or_path: m\nfinetuning_type: full\ndataset_dir: {dir}\n{text}");
    (dir, import("theirs.yaml", &text, None))
}

#[test]
fn llama_factory_pre_trains_on_packed_texts() {
    let info = serde_json::json!({
        "wiki": {"file_name": "wiki.jsonl", "columns": {"prompt": "content"}},
        "more": {"file_name": "more.jsonl"},
    });
    let (dir, imported) = of_llama_factory(
        &info,
        "stage: pt\ndataset: wiki\neval_dataset: wiki\ncutoff_len: 128\ntemplate: llama3\n",
    );
    let imported = imported.expect("carried over");
    expect(
        &imported,
        &[
            &format!("train: {dir}/wiki.jsonl"),
            &format!("eval: [{dir}/wiki.jsonl]"),
            "format: text",
            "text_field: content",
            "packing: true",
            "packing_strategy: wrapped",
        ],
    );
    assert!(
        !imported.text.contains("alpaca") && !imported.text.contains("chat_template"),
        "{}",
        imported.text
    );
    assert!(imported.lost.is_empty(), "{:?}", imported.lost);
    let (_, imported) = of_llama_factory(&info, "stage: pt\ndataset: more\npacking: false\n");
    let imported = imported.expect("carried over");
    expect(&imported, &["format: text", "text_field: instruction"]);
    assert!(!imported.text.contains("packing"), "{}", imported.text);
}

#[test]
fn llama_factory_mixes_data_sets_by_weight() {
    let info =
        serde_json::json!({"a": {"file_name": "a.json"}, "b": {"file_name": "b.json", "num_samples": 50}});
    let (dir, imported) = of_llama_factory(
        &info,
        "dataset: a,b\nmix_strategy: interleave_over\ninterleave_probs: '0.7,0.3'\nmax_samples: 90\n",
    );
    let sources = format!(
        "sources: [{{path: [{dir}/a.json], format: alpaca, weight: 0.7, take: 90}}, {{path: [{dir}/b.json], format: alpaca, \
         weight: 0.3, take: 50}}]"
    );
    let imported = imported.expect("carried over");
    expect(&imported, &[&sources, "stopping_strategy: all_exhausted"]);
    assert!(imported.lost.is_empty(), "{:?}", imported.lost);
    let (_, evenly) =
        of_llama_factory(&info, "dataset: a,b\nmix_strategy: interleave_under\ninterleave_probs: [1]\n");
    let evenly = evenly.expect("carried over");
    assert!(evenly.text.matches("weight: 1.0").count() == 2, "{}", evenly.text);
    expect(&evenly, &["stopping_strategy: first_exhausted"]);
    assert_eq!(lost(&evenly), ["interleave_probs"]);
    let (_, concat) = of_llama_factory(&info, "dataset: a,b\ninterleave_probs: '0.7,0.3'\n");
    let concat = concat.expect("carried over");
    assert!(!concat.text.contains("weight:"), "{}", concat.text);
    assert_eq!(lost(&concat), ["interleave_probs"]);
}

#[test]
fn axolotl_events_of_an_epoch_are_shares_of_all_steps() {
    let file = |more: &str| {
        let data = "datasets:\n  - path: a.jsonl\n    type: completion\nval_set_size: 0.1\n";
        imported(&format!("base_model: m\n{data}num_epochs: 2\n{more}"))
    };
    let often = file("evals_per_epoch: 4\nsaves_per_epoch: 1\n");
    expect(&often, &["eval_strategy: steps", "eval_steps: 0.125", "save_strategy: epoch"]);
    assert_eq!(lost(&often), ["excess_length_strategy"]);
    let never = file("evals_per_epoch: 0\nsaves_per_epoch: 5\n");
    expect(&never, &["eval_strategy: \"no\"", "save_strategy: steps", "save_steps: 0.1"]);
}

/// No key of an entry disappears without a word, and those that have a counterpart are carried over.
#[test]
fn llama_factory_entries_are_read_key_by_key() {
    let info = serde_json::json!({
        "chats": {
            "file_name": "chats.json", "formatting": "sharegpt", "folder": "sub", "split": "train",
            "columns": {"messages": "talk", "system": "sys", "tools": "functions", "images": "pictures"},
            "tags": {"user_tag": "human", "assistant_tag": "bot", "observation_tag": "observation",
                "function_tag": "function_call", "odd_tag": "x"},
        },
        "tasks": {"file_name": "tasks.json", "columns": {"history": "before", "system": "sys", "kto_tag": "liked"}},
        "hub": {"hf_hub_url": "org/set", "subset": "en", "split": "test", "revision": "v1", "ranking": false},
        "pairs": {"file_name": "pairs.json", "ranking": true},
        "held": {"file_name": "held.json", "formatting": "sharegpt"},
    });
    let (_, imported) = of_llama_factory(&info, "dataset: chats\neval_dataset: tasks\n");
    let imported = imported.expect("carried over");
    expect(
        &imported,
        &[
            "format: sharegpt",
            "columns: {conversations: talk, system: sys, tools: functions}",
            "assistant_only_loss: true",
        ],
    );
    let mut found = lost(&imported);
    found.sort_unstable();
    let place =
        found.iter().find(|key| key.ends_with("tasks.json")).expect("the shape of the evaluation data");
    assert!(place.starts_with("eval_dataset."), "{place}");
    let expected = [
        "dataset.chats.columns.images",
        "dataset.chats.folder",
        "dataset.chats.tags.assistant_tag",
        "dataset.chats.tags.function_tag",
        "dataset.chats.tags.odd_tag",
        *place,
        "eval_dataset.tasks.columns.kto_tag",
    ];
    assert_eq!(found, expected);
    let (_, imported) = of_llama_factory(&info, "dataset: tasks\n");
    expect(&imported.expect("carried over"), &["columns: {history: before, system: sys}"]);
    let (_, imported) = of_llama_factory(&info, "dataset: hub\n");
    let imported = imported.expect("carried over");
    expect(&imported, &["train: org/set", "name: en", "split: test", "revision: v1"]);
    assert!(imported.lost.is_empty(), "{:?}", imported.lost);
    // The same shape is read in the same way.
    let (_, imported) = of_llama_factory(&info, "dataset: held\neval_dataset: held\n");
    assert!(imported.expect("carried over").lost.is_empty());
    let (_, refused) = of_llama_factory(&info, "dataset: chats,pairs\n");
    let Err(Failure::Input(why)) = refused else { panic!("preference data became examples") };
    assert!(why.contains("dataset.pairs.ranking") && why.contains("preference"), "{why}");
}

#[test]
fn axolotl_rows_of_alpaca_keep_alpacas_prompt() {
    let file = |more: &str| format!("base_model: m\ndatasets:\n  - path: a.jsonl\n    type: alpaca\n{more}");
    let alone = imported(&file(
        "chat_template: chatml\nwarmup_steps: 10\nsave_steps: 7\nexcess_length_strategy: truncate\n",
    ));
    expect(&alone, &["format: alpaca", "chat_template: alpaca", "warmup_steps: 10", "save_steps: 7"]);
    assert!(!alone.text.contains("save_strategy"), "{}", alone.text);
    assert_eq!(lost(&alone), ["chat_template", "datasets.type"]);
    let why = &alone.lost[1].why;
    assert!(why.contains("`input`"), "rows with an input differ: {why}");
    // Beside conversations there is no template for it.
    let mixed = imported(&file(
        "  - path: b.jsonl\n    type: chat_template\nchat_template: chatml\nlr_scheduler: constant\n",
    ));
    expect(&mixed, &["chat_template: chatml"]);
    assert!(!mixed.text.contains("warmup"), "a constant rate has no warm-up: {}", mixed.text);
    assert!(lost(&mixed).contains(&"datasets.type"), "{:?}", mixed.lost);
}

#[test]
fn what_happens_once_in_a_run_is_told_so() {
    let why = |epochs: f64| {
        let text = format!(
            "base_model: m\ndatasets:\n  - path: a.jsonl\nval_set_size: 0.1\nnum_epochs: {epochs}\nevals_per_epoch: 0.5\n"
        );
        let imported = imported(&text);
        imported.lost.iter().find(|note| note.key == "evals_per_epoch").map(|note| note.why.clone())
    };
    assert_eq!(why(3.0), None, "a share of all steps");
    assert!(why(2.0).is_some_and(|why| why.contains("once, at the end")));
    assert!(why(1.0).is_some_and(|why| why.contains("less than once")));
}

#[test]
fn axolotl_evaluation_data_is_read_key_by_key() {
    let imported = imported(
        "base_model: m\ndatasets:\n  - path: a.jsonl\n    type: completion\n    field: body\ntest_datasets:\n  \
         - path: b.jsonl\n    type: completion\n    field: other\n    shards: 3\nwarmup_ratio: 0\n",
    );
    expect(&imported, &["eval: [b.jsonl]", "text_field: body", "warmup_steps: 0.03"]);
    assert_eq!(
        lost(&imported),
        ["test_datasets[0].shards", "excess_length_strategy", "test_datasets.b.jsonl"]
    );
}

/// What a limit or a split of evaluation data says is carried over, or told to be lost.
#[test]
fn evaluation_data_loses_nothing_in_silence() {
    let info = serde_json::json!({
        "t": {"file_name": "t.json"},
        "a": {"file_name": "a.json", "num_samples": 50},
        "b": {"hf_hub_url": "org/b", "split": "validation"},
        "c": {"hf_hub_url": "org/c", "split": "test"},
        "d": {"hf_hub_url": "org/d"},
    });
    let of = |sets: &str| of_llama_factory(&info, &format!("dataset: t\n{sets}")).1.expect("a configuration");
    let told = |imported: &Imported| -> Vec<String> {
        imported.lost.iter().map(|note| format!("{}: {}", note.key, note.value)).collect()
    };
    let limited = of("eval_dataset: a\nmax_samples: 9\n");
    assert_eq!(told(&limited), ["eval_dataset.a.num_samples: 50", "max_samples: 9"]);
    assert_eq!(told(&of("eval_dataset: t\n")), Vec::<String>::new());
    let splits = of("eval_dataset: b,c,d,b\n");
    expect(&splits, &["eval_split: validation"]);
    assert_eq!(told(&splits), ["eval_dataset.org/c.split: test", "eval_dataset.org/d.split: train"]);
    expect(&of("eval_dataset: d\n"), &["eval_split: train"]);
    let axolotl = imported(
        "base_model: m\ndatasets:\n  - path: a.jsonl\ntest_datasets:\n  - path: org/b\n  - path: org/c\n    \
         split: validation\n  - path: d.jsonl\n",
    );
    assert!(told(&axolotl).contains(&"test_datasets.org/c.split: validation".to_owned()), "{axolotl:?}");
    assert!(!axolotl.text.contains("  eval_split: "), "{}", axolotl.text);
}

#[test]
fn trl() {
    let imported = imported(
        "model_name_or_path: m\ndataset_name: data.jsonl\nuse_peft: true\nlora_r: 8\nlora_target_modules: [q_proj]\n\
         lora_modules_to_save: lm_head\nmax_length: 2048\npacking: true\neval_strategy: 'no'\nreport_to: [wandb, trackio]\n\
         run_name: x\nmodel_init_kwargs: {dtype: bfloat16, use_cache: false}\ngradient_checkpointing: false\nbeta: 0.1\n",
    );
    assert_eq!(imported.program, Program::Trl);
    expect(
        &imported,
        &[
            "train: data.jsonl",
            "target_modules: [q_proj]",
            "modules_to_save: [lm_head]",
            "lora_alpha: 32",
            "lora_dropout: 0.05",
            "learning_rate: 0.00002",
            "dtype: bfloat16",
            "gradient_checkpointing: none",
            "report_to: [wandb]",
            "run_name: x",
        ],
    );
    assert_eq!(lost(&imported), ["report_to", "model_init_kwargs.use_cache", "beta"]);
}

#[test]
fn other_methods_and_other_files_are_refused() {
    for (text, word) in [
        ("base_model: m\nrl: dpo\n", "rl: dpo"),
        ("model_name_or_path: m\nstage: ppo\n", "stage: ppo"),
        ("a: 1\n", "--from"),
        ("- 1\n", "mapping"),
        ("a: [\n", "not YAML"),
    ] {
        let Err(Failure::Input(message)) = import("f.yaml", text, None) else { panic!("{text}") };
        assert!(message.contains(word), "{message}");
    }
}

/// Every key of every table, with values of every kind: each is in the result, lost, or told to be unneeded, and the
/// result is a configuration.
#[test]
fn no_key_disappears_and_every_result_is_a_configuration() {
    let values = [
        "true",
        "false",
        "3",
        "0",
        "0.5",
        "'x'",
        "'no'",
        "[a, b]",
        "{a: 1}",
        "[{path: p/q, b: 1}]",
        "[1]",
        "-1",
    ];
    let programs = [
        (Program::Axolotl, axolotl::RULES, "base_model: m\nadapter: lora\nload_in_4bit: true\n"),
        (Program::LlamaFactory, llama_factory::RULES, "model_name_or_path: m\nfinetuning_type: lora\n"),
        (Program::Trl, trl::RULES, "model_name_or_path: m\nuse_peft: true\n"),
    ];
    for (program, own, base) in programs {
        let tables: [&[(&str, Rule)]; 2] = [own, trainer::RULES];
        let is_new = |key: &&str| !base.contains(&format!("{key}:")) && *key != "stage";
        let mut keys: Vec<&str> = tables.into_iter().flatten().map(|(key, _)| *key).filter(is_new).collect();
        keys.sort_unstable();
        keys.dedup();
        for value in values {
            let all: String = keys.iter().map(|key| format!("{key}: {value}\n")).collect();
            let result = import("f.yaml", &format!("{base}{all}\"odd\\nkey\": 1\n"), Some(program));
            let result = result.unwrap_or_else(|error| panic!("{value}: {error:?}"));
            expect(&result, &[]);
            for key in &keys {
                let mut notes = result.lost.iter().chain(&result.unneeded);
                let told = notes.any(|note| note.key.split(['.', '[']).next() == Some(*key));
                let comments = result.text.lines().filter_map(|line| Some(line.split_once("  # ")?.1));
                let carried = comments.flat_map(|text| text.split([' ', ','])).any(|word| word == *key);
                assert!(told || carried, "{key}: {value}\n{}", result.text);
            }
            assert!(result.lost.iter().any(|note| note.key == "odd key"), "{:?}", result.lost);
        }
    }
}
