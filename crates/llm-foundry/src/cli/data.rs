//! `data`: rows and reports.

use super::ConfigArgs;
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Show rows as the model sees them: learned tokens, special tokens, where one example ends and the next begins
    Preview(PreviewArgs),
    /// Count what the data holds and what is lost on the way: lengths, truncation, masks, end tokens, duplicates
    Report(ReportArgs),
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
