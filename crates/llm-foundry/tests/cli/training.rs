//! Runs from end to end on the tiny model.

use crate::support::{Room, metrics};
use serde_json::{Value, json};

#[test]
fn an_adapter_learns_and_its_files_are_all_there() {
    let room = Room::new();
    room.lora_run("  max_steps: 30\n  save_steps: 10\n  save_total_limit: 2\n");
    let said = room.foundry(&["train", "config.yaml", "training.learning_rate=0.02"]).expect_done();
    for file in ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "config.resolved.yaml"]
    {
        assert!(room.path("run").join(file).is_file(), "no {file}: {}", said.err);
    }
    assert!(!room.path("run/checkpoint-10").exists(), "save_total_limit");
    assert!(room.path("run/checkpoint-30").is_dir());
    assert!(!room.path("run/final.partial").exists());
    let steps = metrics(&room, "run");
    assert_eq!(steps.len(), 30);
    let keys = [
        "step",
        "loss",
        "grad_norm",
        "learning_rate",
        "tokens",
        "tokens_per_second",
        "mean_token_accuracy",
        "peak_rss_bytes",
    ];
    for key in keys {
        assert!(steps[0][key].is_number(), "{key}: {}", steps[0]);
    }
    let mean =
        |steps: &[Value]| steps.iter().filter_map(|s| s["loss"].as_f64()).sum::<f64>() / steps.len() as f64;
    let (first, last) = (mean(&steps[..5]), mean(&steps[25..]));
    assert!(last < 0.8 * first, "the loss falls: {first} to {last}");
    for word in ["LoRA r=4", "24 examples", "30 of 30 steps", "adapter saved in run"] {
        assert!(said.err.contains(word), "no `{word}` in:\n{}", said.err);
    }
    assert_eq!(said.out, "", "results go to files, progress to standard error");
}

#[test]
fn a_run_leaves_a_model_card() {
    let room = Room::new();
    let model = room.model("base");
    std::fs::write(model.join("README.md"), "---\nlicense: mit\n---\n# Base\n").expect("written");
    room.lora_run("  max_steps: 2\n  save_strategy: \"no\"\n");
    let args =
        ["train", "config.yaml", "model.name_or_path=base", "data.eval_fraction=0.25", "card.tags=[tiny]"];
    room.foundry(&args).expect_done();
    let card = room.read("run/README.md");
    for part in [
        "---\nlibrary_name: peft\nmodel_name: run\npipeline_tag: text-generation\nlicense: mit\n",
        "- tiny\n",
        "LoRA adapter for `base`",
        "$ llm-foundry train config.yaml model.name_or_path=base data.eval_fraction=0.25 'card.tags=[tiny]'\n",
        "| files | train.jsonl |",
        "| training | 18 examples",
        "| steps | 2 of 2 |",
        "evaluation at step 2: loss |",
        "  lora_alpha: 8",
    ] {
        assert!(card.contains(part), "no `{part}` in:\n{card}");
    }
    assert!(!card.contains("base_model"), "a path is no hub id:\n{card}");
    // The card's licence is the configuration's where it says one, and a whole model is no adapter.
    let full = ["lora=null", "output_dir=full", "card.license=apache-2.0"];
    room.foundry(&[&args[..], &full[..]].concat()).expect_done();
    let card = room.read("full/README.md");
    assert!(card.contains("license: apache-2.0") && card.contains("library_name: transformers"), "{card}");
    room.foundry(&["train", "config.yaml", "card.license=' '", "output_dir=x"])
        .expect_refusal(&["card.license"]);
}

#[test]
fn a_push_chooses_the_result_and_refuses_what_is_none() {
    let room = Room::new();
    room.lora_run("  max_steps: 2\n");
    room.foundry(&["train", "config.yaml"]).expect_done();
    let said = room.foundry(&["push", "run", "org/name", "--dry-run"]).expect_done();
    for name in ["README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json"] {
        assert!(said.out.contains(name), "no {name}: {}", said.out);
    }
    for name in ["metrics", "config.resolved", "checkpoint"] {
        assert!(!said.out.contains(name), "{name}: {}", said.out);
    }
    let said = room.foundry(&["push", "run/checkpoint-2", "org/name", "--dry-run"]).expect_done();
    assert!(said.out.contains("adapter_model") && !said.out.contains("optimizer"), "{}", said.out);
    room.write("empty/notes.txt", "x");
    room.foundry(&["push", "empty", "org/name"]).expect_refusal(&["there is no model and no adapter here"]);
    room.foundry(&["push", "nowhere", "org/name"]).expect_refusal(&["nowhere"]);
    room.foundry(&["push", "run", "a/b/c"]).expect_refusal(&["is no name of a repository"]);
    #[cfg(feature = "hub")]
    room.foundry(&["push", "run", "org/name"]).expect_refusal(&["HF_HUB_OFFLINE forbids the network"]);
}

#[test]
fn loss_falls_on_alpaca_style_data() {
    let room = Room::new();
    room.lora_run("  max_steps: 40\n  save_strategy: \"no\"\n");
    let rows: Vec<Value> = (0..24)
        .map(|i| {
            let (number, input) = (i % 6, if i % 2 == 0 { "Answer in a word." } else { "" });
            let output = format!("It is number {number}.");
            json!({ "instruction": format!("Say what number {number} is."), "input": input, "output": output })
        })
        .collect();
    room.write("alpaca.json", Value::Array(rows).to_string());
    let overrides = ["data.train=alpaca.json", "training.learning_rate=0.02"];
    let said = room.foundry(&[&["train", "config.yaml"], &overrides[..]].concat()).expect_done();
    assert!(said.err.contains("24 examples (alpaca)"), "{}", said.err);
    let losses: Vec<f64> = metrics(&room, "run").iter().filter_map(|step| step["loss"].as_f64()).collect();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&losses[..5]), mean(&losses[35..]));
    assert!(last < 0.8 * first, "the loss falls: {first} to {last}");
}

#[test]
fn every_weight_is_trained_without_a_lora_section() {
    let room = Room::new();
    room.lora_run("  max_steps: 12\n  save_strategy: \"no\"\n");
    room.foundry(&["train", "config.yaml", "lora=null", "training.learning_rate=2e-3"]).expect_done();
    assert!(room.path("run/model.safetensors").is_file() && room.path("run/config.json").is_file());
    let steps = metrics(&room, "run");
    let loss = |i: usize| steps[i]["loss"].as_f64().expect("a number");
    assert!(loss(11) < loss(0), "{} to {}", loss(0), loss(11));
    room.foundry(&["generate", "run", "--prompt", "The cat", "--max-new-tokens", "3"]).expect_done();
}

#[test]
fn the_resolved_configuration_is_the_same_run() {
    let room = Room::new();
    room.lora_run("  max_steps: 4\n  save_strategy: epoch\n");
    room.foundry(&["train", "config.yaml", "lora.r=2"]).expect_done();
    let resolved = room.read("run/config.resolved.yaml");
    for line in [
        "  r: 2  # command line: lora.r=2\n",
        "  use_rslora: false  # default\n",
        "  max_steps: 4  # config.yaml:15\n",
        "  warmup_steps: 0  # default\n",
    ] {
        assert!(resolved.contains(line), "no `{line}` in:\n{resolved}");
    }
    room.foundry(&["train", "run/config.resolved.yaml", "output_dir=again"]).expect_done();
    let files = |run: &str| std::fs::read(room.path(run).join("adapter_model.safetensors")).expect("saved");
    assert!(files("run") == files("again"), "the same weights, bit for bit");
}

#[test]
fn results_do_not_depend_on_threads_and_hardly_on_instructions() {
    let room = Room::new();
    room.lora_run("  max_steps: 3\n  save_strategy: \"no\"\n");
    room.foundry(&["train", "config.yaml", "output_dir=one", "--threads", "1"]).expect_done();
    room.foundry(&["train", "config.yaml", "output_dir=two", "--threads", "2"]).expect_done();
    room.foundry(&["train", "config.yaml", "output_dir=plain", "--isa", "portable"]).expect_done();
    let files = |run: &str| std::fs::read(room.path(run).join("adapter_model.safetensors")).expect("saved");
    assert!(files("one") == files("two"), "the same bits for any number of threads");
    let losses =
        |run: &str| metrics(&room, run).iter().filter_map(|s| s["loss"].as_f64()).collect::<Vec<_>>();
    for (best, plain) in losses("one").iter().zip(losses("plain")) {
        // Float32 sums in another order: three steps of a tiny model stay far below this.
        assert!((best - plain).abs() < 1e-4, "{best} {plain}");
    }
}

#[test]
fn evaluation_happens_where_there_is_data_for_it() {
    let room = Room::new();
    room.lora_run("  num_train_epochs: 2\n  save_strategy: \"no\"\n");
    room.foundry(&["train", "config.yaml", "data.eval_fraction=0.25"]).expect_done();
    let text = room.read("run/metrics.jsonl");
    let evaluations = text.lines().filter(|line| line.contains("\"event\":\"eval\"")).count();
    assert_eq!(evaluations, 2, "one at the end of each epoch:\n{text}");
}

#[test]
fn quiet_runs_say_nothing_and_packing_and_continuing_work() {
    let room = Room::new();
    room.lora_run("  max_steps: 2\n  save_strategy: \"no\"\n");
    let said = room.foundry(&["train", "config.yaml", "data.packing=true", "--quiet"]).expect_done();
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""));
    let resolved = room
        .read("config.yaml")
        .replace("  r: 4\n  lora_alpha: 8\n  lora_dropout: 0.1\n", "  adapter: run\n");
    room.write("more.yaml", resolved);
    room.foundry(&["train", "more.yaml", "output_dir=more"]).expect_done();
    let config: Value = serde_json::from_str(&room.read("more/adapter_config.json")).expect("JSON");
    assert_eq!(config["r"], 4, "the adapter decides");
}

#[test]
fn an_earlier_run_is_moved_aside_when_asked() {
    let room = Room::new();
    room.lora_run("  max_steps: 1\n  save_strategy: \"no\"\n");
    room.foundry(&["train", "config.yaml"]).expect_done();
    let before = room.read("run/metrics.jsonl");
    room.foundry(&["train", "config.yaml", "--overwrite-output-dir"]).expect_done();
    assert_eq!(room.read("run.previous-1/metrics.jsonl"), before);
}

#[test]
fn a_profile_says_where_the_time_went() {
    let room = Room::new();
    room.lora_run("  max_steps: 3\n  save_strategy: \"no\"\n  profile: true\n");
    let said = room.foundry(&["train", "config.yaml"]).expect_done();
    for word in [
        "profile of 2 steps",
        "waiting for data",
        "matmul nt",
        "attention, backward",
        "head and loss",
        "adamw",
    ] {
        assert!(said.err.contains(word), "no `{word}` in:\n{}", said.err);
    }
    let profile: Value = serde_json::from_str(&room.read("run/profile.json")).expect("JSON");
    let number = |value: &Value| value.as_f64().expect("a number");
    let sum: f64 =
        profile["phases"].as_array().expect("phases").iter().map(|phase| number(&phase["share"])).sum();
    assert!((sum - 1.0).abs() < 0.01, "the phases are the whole step: {sum}");
    assert!(
        number(&profile["share_of_gemm_floor"]) > 0.0
            && number(&profile["measured_gemm_gflop_per_second"]) > 0.0
    );
    let lines = crate::support::metrics(&room, "run");
    assert!(lines[0].get("profile").is_none(), "the first step is not measured");
    for name in ["mfu", "forward_seconds", "backward_seconds", "update_seconds", "waiting_for_data_seconds"] {
        assert!(number(&lines[1]["profile"][name]) >= 0.0 && lines[2]["profile"][name].is_number(), "{name}");
    }
}

#[test]
fn adapters_on_quantised_weights_learn() {
    let room = Room::new();
    room.lora_run("  max_steps: 20\n  save_strategy: \"no\"\n");
    for extra in [
        vec!["model.load_in_4bit=true", "model.bnb_4bit_use_double_quant=true"],
        vec!["model.load_in_8bit=true"],
    ] {
        let words = [
            vec!["train", "config.yaml", "training.learning_rate=0.02", "--overwrite-output-dir"],
            extra.clone(),
        ]
        .concat();
        room.foundry(&words).expect_done();
        let losses: Vec<f64> =
            metrics(&room, "run").iter().filter_map(|line| line["loss"].as_f64()).collect();
        let (first, last) = (losses[0], losses[losses.len() - 1]);
        assert!(last < 0.9 * first, "{extra:?}: {losses:?}");
    }
}
