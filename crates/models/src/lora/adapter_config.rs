//! adapter_config.json, as PEFT 0.21.2 writes it.

use super::{LoraSpec, TargetModules};
use crate::ModelError;
use crate::families::Family;
use foundry_formats::HfConfig;
use serde_json::{Map, Value, json};
use std::path::Path;

/// PEFT's version whose files are written.
const PEFT_VERSION: &str = "0.21.2";

/// Keys of `LoraConfig` that say nothing about the arithmetic of a plain adapter.
const DESCRIPTIVE: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    // How its first values were found, which are in the file.
    "eva_config",
    "inference_mode",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];

/// Keys that are this crate's [`LoraSpec`].
const SPEC: &[&str] = &[
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "exclude_modules",
    "modules_to_save",
    "use_rslora",
    "bias",
    "init_lora_weights",
    "use_dora",
    "lora_bias",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "layers_pattern",
    "trainable_token_indices",
];

/// Initialisations that leave the base as it is and no trace in a finished adapter.
const WITHOUT_TRACE: &[&str] = &["gaussian", "orthogonal", "eva", "mica"];

impl LoraSpec {
    /// Reads the settings of a saved adapter from `DIR/adapter_config.json`.
    ///
    /// # Errors
    /// A missing or broken file; an adapter of another kind; settings that change the arithmetic and are not computed
    /// here.
    pub fn from_adapter(dir: &Path) -> Result<Self, ModelError> {
        let path = dir.join("adapter_config.json");
        let config = HfConfig::read(&path)?;
        let error = |what: String, remedy: &str| {
            Err(ModelError::Adapter { path: path.clone(), what, remedy: remedy.into() })
        };
        match config.opt_str("peft_type")? {
            Some("LORA") => {}
            other => {
                let what = format!("`peft_type` is {}", other.unwrap_or("missing"));
                return error(what, "only LORA adapters can be used");
            }
        }
        let mut fields = Map::new();
        for (key, value) in &config.0 {
            let mut value = value.clone();
            if key == "init_lora_weights" {
                let name = value.as_str().unwrap_or_default().to_ascii_lowercase();
                if WITHOUT_TRACE.contains(&name.as_str()) {
                    value = Value::Bool(true);
                } else if !value.is_boolean() && name != "pissa" && name != "olora" {
                    return error(
                        format!(
                            "`init_lora_weights` is {value}, which changes the base model in a way of its own"
                        ),
                        "convert it to a plain LoRA adapter with PEFT (`path_initial_model_for_weight_conversion`)",
                    );
                }
            }
            if SPEC.contains(&key.as_str()) {
                // An empty pattern is PEFT's way to say none.
                let is_none = key == "layers_pattern" && is_off(&value);
                if !value.is_null() && !is_none {
                    fields.insert(key.clone(), value);
                }
            } else if key != "peft_type" && !DESCRIPTIVE.contains(&key.as_str()) && !is_off(&value) {
                return error(
                    format!("`{key}` is {value}, which is not supported"),
                    "use a plain LoRA adapter (merge this one with PEFT first)",
                );
            }
        }
        let spec: LoraSpec = match serde_json::from_value(Value::Object(fields)) {
            Ok(spec) => spec,
            Err(problem) => return error(problem.to_string(), "save the adapter again with PEFT"),
        };
        spec.check()?;
        Ok(spec)
    }

    /// The object PEFT writes; keys in order. An initialisation that changed the base is written as what
    /// [`LoraSpec::converted`] says.
    pub(crate) fn adapter_config(
        &self,
        family: &Family,
        base_model: &str,
        targets: Vec<String>,
    ) -> Map<String, Value> {
        let written = self.converted();
        let number = |x: f64| if x.fract() == 0.0 && x.abs() < 1e15 { json!(x as i64) } else { json!(x) };
        let alphas: Map<String, Value> =
            written.alpha_pattern.iter().map(|(key, alpha)| (key.clone(), number(*alpha))).collect();
        // PEFT replaces `all-linear` by the names it found and leaves a regular expression as it is.
        let target_modules = match self.targets(family) {
            TargetModules::Regex(pattern) => json!(pattern),
            TargetModules::List(mut names) => {
                names.sort();
                json!(names)
            }
            TargetModules::AllLinear => json!(targets),
        };
        let fields = json!({
            "alora_invocation_tokens": null,
            "alpha_pattern": alphas,
            "arrow_config": null,
            "auto_mapping": null,
            "base_model_name_or_path": base_model,
            "bias": self.bias,
            "corda_config": null,
            "ensure_weight_tying": false,
            "eva_config": null,
            "exclude_modules": self.exclude_modules,
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": written.init_lora_weights,
            "kasa_config": null,
            "layer_replication": null,
            "layers_pattern": self.layers_pattern,
            "layers_to_transform": self.layers_to_transform,
            "loftq_config": {},
            "lora_alpha": number(written.lora_alpha),
            "lora_bias": self.lora_bias,
            "lora_dropout": self.lora_dropout,
            "lora_ga_config": null,
            "megatron_config": null,
            "megatron_core": "megatron.core",
            "modules_to_save": self.modules_to_save,
            "monteclora_config": null,
            "peft_type": "LORA",
            "peft_version": PEFT_VERSION,
            "qalora_group_size": 16,
            "r": written.r,
            "rank_pattern": written.rank_pattern,
            "revision": null,
            "target_modules": target_modules,
            "target_parameters": null,
            "task_type": "CAUSAL_LM",
            "trainable_token_indices": self.trainable_token_indices,
            "use_bdlora": null,
            "use_dora": self.use_dora,
            "use_qalora": false,
            "use_rslora": self.use_rslora,
            "velora_config": null,
        });
        match fields {
            Value::Object(map) => map,
            _ => unreachable!("an object was written above"),
        }
    }
}

/// The value with which PEFT says that a feature is not used.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}
