//! Configurations of other programs become ours: Axolotl, LLaMA-Factory, TRL.
//!
//! Each program has a table: a key is carried over under our name, has no meaning here, or is lost, with the reason.
//! Nothing disappears in silence: keys that are in no table are lost too. What is written has been read back as a
//! configuration; what that refused is lost as well.

mod axolotl;
mod dataset_info;
mod draft;
mod llama_factory;
#[cfg(test)]
mod tests;
mod trainer;
mod trl;

pub(crate) use draft::Note;

use crate::config::{self, ConfigError};
use crate::failure::{Failure, Outcome};
use crate::hub::is_hub_id;
use draft::Draft;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Program {
    Axolotl,
    #[value(name = "llama-factory")]
    LlamaFactory,
    Trl,
}

impl Program {
    /// As its makers write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Program::Axolotl => "Axolotl",
            Program::LlamaFactory => "LLaMA-Factory",
            Program::Trl => "TRL",
        }
    }

    /// By the keys that only it has.
    pub(crate) fn of(file: &Map<String, Value>) -> Option<Self> {
        let any = |keys: &[&str]| keys.iter().any(|key| file.contains_key(*key));
        if any(&["base_model", "micro_batch_size", "sequence_len", "sample_packing"]) {
            return Some(Program::Axolotl);
        }
        if any(&[
            "finetuning_type",
            "cutoff_len",
            "stage",
            "lora_rank",
            "lora_target",
            "template",
            "dataset_dir",
        ]) {
            return Some(Program::LlamaFactory);
        }
        any(&["model_name_or_path", "dataset_name", "use_peft"]).then_some(Program::Trl)
    }
}

/// A configuration of ours, and what is not in it.
#[derive(Debug)]
pub(crate) struct Imported {
    pub(crate) program: Program,
    pub(crate) text: String,
    /// Lost, each with the reason.
    pub(crate) lost: Vec<Note>,
    /// Without a meaning here.
    pub(crate) unneeded: Vec<Note>,
}

/// The configuration that `text`, read from `name`, comes to.
pub(crate) fn import(name: &str, text: &str, program: Option<Program>) -> Outcome<Imported> {
    let wrong = |what: String| Failure::Input(format!("{name}: {what}"));
    let file = config::foreign_mapping(text).map_err(wrong)?;
    let program = program.or_else(|| Program::of(&file)).ok_or_else(|| {
        wrong("not known as a configuration of Axolotl, LLaMA-Factory or TRL; if it is one, say which with --from".into())
    })?;
    refuse_other_methods(&file).map_err(wrong)?;
    let mut draft = Draft::default();
    let own: &[(&str, draft::Rule)] = match program {
        Program::Axolotl => axolotl::RULES,
        Program::LlamaFactory => llama_factory::RULES,
        Program::Trl => trl::RULES,
    };
    draft.apply(program.name(), &file, &[own, trainer::RULES]);
    match program {
        Program::Axolotl => axolotl::defaults(&mut draft, &file),
        Program::LlamaFactory => llama_factory::defaults(&mut draft, &file),
        Program::Trl => trl::defaults(&mut draft, &file),
    }
    if let Some(why) = draft.refusal() {
        return Err(wrong(why));
    }
    draft.settle_rows();
    complete(&mut draft);
    let shown = name.replace(char::is_control, " ");
    let head = format!("# Carried over from {shown} ({}) by `llm-foundry import-config`.\n", program.name());
    let text = checked(&mut draft, &head, program).map_err(wrong)?;
    let Draft { lost, unneeded, .. } = draft;
    Ok(Imported { program, text: text + &remarks(&lost), lost, unneeded })
}

/// A recipe for another method would become something else without a word.
fn refuse_other_methods(file: &Map<String, Value>) -> Result<(), String> {
    let said = |key: &str| file.get(key).and_then(Value::as_str).filter(|value| !value.is_empty());
    let stage = said("stage").filter(|stage| !["sft", "pt"].contains(stage));
    let method = said("rl").map(|rl| ("rl", rl)).or(stage.map(|stage| ("stage", stage)));
    match method {
        Some((key, method)) => Err(format!(
            "`{key}: {method}` is another method than fine-tuning on texts, and that is not carried over\n  continued \
             pre-training and supervised fine-tuning are"
        )),
        None => Ok(()),
    }
}

/// What ours must have and theirs need not.
fn complete(draft: &mut Draft) {
    if !draft.has("data.train") && !draft.has("data.sources") {
        draft.set("data.train", json!("path/to/train.jsonl"), "name your file");
    }
    if !draft.has("output_dir") {
        draft.set("output_dir", json!("runs/imported"), "none was named");
    }
}

/// Reads the text back; values that are refused are taken out and noted, until what is left is accepted.
fn checked(draft: &mut Draft, head: &str, program: Program) -> Result<String, String> {
    loop {
        let (text, lines) = draft.text(head, program.name());
        let problems = match config::from_text("imported", text.clone(), &[]) {
            Ok(_) => return Ok(text),
            Err(ConfigError::Wrong(problems)) => problems.lines(),
            Err(ConfigError::Unreadable(..)) => unreachable!("a text is not read from a file"),
        };
        let mut removed = false;
        for (line, message) in &problems {
            let path = line.and_then(|line| lines.get(line)?.clone());
            if let Some((path, (value, comment))) =
                path.and_then(|path| Some((path.clone(), draft.remove(&path)?)))
            {
                let key = if comment.contains(' ') || comment.is_empty() { path } else { comment };
                draft.lose(&key, &value, message);
                removed = true;
            }
        }
        if !removed {
            let messages: Vec<String> = problems.into_iter().map(|(_, message)| message).collect();
            return Err(format!("this comes to no configuration: {}", messages.join("; ")));
        }
        complete(draft);
    }
}

/// The lost keys, at the end of the file.
fn remarks(lost: &[Note]) -> String {
    if lost.is_empty() {
        return String::new();
    }
    let lines = lost.iter().map(|note| format!("#   {}: {}  ({})\n", note.key, note.value, note.why));
    format!("\n# Not carried over:\n{}", lines.collect::<String>())
}

/// One of our built-in chat templates, by the name that others give it.
fn template(name: &str) -> Option<&'static str> {
    let names = [
        ("alpaca", "alpaca"),
        ("chatml", "chatml"),
        ("gemma", "gemma"),
        ("llama2", "llama2"),
        ("llama3", "llama3"),
        ("mistral", "mistral"),
        ("mistral_v1", "mistral"),
        ("phi_3", "phi3"),
        ("phi3", "phi3"),
        ("phi_4", "phi4"),
        ("phi4", "phi4"),
        ("qwen3", "qwen3"),
        ("vicuna", "vicuna"),
        ("zephyr", "zephyr"),
    ];
    names.into_iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| ours)
}

/// The id of a data set of the hub: `owner/name` that is no path here, nor looks like a file.
fn is_hub_data(path: &str) -> bool {
    let looks_like_file = Path::new(path).extension().is_some_and(|end| {
        ["json", "jsonl", "csv", "tsv", "txt", "parquet", "arrow", "gz", "zst"]
            .iter()
            .any(|known| end == *known)
    });
    path.contains('/') && is_hub_id(path) && !looks_like_file && !Path::new(path).exists()
}
