//! `llm-foundry plan`: what a run would need and do.

use crate::cli::{MachineArgs, PlanArgs};
use crate::commands::sweep;
use crate::config;
use crate::failure::Outcome;
use crate::hub::Need;
use crate::machine::Machine;
use crate::plan::Plan;
use std::io::Write;

/// Prints the plan; a machine that is too small is an error after it.
pub(crate) fn run(args: &PlanArgs, machine: &MachineArgs) -> Outcome {
    if args.multirun {
        return sweep::plan(args, machine);
    }
    let quiet = machine.quiet || args.json;
    let resolved = config::load(&args.config.config, &args.config.overrides)?;
    if args.config.print_config {
        return Ok(anstream::stdout().write_all(resolved.to_yaml_with_origins().as_bytes())?);
    }
    let machine = Machine::choose(machine, resolved.config.training.threads)?;
    let plan = Plan::make(&resolved, machine, Need::Description, quiet, None)?;
    let text = match args.json {
        true => format!("{:#}\n", plan.to_json()),
        false => plan.to_text(),
    };
    anstream::stdout().write_all(text.as_bytes())?;
    plan.check_memory(&resolved.config)
}
