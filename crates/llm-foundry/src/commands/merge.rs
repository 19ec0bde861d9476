//! `llm-foundry merge`: an adapter added to its base model.

use crate::cli::{BaseWeights, MachineArgs, MergeArgs};
use crate::comparison::{Comparison, compare, logits, probes};
use crate::config::ComputeDtype;
use crate::console::{bytes, say};
use crate::dense;
use crate::disk;
use crate::failure::{Failure, Outcome};
use crate::hub::Need;
use crate::machine::Machine;
use crate::model_source::find;
use crate::staged::Staged;
use crate::vocabulary;
use foundry_formats::{HfConfig, ModelFiles, StoredDtype, TensorSource, Tokenizer};
use foundry_kernels::CpuBackend;
use foundry_models::{
    DecoderConfig, MergedWeights, WeightFormat, decoder_config, model_bytes, with_vocabulary, write_model,
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
    let max_shard_size = parse_size(&args.max_shard_size)?;
    let staged = Staged::new(&args.output, args.force)?;
    let path = find(&args.model, &args.revision, Need::Everything, quiet)?;
    let files = ModelFiles::open(&path).map_err(Failure::input)?;
    let (_, decoder) = decoder_config(&files.config)
        .map_err(|e| Failure::Input(format!("{}: {e}", files.config.path().display())))?;
    let tokenizer = tokenizer(&args.adapter, &files)?;
    let decoder = vocabulary::grown(decoder, &tokenizer, std::iter::once(args.adapter.as_path()))?;
    let backend = machine.backend();
    let weights = base(args, &files, machine, &backend)?;
    let weights = with_vocabulary(weights, &decoder, Some(&args.adapter)).map_err(Failure::input)?;
    let merged = MergedWeights::open(weights.as_ref(), &decoder, &args.adapter).map_err(Failure::input)?;
    let format = dtype(&args.dtype).map_or(WeightFormat::Kept, WeightFormat::Plain);
    let config = config(&files.config, &decoder, merged.unties_head());
    let size = model_bytes(&merged, &config, format).map_err(Failure::input)?;
    disk::check("the merged model", size + disk::SMALL_FILES, &args.output)?;
    say(
        quiet,
        format!(
            "merging {} into {} ({} tensors change)",
            args.adapter.display(),
            args.model,
            merged.changed()
        ),
    );
    let generation = files.generation_config.as_ref();
    write_model(&merged, staged.dir(), &config, generation, format, max_shard_size)
        .map_err(Failure::of_model)?;
    tokenizer.save(staged.dir()).map_err(Failure::run)?;
    let comparison = match args.no_check {
        true => None,
        false => Some(compared(args, machine, &tokenizer, weights.as_ref(), &decoder, staged.dir())?),
    };
    if let Some(comparison) = comparison.filter(|c| !c.largest_logit_difference.is_finite()) {
        return Err(Failure::Run(format!(
            "the merged model does not compute numbers ({})",
            comparison.text()
        )));
    }
    let size = size_of(staged.dir());
    staged.publish_dir()?;
    report(args, size, comparison)
}

/// Base with adapter, and what was written, on the same texts.
fn compared(
    args: &MergeArgs,
    machine: Machine,
    tokenizer: &Tokenizer,
    base: &dyn TensorSource,
    decoder: &DecoderConfig,
    written: &Path,
) -> Outcome<Comparison> {
    let probes = probes(tokenizer, decoder.max_position_embeddings)?;
    let reference = logits(base, decoder, Some(&args.adapter), &probes, machine)?;
    let written = ModelFiles::open(written).map_err(Failure::run)?;
    // Its own configuration: the head may have been untied.
    let (_, shapes) = decoder_config(&written.config).map_err(Failure::run)?;
    let written = written.weights().map_err(Failure::run)?;
    let other = logits(written.as_ref(), &shapes, None, &probes, machine)?;
    Ok(compare(&reference, &other, decoder.vocab_size))
}

fn report(args: &MergeArgs, size: u64, comparison: Option<Comparison>) -> Outcome {
    let mut out = std::io::stdout();
    if args.json {
        let report = json!({
            "output": args.output, "bytes": size, "comparison": comparison.map(|c| c.json()),
        });
        writeln!(out, "{report}")?;
        return Ok(());
    }
    writeln!(out, "{}: {}", args.output.display(), bytes(size))?;
    match comparison {
        Some(comparison) => writeln!(out, "adapter and merged model: {}", comparison.text())?,
        None => writeln!(out, "not compared with the adapter (--no-check)")?,
    }
    Ok(())
}

/// The base's weights as `--base` asks.
fn base<'a>(
    args: &MergeArgs,
    files: &ModelFiles,
    machine: Machine,
    backend: &'a CpuBackend,
) -> Outcome<Box<dyn TensorSource + 'a>> {
    match (args.base, dense::stored(files)?) {
        (Some(BaseWeights::Original), Some(_)) => Err(Failure::Input(format!(
            "--base original: {} is stored in few bits, and its original weights are not in there\n  name the unquantised \
             model, or merge into these with --base dequantized",
            args.model
        ))),
        (Some(BaseWeights::Dequantized), None) => {
            let compute = machine.compute(ComputeDtype::Auto);
            Ok(Box::new(dense::as_trained(files, &args.adapter, compute, backend)?))
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
