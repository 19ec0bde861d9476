//! `cargo xtask crash`: the crash tests alone, with as many random kills as one likes. `cargo xtask test` has the same
//! tests with 200, `cargo nextest run` with fewer.

use crate::shell;
use anyhow::{Context, Result, ensure};

/// Random kills, unless a number is given.
pub(crate) const KILLS: u32 = 200;
/// Tells the tests how many.
pub(crate) const ENV: &str = "FOUNDRY_KILLS";

pub(crate) fn run(args: &[String]) -> Result<()> {
    ensure!(args.len() <= 1, "`cargo xtask crash` takes at most one argument, the number of random kills");
    let kills: u32 = match args.first() {
        Some(text) => text.parse().with_context(|| format!("`{text}` is no number of kills"))?,
        None => KILLS,
    };
    // One process and its output shown: the figures at the end are what one wants to see.
    let arguments = ["test", "--package", "llm-foundry", "--test", "cli", "crashes::", "--", "--nocapture"];
    shell::run(shell::cargo(&arguments).env(ENV, kills.to_string()))
}
