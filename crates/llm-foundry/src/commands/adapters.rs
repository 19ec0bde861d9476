//! `llm-foundry adapters`: one adapter of several.

use crate::cli::{AdaptersCommand, MachineArgs, MergeAdaptersArgs};
use crate::console;
use crate::disk;
use crate::failure::{Failure, Outcome};
use crate::staged::Staged;
use foundry_formats::Tokenizer;
use foundry_models::{CombineOptions, CombinedAdapter, families};
use std::path::PathBuf;

/// Does what was typed.
pub(crate) fn run(command: &AdaptersCommand, machine: &MachineArgs) -> Outcome {
    match command {
        AdaptersCommand::Merge(args) => merge(args, machine.quiet),
    }
}

fn merge(args: &MergeAdaptersArgs, quiet: bool) -> Outcome {
    if args.method.needs_density() != args.density.is_some() {
        let (needs, way) = match args.density {
            None => ("needs", "for example --density 0.5"),
            Some(_) => ("has no", "remove it"),
        };
        return Err(Failure::Input(format!("--method {} {needs} --density; {way}", args.method)));
    }
    let staged = Staged::new(&args.output, args.force)?;
    let sources: Vec<(PathBuf, f64)> = args.adapters.iter().map(|a| (a.dir.clone(), a.weight)).collect();
    let options = CombineOptions {
        method: args.method,
        density: args.density.unwrap_or(1.0),
        majority_sign: args.majority_sign.into(),
        svd_rank: args.svd_rank,
        seed: args.seed,
    };
    let combined = CombinedAdapter::new(&sources, &options).map_err(Failure::input)?;
    disk::check("the adapter", combined.bytes() + disk::SMALL_FILES, staged.dir())?;
    // The default targets of every family here are the same; they are written out anyway.
    combined.save(staged.dir(), &families::llama::FAMILY).map_err(Failure::run)?;
    // What the first of them was trained with, template and added tokens included.
    if let Some(dir) = sources.iter().map(|(dir, _)| dir).find(|dir| dir.join("tokenizer.json").is_file()) {
        let tokenizer = Tokenizer::from_dir(dir).map_err(Failure::input)?;
        tokenizer.save(staged.dir()).map_err(Failure::of_format)?;
    }
    staged.publish_dir()?;
    console::say(
        quiet,
        format!(
            "adapter of rank {} from {} saved in {}",
            combined.spec.r,
            sources.len(),
            args.output.display()
        ),
    );
    Ok(())
}
