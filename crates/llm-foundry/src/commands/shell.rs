//! `llm-foundry completions` and `llm-foundry man`: what shells and manuals want to know.

use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::failure::{Failure, Outcome};
use clap::CommandFactory;
use std::io::Write;

/// Prints the completion script of a shell.
pub(crate) fn completions(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "llm-foundry", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}

/// Prints the page of the program, or writes one for every command.
pub(crate) fn man(args: &ManArgs) -> Outcome {
    let program = Cli::command().disable_help_subcommand(true);
    let Some(dir) = &args.output else {
        let mut page = Vec::new();
        clap_mangen::Man::new(program).render(&mut page)?;
        return Ok(std::io::stdout().write_all(&page)?);
    };
    if dir.exists() && !dir.is_dir() {
        return Err(Failure::Input(format!("-o: {} is a file; name a directory", dir.display())));
    }
    std::fs::create_dir_all(dir).map_err(|e| Failure::io("make", dir, &e))?;
    clap_mangen::generate_to(program, dir).map_err(|e| Failure::io("write the pages into", dir, &e))?;
    anstream::println!("{}", dir.display());
    Ok(())
}
