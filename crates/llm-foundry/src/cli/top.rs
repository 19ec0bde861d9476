//! `top`.

use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    llm-foundry top runs/mine --once\n\n\
    Keys: q quits, ← and → choose the curve that is large. Without a terminal the run is shown once, as text.")]
pub(crate) struct TopArgs {
    /// Output directory of a run that goes on or is over
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,
    /// Show how the run stands, as text, and end
    #[arg(long)]
    pub(crate) once: bool,
}
