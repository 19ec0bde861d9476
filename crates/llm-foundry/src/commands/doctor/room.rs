//! Memory and disks.

use crate::console::bytes;
use crate::{disk, machine};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Below this much memory even the smallest models are tight.
const LITTLE_MEMORY: u64 = 2_000_000_000;
/// Below this much disk checkpoints of small models are tight.
const LITTLE_DISK: u64 = 5_000_000_000;

/// Bytes that can still be had; `None` where the system does not tell.
#[derive(Debug, Serialize)]
pub(super) struct Room {
    memory_available: Option<u64>,
    memory_total: Option<u64>,
    disks: Vec<Disk>,
}

/// Where something is written.
#[derive(Debug, Serialize)]
struct Disk {
    what: &'static str,
    path: PathBuf,
    free: Option<u64>,
}

impl Room {
    /// Looks at the memory, the working directory's disk and the hub cache's.
    pub(super) fn look(cache: &Path) -> Self {
        let total = sysinfo::System::new().ok().map(|mut system| {
            system.refresh_memory();
            system.total_memory()
        });
        let here = std::env::current_dir().unwrap_or_else(|_| ".".into());
        let disk = |what, path: &Path| Disk {
            what,
            path: path.to_owned(),
            free: disk::free(path).map(|(_, free)| free),
        };
        Self {
            memory_available: machine::available_memory(),
            memory_total: total.filter(|&total| total > 0),
            disks: vec![disk("working dir", &here), disk("hub cache", cache)],
        }
    }

    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let known = |n: Option<u64>| n.map_or_else(|| "unknown".into(), bytes);
        let memory = format!("{} free of {}", known(self.memory_available), known(self.memory_total));
        let mut lines = vec![("memory", memory)];
        for disk in &self.disks {
            lines.push((disk.what, format!("{} free for {}", known(disk.free), disk.path.display())));
        }
        lines
    }

    pub(super) fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        if let Some(free) = self.memory_available.filter(|&free| free < LITTLE_MEMORY) {
            advice.push(format!(
                "{} of memory are free; `llm-foundry plan` tells before a run whether that is enough",
                bytes(free)
            ));
        }
        for disk in &self.disks {
            if let Some(free) = disk.free.filter(|&free| free < LITTLE_DISK) {
                advice.push(format!(
                    "{} are free for the {} ({}): models and checkpoints may not fit",
                    bytes(free),
                    disk.what,
                    disk.path.display()
                ));
            }
        }
        advice
    }
}
