//! A plan for programs.

use super::Plan;
use crate::machine::dtype_name;
use serde_json::{Value, json};

impl Plan {
    /// The same content as the text, in numbers.
    pub(crate) fn to_json(&self) -> Value {
        let classes: serde_json::Map<String, Value> = self
            .memory
            .classes
            .iter()
            .map(|(class, bytes)| (super::text::class_name(*class).replace(' ', "_"), json!(bytes)))
            .collect();
        let report = |data: &foundry_data::Dataset| serde_json::to_value(&data.report).unwrap_or(Value::Null);
        let mut notes = self.notes.clone();
        notes.extend(self.warnings());
        json!({
            "model": {
                "name": self.subject.name,
                "family": self.subject.decoder.family.name,
                "parameters": self.parameters,
                "trainable_parameters": self.trainable,
                "dtype": dtype_name(self.subject.compute),
            },
            "machine": { "threads": self.machine.threads, "isa": self.machine.isa.name() },
            "data": self.corpus.as_ref().map(|c| report(&c.train)),
            "eval_data": self.corpus.as_ref().and_then(|c| c.eval.as_ref()).map(report),
            "steps": self.steps.map(|s| s.total),
            "steps_per_epoch": self.steps.and_then(|s| s.per_epoch),
            "tokens": self.steps.and_then(|s| s.tokens),
            "max_tokens": self.max_tokens,
            "flops_per_token": self.flops_per_token,
            "flops": self.steps.and_then(|s| s.tokens).map(|tokens| self.flops_per_token * tokens as f64),
            "memory": {
                "classes": classes,
                "data": self.memory.data,
                "process": self.memory.process,
                "kernels": self.memory.kernels,
                "total": self.memory.total(),
                "available": self.memory.available,
                "budget": self.memory.budget,
                "checkpointing": self.checkpointing_line(),
            },
            "disk": {
                "result": self.disk.result,
                "checkpoint": self.disk.checkpoint,
                "checkpoints": self.disk.checkpoints,
                "total": self.disk.total(),
            },
            "training": self.args,
            "defaults": self.defaults.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "notes": notes,
        })
    }
}
