//! Axolotl's configurations.

use super::draft::Rule::{By, Lost, To, Unneeded};
use super::draft::{Draft, Rows, Rule, is_off, is_on, texts};
use super::is_hub_data;
use super::trainer::{ATTENTION, NO_FOREIGN_CODE, ONE_MACHINE};
use serde_json::{Map, Value, json};

type File = Map<String, Value>;

const NO_PADDING: &str = "there is no padding here";
const NO_CACHE: &str = "data is read anew in each run, so there is nothing to keep";
const FUSED: &str = "the kernels here are fused already";

/// Keys of its own; those of `TrainingArguments` come after them.
pub(super) const RULES: &[(&str, Rule)] = &[
    ("base_model", To("model.name_or_path")),
    ("base_model_config", Unneeded("the model's own configuration is used")),
    ("revision_of_model", To("model.revision")),
    ("tokenizer_config", To("tokenizer.name_or_path")),
    ("model_type", Unneeded("the model's own configuration says it")),
    ("tokenizer_type", Unneeded("tokenizer.json says it")),
    ("tokenizer_use_fast", Unneeded("tokenizer.json is what is read")),
    ("is_llama_derived_model", Unneeded("the model's own configuration says it")),
    ("is_mistral_derived_model", Unneeded("the model's own configuration says it")),
    ("trust_remote_code", Unneeded(NO_FOREIGN_CODE)),
    ("chat_template", By(chat_template)),
    ("chat_template_jinja", To("tokenizer.chat_template")),
    ("special_tokens", By(special_tokens)),
    ("tokens", To("tokenizer.add_tokens")),
    ("load_in_4bit", By(load_in_4bit)),
    ("load_in_8bit", To("model.load_in_8bit")),
    ("strict", Unneeded("unknown keys are always refused")),
    ("adapter", By(adapter)),
    ("lora_r", By(of_lora)),
    ("lora_alpha", By(of_lora)),
    ("lora_dropout", By(of_lora)),
    ("lora_target_modules", By(of_lora)),
    ("lora_modules_to_save", By(of_lora)),
    ("peft_use_dora", By(of_lora)),
    ("peft_use_rslora", By(of_lora)),
    ("peft_init_lora_weights", By(of_lora)),
    ("peft_layers_to_transform", By(of_lora)),
    ("lora_model_dir", By(of_lora)),
    ("lora_target_linear", By(target_linear)),
    ("lora_fan_in_fan_out", Unneeded("no model here stores its weights so")),
    ("loraplus_lr_ratio", To("training.loraplus_lr_ratio")),
    ("lora_mlp_kernel", Unneeded(FUSED)),
    ("lora_qkv_kernel", Unneeded(FUSED)),
    ("lora_o_kernel", Unneeded(FUSED)),
    ("embedding_lr", To("training.embedding_learning_rate")),
    ("datasets", By(datasets)),
    ("pretraining_dataset", By(datasets)),
    ("test_datasets", By(test_datasets)),
    ("val_set_size", By(val_set_size)),
    ("dataset_prepared_path", Unneeded(NO_CACHE)),
    ("dataset_processes", Unneeded("threads are chosen by `training.threads`")),
    ("shuffle_merged_datasets", Unneeded("rows are drawn in random order")),
    ("train_on_inputs", By(train_on_inputs)),
    ("roles_to_train", Unneeded("it is read with the data sets")),
    ("train_on_eos", Lost("the end of each learned turn is learned")),
    ("sequence_len", To("data.max_length")),
    ("excess_length_strategy", By(excess)),
    ("sample_packing", By(packing)),
    ("eval_sample_packing", By(eval_packing)),
    ("sample_packing_group_size", Unneeded("all rows are packed at once")),
    ("sample_packing_bin_size", Unneeded("all rows are packed at once")),
    ("pad_to_sequence_len", Unneeded(NO_PADDING)),
    ("group_by_length", Unneeded(NO_PADDING)),
    ("micro_batch_size", To("training.per_device_train_batch_size")),
    ("eval_batch_size", To("training.per_device_eval_batch_size")),
    ("batch_size", Lost("write `training.gradient_accumulation_steps`")),
    ("num_epochs", To("training.num_train_epochs")),
    ("optimizer", To("training.optim")),
    ("lr_scheduler", To("training.lr_scheduler_type")),
    ("cosine_min_lr_ratio", By(min_lr)),
    ("cosine_constant_lr_ratio", Lost("no schedule here has a constant end")),
    ("float16", Lost("there is no float16 here")),
    ("bfloat16", By(bfloat16)),
    ("evals_per_epoch", By(per_epoch)),
    ("saves_per_epoch", By(per_epoch)),
    ("auto_resume_from_checkpoints", Lost("start with `train --resume auto`")),
    ("wandb_project", By(wandb)),
    ("wandb_name", By(wandb)),
    ("wandb_run_id", Lost("set the environment variable WANDB_RUN_ID")),
    ("wandb_entity", Lost("set the environment variable WANDB_ENTITY")),
    ("wandb_mode", Lost("set the environment variable WANDB_MODE")),
    ("wandb_watch", Lost("weights and gradients are not logged")),
    ("wandb_log_model", Lost("models are not uploaded to trackers")),
    ("mlflow_tracking_uri", Lost("set MLFLOW_TRACKING_URI and `training.report_to: mlflow`")),
    ("mlflow_experiment_name", Lost("`training.project` with `report_to: mlflow`")),
    ("use_tensorboard", By(tensorboard)),
    ("early_stopping_patience", To("training.early_stopping_patience")),
    ("flash_attention", Unneeded(ATTENTION)),
    ("xformers_attention", Unneeded(ATTENTION)),
    ("sdp_attention", Unneeded(ATTENTION)),
    ("eager_attention", Unneeded(ATTENTION)),
    ("flex_attention", Unneeded(ATTENTION)),
    ("s2_attention", Lost(ATTENTION)),
    ("local_rank", Unneeded(ONE_MACHINE)),
    ("ddp", Lost(ONE_MACHINE)),
    ("plugins", Lost("there are no plugins")),
    ("unfrozen_parameters", Lost("either an adapter is trained, or every weight")),
    ("eval_table_size", Lost("see docs/evaluation.md")),
    ("eval_max_new_tokens", Lost("see docs/evaluation.md")),
    ("eval_causal_lm_metrics", Lost("loss, perplexity, accuracy and entropy are always computed")),
    ("debug", Unneeded("`llm-foundry data preview` shows rows")),
    ("tf32", Unneeded("there is no such number format on processors")),
];

/// What it does where nothing is said.
pub(super) fn defaults(draft: &mut Draft, file: &File) {
    const NAME: &str = "Axolotl";
    draft.default_of("data.max_length", json!(512), NAME);
    draft.default_of("training.per_device_train_batch_size", json!(1), NAME);
    draft.default_of("training.num_train_epochs", json!(1), NAME);
    draft.default_of("training.lr_scheduler_type", json!("cosine"), NAME);
    events(draft, file);
    prompts(draft);
    let says = |key: &str| file.get(key).is_some_and(|value| !value.is_null());
    if says("datasets") && !says("excess_length_strategy") {
        excess(draft, "excess_length_strategy", &json!("drop"), file);
    }
    if has_adapter(file) && !draft.has("lora.target_modules") {
        draft.default_of("lora.target_modules", json!(["q_proj", "v_proj"]), "PEFT for Llama");
    }
}

/// Warm-up and checkpoints, which it has even where the file does not speak of them.
fn events(draft: &mut Draft, file: &File) {
    const NAME: &str = "Axolotl";
    let set = |key: &str| file.get(key).is_some_and(|value| !is_off(value) && value.as_f64() != Some(0.0));
    let is_warm = set("warmup_steps") || set("warmup_ratio");
    if !is_warm && file.get("lr_scheduler").and_then(Value::as_str) != Some("constant") {
        draft.set("training.warmup_steps", json!(0.03), "default of Axolotl, there at most 100 steps");
    }
    if !set("save_steps") {
        draft.default_of("training.save_strategy", json!("epoch"), NAME);
    }
    if draft.text_of("training.save_strategy").as_deref() != Some("no") {
        draft.default_of("training.save_total_limit", json!(4), NAME);
    }
}

/// Rows of Alpaca's type have a prompt of their own there, whatever the chat template is.
fn prompts(draft: &mut Draft) {
    let alpaca: Vec<String> = draft
        .rows
        .iter()
        .filter(|rows| rows.format == Some("alpaca"))
        .map(|rows| rows.comment.clone())
        .collect();
    let Some(place) = alpaca.first() else { return };
    let value = json!("alpaca");
    if draft.has_chats() {
        let why = "its prompt is Alpaca's there; here all data sets share the chat template";
        return draft.lose(&format!("{place}.type"), &value, why);
    }
    draft.set("tokenizer.chat_template", json!("alpaca"), "the prompt of Alpaca's type");
    let why = "a row's `input` has a headline of its own there; here it stands below the instruction";
    draft.lose(&format!("{place}.type"), &value, why);
}

fn excess(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    match value.as_str() {
        Some("truncate") => draft.skip(key, value, "longer examples are cut at the end"),
        _ => draft.lose(key, value, "longer examples are cut at the end; the data report counts them"),
    }
}

fn has_adapter(file: &File) -> bool {
    file.get("adapter").and_then(Value::as_str).is_some_and(|kind| ["lora", "qlora"].contains(&kind))
}

fn adapter(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    match value.as_str() {
        Some("lora" | "qlora") => {
            draft.skip(key, value, "a section `lora` says it");
            // PEFT's own; where the file says more, it comes later.
            for (ours, theirs, default) in
                [("lora.r", "lora_r", json!(8)), ("lora.lora_alpha", "lora_alpha", json!(8))]
            {
                if file.get(theirs).is_none_or(Value::is_null) {
                    draft.default_of(ours, default, "PEFT");
                }
            }
        }
        _ => draft.lose(key, value, "adapters here are LoRA (also on 4-bit weights)"),
    }
}

fn load_in_4bit(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    if is_on(value) {
        draft.set("model.load_in_4bit", json!(true), key);
        draft.default_of("model.bnb_4bit_use_double_quant", json!(true), "Axolotl");
    } else {
        draft.skip(key, value, "off here too");
    }
}

fn of_lora(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    if !has_adapter(file) {
        return draft.skip(key, value, "there is no adapter");
    }
    let ours = match key {
        "lora_r" => "r",
        "lora_target_modules" if is_on(&file.get("lora_target_linear").cloned().unwrap_or_default()) => {
            return draft.skip(key, value, "lora_target_linear takes all linear layers");
        }
        "lora_target_modules" => "target_modules",
        "lora_modules_to_save" => "modules_to_save",
        "peft_use_dora" => "use_dora",
        "peft_use_rslora" => "use_rslora",
        "peft_init_lora_weights" => "init_lora_weights",
        "peft_layers_to_transform" => "layers_to_transform",
        "lora_model_dir" => "adapter",
        same => same,
    };
    draft.set(&format!("lora.{ours}"), value.clone(), key);
}

fn target_linear(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    match is_on(value) && has_adapter(file) {
        true => draft.set("lora.target_modules", json!("all-linear"), key),
        false => draft.skip(key, value, "off here too"),
    }
}

fn chat_template(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    match value.as_str() {
        Some("tokenizer_default") => draft.skip(key, value, "the tokenizer's own is the default"),
        Some("jinja") if file.contains_key("chat_template_jinja") => {
            draft.skip(key, value, "chat_template_jinja says which");
        }
        Some(name) => match super::template(name.trim_start_matches("tokenizer_default_fallback_")) {
            Some(ours) if name.starts_with("tokenizer_default_fallback_") => {
                let why = format!(
                    "the tokenizer's own is used; if it has none, set `tokenizer.chat_template: {ours}`"
                );
                draft.lose(key, value, &why);
            }
            Some(ours) => draft.set("tokenizer.chat_template", json!(ours), key),
            None => draft.lose(key, value, "no template of that name: the tokenizer's own is used"),
        },
        None => draft.lose(key, value, "this is no name"),
    }
}

fn special_tokens(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    for (name, token) in value.as_object().into_iter().flatten() {
        let path = format!("{key}.{name}");
        match name.as_str() {
            "eos_token" => draft.set("tokenizer.eos_token", token.clone(), &path),
            "pad_token" => draft.skip(&path, token, NO_PADDING),
            _ => draft.lose(&path, token, "the tokenizer's own is used"),
        }
    }
}

fn packing(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    match is_on(value) {
        true => draft.set("data.packing", json!(true), key),
        false => draft.skip(key, value, "off here too"),
    }
}

fn eval_packing(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    let has_eval = ["test_datasets", "val_set_size"]
        .iter()
        .any(|key| file.get(*key).is_some_and(|v| v.as_f64() != Some(0.0)));
    match has_eval {
        true => draft.set("data.eval_packing", json!(is_on(value)), key),
        false => draft.skip(key, value, "there is no evaluation data"),
    }
}

fn val_set_size(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    match value.as_f64() {
        Some(0.0) => draft.skip(key, value, "none here too"),
        Some(share) if share < 1.0 => draft.set("data.eval_fraction", json!(share), key),
        _ => draft.lose(key, value, "a number of rows; `data.eval_fraction` is a share"),
    }
}

/// The data sets, and what is learned of them.
fn datasets(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    let sets = match value {
        Value::Array(sets) => sets.clone(),
        one => vec![one.clone()],
    };
    let mut learned: Vec<String> = Vec::new();
    let mut chats = false;
    for (index, set) in sets.iter().enumerate() {
        let place = format!("{key}[{index}]");
        let Some(set) = set.as_object().filter(|set| set.get("path").is_some_and(Value::is_string)) else {
            draft.lose(&place, set, "it has no `path`");
            continue;
        };
        let mut rows = rows(draft, &place, set, key == "pretraining_dataset");
        rows.comment = key.into();
        chats |= matches!(rows.format, Some("messages" | "sharegpt"));
        learned.extend(set.get("roles_to_train").map(texts).unwrap_or_default());
        draft.rows.push(rows);
    }
    learned.extend(file.get("roles_to_train").map(texts).unwrap_or_default());
    learned.sort();
    learned.dedup();
    if chats && !file.get("train_on_inputs").is_some_and(is_on) {
        if learned.is_empty() || learned == ["assistant"] {
            draft.set("data.assistant_only_loss", json!(true), "Axolotl learns assistant turns");
        } else {
            draft.set("data.train_on", json!(learned), "roles_to_train");
        }
    }
}

fn rows(draft: &mut Draft, place: &str, set: &File, is_text: bool) -> Rows {
    let mut rows = Rows::default();
    let text = |key: &str| set.get(key).and_then(Value::as_str).map(str::to_owned);
    let path = text("path").unwrap_or_default();
    rows.paths = match set.get("data_files").map(texts) {
        Some(files) if !files.is_empty() => files,
        _ => vec![path.clone()],
    };
    let is_hub = is_hub_data(&rows.paths[0]);
    let kind = set.get("type").cloned().unwrap_or(Value::Null);
    match kind.as_str() {
        Some("alpaca") => rows.format = Some("alpaca"),
        Some("completion" | "pretrain") => rows.format = Some("text"),
        Some("chat_template") => rows.format = Some(chat_kind(draft, place, set)),
        Some(old) if old.starts_with("sharegpt") => rows.format = Some("sharegpt"),
        None if is_text => rows.format = Some("text"),
        None if kind.is_null() => {}
        None => custom(draft, place, &kind, &mut rows),
        Some(_) => {
            draft.lose(&format!("{place}.type"), &kind, "the shape is recognised from the first example")
        }
    }
    if rows.format == Some("text") {
        rows.text_field = text("field").or_else(|| text("text_column")).filter(|field| field != "text");
    }
    for (key, value) in set {
        let key_place = format!("{place}.{key}");
        match key.as_str() {
            "path" | "data_files" | "type" | "field" | "text_column" | "field_messages"
            | "roles_to_train" => {}
            "message_property_mappings" | "message_field_role" | "message_field_content" | "conversation" => {
            }
            "ds_type" => draft.skip(&key_place, value, "the name of a file tells its kind"),
            "chat_template" => chat_template(draft, key, value, set),
            "name" | "revision" | "split"
                if is_hub && value.as_str().is_some_and(|text| !text.contains('[')) =>
            {
                let ours =
                    ["name", "revision", "split"].into_iter().find(|ours| ours == key).unwrap_or("name");
                rows.part.push((ours, value.as_str().unwrap_or_default().to_owned()));
            }
            "split" if value == "train" => draft.skip(&key_place, value, "all rows of the files are used"),
            _ if is_off(value) || value.is_null() => {}
            _ => draft.lose(&key_place, value, "no counterpart"),
        }
    }
    rows
}

/// `messages`, or ShareGPT's names of keys.
fn chat_kind(draft: &mut Draft, place: &str, set: &File) -> &'static str {
    let mapping = set.get("message_property_mappings").and_then(Value::as_object);
    let named = |new: &str, old: &str| {
        let new = mapping.and_then(|mapping| mapping.get(new)).and_then(Value::as_str);
        new.or_else(|| set.get(old).and_then(Value::as_str)).map(str::to_owned)
    };
    let field = set.get("field_messages").and_then(Value::as_str).unwrap_or("messages").to_owned();
    let (role, content) = (named("role", "message_field_role"), named("content", "message_field_content"));
    let names = (field.as_str(), role.as_deref().unwrap_or("role"), content.as_deref().unwrap_or("content"));
    match names {
        ("messages", "role", "content") => "messages",
        ("conversations", "from", "value") => "sharegpt",
        _ => {
            let why = "messages must be {role, content} in `messages`, or {from, value} in `conversations`";
            draft.lose(&format!("{place}.field_messages"), &json!([names.0, names.1, names.2]), why);
            if names.1 == "from" { "sharegpt" } else { "messages" }
        }
    }
}

/// A prompt format written out in the file.
fn custom(draft: &mut Draft, place: &str, kind: &Value, rows: &mut Rows) {
    rows.format = Some("alpaca");
    for (key, value) in kind.as_object().into_iter().flatten() {
        let ours = match key.as_str() {
            "field_instruction" => "instruction",
            "field_input" => "input",
            "field_output" => "output",
            _ => {
                draft.lose(&format!("{place}.type.{key}"), value, "Alpaca's own format is used");
                continue;
            }
        };
        if let Some(column) = value.as_str().filter(|column| *column != ours) {
            rows.columns.push((ours, column.to_owned()));
        }
    }
}

fn test_datasets(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    for (index, set) in value.as_array().into_iter().flatten().enumerate() {
        let place = format!("{key}[{index}]");
        match set.as_object().filter(|set| set.get("path").is_some_and(Value::is_string)) {
            Some(set) => {
                let mut rows = rows(draft, &place, set, false);
                rows.comment = key.into();
                draft.eval.push(rows);
            }
            None => draft.lose(&place, set, "it has no `path`"),
        }
    }
}

fn train_on_inputs(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    match is_on(value) {
        true => draft.set("data.completion_only_loss", json!(false), key),
        false => draft.skip(key, value, "prompts are not learned here either"),
    }
}

fn min_lr(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    if draft.remove("training.lr_scheduler_type").is_some_and(|(old, _)| old != "cosine") {
        draft.lose("lr_scheduler", &json!("of another kind"), "cosine_min_lr_ratio asks for a cosine");
    }
    draft.set("training.lr_scheduler_type", json!("cosine_with_min_lr"), key);
    draft.set("training.lr_scheduler_kwargs", json!({"min_lr_rate": value}), key);
}

fn bfloat16(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    if is_on(value) {
        draft.set("model.dtype", json!("bfloat16"), key);
    }
}

/// So many times an epoch is a share of all steps, there too.
fn per_epoch(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    let event = if key.starts_with("evals") { "eval" } else { "save" };
    let path = format!("training.{event}_strategy");
    let epochs = file.get("num_epochs").and_then(Value::as_f64).unwrap_or(1.0);
    match value.as_f64() {
        Some(0.0) => draft.set(&path, json!("no"), key),
        Some(1.0) => draft.set(&path, json!("epoch"), key),
        Some(times) if times * epochs > 1.0 => {
            draft.set(&path, json!("steps"), key);
            draft.set(&format!("training.{event}_steps"), json!(1.0 / (times * epochs)), key);
        }
        // A share of all steps is below 1 here.
        Some(times) if times * epochs == 1.0 => {
            draft.lose(key, value, "that is once, at the end of the run: write a number of steps");
        }
        Some(_) => draft.lose(key, value, "less than once in the run"),
        None => draft.lose(key, value, "this is no number"),
    }
}

fn wandb(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    if file.get("wandb_project").and_then(Value::as_str).is_none_or(str::is_empty) {
        return draft.skip(key, value, "there is no wandb_project, so nothing is reported");
    }
    draft.set("training.report_to", json!("wandb"), "wandb_project");
    let path = if key == "wandb_project" { "training.project" } else { "training.run_name" };
    draft.set(path, value.clone(), key);
}

fn tensorboard(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    if is_on(value) {
        let both = file.get("wandb_project").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
        let trackers = if both { json!(["wandb", "tensorboard"]) } else { json!("tensorboard") };
        draft.set("training.report_to", trackers, key);
    }
}
