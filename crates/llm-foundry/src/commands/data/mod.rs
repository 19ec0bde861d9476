//! `llm-foundry data`: what a run would learn from, without a model.

mod preview;
mod report;
mod text;
mod tokenize;

use crate::cli::{ConfigArgs, DataCommand, MachineArgs};
use crate::config;
use crate::corpus::{Corpus, CorpusFiles};
use crate::failure::Outcome;
use crate::hub::Fetch;
use crate::machine::Machine;
use crate::subject::open_tokenizer_alone;
use foundry_formats::Tokenizer;
use std::io::Write;

/// Runs a command of the group.
pub(crate) fn run(command: &DataCommand, machine: &MachineArgs) -> Outcome {
    let config = match command {
        DataCommand::Preview(args) => &args.config,
        DataCommand::Report(args) => &args.config,
        DataCommand::Tokenize(args) => &args.config,
    };
    if config.print_config {
        let resolved = config::load(&config.config, &config.overrides)?;
        return Ok(anstream::stdout().write_all(resolved.to_yaml_with_origins().as_bytes())?);
    }
    match command {
        DataCommand::Preview(args) => preview::run(args, machine),
        DataCommand::Report(args) => report::run(args, machine),
        DataCommand::Tokenize(args) => tokenize::run(args, machine),
    }
}

/// The data of a configuration as `train` would load it, and the tokenizer that made it.
fn load(args: &ConfigArgs, machine: &MachineArgs) -> Outcome<(Corpus, Tokenizer)> {
    let resolved = config::load(&args.config, &args.overrides)?;
    let config = &resolved.config;
    let machine_used = Machine::choose(machine, config.training.threads)?;
    let files = CorpusFiles::find(config, Fetch::unless_quiet(machine.quiet))?;
    let (tokenizer, eos_token_ids) = open_tokenizer_alone(config, machine.quiet)?;
    let corpus = files.load(config, &tokenizer, eos_token_ids, machine_used.threads, None)?;
    Ok((corpus, tokenizer))
}
