//! A room for one test: a directory of its own, a tiny model, small data, and the binary.

use assert_cmd::Command;
use foundry_formats::StoredDtype;
use foundry_formats::safetensors::{Entry, Writer, open};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::OnceLock;
use tempfile::TempDir;

/// A directory in which commands run.
pub(crate) struct Room {
    dir: TempDir,
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// The command did what it was asked to.
    #[track_caller]
    pub(crate) fn expect_done(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.err, self.out);
        self
    }

    /// The command refused its input (exit code 2), with all of these words.
    #[track_caller]
    pub(crate) fn expect_refusal(self, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(2), "{}\n{}", self.err, self.out);
        for word in words {
            assert!(self.err.contains(word), "no `{word}` in:\n{}", self.err);
        }
        assert!(!self.err.contains("this is a bug"), "{}", self.err);
        self
    }
}

impl Room {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("below the room")).expect("made");
        fs::write(&path, text).expect("written");
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// The binary in this room, without the network and with no settings of whoever runs the tests.
    pub(crate) fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_llm-foundry"));
        command.current_dir(self.dir.path()).args(args);
        for name in
            ["HF_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT", "HF_HUB_CACHE", "FOUNDRY_ISA", "FOUNDRY_CRASH_AT"]
        {
            command.env_remove(name);
        }
        for name in std::env::vars().map(|(name, _)| name).filter(|name| {
            ["WANDB_", "MLFLOW_", "TENSORBOARD_"].iter().any(|prefix| name.starts_with(prefix))
        }) {
            command.env_remove(name);
        }
        command.env("FOUNDRY_CACHE", self.path("cache"));
        command.env("HF_HOME", self.path("hf-home")).env("HF_HUB_OFFLINE", "1").env("FOUNDRY_THREADS", "1");
        command
    }

    pub(crate) fn foundry(&self, args: &[&str]) -> Said {
        Said::from(self.command(args).output().expect("the binary starts"))
    }

    pub(crate) fn foundry_reading(&self, args: &[&str], stdin: &str) -> Said {
        let mut command = Command::from_std(self.command(args));
        Said::from(command.write_stdin(stdin).output().expect("the binary starts"))
    }

    /// Names in the room, to show that nothing was written.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).expect("listed").flatten();
        let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// A copy of the tiny model that a test may spoil.
    pub(crate) fn model(&self, name: &str) -> PathBuf {
        let dir = self.path(name);
        copy_files(tiny_model(), &dir);
        dir
    }

    /// Chat data, and a configuration that trains an adapter on it with the tiny model. `more` is added to the
    /// `training` section.
    pub(crate) fn lora_run(&self, more: &str) {
        self.write("train.jsonl", chats(24));
        self.write("config.yaml", lora_config(more));
    }
}

/// The configuration of [`Room::lora_run`].
pub(crate) fn lora_config(more: &str) -> String {
    format!(
        "model:\n  name_or_path: {}\n  dtype: float32\ndata:\n  train: train.jsonl\n  max_length: 64\nlora:\n  r: 4\n  \
         lora_alpha: 8\n  lora_dropout: 0.1\ntraining:\n  per_device_train_batch_size: 2\n  learning_rate: 5e-3\n  \
         logging_steps: 1\n{more}output_dir: run\n",
        tiny_model().display()
    )
}

/// Conversations as JSON lines.
pub(crate) fn chats(count: usize) -> String {
    let animals = ["cat", "dog", "bird", "fish", "horse", "mouse"];
    let line = |i: usize| {
        let animal = animals[i % animals.len()];
        let user = format!("Say something about the {animal} number {i}.");
        let answer = format!("The {animal} is here.");
        json!({"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]})
    };
    (0..count).map(|i| format!("{}\n", line(i))).collect()
}

/// Writes the tensors of a file again, each as `change` wants it: another name, other values, or not at all.
pub(crate) fn rewrite_tensors(path: &Path, change: impl Fn(&str, &mut Vec<f32>) -> Option<String>) {
    let source = open(path).expect("readable");
    let mut kept = Vec::new();
    for info in source.tensors() {
        let mut values = vec![0f32; info.elements()];
        source.read_f32(&info.name, 0, &mut values).expect("read");
        if let Some(name) = change(&info.name, &mut values) {
            kept.push((Entry::new(name, StoredDtype::F32, &info.shape), values));
        }
    }
    drop(source);
    let entries: Vec<Entry> = kept.iter().map(|(entry, _)| entry.clone()).collect();
    let mut writer = Writer::create(path, &entries, &[("format".into(), "pt".into())]).expect("created");
    for (entry, values) in &kept {
        writer.write_f32(&entry.name, values).expect("written");
    }
    writer.finish().expect("finished");
}

pub(crate) fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed").flatten().filter(|e| e.path().is_file()) {
        // By way of another name: tests of other processes may be reading what is being replaced.
        let name = entry.file_name().to_string_lossy().into_owned();
        let partial = to.join(format!(".{name}.{}", std::process::id()));
        fs::copy(entry.path(), &partial).expect("copied");
        fs::rename(&partial, to.join(name)).expect("renamed");
    }
}

pub(crate) fn tiny_tokenizer() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/fixtures/tiny_tokenizer")
}

/// config.json of a Llama with some 60,000 weights for the tiny tokenizer.
pub(crate) fn tiny_config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": 768, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true, "initializer_range": 0.1,
        "eos_token_id": 2
    })
}

/// A directory with a tiny Llama in transformers' format: made by the binary, from random weights and one step.
pub(crate) fn tiny_model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let room = Room::new();
        copy_files(&tiny_tokenizer(), &room.path("tokenizer"));
        room.write("config.json", tiny_config().to_string());
        room.write("text.txt", "The cat is here. The dog is there.\n");
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tiny-model");
        let said = room.foundry(&["train", room.write("cpt.yaml", CPT).to_str().expect("UTF-8")]);
        said.expect_done();
        // Tests of other processes may be doing the same: the last rename wins, and all make the same files.
        copy_files(&room.path("cpt"), &dir);
        dir
    })
}

const CPT: &str = "model: {init: random, config: config.json, dtype: float32}\ntokenizer: {name_or_path: tokenizer}\n\
    data: {train: text.txt, max_length: 64}\n\
    training: {max_steps: 1, learning_rate: 1e-3, save_strategy: \"no\"}\noutput_dir: cpt\n";

/// Logged steps of a run, without events.
pub(crate) fn metrics(room: &Room, run: &str) -> Vec<Value> {
    let lines = room.read(&format!("{run}/metrics.jsonl"));
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"));
    lines.filter(|line| line.get("event").is_none()).collect()
}
