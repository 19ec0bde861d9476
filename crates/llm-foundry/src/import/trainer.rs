//! Keys that programs have from transformers' `TrainingArguments`.

use super::draft::Rule::{By, Lost, To, Unneeded};
use super::draft::{Draft, Rule, is_off, is_on, texts};
use serde_json::{Map, Value, json};

pub(super) const ATTENTION: &str =
    "attention here is exact, in tiles, and never crosses from one example to another";
pub(super) const ONE_MACHINE: &str = "one process on one machine";
pub(super) const NO_FOREIGN_CODE: &str = "code that comes with a model is never run";
const KERNELS: &str = "the kernels here are fused already";
const WORKERS: &str = "threads are chosen by `training.threads`";
const CONSOLE: &str = "what the console shows is decided by --quiet and the terminal";

/// The table.
pub(super) const RULES: &[(&str, Rule)] = &[
    ("output_dir", To("output_dir")),
    ("per_device_train_batch_size", To("training.per_device_train_batch_size")),
    ("per_device_eval_batch_size", To("training.per_device_eval_batch_size")),
    ("gradient_accumulation_steps", To("training.gradient_accumulation_steps")),
    ("num_train_epochs", To("training.num_train_epochs")),
    ("max_steps", To("training.max_steps")),
    ("learning_rate", To("training.learning_rate")),
    ("lr_scheduler_type", To("training.lr_scheduler_type")),
    ("lr_scheduler_kwargs", To("training.lr_scheduler_kwargs")),
    ("warmup_ratio", By(warmup_ratio)),
    ("warmup_steps", By(warmup_steps)),
    ("optim", To("training.optim")),
    ("optim_args", To("training.optim_args")),
    ("weight_decay", To("training.weight_decay")),
    ("adam_beta1", To("training.adam_beta1")),
    ("adam_beta2", To("training.adam_beta2")),
    ("adam_epsilon", To("training.adam_epsilon")),
    ("max_grad_norm", To("training.max_grad_norm")),
    ("label_smoothing_factor", To("training.label_smoothing_factor")),
    ("neftune_noise_alpha", To("training.neftune_noise_alpha")),
    ("seed", To("training.seed")),
    ("data_seed", To("training.data_seed")),
    ("logging_steps", To("training.logging_steps")),
    ("logging_first_step", To("training.logging_first_step")),
    ("logging_dir", By(logging_dir)),
    ("report_to", By(report_to)),
    ("run_name", By(run_name)),
    ("eval_strategy", By(eval_strategy)),
    ("evaluation_strategy", By(eval_strategy)),
    ("eval_steps", To("training.eval_steps")),
    ("eval_on_start", To("training.eval_on_start")),
    ("do_eval", Unneeded("evaluation happens where there is data for it")),
    ("save_strategy", To("training.save_strategy")),
    ("save_steps", To("training.save_steps")),
    ("save_total_limit", To("training.save_total_limit")),
    ("save_only_model", To("training.save_only_model")),
    ("load_best_model_at_end", To("training.load_best_model_at_end")),
    ("metric_for_best_model", By(metric)),
    ("greater_is_better", To("training.greater_is_better")),
    ("bf16", By(bf16)),
    ("fp16", By(fp16)),
    ("gradient_checkpointing", By(checkpointing)),
    ("gradient_checkpointing_kwargs", Unneeded("`training.gradient_checkpointing: auto` needs none")),
    ("do_train", Unneeded("`train` trains")),
    (
        "overwrite_output_dir",
        Unneeded("an earlier run is refused, or moved aside with --overwrite-output-dir"),
    ),
    ("resume_from_checkpoint", Lost("go on with `train --resume`")),
    ("save_safetensors", Unneeded("weights are always written so")),
    ("remove_unused_columns", Unneeded("columns that are not used are named in the data report")),
    ("include_num_input_tokens_seen", Unneeded("tokens are always counted")),
    ("include_tokens_per_second", Unneeded("speed is always logged")),
    ("logging_strategy", By(logging_strategy)),
    ("log_level", Unneeded(CONSOLE)),
    ("disable_tqdm", Unneeded(CONSOLE)),
    ("plot_loss", Unneeded("every run leaves report.html")),
    ("tf32", Unneeded("there is no such number format on processors")),
    ("torch_compile", Unneeded(KERNELS)),
    ("use_liger_kernel", Unneeded(KERNELS)),
    ("dataloader_num_workers", Unneeded(WORKERS)),
    ("dataloader_pin_memory", Unneeded(WORKERS)),
    ("dataloader_prefetch_factor", Unneeded(WORKERS)),
    ("dataloader_persistent_workers", Unneeded(WORKERS)),
    ("ddp_timeout", Unneeded(ONE_MACHINE)),
    ("ddp_find_unused_parameters", Unneeded(ONE_MACHINE)),
    ("deepspeed", Lost(ONE_MACHINE)),
    ("fsdp", Lost(ONE_MACHINE)),
    ("fsdp_config", Lost(ONE_MACHINE)),
    ("group_by_length", Lost("rows are drawn in random order; without padding nothing is gained by sorting")),
    ("auto_find_batch_size", Lost("`llm-foundry plan` tells before the run what fits")),
    ("push_to_hub", Lost("use `llm-foundry push` after the run")),
    ("hub_model_id", Lost("name it to `llm-foundry push`")),
    ("hub_strategy", Lost("use `llm-foundry push` after the run")),
    ("hub_private_repo", Lost("use `llm-foundry push --private` after the run")),
    ("trust_remote_code", Unneeded(NO_FOREIGN_CODE)),
    ("attn_implementation", Unneeded(ATTENTION)),
];

type File = Map<String, Value>;

fn warmup_ratio(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    let ratio = value.as_f64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0.0);
    let steps = file.get("warmup_steps").and_then(Value::as_f64).unwrap_or(0.0);
    match ratio {
        _ if steps > 0.0 => draft.skip(key, value, "warmup_steps comes first"),
        0.0 => draft.skip(key, value, "no warm-up is the default"),
        _ => draft.set("training.warmup_steps", json!(ratio), key),
    }
}

fn warmup_steps(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    if value.as_f64() != Some(0.0) {
        draft.set("training.warmup_steps", value.clone(), key);
    }
}

fn bf16(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    match value.as_str() {
        Some("auto" | "full") => {
            draft.skip(key, value, "`model.dtype: auto` chooses what the processor is fast with")
        }
        _ if is_on(value) => draft.set("model.dtype", json!("bfloat16"), key),
        _ => draft.skip(key, value, "`model.dtype: auto` chooses what the processor is fast with"),
    }
}

fn fp16(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    match is_on(value) {
        true => {
            draft.lose(key, value, "there is no float16 here: `model.dtype: auto` takes bfloat16 or float32")
        }
        false => draft.skip(key, value, "there is no float16 here"),
    }
}

pub(super) fn checkpointing(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    match is_off(value) {
        true => draft.set("training.gradient_checkpointing", json!("none"), key),
        false => draft.skip(key, value, "`auto` keeps what fits into memory, with the same result"),
    }
}

fn eval_strategy(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    let steps = file.get("eval_steps").is_some_and(|steps| !steps.is_null());
    match value.as_str() {
        Some("steps") if !steps => {
            draft.set("training.eval_strategy", json!("steps"), key);
            // transformers falls back on the steps of the log.
            draft.set(
                "training.eval_steps",
                file.get("logging_steps").cloned().unwrap_or(json!(500)),
                "eval_steps is logging_steps",
            );
        }
        _ => {
            draft.set("training.eval_strategy", if is_off(value) { json!("no") } else { value.clone() }, key)
        }
    }
}

fn report_to(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    const OURS: [&str; 5] = ["wandb", "tensorboard", "mlflow", "all", "none"];
    let (ours, theirs): (Vec<String>, Vec<String>) =
        texts(value).into_iter().partition(|name| OURS.contains(&name.as_str()));
    if !theirs.is_empty() {
        draft.lose(key, &json!(theirs), "runs are reported to wandb, tensorboard or mlflow");
    }
    if ours.iter().any(|name| name != "none") {
        draft.set("training.report_to", json!(ours), key);
    }
}

fn tracked(file: &File) -> bool {
    let named = file.get("report_to").map(texts).unwrap_or_default();
    named.iter().any(|name| ["wandb", "tensorboard", "mlflow", "all"].contains(&name.as_str()))
}

fn run_name(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    match tracked(file) {
        true => draft.set("training.run_name", value.clone(), key),
        false => draft.skip(key, value, "the run is reported to no tracker"),
    }
}

fn logging_dir(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    match file.get("report_to").map(texts).is_some_and(|names| names.iter().any(|n| n == "tensorboard")) {
        true => draft.set("training.logging_dir", value.clone(), key),
        false => draft.skip(key, value, "no TensorBoard files are written"),
    }
}

fn logging_strategy(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    match value.as_str() {
        Some("steps") => draft.skip(key, value, "steps are logged in any case"),
        _ => draft.lose(key, value, "steps are logged, every `training.logging_steps`"),
    }
}

fn metric(draft: &mut Draft, key: &str, value: &Value, _: &File) {
    let name = value.as_str().unwrap_or_default();
    draft.set("training.metric_for_best_model", json!(name.strip_prefix("eval_").unwrap_or(name)), key);
}
