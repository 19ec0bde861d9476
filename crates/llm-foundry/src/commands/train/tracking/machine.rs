//! How the machine is doing, under the names that Weights & Biases draws on its system page.

use std::time::{Duration, Instant};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// Weights & Biases' own client samples as often.
const EVERY: Duration = Duration::from_secs(15);

/// Measures this process and the machine from time to time.
pub(super) struct MachineProbe {
    system: System,
    process: Pid,
    last: Option<Instant>,
}

impl MachineProbe {
    /// `None` where the system does not say.
    pub(super) fn new() -> Option<Self> {
        let system = System::new().ok()?;
        Some(Self { system, process: sysinfo::get_current_pid().ok()?, last: None })
    }

    /// Names and values, if it is time for them. The first call measures nothing: the load of a processor is what was
    /// used between two calls.
    pub(super) fn due(&mut self) -> Option<Vec<(String, f64)>> {
        if self.last.is_some_and(|last| last.elapsed() < EVERY) { None } else { self.now() }
    }

    /// Names and values since the last call.
    pub(super) fn now(&mut self) -> Option<Vec<(String, f64)>> {
        self.system.refresh_memory();
        let what = ProcessRefreshKind::nothing().with_cpu().with_memory();
        self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&[self.process]), false, what);
        self.last.replace(Instant::now())?;
        self.values()
    }

    fn values(&self) -> Option<Vec<(String, f64)>> {
        const MB: f64 = 1024.0 * 1024.0;
        let process = self.system.process(self.process)?;
        let (total, used) = (self.system.total_memory() as f64, self.system.used_memory() as f64);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let rss = process.memory() as f64;
        let mut values = vec![
            ("cpu", f64::from(process.cpu_usage()) / cores as f64),
            ("memory_percent", 100.0 * used / total.max(1.0)),
            ("proc.memory.rssMB", rss / MB),
            ("proc.memory.percent", 100.0 * rss / total.max(1.0)),
            ("proc.memory.availableMB", self.system.available_memory() as f64 / MB),
        ];
        if let Some(tasks) = process.tasks() {
            values.push(("proc.cpu.threads", tasks.len() as f64));
        }
        Some(values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}
