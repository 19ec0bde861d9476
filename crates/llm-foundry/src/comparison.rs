//! Two models on the same texts: how far their predictions are apart.

use crate::console::bytes;
use crate::failure::{Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::machine::{Machine, available_memory, dtype_name};
use foundry_data::Message;
use foundry_data::chat::ChatTemplate;
use foundry_formats::{TensorSource, Tokenizer};
use foundry_kernels::{Allocator, Dtype, Meter};
use foundry_models::{Decoder, DecoderConfig, LoraSpec, Tuning};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Above this mean divergence in nats a file of 8 bits or more does not hold the source: rounding to 8 bits stays below
/// 0.01.
pub(crate) const LOST: f64 = 0.1;
/// Above this nothing of the source's predictions is left: rounding to four bits changes them by some 0.1 nats.
pub(crate) const LOST_IN_FOUR_BITS: f64 = 2.0;
/// Longest text that is compared, in tokens.
const LONGEST: usize = 48;
/// Ordinary words, numbers, other scripts, code, spaces: what tokenizers differ on.
const TEXTS: [&str; 5] = [
    "The quick brown fox jumps over the lazy dog, and nobody's surprised: it's 1984, or 10,000 years later.",
    "Grüße aus Zürich! 你好，世界。 Привет, мир. Ünïcödé\u{a0}🙂 ½ ²",
    "fn main() {\n    let x = 3.14159;\n\tprintln!(\"{x:>10}\");  // done\n}\n",
    "   leading spaces,  double  spaces,\n\n\nnew lines and a trailing space ",
    "Question: What is the capital of France?\nAnswer: The capital of France is",
];

/// Predictions of two models compared.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Comparison {
    /// Tokens after which they were compared.
    pub(crate) positions: usize,
    /// Largest difference of two logits.
    pub(crate) largest_logit_difference: f64,
    /// Mean Kullback-Leibler divergence of the second from the first, in nats.
    pub(crate) mean_kl: f64,
    /// Share of positions where both find the same token most likely.
    pub(crate) same_top_token: f64,
    /// Number format of the products: bfloat16 where float32 does not fit into memory.
    pub(crate) computed_in: &'static str,
}

/// Texts as token ids, with a conversation where there is a template.
pub(crate) fn probes(tokenizer: &Tokenizer, most: usize) -> Outcome<Vec<Vec<u32>>> {
    let mut probes: Vec<Vec<u32>> = Vec::new();
    for text in TEXTS {
        probes.push(tokenizer.encode(text, true).map_err(Failure::input)?);
    }
    if let Ok(Some(text)) = rendered(tokenizer) {
        probes.push(tokenizer.encode(&text, false).map_err(Failure::input)?);
    }
    probes.iter_mut().for_each(|ids| ids.truncate(LONGEST.min(most)));
    probes.retain(|ids| !ids.is_empty());
    Ok(probes)
}

/// A conversation through the tokenizer's chat template; `None` without one.
pub(crate) fn rendered(tokenizer: &Tokenizer) -> Outcome<Option<String>> {
    let Some(source) = tokenizer.chat_template() else { return Ok(None) };
    let template = ChatTemplate::compile(source, tokenizer.special_tokens()).map_err(Failure::input)?;
    let message = |role: &str, text: &str| Message {
        role: role.into(),
        content: json!(text),
        rest: Map::new(),
        learn: None,
    };
    let messages =
        [message("user", "What is 12 + 30?"), message("assistant", "It is 42."), message("user", "Why?")];
    let rendered = template.render(&messages, None, true, &Map::new()).map_err(Failure::input)?;
    Ok(Some(rendered.text))
}

/// What two tokenizers have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agreement {
    /// Texts with the same ids.
    pub(crate) texts: usize,
    /// About the chat template.
    pub(crate) chat: &'static str,
}

/// That two tokenizers give the same ids and the same conversation; else what differs.
pub(crate) fn tokenizers_agree(
    source: &Tokenizer,
    written: &Tokenizer,
) -> Outcome<Result<Agreement, String>> {
    let (ours, theirs) = (rendered(source), rendered(written));
    let chat = match (&ours, &theirs) {
        (Ok(None), Ok(None)) => "no chat template",
        (Ok(ours), Ok(theirs)) if ours == theirs => "rendered chat equal",
        (Ok(_), _) => return Ok(Err("the chat template renders another conversation".into())),
        (Err(_), _) if source.chat_template() == written.chat_template() => {
            "chat template equal, but it refuses the conversation that is compared"
        }
        (Err(_), _) => return Ok(Err("it has another chat template".into())),
    };
    let conversation = ours.ok().flatten();
    for text in TEXTS.iter().copied().chain(conversation.as_deref()) {
        for special in [true, false] {
            let ids = |tokenizer: &Tokenizer| tokenizer.encode(text, special).map_err(Failure::input);
            let (ours, theirs) = (ids(source)?, ids(written)?);
            if ours != theirs {
                let at = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
                let message = format!("{text:?} gets other token ids from the {}th on", at + 1);
                return Ok(Err(message));
            }
        }
    }
    Ok(Ok(Agreement { texts: TEXTS.len() + usize::from(conversation.is_some()), chat }))
}

/// The number format in which models of these shapes and tunings can be run one after the other: float32 if there is
/// memory for it, else bfloat16.
///
/// # Errors
/// No memory for either: said before anything is written.
pub(crate) fn affordable(shapes: &[(&DecoderConfig, &Tuning)]) -> Outcome<Dtype> {
    let needed = |compute: Dtype| -> Outcome<u64> {
        let mut most = 0;
        for (config, tuning) in shapes {
            let meter = Meter::default();
            Decoder::allocate(&meter, config, tuning, compute, LONGEST, true).map_err(Failure::input)?;
            let weights = meter.allocated().iter().fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
            // Logits of both models, in float32.
            let logits = 2 * 4 * ((TEXTS.len() + 1) * LONGEST * config.vocab_size) as u64;
            most = most.max(weights.saturating_add(logits));
        }
        Ok(most)
    };
    let Some(available) = available_memory() else { return Ok(Dtype::F32) };
    for compute in [Dtype::F32, Dtype::Bf16] {
        if needed(compute)? <= available {
            return Ok(compute);
        }
    }
    Err(Failure::Input(format!(
        "not enough memory to compare predictions afterwards: that needs {}, and {} are available\n  add --no-check to do \
         without the comparison; the rest needs little memory",
        bytes(needed(Dtype::Bf16)?),
        bytes(available)
    )))
}

/// Logits `[T, V]` of each probe. `weights`: with as many rows as `config` says.
pub(crate) fn logits(
    weights: &dyn TensorSource,
    config: &DecoderConfig,
    adapter: Option<&Path>,
    probes: &[Vec<u32>],
    compute: Dtype,
    (machine, interrupt): (Machine, &Interrupt),
) -> Outcome<Vec<Vec<f32>>> {
    let tuning = match adapter {
        Some(dir) => Tuning::Adapted(LoraSpec::from_adapter(dir).map_err(Failure::input)?),
        None => Tuning::Frozen,
    };
    let backend = machine.backend();
    let longest = probes.iter().map(Vec::len).max().unwrap_or(1);
    let mut decoder =
        Decoder::allocate(&backend, config, &tuning, compute, longest, true).map_err(Failure::input)?;
    decoder.load(&backend, weights).map_err(Failure::input)?;
    if let Some(dir) = adapter {
        decoder.load_adapter(&backend, dir).map_err(Failure::input)?;
    }
    let mut all = Vec::new();
    for ids in probes {
        interrupt.check()?;
        all.push(decoder.logits(&backend, ids, &[ids.len() as u32]).map_err(Failure::input)?);
    }
    Ok(all)
}

/// Compares logits of the same probes.
pub(crate) fn compare(
    reference: &[Vec<f32>],
    other: &[Vec<f32>],
    vocabulary: usize,
    compute: Dtype,
) -> Comparison {
    let (mut positions, mut largest, mut divergence, mut same) = (0usize, 0f64, 0f64, 0usize);
    let rows = reference.iter().zip(other).flat_map(|(a, b)| a.chunks(vocabulary).zip(b.chunks(vocabulary)));
    for (a, b) in rows {
        positions += 1;
        let difference = a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs()));
        largest = difference.fold(largest, |most, d| if d > most || d.is_nan() { d } else { most });
        divergence += kl(a, b);
        same += usize::from(top(a) == top(b));
    }
    let count = positions.max(1) as f64;
    Comparison {
        positions,
        largest_logit_difference: largest,
        mean_kl: divergence / count,
        same_top_token: same as f64 / count,
        computed_in: dtype_name(compute),
    }
}

fn top(logits: &[f32]) -> usize {
    let better = |best: usize, i: usize| if logits[i] > logits[best] { i } else { best };
    (0..logits.len()).fold(0, better)
}

/// Σ p·(log p − log q) with p and q the softmax of the rows.
fn kl(a: &[f32], b: &[f32]) -> f64 {
    let log_sum = |x: &[f32]| {
        let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        f64::from(most) + x.iter().map(|v| f64::from(v - most).exp()).sum::<f64>().ln()
    };
    let (za, zb) = (log_sum(a), log_sum(b));
    a.iter()
        .zip(b)
        .map(|(a, b)| {
            let log_p = f64::from(*a) - za;
            log_p.exp() * (log_p - (f64::from(*b) - zb))
        })
        .sum()
}

/// A number with two or three digits that count.
fn figure(x: f64) -> String {
    match x.abs() {
        size if size >= 1.0 => format!("{x:.2}"),
        size if size >= 0.01 => format!("{x:.3}"),
        size if size > 0.0 => format!("{x:.1e}"),
        _ => x.to_string(),
    }
}

impl Comparison {
    /// Something is no number.
    pub(crate) fn is_broken(&self) -> bool {
        !self.largest_logit_difference.is_finite() || !self.mean_kl.is_finite()
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        format!(
            "the same most likely token at {} of {} positions; mean KL divergence {} nats, largest difference of logits {} \
             (computed in {})",
            (self.same_top_token * self.positions as f64).round(),
            self.positions,
            figure(self.mean_kl),
            figure(self.largest_logit_difference),
            self.computed_in
        )
    }

    /// Rows of a model card's table.
    pub(crate) fn rows(&self, with: &str) -> [(String, String); 3] {
        [
            (
                format!("largest difference of logits to {with}"),
                format!("{:.2e}", self.largest_logit_difference),
            ),
            (format!("mean KL divergence from {with}, nats"), format!("{:.2e}", self.mean_kl)),
            ("the same most likely token".into(), format!("{:.1} %", 100.0 * self.same_top_token)),
        ]
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_have_no_distance_and_others_the_textbooks() {
        let a = vec![vec![0.0, 1.0, 2.0, 3.0, 1.0, 0.0]];
        let same = compare(&a, &a, 3, Dtype::F32);
        assert_eq!((same.positions, same.largest_logit_difference, same.same_top_token), (2, 0.0, 1.0));
        assert!(same.mean_kl.abs() < 1e-12);
        // p = (1/2, 1/2), q = (1/4, 3/4): KL = ln 2 − ½ ln 3.
        let other = compare(&[vec![0.0, 0.0]], &[vec![0.0, 3f32.ln()]], 2, Dtype::F32);
        assert!((other.mean_kl - (2f64.ln() - 0.5 * 3f64.ln())).abs() < 1e-6);
        assert_eq!(other.same_top_token, 0.0);
        let broken = compare(&[vec![0.0, 0.0]], &[vec![f32::NAN, 0.0]], 2, Dtype::F32);
        assert!(broken.largest_logit_difference.is_nan() && broken.is_broken());
        assert!(
            other
                .text()
                .starts_with("the same most likely token at 0 of 1 positions; mean KL divergence 0.144 nats")
        );
        assert_eq!([0.0, 3e-7, 11.1, f64::NAN].map(figure), ["0", "3.0e-7", "11.10", "NaN"]);
    }
}
