//! The model card: README.md with YAML front matter, as the hub reads it, beside every result.

use crate::config::{CardSection, yaml_scalar};
use crate::hub::is_hub_id;
use crate::model_source::expand_home;
use crate::names::{without_place, without_places_in};
use foundry_formats::ModelFiles;
use foundry_formats::gguf::{Gguf, Origin};
use std::fmt::Write as _;

/// What a card tells; everything is text for people but the front matter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Card {
    /// What the result is called: the last part of its directory.
    pub(crate) name: String,
    /// What the base model is called by the configuration. Here and in the command, paths of this machine are shown
    /// by their last part.
    pub(crate) base: String,
    /// Its hub id, where it is one.
    pub(crate) base_id: Option<String>,
    /// An adapter, and not a whole model.
    pub(crate) is_adapter: bool,
    /// The hub's name of the licence.
    pub(crate) license: Option<String>,
    /// Languages and further tags.
    pub(crate) language: Vec<String>,
    pub(crate) tags: Vec<String>,
    /// Hub ids of data sets.
    pub(crate) datasets: Vec<String>,
    /// Lines of "Training data", "Training" and "Results": name and value.
    pub(crate) data: Vec<(String, String)>,
    pub(crate) training: Vec<(String, String)>,
    pub(crate) results: Vec<(String, String)>,
    /// What was done to the base, where the result was not trained but made of others: a sentence.
    pub(crate) made: Option<String>,
    /// The command that trained it; empty where it was not.
    pub(crate) command: String,
    /// The resolved configuration; as the command.
    pub(crate) configuration: String,
}

/// Title of the part of a card that shows the configuration.
pub(crate) const CONFIGURATION: &str = "Configuration, with every default";

impl Card {
    /// What the configuration's section says comes before what was found out.
    pub(crate) fn with_section(mut self, section: &CardSection) -> Self {
        self.license = section.license.clone().or(self.license);
        self.language.clone_from(&section.language);
        self.tags.extend(section.tags.iter().cloned());
        self
    }

    /// The file.
    pub(crate) fn to_markdown(&self) -> String {
        let mut text = self.front_matter();
        let kind = if self.is_adapter { "LoRA adapter for" } else { "fine-tuned version of" };
        let base = match &self.base_id {
            Some(id) => format!("[{id}](https://huggingface.co/{id})"),
            None => format!("`{}`", without_place(&self.base)),
        };
        let _ = writeln!(text, "# {}\n", self.name);
        let version = env!("CARGO_PKG_VERSION");
        let _ = match &self.made {
            None => writeln!(text, "This is a {kind} {base}, trained with llm-foundry {version}."),
            Some(made) => writeln!(text, "Made from {base} with llm-foundry {version}: {made}."),
        };
        self.use_section(&mut text);
        for (title, lines) in
            [("Training data", &self.data), ("Training", &self.training), ("Results", &self.results)]
        {
            if lines.is_empty() {
                continue;
            }
            let _ = writeln!(text, "\n## {title}\n\n| | |\n|---|---|");
            for (name, value) in lines {
                let _ = writeln!(text, "| {} | {} |", cell(name), cell(value));
            }
        }
        self.how(&mut text);
        let _ = writeln!(text, "\n## Licence\n\n{}", self.licence_line());
        let (version, os, arch) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
        let _ = writeln!(text, "\n## Versions\n\nllm-foundry {version}, {os} {arch}");
        text
    }

    fn how(&self, text: &mut String) {
        if !self.command.is_empty() {
            let command = without_places_in(&self.command);
            let fence = fence(&command);
            let _ = writeln!(text, "\n## Command\n\n{fence}console\n$ {command}\n{fence}");
        }
        if !self.configuration.is_empty() {
            let fence = fence(&self.configuration);
            let _ = writeln!(
                text,
                "\n<details><summary>{CONFIGURATION}</summary>\n\n{fence}yaml\n{}\n{fence}\n\n</details>",
                self.configuration.trim_end()
            );
        }
    }

    fn front_matter(&self) -> String {
        let mut text = String::from("---\n");
        if let Some(id) = &self.base_id {
            let _ = writeln!(text, "base_model: {}", yaml_scalar(id));
        }
        let library = if self.is_adapter { "peft" } else { "transformers" };
        let _ = writeln!(text, "library_name: {library}");
        let _ = writeln!(text, "model_name: {}", yaml_scalar(&self.name));
        let _ = writeln!(text, "pipeline_tag: text-generation");
        if let Some(license) = &self.license {
            let _ = writeln!(text, "license: {}", yaml_scalar(license));
        }
        let mut tags: Vec<String> = Vec::new();
        if let Some(id) = &self.base_id {
            let relation = if self.is_adapter { "adapter" } else { "finetune" };
            tags.push(format!("base_model:{relation}:{id}"));
        }
        tags.push("llm-foundry".into());
        if self.is_adapter {
            tags.push("lora".into());
        }
        tags.extend(self.tags.iter().filter(|tag| *tag != "llm-foundry" && *tag != "lora").cloned());
        for (key, values) in [("language", &self.language), ("datasets", &self.datasets), ("tags", &tags)] {
            if !values.is_empty() {
                let _ = writeln!(text, "{key}:");
            }
            for value in values {
                let _ = writeln!(text, "- {}", yaml_scalar(value));
            }
        }
        text.push_str("---\n\n");
        text
    }

    fn use_section(&self, text: &mut String) {
        let base = self.base_id.as_deref().unwrap_or_else(|| without_place(&self.base));
        let chat = match self.is_adapter {
            true => format!("llm-foundry chat {base} --adapter DIRECTORY_OF_THIS_FILE"),
            false => "llm-foundry chat DIRECTORY_OF_THIS_FILE".to_owned(),
        };
        let _ = writeln!(text, "\n## Use\n\n```console\n$ {chat}\n```");
        let other =
            if self.is_adapter { "PEFT and vLLM load the adapter" } else { "transformers and vLLM load it" };
        let _ = writeln!(text, "\n{other} from this directory.");
    }

    fn licence_line(&self) -> String {
        match &self.license {
            Some(license) => {
                format!("{license} (check that the base model's and the data's licences allow it)")
            }
            None => {
                "Not stated (`card.license` in the configuration); the base model's licence applies to it."
                    .into()
            }
        }
    }
}

/// Text of a table: a line, and no cell of its own.
fn cell(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// A code fence longer than any run of back-ticks in `text`.
fn fence(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    "`".repeat(longest.max(2) + 1)
}

/// What the files of a model say about its licence.
pub(crate) fn license_of(files: &ModelFiles) -> Option<String> {
    origin_of(files).license
}

/// What the files of a model, or its card, say about its licence and the models that it was made from.
pub(crate) fn origin_of(files: &ModelFiles) -> Origin {
    if files.is_gguf() {
        return Gguf::open(&files.path).map(|gguf| Origin::of(&gguf)).unwrap_or_default();
    }
    let card = std::fs::read_to_string(files.path.join("README.md")).unwrap_or_default();
    Origin { license: license_in(&card), base_models: bases_in(&card) }
}

/// The name of a model if it is a hub id and not a path that happens to look like one.
pub(crate) fn hub_id(name: &str) -> Option<String> {
    let is_id = name.contains('/') && is_hub_id(name) && !expand_home(name).exists();
    is_id.then(|| name.to_owned())
}

/// The licence that a model card's front matter names.
pub(crate) fn license_in(card: &str) -> Option<String> {
    let value = front_matter(card)?.lines().find_map(|line| line.strip_prefix("license:"))?;
    let value = value.trim().trim_matches(['"', '\'']).trim();
    let is_name =
        !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+ ".contains(c));
    is_name.then(|| value.to_owned())
}

/// Hub ids of the base models that a model card's front matter names.
fn bases_in(card: &str) -> Vec<String> {
    let mut lines = front_matter(card).unwrap_or_default().lines();
    let Some(value) = lines.find_map(|line| line.strip_prefix("base_model:")) else { return Vec::new() };
    let value = value.trim();
    let ids: Vec<&str> = match value.strip_prefix('[').and_then(|list| list.strip_suffix(']')) {
        Some(list) => list.split(',').collect(),
        None if value.is_empty() => lines.map_while(|line| line.trim_start().strip_prefix("- ")).collect(),
        None => vec![value],
    };
    let ids = ids.into_iter().map(|id| id.trim().trim_matches(['"', '\'']));
    ids.filter(|id| id.contains('/') && is_hub_id(id)).map(str::to_owned).collect()
}

fn front_matter(card: &str) -> Option<&str> {
    let matter = card.trim_start_matches('\u{feff}').strip_prefix("---")?;
    Some(&matter[..matter.find("\n---")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Card {
        Card {
            name: "my-run".into(),
            base: "org/model".into(),
            base_id: Some("org/model".into()),
            is_adapter: true,
            license: Some("apache-2.0".into()),
            datasets: vec!["org/data".into()],
            data: vec![("files".into(), "a|b.jsonl".into())],
            training: vec![("learning rate".into(), "2e-4".into())],
            results: vec![("loss".into(), "1.5".into())],
            command: "llm-foundry train x.yaml".into(),
            configuration: "# ``` inside\nmodel:\n  name_or_path: org/model\n".into(),
            ..Card::default()
        }
    }

    #[test]
    fn the_front_matter_is_what_the_hub_reads() {
        let section =
            CardSection { language: vec!["no".into()], tags: vec!["a: b".into()], ..CardSection::default() };
        let text = card().with_section(&section).to_markdown();
        let matter =
            text.strip_prefix("---\n").and_then(|t| t.split_once("\n---\n")).expect("front matter").0;
        let expected = "base_model: org/model\nlibrary_name: peft\nmodel_name: my-run\npipeline_tag: text-generation\n\
            license: apache-2.0\nlanguage:\n- \"no\"\ndatasets:\n- org/data\ntags:\n- \"base_model:adapter:org/model\"\n\
            - llm-foundry\n- lora\n- \"a: b\"";
        assert_eq!(matter, expected, "`no` without quotes would be false");
        assert_eq!(license_in(&text).as_deref(), Some("apache-2.0"));
    }

    #[test]
    fn what_the_text_contains_stays_text() {
        let text = card().to_markdown();
        assert!(text.contains("| files | a\\|b.jsonl |"), "{text}");
        assert!(
            text.contains("````yaml\n# ``` inside"),
            "a fence that the configuration cannot close:\n{text}"
        );
        assert!(text.contains("$ llm-foundry chat org/model --adapter"), "{text}");
    }

    #[test]
    fn a_local_base_is_no_hub_id() {
        let local =
            Card { base: "/models/own".into(), base_id: None, license: None, is_adapter: false, ..card() };
        let adapter =
            Card { is_adapter: true, command: "llm-foundry train /a/b/x.yaml".into(), ..local.clone() };
        let text = adapter.to_markdown();
        assert!(text.contains("chat own --adapter") && text.contains("$ llm-foundry train x.yaml"), "{text}");
        let text = local.to_markdown();
        assert!(!text.contains("base_model") && !text.contains("license:"), "{text}");
        assert!(text.contains("fine-tuned version of `own`") && text.contains("Not stated"), "{text}");
    }

    #[test]
    fn base_models_are_ids() {
        let ids = |matter: &str| bases_in(&format!("---\nlicense: mit\n{matter}\ntags: [x/y]\n---\n# x"));
        assert_eq!(ids("base_model: \"a/b\""), ["a/b"]);
        assert_eq!(ids("base_model:\n- a/b\n  - 'c/d'\nother:\n- e/f"), ["a/b", "c/d"]);
        assert_eq!(ids("base_model: [a/b, c/d]"), ["a/b", "c/d"]);
        for none in ["base_model: /models/mine", "base_model: model", "base_models: a/b", "x: y"] {
            assert_eq!(ids(none), Vec::<String>::new(), "{none}");
        }
        assert_eq!(bases_in(&card().to_markdown()), ["org/model"]);
    }

    #[test]
    fn licences_are_found_in_cards_only() {
        assert_eq!(license_in("---\ntags: [a]\nlicense: \"mit\"\n---\n# x").as_deref(), Some("mit"));
        for other in [
            "",
            "license: mit",
            "---\nx: y\n---\nlicense: mit",
            "---\nlicense: [a]\n---\n",
            "---\nlicense: mit",
        ] {
            assert_eq!(license_in(other), None, "{other:?}");
        }
    }
}
