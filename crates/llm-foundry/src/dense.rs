//! The weights of a model as dense numbers, however they are stored, for what rewrites models.

use crate::config::{self, ComputeDtype};
use crate::console;
use crate::failure::{Failure, Outcome};
use crate::machine::{Machine, dtype_name};
use foundry_formats::{ModelFiles, TensorSource, Tokenizer};
use foundry_kernels::{Backend, Dtype, Meter};
use foundry_models::{Decoder, DecoderConfig, Dequantized, QuantizedWeights, Tuning, quantized_weights};
use std::path::Path;

/// Dense weights; those that bitsandbytes stored in few bits are widened.
pub(crate) fn weights(files: &ModelFiles) -> Outcome<Box<dyn TensorSource>> {
    let weights = files.weights().map_err(Failure::input)?;
    match stored(files)? {
        None => Ok(weights),
        Some(_) => Ok(Box::new(Dequantized::of_stored(weights).map_err(Failure::input)?)),
    }
}

/// That dense `weights` are those of a model of this shape, by names and shapes; errors name `path`.
pub(crate) fn check(weights: &dyn TensorSource, config: &DecoderConfig, path: &Path) -> Outcome {
    let model = Decoder::allocate(&Meter::default(), config, &Tuning::Frozen, Dtype::F32, 1, true);
    let checked = model.and_then(|model| model.check_names(weights));
    checked.map_err(|e| Failure::Input(format!("{}: {e}", path.display())))
}

/// What is wrong where a tokenizer has ids for which an embedding of this shape has no row.
pub(crate) fn vocabulary_problem(tokenizer: &Tokenizer, config: &DecoderConfig) -> Option<String> {
    let (rows, tokens) = (config.vocab_size, tokenizer.rows());
    (tokens > rows).then(|| {
        let last = tokens - 1;
        format!(
            "the tokenizer has ids up to {last}, but the embedding has {rows} rows; it is the tokenizer of another model"
        )
    })
}

/// How the files store the layers, if in few bits.
pub(crate) fn stored(files: &ModelFiles) -> Outcome<Option<QuantizedWeights>> {
    quantized_weights(&files.config).map_err(Failure::input)
}

/// Dense weights rounded as the run that trained `adapter` rounded them: `config.resolved.yaml` tells the bits, and the
/// number format that its machine chose.
pub(crate) fn as_trained<'a>(
    files: &ModelFiles,
    adapter: &Path,
    machine: Machine,
    backend: &'a dyn Backend,
    quiet: bool,
) -> Outcome<Dequantized<'a>> {
    // A checkpoint's is one directory up.
    let above = adapter.parent().unwrap_or(Path::new("")).join("config.resolved.yaml");
    let own = adapter.join("config.resolved.yaml");
    let path = if !own.is_file() && above.is_file() { above } else { own };
    let unknown = |why: &str| {
        Failure::Input(format!(
            "--base dequantized: {}: {why}, so it is not known how the base was rounded\n  merge into it as it is (--base \
             original), or name the quantised checkpoint as MODEL",
            path.display()
        ))
    };
    if !path.is_file() {
        return Err(unknown("there is no such file"));
    }
    let resolved = config::load(&path, &[])?;
    let wanted = resolved.config.model.quantization();
    let wanted = wanted.ok_or_else(|| unknown("the adapter was not trained on quantised weights"))?;
    let weights = files.weights().map_err(Failure::input)?;
    let dtype = resolved.config.model.dtype;
    let compute = machine.compute(dtype);
    if dtype == ComputeDtype::Auto {
        let said = format!(
            "warning: {} is of a version that did not write down the number format of its machine; {}, this machine's, is \
             taken",
            path.display(),
            dtype_name(compute)
        );
        console::say(quiet, said);
    }
    Dequantized::as_trained(weights, wanted, compute, backend).map_err(Failure::input)
}
