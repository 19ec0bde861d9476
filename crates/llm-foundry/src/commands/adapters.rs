//! `llm-foundry adapters`: one adapter of several.

use crate::cli::{AdaptersCommand, MachineArgs, MergeAdaptersArgs};
use crate::console;
use crate::failure::{Failure, Outcome};
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
    let target = &args.output;
    let is_taken = target.exists() && std::fs::read_dir(target).map_or(true, |mut d| d.next().is_some());
    if is_taken && !args.force {
        let message =
            format!("{} exists already; choose another directory, or add --force", target.display());
        return Err(Failure::Input(message));
    }
    let sources: Vec<(PathBuf, f64)> = args.adapters.iter().map(|a| (a.dir.clone(), a.weight)).collect();
    let options = CombineOptions {
        method: args.method,
        density: args.density.unwrap_or(1.0),
        majority_sign: args.majority_sign.into(),
        svd_rank: args.svd_rank,
        seed: args.seed,
    };
    let combined = CombinedAdapter::new(&sources, &options).map_err(Failure::input)?;
    write(&combined, target)?;
    console::say(
        quiet,
        format!("adapter of rank {} from {} saved in {}", combined.spec.r, sources.len(), target.display()),
    );
    Ok(())
}

/// Written beside, then moved: what is under the final name is whole.
fn write(combined: &CombinedAdapter, target: &Path) -> Outcome {
    let target = std::path::absolute(target).map_err(|e| Failure::io("write", target, &e))?;
    let parent = target.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(parent).map_err(|e| Failure::io("create", parent, &e))?;
    let partial = tempfile::Builder::new()
        .prefix(".adapter-")
        .tempdir_in(parent)
        .map_err(|e| Failure::io("write in", parent, &e))?;
    // The default targets of every family here are the same; they are written out anyway.
    combined.save(partial.path(), &families::llama::FAMILY).map_err(Failure::run)?;
    std::fs::create_dir_all(&target).map_err(|e| Failure::io("create", &target, &e))?;
    for file in ["adapter_model.safetensors", "adapter_config.json"] {
        let to = target.join(file);
        std::fs::rename(partial.path().join(file), &to).map_err(|e| Failure::io("write", &to, &e))?;
    }
    Ok(())
}
