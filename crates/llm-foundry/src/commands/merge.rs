//! `llm-foundry merge`: an adapter added to its base model.

use crate::card::{Card, hub_id, license_in, license_of};
use crate::checkpoint_dir;
use crate::cli::{BaseWeights, MachineArgs, MergeArgs};
use crate::comparison::{Comparison, LOST, affordable, compare, logits, probes};
use crate::console::{bytes, say};
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
use crate::special_tokens;
use crate::staged::{Kind, Staged};
use crate::vocabulary;
use foundry_formats::{HfConfig, ModelFiles, StoredDtype, TensorSource, Tokenizer};
use foundry_kernels::{CpuBackend, Dtype};
use foundry_models::{
    DecoderConfig, LoraSpec, MergedWeights, Tuning, WeightFormat, decoder_config, model_bytes,
    with_vocabulary, write_model,
};
use serde_json::json;
use std::io::Write;
use std::path::Path;

/// Merges, checks, publishes.
pub(crate) fn run(args: &MergeArgs, machine_args: &MachineArgs) -> Outcome {
    let quiet = machine_args.quiet;
    let machine = Machine::choose(machine_args, None)?;
    if !args.adapter.join("adapter_config.json").is_file() {
        return Err(Failure::Input(format!(
            "{}: no adapter_config.json here; name the directory of an adapter in PEFT's format",
            args.adapter.display()
        )));
    }
    checkpoint_dir::check(&args.adapter)?;
    let max_shard_size = parse_size(&args.max_shard_size)?;
    let inputs = [Path::new(&args.model), &args.adapter];
    Staged::check(&args.output, Kind::Directory, args.force, &inputs)?;
    let path = find(&args.model, &args.revision, Need::Everything, quiet)?;
    let files = ModelFiles::open(&path).map_err(Failure::input)?;
    let interrupt = Interrupt::install()?;
    let job = Job { args, machine, files: &files, max_shard_size, interrupt: &interrupt, quiet };
    interrupt.ended(job.run(&inputs), &args.output)
}

/// A merge whose parts are found.
struct Job<'a> {
    args: &'a MergeArgs,
    machine: Machine,
    files: &'a ModelFiles,
    max_shard_size: u64,
    interrupt: &'a Interrupt,
    quiet: bool,
}

impl Job<'_> {
    fn run(&self, inputs: &[&Path]) -> Outcome {
        let Self { args, machine, files, max_shard_size, interrupt, quiet } = *self;
        let staged = Staged::new(&args.output, Kind::Directory, args.force, inputs)?;
        let (_, decoder) = decoder_config(&files.config)
            .map_err(|e| Failure::Input(format!("{}: {e}", files.config.path().display())))?;
        let tokenizer = tokenizer(&args.adapter, files)?;
        let base_rows = decoder.vocab_size;
        let decoder = vocabulary::grown(decoder, &tokenizer, std::iter::once(args.adapter.as_path()))?;
        let backend = machine.backend();
        let weights = interrupt.over(base(args, files, machine, &backend, quiet)?);
        let weights = with_vocabulary(weights, &decoder, Some(&args.adapter)).map_err(Failure::input)?;
        // First, or else the adapter would be blamed.
        dense::check(weights.as_ref(), &decoder, &files.path)?;
        let merged =
            MergedWeights::open(weights.as_ref(), &decoder, &args.adapter).map_err(Failure::input)?;
        let format = dtype(&args.dtype).map_or(WeightFormat::Kept, WeightFormat::Plain);
        let config = config(&files.config, &decoder, merged.unties_head());
        let check = Check::choose(args, (machine, interrupt), &merged, &tokenizer, &decoder)?;
        let size = model_bytes(&merged, &config, format).map_err(Failure::input)?;
        disk::check("the merged model", size + disk::SMALL_FILES, staged.dir())?;
        for note in notes(args, files, base_rows, decoder.vocab_size)? {
            say(quiet, note);
        }
        say(
            quiet,
            format!(
                "merging {} into {} ({} tensors change)",
                args.adapter.display(),
                args.model,
                merged.changed()
            ),
        );
        let (config, generation) =
            special_tokens::aligned(&config, files.generation_config.as_ref(), &tokenizer);
        write_model(&merged, staged.dir(), &config, generation.as_ref(), format, max_shard_size)
            .map_err(Failure::of_model)?;
        tokenizer.save(staged.dir()).map_err(Failure::run)?;
        let comparison = check.map(|check| check.compared(weights.as_ref(), staged.dir())).transpose()?;
        write_card(args, files, comparison, staged.dir())?;
        interrupt.check()?;
        let size = size_of(staged.dir());
        let written = HfConfig::read(&staged.dir().join("config.json")).map_err(Failure::run)?;
        let dtype = written.opt_str("dtype").map_err(Failure::run)?.unwrap_or("float32");
        staged.publish_dir()?;
        report(args, size, dtype, comparison)
    }
}

/// What is compared at the end.
struct Check<'a> {
    args: &'a MergeArgs,
    machine: (Machine, &'a Interrupt),
    compute: Dtype,
    tokenizer: &'a Tokenizer,
    decoder: &'a DecoderConfig,
}

impl<'a> Check<'a> {
    /// Whether there is a comparison, and that it is possible: said before anything is written.
    fn choose(
        args: &'a MergeArgs,
        machine: (Machine, &'a Interrupt),
        merged: &MergedWeights<'_>,
        tokenizer: &'a Tokenizer,
        decoder: &'a DecoderConfig,
    ) -> Outcome<Option<Self>> {
        if args.no_check {
            return Ok(None);
        }
        if !merged.runs_unmerged() {
            return Err(Failure::Input(format!(
                "{}: it has branches at the embedding or the head, which this program merges but does not run, so that the \
                 result cannot be compared with it\n  add --no-check to merge without the comparison",
                args.adapter.display()
            )));
        }
        let spec = LoraSpec::from_adapter(&args.adapter).map_err(Failure::input)?;
        let compute = affordable(&[(decoder, &Tuning::Adapted(spec)), (decoder, &Tuning::Frozen)])?;
        Ok(Some(Self { args, machine, compute, tokenizer, decoder }))
    }

    /// Base with adapter, and what was written, on the same texts.
    fn compared(&self, base: &dyn TensorSource, written: &Path) -> Outcome<Comparison> {
        let Self { args, machine, compute, tokenizer, decoder } = *self;
        crash::reach("result.before_check", written)?;
        let probes = probes(tokenizer, decoder.max_position_embeddings)?;
        let reference = logits(base, decoder, Some(&args.adapter), &probes, compute, machine)?;
        let written = ModelFiles::open(written).map_err(Failure::run)?;
        // Its own configuration: the head may have been untied.
        let (_, shapes) = decoder_config(&written.config).map_err(Failure::run)?;
        let written = machine.1.over(written.weights().map_err(Failure::run)?);
        let other = logits(written.as_ref(), &shapes, None, &probes, compute, machine)?;
        let comparison = compare(&reference, &other, decoder.vocab_size, compute);
        if comparison.is_broken() || comparison.mean_kl > LOST {
            return Err(Failure::Run(format!(
                "the merged model does not predict what base and adapter do ({}); nothing was kept (with --no-check it \
                 would be)",
                comparison.text()
            )));
        }
        Ok(comparison)
    }
}

/// What a user should know although nothing is wrong with the files.
fn notes(args: &MergeArgs, files: &ModelFiles, base_rows: usize, rows: usize) -> Outcome<Vec<String>> {
    let mut notes = Vec::new();
    let config = HfConfig::read(&args.adapter.join("adapter_config.json")).map_err(Failure::input)?;
    let named = config.opt_str("base_model_name_or_path").map_err(Failure::input)?.unwrap_or_default();
    // One model has many paths: only its own name is compared.
    let own = |name: &str| name.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_lowercase();
    let is_other = ![own(&args.model), own(&files.path.to_string_lossy())].contains(&own(named));
    if !named.is_empty() && is_other && !same_place(Path::new(named), &files.path) {
        notes.push(format!(
            "warning: {} says that it belongs to `{named}`, and is merged into `{}`: shapes fit, but be sure that the \
             weights are the same",
            args.adapter.display(),
            args.model
        ));
    }
    if rows > base_rows {
        notes.push(format!(
            "note: embedding and head get {} rows more, for tokens of the adapter",
            rows - base_rows
        ));
    }
    Ok(notes)
}

fn same_place(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn write_card(args: &MergeArgs, files: &ModelFiles, comparison: Option<Comparison>, dir: &Path) -> Outcome {
    let own = std::fs::read_to_string(args.adapter.join("README.md")).ok();
    let card = Card {
        name: names::of_model(&args.output),
        base: args.model.clone(),
        base_id: hub_id(&args.model),
        license: own.and_then(|card| license_in(&card)).or_else(|| license_of(files)),
        made: Some(format!("the adapter `{}` was added to its weights", names::of_model(&args.adapter))),
        results: comparison.iter().flat_map(|c| c.rows("base with adapter")).collect(),
        ..Card::default()
    };
    let path = dir.join("README.md");
    std::fs::write(&path, card.to_markdown()).map_err(|e| Failure::io("write", &path, &e))
}

fn report(args: &MergeArgs, size: u64, dtype: &str, comparison: Option<Comparison>) -> Outcome {
    let mut out = std::io::stdout();
    if args.json {
        let report = json!({
            "output": args.output, "bytes": size, "comparison": comparison.map(|c| c.json()),
        });
        writeln!(out, "{report}")?;
        return Ok(());
    }
    writeln!(out, "{}: {}, {dtype}", args.output.display(), bytes(size))?;
    match comparison {
        Some(comparison) => {
            let rounded = match dtype {
                "float32" => String::new(),
                _ => format!("; that includes rounding the merged weights to {dtype}"),
            };
            writeln!(out, "base with adapter and merged model: {}{rounded}", comparison.text())?;
        }
        None => writeln!(out, "not compared with the adapter (--no-check)")?,
    }
    let merged = quoted(&args.output.display().to_string());
    writeln!(out, "next: llm-foundry chat {merged}")?;
    writeln!(out, "next: llm-foundry export {merged} --to gguf --quant q4_k_m")?;
    Ok(())
}

/// The base's weights as `--base` asks.
fn base<'a>(
    args: &MergeArgs,
    files: &ModelFiles,
    machine: Machine,
    backend: &'a CpuBackend,
    quiet: bool,
) -> Outcome<Box<dyn TensorSource + 'a>> {
    match (args.base, dense::stored(files)?) {
        (Some(BaseWeights::Original), Some(_)) => Err(Failure::Input(format!(
            "--base original: {} is stored in few bits, and its original weights are not in there\n  name the unquantised \
             model, or merge into these with --base dequantized",
            args.model
        ))),
        (Some(BaseWeights::Dequantized), None) => {
            Ok(Box::new(dense::as_trained(files, &args.adapter, machine, backend, quiet)?))
        }
        _ => Ok(dense::weights(files)?),
    }
}

/// The adapter's tokenizer where it has one: training may have changed tokens or template.
fn tokenizer(adapter: &Path, files: &ModelFiles) -> Outcome<Tokenizer> {
    match adapter.join("tokenizer.json").is_file() {
        true => Tokenizer::from_dir(adapter),
        false => files.tokenizer(),
    }
    .map_err(Failure::input)
}

fn config(base: &HfConfig, decoder: &DecoderConfig, unties_head: bool) -> HfConfig {
    let mut config = base.clone();
    config.0.insert("vocab_size".into(), json!(decoder.vocab_size));
    if unties_head {
        config.0.insert("tie_word_embeddings".into(), json!(false));
    }
    config
}

/// `None`: as stored.
fn dtype(name: &str) -> Option<StoredDtype> {
    match name {
        "float32" => Some(StoredDtype::F32),
        "float16" => Some(StoredDtype::F16),
        "bfloat16" => Some(StoredDtype::BF16),
        _ => None,
    }
}

/// `50GB`, `500MB` (decimal, as huggingface_hub reads them), or bytes.
pub(super) fn parse_size(text: &str) -> Outcome<u64> {
    let text = text.trim();
    let units = [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1000), ("", 1)];
    let upper = text.to_ascii_uppercase();
    let parsed = units.iter().find_map(|(unit, factor)| {
        let number: u64 = upper.strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(*factor).filter(|&size| size > 0)
    });
    parsed.ok_or_else(|| {
        Failure::Input(format!("--max-shard-size: `{text}` is not a size; write for example 5GB or 500MB"))
    })
}

pub(super) fn size_of(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).filter(|m| m.is_file()).map(|m| m.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_are_decimal_and_nonsense_is_refused() {
        assert_eq!(parse_size("5GB").expect("a size"), 5_000_000_000);
        assert_eq!(parse_size(" 300 mb").expect("a size"), 300_000_000);
        assert_eq!(parse_size("4096").expect("a size"), 4096);
        for wrong in ["", "GB", "0", "-1GB", "5 XB", "99999999999TB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
