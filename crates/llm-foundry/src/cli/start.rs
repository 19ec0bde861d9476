//! `init` and `import-config`: how a configuration begins.

use crate::commands::Method;
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

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    llm-foundry init --model HuggingFaceTB/SmolLM2-135M-Instruct --data train.jsonl -o new_run.yaml\n  \
    llm-foundry init --model models/base --data train.jsonl --method full -o full.yaml")]
pub(crate) struct InitArgs {
    /// The model: a directory, a .gguf file or a hub id [default: asked for]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Training data: a file, a directory or a pattern; may be given several times [default: asked for]
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Vec<String>,
    /// Evaluation data [default: some of the training data is kept back]
    #[arg(long, value_name = "FILE")]
    pub(crate) eval: Option<String>,
    /// What is trained: lora (an adapter), qlora (one on 4-bit weights) or full (every weight) [default: lora, or qlora
    /// if memory is short]
    #[arg(long, value_name = "NAME")]
    pub(crate) method: Option<Method>,
    /// Directory of the result [default: runs/ and the configuration's name]
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: Option<String>,
    /// Where to write the configuration
    #[arg(long, short, default_value = "my_run.yaml", value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Replace what is there
    #[arg(long)]
    pub(crate) force: bool,
    /// Look at neither model nor data
    #[arg(long)]
    pub(crate) no_check: bool,
}
