//! Rotary embedding parameters: base, scaling, and Llama 3's factors recovered from `rope_freqs.weight`.

use std::f64::consts::TAU;

use serde_json::{Value, json};

use super::config::{has_tensor, key};
use super::{Gguf, MetaValue};
use crate::FormatError;

/// llama.cpp's base where the file states none.
const DEFAULT_THETA: f64 = 10_000.0;

/// Hugging Face's `rope_parameters` (the layout of transformers 5).
pub(super) fn parameters(gguf: &Gguf, head_dim: u64) -> Result<Value, FormatError> {
    let number = |name: &str| gguf.optional(&key(name), "a number", MetaValue::as_f64);
    let theta = number("rope.freq_base")?.unwrap_or(DEFAULT_THETA);
    let kind = gguf.optional(&key("rope.scaling.type"), "a string", MetaValue::as_str)?;
    let factor = number("rope.scaling.factor")?.or(number("rope.scale_linear")?).filter(|f| *f != 1.0);
    let factors = factors(gguf, head_dim)?;
    match (kind.unwrap_or(if factor.is_some() { "linear" } else { "none" }), factor, factors) {
        ("none", _, None) | ("linear" | "yarn", None, None) => {
            Ok(json!({ "rope_theta": theta, "rope_type": "default" }))
        }
        ("none" | "linear", None, Some(factors)) => llama3(gguf, theta, head_dim, &factors),
        ("linear", Some(factor), None) => {
            Ok(json!({ "rope_theta": theta, "rope_type": "linear", "factor": factor }))
        }
        ("yarn", Some(factor), None) => {
            let original = key("rope.scaling.original_context_length");
            let original = gguf.required(&original, "a length", MetaValue::as_u64)?;
            Ok(json!({
                "rope_theta": theta, "rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original
            }))
        }
        (kind, _, factors) => {
            let with = if factors.is_some() { " together with rope_freqs.weight" } else { "" };
            Err(gguf.unsupported(format!("rope scaling of type `{kind}`{with} is not supported")))
        }
    }
}

/// `rope_freqs.weight`: by how much each frequency is divided; `None` if absent or all ones.
fn factors(gguf: &Gguf, head_dim: u64) -> Result<Option<Vec<f32>>, FormatError> {
    let name = "rope_freqs.weight";
    if !has_tensor(gguf, name) {
        return Ok(None);
    }
    let elements = gguf.tensors().iter().find(|t| t.name == name).map_or(0, |t| t.elements());
    if elements as u64 != head_dim / 2 {
        let problem = format!("`{name}` has {elements} factors for {head_dim} head dimensions");
        return Err(gguf.unsupported(problem));
    }
    let mut factors = vec![0.0; elements];
    gguf.read_f32(name, 0, &mut factors)?;
    Ok(factors.iter().any(|&f| f != 1.0).then_some(factors))
}

/// Finds the Llama-3 parameters that give exactly these factors. All published models have low 1 and high 4; the
/// original context is tried among powers of two, and the factor is the largest of the list.
fn llama3(gguf: &Gguf, theta: f64, head_dim: u64, stored: &[f32]) -> Result<Value, FormatError> {
    let factor = stored.iter().copied().fold(1.0f32, f32::max);
    for original in [2048u64, 4096, 8192, 16384, 32768] {
        let parameters = Llama3 { factor: factor.into(), low: 1.0, high: 4.0, original: original as f64 };
        let fits = stored.iter().enumerate().all(|(i, &stored)| {
            let expected = parameters.divisor(theta, i, head_dim);
            // The converter computes in f32 and stores f32: seven digits less a few roundings.
            (f64::from(stored) - expected).abs() <= 1e-4 * expected
        });
        if fits {
            return Ok(json!({
                "rope_theta": theta,
                "rope_type": "llama3",
                "factor": f64::from(factor),
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": original,
            }));
        }
    }
    Err(gguf.unsupported(
        "`rope_freqs.weight` does not follow Llama 3's formula for any known parameters".to_owned(),
    ))
}

/// Parameters of Llama 3's rope scaling (transformers, `modeling_rope_utils.py::_compute_llama3_parameters`).
pub(super) struct Llama3 {
    pub(super) factor: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) original: f64,
}

impl Llama3 {
    /// What frequency i is divided by: 1 for short waves, `factor` for long ones, between them the inverse of a
    /// linear blend of the inverses.
    pub(super) fn divisor(&self, theta: f64, i: usize, head_dim: u64) -> f64 {
        let wavelength = TAU * theta.powf(2.0 * i as f64 / head_dim as f64);
        if wavelength < self.original / self.high {
            return 1.0;
        }
        if wavelength > self.original / self.low {
            return self.factor;
        }
        let smooth = (self.original / wavelength - self.low) / (self.high - self.low);
        1.0 / ((1.0 - smooth) / self.factor + smooth)
    }
}
