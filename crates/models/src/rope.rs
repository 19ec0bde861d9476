//! Rotary position embedding: inverse frequencies, their scalings and the table the kernels read.
//!
//! Every formula is that of transformers 5.23, `modeling_rope_utils.py`, in float32 as there: default (Su et al. 2021),
//! linear (position interpolation, Chen et al. 2023), llama3 (Llama 3.1), yarn (Peng et al. 2023).

use crate::ModelError;
use crate::config::{flag, only};
use foundry_formats::HfConfig;
use serde_json::Value;
use std::f64::consts::PI;

/// Base and scaling of the rotation.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base wavelength, `rope_theta`.
    pub theta: f64,
    /// How the frequencies are stretched for long contexts.
    pub scaling: RopeScaling,
}

/// Scalings of the inverse frequencies, by the name that `rope_type` has in config.json.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// `default`: none.
    Default,
    /// `linear`: all frequencies divided by a factor.
    Linear {
        /// How much longer contexts become.
        factor: f64,
    },
    /// `llama3`: long wavelengths divided, short ones kept, those between interpolated.
    Llama3 {
        /// How much longer contexts become.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context length of the pre-training.
        original_max_position_embeddings: f64,
    },
    /// `yarn`: a ramp over the dimensions, and a factor on cosine and sine.
    Yarn {
        /// How much longer contexts become.
        factor: f64,
        /// Context length of the pre-training.
        original_max_position_embeddings: f64,
        /// Factor on the table, given or derived from `factor` and `mscale`.
        attention_factor: f64,
        /// Rotations above which dimensions are kept.
        beta_fast: f64,
        /// Rotations below which dimensions are divided.
        beta_slow: f64,
        /// Round the ends of the ramp to whole dimensions.
        truncate: bool,
    },
}

impl Rope {
    /// Reads `rope_parameters` (transformers 5) or `rope_scaling` + `rope_theta` (before). `max_positions`: the
    /// model's `max_position_embeddings`.
    pub(crate) fn from_config(hf: &HfConfig, max_positions: usize) -> Result<Self, ModelError> {
        let older = hf.opt_object("rope_scaling")?.is_some_and(|map| !map.is_empty());
        let at = if older { "rope_scaling" } else { "rope_parameters" };
        if hf.opt_object(at)?.is_some_and(|map| map.values().any(Value::is_object)) {
            let remedy = "choose a model with one rotation for all layers".into();
            return Err(ModelError::Unsupported {
                what: format!("`{at}` that differ by layer type"),
                remedy,
            });
        }
        for key in ["partial_rotary_factor".to_string(), format!("{at}.partial_rotary_factor")] {
            only(hf, &key, &Value::from(1.0), "choose a model that rotates whole heads")?;
        }
        let theta = match hf.opt_f64(&format!("{at}.rope_theta"))? {
            Some(theta) => theta,
            None => hf.opt_f64("rope_theta")?.unwrap_or(10_000.0),
        };
        if theta.is_nan() || theta <= 1.0 {
            return Err(bad("rope_theta".into(), theta, "a number above 1".into()));
        }
        Ok(Self { theta, scaling: RopeScaling::from_config(hf, at, max_positions as f64)? })
    }

    /// Factor on cosine and sine (1 except for yarn).
    pub fn attention_factor(&self) -> f32 {
        match self.scaling {
            RopeScaling::Yarn { attention_factor, .. } => attention_factor as f32,
            _ => 1.0,
        }
    }

    /// Radians per position of each pair of a head of `head_dim` dimensions: `head_dim / 2` numbers.
    pub fn inverse_frequencies(&self, head_dim: usize) -> Vec<f32> {
        let powers: Vec<f32> = (0..head_dim)
            .step_by(2)
            .map(|i| self.theta.powf(f64::from(i as f32 / head_dim as f32)) as f32)
            .collect();
        let plain = powers.iter().map(|power| 1.0 / power);
        match self.scaling {
            RopeScaling::Default => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|f| f / factor as f32).collect(),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings: old,
            } => plain.map(|f| llama3(f, factor, low_freq_factor, high_freq_factor, old)).collect(),
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings,
                beta_fast,
                beta_slow,
                truncate,
                ..
            } => {
                let end = |rotations: f64| {
                    let ratio = original_max_position_embeddings / (rotations * 2.0 * PI);
                    head_dim as f64 * ratio.ln() / (2.0 * self.theta.ln())
                };
                let (low, high) = match truncate {
                    true => (end(beta_fast).floor(), end(beta_slow).ceil()),
                    false => (end(beta_fast), end(beta_slow)),
                };
                yarn(&powers, factor as f32, low.max(0.0), high.min(head_dim as f64 - 1.0))
            }
        }
    }

    /// The kernels' table `[positions, head_dim]`: for each position the cosines of all pairs, then the sines.
    pub fn table(&self, head_dim: usize, positions: usize) -> Vec<f32> {
        let frequencies = self.inverse_frequencies(head_dim);
        let factor = self.attention_factor();
        let mut table = Vec::with_capacity(positions * head_dim);
        for position in 0..positions {
            // The product is rounded to float32 as in transformers; the functions of it are then exact.
            let angle = |f: &f32| f64::from(f * position as f32);
            table.extend(frequencies.iter().map(|f| angle(f).cos() as f32 * factor));
            table.extend(frequencies.iter().map(|f| angle(f).sin() as f32 * factor));
        }
        table
    }
}

fn llama3(frequency: f32, factor: f64, low: f64, high: f64, old: f64) -> f32 {
    let wavelength = (2.0 * PI) as f32 / frequency;
    let (longest_kept, shortest_divided) = ((old / high) as f32, (old / low) as f32);
    if wavelength < longest_kept {
        return frequency;
    }
    if wavelength > shortest_divided {
        return frequency / factor as f32;
    }
    let smooth = (old as f32 / wavelength - low as f32) / (high - low) as f32;
    (1.0 - smooth) * frequency / factor as f32 + smooth * frequency
}

/// `powers[i] = θ^(2i/H)`; `low..high` is the ramp in dimensions.
fn yarn(powers: &[f32], factor: f32, low: f64, high: f64) -> Vec<f32> {
    // transformers keeps the ramp from having no width in the same way.
    let high = if low == high { high + 0.001 } else { high };
    let ramp = |i: usize| ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
    powers
        .iter()
        .enumerate()
        .map(|(i, power)| {
            let kept = 1.0 - ramp(i);
            1.0 / (factor * power) * (1.0 - kept) + 1.0 / power * kept
        })
        .collect()
}

fn bad(key: String, found: f64, expected: String) -> ModelError {
    ModelError::ConfigValue { key, found: found.to_string(), expected }
}

impl RopeScaling {
    /// `at`: the object of the configuration that holds the scaling.
    fn from_config(hf: &HfConfig, at: &str, max_positions: f64) -> Result<Self, ModelError> {
        let kind = match hf.opt_str(&format!("{at}.rope_type"))? {
            Some(kind) => kind,
            None => hf.opt_str(&format!("{at}.type"))?.unwrap_or("default"),
        };
        let positive = |key: &str| -> Result<f64, ModelError> {
            let key = format!("{at}.{key}");
            match hf.f64(&key)? {
                value if value > 0.0 => Ok(value),
                value => Err(bad(key, value, "a positive number".into())),
            }
        };
        match kind {
            "default" => Ok(RopeScaling::Default),
            "linear" => Ok(RopeScaling::Linear { factor: positive("factor")? }),
            "llama3" => {
                let (low, high) = (positive("low_freq_factor")?, positive("high_freq_factor")?);
                if high <= low {
                    let expected = format!("a number above low_freq_factor = {low}");
                    return Err(bad(format!("{at}.high_freq_factor"), high, expected));
                }
                Ok(RopeScaling::Llama3 {
                    factor: positive("factor")?,
                    low_freq_factor: low,
                    high_freq_factor: high,
                    original_max_position_embeddings: original_positions(hf, at, max_positions)?,
                })
            }
            "yarn" => Self::yarn(hf, at, max_positions),
            other => Err(ModelError::Unsupported {
                what: format!("rope_type {other:?}"),
                remedy:
                    "supported are default, linear, llama3 and yarn: choose a checkpoint with one of these"
                        .into(),
            }),
        }
    }

    fn yarn(hf: &HfConfig, at: &str, max_positions: f64) -> Result<Self, ModelError> {
        let original = original_positions(hf, at, max_positions)?;
        let number = |key: &str| hf.opt_f64(&format!("{at}.{key}"));
        let factor = match number("factor")? {
            Some(factor) => factor,
            None => max_positions / original,
        };
        if factor.is_nan() || factor <= 0.0 {
            return Err(bad(format!("{at}.factor"), factor, "a positive number".into()));
        }
        // Peng et al. 2023, section 3.4; DeepSeek's two `mscale`s as in transformers, where 0 counts as absent.
        let scale = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
        let truthy = |key: &str| Ok::<_, ModelError>(number(key)?.filter(|v| *v != 0.0));
        let attention_factor =
            match (number("attention_factor")?, truthy("mscale")?, truthy("mscale_all_dim")?) {
                (Some(given), _, _) => given,
                (None, Some(mscale), Some(all)) => scale(mscale) / scale(all),
                _ => scale(1.0),
            };
        Ok(RopeScaling::Yarn {
            factor,
            original_max_position_embeddings: original,
            attention_factor,
            beta_fast: truthy("beta_fast")?.unwrap_or(32.0),
            beta_slow: truthy("beta_slow")?.unwrap_or(1.0),
            truncate: flag(hf, &format!("{at}.truncate"), true)?,
        })
    }
}

/// Context length of the pre-training. transformers: a key beside the scaling wins, and where there is none
/// `max_position_embeddings` stands in.
fn original_positions(hf: &HfConfig, at: &str, max_positions: f64) -> Result<f64, ModelError> {
    let key = "original_max_position_embeddings";
    let value = match (hf.opt_f64(key)?, hf.opt_f64(&format!("{at}.{key}"))?) {
        (Some(outer), _) => outer,
        (None, Some(inner)) => inner,
        (None, None) => max_positions,
    };
    if value > 0.0 { Ok(value) } else { Err(bad(key.into(), value, "a positive number".into())) }
}
