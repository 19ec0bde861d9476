//! What vLLM would refuse to load, said before anybody tries (vLLM 0.11: `lora/peft_helper.py`, `config/lora.py`).

mod known;

use crate::console::tell;
use crate::dense;
use crate::failure::{Failure, Outcome};
use foundry_formats::{
    FormatError, HfConfig, ModelFiles, StoredDtype, TensorInfo, TensorSource, safetensors,
};
use foundry_models::{Finite, ModelError, decoder_config};
use serde_json::Value;
use std::path::Path;

/// Values that vLLM takes for `--max-lora-rank`; its default is 16.
const LARGEST_RANK: u64 = 512;
const DEFAULT_RANK: u64 = 16;
/// Suffixes of the tensors that vLLM reads from an adapter.
const READ: [&str; 2] = [".lora_A.weight", ".lora_B.weight"];
/// Elements read at a time.
const PIECE: usize = 1 << 20;

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
        tell!("note: rank {largest} needs `--max-lora-rank` (vLLM's default is {DEFAULT_RANK})");
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
    problems.extend(not_finite(weights.as_ref())?);
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
    let files = ModelFiles::open(dir).map_err(Failure::input)?;
    problems.extend(architecture(&files.config)?);
    let method = files.config.get("quantization_config.quant_method");
    if let Some(method) = method.filter(|method| !method.as_str().is_some_and(known::is_quant_method)) {
        problems.push(format!(
            "`quantization_config.quant_method` is {method}, which vLLM does not know; export the unquantised model again \
             (--quant fp8, nf4 or int8)"
        ));
    }
    let stored = safetensors::open(dir).map_err(Failure::input)?;
    if let Some(info) = stored.tensors().iter().find(|info| info.dtype == StoredDtype::F64) {
        problems.push(format!("tensor `{}` is stored as {}; export it as bf16", info.name, info.dtype));
    }
    problems.extend(not_finite(stored.as_ref())?);
    problems.extend(of_parts(&files)?);
    Ok(problems)
}

/// `architectures` names none that vLLM has a model for.
fn architecture(config: &HfConfig) -> Outcome<Option<String>> {
    let names = config.opt_strings("architectures").map_err(Failure::input)?.unwrap_or_default();
    let Some(first) = names.first() else { return Ok(Some("config.json names no `architectures`".into())) };
    if names.iter().any(|name| known::is_text_model(name)) {
        return Ok(None);
    }
    if names.iter().any(|name| name.ends_with("ForConditionalGeneration")) {
        tell!("note: `{first}` is no text model; whether vLLM knows it was not looked at");
        return Ok(None);
    }
    if config.get("auto_map").is_some() {
        tell!("note: `{first}` is loaded by code that the model brings; that needs `--trust-remote-code`");
        return Ok(None);
    }
    Ok(Some(format!(
        "`architectures` names `{first}`, for which vLLM has no model; correct config.json, or serve it with another program"
    )))
}

/// Weights, configuration and tokenizer belong together, as far as this program knows the architecture.
fn of_parts(files: &ModelFiles) -> Outcome<Vec<String>> {
    let mut problems = Vec::new();
    let decoder = match decoder_config(&files.config) {
        Ok((_, decoder)) => Some(decoder),
        Err(why @ (ModelError::UnsupportedArchitecture { .. } | ModelError::Unsupported { .. })) => {
            tell!(
                "note: the weights were not compared with config.json, because this program does not run such a model: {why}"
            );
            None
        }
        Err(wrong) => {
            problems.push(wrong.to_string());
            None
        }
    };
    if let Some(decoder) = &decoder {
        let checked =
            dense::weights(files).and_then(|weights| dense::check(weights.as_ref(), decoder, &files.path));
        problems.extend(checked.err().map(|failure| said_of(failure, &files.path)));
    }
    if !files.path.join("tokenizer.json").is_file() {
        let sentencepiece = files.path.join("tokenizer.model").is_file();
        problems.extend((!sentencepiece).then(|| "there is no tokenizer.json beside the weights".to_owned()));
        return Ok(problems);
    }
    match (files.tokenizer(), decoder) {
        (Ok(tokenizer), Some(decoder)) => problems.extend(dense::vocabulary_problem(&tokenizer, &decoder)),
        (Err(wrong), Some(_)) => problems.push(wrong.to_string()),
        // Of such a model its kind of tokenizer need not be known here either.
        (_, None) => {}
    }
    Ok(problems)
}

/// A failure's words without the directory that is named above them.
fn said_of(failure: Failure, dir: &Path) -> String {
    let (Failure::Input(text) | Failure::Run(text)) = failure else { return String::new() };
    text.strip_prefix(&format!("{}: ", dir.display())).map_or(text.clone(), str::to_owned)
}

/// The first number that is none: vLLM would load it and answer nonsense.
fn not_finite(stored: &dyn TensorSource) -> Outcome<Option<String>> {
    let is_plain = |info: &&TensorInfo| {
        use StoredDtype::{BF16, F8E4M3, F16, F32, F64};
        matches!(info.dtype, F64 | F32 | F16 | BF16 | F8E4M3)
    };
    let source = Finite(stored);
    let mut piece = vec![0f32; PIECE];
    for info in stored.tensors().iter().filter(is_plain) {
        let elements = info.elements();
        for start in (0..elements).step_by(PIECE) {
            let piece = &mut piece[..PIECE.min(elements - start)];
            match source.read_f32(&info.name, start, piece) {
                Ok(()) => {}
                Err(error @ FormatError::NotFinite { .. }) => return Ok(Some(error.to_string())),
                Err(error) => return Err(Failure::of_format(error)),
            }
        }
    }
    Ok(None)
}
