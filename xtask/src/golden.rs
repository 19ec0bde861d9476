//! `cargo xtask golden`: the scripts that compute golden numbers with the Python peers.

use crate::shell;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Without arguments: the list. `NAME PYTHON [ARGS…]`: runs `interop/NAME.py` with that Python.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let folder = shell::root().join("interop");
    match args {
        [] => list(&folder),
        [name, python, rest @ ..] => {
            let script = folder.join(format!("{name}.py"));
            if !script.exists() {
                list(&folder)?;
                bail!("there is no interop/{name}.py");
            }
            let mut command = Command::new(python);
            command.arg(script).args(rest).current_dir(shell::root()).env("HF_HUB_OFFLINE", "1");
            shell::run(&mut command)
        }
        [_] => bail!("also name the Python that has the peers: cargo xtask golden NAME PYTHON [ARGS…]"),
    }
}

/// Name and first line of the docstring of each script.
fn list(folder: &Path) -> Result<()> {
    let mut scripts: Vec<_> = fs::read_dir(folder)
        .with_context(|| format!("cannot list {}", folder.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "py"))
        .collect();
    scripts.sort();
    for script in scripts {
        let text = fs::read_to_string(&script)?;
        let about = text.lines().find_map(|line| line.strip_prefix("\"\"\"")).unwrap_or("(no docstring)");
        println!("{:24} {about}", script.file_stem().unwrap_or_default().to_string_lossy());
    }
    Ok(())
}
