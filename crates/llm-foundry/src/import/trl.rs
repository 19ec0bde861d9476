//! TRL's configurations: `trl sft --config FILE`.

use super::draft::Rule::{By, Lost, To, Unneeded};
use super::draft::{Draft, Rows, Rule, is_off, is_on, texts};
use super::is_hub_data;
use serde_json::{Map, Value, json};

type File = Map<String, Value>;

/// Keys of its own; those of `TrainingArguments` come after them.
pub(super) const RULES: &[(&str, Rule)] = &[
    ("model_name_or_path", To("model.name_or_path")),
    ("model_revision", To("model.revision")),
    ("dtype", By(dtype)),
    ("torch_dtype", By(dtype)),
    ("model_init_kwargs", By(init_kwargs)),
    ("load_in_4bit", To("model.load_in_4bit")),
    ("load_in_8bit", To("model.load_in_8bit")),
    ("bnb_4bit_quant_type", By(of_4bit)),
    ("use_bnb_nested_quant", By(of_4bit)),
    ("bnb_4bit_quant_storage", Unneeded("codes are kept as they are")),
    ("use_peft", Unneeded("a section `lora` or none says it")),
    ("lora_r", By(of_lora)),
    ("lora_alpha", By(of_lora)),
    ("lora_dropout", By(of_lora)),
    ("lora_target_modules", By(of_lora)),
    ("lora_modules_to_save", By(of_lora)),
    ("use_rslora", By(of_lora)),
    ("use_dora", By(of_lora)),
    ("lora_task_type", Unneeded("causal language models are what there is")),
    ("lora_target_parameters", Lost("modules are named by `lora.target_modules`")),
    ("dataset_name", By(dataset_name)),
    ("datasets", By(datasets)),
    ("dataset_config", By(part)),
    ("dataset_train_split", By(part)),
    ("dataset_test_split", By(test_split)),
    ("dataset_streaming", By(streaming)),
    ("streaming", By(streaming)),
    ("test_split_size", To("data.eval_fraction")),
    ("dataset_text_field", By(text_field)),
    ("dataset_num_proc", Unneeded("threads are chosen by `training.threads`")),
    ("dataset_kwargs", Lost("no counterpart")),
    ("max_length", To("data.max_length")),
    ("max_seq_length", To("data.max_length")),
    ("packing", To("data.packing")),
    ("packing_strategy", To("data.packing_strategy")),
    ("eval_packing", To("data.eval_packing")),
    ("padding_free", Unneeded("there is no padding here")),
    ("pad_token", Unneeded("there is no padding here")),
    ("pad_to_multiple_of", Unneeded("there is no padding here")),
    ("eos_token", To("tokenizer.eos_token")),
    ("chat_template_path", To("tokenizer.chat_template")),
    ("completion_only_loss", To("data.completion_only_loss")),
    ("assistant_only_loss", To("data.assistant_only_loss")),
    ("shuffle_dataset", To("data.shuffle_dataset")),
    ("loss_type", To("training.loss_type")),
    ("activation_offloading", Lost("`training.gradient_checkpointing: auto` keeps what fits into memory")),
    ("use_liger", Unneeded("the kernels here are fused already")),
    ("gradient_checkpointing", By(super::trainer::checkpointing)),
];

/// What it does where nothing is said.
pub(super) fn defaults(draft: &mut Draft, file: &File) {
    draft.default_of("training.learning_rate", json!(2e-5), "TRL");
    if is_lora(file) {
        draft.default_of("lora.r", json!(16), "TRL");
        draft.default_of("lora.lora_alpha", json!(32), "TRL");
        draft.default_of("lora.lora_dropout", json!(0.05), "TRL");
        draft.default_of("lora.target_modules", json!(["q_proj", "v_proj"]), "PEFT for Llama");
    }
}

fn is_lora(file: &File) -> bool {
    file.get("use_peft").is_some_and(is_on)
}

fn of_lora(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    if !is_lora(file) {
        return draft.skip(key, value, "there is no adapter");
    }
    let ours = key.strip_prefix("lora_").filter(|key| *key != "alpha" && *key != "dropout").unwrap_or(key);
    let named = texts(value);
    let value = match (ours, named.as_slice()) {
        ("target_modules", [one]) if one == "all-linear" => json!(one),
        ("target_modules" | "modules_to_save", [_, ..]) => json!(named),
        _ => value.clone(),
    };
    draft.set(&format!("lora.{ours}"), value, key);
}

fn of_4bit(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    if !file.get("load_in_4bit").is_some_and(is_on) {
        return draft.skip(key, value, "nothing is in 4 bits");
    }
    let ours = if key == "use_bnb_nested_quant" { "bnb_4bit_use_double_quant" } else { key };
    draft.set(&format!("model.{ours}"), value.clone(), key);
}

fn dtype(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    match value.as_str() {
        Some("bfloat16" | "float32") => draft.set("model.dtype", value.clone(), key),
        Some("auto") => draft.skip(key, value, "auto here too"),
        _ => draft.lose(key, value, "float32 and bfloat16 are what there is"),
    }
}

fn init_kwargs(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    for (name, value) in value.as_object().into_iter().flatten() {
        match name.as_str() {
            "dtype" | "torch_dtype" => dtype(draft, &format!("{key}.{name}"), value, file),
            "revision" => draft.set("model.revision", value.clone(), &format!("{key}.{name}")),
            _ => draft.lose(&format!("{key}.{name}"), value, "no counterpart"),
        }
    }
}

fn streaming(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    draft.set("data.streaming", json!(is_on(value)), key);
}

/// Of the data set `dataset_name`, if that is one of the hub.
fn part(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    let ours = if key == "dataset_config" { "data.name" } else { "data.split" };
    match names_hub_data(file) {
        true => draft.set(ours, value.clone(), key),
        false if value == "train" => draft.skip(key, value, "the files that are named are used whole"),
        false => draft.lose(key, value, "the files that are named are used whole"),
    }
}

fn test_split(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    match (names_hub_data(file), evaluates(file)) {
        (true, true) => draft.set("data.eval_split", value.clone(), key),
        (_, false) => draft.skip(key, value, "nothing is evaluated"),
        (false, true) => draft.lose(key, value, "name the files of the evaluation data: `data.eval`"),
    }
}

fn names_hub_data(file: &File) -> bool {
    file.get("dataset_name").and_then(Value::as_str).is_some_and(is_hub_data)
}

fn evaluates(file: &File) -> bool {
    file.get("eval_strategy").or_else(|| file.get("evaluation_strategy")).is_some_and(|when| !is_off(when))
}

fn text_field(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    if value != "text" {
        draft.set("data.text_field", value.clone(), key);
    }
}

fn dataset_name(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    let Some(name) = value.as_str() else { return };
    draft.rows.push(Rows { paths: vec![name.to_owned()], comment: key.into(), ..Rows::default() });
    if is_hub_data(name) && evaluates(file) && file.get("test_split_size").is_none_or(Value::is_null) {
        draft.set("data.eval", value.clone(), "its test split");
    }
}

/// A mixture.
fn datasets(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    for (index, set) in value.as_array().into_iter().flatten().enumerate() {
        let place = format!("{key}[{index}]");
        let Some(path) = set["path"].as_str() else {
            draft.lose(&place, set, "it has no `path`");
            continue;
        };
        let files = set.get("data_files").map(texts).filter(|files| !files.is_empty());
        let mut rows = Rows { comment: key.into(), ..Rows::default() };
        rows.paths = files.unwrap_or_else(|| vec![path.to_owned()]);
        for ours in ["name", "split"].into_iter().filter(|_| is_hub_data(path)) {
            rows.part.extend(set[ours].as_str().map(|value| (ours, value.to_owned())));
        }
        let read: Vec<&str> = rows.part.iter().map(|(ours, _)| *ours).collect();
        draft.rows.push(rows);
        for (name, value) in set.as_object().into_iter().flatten() {
            let is_read = ["path", "data_files"].contains(&name.as_str()) || read.contains(&name.as_str());
            if !is_read && !is_off(value) && !value.is_null() && value != "train" {
                draft.lose(&format!("{place}.{name}"), value, "the files that are named are used whole");
            }
        }
    }
}
