//! Choosing the next token from its logits, under the names and formulas of transformers 5.23 `generation`.

use crate::ModelError;
use foundry_formats::torch_rng::Mt19937;
use serde::{Deserialize, Serialize};

/// How text is continued; names and defaults are those of transformers' `GenerationConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// Draw from the distribution; otherwise the likeliest token is taken and the settings below but
    /// `repetition_penalty` have no effect.
    pub do_sample: bool,
    /// The logits are divided by this.
    pub temperature: f64,
    /// Only this many of the likeliest tokens; 0: all.
    pub top_k: usize,
    /// Only the likeliest tokens whose probabilities add up to this.
    pub top_p: f64,
    /// Only tokens with at least this fraction of the likeliest token's probability.
    pub min_p: Option<f64>,
    /// Logits of tokens that occurred (prompt included) are divided by this if positive, else multiplied (Keskar et
    /// al. 2019).
    pub repetition_penalty: f64,
    /// Most tokens to generate.
    pub max_new_tokens: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            do_sample: false,
            temperature: 1.0,
            top_k: 50,
            top_p: 1.0,
            min_p: None,
            repetition_penalty: 1.0,
            max_new_tokens: 256,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// [`ModelError::Sampling`] names the setting, its value and its range.
    pub fn check(&self) -> Result<(), ModelError> {
        // Logits are divided in f32, where 1e-50 is 0.
        let divides = |value: f64| value as f32 > 0.0 && (value as f32).is_finite();
        let checks = [
            (
                "temperature",
                self.temperature,
                divides(self.temperature),
                "a positive number (greedy: do_sample false)",
            ),
            ("top_p", self.top_p, (0.0..=1.0).contains(&self.top_p), "a number from 0 to 1"),
            (
                "min_p",
                self.min_p.unwrap_or(0.0),
                (0.0..=1.0).contains(&self.min_p.unwrap_or(0.0)),
                "a number from 0 to 1",
            ),
            (
                "repetition_penalty",
                self.repetition_penalty,
                divides(self.repetition_penalty),
                "a positive number",
            ),
        ];
        for (key, value, holds, expected) in checks {
            if !holds || !value.is_finite() {
                return Err(ModelError::Sampling { key, found: value.to_string(), expected });
            }
        }
        Ok(())
    }
}

/// Draws tokens for one sequence.
pub struct Sampler {
    sampling: Sampling,
    rng: Mt19937,
    /// Tokens by falling logit, reused from token to token.
    order: Vec<u32>,
}

impl Sampler {
    /// A sampler at the start of its seed.
    ///
    /// # Errors
    /// As [`Sampling::check`].
    pub fn new(sampling: &Sampling) -> Result<Self, ModelError> {
        sampling.check()?;
        Ok(Self { rng: Mt19937::seeded(sampling.seed), sampling: sampling.clone(), order: Vec::new() })
    }

    /// The next token after `seen`. `logits` are changed.
    pub fn next(&mut self, logits: &mut [f32], seen: &[u32]) -> u32 {
        self.penalise(logits, seen);
        if !self.sampling.do_sample {
            return greedy(logits);
        }
        let temperature = self.sampling.temperature as f32;
        logits.iter_mut().for_each(|logit| *logit /= temperature);
        let order = &mut self.order;
        order.clear();
        order.extend(0..logits.len() as u32);
        // NaN sorts last, so that it is never drawn while there is a number.
        let key = |token: u32| {
            let logit = logits[token as usize];
            if logit.is_nan() { f32::NEG_INFINITY } else { logit }
        };
        let falling = |a: &u32, b: &u32| key(*b).total_cmp(&key(*a)).then(a.cmp(b));
        if (1..order.len()).contains(&self.sampling.top_k) {
            // Of a large vocabulary only what top-k keeps, ties with the last one included, needs an order.
            let (_, last, _) = order.select_nth_unstable_by(self.sampling.top_k - 1, falling);
            let least = key(*last);
            order.retain(|token| key(*token) >= least);
        }
        order.sort_unstable_by(falling);
        truncate(order, logits, &self.sampling);
        self.draw(logits)
    }

    fn penalise(&self, logits: &mut [f32], seen: &[u32]) {
        let penalty = self.sampling.repetition_penalty as f32;
        if penalty == 1.0 {
            return;
        }
        let mut tokens: Vec<u32> = seen.to_vec();
        tokens.sort_unstable();
        tokens.dedup();
        for token in tokens {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
            }
        }
    }

    /// One of `self.order`, by the probabilities among them.
    fn draw(&mut self, logits: &[f32]) -> u32 {
        let weights = weights(&self.order, logits);
        let total: f64 = weights.iter().sum();
        let mut rest = self.rng.uniform_f64() * total;
        for (&token, weight) in self.order.iter().zip(&weights) {
            rest -= weight;
            if rest < 0.0 {
                return token;
            }
        }
        self.order[0]
    }
}

/// The likeliest token; the lowest id wins a tie.
pub fn greedy(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (token, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = token;
        }
    }
    best as u32
}

/// `exp(logit - largest)` of tokens in falling order.
fn weights(order: &[u32], logits: &[f32]) -> Vec<f64> {
    let largest = f64::from(logits[order[0] as usize]);
    order
        .iter()
        .map(|&token| (f64::from(logits[token as usize]) - largest).exp())
        .map(|w| if w.is_nan() { 0.0 } else { w })
        .collect()
}

/// Keeps a leading part of `order` (falling logits): top-k, then top-p, then min-p, as transformers chains them. One
/// token always stays.
fn truncate(order: &mut Vec<u32>, logits: &[f32], sampling: &Sampling) {
    if sampling.top_k > 0 && sampling.top_k < order.len() {
        // Tokens that tie with the last kept one stay.
        let last = logits[order[sampling.top_k - 1] as usize];
        let keep = order.partition_point(|&token| logits[token as usize] >= last);
        order.truncate(keep.max(1));
    }
    if sampling.top_p < 1.0 {
        let weights = weights(order, logits);
        let total: f64 = weights.iter().sum();
        // A token goes if it and all less likely ones together have at most 1 - top_p.
        let mut tail = 0.0;
        let mut keep = order.len();
        while keep > 1 {
            tail += weights[keep - 1];
            if tail / total > 1.0 - sampling.top_p {
                break;
            }
            keep -= 1;
        }
        order.truncate(keep);
    }
    if let Some(min_p) = sampling.min_p {
        let weights = weights(order, logits);
        let keep = weights.iter().take_while(|weight| **weight >= min_p).count();
        order.truncate(keep.max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(logits: &[f32], sampling: &Sampling) -> Vec<u32> {
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
        truncate(&mut order, logits, sampling);
        order
    }

    /// Logits of probabilities 0.5, 0.25, 0.15, 0.1.
    fn logits() -> Vec<f32> {
        [0.5f32, 0.25, 0.15, 0.1].iter().map(|p| p.ln()).collect()
    }

    #[test]
    fn truncations_keep_what_transformers_keeps() {
        let all = Sampling { do_sample: true, top_k: 0, ..Sampling::default() };
        assert_eq!(kept(&logits(), &all), [0, 1, 2, 3]);
        assert_eq!(kept(&logits(), &Sampling { top_k: 2, ..all.clone() }), [0, 1]);
        // 0.1 ≤ 0.2 goes, 0.1 + 0.15 > 0.2 stays.
        assert_eq!(kept(&logits(), &Sampling { top_p: 0.8, ..all.clone() }), [0, 1, 2]);
        assert_eq!(kept(&logits(), &Sampling { top_p: 0.0, ..all.clone() }), [0]);
        // 0.15 / 0.5 = 0.3.
        assert_eq!(kept(&logits(), &Sampling { min_p: Some(0.29), ..all.clone() }), [0, 1, 2]);
        assert_eq!(kept(&logits(), &Sampling { min_p: Some(1.0), ..all.clone() }), [0]);
        assert_eq!(kept(&[1.0, 1.0, 1.0, 0.0], &Sampling { top_k: 2, ..all }), [0, 1, 2], "ties stay");
    }

    #[test]
    fn draws_follow_the_distribution_and_the_seed() {
        let sampling = Sampling { do_sample: true, top_k: 0, seed: 3, ..Sampling::default() };
        let mut counts = [0u32; 4];
        let mut sampler = Sampler::new(&sampling).unwrap();
        let draws: Vec<u32> = (0..4000).map(|_| sampler.next(&mut logits(), &[])).collect();
        draws.iter().for_each(|token| counts[*token as usize] += 1);
        // Four standard deviations of a binomial count are below 127.
        for (count, p) in counts.iter().zip([0.5, 0.25, 0.15, 0.1]) {
            assert!((f64::from(*count) - 4000.0 * p).abs() < 127.0, "{counts:?}");
        }
        let mut again = Sampler::new(&sampling).unwrap();
        assert!(draws.iter().all(|token| again.next(&mut logits(), &[]) == *token));
    }

    #[test]
    fn temperature_sharpens_and_the_penalty_discourages() {
        let cold = Sampling { do_sample: true, temperature: 0.01, ..Sampling::default() };
        let mut sampler = Sampler::new(&cold).unwrap();
        assert!((0..100).all(|_| sampler.next(&mut logits(), &[]) == 0));
        let penalty = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
        let mut sampler = Sampler::new(&penalty).unwrap();
        assert_eq!(sampler.next(&mut [2.0, 1.5, -1.0], &[0, 0]), 1, "2.0 / 2 < 1.5, once");
        assert_eq!(sampler.next(&mut [-1.0, -1.5], &[0]), 1, "-1.0 · 2 < -1.5");
    }

    #[test]
    fn settings_outside_their_ranges_are_named() {
        for (sampling, key) in [
            (Sampling { temperature: 0.0, ..Sampling::default() }, "temperature"),
            (Sampling { temperature: 1e-50, ..Sampling::default() }, "temperature"),
            (Sampling { temperature: 1e50, ..Sampling::default() }, "temperature"),
            (Sampling { repetition_penalty: 1e-50, ..Sampling::default() }, "repetition_penalty"),
            (Sampling { top_p: 1.5, ..Sampling::default() }, "top_p"),
            (Sampling { min_p: Some(-0.1), ..Sampling::default() }, "min_p"),
            (Sampling { repetition_penalty: f64::NAN, ..Sampling::default() }, "repetition_penalty"),
        ] {
            let error = sampling.check().unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn greedy_takes_the_lowest_of_equals() {
        assert_eq!(greedy(&[0.0, 2.0, 2.0]), 1);
    }
}
