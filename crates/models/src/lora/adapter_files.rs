//! An adapter on disk: adapter_model.safetensors and adapter_config.json, read and written as PEFT 0.21 does.

use super::LoraSpec;
use crate::load::{read_into, write_out};
use crate::save::write_json;
use crate::{Decoder, ModelError, Tuning};
use foundry_formats::StoredDtype;
use foundry_formats::safetensors::{Entry, Writer, open};
use foundry_kernels::Backend;
use std::path::Path;

const WEIGHTS: &str = "adapter_model.safetensors";

impl Decoder {
    /// Reads an adapter that PEFT or [`Decoder::save_adapter`] wrote. Its settings must be those this decoder was
    /// allocated with ([`LoraSpec::from_adapter`] reads them).
    ///
    /// # Errors
    /// Another rank or scale than this decoder's; tensors that are missing, have another shape or have no place here;
    /// a pickle file.
    pub fn load_adapter(&mut self, backend: &dyn Backend, dir: &Path) -> Result<(), ModelError> {
        let error = |what: String, remedy: &str| {
            Err(ModelError::Adapter { path: dir.into(), what, remedy: remedy.into() })
        };
        let spec = match &self.tuning {
            Tuning::Lora(spec) | Tuning::Adapted(spec) => spec.clone(),
            Tuning::Full | Tuning::Frozen => {
                return error(
                    "this model was allocated without an adapter".into(),
                    "allocate it with the adapter's settings",
                );
            }
        };
        let saved = LoraSpec::from_adapter(dir)?;
        if saved.r != spec.r || saved.scale() != spec.scale() {
            let what = format!(
                "r = {} and scale {} do not fit the configured r = {} and scale {}",
                saved.r,
                saved.scale(),
                spec.r,
                spec.scale()
            );
            return error(what, "set r, lora_alpha and use_rslora to those of adapter_config.json");
        }
        let path = dir.join(WEIGHTS);
        if !path.exists() && dir.join("adapter_model.bin").exists() {
            let what =
                "only a pickle file (adapter_model.bin) is here, and loading pickle runs code from the file";
            return error(what.into(), "load it once with PEFT and save it with safe_serialization=True");
        }
        let source = open(&path)?;
        let (slots, parameters) = self.weights_mut();
        let mut slots: Vec<_> = slots.into_iter().filter(|slot| slot.adapter.is_some()).collect();
        let is_known = |name: &str| slots.iter().any(|slot| slot.adapter.as_deref() == Some(name));
        if let Some(tensor) = source.tensors().iter().find(|tensor| !is_known(&tensor.name)) {
            let what = format!("tensor `{}` has no place in this model and configuration", tensor.name);
            return error(
                what,
                "check that base model, target_modules and modules_to_save are the adapter's",
            );
        }
        for slot in &mut slots {
            let name = slot.adapter.clone().expect("filtered above");
            read_into(backend, source.as_ref(), &name, slot, parameters)?;
        }
        Ok(())
    }

    /// Writes the adapter to an existing directory: what PEFT's `save_pretrained` writes, float32, readable by PEFT,
    /// transformers and vLLM. `base_model_name` goes into adapter_config.json.
    ///
    /// # Errors
    /// A decoder without an adapter; files that cannot be written.
    pub fn save_adapter(
        &self,
        backend: &dyn Backend,
        dir: &Path,
        base_model_name: &str,
    ) -> Result<(), ModelError> {
        let (Tuning::Lora(spec) | Tuning::Adapted(spec)) = &self.tuning else {
            let (what, remedy) = ("this model has no adapter".into(), "save the model instead".into());
            return Err(ModelError::Adapter { path: dir.into(), what, remedy });
        };
        let mut named: Vec<(&str, _)> = self
            .weights()
            .into_iter()
            .filter_map(|weight| Some((weight.adapter.as_deref()?, weight)))
            .collect();
        named.sort_by_key(|(name, _)| *name);
        let entries: Vec<Entry> =
            named.iter().map(|(name, weight)| Entry::new(*name, StoredDtype::F32, &weight.shape)).collect();
        let mut writer = Writer::create(&dir.join(WEIGHTS), &entries, &[("format".into(), "pt".into())])?;
        for (name, weight) in named {
            write_out(backend, weight, &self.parameters, |piece| writer.write_f32(name, piece))?;
        }
        writer.finish()?;
        let config = spec.adapter_config(self.config.family, base_model_name, self.adapted_names());
        write_json(&dir.join("adapter_config.json"), &config, false)
    }

    /// Last parts of the names of all adapted modules, sorted.
    fn adapted_names(&self) -> Vec<String> {
        let branches = self.weights().into_iter().filter(|weight| weight.base.is_none());
        let mut names: Vec<String> = branches
            .filter_map(|weight| weight.adapter.as_deref()?.rsplit('.').nth(2).map(str::to_string))
            .collect();
        names.sort();
        names.dedup();
        names
    }
}
