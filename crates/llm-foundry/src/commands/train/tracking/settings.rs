//! What trackers are told about a run before it starts: from the configuration and from the environment variables of
//! their own clients.

use super::names::AXIS;
use crate::config::{Config, TrackerKind};
use crate::failure::Outcome;
use crate::model_source::expand_home;
use crate::output_dir::check_writable;
use crate::plan::Plan;
use foundry_tracking::wandb::RunSettings;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// The trackers of a run, not yet begun.
#[derive(Clone, Debug)]
pub(crate) struct TrackingSettings {
    /// A Weights & Biases run, if one is wanted.
    pub(crate) wandb: Option<RunSettings>,
}

impl TrackingSettings {
    /// What the configuration asks for. Nothing is written; a place that cannot be written to is refused.
    /// `get` reads the environment, `command` is how the run was started.
    pub(crate) fn resolve(
        config: &Config,
        plan: &Plan,
        output_dir: &Path,
        command: &str,
        get: &dyn Fn(&str) -> Option<String>,
    ) -> Outcome<Self> {
        let set = |name: &str| get(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let wants = |kind| config.training.report_to.0.contains(&kind);
        let is_disabled = set("WANDB_MODE").is_some_and(|mode| mode == "disabled");
        let wandb = if wants(TrackerKind::Wandb) && !is_disabled {
            Some(wandb(config, plan, output_dir, command, &set)?)
        } else {
            None
        };
        Ok(Self { wandb })
    }

    /// There is a tracker to tell.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wandb.is_some()
    }
}

fn wandb(
    config: &Config,
    plan: &Plan,
    output_dir: &Path,
    command: &str,
    set: &dyn Fn(&str) -> Option<String>,
) -> Outcome<RunSettings> {
    let text = |name: &str| set(name).unwrap_or_default();
    let parent = set("WANDB_DIR").map_or_else(|| output_dir.to_owned(), |dir| expand_home(&dir));
    if parent != output_dir {
        check_writable("WANDB_DIR", &parent)?;
    }
    let training = &config.training;
    let tags = text("WANDB_TAGS");
    Ok(RunSettings {
        parent,
        id: text("WANDB_RUN_ID"),
        producer: concat!("llm-foundry-", env!("CARGO_PKG_VERSION")).into(),
        project: training.project.clone().or(set("WANDB_PROJECT")).unwrap_or_else(|| "huggingface".into()),
        entity: text("WANDB_ENTITY"),
        group: text("WANDB_RUN_GROUP"),
        job_type: text("WANDB_JOB_TYPE"),
        name: training.run_name.clone().or(set("WANDB_NAME")).unwrap_or_else(|| own_name(output_dir)),
        notes: text("WANDB_NOTES"),
        tags: tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
        host: sysinfo::System::host_name().unwrap_or_default(),
        axis: AXIS.into(),
        config: settings_of(config, plan),
        metadata: metadata(command, plan),
    })
}

/// The name of the output directory.
fn own_name(output_dir: &Path) -> String {
    let absolute = std::path::absolute(output_dir).unwrap_or_else(|_| PathBuf::from(output_dir));
    absolute.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned())
}

/// The run's settings as transformers' callback gives them: training arguments beside the model's configuration, and
/// the adapter's below `peft_config`; then what it does not know.
fn settings_of(config: &Config, plan: &Plan) -> Map<String, Value> {
    let mut all = plan.subject.hf.0.clone();
    let Ok(Value::Object(sections)) = serde_json::to_value(config) else { return all };
    for (name, section) in sections {
        match (name.as_str(), section) {
            (_, Value::Null) => {}
            ("training", Value::Object(training)) => all.extend(training),
            ("lora", lora) => {
                all.insert("peft_config".into(), json!({ "default": lora }));
            }
            (_, section) => {
                all.insert(name, section);
            }
        }
    }
    all.insert("learning_rate".into(), json!(plan.args.learning_rate));
    all.insert("model/num_parameters".into(), json!(plan.parameters));
    all.insert("model/num_trainable_parameters".into(), json!(plan.trainable));
    all
}

/// Circumstances, by the names of Weights & Biases' client where it has them.
fn metadata(command: &str, plan: &Plan) -> Map<String, Value> {
    let mut words = command.split(' ');
    let entries = json!({
        "os": format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        "host": sysinfo::System::host_name().unwrap_or_default(),
        "program": words.next(),
        "args": words.collect::<Vec<_>>(),
        "version": env!("CARGO_PKG_VERSION"),
        "cpu_count_logical": std::thread::available_parallelism().map_or(1, usize::from),
        "threads": plan.machine.threads,
        "instruction_set": plan.machine.isa.name(),
    });
    let Value::Object(entries) = entries else { return Map::new() };
    entries
}
