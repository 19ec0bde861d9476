//! `data`: rows, reports, token files.

use super::ConfigArgs;
use clap::{Args, Subcommand};
use foundry_data::tokens::{Shard, parse_moment};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Show rows as the model sees them: learned tokens, special tokens, where one example ends and the next begins
    Preview(PreviewArgs),
    /// Count what the data holds and what is lost on the way: lengths, truncation, masks, end tokens, duplicates
    Report(ReportArgs),
    /// Tokenise the training data once, into files that `train` then reads at the speed of the disk
    Tokenize(TokenizeArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    llm-foundry data preview my_run.yaml --rows 1\n  \
    llm-foundry data preview my_run.yaml --from 2 --rows 1 --json")]
pub(crate) struct PreviewArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Rows to show
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) rows: usize,
    /// First row to show, from 0
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) from: usize,
    /// Show the evaluation data
    #[arg(long)]
    pub(crate) eval: bool,
    /// Print one JSON object a row: tokens, labels, lengths of its sequences, and text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    llm-foundry data report my_run.yaml")]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    llm-foundry data tokenize my_run.yaml -o tokens\n  \
    llm-foundry data tokenize my_run.yaml -o tokens_of_four_jobs --shard 0/4\n  \
    llm-foundry data report my_run.yaml data.train=tokens")]
pub(crate) struct TokenizeArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Where to write; `data.train=DIR` reads it
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Do only part I of N, from 0 to N-1, so that several jobs can share the work
    #[arg(long, default_value = "0/1", value_name = "I/N", value_parser = parse_shard)]
    pub(crate) shard: Shard,
    /// Tokens after which a file ends; a run that was stopped goes on after the last whole file
    #[arg(long, default_value_t = 1 << 26, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1 << 31))]
    pub(crate) tokens_per_file: u64,
    /// Replace a shard that was made from other data or with other settings
    #[arg(long)]
    pub(crate) force: bool,
    /// The moment that chat templates tell (strftime_now): a day, a time with its zone, or seconds since 1970. Default:
    /// that of the shards that are there, else the beginning of this day
    #[arg(long, value_name = "MOMENT", value_parser = parse_moment, allow_hyphen_values = true)]
    pub(crate) rendered_at: Option<i64>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_shard(text: &str) -> Result<Shard, String> {
    let parts = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
    match parts {
        Some((index, of)) if index < of && of <= 99_999 => Ok(Shard { index, of }),
        Some((index, of)) if of > 0 && of <= 99_999 => {
            Err(format!("shards are numbered from 0 to {}, not {index}", of - 1))
        }
        _ => Err("give the number of the shard, from 0, and how many there are: 0/4".into()),
    }
}
