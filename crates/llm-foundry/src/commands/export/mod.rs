//! `llm-foundry export`: a model written for other programs, read back and compared before it appears.

mod ollama;
mod rounding;
mod vllm;

use super::merge::{parse_size, size_of};
use crate::card::{Card, hub_id, license_of, origin_of};
use crate::cli::{ExportArgs, MachineArgs};
use crate::comparison::{
    Agreement, Comparison, LOST, LOST_IN_FOUR_BITS, affordable, compare, logits, probes, tokenizers_agree,
};
use crate::console::{bytes, is_interactive, say};
use crate::crash;
use crate::dense;
use crate::disk;
use crate::failure::{Failure, Outcome};
use crate::hub::Need;
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::model_source::find;
use crate::names;
use crate::shell_words::quoted;
use crate::staged::{Kind, Staged};
use foundry_formats::gguf::{GgufExport, GgufSummary, Recipe};
use foundry_formats::{FormatError, ModelFiles, StoredDtype, TensorSource, Tokenizer};
use foundry_kernels::{Dtype, Quantization};
use foundry_models::{
    Decoder, DecoderConfig, Finite, QuantizedWeights, SaveOptions, Storage, Tuning, WeightFormat,
    decoder_config, model_bytes, write_model,
};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Checks what a target would refuse, writes, reads back, publishes.
pub(crate) fn run(args: &ExportArgs, machine_args: &MachineArgs) -> Outcome {
    if args.target.is_some() && args.to.is_none() {
        vllm::check(&find(&args.model, &args.revision, Need::Everything, machine_args.quiet)?)?;
        writeln!(std::io::stdout(), "{}: nothing that vLLM would refuse", args.model)?;
        return Ok(());
    }
    if args.target.is_some() && args.to.as_deref() != Some("safetensors") {
        return Err(Failure::Input(
            "--target vllm: GGUF in vLLM is experimental; write safetensors (--to safetensors), or leave out --target".into(),
        ));
    }
    let to = args.to.as_deref().unwrap_or("gguf");
    if Path::new(&args.model).join("adapter_config.json").is_file() {
        return Err(Failure::Input(format!(
            "{0} is an adapter; merge it into its base first: llm-foundry merge BASE {0} -o DIR",
            args.model
        )));
    }
    let machine = Machine::choose(machine_args, None)?;
    let path = find(&args.model, &args.revision, Need::Everything, machine_args.quiet)?;
    let files = ModelFiles::open(&path).map_err(Failure::input)?;
    let interrupt = Interrupt::install()?;
    let job = Job {
        args,
        interrupt: &interrupt,
        quiet: machine_args.quiet,
        machine,
        files: &files,
        name: names::of_model(Path::new(&args.model)),
    };
    match to {
        "safetensors" => job.safetensors(),
        "ollama" => job.ollama(),
        _ => job.gguf(),
    }
}

struct Job<'a> {
    args: &'a ExportArgs,
    interrupt: &'a Interrupt,
    quiet: bool,
    machine: Machine,
    files: &'a ModelFiles,
    /// What the model is called, without directories.
    name: String,
}

/// What reading back has shown.
struct Check {
    agreement: Agreement,
    comparison: Comparison,
}

impl Job<'_> {
    fn gguf(&self) -> Outcome {
        let recipe = self.recipe()?;
        let output = self.output(&format!("{}-{}.gguf", self.name, recipe.name()));
        self.interrupt.ended(self.gguf_at(&output, recipe), &output)
    }

    fn gguf_at(&self, output: &Path, recipe: Recipe) -> Outcome {
        let staged = self.staged(output, Kind::File)?;
        let file = format!("{}.gguf", self.name);
        let (summary, check) = self.write_gguf(recipe, staged.dir(), &file)?;
        let size = size_of(staged.dir());
        self.interrupt.check()?;
        staged.publish_file(&file)?;
        let made = quoted(&output.display().to_string());
        let next = [format!("llm-foundry chat {made}"), format!("llama-cli -m {made}  # llama.cpp's")];
        self.report(output, size, Some(&summary), check.as_ref(), &next)
    }

    fn ollama(&self) -> Outcome {
        let recipe = self.recipe()?;
        let output = self.output(&format!("{}-ollama", self.name));
        self.interrupt.ended(self.ollama_at(&output, recipe), &output)
    }

    fn ollama_at(&self, output: &Path, recipe: Recipe) -> Outcome {
        let staged = self.staged(output, Kind::Directory)?;
        let file = format!("{}-{}.gguf", self.name, recipe.name());
        let (mut summary, check) = self.write_gguf(recipe, staged.dir(), &file)?;
        let tokenizer = self.files.tokenizer().map_err(Failure::input)?;
        let license = license_of(self.files);
        let modelfile =
            ollama::modelfile(self.files, &tokenizer, (&file, license.as_deref()), &mut summary.warnings)?;
        let path = staged.dir().join("Modelfile");
        std::fs::write(&path, modelfile).map_err(|e| Failure::io("write", &path, &e))?;
        let size = size_of(staged.dir());
        self.interrupt.check()?;
        staged.publish_dir()?;
        let (name, modelfile) = (self.name.to_lowercase(), output.join("Modelfile").display().to_string());
        let next = format!("ollama create {} -f {}", quoted(&name), quoted(&modelfile));
        self.report(output, size, Some(&summary), check.as_ref(), &[next])
    }

    fn safetensors(&self) -> Outcome {
        let quant = self.args.quant.as_deref().unwrap_or("auto");
        let output = self.output(&format!("{}-{quant}", self.name));
        self.interrupt.ended(self.safetensors_at(&output, quant), &output)
    }

    fn safetensors_at(&self, output: &Path, quant: &str) -> Outcome {
        let wanted = match quant {
            "auto" => WeightFormat::Kept,
            "f32" | "float32" => WeightFormat::Plain(StoredDtype::F32),
            "f16" | "float16" => WeightFormat::Plain(StoredDtype::F16),
            "bf16" | "bfloat16" => WeightFormat::Plain(StoredDtype::BF16),
            "fp8" => WeightFormat::Fp8,
            "nf4" => return self.bitsandbytes(output, quant, Quantization::Nf4 { double_quant: false }),
            "nf4_double" => {
                return self.bitsandbytes(output, quant, Quantization::Nf4 { double_quant: true });
            }
            "int8" => return self.bitsandbytes(output, quant, Quantization::Int8),
            other => {
                return Err(Failure::Input(format!(
                    "--quant {other} cannot be written as safetensors; possible are f32, f16, bf16, fp8, \
                     nf4, nf4_double and int8 (without --quant: as stored)"
                )));
            }
        };
        let staged = self.staged(output, Kind::Directory)?;
        let weights = self.weights(self.files)?;
        let compute = self.before(weights.as_ref(), &self.files.tokenizer().map_err(Failure::input)?)?;
        let size = parse_size(&self.args.max_shard_size)?;
        let generation = self.files.generation_config.as_ref();
        let needed = model_bytes(weights.as_ref(), &self.files.config, wanted).map_err(Failure::input)?;
        disk::check("the model", needed + disk::SMALL_FILES, staged.dir())?;
        write_model(weights.as_ref(), staged.dir(), &self.files.config, generation, wanted, size)
            .map_err(Failure::of_model)?;
        self.finish(staged, output, quant, true, compute)
    }

    /// The layers in few bits as bitsandbytes stores them, the rest in bfloat16.
    fn bitsandbytes(&self, output: &Path, quant: &str, kind: Quantization) -> Outcome {
        let staged = self.staged(output, Kind::Directory)?;
        let at = |e: &dyn std::fmt::Display| Failure::Input(format!("{}: {e}", self.files.path.display()));
        let (_, config) = decoder_config(&self.files.config).map_err(|e| at(&e))?;
        let weights = self.weights(self.files)?;
        let compute = self.before(weights.as_ref(), &self.files.tokenizer().map_err(Failure::input)?)?;
        // Half of it at most: fewer bits for the layers.
        let plain = WeightFormat::Plain(StoredDtype::BF16);
        let needed = model_bytes(weights.as_ref(), &self.files.config, plain).map_err(Failure::input)?;
        disk::check("the model", needed + disk::SMALL_FILES, staged.dir())?;
        let backend = self.machine.backend();
        let quantization = Some(QuantizedWeights { kind, skip: Vec::new() });
        let storage = Storage { quantization, ..Storage::from(true) };
        let mut decoder = Decoder::allocate(&backend, &config, &Tuning::Frozen, Dtype::Bf16, 1, storage)
            .map_err(|e| at(&e))?;
        decoder.load(&backend, &Finite(weights.as_ref())).map_err(|e| at(&e))?;
        let max_shard_size = parse_size(&self.args.max_shard_size)?;
        let options = SaveOptions { dtype: StoredDtype::BF16, max_shard_size };
        let generation = self.files.generation_config.as_ref();
        decoder
            .save_model(&backend, staged.dir(), &self.files.config, generation, &options)
            .map_err(Failure::of_model)?;
        self.finish(staged, output, quant, matches!(kind, Quantization::Int8), compute)
    }

    fn recipe(&self) -> Outcome<Recipe> {
        let name = self.args.quant.as_deref().unwrap_or("q4_k_m");
        Recipe::named(name).ok_or_else(|| {
            Failure::Input(format!(
                "--quant {name} is not known for GGUF; choose one of {}",
                Recipe::names().join(", ")
            ))
        })
    }

    fn output(&self, default: &str) -> PathBuf {
        self.args.output.clone().unwrap_or_else(|| PathBuf::from(default))
    }

    /// Dense weights, as long as the result is wanted.
    fn weights(&self, files: &ModelFiles) -> Outcome<Box<dyn TensorSource>> {
        Ok(self.interrupt.over(dense::weights(files)?))
    }

    fn staged(&self, output: &Path, kind: Kind) -> Outcome<Staged> {
        Staged::new(output, kind, self.args.force, &[&self.files.path])
    }

    fn write_gguf(&self, recipe: Recipe, dir: &Path, file: &str) -> Outcome<(GgufSummary, Option<Check>)> {
        let at = |e: &dyn std::fmt::Display| Failure::Input(format!("{}: {e}", self.files.path.display()));
        // What this program cannot compute it cannot check either.
        decoder_config(&self.files.config).map_err(|e| at(&e))?;
        let weights = self.weights(self.files)?;
        let tokenizer = self.files.tokenizer().map_err(Failure::input)?;
        let compute = self.before(weights.as_ref(), &tokenizer)?;
        let export = GgufExport {
            weights: weights.as_ref(),
            config: &self.files.config,
            generation_config: self.files.generation_config.as_ref(),
            tokenizer: &tokenizer,
            name: &self.name,
            origin: &origin_of(self.files),
            recipe,
            threads: self.machine.threads,
        };
        let shows = is_interactive() && !self.quiet;
        let mut progress = |name: &str, i: usize, of: usize| {
            if shows {
                crate::console::redraw!("\r\u{1b}[2K{i}/{of} {name}");
            }
        };
        let size = export.bytes().map_err(Failure::of_format)?;
        disk::check("the file", size + disk::SMALL_FILES, dir)?;
        let path = dir.join(file);
        let written = export.write(&path, &mut progress);
        if shows {
            crate::console::redraw!("\r\u{1b}[2K");
        }
        let summary = written.map_err(Failure::of_format)?;
        if weights.tensors().iter().any(|info| info.dtype.is_quantised()) && self.files.is_gguf() {
            say(
                self.quiet,
                "warning: the source is quantised already; quantising twice loses more than once",
            );
        }
        let is_precise = matches!(recipe, Recipe::F32 | Recipe::F16 | Recipe::BF16 | Recipe::Q8_0);
        let check = self.read_back(&path, is_precise, compute, Some(&summary))?;
        Ok((summary, check))
    }

    /// Before anything is written: that weights, configuration and vocabulary belong together, and how the result is
    /// compared.
    fn before(&self, weights: &dyn TensorSource, tokenizer: &Tokenizer) -> Outcome<Option<Dtype>> {
        let at = |e: &dyn std::fmt::Display| Failure::Input(format!("{}: {e}", self.files.path.display()));
        let (_, config) = decoder_config(&self.files.config).map_err(|e| at(&e))?;
        dense::check(weights, &config, &self.files.path)?;
        if let Some(problem) = dense::vocabulary_problem(tokenizer, &config) {
            return Err(at(&problem));
        }
        match self.args.no_check {
            true => Ok(None),
            false => affordable(&[(&config, &Tuning::Frozen)]).map(Some),
        }
    }

    /// What follows the weights of a directory: tokenizer, comparison, card, its place under the final name, report.
    fn finish(
        &self,
        staged: Staged,
        output: &Path,
        quant: &str,
        is_precise: bool,
        compute: Option<Dtype>,
    ) -> Outcome {
        let tokenizer = self.files.tokenizer().map_err(Failure::input)?;
        tokenizer.save(staged.dir()).map_err(Failure::of_format)?;
        let check = self.read_back(staged.dir(), is_precise, compute, None)?;
        self.describe(&staged, quant, check.as_ref())?;
        let size = size_of(staged.dir());
        self.interrupt.check()?;
        staged.publish_dir()?;
        let next = format!("llm-foundry chat {}", quoted(&output.display().to_string()));
        self.report(output, size, None, check.as_ref(), &[next])
    }

    /// The model card, and what the target says about the result.
    fn describe(&self, staged: &Staged, quant: &str, check: Option<&Check>) -> Outcome {
        let card = Card {
            name: self.name.clone(),
            base: self.args.model.clone(),
            base_id: hub_id(&self.args.model),
            license: license_of(self.files),
            made: Some(format!(
                "its weights written as {}",
                if quant == "auto" { "they are" } else { quant }
            )),
            results: check.iter().flat_map(|check| check.comparison.rows("it")).collect(),
            ..Card::default()
        };
        let path = staged.dir().join("README.md");
        std::fs::write(&path, card.to_markdown()).map_err(|e| Failure::io("write", &path, &e))?;
        match self.args.target {
            Some(_) => vllm::check(staged.dir()),
            None => Ok(()),
        }
    }

    /// Opens what was written and compares token ids, the rendered chat, weights (where `summary` tells how far they
    /// may be) and predictions with the source.
    fn read_back(
        &self,
        written: &Path,
        is_precise: bool,
        compute: Option<Dtype>,
        summary: Option<&GgufSummary>,
    ) -> Outcome<Option<Check>> {
        let Some(compute) = compute else { return Ok(None) };
        crash::reach("result.before_check", written)?;
        let broken = |e: FormatError| Failure::Run(format!("what was written cannot be read back: {e}"));
        let other = ModelFiles::open(written).map_err(broken)?;
        let source: Tokenizer = self.files.tokenizer().map_err(Failure::input)?;
        let theirs = other.tokenizer().map_err(broken)?;
        let agreement = tokenizers_agree(&source, &theirs)?.map_err(|difference| {
            Failure::Run(format!(
                "the written tokenizer is not the source's: {difference}; nothing was kept (with --no-check it would be)"
            ))
        })?;
        if let Some(summary) = summary {
            let (source, written) = (self.weights(self.files)?, other.weights().map_err(broken)?);
            rounding::is_as_written(source.as_ref(), written.as_ref(), &summary.squared_errors)?;
        }
        let at = |e: &dyn std::fmt::Display| Failure::Input(format!("{}: {e}", self.files.path.display()));
        let (_, config) = decoder_config(&self.files.config).map_err(|e| at(&e))?;
        let probes = probes(&source, config.max_position_embeddings)?;
        let all = |files: &ModelFiles, shapes: &DecoderConfig| {
            logits(
                self.weights(files)?.as_ref(),
                shapes,
                None,
                &probes,
                compute,
                (self.machine, self.interrupt),
            )
        };
        let reference = all(self.files, &config)?;
        // By the written configuration, so that a wrong one shows.
        let (_, shapes) = decoder_config(&other.config).map_err(Failure::run)?;
        let comparison = compare(&reference, &all(&other, &shapes)?, config.vocab_size, compute);
        let limit = match (is_precise, summary) {
            (true, _) => LOST,
            (false, None) => LOST_IN_FOUR_BITS,
            // Its weights are known to be as they were written, however coarse that is.
            (false, Some(_)) => f64::INFINITY,
        };
        if comparison.mean_kl > limit || comparison.is_broken() {
            return Err(Failure::Run(format!(
                "the written model does not predict what the source does ({}); nothing was kept (with --no-check it would \
                 be)",
                comparison.text()
            )));
        }
        Ok(Some(Check { agreement, comparison }))
    }

    fn report(
        &self,
        output: &Path,
        size: u64,
        summary: Option<&GgufSummary>,
        check: Option<&Check>,
        next: &[String],
    ) -> Outcome {
        let mut out = std::io::stdout();
        let warnings = summary.map(|summary| summary.warnings.as_slice()).unwrap_or_default();
        for warning in warnings {
            say(self.quiet, format!("warning: {warning}"));
        }
        for note in summary.iter().flat_map(|summary| &summary.notes) {
            say(self.quiet, format!("note: {note}"));
        }
        if self.args.json {
            let types: Option<Value> = summary.map(|summary| {
                let row = |(name, t): (&&str, &foundry_formats::gguf::TypeSummary)| {
                    (
                        (*name).to_owned(),
                        json!({
                            "tensors": t.tensors, "elements": t.elements, "bytes": t.bytes,
                            "relative_error": t.relative_error(),
                        }),
                    )
                };
                Value::Object(summary.types.iter().map(row).collect())
            });
            let report = json!({
                "output": output, "bytes": size, "types": types, "warnings": warnings,
                "texts_with_equal_ids": check.map(|c| c.agreement.texts),
                "chat": check.map(|c| c.agreement.chat), "comparison": check.map(|c| c.comparison.json()),
            });
            writeln!(out, "{report}")?;
            return Ok(());
        }
        let elements: u64 = summary.iter().flat_map(|s| s.types.values()).map(|t| t.elements).sum();
        match elements {
            0 => writeln!(out, "{}: {}", output.display(), bytes(size))?,
            n => {
                let bits = 8.0 * size as f64 / n as f64;
                writeln!(out, "{}: {}, {bits:.2} bits a weight", output.display(), bytes(size))?;
            }
        }
        for (name, t) in summary.iter().flat_map(|s| &s.types) {
            let (size, error) = (bytes(t.bytes), 100.0 * t.relative_error());
            writeln!(
                out,
                "  {name:5} {:4} tensors  {size:>8}  rounding error {error:.3} % (r.m.s.)",
                t.tensors
            )?;
        }
        match check {
            Some(check) => {
                let Agreement { texts, chat } = check.agreement;
                let weights = if summary.is_some() { "weights as written; " } else { "" };
                writeln!(out, "read back: {weights}token ids equal on {texts} texts; {chat}")?;
                writeln!(out, "source and written model: {}", check.comparison.text())?;
            }
            None => writeln!(out, "not read back (--no-check)")?,
        }
        for line in next {
            writeln!(out, "next: {line}")?;
        }
        Ok(())
    }
}
