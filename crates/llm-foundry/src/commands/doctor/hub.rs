//! The hub: the cache on disk, and whether the server answers.

use crate::hub::HubSettings;
use serde::Serialize;
use std::path::PathBuf;

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Hub {
    cache: PathBuf,
    /// Models in the cache, complete or not.
    models: usize,
    endpoint: String,
    /// A token is set. Its value is nobody's business.
    token: bool,
    #[serde(flatten)]
    reach: Reach,
}

/// What the server said.
#[derive(Debug, Serialize)]
#[serde(tag = "reachable", rename_all = "snake_case")]
enum Reach {
    /// `HF_HUB_OFFLINE`: it was not asked.
    NotAsked,
    /// Built without the feature `hub`.
    #[cfg_attr(feature = "hub", expect(dead_code))]
    NotBuilt,
    /// It answered; `user` is whose token it is.
    #[cfg_attr(not(feature = "hub"), expect(dead_code))]
    Yes { milliseconds: u64, status: u16, user: Option<String> },
    /// It did not.
    #[cfg_attr(not(feature = "hub"), expect(dead_code))]
    No { cause: String },
}

impl Hub {
    /// Looks into the cache, and asks the server unless that is forbidden.
    pub(super) fn look(settings: &HubSettings) -> Self {
        let entries = std::fs::read_dir(&settings.cache).into_iter().flatten().flatten();
        let is_model = |name: &str| name.starts_with("models--");
        Self {
            cache: settings.cache.clone(),
            models: entries.filter(|e| is_model(&e.file_name().to_string_lossy())).count(),
            endpoint: settings.endpoint.clone(),
            token: settings.token.is_some(),
            reach: if settings.offline { Reach::NotAsked } else { ask(settings) },
        }
    }

    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let models = match self.models {
            1 => "1 model".to_owned(),
            n => format!("{n} models"),
        };
        let token = match (&self.reach, self.token) {
            (_, false) => "not set".into(),
            (Reach::Yes { user: Some(user), .. }, true) => format!("set, of {user}"),
            (Reach::Yes { status: 401 | 403, .. }, true) => "set, and refused by the server".into(),
            _ => "set".into(),
        };
        let server = match &self.reach {
            Reach::NotAsked => format!("{}, not asked (HF_HUB_OFFLINE)", self.endpoint),
            Reach::NotBuilt => "downloads and uploads are not built (feature `hub`)".into(),
            Reach::Yes { milliseconds, .. } => format!("{} answers ({milliseconds} ms)", self.endpoint),
            Reach::No { cause } => format!("{} does not answer: {cause}", self.endpoint),
        };
        vec![("cache", format!("{} ({models})", self.cache.display())), ("server", server), ("token", token)]
    }

    pub(super) fn advice(&self) -> Vec<String> {
        match &self.reach {
            Reach::No { .. } => vec![
                "the hub cannot be reached: name models by directory or .gguf file, or set HF_HUB_OFFLINE=1 to use the \
                 cache without asking (HTTPS_PROXY and HF_ENDPOINT are honoured)"
                    .into(),
            ],
            Reach::Yes { status: 401 | 403, .. } if self.token => {
                vec!["the token (HF_TOKEN or the token file) is refused: make a new one".into()]
            }
            _ => Vec::new(),
        }
    }
}

/// One small question, without waiting long.
#[cfg(feature = "hub")]
fn ask(settings: &HubSettings) -> Reach {
    use std::time::{Duration, Instant};
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(5)))
        .user_agent(concat!("llm-foundry/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let began = Instant::now();
    let question = match &settings.token {
        Some(token) => agent
            .get(format!("{}/api/whoami-v2", settings.endpoint))
            .header("authorization", format!("Bearer {token}")),
        None => agent.get(format!("{}/api/models?limit=1", settings.endpoint)),
    };
    match question.call() {
        Err(error) => Reach::No { cause: error.to_string() },
        Ok(mut answer) => {
            let said = answer.body_mut().with_config().limit(1_000_000).read_to_string();
            let said: Option<serde_json::Value> = said.ok().and_then(|text| serde_json::from_str(&text).ok());
            Reach::Yes {
                milliseconds: began.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
                status: answer.status().as_u16(),
                user: said.and_then(|said| Some(said["name"].as_str()?.to_owned())),
            }
        }
    }
}

#[cfg(not(feature = "hub"))]
fn ask(_: &HubSettings) -> Reach {
    Reach::NotBuilt
}
