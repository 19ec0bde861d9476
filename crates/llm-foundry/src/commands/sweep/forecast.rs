//! `llm-foundry plan --multirun`: what every run of a sweep would need, before the first one begins.

use super::record::Run;
use super::{combined, common_dir, places, short, table, variable};
use crate::cli::{MachineArgs, PlanArgs};
use crate::config::{self, Config};
use crate::console::{bytes, thousands};
use crate::failure::{Failure, Outcome};
use crate::hub::Need;
use crate::machine::Machine;
use crate::plan::Plan;
use serde_json::{Value, json};
use std::io::Write as _;

/// Prints one line for each run; runs that cannot be planned, or that do not fit, are an error after it.
pub(crate) fn plan(args: &PlanArgs, machine: &MachineArgs) -> Outcome {
    let (keys, runs) = combined(&args.config.overrides)?;
    // Whoever misspelt a key is told so once, in full.
    let configs = runs.iter().map(|run| config::load(&args.config.config, &run.overrides));
    let configs = configs.collect::<Result<Vec<_>, _>>()?;
    // What `train --multirun` refuses before its first run is refused here too.
    let own: Vec<Config> = configs.iter().map(|resolved| resolved.config.clone()).collect();
    common_dir(&own)?;
    places::places(&runs, &own, &variable).map_err(Failure::Input)?;
    let mut rows = vec![head(&keys)];
    let mut told = Vec::new();
    let mut wrong: Vec<String> = Vec::new();
    for (run, resolved) in runs.iter().zip(&configs) {
        let planned = Machine::choose(machine, resolved.config.training.threads)
            .and_then(|machine| Plan::make(resolved, machine, Need::Description, true, None));
        let fault = fault(&planned, &resolved.config);
        rows.push(row(run, &planned, fault.as_deref()));
        told.push(entry(run, &keys, &planned, fault.as_deref()));
        wrong.extend(fault.map(|fault| format!("{}: {fault}", run.name)));
    }
    let text = match args.json {
        true => format!("{:#}\n", json!({ "runs": told })),
        false => table::laid_out(&rows, 1 + keys.len()),
    };
    anstream::stdout().write_all(text.as_bytes())?;
    match wrong.first() {
        None => Ok(()),
        Some(first) => {
            Err(Failure::Input(format!("{} of {} runs cannot work\n  {first}", wrong.len(), runs.len())))
        }
    }
}

/// Why a run cannot work.
fn fault(planned: &Outcome<Plan>, config: &Config) -> Option<String> {
    let why = |failure: &Failure| match failure {
        Failure::Input(why) | Failure::Run(why) => why.clone(),
        _ => "it cannot be planned".into(),
    };
    match planned {
        Ok(plan) => plan.check_memory(config).err().as_ref().map(why),
        Err(failure) => Some(why(failure)),
    }
}

fn head(keys: &[String]) -> Vec<String> {
    let figures = ["steps", "tokens", "trained", "memory", "disk", ""];
    let keys_shown = keys.iter().map(|key| short(key, keys).to_owned());
    std::iter::once("run".to_owned()).chain(keys_shown).chain(figures.map(str::to_owned)).collect()
}

fn row(run: &Run, planned: &Outcome<Plan>, fault: Option<&str>) -> Vec<String> {
    let known = |figure: Option<String>| figure.unwrap_or_else(|| "-".into());
    let figures = match planned {
        Err(_) => std::array::from_fn(|_| "-".into()),
        Ok(plan) => [
            known(plan.steps.map(|steps| thousands(steps.total))),
            known(plan.steps.and_then(|steps| steps.tokens).map(thousands)),
            thousands(plan.trainable),
            bytes(plan.memory.total()),
            bytes(plan.disk.total()),
        ],
    };
    let first = |why: &str| why.lines().next().unwrap_or("").to_owned();
    let note = match (planned, fault) {
        (_, None) => String::new(),
        (Ok(_), Some(_)) => "does not fit".into(),
        (Err(_), Some(why)) => first(why),
    };
    std::iter::once(run.number()).chain(run.values.iter().cloned()).chain(figures).chain([note]).collect()
}

fn entry(run: &Run, keys: &[String], planned: &Outcome<Plan>, fault: Option<&str>) -> Value {
    let values: serde_json::Map<String, Value> =
        keys.iter().cloned().zip(run.values.iter().map(|value| json!(value))).collect();
    json!({
        "name": run.name,
        "values": values,
        "overrides": run.overrides,
        "plan": planned.as_ref().ok().map(Plan::to_json),
        "error": fault,
    })
}
