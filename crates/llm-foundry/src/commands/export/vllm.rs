//! What vLLM would refuse to load, said before anybody tries (vLLM 0.11: `lora/peft_helper.py`, `config/lora.py`).

use crate::failure::{Failure, Outcome};
use foundry_formats::{HfConfig, safetensors};
use serde_json::Value;
use std::path::Path;

/// Values that vLLM takes for `--max-lora-rank`; its default is 16.
const LARGEST_RANK: u64 = 512;
const DEFAULT_RANK: u64 = 16;
/// Suffixes of the tensors that vLLM reads from an adapter.
const READ: [&str; 2] = [".lora_A.weight", ".lora_B.weight"];

/// Refuses with every reason found.
pub(super) fn check(dir: &Path) -> Outcome {
    let problems = match dir.join("adapter_config.json").is_file() {
        true => adapter(dir)?,
        false => model(dir)?,
    };
    if problems.is_empty() {
        return Ok(());
    }
    Err(Failure::Input(format!("{}: vLLM would refuse this:\n  {}", dir.display(), problems.join("\n  "))))
}

fn adapter(dir: &Path) -> Outcome<Vec<String>> {
    let config = HfConfig::read(&dir.join("adapter_config.json")).map_err(Failure::input)?;
    let mut problems = Vec::new();
    let mut refuse = |problem: String| problems.push(problem);
    let is_on = |key: &str| {
        config.get(key).is_some_and(|v| match v {
            Value::Bool(on) => *on,
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        })
    };
    for (key, remedy) in [
        ("use_dora", "merge it (llm-foundry merge) and serve the merged model"),
        ("modules_to_save", "merge it (llm-foundry merge) and serve the merged model"),
        ("trainable_token_indices", "merge it (llm-foundry merge) and serve the merged model"),
        ("lora_bias", "merge it where the base has biases, or train without"),
    ] {
        if is_on(key) {
            refuse(format!("`{key}` is set; {remedy}"));
        }
    }
    if config.opt_str("bias").map_err(Failure::input)?.is_some_and(|bias| bias != "none") {
        refuse("`bias` is not none; vLLM's adapters have no biases".into());
    }
    let rank = |value: &Value| value.as_u64();
    let ranks =
        config.get("rank_pattern").and_then(Value::as_object).into_iter().flat_map(|map| map.values());
    let largest = ranks.chain(config.get("r")).filter_map(rank).max().unwrap_or(0);
    if largest > LARGEST_RANK {
        refuse(format!("rank {largest} is above {LARGEST_RANK}; merge it and serve the merged model"));
    } else if largest > DEFAULT_RANK {
        crate::console::tell!(
            "note: rank {largest} needs `--max-lora-rank` (vLLM's default is {DEFAULT_RANK})"
        );
    }
    if config.get("rank_pattern").is_some_and(|v| v.as_object().is_some_and(|map| !map.is_empty()))
        || config.get("alpha_pattern").is_some_and(|v| v.as_object().is_some_and(|map| !map.is_empty()))
    {
        refuse(
            "`rank_pattern` or `alpha_pattern`: vLLM uses one rank and one scale for all modules; merge it"
                .into(),
        );
    }
    let weights = safetensors::open(&dir.join("adapter_model.safetensors")).map_err(Failure::input)?;
    let others: Vec<&str> = weights
        .tensors()
        .iter()
        .map(|info| info.name.as_str())
        .filter(|name| !READ.iter().any(|suffix| name.ends_with(suffix)))
        .collect();
    if let Some(first) = others.first() {
        refuse(format!("{} tensors such as `{first}` are no lora_A or lora_B; merge it", others.len()));
    }
    Ok(problems)
}

fn model(dir: &Path) -> Outcome<Vec<String>> {
    let mut problems = Vec::new();
    if dir.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
        problems.push(
            "GGUF in vLLM is experimental; serve a safetensors directory (export --to safetensors)".into(),
        );
        return Ok(problems);
    }
    let config = HfConfig::read(&dir.join("config.json")).map_err(Failure::input)?;
    if config.opt_strings("architectures").map_err(Failure::input)?.is_none_or(|list| list.is_empty()) {
        problems.push("config.json names no `architectures`".into());
    }
    if !dir.join("tokenizer.json").is_file() && !dir.join("tokenizer.model").is_file() {
        problems.push("there is no tokenizer.json beside the weights".into());
    }
    let weights = safetensors::open(dir).map_err(Failure::input)?;
    let is_odd = |info: &&foundry_formats::TensorInfo| info.dtype == foundry_formats::StoredDtype::F64;
    if let Some(info) = weights.tensors().iter().find(is_odd) {
        problems.push(format!("tensor `{}` is stored as {}; export it as bf16", info.name, info.dtype));
    }
    Ok(problems)
}
