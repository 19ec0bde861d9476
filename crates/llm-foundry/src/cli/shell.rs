//! `doctor`, `completions` and `man`: the program and the machine that it runs on.

use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  llm-foundry doctor\n  HF_HUB_OFFLINE=1 llm-foundry doctor --json")]
pub(crate) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  llm-foundry completions bash > ~/.local/share/bash-completion/completions/llm-foundry\n  \
    llm-foundry completions zsh > ~/.zfunc/_llm-foundry\n  \
    llm-foundry completions fish > ~/.config/fish/completions/llm-foundry.fish"
)]
pub(crate) struct CompletionsArgs {
    /// The shell that the script is for
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  llm-foundry man > llm-foundry.1\n  llm-foundry man -o share/man/man1")]
pub(crate) struct ManArgs {
    /// Write a page for each command into this directory, made if it is not there [default: the program's own page
    /// goes to standard output]
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}
