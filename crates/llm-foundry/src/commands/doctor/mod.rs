//! `llm-foundry doctor`: what this machine offers a run, and what would be in its way.
//!
//! It looks, and changes nothing; what it finds is information, so that its exit code is 0 whatever it is.

mod hub;
mod processor;
mod room;

use crate::cli::{DoctorArgs, MachineArgs};
use crate::failure::Outcome;
use crate::machine::Machine;
use hub::Hub;
use processor::Processor;
use room::Room;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Write as _;

/// All that was found.
#[derive(Debug, Serialize)]
struct Findings {
    version: &'static str,
    system: String,
    processor: Processor,
    gpu: Gpu,
    room: Room,
    hub: Hub,
    /// What a person may want to change.
    advice: Vec<String>,
}

/// GPUs: this program has no code for them.
#[derive(Debug, Serialize)]
struct Gpu {
    built: bool,
}

/// Looks and tells.
pub(crate) fn run(args: &DoctorArgs, machine_args: &MachineArgs) -> Outcome {
    let machine = Machine::choose(machine_args, None)?;
    let settings = crate::hub::HubSettings::from_env(|name| std::env::var(name).ok());
    let processor = Processor::look(machine);
    let room = Room::look(&settings.cache);
    let hub = Hub::look(&settings);
    let advice = [processor.advice(), room.advice(), hub.advice()].concat();
    let findings = Findings {
        version: env!("CARGO_PKG_VERSION"),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        processor,
        gpu: Gpu { built: false },
        room,
        hub,
        advice,
    };
    let text = match args.json {
        true => format!("{}\n", serde_json::to_string_pretty(&findings).expect("findings are JSON")),
        false => findings.text(),
    };
    Ok(anstream::stdout().write_all(text.as_bytes())?)
}

impl Findings {
    fn text(&self) -> String {
        let mut text = String::new();
        let mut section = |title: &str, lines: Vec<(&str, String)>| {
            let _ = writeln!(text, "\u{1b}[1m{title}\u{1b}[0m");
            for (name, value) in lines {
                let _ = writeln!(text, "  {name:<14}{value}");
            }
        };
        section("Program", vec![("version", format!("{} ({})", self.version, self.system))]);
        section("Processor", self.processor.lines());
        section("GPU", vec![("support", "not built: this program computes on the processor".into())]);
        section("Room", self.room.lines());
        section("Hub", self.hub.lines());
        if self.advice.is_empty() {
            let _ = writeln!(text, "\nNothing is in the way of a run.");
        }
        for advice in &self.advice {
            let _ = write!(text, "\n\u{1b}[1;33mnote\u{1b}[0m: {advice}");
        }
        if !self.advice.is_empty() {
            text.push('\n');
        }
        text
    }
}
