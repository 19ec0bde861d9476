//! `training.profile`: where the time of a step goes, told at the end and written to `profile.json`.
//!
//! The first step of a run is left out: it touches memory for the first time.

use crate::console::duration;
use foundry_engine::callbacks::{Callback, Flow};
use foundry_engine::{EngineError, LogRecord, StepReport, Summary};
use foundry_kernels::{Backend, Dtype, Matmul, MemoryClass, OpCost, ProfilingBackend};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Name of the file.
const PROFILE: &str = "profile.json";

/// Collects what the operations of each step cost.
pub(super) struct Profile<'a> {
    backend: &'a ProfilingBackend<'a>,
    /// Operations of one token, by the model's shapes.
    flops_per_token: f64,
    /// Floating-point operations a second of a large matrix product, measured before the run.
    peak: f64,
    path: PathBuf,
    is_quiet: bool,
    costs: Vec<OpCost>,
    steps: u64,
    tokens: u64,
    seconds: f64,
    data_seconds: f64,
    /// As it was at the last line of the log.
    logged: Totals,
}

/// What has been measured up to some step.
#[derive(Clone, Debug, Default)]
struct Totals {
    steps: u64,
    tokens: u64,
    seconds: f64,
    /// Seconds of each phase.
    phases: Vec<(&'static str, f64)>,
}

impl<'a> Profile<'a> {
    /// Measures the machine, then waits for steps. `compute`: the format of the operands of products.
    pub(super) fn new(
        backend: &'a ProfilingBackend<'a>,
        compute: Dtype,
        flops_per_token: f64,
        output_dir: &std::path::Path,
        is_quiet: bool,
    ) -> Self {
        let peak = product_rate(backend, compute);
        backend.take();
        Self {
            backend,
            flops_per_token,
            peak,
            path: output_dir.join(PROFILE),
            is_quiet,
            costs: Vec::new(),
            steps: 0,
            tokens: 0,
            seconds: 0.0,
            data_seconds: 0.0,
            logged: Totals::default(),
        }
    }

    fn totals(&self) -> Totals {
        let Self { steps, tokens, seconds, .. } = *self;
        Totals { steps, tokens, seconds, phases: self.phases() }
    }

    /// Share of the floor and seconds of a step by phase, since the last call.
    fn since_last_line(&mut self) -> BTreeMap<String, f64> {
        if self.steps == self.logged.steps {
            return BTreeMap::new();
        }
        let now = self.totals();
        let before = std::mem::replace(&mut self.logged, now.clone());
        let steps = (now.steps - before.steps) as f64;
        let (tokens, seconds) = ((now.tokens - before.tokens) as f64, now.seconds - before.seconds);
        let earlier =
            |phase: &str| before.phases.iter().find(|(name, _)| *name == phase).map_or(0.0, |(_, s)| *s);
        let phases = now.phases.iter().map(|&(phase, total)| {
            let each = (total - earlier(phase)).max(0.0) / steps;
            (format!("{}_seconds", phase.replace(' ', "_")), each)
        });
        let mfu = self.flops_per_token * tokens / self.peak / seconds.max(1e-9);
        phases.chain([("mfu".to_owned(), mfu)]).collect()
    }

    fn add(&mut self, costs: Vec<OpCost>) {
        for cost in costs {
            match self.costs.iter_mut().find(|known| known.name == cost.name) {
                Some(known) => {
                    known.calls += cost.calls;
                    known.time += cost.time;
                    known.flops += cost.flops;
                    known.bytes += cost.bytes;
                }
                None => self.costs.push(cost),
            }
        }
    }

    /// Seconds of a step that matrix products at the measured rate would take for the model's work.
    fn floor_share(&self) -> f64 {
        self.flops_per_token * self.tokens as f64 / self.peak / self.seconds
    }

    /// Name, seconds and share of each phase of a step.
    fn phases(&self) -> Vec<(&'static str, f64)> {
        let of = |phase: &str| {
            let own = self.costs.iter().filter(|cost| phase_of(cost.name) == phase);
            own.map(|cost| cost.time.as_secs_f64()).sum::<f64>()
        };
        let mut phases: Vec<(&str, f64)> =
            ["forward", "head and loss", "backward", "update"].map(|phase| (phase, of(phase))).to_vec();
        phases.push(("waiting for data", self.data_seconds));
        let known: f64 = phases.iter().map(|(_, seconds)| seconds).sum();
        phases.push(("between operations", (self.seconds - known).max(0.0)));
        phases
    }

    fn to_json(&self) -> Value {
        let each = self.steps.max(1) as f64;
        let op = |cost: &OpCost| {
            let seconds = cost.time.as_secs_f64();
            json!({
                "name": cost.name,
                "calls_per_step": cost.calls as f64 / each,
                "seconds_per_step": seconds / each,
                "share": seconds / self.seconds,
                "gflop_per_second": cost.flops / seconds.max(1e-12) / 1e9,
                "gb_per_second": cost.bytes / seconds.max(1e-12) / 1e9,
            })
        };
        json!({
            "steps": self.steps,
            "tokens": self.tokens,
            "seconds_per_step": self.seconds / each,
            "flops_per_token": self.flops_per_token,
            "measured_gemm_gflop_per_second": self.peak / 1e9,
            "share_of_gemm_floor": self.floor_share(),
            "phases": self.phases().into_iter().map(|(name, seconds)| {
                json!({ "name": name, "seconds_per_step": seconds / each, "share": seconds / self.seconds })
            }).collect::<Vec<_>>(),
            "operations": self.sorted().iter().map(op).collect::<Vec<_>>(),
        })
    }

    /// Operations, the most expensive first.
    fn sorted(&self) -> Vec<OpCost> {
        let mut costs = self.costs.clone();
        costs.sort_by_key(|cost| std::cmp::Reverse(cost.time));
        costs
    }

    fn to_text(&self) -> String {
        let each = self.steps.max(1) as f64;
        let share = |seconds: f64| 100.0 * seconds / self.seconds;
        let mut text = format!(
            "profile of {} steps, {} each\n  {:<24} {:>9} {:>6}\n",
            self.steps,
            duration(self.seconds / each),
            "phase",
            "ms/step",
            "%"
        );
        for (name, seconds) in self.phases() {
            let _ = writeln!(text, "  {name:<24} {:>9.1} {:>6.1}", 1e3 * seconds / each, share(seconds));
        }
        let head = ["operation", "ms/step", "%", "calls", "GFLOP/s", "GB/s"];
        let [a, b, c, d, e, f] = head;
        let _ = writeln!(text, "  {a:<24} {b:>9} {c:>6} {d:>7} {e:>8} {f:>7}");
        for cost in self.sorted() {
            let seconds = cost.time.as_secs_f64();
            let rate = |amount: f64| match amount > 0.0 {
                true => format!("{:.1}", amount / seconds.max(1e-12) / 1e9),
                false => "-".into(),
            };
            let _ = writeln!(
                text,
                "  {:<24} {:>9.1} {:>6.1} {:>7.0} {:>8} {:>7}",
                cost.name,
                1e3 * seconds / each,
                share(seconds),
                cost.calls as f64 / each,
                rate(cost.flops),
                rate(cost.bytes)
            );
        }
        let _ = write!(
            text,
            "  the model's work at the rate of a large product measured before the run ({:.0} GFLOP/s) is {:.0} % of this",
            self.peak / 1e9,
            100.0 * self.floor_share()
        );
        text
    }
}

/// The phase of a step that an operation belongs to.
fn phase_of(name: &str) -> &'static str {
    match name {
        "head and loss" => "head and loss",
        "adamw" | "adamw, 8 bits" | "lion" | "sgd" | "adafactor" | "sum of squares" => "update",
        name if name.ends_with("backward")
            || name.starts_with("matmul nn")
            || name.starts_with("matmul tn") =>
        {
            "backward"
        }
        _ => "forward",
    }
}

/// The best rate of a product of 1024 × 2048 × 2048 in half a second.
fn product_rate(backend: &dyn Backend, compute: Dtype) -> f64 {
    let (m, n, k) = (1024, 2048, 2048);
    let buffer = |len: usize| backend.alloc(MemoryClass::Workspace, compute, len);
    let (a, b, mut c) = (buffer(m * k), buffer(n * k), buffer(m * n));
    let (began, mut best) = (Instant::now(), Duration::MAX);
    while began.elapsed() < Duration::from_millis(500) || best == Duration::MAX {
        let start = Instant::now();
        backend.matmul(Matmul::nt(m, n, k), &a, &b, &mut c);
        best = best.min(start.elapsed());
    }
    2.0 * (m * n * k) as f64 / best.as_secs_f64()
}

impl Callback for Profile<'_> {
    fn on_step(&mut self, report: &StepReport) -> Result<Flow, EngineError> {
        let costs = self.backend.take();
        if self.seconds == 0.0 && self.steps == 0 && self.tokens == 0 {
            // The first step: from the next one on, `tokens` is above 0 or there is nothing to profile.
            self.tokens = 1;
            return Ok(Flow::Continue);
        }
        if self.steps == 0 {
            self.tokens = 0;
        }
        self.steps += 1;
        self.tokens += report.tokens;
        self.seconds += report.seconds;
        self.data_seconds += report.data_seconds;
        self.add(costs);
        Ok(Flow::Continue)
    }

    fn on_log(&mut self, record: &mut LogRecord) -> Result<(), EngineError> {
        record.profile = self.since_last_line();
        Ok(())
    }

    fn on_end(&mut self, _: &Summary) -> Result<(), EngineError> {
        if self.steps == 0 {
            crate::console::tell!("nothing was profiled: a profile needs a second step");
            return Ok(());
        }
        if !self.is_quiet {
            crate::console::tell!("{}", self.to_text());
        }
        let text = serde_json::to_string_pretty(&self.to_json()).expect("numbers are JSON");
        // A profile is not worth the result, which is saved after this.
        if let Err(error) = std::fs::write(&self.path, text + "\n") {
            crate::console::tell!("warning: cannot write {}: {error}", self.path.display());
        }
        Ok(())
    }
}
