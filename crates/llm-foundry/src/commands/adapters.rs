//! `llm-foundry adapters`: one adapter of several.

use crate::card::{Card, hub_id, license_in};
use crate::checkpoint_dir;
use crate::cli::{AdaptersCommand, MachineArgs, MergeAdaptersArgs};
use crate::console;
use crate::disk;
use crate::failure::{Failure, Outcome};
use crate::names;
use crate::staged::{Kind, Staged};
use crate::vocabulary::shared_tokenizer;
use foundry_models::{CombineOptions, CombinedAdapter, families};
use std::path::{Path, PathBuf};

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
    let inputs: Vec<&Path> = args.adapters.iter().map(|a| a.dir.as_path()).collect();
    inputs.iter().try_for_each(|dir| checkpoint_dir::check(dir))?;
    Staged::check(&args.output, Kind::Directory, args.force, &inputs)?;
    let sources: Vec<(PathBuf, f64)> = args.adapters.iter().map(|a| (a.dir.clone(), a.weight)).collect();
    let options = CombineOptions {
        method: args.method,
        density: args.density.unwrap_or(1.0),
        majority_sign: args.majority_sign.into(),
        svd_rank: args.svd_rank,
        seed: args.seed,
    };
    let tokenizer = shared_tokenizer(&inputs)?;
    let combined = CombinedAdapter::new(&sources, &options).map_err(Failure::input)?;
    // From here on it is a matter of moments, so that a signal hardly finds anything to leave behind.
    let staged = Staged::new(&args.output, Kind::Directory, args.force, &inputs)?;
    disk::check("the adapter", combined.bytes() + disk::SMALL_FILES, staged.dir())?;
    // The default targets of every family here are the same; they are written out anyway.
    combined.save(staged.dir(), &families::llama::FAMILY).map_err(Failure::run)?;
    if let Some(tokenizer) = tokenizer {
        tokenizer.save(staged.dir()).map_err(Failure::of_format)?;
    }
    let path = staged.dir().join("README.md");
    std::fs::write(&path, card(args, &combined.base_model).to_markdown())
        .map_err(|e| Failure::io("write", &path, &e))?;
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

fn card(args: &MergeAdaptersArgs, base: &str) -> Card {
    let parts = args.adapters.iter().map(|a| format!("{} times `{}`", a.weight, names::of_model(&a.dir)));
    let licenses = args.adapters.iter().map(|a| std::fs::read_to_string(a.dir.join("README.md")).ok());
    Card {
        name: names::of_model(&args.output),
        base: base.to_owned(),
        base_id: hub_id(base),
        is_adapter: true,
        license: licenses.flatten().find_map(|card| license_in(&card)),
        made: Some(format!("adapters combined by {}: {}", args.method, parts.collect::<Vec<_>>().join(", "))),
        ..Card::default()
    }
}
