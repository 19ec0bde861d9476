//! The ids of special tokens in a model's configurations: those of the tokenizer that is saved beside them.

use foundry_formats::{HfConfig, Tokenizer};
use serde_json::{Value, json};

/// config.json and generation_config.json with the tokenizer's ids (transformers 5.23, `align_special_tokens`). Where
/// the end is another than before, it is the one of config.json and the first of generation_config.json, which keeps
/// the others. An id that either lists already changes nothing.
pub(crate) fn aligned(
    config: &HfConfig,
    generation: Option<&Value>,
    tokenizer: &Tokenizer,
) -> (HfConfig, Option<Value>) {
    let (mut config, mut generation) = (config.clone(), generation.cloned());
    let pad = tokenizer.pad_token().and_then(|token| tokenizer.token_to_id(token));
    for (key, id) in [("bos_token_id", tokenizer.bos_token_id()), ("pad_token_id", pad)] {
        let Some(id) = id else { continue };
        config.0.insert(key.into(), json!(id));
        if let Some(settings) = generation.as_mut().and_then(Value::as_object_mut) {
            settings.insert(key.into(), json!(id));
        }
    }
    if let Some(id) = tokenizer.eos_token_id() {
        if !ids(config.0.get("eos_token_id")).contains(&id) {
            config.0.insert("eos_token_id".into(), json!(id));
        }
        if let Some(settings) = generation.as_mut().and_then(Value::as_object_mut) {
            let mut all = ids(settings.get("eos_token_id"));
            if !all.contains(&id) {
                all.insert(0, id);
                settings.insert("eos_token_id".into(), if all.len() == 1 { json!(id) } else { json!(all) });
            }
        }
    }
    (config, generation)
}

/// One id or a list of them.
fn ids(value: Option<&Value>) -> Vec<u32> {
    let list = match value {
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    list.iter().filter_map(|id| id.as_u64()?.try_into().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_end_comes_first_and_a_known_one_changes_nothing() {
        let tiny = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/scratch/model");
        let mut tokenizer = Tokenizer::from_dir(&tiny).expect("the small tokenizer");
        let end = tokenizer.add_tokens(&["<|end|>".into()], true).expect("added")[0];
        tokenizer.set_eos_token("<|end|>").expect("there");
        let config = HfConfig::from_json(json!({ "eos_token_id": [1, 2], "other": 3 }));
        let generation = json!({ "eos_token_id": [1, 2], "top_p": 0.5 });
        let (config, generation) = aligned(&config, Some(&generation), &tokenizer);
        let generation = generation.expect("there");
        assert_eq!(config.0["eos_token_id"], json!(end));
        assert_eq!((&generation["eos_token_id"], &generation["top_p"]), (&json!([end, 1, 2]), &json!(0.5)));
        let again = aligned(&config, Some(&generation), &tokenizer);
        assert_eq!(again, (config, Some(generation)));
        let (config, none) =
            aligned(&HfConfig::from_json(json!({ "eos_token_id": [7, end] })), None, &tokenizer);
        assert_eq!((&config.0["eos_token_id"], none), (&json!([7, end]), None));
    }
}
