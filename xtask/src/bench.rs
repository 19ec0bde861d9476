//! `cargo xtask bench`: figures of this machine, in release mode.

use crate::shell;
use anyhow::{Result, ensure};

/// Runs the example `rates` of the kernels; arguments go to it.
pub(crate) fn run(args: &[String]) -> Result<()> {
    if args.iter().any(|arg| arg == "--peer") {
        return crate::peer::run(args);
    }
    let example = shell::root().join("crates/kernels/examples/rates/main.rs");
    ensure!(example.exists(), "crates/kernels/examples/rates/main.rs is missing");
    let mut words = vec!["run", "--release", "--quiet", "--package", "foundry-kernels", "--example", "rates"];
    words.push("--");
    words.extend(args.iter().map(String::as_str));
    shell::run(&mut shell::cargo(&words))
}
