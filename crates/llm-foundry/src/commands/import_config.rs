//! `llm-foundry import-config`: a configuration of another program becomes ours.

use crate::cli::ImportArgs;
use crate::failure::{Failure, Outcome};
use crate::import::{self, Note};
use crate::output_dir::write_whole;
use std::io::Write;

/// Writes it, and tells what was not carried over.
pub(crate) fn run(args: &ImportArgs, quiet: bool) -> Outcome {
    let text = std::fs::read(&args.file).map_err(|e| Failure::io("read", &args.file, &e))?;
    let name = args.file.display().to_string();
    let text =
        String::from_utf8(text).map_err(|_| Failure::Input(format!("{name}: this is not UTF-8 text")))?;
    let imported = import::import(&name, &text, args.from)?;
    match &args.output {
        Some(path) if path.exists() && !args.force => {
            let message =
                format!("{} is there; choose another place, or replace it with --force", path.display());
            return Err(Failure::Input(message));
        }
        Some(path) => write_whole(path, &imported.text)?,
        None => anstream::stdout().write_all(imported.text.as_bytes())?,
    }
    if quiet {
        return Ok(());
    }
    let list = |title: &str, notes: &[Note]| {
        if !notes.is_empty() {
            crate::console::tell!("\u{1b}[1m{title}\u{1b}[0m");
        }
        for note in notes {
            crate::console::tell!("  {}: {}  ({})", note.key, note.value, note.why);
        }
    };
    list(&format!("of {}, nothing lost by leaving out:", imported.program.name()), &imported.unneeded);
    list("not carried over:", &imported.lost);
    if let Some(path) = &args.output {
        crate::console::tell!("{}: look at it with `llm-foundry plan {0}`", path.display());
    }
    Ok(())
}
