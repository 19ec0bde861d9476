//! `merge` and `export`: from an adapter to files that other programs read.

use crate::support::{Room, copy_files, rewrite_tensors, tiny_model};
use foundry_formats::safetensors::open;
use foundry_formats::{ModelFiles, StoredDtype};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::OnceLock;

/// A room with a trained adapter in `run`, made once.
fn trained() -> &'static Room {
    static ROOM: OnceLock<Room> = OnceLock::new();
    ROOM.get_or_init(|| {
        let room = Room::new();
        room.lora_run("  max_steps: 6\n  save_strategy: \"no\"\n");
        room.foundry(&["train", "config.yaml"]).expect_done();
        room
    })
}

/// A room of its own with the adapter in `adapter`.
fn room() -> Room {
    let room = Room::new();
    copy_files(&trained().path("run"), &room.path("adapter"));
    room
}

fn model() -> &'static str {
    tiny_model().to_str().expect("UTF-8")
}

fn merge(room: &Room, more: &[&str]) -> Value {
    let args = [&["merge", model(), "adapter", "-o", "merged", "--json"], more].concat();
    serde_json::from_str(&room.foundry(&args).expect_done().out).expect("JSON")
}

/// Writes the adapter's tensors again, each as `change` wants it.
fn spoil(room: &Room, change: impl Fn(&str, &mut Vec<f32>) -> Option<String>) {
    rewrite_tensors(&room.path("adapter/adapter_model.safetensors"), change);
}

#[test]
fn a_merged_model_predicts_what_the_adapter_does() {
    let room = room();
    let report = merge(&room, &["--dtype", "float32"]);
    let largest = report["comparison"]["largest_logit_difference"].as_f64().expect("a number");
    // The same sums in another order, in float32, on logits below 10.
    assert!(largest < 1e-4, "{report}");
    assert!(report["comparison"]["positions"].as_u64().expect("a count") > 50, "{report}");
    let base =
        ["generate", model(), "--adapter", "adapter", "--prompt", "The cat", "--dtype", "float32", "--json"];
    let merged = ["generate", "merged", "--prompt", "The cat", "--dtype", "float32", "--json"];
    let ids = |args: &[&str]| -> Value {
        let said = room.foundry(&[args, &["--max-new-tokens", "12"]].concat()).expect_done();
        serde_json::from_str::<Value>(&said.out).expect("JSON")["token_ids"].clone()
    };
    assert_eq!(ids(&base), ids(&merged));
    let plain = ["generate", model(), "--prompt", "The cat", "--dtype", "float32", "--json"];
    assert_ne!(ids(&plain), Value::Null);
    assert!(room.path("merged/tokenizer.json").is_file() && room.path("merged/config.json").is_file());
}

#[test]
fn a_merge_is_sharded_and_converted_as_asked() {
    let room = room();
    merge(&room, &["--dtype", "bfloat16", "--max-shard-size", "20KB", "--no-check"]);
    assert!(room.path("merged/model.safetensors.index.json").is_file());
    let files = ModelFiles::open(&room.path("merged")).expect("opens");
    assert_eq!(files.config.0["dtype"], "bfloat16");
    assert!(files.weights().expect("opens").tensors().iter().all(|t| t.dtype == StoredDtype::BF16));
}

#[test]
fn an_existing_directory_is_replaced_only_by_force() {
    let room = room();
    room.write("merged/precious.txt", "mine");
    let args = ["merge", model(), "adapter", "-o", "merged", "--no-check"];
    room.foundry(&args).expect_refusal(&["merged", "--force"]);
    assert_eq!(room.read("merged/precious.txt"), "mine");
    let force = [&args[..], &["--force"]].concat();
    room.foundry(&force).expect_refusal(&["merged", "no result of merge or export"]);
    assert_eq!(room.read("merged/precious.txt"), "mine");
    room.write("merged/config.json", "{}");
    room.foundry(&force).expect_done();
    assert!(room.path("merged/model.safetensors").is_file() && !room.path("merged/precious.txt").exists());
    assert_eq!(room.names(), ["adapter", "merged"], "nothing is left beside");
}

#[test]
fn an_adapter_that_does_not_fit_is_refused_with_its_tensor() {
    let first = |name: &str| name.contains("layers.0") && name.ends_with("q_proj.lora_A.weight");
    let refused = |room: &Room, words: &[&str]| {
        room.foundry(&["merge", model(), "adapter", "-o", "merged"]).expect_refusal(words);
        assert_eq!(room.names(), ["adapter"], "nothing is written");
    };
    let elsewhere = room();
    spoil(&elsewhere, |name, _| Some(name.replace("layers.0", "layers.70")));
    refused(&elsewhere, &["layers.70", "another base"]);
    let torn = room();
    spoil(&torn, |name, _| (!first(name)).then(|| name.to_owned()));
    refused(&torn, &["q_proj.lora_A.weight", "missing"]);
    let broken = room();
    spoil(&broken, |name, values| {
        if first(name) {
            values[3] = f32::NAN;
        }
        Some(name.to_owned())
    });
    refused(&broken, &["q_proj.lora_A.weight", "NaN"]);
    let unknown = room();
    spoil(&unknown, |name, _| Some(if first(name) { "something.else".to_owned() } else { name.to_owned() }));
    refused(&unknown, &["something.else"]);
    let wrong = room();
    std::fs::remove_file(wrong.path("adapter/adapter_config.json")).expect("removed");
    refused(&wrong, &["adapter_config.json"]);
}

#[test]
fn exported_gguf_files_answer_as_the_source_does() {
    let room = room();
    merge(&room, &["--dtype", "float32", "--no-check"]);
    for (quant, most) in [("f32", 1e-5), ("f16", 1e-3), ("q8_0", 0.05)] {
        let args = ["export", "merged", "--to", "gguf", "--quant", quant, "--json"];
        let said = room.foundry(&args).expect_done();
        let report: Value = serde_json::from_str(&said.out).expect("JSON");
        assert_eq!(report["output"], format!("merged-{quant}.gguf"));
        assert_eq!(report["texts_with_equal_ids"], 6, "{report}");
        let kl = report["comparison"]["mean_kl"].as_f64().expect("a number");
        assert!(kl.abs() < most, "{quant}: {report}");
    }
    let said = room.foundry(&["export", "merged", "--to", "gguf"]).expect_done();
    assert!(said.out.contains("merged-q4_k_m.gguf") && said.out.contains("read back"), "{}", said.out);
    let answer = |path: &str| {
        let args = ["generate", path, "--prompt", "The cat", "--dtype", "float32", "--max-new-tokens", "8"];
        room.foundry(&args).expect_done().out
    };
    assert_eq!(answer("merged"), answer("merged-f32.gguf"));
    room.foundry(&["export", "merged", "--to", "gguf", "--quant", "f32"])
        .expect_refusal(&["exists", "--force"]);
    room.foundry(&["export", "merged", "--to", "gguf", "--quant", "q9"]).expect_refusal(&["q9", "q4_k_m"]);
    room.foundry(&["export", "adapter", "--to", "gguf"]).expect_refusal(&["adapter", "merge"]);
    // And back: a GGUF is a source like any other.
    room.foundry(&["export", "merged-f16.gguf", "--to", "safetensors", "-o", "again"]).expect_done();
    assert_eq!(answer("again"), answer("merged-f16.gguf"));
}

#[test]
fn eight_bit_floats_are_written_and_read() {
    let room = Room::new();
    let args = ["export", model(), "--to", "safetensors", "--quant", "fp8", "-o", "small", "--json"];
    let report: Value = serde_json::from_str(&room.foundry(&args).expect_done().out).expect("JSON");
    // Three bits of fraction: a relative error of 1/16 at most for each weight.
    assert!(report["comparison"]["mean_kl"].as_f64().expect("a number") < 0.05, "{report}");
    let stored = open(&room.path("small/model.safetensors")).expect("opens");
    let name = "model.layers.0.mlp.up_proj.weight";
    assert_eq!(stored.find(name).expect("there").dtype, StoredDtype::F8E4M3);
    let rows = stored.find(name).expect("there").shape[0];
    assert_eq!(stored.find(&format!("{name}_scale")).expect("there").shape, [rows, 1]);
    let files = ModelFiles::open(&room.path("small")).expect("opens");
    assert_eq!(files.config.0["quantization_config"]["format"], "float-quantized");
    let weights = files.weights().expect("opens");
    assert!(weights.find(&format!("{name}_scale")).is_none(), "scales are no weights");
    // A full model made from it is not said to be quantised.
    room.foundry(&["export", "small", "--to", "safetensors", "--quant", "bf16", "-o", "plain"]).expect_done();
    assert!(!room.read("plain/config.json").contains("quantization_config"));
}

#[test]
fn ollama_gets_a_modelfile() {
    let room = Room::new();
    let said =
        room.foundry(&["export", model(), "--to", "ollama", "--quant", "q8_0", "-o", "out"]).expect_done();
    assert!(said.out.contains("ollama create"), "{}", said.out);
    let names: Vec<String> = std::fs::read_dir(room.path("out"))
        .expect("listed")
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    let gguf = names.iter().find(|name| name.ends_with("-q8_0.gguf")).expect("a model");
    let text = room.read("out/Modelfile");
    assert!(!text.contains("LICENSE"), "none is known: {text}");
    assert!(text.starts_with(&format!("FROM ./{gguf}\n")) && text.contains("PARAMETER stop \""), "{text}");
}

#[test]
fn what_vllm_would_refuse_is_named() {
    let room = room();
    room.foundry(&["export", "adapter", "--target", "vllm"]).expect_done();
    let path = room.path("adapter/adapter_config.json");
    let mut config: Value = serde_json::from_str(&room.read("adapter/adapter_config.json")).expect("JSON");
    config["use_dora"] = json!(true);
    config["modules_to_save"] = json!(["lm_head"]);
    config["r"] = json!(1024);
    std::fs::write(path, config.to_string()).expect("written");
    let args = ["export", "adapter", "--target", "vllm"];
    room.foundry(&args).expect_refusal(&["use_dora", "modules_to_save", "rank 1024"]);
    room.foundry(&["export", model(), "--target", "vllm"]).expect_done();
}

/// Runs the binary with files limited to `blocks` of 512 bytes: a write beyond it fails (`trap`) or kills (without).
#[cfg(unix)]
fn limited(room: &Room, setup: &str, args: &str) -> std::process::Output {
    let script = format!("{setup} ulimit -f 16; exec {} {args}", env!("CARGO_BIN_EXE_llm-foundry"));
    let mut command = std::process::Command::new("sh");
    command.current_dir(room.path("adapter").parent().expect("the room")).args(["-c", &script]);
    command.env("FOUNDRY_THREADS", "1").env("HF_HUB_OFFLINE", "1").output().expect("sh starts")
}

#[cfg(unix)]
#[test]
fn a_full_disk_or_a_kill_leaves_no_partial_result() {
    let room = room();
    let merge = format!("merge {} adapter -o merged --no-check", model());
    let export = |more: &str| format!("export {} {more} --no-check", model());
    let all = [
        merge,
        export("--to gguf --quant f32 -o model.gguf"),
        export("--to ollama --quant f16 -o model.gguf"),
        export("--to safetensors -o merged"),
        export("--to safetensors --quant nf4 -o merged"),
        "adapters merge adapter adapter -o merged".to_owned(),
    ];
    for args in &all {
        let full = limited(&room, "trap '' XFSZ;", args);
        let said = String::from_utf8_lossy(&full.stderr);
        assert_eq!(full.status.code(), Some(1), "{said}");
        assert!(said.contains("error") && said.contains("write") && !said.contains("bug"), "{said}");
        assert_eq!(room.names(), ["adapter"], "all is cleared away");
        let killed = limited(&room, "", args);
        assert_eq!(killed.status.code(), None, "killed by the limit's signal");
        assert!(!room.path("merged").exists() && !room.path("model.gguf").exists());
        for name in room.names().iter().filter(|name| *name != "adapter") {
            assert!(name.starts_with('.') && name.ends_with(".incomplete"), "{name}");
            std::fs::remove_dir_all(room.path(name)).expect("removed");
        }
    }
}

/// The real signal, at moments spread over the whole command.
#[test]
fn killed_at_any_moment_nothing_is_half_there() {
    let room = room();
    let args = ["export", model(), "--to", "gguf", "--quant", "q8_0", "-o", "model.gguf"];
    let began = std::time::Instant::now();
    room.foundry(&args).expect_done();
    let whole = began.elapsed();
    let bytes = std::fs::read(room.path("model.gguf")).expect("there");
    std::fs::remove_file(room.path("model.gguf")).expect("removed");
    for moment in 1..=12 {
        let mut child = room.command(&args).stderr(std::process::Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(whole.mul_f64(f64::from(moment) / 13.0));
        let _ = child.kill();
        child.wait().expect("it ends");
        if room.path("model.gguf").exists() {
            assert!(std::fs::read(room.path("model.gguf")).expect("read") == bytes, "moment {moment}");
            std::fs::remove_file(room.path("model.gguf")).expect("removed");
        }
    }
    for name in room.names().iter().filter(|name| *name != "adapter") {
        assert!(name.starts_with('.') && name.ends_with(".incomplete"), "{name}");
    }
    room.foundry(&args).expect_done();
}

#[test]
fn adapters_on_quantised_weights_are_merged_into_either_base() {
    let room = Room::new();
    room.lora_run("  max_steps: 3\n  save_strategy: \"no\"\n");
    // Rounded to bfloat16 first, as the export below does.
    let args = ["train", "config.yaml", "model.load_in_4bit=true", "model.dtype=bfloat16"];
    room.foundry(&args).expect_done();
    let merge = |model: &str, output: &str, more: &[&str]| {
        let args = ["merge", model, "run", "-o", output, "--dtype", "float32", "--json"];
        room.foundry(&[&args, more].concat())
    };
    let difference = |said: crate::support::Said| {
        let report: Value = serde_json::from_str(&said.expect_done().out).expect("JSON");
        report["comparison"]["largest_logit_difference"].as_f64().expect("a number")
    };
    // The same sums in another order, in float32.
    assert!(difference(merge(model(), "original", &[])) < 1e-4);
    assert!(difference(merge(model(), "dequantized", &["--base", "dequantized"])) < 1e-4);
    // The quantised checkpoint is the same base, and needs no word of the run.
    let export = ["export", model(), "--to", "safetensors", "--quant", "nf4", "-o", "nf4"];
    room.foundry(&export).expect_done();
    assert!(difference(merge("nf4", "of-stored", &[])) < 1e-4);
    merge("nf4", "x", &["--base", "original"]).expect_refusal(&["--base original", "few bits"]);
    let name = "model.layers.0.mlp.up_proj.weight";
    let values = |dir: &str| {
        let source = open(&room.path(dir).join("model.safetensors")).expect("opens");
        let mut values = vec![0f32; source.find(name).expect("there").elements()];
        source.read_f32(name, 0, &mut values).expect("read");
        values
    };
    assert!(values("original") != values("dequantized"));
    assert_eq!(values("of-stored"), values("dequantized"));
    // The number format is that of the run, whatever this machine would choose.
    let resolved = room.read("run/config.resolved.yaml");
    assert!(resolved.contains("  dtype: bfloat16"), "{resolved}");
    room.write("run/config.resolved.yaml", resolved.replace("  dtype: bfloat16", "  dtype: float32"));
    merge(model(), "of-float32", &["--base", "dequantized", "--no-check"]).expect_done();
    assert!(values("of-float32") != values("dequantized"));
    room.write("run/config.resolved.yaml", resolved.replace("  dtype: bfloat16", "  dtype: auto"));
    let said = merge(model(), "of-auto", &["--base", "dequantized", "--no-check"]).expect_done();
    assert!(said.err.contains("did not write down the number format"), "{}", said.err);
    // And on to GGUF.
    room.foundry(&["export", "nf4", "--to", "gguf", "--quant", "f32", "-o", "nf4.gguf"]).expect_done();
    std::fs::remove_file(room.path("run/config.resolved.yaml")).expect("removed");
    merge(model(), "x", &["--base", "dequantized"]).expect_refusal(&["config.resolved.yaml", "original"]);
}

#[test]
fn a_run_writes_down_what_its_machine_has_chosen() {
    let room = Room::new();
    room.lora_run("  max_steps: 1\n  save_strategy: \"no\"\n");
    let text = room.read("config.yaml").replace("  dtype: float32\n", "");
    room.write("config.yaml", text);
    let isa = ["--isa", "portable"];
    room.foundry(&[&["train", "config.yaml", "model.load_in_4bit=true"][..], &isa].concat()).expect_done();
    assert!(room.read("run/config.resolved.yaml").contains("  dtype: float32  # default"));
    let merged = |name: &str, more: &[&str]| {
        let args = ["merge", model(), "run", "-o", name, "--base", "dequantized", "--no-check"];
        room.foundry(&[&args, more].concat()).expect_done();
        std::fs::read(room.path(name).join("model.safetensors")).expect("written")
    };
    assert!(merged("here", &[]) == merged("there", &isa));
}

#[test]
fn few_bits_are_written_as_bitsandbytes_does() {
    let room = Room::new();
    for (quant, method, most) in
        [("nf4", "load_in_4bit", 1.0), ("nf4_double", "load_in_4bit", 1.0), ("int8", "load_in_8bit", 0.05)]
    {
        let args = ["export", model(), "--to", "safetensors", "--quant", quant, "-o", quant, "--json"];
        let report: Value = serde_json::from_str(&room.foundry(&args).expect_done().out).expect("JSON");
        let kl = report["comparison"]["mean_kl"].as_f64().expect("a number");
        assert!(kl < most, "{quant}: {report}");
        let files = ModelFiles::open(&room.path(quant)).expect("opens");
        assert_eq!(files.config.0["quantization_config"][method], true, "{quant}");
        let answer = ["generate", quant, "--prompt", "The cat", "--max-new-tokens", "4"];
        room.foundry(&answer).expect_done();
    }
}

#[test]
fn a_place_that_cannot_be_written_is_said_before_anything_is_computed() {
    let room = room();
    let file = room.write("file", "x");
    assert!(Path::new(&file).is_file());
    room.foundry(&["merge", model(), "adapter", "-o", "file/merged"]).expect_refusal(&["file"]);
    room.foundry(&["export", model(), "--to", "gguf", "-o", "/proc/none/m.gguf"])
        .expect_refusal(&["/proc/none"]);
}

#[test]
fn a_base_with_broken_weights_is_refused() {
    let room = Room::new();
    let dir = room.model("broken");
    let path = dir.join("model.safetensors");
    let mut bytes = std::fs::read(&path).expect("read");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).expect("written");
    room.foundry(&["export", "broken", "--to", "gguf", "--quant", "f32", "--no-check"])
        .expect_refusal(&["NaN", "tensor"]);
    assert_eq!(room.names(), ["broken"]);
}

/// From a model card into GGUF, a Modelfile, and the card of what is made from the GGUF.
#[test]
fn licence_and_base_model_are_passed_on() {
    let room = Room::new();
    let dir = room.model("model");
    let card = "---\nlicense: apache-2.0\nbase_model:\n- some-org/Base-135m\n---\n# Mine\n";
    std::fs::write(dir.join("README.md"), card).expect("written");
    let export = |model: &str, words: &[&str]| {
        room.foundry(&[&["export", model, "--no-check", "--to"], words].concat()).expect_done();
    };
    export("model", &["gguf", "--quant", "q8_0", "-o", "first.gguf"]);
    export("first.gguf", &["gguf", "--quant", "f16", "-o", "second.gguf"]);
    for name in ["first.gguf", "second.gguf"] {
        let gguf = foundry_formats::gguf::Gguf::open(&room.path(name)).expect("opens");
        let text = |key: &str| gguf.metadata(key).and_then(|value| value.as_str()).map(str::to_owned);
        assert_eq!(text("general.license").as_deref(), Some("apache-2.0"), "{name}");
        let url = "https://huggingface.co/some-org/Base-135m";
        assert_eq!(text("general.base_model.0.repo_url").as_deref(), Some(url), "{name}");
    }
    export("second.gguf", &["ollama", "--quant", "q8_0", "-o", "out"]);
    assert!(
        room.read("out/Modelfile").ends_with("LICENSE \"\"\"apache-2.0\"\"\"\n"),
        "{}",
        room.read("out/Modelfile")
    );
    export("second.gguf", &["safetensors", "-o", "again"]);
    assert!(room.read("again/README.md").contains("license: apache-2.0"));
}
