//! A plan for people.

use super::Plan;
use crate::console::{bytes, thousands};
use crate::machine::dtype_name;
use foundry_kernels::{MemoryClass, Quantization};
use foundry_models::{Checkpointing, InitLora, TargetModules, Tuning};
use std::fmt::Write;

/// What a class of memory is called.
pub(crate) fn class_name(class: MemoryClass) -> &'static str {
    match class {
        MemoryClass::Weights => "weights",
        MemoryClass::Trainable => "trained values",
        MemoryClass::Gradients => "gradients",
        MemoryClass::Optimizer => "optimiser state",
        MemoryClass::Activations => "activations",
        MemoryClass::Workspace => "workspace",
        MemoryClass::KvCache => "key/value cache",
    }
}

impl Plan {
    /// Everything, with headings.
    pub(crate) fn to_text(&self) -> String {
        let mut text = self.summary();
        self.memory_lines(&mut text);
        if !self.defaults.is_empty() {
            text.push_str("defaults filled in\n");
            for (path, value) in &self.defaults {
                let _ = writeln!(text, "  {path} = {value}");
            }
        }
        text
    }

    /// What `train` says before it starts.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<9} {value}");
        };
        let decoder = &self.subject.decoder;
        line(
            "model",
            format!(
                "{} ({}, {} parameters, {} layers of width {})",
                self.subject.name,
                self.subject.decoder.family.name,
                count(self.parameters),
                decoder.num_hidden_layers,
                decoder.hidden_size
            ),
        );
        line("tuning", self.tuning_line());
        line(
            "compute",
            format!(
                "{} on {} threads ({})",
                dtype_name(self.subject.compute),
                self.machine.threads,
                self.machine.isa.name()
            ) + self.quantization_words(),
        );
        self.data_lines(&mut line);
        line("steps", self.steps_line());
        line("work", self.work_line());
        line("memory", self.memory_line());
        line("disk", format!("up to {} ({})", bytes(self.disk.total()), self.disk.words()));
        for note in self.notes.iter().cloned().chain(self.warnings()) {
            line("note", note);
        }
        text
    }

    /// How the frozen weights are stored.
    fn quantization_words(&self) -> &'static str {
        match self.subject.quantization.as_ref().map(|weights| weights.kind) {
            None => "",
            Some(Quantization::Nf4 { double_quant: false }) => ", frozen weights in 4 bits (nf4)",
            Some(Quantization::Nf4 { double_quant: true }) => {
                ", frozen weights in 4 bits (nf4, double quantised)"
            }
            Some(Quantization::Int8) => ", frozen weights in 8 bits",
        }
    }

    fn tuning_line(&self) -> String {
        let share = 100.0 * self.trainable as f64 / self.parameters.max(1) as f64;
        let trained = format!("{} trained ({share:.2} %)", count(self.trainable));
        match &self.subject.tuning {
            Tuning::Lora(spec) => {
                let targets = match &spec.target_modules {
                    None => "the family's default modules".to_owned(),
                    Some(TargetModules::AllLinear) => "all linear layers".to_owned(),
                    Some(TargetModules::List(names)) => names.join(", "),
                    Some(TargetModules::Regex(pattern)) => pattern.clone(),
                };
                let from = self
                    .subject
                    .adapter
                    .as_ref()
                    .map_or_else(String::new, |d| format!(", from {}", d.display()));
                let kind = if spec.use_dora { "DoRA" } else { "LoRA" };
                let init = match spec.init_lora_weights {
                    InitLora::Default => String::new(),
                    named => format!(" ({named})"),
                };
                format!("{kind}{init} r={} alpha={} on {targets}, {trained}{from}", spec.r, spec.lora_alpha)
            }
            Tuning::Full => format!("full, {trained}"),
            Tuning::Frozen | Tuning::Adapted(_) => "none".into(),
        }
    }

    fn data_lines(&self, line: &mut impl FnMut(&str, String)) {
        let Some(corpus) = &self.corpus else { return };
        if let Some(stream) = &corpus.stream {
            let (size, buffer) = (bytes(stream.file_bytes), stream.spec.shuffle_buffer);
            let order = match buffer {
                0 => "in the order of the files".to_owned(),
                rows => format!("through a shuffle buffer of {}", thousands(rows as u64)),
            };
            line(
                "stream",
                format!("{size} of files, read while training, {order}; counts are of the first rows"),
            );
        }
        if corpus.indexed.is_some() {
            line(
                "tokens",
                "read from token files in random order; only their order is held in memory".into(),
            );
        }
        let sets = [("data", Some(&corpus.train)), ("eval data", corpus.eval.as_ref())];
        for (name, set) in sets.into_iter().filter_map(|(name, set)| Some((name, &set?.report))) {
            line(
                name,
                format!(
                    "{} examples ({}) in {} rows, {} tokens, {} labelled",
                    thousands(set.examples as u64),
                    set.format.map_or("?", |shape| shape.name()),
                    thousands(set.rows as u64),
                    thousands(set.tokens as u64),
                    thousands(set.labelled_tokens as u64)
                ),
            );
            line(
                "",
                format!(
                    "truncated {} ({} tokens lost), dropped {} ({} empty, {} without labels); end trained in {:.0} %",
                    set.truncated,
                    set.truncated_tokens,
                    set.dropped_empty + set.dropped_unlabelled,
                    set.dropped_empty,
                    set.dropped_unlabelled,
                    set.eos_trained_percent()
                ),
            );
        }
    }

    /// What the data crate found worth a warning.
    pub(super) fn warnings(&self) -> Vec<String> {
        let Some(corpus) = &self.corpus else { return Vec::new() };
        let mut warnings = corpus.train.report.warnings();
        if !corpus.train.report.unused_keys.is_empty() {
            let keys: Vec<&str> = corpus.train.report.unused_keys.iter().map(String::as_str).collect();
            warnings.push(format!("keys of the data that are not used: {}", keys.join(", ")));
        }
        let eval = corpus.eval.iter().flat_map(|eval| eval.report.warnings());
        warnings.extend(eval.map(|warning| format!("evaluation data: {warning}")));
        warnings
    }

    fn steps_line(&self) -> String {
        let args = &self.args;
        let shape = format!(
            "{} row(s) × {} accumulated, learning rate {:e} {}",
            args.per_device_train_batch_size,
            args.gradient_accumulation_steps,
            args.learning_rate,
            args.lr_scheduler_type
        );
        match &self.steps {
            None => format!("{} epochs of unknown length, {shape}", args.num_train_epochs),
            Some(steps) => match steps.per_epoch {
                Some(per_epoch) => {
                    let epochs = steps.total as f64 / per_epoch as f64;
                    format!("{} ({epochs:.2} epochs of {per_epoch}), {shape}", steps.total)
                }
                None => format!("{}, {shape}", steps.total),
            },
        }
    }

    fn work_line(&self) -> String {
        let each = format!("{} per token", flops(self.flops_per_token));
        match self.steps.and_then(|steps| steps.tokens) {
            Some(tokens) => {
                format!(
                    "{} tokens, {each}, {} in all",
                    thousands(tokens),
                    flops(self.flops_per_token * tokens as f64)
                )
            }
            None => each,
        }
    }

    fn memory_line(&self) -> String {
        let available = self.memory.available.map_or_else(|| "unknown".into(), bytes);
        let rows = format!("micro-batches of up to {} tokens", thousands(self.max_tokens as u64));
        let budget =
            self.memory.budget.map_or_else(String::new, |budget| format!(", {} allowed", bytes(budget)));
        let kept = self.checkpointing_line();
        format!("{} needed{budget}, {available} available ({rows}; {kept})", bytes(self.memory.total()))
    }

    /// What the blocks keep for the backward.
    pub(super) fn checkpointing_line(&self) -> String {
        let layers = self.subject.decoder.num_hidden_layers;
        match self.storage.checkpointing {
            Checkpointing::None => "all activations kept".into(),
            Checkpointing::Selective => "norms and activations made again".into(),
            Checkpointing::Mixed { full } => format!("{full} of {layers} blocks computed again"),
            Checkpointing::Full => "all blocks computed again".into(),
        }
    }

    fn memory_lines(&self, text: &mut String) {
        let classes = self.memory.classes.iter().map(|(class, bytes)| (class_name(*class), *bytes));
        let others = [
            ("tokenised data", self.memory.data),
            ("process", self.memory.process),
            ("kernels", self.memory.kernels),
        ];
        for (name, size) in classes.chain(others).filter(|(_, size)| *size > 0) {
            let _ = writeln!(text, "  {name:<16} {:>9}", bytes(size));
        }
    }
}

/// `134.5 M`.
fn count(n: u64) -> String {
    match n {
        0..1_000 => n.to_string(),
        1_000..1_000_000 => format!("{:.1} k", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.2} B", n as f64 / 1e9),
    }
}

/// `1.2 PFLOP`.
fn flops(n: f64) -> String {
    const UNITS: [(&str, f64); 5] = [("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)];
    let (unit, size) = UNITS.into_iter().find(|(_, size)| n >= *size).unwrap_or(("k", 1e3));
    format!("{:.2} {unit}FLOP", n / size)
}
