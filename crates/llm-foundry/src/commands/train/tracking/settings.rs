//! What trackers are told about a run before it starts: from the configuration and from the environment variables of
//! their own clients.

use super::names::AXIS;
use crate::config::{self, Config, TrackerKind};
use crate::failure::{Failure, Outcome};
use crate::model_source::expand_home;
use crate::names;
use crate::output_dir::check_writable;
use crate::plan::Plan;
use foundry_tracking::mlflow::MlflowSettings;
use foundry_tracking::tensorboard::{self, EventSettings};
use foundry_tracking::wandb::{RunSettings, ServerSettings};
use foundry_tracking::{Credentials, Pace, apart, wrong_address};
use serde_json::{Map, Value, json};
use std::path::Path;

/// The trackers of a run, not yet begun.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrackingSettings {
    /// A Weights & Biases run, if one is wanted.
    pub(crate) wandb: Option<RunSettings>,
    /// TensorBoard's files, if they are wanted.
    pub(crate) tensorboard: Option<EventSettings>,
    /// An MLflow run, if one is wanted.
    pub(crate) mlflow: Option<MlflowSettings>,
}

/// What settings are made from.
pub(crate) struct Sources<'a> {
    pub(crate) config: &'a Config,
    pub(crate) plan: &'a Plan,
    pub(crate) output_dir: &'a Path,
    /// How the run was started.
    pub(crate) command: &'a str,
    /// Reads the environment.
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
}

impl TrackingSettings {
    /// What the configuration asks for. Nothing is written; a place that cannot be written to, or the address of a
    /// server that is none, is refused.
    pub(crate) fn resolve(sources: &Sources<'_>) -> Outcome<Self> {
        let report_to = &sources.config.training.report_to;
        let mut settings = Self::default();
        if report_to.names(TrackerKind::Wandb) {
            settings.wandb = sources.wandb()?;
        }
        if report_to.names(TrackerKind::Tensorboard) {
            settings.tensorboard = Some(sources.tensorboard()?);
        }
        if report_to.names(TrackerKind::Mlflow) {
            settings.mlflow = sources.mlflow(report_to.is_all)?;
        }
        Ok(settings)
    }

    /// There is a tracker to tell.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wandb.is_some() || self.tensorboard.is_some() || self.mlflow.is_some()
    }
}

impl Sources<'_> {
    /// A variable that is set and not empty.
    fn set(&self, name: &str) -> Option<String> {
        (self.variable)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    fn text(&self, name: &str) -> String {
        self.set(name).unwrap_or_default()
    }

    /// A variable that names a project, a user, or a run's identity: by the rules of `training.project`, as it becomes
    /// a part of paths and addresses.
    fn identity(&self, name: &str) -> Outcome<Option<String>> {
        self.judged(name, config::wrong_project)
    }

    /// A variable that names something for people.
    fn name(&self, name: &str) -> Outcome<Option<String>> {
        self.judged(name, config::wrong_name)
    }

    fn judged(&self, name: &str, wrong: fn(&str) -> Option<String>) -> Outcome<Option<String>> {
        let Some(text) = self.set(name) else { return Ok(None) };
        match wrong(&text) {
            None => Ok(Some(text)),
            Some(what) => {
                let shown = text.replace(char::is_control, " ");
                Err(Failure::Input(format!(
                    "{name} is `{shown}`, which {what}\n  unset it, or name something else"
                )))
            }
        }
    }

    fn wandb(&self) -> Outcome<Option<RunSettings>> {
        let key = self.set("WANDB_API_KEY");
        let server = match (self.set("WANDB_MODE").as_deref(), key) {
            (Some("disabled"), _) => return Ok(None),
            (Some("offline" | "dryrun"), _) | (None, None) => None,
            (Some("online" | "run") | None, Some(key)) => Some(self.wandb_server(key)?),
            (Some("online" | "run"), None) => {
                return Err(Failure::Input(
                    "WANDB_MODE is online, but there is no WANDB_API_KEY\n  set it, or WANDB_MODE=offline: \
                     `wandb sync` uploads the run later"
                        .into(),
                ));
            }
            (Some(other), _) => {
                return Err(Failure::Input(format!(
                    "WANDB_MODE is `{other}`, but must be online, offline or disabled"
                )));
            }
        };
        let parent =
            self.set("WANDB_DIR").map_or_else(|| self.output_dir.to_owned(), |dir| expand_home(&dir));
        if parent != self.output_dir {
            check_writable("WANDB_DIR", &parent)?;
        }
        let training = &self.config.training;
        let tags = self.text("WANDB_TAGS");
        let project =
            training.project.clone().map_or_else(|| self.identity("WANDB_PROJECT"), |own| Ok(Some(own)))?;
        let name = training.run_name.clone().map_or_else(|| self.name("WANDB_NAME"), |own| Ok(Some(own)))?;
        Ok(Some(RunSettings {
            parent,
            id: self.identity("WANDB_RUN_ID")?.unwrap_or_default(),
            producer: concat!("llm-foundry-", env!("CARGO_PKG_VERSION")).into(),
            project: project.unwrap_or_else(|| "huggingface".into()),
            entity: self.identity("WANDB_ENTITY")?.unwrap_or_default(),
            group: self.name("WANDB_RUN_GROUP")?.unwrap_or_default(),
            job_type: self.name("WANDB_JOB_TYPE")?.unwrap_or_default(),
            name: name.unwrap_or_else(|| self.own_name()),
            notes: self.text("WANDB_NOTES"),
            tags: tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
            host: host(),
            axis: AXIS.into(),
            config: self.settings(),
            metadata: self.metadata(),
            server,
        }))
    }

    fn wandb_server(&self, key: String) -> Outcome<ServerSettings> {
        let address = self.set("WANDB_BASE_URL").unwrap_or_else(|| "https://api.wandb.ai".into());
        let (address, user) = apart(&address);
        check_address("WANDB_BASE_URL", &address)?;
        if user.is_some() {
            return Err(Failure::Input(format!(
                "WANDB_BASE_URL names a user, but a server of Weights & Biases is shown the key of WANDB_API_KEY\n  write \
                 WANDB_BASE_URL={address}"
            )));
        }
        Ok(ServerSettings {
            address,
            credentials: Credentials::Basic("api".into(), key),
            pace: Pace::default(),
        })
    }

    fn tensorboard(&self) -> Outcome<EventSettings> {
        let named =
            self.config.training.logging_dir.as_ref().map(|dir| ("training.logging_dir", dir.clone()));
        let named = named.or(self.set("TENSORBOARD_LOGGING_DIR").map(|dir| ("TENSORBOARD_LOGGING_DIR", dir)));
        let host = host();
        let directory = match named {
            None => tensorboard::default_directory(self.output_dir, &host),
            Some((key, dir)) => {
                let directory = expand_home(&dir);
                check_writable(key, &directory)?;
                directory
            }
        };
        let section =
            |name: &str, value: Option<Value>| Some((name.to_owned(), format!("```json\n{:#}\n```", value?)));
        let texts = [
            section("args", serde_json::to_value(&self.config.training).ok()),
            section("model_config", Some(Value::Object(self.plan.subject.hf.0.clone()))),
            section(
                "peft_config",
                self.config.lora.as_ref().and_then(|lora| serde_json::to_value(lora).ok()),
            ),
        ];
        Ok(EventSettings { directory, host, texts: texts.into_iter().flatten().collect() })
    }

    /// `None` where any tracker will do and there is no server.
    fn mlflow(&self, is_optional: bool) -> Outcome<Option<MlflowSettings>> {
        let server = match self.set("MLFLOW_TRACKING_URI") {
            Some(server) => server,
            None if is_optional => return Ok(None),
            None => {
                return Err(Failure::Input(
                    "training.report_to names mlflow, but MLFLOW_TRACKING_URI is not set\n  set it to the address of \
                     an MLflow server, for example http://localhost:5000 (`mlflow server` starts one)"
                        .into(),
                ));
            }
        };
        // The name and password of an address are used, and shown and kept nowhere.
        let (server, user) = apart(&server);
        check_address("MLFLOW_TRACKING_URI", &server)?;
        let token = self.set("MLFLOW_TRACKING_TOKEN").map(Credentials::Bearer);
        let named = self.set("MLFLOW_TRACKING_USERNAME");
        let named = named.map(|user| (user, self.text("MLFLOW_TRACKING_PASSWORD")));
        let basic = named.or(user).map(|(user, password)| Credentials::Basic(user, password));
        let training = &self.config.training;
        let experiment = training
            .project
            .clone()
            .map_or_else(|| self.name("MLFLOW_EXPERIMENT_NAME"), |own| Ok(Some(own)))?;
        Ok(Some(MlflowSettings {
            server: server.trim_end_matches('/').to_owned(),
            credentials: token.or(basic).unwrap_or_default(),
            experiment: experiment.unwrap_or_else(|| "Default".into()),
            name: training.run_name.clone().unwrap_or_else(|| self.own_name()),
            run_id: self.identity("MLFLOW_RUN_ID")?.unwrap_or_default(),
            params: flat(&self.settings()),
            tags: self.mlflow_tags()?,
            pace: Pace::default(),
        }))
    }

    fn mlflow_tags(&self) -> Outcome<Vec<(String, String)>> {
        let own = ("llm-foundry.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        let Some(text) = self.set("MLFLOW_TAGS") else { return Ok(vec![own]) };
        let Ok(Value::Object(tags)) = serde_json::from_str(&text) else {
            return Err(Failure::Input(format!(
                "MLFLOW_TAGS is `{text}`, but must be a JSON object such as {{\"team\": \"a\"}}"
            )));
        };
        Ok(flat(&tags).into_iter().chain([own]).collect())
    }

    /// The name of the output directory.
    fn own_name(&self) -> String {
        names::last_part(self.output_dir).unwrap_or_else(|| "run".into())
    }

    /// The run's settings as transformers' callbacks give them: training arguments beside the model's configuration,
    /// and the adapter's below `peft_config`; then what they do not know.
    fn settings(&self) -> Map<String, Value> {
        let mut all = self.plan.subject.hf.0.clone();
        let Ok(Value::Object(sections)) = serde_json::to_value(self.config) else { return all };
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
        all.insert("learning_rate".into(), json!(self.plan.args.learning_rate));
        all.insert("model/num_parameters".into(), json!(self.plan.parameters));
        all.insert("model/num_trainable_parameters".into(), json!(self.plan.trainable));
        all
    }

    /// Circumstances, by the names of Weights & Biases' client where it has them.
    fn metadata(&self) -> Map<String, Value> {
        let mut words = self.command.split(' ');
        let entries = json!({
            "os": format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            "host": host(),
            "program": words.next(),
            "args": words.collect::<Vec<_>>(),
            "version": env!("CARGO_PKG_VERSION"),
            "cpu_count_logical": std::thread::available_parallelism().map_or(1, usize::from),
            "threads": self.plan.machine.threads,
            "instruction_set": self.plan.machine.isa.name(),
        });
        let Value::Object(entries) = entries else { return Map::new() };
        entries
    }
}

fn check_address(variable: &str, address: &str) -> Outcome {
    match wrong_address(address) {
        None => Ok(()),
        Some(what) => Err(Failure::Input(format!(
            "{variable} is `{address}`, which cannot be used: {what}\n  write an address such as http://localhost:8080"
        ))),
    }
}

fn host() -> String {
    sysinfo::System::host_name().unwrap_or_default()
}

/// Settings one below another as `section.key`, and their values as texts.
fn flat(settings: &Map<String, Value>) -> Vec<(String, String)> {
    let entry = |(key, value): (&String, &Value)| match value {
        Value::Object(inner) => {
            flat(inner).into_iter().map(|(name, value)| (format!("{key}.{name}"), value)).collect()
        }
        Value::String(text) => vec![(key.clone(), text.clone())],
        value => vec![(key.clone(), value.to_string())],
    };
    settings.iter().flat_map(entry).collect()
}
