//! What can be typed on the command line. What it means is in `commands/`.

mod adapters;
mod answers;
mod data;
mod eval;
mod results;
mod shell;
mod start;
mod top;
mod train;

pub(crate) use adapters::{AdaptersCommand, MergeAdaptersArgs, WeightedAdapter};
#[cfg(feature = "serve")]
pub(crate) use answers::ServeArgs;
pub(crate) use answers::{ChatArgs, GenerateArgs, ModelArgs, SamplingArgs};
pub(crate) use data::{DataCommand, PreviewArgs, ReportArgs, TokenizeArgs};
pub(crate) use eval::EvalArgs;
pub(crate) use results::{BaseWeights, ExportArgs, MergeArgs, PushArgs, RunReportArgs};
pub(crate) use shell::{CompletionsArgs, DoctorArgs, ManArgs};
pub(crate) use start::{ImportArgs, InitArgs};
pub(crate) use top::TopArgs;
pub(crate) use train::{ConfigArgs, PlanArgs, TrainArgs};

use clap::{Args, Parser, Subcommand};

/// Adapts open-weight language models: one YAML file in, a tuned model out.
#[derive(Debug, Parser)]
#[command(name = "llm-foundry", version, propagate_version = true, max_term_width = 110)]
#[command(
    after_help = "Examples:\n  llm-foundry plan my_run.yaml\n  llm-foundry train my_run.yaml training.max_steps=2\n  \
    llm-foundry train --help\n\n\
    Exit codes: 0 done, 1 the run failed, 2 wrong input, 101 a bug, 130 interrupted (signal or training.max_time).\n\
    Environment: FOUNDRY_THREADS, FOUNDRY_ISA, HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_TOKEN_PATH, HF_ENDPOINT, \
    HF_HUB_OFFLINE, NO_COLOR."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

/// Options that every command has.
#[derive(Clone, Debug, Args)]
pub(crate) struct MachineArgs {
    /// Say nothing but errors and results
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Threads to compute with [default: all that this process may use]
    #[arg(long, global = true, env = "FOUNDRY_THREADS", hide_env = true, value_name = "N")]
    #[arg(value_parser = parse_count)]
    pub(crate) threads: Option<usize>,
    /// Instruction set: amx, avx512, avx2 or portable [default: the best of this machine]
    #[arg(long, global = true, env = "FOUNDRY_ISA", value_name = "NAME", hide_env = true)]
    pub(crate) isa: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train as the configuration says
    Train(TrainArgs),
    /// Show what a training run would need and do, without running it
    Plan(PlanArgs),
    /// Talk with a model (reads standard input where that is not a terminal)
    Chat(ChatArgs),
    /// Continue a prompt or answer messages
    Generate(GenerateArgs),
    /// Run benchmarks: lm_eval's tasks, metrics and file formats
    Eval(Box<EvalArgs>),
    /// Answer OpenAI's clients over HTTP
    #[cfg(feature = "serve")]
    Serve(Box<ServeArgs>),
    /// Add an adapter to its base model and write the merged model
    Merge(MergeArgs),
    /// Write a model for other programs: GGUF, Ollama, safetensors
    Export(ExportArgs),
    /// Write a commented configuration for a model and a file of data, by asking or by options
    Init(InitArgs),
    /// Turn a configuration of Axolotl, LLaMA-Factory or TRL into one of ours
    ImportConfig(ImportArgs),
    /// Look at the data of a configuration
    #[command(subcommand)]
    Data(DataCommand),
    /// Make one adapter of several
    #[command(subcommand)]
    Adapters(AdaptersCommand),
    /// Upload a model or an adapter to the hub
    Push(PushArgs),
    /// Write a page about a run: curves, evaluations, samples, data, configuration; or about several runs
    Report(RunReportArgs),
    /// Print the JSON schema of configuration files, for editors
    #[command(after_help = "Examples:\n  llm-foundry schema > llm-foundry.schema.json")]
    Schema,
    /// Follow a run that goes on, or look at one that is over
    Top(TopArgs),
    /// Look at this machine: kernels and their speed, threads, memory, disks, hub
    Doctor(DoctorArgs),
    /// Print the completion script of a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for every command
    Man(ManArgs),
}

fn parse_count(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(0) | Err(_) => Err("must be a whole number, 1 or more".into()),
        Ok(count) => Ok(count),
    }
}
