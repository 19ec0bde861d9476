//! What a checkpoint and the run that resumes it must agree on.

use super::{Checkpoint, ResumeError, TrainerState};
use crate::arguments::TrainingArgs;
use crate::timetable::Timetable;
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

/// Arguments without which the data, the random numbers or the objective would be others. (The first two may change
/// where the place in the data counts rows.)
const BINDING: [&str; 7] = [
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "seed",
    "data_seed",
    "loss_type",
    "label_smoothing_factor",
    "neftune_noise_alpha",
];

/// The run that wants to go on, as far as a checkpoint can be compared with it before any weight is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Successor<'a> {
    /// Its arguments.
    pub args: &'a TrainingArgs,
    /// What else it is bound to.
    pub facts: &'a Facts,
    /// Its ranks.
    pub world_size: usize,
    /// Its steps.
    pub timetable: Timetable,
    /// The length of a pass over the data is known before it.
    pub epoch_is_known: bool,
    /// Name of its optimiser; `None` where it has not been made yet.
    pub optimizer: Option<&'a str>,
}

impl Successor<'_> {
    /// Whether the run may go on from `checkpoint`; what has changed since and may.
    ///
    /// The number of ranks may change if an update still sees as many micro-batches
    /// (`gradient_accumulation_steps · ranks`): every step then sees the same rows, and sums are only folded in another
    /// order (with dropout or noise, other random numbers are drawn). Over a stream without epochs batches may have
    /// another size: their rows follow those before all the same.
    ///
    /// # Errors
    /// A checkpoint without the optimiser's state, one beyond the run's last step, and one of another run.
    pub fn accepts(&self, checkpoint: &Checkpoint) -> Result<Vec<Difference>, ResumeError> {
        let path = || checkpoint.path.clone();
        let (state, total_steps) = (&checkpoint.state, self.timetable.total_steps);
        if state.arguments.save_only_model {
            return Err(ResumeError::ModelOnly { path: path() });
        }
        if state.step > total_steps {
            return Err(ResumeError::Beyond { path: path(), step: state.step, total_steps });
        }
        let (differences, changed) = compare(state, self);
        if differences.is_empty() {
            Ok(changed)
        } else {
            Err(ResumeError::OtherRun { path: path(), differences })
        }
    }
}

/// What differs between a checkpoint and now: first what must not, then what may (the run then goes on under the new
/// settings and is another run than the uninterrupted one).
fn compare(state: &TrainerState, now: &Successor<'_>) -> (Vec<Difference>, Vec<Difference>) {
    let same_ranks = state.world_size == now.world_size;
    let numbers = |args: &TrainingArgs, world_size: usize, timetable: &Timetable, optimizer: &str| {
        let mut map = Map::from_iter([("optimizer".to_owned(), Value::from(optimizer))]);
        if same_ranks && now.epoch_is_known {
            map.insert("micro-batches of an epoch".into(), timetable.batches_per_epoch.into());
        }
        if !same_ranks {
            // Saturating: a state may come from a stranger.
            let windows = args.gradient_accumulation_steps.saturating_mul(world_size);
            map.insert("gradient_accumulation_steps times ranks".into(), windows.into());
        }
        if !same_ranks && now.epoch_is_known {
            map.insert("steps of an epoch".into(), timetable.steps_per_epoch.into());
        }
        map
    };
    let optimizer = now.optimizer.unwrap_or(&state.optimizer);
    let before = Timetable::new(&state.arguments, state.batches_per_epoch as usize);
    let mut binding = differences(
        &numbers(&state.arguments, state.world_size, &before, &state.optimizer),
        &numbers(now.args, now.world_size, &now.timetable, optimizer),
    );
    binding.extend(differences(&object(&state.facts), &object(now.facts)));
    // A stream without epochs is a sequence of rows; the place in it counts these, however they are batched.
    let is_binding = |key: &str| match key {
        "per_device_train_batch_size" => now.epoch_is_known,
        "gradient_accumulation_steps" => now.epoch_is_known && same_ranks,
        _ => BINDING.contains(&key),
    };
    let (binding_args, mut free): (Vec<_>, Vec<_>) =
        differences(&object(&state.arguments), &object(now.args))
            .into_iter()
            .partition(|difference| is_binding(&difference.key));
    binding.extend(binding_args);
    let ranks = |count: usize| Map::from_iter([("ranks".to_owned(), Value::from(count))]);
    free.extend(differences(&ranks(state.world_size), &ranks(now.world_size)));
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
