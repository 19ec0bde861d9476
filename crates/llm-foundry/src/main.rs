//! `llm-foundry`: adapts open-weight language models; one YAML file in, a tuned model out.
//!
//! This crate is the only one that reads the command line, the environment and run files, and the only one that prints.

mod adapter_choice;
mod answer;
mod benchmarks;
mod cache_dir;
mod card;
mod checkpoint_dir;
mod cli;
mod commands;
mod comparison;
mod config;
mod console;
mod corpus;
mod crash;
mod data_files;
mod data_report;
mod dense;
mod disk;
mod failure;
mod history;
mod hub;
mod import;
mod interrupt;
mod machine;
mod model_source;
mod names;
mod output_dir;
mod plan;
#[cfg(feature = "cloud")]
mod remote;
mod report;
mod row_count;
#[cfg(feature = "serve")]
mod serve;
mod shell_words;
mod signals;
mod special_tokens;
mod staged;
mod stream_facts;
mod subject;
mod vocabulary;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    failure::install_panic_hook();
    match commands::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.exit_code())
        }
    }
}
