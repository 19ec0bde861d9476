//! LLaMA-Factory's configurations.

use super::dataset_info::{dataset, is_pretraining};
use super::draft::Rule::{By, Lost, To, Unneeded};
use super::draft::{Draft, Rule, is_off, is_on, texts};
use super::trainer::ATTENTION;
use serde_json::{Map, Value, json};

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
    ("mix_strategy", By(mix_strategy)),
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
    if is_pretraining(file) {
        // There texts are packed unless the file says otherwise: all in a row, cut every so many tokens.
        if file.get("packing").is_none_or(|packing| packing.is_null() || is_on(packing)) {
            draft.default_of("data.packing", json!(true), NAME);
            draft.default_of("data.packing_strategy", json!("wrapped"), NAME);
        }
        draft.rows.iter_mut().chain(&mut draft.eval).for_each(|rows| rows.format = Some("text"));
    } else if draft.has_chats()
        && !file.get("train_on_prompt").is_some_and(is_on)
        && !draft.has("data.train_on")
    {
        draft.set("data.assistant_only_loss", json!(true), "LLaMA-Factory learns answers only");
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

fn template(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    if is_pretraining(file) {
        return draft.skip(key, value, "plain texts have no template");
    }
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
        false if key == "packing" => draft.skip(key, value, "off here too"),
        false => draft.skip(key, value, "packed examples never see each other here"),
    }
}

fn train_on_prompt(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    if is_pretraining(file) {
        return draft.skip(key, value, "all of a plain text is learned");
    }
    match is_on(value) {
        true => draft.set("data.completion_only_loss", json!(false), key),
        false => draft.skip(key, value, "prompts are not learned here either"),
    }
}

fn mask_history(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    if is_pretraining(file) {
        return draft.skip(key, value, "all of a plain text is learned");
    }
    if is_on(value) {
        draft.set("data.train_on", json!("last"), key);
    }
}

fn mix_strategy(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    match value.as_str() {
        Some("concat" | "interleave_under" | "interleave_over") => {
            draft.skip(key, value, "it is read with the data sets");
        }
        _ => draft.lose(key, value, "data sets follow each other, or are mixed by weights"),
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
