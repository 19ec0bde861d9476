//! `train` and `plan`: a configuration and what is changed of it.

use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration file (YAML)
    #[arg(value_name = "CONFIG")]
    pub(crate) config: PathBuf,
    /// Values that come before the file's: section.key=value, for example training.learning_rate=1e-4. Also
    /// `+key=value` (add), `++key=value` (add or change), `~key` (take away)
    #[arg(value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Print the whole configuration, each value with the place that it comes from, and do nothing
    #[arg(long)]
    pub(crate) print_config: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    llm-foundry train my_run.yaml\n  \
    llm-foundry train my_run.yaml training.learning_rate=5e-4 output_dir=runs/faster\n  \
    llm-foundry train my_run.yaml --resume\n  \
    llm-foundry train my_run.yaml --print-config\n  \
    llm-foundry train my_run.yaml --multirun training.learning_rate=1e-4,2e-4 output_dir=runs/sweep")]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Go on from a checkpoint: a directory, `latest` of the output directory, or `auto` (the latest if there
    /// is one, else from the start)
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = "latest")]
    pub(crate) resume: Option<String>,
    /// Move an earlier run that is in the output directory aside and start anew
    #[arg(long, conflicts_with = "resume")]
    pub(crate) overwrite_output_dir: bool,
    /// Sweep: one run after another for every combination of values, each in a directory of its own below output_dir;
    /// overrides may be key=a,b or key=range(start,stop[,step]) or key=choice(a,b). With --resume a sweep goes on
    #[arg(long, short, conflicts_with = "print_config")]
    pub(crate) multirun: bool,
    /// Print the lines of metrics.jsonl to standard output as they are written
    #[arg(long, conflicts_with_all = ["multirun", "print_config"])]
    pub(crate) json: bool,
}

impl TrainArgs {
    /// `--resume a.b=1` was meant as `--resume` and an override: a value that looks like an override is one, and one
    /// that looks like a configuration is one where the configuration's place is taken by an override.
    pub(crate) fn untangled(mut self) -> Self {
        let is_override =
            |v: &str| v.split_once('=').is_some_and(|(key, _)| key.contains('.') && !key.contains('/'));
        if let Some(value) = self.resume.take_if(|v| is_override(v)) {
            self.config.overrides.insert(0, value);
            self.resume = Some("latest".into());
        }
        // `train --resume b.yaml a.b=1`: the file was meant as the configuration.
        let is_config = |v: &str| [".yaml", ".yml"].iter().any(|end| v.to_ascii_lowercase().ends_with(end));
        let first = self.config.config.to_str().filter(|word| word.contains('=')).map(str::to_owned);
        if let Some((config, first)) = self.resume.clone().filter(|v| is_config(v)).zip(first) {
            self.config.overrides.insert(0, first);
            self.config.config = config.into();
            self.resume = Some("latest".into());
        }
        self
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    llm-foundry plan my_run.yaml\n  \
    llm-foundry plan my_run.yaml data.max_length=64 --json\n  \
    llm-foundry plan my_run.yaml --multirun data.max_length=64,128 lora.r=8,16")]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// A table of every run of a sweep, with the memory that each would need; overrides as in `train --multirun`
    #[arg(long, short, conflicts_with = "print_config")]
    pub(crate) multirun: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
