//! Everything that a user can get wrong: a message with place, value and remedy, exit code 2, nothing written.

use crate::support::{Room, Said, chats, tiny_config, tiny_model};
use serde_json::json;
use std::fs;

/// Trains with a configuration that must be refused, and checks that nothing was written.
#[track_caller]
fn refused(room: &Room, args: &[&str], words: &[&str]) -> String {
    let before = room.names();
    let all: Vec<&str> = ["train", "config.yaml"].iter().chain(args).copied().collect();
    let said = room.foundry(&all).expect_refusal(words);
    assert_eq!(room.names(), before, "something was written");
    said.err
}

fn ready() -> Room {
    let room = Room::new();
    room.lora_run("  max_steps: 2\n");
    room
}

#[test]
fn an_unknown_key_is_shown_with_line_caret_and_the_near_one() {
    let room = ready();
    let text = room.read("config.yaml").replace("  r: 4\n", "  rnak: 4\n");
    room.write("config.yaml", text);
    let said = refused(&room, &[], &["unknown key `rnak` in `lora`", "config.yaml:8:3", "did you mean `r`?"]);
    assert!(said.contains("8 |   rnak: 4") && said.contains("|   ^^^^"), "{said}");
}

#[test]
fn an_unknown_override_names_the_command_line() {
    let words = ["unknown key `training.lr`", "command line:1:1", "did you mean `training.learning_rate`?"];
    refused(&ready(), &["training.lr=1"], &words);
    refused(&ready(), &["training.learning_rate"], &["is not an override", "section.key=value"]);
    refused(&ready(), &["output_dir.x=1"], &["unknown key `output_dir.x`"]);
    refused(&ready(), &["data.train=[a"], &["is not YAML"]);
}

#[test]
fn wrong_types_and_values_are_told_all_at_once() {
    let room = ready();
    let text = room
        .read("config.yaml")
        .replace("r: 4", "r: four")
        .replace("max_length: 64", "max_length: -5")
        .replace("learning_rate: 5e-3", "learning_rate: [1]")
        .replace("logging_steps: 1", "logging_steps: 1.5");
    room.write("config.yaml", format!("{text}seed: 3\n"));
    let words = [
        "`lora.r` must be a whole number, found the text `four`",
        "config.yaml:8:6",
        "`data.max_length` must be a whole number, 0 or more, found the number `-5`",
        "`training.learning_rate` must be a number, found a list",
        "1.5 is neither a whole number of steps nor a share below 1",
        "unknown key `seed`",
        "did you mean `training.seed`?",
        "5 problems in config.yaml",
    ];
    refused(&room, &[], &words);
}

#[test]
fn rules_between_keys() {
    let room = ready();
    refused(&room, &["lora.r=0"], &["`lora.r` is 0, but must be 1 or more"]);
    let packing = ["data.packing=true", "data.max_length=null"];
    refused(&room, &packing, &["packing needs a row length", "`data.max_length` is null"]);
    let nothing = ["training.max_steps=-1", "training.num_train_epochs=0"];
    refused(&room, &nothing, &["nothing to do", "num_train_epochs"]);
    refused(&room, &["training.eval_steps=5"], &["there is no evaluation data", "data.eval"]);
    let kwargs = ["training.lr_scheduler_kwargs={num_cycle: 2}", "training.lr_scheduler_type=cosine"];
    refused(&room, &kwargs, &["num_cycle", "did you mean `num_cycles`?"]);
    refused(
        &room,
        &["training.lr_scheduler_type=cosin"],
        &["unknown value `cosin`", "did you mean `cosine`?"],
    );
    refused(&room, &["training.lr_scheduler_type=warmup_stable_decay"], &["num_decay_steps"]);
    refused(&room, &["data.eval_fraction=0.5", "data.eval=x.jsonl"], &["are both given"]);
    refused(&room, &["lora.target_modules=[]"], &["names no module"]);
    refused(&room, &["lora.target_modules=[q_porj]"], &["q_porj"]);
    refused(&room, &["data.packing_strategy=wrapped"], &["nothing is packed"]);
    refused(&room, &["training.label_smoothing_factor=0.1", "training.loss_type=dft"], &["label smoothing"]);
    refused(&room, &["training.warmup_steps=1.5"], &["warmup_steps"]);
    refused(&room, &["model.init=random"], &["an adapter on random weights"]);
    for key in
        ["lora.lora_alpha", "training.neftune_noise_alpha", "training.weight_decay", "training.learning_rate"]
    {
        refused(&room, &[&format!("{key}=1e300")], &[key, "is 1e300", "32-bit"]);
    }
    refused(&room, &["training.adam_epsilon=1e-300"], &["`training.adam_epsilon` is 1e-300", "above 0"]);
    let patterns =
        ["lora.rank_pattern={q_proj: 0}", "lora.alpha_pattern={'(up': 1}", "lora.layers_to_transform=[]"];
    for pattern in patterns {
        refused(&room, &[pattern], &[pattern.split('=').next().expect("a key"), "command line"]);
    }
    refused(&room, &["lora.layers_to_transform=[7]"], &["layer 7", "0 to 1"]);
    refused(&room, &["lora.init_lora_weights=eva"], &["pissa_niter_N", "`eva`"]);
    refused(
        &room,
        &["lora.init_lora_weights=pissa", "lora.r=20"],
        &["`init_lora_weights: pissa`", "at most 16"],
    );
    refused(&room, &["lora.lora_bias=true", "lora.use_dora=true"], &["exclude each other"]);
    refused(&room, &["training.loraplus_lr_ratio=0"], &["training.loraplus_lr_ratio", "above 0"]);
    refused(&room, &["lora=null", "training.loraplus_lr_ratio=4"], &["no section `lora`"]);
    refused(&room, &["training.embedding_learning_rate=1e-5"], &["neither embedding nor head is trained"]);
    refused(&room, &["lora.bias=some"], &["unknown value `some`", "possible: none"]);
}

#[test]
fn an_empty_lora_section_is_not_full_fine_tuning() {
    let room = ready();
    let text = room.read("config.yaml").replace("  r: 4\n  lora_alpha: 8\n  lora_dropout: 0.1\n", "");
    room.write("config.yaml", text);
    refused(&room, &[], &["section `lora` is empty", "lora: {}"]);
}

#[test]
fn a_configuration_that_is_missing_or_no_yaml() {
    let room = ready();
    room.foundry(&["train", "nowhere.yaml"]).expect_refusal(&["cannot read the configuration nowhere.yaml"]);
    room.write("config.yaml", "model: {name_or_path: x\ndata: 1\n");
    refused(&room, &[], &["this is not YAML", "config.yaml:2:"]);
    room.write("config.yaml", "data:\n  train: *.jsonl\n");
    refused(&room, &[], &["this is not YAML", "config.yaml:2:", "in quotes"]);
    room.write("config.yaml", b"a: \xff\n");
    refused(&room, &[], &["line 1 is not UTF-8 text"]);
    room.write("config.yaml", "");
    refused(&room, &[], &["no model is named", "no training data"]);
}

#[test]
fn the_output_directory_must_be_named_and_free() {
    let room = ready();
    refused(&room, &["output_dir=null"], &["`output_dir` is missing", "output_dir=DIR"]);
    refused(&room, &["output_dir=train.jsonl"], &["train.jsonl is a file"]);
    refused(&room, &["output_dir=train.jsonl/run"], &["output_dir", "train.jsonl", "it is a file"]);
    #[cfg(target_os = "linux")]
    refused(&room, &["output_dir=/proc/nowhere/run"], &["output_dir: cannot write in /proc"]);
    refused(&room, &["output_dir=' '"], &["`output_dir` is empty", "command line:1:"]);
    refused(&room, &[r#"output_dir="a\0b""#], &["`output_dir` contains a NUL character"]);
    room.write("run/metrics.jsonl", "{}\n");
    refused(&room, &[], &["holds an earlier run", "--resume", "--overwrite-output-dir"]);
    assert_eq!(room.read("run/metrics.jsonl"), "{}\n");
}

#[test]
fn data_files_that_are_missing() {
    let room = ready();
    refused(
        &room,
        &["data.train=tarin.jsonl"],
        &["data.train: no file tarin.jsonl", "did you mean train.jsonl?"],
    );
    refused(&room, &["data.train=*.csv"], &["matches no file"]);
    fs::create_dir(room.path("empty")).expect("made");
    refused(&room, &["data.train=empty"], &["the directory empty holds no data file", ".jsonl", "empty/**"]);
    room.write("table.csv", "a,b\n");
    refused(&room, &["data.train=table.csv"], &["the data set is empty", "table.csv"]);
    room.write("table.csv", "a,b\n1,2\n");
    refused(&room, &["data.train=table.csv"], &["table.csv:2", "no supported shape has the keys `a`, `b`"]);
    room.write("table.xlsx", "x");
    refused(&room, &["data.train=table.xlsx"], &["table.xlsx", "cannot tell the format", ".jsonl"]);
}

#[test]
fn broken_json_names_file_and_line() {
    let room = ready();
    room.write("train.jsonl", chats(2) + "{\"messages\": [\n");
    refused(&room, &[], &["train.jsonl:3", "broken JSON"]);
    room.write("train.jsonl", chats(1) + "[1, 2]\n");
    refused(&room, &[], &["train.jsonl:2", "must be an object"]);
    room.write("train.jsonl", "{\"question\": \"a\"}\n");
    refused(&room, &[], &["train.jsonl:1", "question", "messages"]);
}

#[test]
fn an_empty_data_set() {
    let room = ready();
    room.write("train.jsonl", "\n\n");
    refused(&room, &[], &["train.jsonl"]);
}

#[test]
fn all_labels_masked() {
    let room = ready();
    let long = "many words ".repeat(60);
    room.write("train.jsonl", json!({"prompt": long, "completion": " end"}).to_string());
    refused(&room, &["data.max_length=16"], &["max_length"]);
}

#[test]
fn chat_data_without_a_chat_template() {
    let room = ready();
    let model = room.model("model");
    let config = fs::read_to_string(model.join("tokenizer_config.json")).expect("there");
    let mut config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    config.as_object_mut().expect("an object").remove("chat_template");
    fs::write(model.join("tokenizer_config.json"), config.to_string()).expect("written");
    let _ = fs::remove_file(model.join("chat_template.jinja"));
    refused(&room, &["model.name_or_path=model"], &["chat template"]);
}

#[test]
fn an_unsupported_architecture_lists_the_supported_ones() {
    let room = ready();
    let model = room.model("model");
    let mut config = tiny_config();
    config["architectures"] = json!(["MambaForCausalLM"]);
    fs::write(model.join("config.json"), config.to_string()).expect("written");
    let words = ["MambaForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "config.json"];
    refused(&room, &["model.name_or_path=model"], &words);
}

#[test]
fn a_pickle_checkpoint_is_refused_with_the_way_out() {
    let room = ready();
    let model = room.model("model");
    fs::rename(model.join("model.safetensors"), model.join("pytorch_model.bin")).expect("renamed");
    refused(&room, &["model.name_or_path=model"], &["pickle", "pytorch_model.bin", "save_pretrained"]);
}

#[test]
fn truncated_and_lying_safetensors() {
    let room = ready();
    let model = room.model("model");
    let file = model.join("model.safetensors");
    let whole = fs::read(&file).expect("read");
    let spoil = |bytes: &[u8]| {
        fs::write(&file, bytes).expect("written");
        refused(&room, &["model.name_or_path=model"], &["model.safetensors"]);
    };
    spoil(&whole[..4]);
    spoil(&whole[..whole.len() / 2]);
    spoil(&[&u64::MAX.to_le_bytes()[..], &whole[8..]].concat());
    let text = String::from_utf8_lossy(&whole[8..400]).into_owned();
    let at = 8 + text.find("\"data_offsets\":[0,").expect("a first tensor") + "\"data_offsets\":[0,".len();
    let mut lying = whole.clone();
    lying[at] = if lying[at] == b'9' { b'1' } else { b'9' };
    spoil(&lying);
}

#[test]
fn tensors_of_another_model() {
    let room = ready();
    let model = room.model("model");
    let mut config = tiny_config();
    config["intermediate_size"] = json!(48);
    fs::write(model.join("config.json"), config.to_string()).expect("written");
    refused(&room, &["model.name_or_path=model"], &["gate_proj", "[64, 32]", "[48, 32]"]);
    config["intermediate_size"] = json!(64);
    config["num_hidden_layers"] = json!(3);
    fs::write(model.join("config.json"), config.to_string()).expect("written");
    refused(&room, &["model.name_or_path=model"], &["model.layers.2", "missing"]);
}

#[test]
fn truncated_and_lying_gguf() {
    let room = ready();
    for (name, bytes) in [
        ("magic", b"GG".to_vec()),
        ("version", [&b"GGUF"[..], &99u32.to_le_bytes()].concat()),
        ("counts", [&b"GGUF"[..], &3u32.to_le_bytes(), &[0xff; 16]].concat()),
        (
            "short",
            [&b"GGUF"[..], &3u32.to_le_bytes(), &1u64.to_le_bytes(), &1u64.to_le_bytes(), &[0xff; 8]]
                .concat(),
        ),
    ] {
        let file = format!("{name}.gguf");
        room.write(&file, bytes);
        refused(&room, &[&format!("model.name_or_path={file}")], &[&file]);
    }
}

#[test]
fn models_that_are_nowhere() {
    let room = ready();
    let nowhere = ["no model `./nowhere`", "does not exist", "org/name"];
    refused(&room, &["model.name_or_path=./nowhere"], &nowhere);
    refused(&room, &["model.name_or_path=x.gguf"], &["x.gguf", "not looked up on the hub"]);
    refused(
        &room,
        &["model.name_or_path=org/name"],
        &["hub id", "HF_HUB_OFFLINE", "the model is not in the cache"],
    );
    room.model("model");
    refused(&room, &["model.name_or_path=modle"], &["hub id", "did you mean model"]);
    fs::remove_dir_all(room.path("model")).expect("removed");
    fs::create_dir(room.path("bare")).expect("made");
    refused(&room, &["model.name_or_path=bare"], &["config.json"]);
    refused(
        &room,
        &["lora.adapter=bare", "lora.r=16", "lora.lora_alpha=32", "lora.lora_dropout=0"],
        &["adapter_config.json"],
    );
}

#[test]
fn a_tokenizer_that_does_not_belong_to_the_model() {
    let room = ready();
    let model = room.model("model");
    let mut config = tiny_config();
    config["vocab_size"] = json!(100);
    fs::write(model.join("config.json"), config.to_string()).expect("written");
    refused(&room, &["model.name_or_path=model"], &["768 tokens", "100 rows"]);
}

#[test]
fn not_enough_memory_is_said_before_loading() {
    let room = ready();
    let model = room.model("model");
    let mut config = tiny_config();
    let sizes = [("hidden_size", 1 << 18), ("num_attention_heads", 2048), ("num_hidden_layers", 100)];
    for (key, value) in sizes {
        config[key] = json!(value);
    }
    fs::write(model.join("config.json"), config.to_string()).expect("written");
    let words = ["not enough memory", "weights", "data.max_length", "training.check_memory=false"];
    refused(&room, &["model.name_or_path=model"], &words);
    let said = room.foundry(&["plan", "config.yaml", "model.name_or_path=model"]).expect_refusal(&words);
    assert!(said.out.contains("weights"), "the plan is printed all the same: {}", said.out);
    room.foundry(&["plan", "config.yaml", "model.name_or_path=model", "training.check_memory=false"])
        .expect_done();
    let said = room.foundry(&["generate", "model", "--prompt", "x"]);
    said.expect_refusal(&["not enough memory", "--no-memory-check"]);
}

#[test]
fn machines_and_commands() {
    let room = ready();
    let said = Room::foundry(&room, &["train", "config.yaml", "--isa", "neon9"]);
    said.expect_refusal(&["neon9", "portable"]);
    room.foundry(&["train", "config.yaml", "--threads", "0"]).expect_refusal(&["--threads"]);
    for count in ["1000000", "18446744073709551615"] {
        refused(&room, &["--threads", count], &[count, "--threads", "at most"]);
    }
    let args = ["train", "config.yaml", "training.threads=1000000"];
    let said = room.command(&args).env_remove("FOUNDRY_THREADS").output();
    Said::from(said.expect("the binary starts")).expect_refusal(&["training.threads"]);
    room.foundry(&["trian"]).expect_refusal(&["trian"]);
    room.foundry(&["train", "config.yaml", "--resume"]).expect_refusal(&["holds no checkpoint"]);
    room.foundry(&["train", "config.yaml", "--resume", "elsewhere"]).expect_refusal(&["elsewhere"]);
    let model = tiny_model().to_str().expect("UTF-8");
    room.foundry(&["generate", model]).expect_refusal(&["--prompt"]);
    room.foundry(&["generate", model, "--prompt", ""]).expect_refusal(&["no tokens"]);
    room.foundry(&["generate", model, "--prompt", "a", "--top-p", "2"]).expect_refusal(&["top_p", "2"]);
    room.write("m.json", "[{\"role\": \"user\"");
    room.foundry(&["generate", model, "--messages", "m.json"]).expect_refusal(&["m.json", "line 1"]);
    room.write("m.json", "[{\"content\": \"x\"}]");
    room.foundry(&["generate", model, "--messages", "m.json"]).expect_refusal(&["message 1 has no `role`"]);
    let long = "word ".repeat(400);
    let words = ["tokens", "--max-length", "max_position_embeddings"];
    room.foundry(&["generate", model, "--prompt", &long]).expect_refusal(&words);
    for flags in
        [["--greedy", "--top-p=0.5"], ["--greedy", "--do-sample"], ["--stop", ""], ["--max-length", "0"]]
    {
        let args = [&["generate", model, "--prompt", "a"][..], &flags].concat();
        room.foundry(&args).expect_refusal(&[flags[0]]);
    }
}

#[test]
fn optimisers_and_memory_limits_that_make_no_sense_are_refused() {
    for (arguments, words) in [
        (vec!["training.optim=adam"], vec!["`training.optim`", "adamw_torch_fused"]),
        (vec!["training.optim=sgd", "training.optim_args=beta=1"], vec!["`beta` is not an argument of sgd"]),
        (vec!["training.optim_args=momentum=0.9"], vec!["only `sgd` takes arguments"]),
        (vec!["training.optim=sgd", "training.optim_args=nesterov=true"], vec!["nesterov needs a momentum"]),
        (vec!["training.optim=sgd", "training.adam_beta1=0.8"], vec!["`training.adam_beta1` is given"]),
        (vec!["training.optim=lion", "training.adam_epsilon=1e-6"], vec!["`training.adam_epsilon` is given"]),
        (vec!["training.memory_budget=plenty"], vec!["plenty", "2GB"]),
        (vec!["training.memory_budget=120%"], vec!["120%"]),
        (vec!["training.gradient_checkpointing=some"], vec!["some", "selective"]),
        (vec!["training.bf16_stochastic_round=true"], vec!["`model.dtype` is float32"]),
    ] {
        refused(&ready(), &arguments, &words);
    }
}

#[test]
fn quantised_weights_need_an_adapter_and_one_format() {
    for (arguments, words) in [
        (vec!["model.load_in_4bit=true", "model.load_in_8bit=true"], vec!["are both given", "keep one"]),
        (vec!["model.load_in_4bit=true", "lora=null"], vec!["cannot be trained", "section `lora`"]),
        (vec!["model.load_in_4bit=true", "model.bnb_4bit_quant_type=fp4"], vec!["fp4", "nf4"]),
        (vec!["model.bnb_4bit_use_double_quant=true"], vec!["but not `load_in_4bit`"]),
        (vec!["model.llm_int8_skip_modules=[q_proj]"], vec!["nothing is quantised"]),
    ] {
        refused(&ready(), &arguments, &words);
    }
}
