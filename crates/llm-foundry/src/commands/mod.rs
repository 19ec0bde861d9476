//! One file for each command.

mod adapters;
mod chat;
mod data;
mod doctor;
pub(crate) mod eval;
mod export;
mod generate;
mod import_config;
mod init;
mod merge;
mod plan;
mod push;
mod report;
mod schema;
#[cfg(feature = "serve")]
mod serve;
mod shell;
mod sweep;
mod top;
mod train;

pub(crate) use init::Method;

use crate::cli::{Cli, Command};
use crate::failure::Outcome;

/// Does what was typed.
pub(crate) fn run(cli: Cli) -> Outcome {
    match cli.command {
        Command::Train(args) if args.multirun => sweep::run(&args.untangled(), &cli.machine),
        Command::Train(args) => train::run(args.untangled(), &cli.machine),
        Command::Plan(args) => plan::run(&args, &cli.machine),
        Command::Chat(args) => chat::run(&args, &cli.machine),
        Command::Generate(args) => generate::run(&args, &cli.machine),
        Command::Eval(args) => eval::run(&args, &cli.machine),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(&args, &cli.machine),
        Command::Merge(args) => merge::run(&args, &cli.machine),
        Command::Export(args) => export::run(&args, &cli.machine),
        Command::Init(args) => init::run(&args, &cli.machine),
        Command::ImportConfig(args) => import_config::run(&args, cli.machine.quiet),
        Command::Data(command) => data::run(&command, &cli.machine),
        Command::Adapters(command) => adapters::run(&command, &cli.machine),
        Command::Push(args) => push::run(&args, cli.machine.quiet),
        Command::Report(args) => report::run(&args, cli.machine.quiet),
        Command::Schema => schema::run(),
        Command::Top(args) => top::run(&args),
        Command::Doctor(args) => doctor::run(&args, &cli.machine),
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
    }
}
