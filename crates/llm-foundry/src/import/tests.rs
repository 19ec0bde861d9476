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
    assert_eq!(lost(&imported), ["special_tokens.bos_token", "fsdp", "rexx"]);
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
         columns: {{instruction: question}}, take: 100}}]"
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
    for key in ["fp16", "video_fps", "dataset.tasks.columns.system"] {
        assert!(lost(&imported).contains(&key), "{key} in {:?}", imported.lost);
    }
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
