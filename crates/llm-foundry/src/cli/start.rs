//! `import-config`: how a configuration begins.

use crate::import::Program;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    llm-foundry import-config axolotl.yaml -o from_axolotl.yaml\n  \
    llm-foundry import-config trl.yaml --from trl")]
pub(crate) struct ImportArgs {
    /// The configuration of the other program (YAML)
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Whose it is [default: recognised by its keys]
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) from: Option<Program>,
    /// Where to write ours [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace what is there
    #[arg(long)]
    pub(crate) force: bool,
}
