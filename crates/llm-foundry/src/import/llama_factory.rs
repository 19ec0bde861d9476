//! LLaMA-Factory's configurations.

use super::draft::Rule::{By, Lost, To, Unneeded};
use super::draft::{Draft, Rows, Rule, is_off, is_on, texts};
use super::trainer::ATTENTION;
use serde_json::{Map, Value, json};
use std::path::Path;

type File = Map<String, Value>;

/// Keys of its own; those of `TrainingArguments` come after them.
pub(super) const RULES: &[(&str, Rule)] = &[
    ("model_name_or_path", To("model.name_or_path")),
    ("model_revision", To("model.revision")),
    ("adapter_name_or_path", By(of_lora)),
    ("stage", Unneeded("what the data is says it")),
    ("finetuning_type", By(kind)),
    ("lora_rank", By(of_lora)),
    ("lora_alpha", By(of_lora)),
    ("lora_dropout", By(of_lora)),
    ("lora_target", By(of_lora)),
    ("additional_target", By(of_lora)),
    ("use_dora", By(of_lora)),
    ("use_rslora", By(of_lora)),
    ("pissa_init", By(pissa)),
    ("pissa_iter", Unneeded("it is read with pissa_init")),
    ("loraplus_lr_ratio", To("training.loraplus_lr_ratio")),
    ("create_new_adapter", Lost("an adapter is continued, or a new one is made")),
    ("quantization_bit", By(quantization)),
    ("quantization_method", By(quantization_method)),
    ("double_quantization", Unneeded("it is read with quantization_bit")),
    ("quantization_type", Unneeded("nf4 is what there is")),
    ("dataset", By(dataset)),
    ("eval_dataset", By(dataset)),
    ("dataset_dir", Unneeded("it is read with the data sets")),
    ("media_dir", Lost("there are no pictures here")),
    ("template", By(template)),
    ("cutoff_len", To("data.max_length")),
    ("packing", By(packing)),
    ("neat_packing", By(packing)),
    ("train_on_prompt", By(train_on_prompt)),
    ("mask_history", By(mask_history)),
    ("max_samples", Unneeded("it is read with the data sets")),
    ("interleave_probs", Unneeded("it is read with the data sets")),
    ("mix_strategy", Unneeded("it is read with the data sets")),
    ("streaming", By(streaming)),
    ("buffer_size", To("data.shuffle_buffer")),
    ("val_size", By(val_size)),
    ("overwrite_cache", Unneeded("data is read anew in each run")),
    ("tokenized_path", Unneeded("data is read anew in each run")),
    ("preprocessing_num_workers", Unneeded("threads are chosen by `training.threads`")),
    ("preprocessing_batch_size", Unneeded("threads are chosen by `training.threads`")),
    ("flash_attn", Unneeded(ATTENTION)),
    ("enable_liger_kernel", Unneeded("the kernels here are fused already")),
    ("use_unsloth", Unneeded("the kernels here are fused already")),
    ("use_unsloth_gc", Unneeded("`training.gradient_checkpointing: auto` keeps what fits")),
    ("disable_gradient_checkpointing", By(no_checkpointing)),
    ("resize_vocab", Unneeded("the vocabulary grows with `tokenizer.add_tokens`")),
    ("new_special_tokens", By(new_tokens)),
    ("predict_with_generate", Lost("see docs/evaluation.md")),
    ("compute_accuracy", Unneeded("accuracy is always computed")),
    ("use_swanlab", Lost("runs are reported to wandb, tensorboard or mlflow")),
    ("image_max_pixels", Lost("there are no pictures here")),
    ("video_max_pixels", Lost("there are no pictures here")),
    ("enable_thinking", By(thinking)),
];

/// What it does where nothing is said.
pub(super) fn defaults(draft: &mut Draft, file: &File) {
    const NAME: &str = "LLaMA-Factory";
    draft.default_of("data.max_length", json!(2048), NAME);
    draft.default_of("training.learning_rate", json!(5e-5), NAME);
    if is_lora(file) {
        draft.default_of("lora.r", json!(8), NAME);
        let rank = file.get("lora_rank").and_then(Value::as_f64).unwrap_or(8.0);
        draft.default_of("lora.lora_alpha", json!(2.0 * rank), NAME);
    }
    if !file.get("train_on_prompt").is_some_and(is_on) && !draft.has("data.train_on") {
        let text = file.get("stage").and_then(Value::as_str) == Some("pt");
        let chats = draft.rows.iter().any(|rows| matches!(rows.format, Some("messages" | "sharegpt")));
        if chats && !text {
            draft.set("data.assistant_only_loss", json!(true), "LLaMA-Factory learns answers only");
        }
    }
}

fn is_lora(file: &File) -> bool {
    file.get("finetuning_type").and_then(Value::as_str).unwrap_or("lora") == "lora"
}

fn kind(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    match value.as_str() {
        Some("lora" | "full") => draft.skip(key, value, "a section `lora` or none says it"),
        _ => draft.lose(key, value, "either an adapter is trained, or every weight"),
    }
}

fn of_lora(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    if !is_lora(file) {
        return draft.skip(key, value, "there is no adapter");
    }
    let (ours, value) = match key {
        "lora_rank" => ("r", value.clone()),
        "lora_target" if value == "all" => ("target_modules", json!("all-linear")),
        "lora_target" => ("target_modules", json!(texts(value))),
        "additional_target" => ("modules_to_save", json!(texts(value))),
        "adapter_name_or_path" => ("adapter", value.clone()),
        same => (same, value.clone()),
    };
    if !is_off(&value) {
        draft.set(&format!("lora.{ours}"), value, key);
    }
}

fn pissa(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    if is_on(value) {
        let name = match file.get("pissa_iter").and_then(Value::as_i64).unwrap_or(16) {
            -1 => "pissa".to_owned(),
            rounds => format!("pissa_niter_{rounds}"),
        };
        draft.set("lora.init_lora_weights", json!(name), key);
    }
}

fn quantization(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    match value.as_i64() {
        Some(4) => {
            draft.set("model.load_in_4bit", json!(true), key);
            let double = !file.get("double_quantization").is_some_and(is_off);
            draft.set("model.bnb_4bit_use_double_quant", json!(double), "double_quantization");
        }
        Some(8) => draft.set("model.load_in_8bit", json!(true), key),
        _ => draft.lose(key, value, "4 and 8 bits are what there is"),
    }
}

fn quantization_method(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    match value.as_str() {
        Some("bnb" | "bitsandbytes") => draft.skip(key, value, "bitsandbytes' numbers are used"),
        _ => draft.lose(key, value, "bitsandbytes' numbers are used"),
    }
}

fn template(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    match value.as_str().and_then(super::template) {
        Some(ours) => draft.set("tokenizer.chat_template", json!(ours), key),
        None => draft.lose(
            key,
            value,
            "the model's own chat template is used; set `tokenizer.chat_template` for another",
        ),
    }
}

fn packing(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    match is_on(value) {
        true => draft.set("data.packing", json!(true), key),
        false => draft.skip(key, value, "packed examples never see each other here"),
    }
}

fn train_on_prompt(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    match is_on(value) {
        true => draft.set("data.completion_only_loss", json!(false), key),
        false => draft.skip(key, value, "prompts are not learned here either"),
    }
}

fn mask_history(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    if is_on(value) {
        draft.set("data.train_on", json!("last"), key);
    }
}

fn streaming(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    draft.set("data.streaming", json!(is_on(value)), key);
}

fn val_size(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    match value.as_f64() {
        Some(0.0) => draft.skip(key, value, "none here too"),
        Some(share) if share < 1.0 => draft.set("data.eval_fraction", json!(share), key),
        _ => draft.lose(key, value, "a number of rows; `data.eval_fraction` is a share"),
    }
}

fn no_checkpointing(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    if is_on(value) {
        draft.set("training.gradient_checkpointing", json!("none"), key);
    }
}

fn new_tokens(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    draft.set("tokenizer.add_special_tokens", json!(texts(value)), key);
}

fn thinking(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    draft.set("data.chat_template_kwargs", json!({"enable_thinking": is_on(value)}), key);
}

/// Names of `dataset_info.json`, looked up where that file is.
fn dataset(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    let dir = file.get("dataset_dir").and_then(Value::as_str).unwrap_or("data");
    let info = std::fs::read_to_string(Path::new(dir).join("dataset_info.json")).ok();
    let info: Option<Value> = info.and_then(|text| serde_json::from_str(&text).ok());
    let weights: Vec<f64> = file
        .get("interleave_probs")
        .map(texts)
        .unwrap_or_default()
        .iter()
        .filter_map(|p| p.parse().ok())
        .collect();
    let mut found = Vec::new();
    for (index, name) in texts(value).into_iter().enumerate() {
        let mut rows = Rows { comment: key.into(), ..Rows::default() };
        match info.as_ref().and_then(|info| info.get(&name)) {
            Some(entry) => described(draft, &format!("{key}.{name}"), dir, entry, &mut rows),
            None if Path::new(&name).exists() => rows.paths.push(name),
            None => {
                let why = format!("{dir}/dataset_info.json does not say what that is: name its file");
                draft.lose(key, &json!(name), &why);
                rows.paths.push(name);
            }
        }
        rows.take = file.get("max_samples").and_then(Value::as_u64).filter(|_| key == "dataset");
        rows.weight = weights.get(index).copied();
        found.push(rows);
    }
    if key == "dataset" {
        draft.rows = found;
    } else if !found.is_empty() {
        let paths: Vec<String> = found.into_iter().flat_map(|rows| rows.paths).collect();
        draft.set("data.eval", json!(paths), key);
    }
}

/// An entry of `dataset_info.json`.
fn described(draft: &mut Draft, place: &str, dir: &str, entry: &Value, rows: &mut Rows) {
    match entry["file_name"].as_str() {
        Some(name) => rows.paths.push(format!("{dir}/{name}")),
        None if entry["hf_hub_url"].is_string() => {
            rows.paths.push(entry["hf_hub_url"].as_str().unwrap_or_default().to_owned());
            for (theirs, ours) in [("subset", "name"), ("split", "split")] {
                rows.part.extend(entry[theirs].as_str().map(|value| (ours, value.to_owned())));
            }
        }
        None => {
            draft.lose(place, entry, "it has neither `file_name` nor `hf_hub_url`");
            rows.paths.push("path/to/data.jsonl".into());
        }
    }
    let columns = entry["columns"].as_object().cloned().unwrap_or_default();
    let column = |key: &str| columns.get(key).and_then(Value::as_str).map(str::to_owned);
    if entry["formatting"] == "sharegpt" {
        let tags = entry["tags"].as_object().cloned().unwrap_or_default();
        let openai = tags.get("role_tag").and_then(Value::as_str) == Some("role");
        rows.format = Some(if openai { "messages" } else { "sharegpt" });
        return;
    }
    rows.format = Some("alpaca");
    for (theirs, ours) in [("prompt", "instruction"), ("query", "input"), ("response", "output")] {
        if let Some(column) = column(theirs).filter(|column| column != ours) {
            rows.columns.push((ours, column));
        }
    }
    for key in ["history", "system", "images"] {
        if let Some(name) = column(key) {
            draft.lose(&format!("{place}.columns.{key}"), &json!(name), "no counterpart in Alpaca's shape");
        }
    }
}
