//! What a checkpoint and the run that resumes it must agree on.

use super::TrainerState;
use crate::arguments::TrainingArgs;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

/// Facts about a run that the engine does not know itself (the model's identity, the tuning, the data's fingerprint),
/// by name. All of them must be equal on resume.
pub type Facts = BTreeMap<String, Value>;

/// One setting that is not what it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Its name.
    pub key: String,
    /// Its value in the checkpoint; null where it was not set.
    pub checkpoint: Value,
    /// Its value now; null where it is not set.
    pub now: Value,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: was {}, is {}", self.key, self.checkpoint, self.now)
    }
}

/// Arguments without which the data, the random numbers or the objective would be others.
const BINDING: [&str; 7] = [
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "seed",
    "data_seed",
    "loss_type",
    "label_smoothing_factor",
    "neftune_noise_alpha",
];

/// What differs between a checkpoint and now: first what must not, then what may (the run then goes on under the new
/// settings and is another run than the uninterrupted one).
pub(crate) fn compare(
    state: &TrainerState,
    args: &TrainingArgs,
    facts: &Facts,
    world_size: usize,
    batches_per_epoch: u64,
    optimizer: &str,
) -> (Vec<Difference>, Vec<Difference>) {
    let numbers = |world_size: usize, batches: u64, optimizer: &str| {
        Map::from_iter([
            ("world_size".to_owned(), Value::from(world_size)),
            ("micro-batches of an epoch".to_owned(), Value::from(batches)),
            ("optimizer".to_owned(), Value::from(optimizer)),
        ])
    };
    let mut binding = differences(
        &numbers(state.world_size, state.batches_per_epoch, &state.optimizer),
        &numbers(world_size, batches_per_epoch, optimizer),
    );
    binding.extend(differences(&object(&state.facts), &object(facts)));
    let (binding_args, free): (Vec<_>, Vec<_>) = differences(&object(&state.arguments), &object(args))
        .into_iter()
        .partition(|difference| BINDING.contains(&difference.key.as_str()));
    binding.extend(binding_args);
    (binding, free)
}

fn object(value: &impl serde::Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => map,
        other => unreachable!("arguments and facts are objects with text keys, not {other:?}"),
    }
}

fn differences(checkpoint: &Map<String, Value>, now: &Map<String, Value>) -> Vec<Difference> {
    let keys = checkpoint.keys().chain(now.keys().filter(|key| !checkpoint.contains_key(*key)));
    keys.filter_map(|key| {
        let [was, is] = [checkpoint, now].map(|map| map.get(key).cloned().unwrap_or(Value::Null));
        (was != is).then(|| Difference { key: key.clone(), checkpoint: was, now: is })
    })
    .collect()
}
