//! `llm-foundry schema`: the JSON schema of configuration files.

use crate::config::Config;
use crate::failure::Outcome;
use std::io::Write;

/// Prints it.
pub(crate) fn run() -> Outcome {
    let schema = schemars::schema_for!(Config);
    let text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}
