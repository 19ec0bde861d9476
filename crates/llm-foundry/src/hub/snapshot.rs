//! What a snapshot directory must hold for a purpose.

use std::path::Path;

/// What a command needs of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The configuration and the tokenizer: enough to plan.
    Description,
    /// The tokenizer alone.
    Tokenizer,
    /// Weights too.
    Everything,
}

/// Files beside weights; the first two matter most.
#[cfg(feature = "hub")]
pub(crate) const DESCRIPTION: &[&str] = &[
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
    // For the licence in the model card.
    "README.md",
];

pub(crate) const WEIGHTS: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// The configuration is there.
pub(crate) fn has_config(dir: &Path) -> bool {
    dir.join("config.json").is_file()
}

/// Names of files that are needed and not there.
pub(crate) fn missing(dir: &Path, need: Need) -> Vec<String> {
    let mut wanted: Vec<String> = match need {
        Need::Tokenizer => vec!["tokenizer.json".into()],
        Need::Description | Need::Everything => vec!["config.json".into(), "tokenizer.json".into()],
    };
    if need == Need::Everything {
        match std::fs::read_to_string(dir.join(INDEX)) {
            Ok(index) => wanted.extend(shards(&index).unwrap_or_default()),
            Err(_) => wanted.push(WEIGHTS.into()),
        }
    }
    wanted.retain(|file| !dir.join(file).is_file());
    wanted
}

/// The files a shard index names, each once. `None`: not an index, or a name that leads out of the directory.
pub(crate) fn shards(index: &str) -> Option<Vec<String>> {
    let index: serde_json::Value = serde_json::from_str(index).ok()?;
    let map = index.get("weight_map")?.as_object()?;
    let mut files: Vec<String> =
        map.values().map(|v| v.as_str().map(str::to_owned)).collect::<Option<_>>()?;
    files.sort();
    files.dedup();
    let plain = |f: &String| !f.is_empty() && !f.contains(['/', '\\']) && f.ends_with(".safetensors");
    files.iter().all(plain).then_some(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_listed_once_and_cannot_lead_outside() {
        let good =
            r#"{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-1.safetensors"}}"#;
        assert_eq!(shards(good), Some(vec!["m-1.safetensors".into(), "m-2.safetensors".into()]));
        assert_eq!(shards(r#"{"weight_map": {"a": "../../x.safetensors"}}"#), None);
        assert_eq!(shards("[]"), None);
    }
}
