//! Ways to make one adapter of several: PEFT 0.21 `add_weighted_adapter` (`utils/merge_utils.py`), on the two factors
//! of one module.
//!
//! An adapter with weight `w` and scale `s` enters the methods that add factors with `√|w·s|` on both of them, the
//! sign on A; `cat` puts `w·s` on A. The result's scale is 1.

use super::decomposition::svd_of_product;
use foundry_formats::torch_rng::Mt19937;
use std::fmt;
use std::str::FromStr;

/// How adapters are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combination {
    /// Sums of the factors.
    Linear,
    /// Factors side by side: the sum of the adapters, exactly; ranks add up.
    Cat,
    /// The sum of the adapters, cut to the largest singular values.
    Svd,
    /// The largest numbers only, those of the elected sign only, averaged (Yadav et al. 2023).
    Ties,
    /// Random numbers only, scaled up (Yu et al. 2024).
    DareLinear,
    /// The same, then signs elected as by [`Combination::Ties`].
    DareTies,
    /// The largest numbers only.
    MagnitudePrune,
}

/// All methods by PEFT's names.
const NAMES: [(&str, Combination); 7] = [
    ("linear", Combination::Linear),
    ("cat", Combination::Cat),
    ("svd", Combination::Svd),
    ("ties", Combination::Ties),
    ("dare_linear", Combination::DareLinear),
    ("dare_ties", Combination::DareTies),
    ("magnitude_prune", Combination::MagnitudePrune),
];

impl FromStr for Combination {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(name, _)| *name == text).map(|(_, method)| *method);
        found.ok_or_else(|| format!("possible: {}", NAMES.map(|(name, _)| name).join(", ")))
    }
}

impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(_, method)| method == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

impl Combination {
    /// What is kept is drawn at random.
    pub(super) fn is_random(self) -> bool {
        matches!(self, Combination::DareLinear | Combination::DareTies)
    }

    /// Keeps a share of the numbers only.
    pub fn needs_density(self) -> bool {
        !matches!(self, Combination::Linear | Combination::Cat | Combination::Svd)
    }
}

/// Who wins where signs differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MajoritySign {
    /// The sign of the sum.
    #[default]
    Total,
    /// The sign that more adapters have.
    Frequency,
}

/// Options of the methods.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CombineOptions {
    /// The method.
    pub method: Combination,
    /// Share of the numbers to keep, 0 to 1 (methods that prune).
    pub density: f64,
    /// Election of signs (`ties`, `dare_ties`).
    pub majority_sign: MajoritySign,
    /// Rank of the result of `svd`; `None`: the largest of the adapters'.
    pub svd_rank: Option<usize>,
    /// Seed of the random pruning of `dare_*`: the numbers kept are those of `torch.manual_seed(seed)` followed by
    /// PEFT's `add_weighted_adapter`.
    pub seed: u64,
}

/// One adapter's part of a module.
pub(super) struct Factors {
    /// `[r, inputs]`.
    pub(super) a: Vec<f32>,
    /// `[outputs, r]`.
    pub(super) b: Vec<f32>,
    pub(super) r: usize,
    /// Weight times scale.
    pub(super) weight: f64,
}

/// A and B of the result, of rank `rank` (smaller factors are padded with zeros).
pub(super) fn combine(
    parts: &[Factors],
    [outputs, inputs]: [usize; 2],
    rank: usize,
    options: &CombineOptions,
    rng: &mut Mt19937,
) -> (Vec<f32>, Vec<f32>) {
    match options.method {
        Combination::Cat => side_by_side(parts, [outputs, inputs], rank, |weight| (weight as f32, 1.0)),
        Combination::Svd => {
            let all: usize = parts.iter().map(|part| part.r).sum();
            let (a, b) = side_by_side(parts, [outputs, inputs], all, |weight| (weight as f32, 1.0));
            svd_of_product(&a, &b, [outputs, inputs], all, rank)
        }
        _ => {
            let roots: Vec<f32> = parts.iter().map(|part| part.weight.abs().sqrt() as f32).collect();
            let signed: Vec<f32> = parts
                .iter()
                .zip(&roots)
                .map(|(p, root)| if p.weight >= 0.0 { *root } else { -root })
                .collect();
            let a = parts.iter().map(|part| padded_rows(&part.a, rank * inputs)).collect();
            let b = parts.iter().map(|part| padded_columns(&part.b, part.r, rank)).collect();
            (merge(a, &signed, options, rng), merge(b, &roots, options, rng))
        }
    }
}

fn padded_rows(a: &[f32], len: usize) -> Vec<f32> {
    let mut a = a.to_vec();
    a.resize(len, 0.0);
    a
}

fn padded_columns(b: &[f32], r: usize, rank: usize) -> Vec<f32> {
    b.chunks_exact(r).flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0.0, rank - r))).collect()
}

/// A's below one another, B's beside one another, each with its factor.
fn side_by_side(
    parts: &[Factors],
    [outputs, inputs]: [usize; 2],
    rank: usize,
    factors: impl Fn(f64) -> (f32, f32),
) -> (Vec<f32>, Vec<f32>) {
    let mut a = Vec::with_capacity(rank * inputs);
    let mut b = vec![0.0; outputs * rank];
    let mut start = 0;
    for part in parts {
        let (on_a, on_b) = factors(part.weight);
        a.extend(part.a.iter().map(|x| on_a * x));
        for (o, row) in part.b.chunks_exact(part.r).enumerate() {
            b[o * rank + start..][..part.r].iter_mut().zip(row).for_each(|(b, x)| *b = on_b * x);
        }
        start += part.r;
    }
    a.resize(rank * inputs, 0.0);
    (a, b)
}

/// One factor of all adapters, with their weights.
fn merge(
    mut tensors: Vec<Vec<f32>>,
    weights: &[f32],
    options: &CombineOptions,
    rng: &mut Mt19937,
) -> Vec<f32> {
    for tensor in &mut tensors {
        match options.method {
            Combination::Ties | Combination::MagnitudePrune => keep_largest(tensor, options.density),
            Combination::DareLinear | Combination::DareTies => keep_random(tensor, options.density, rng),
            Combination::Linear | Combination::Cat | Combination::Svd => {}
        }
    }
    let elects = matches!(options.method, Combination::Ties | Combination::DareTies);
    (0..tensors[0].len())
        .map(|i| {
            let values = || tensors.iter().map(|tensor| tensor[i]);
            if !elects {
                return values().zip(weights).map(|(x, w)| x * w).sum();
            }
            let sign = |x: f32| {
                if x > 0.0 {
                    1.0
                } else if x < 0.0 {
                    -1.0
                } else {
                    0.0f32
                }
            };
            let total: f32 = match options.majority_sign {
                MajoritySign::Total => values().sum(),
                MajoritySign::Frequency => values().map(sign).sum(),
            };
            let elected = if total >= 0.0 { 1.0 } else { -1.0 };
            let kept = values().zip(weights).filter(|(x, _)| sign(*x) == elected);
            let (sum, count) = kept.fold((0.0, 0.0f32), |(sum, n), (x, w)| (sum + x * w, n + 1.0));
            sum / count.max(1.0)
        })
        .collect()
}

/// Zeros all but the `density · n` largest magnitudes; of equal ones the first.
fn keep_largest(tensor: &mut [f32], density: f64) {
    if density >= 1.0 {
        return;
    }
    let keep = (density * tensor.len() as f64) as usize;
    let mut order: Vec<usize> = (0..tensor.len()).collect();
    order.sort_by(|a, b| tensor[*b].abs().total_cmp(&tensor[*a].abs()));
    order[keep..].iter().for_each(|i| tensor[*i] = 0.0);
}

/// Keeps each number with probability `density`, divided by it: `torch.bernoulli` of a tensor of densities, which draws
/// a uniform float32 for each number and keeps those below.
fn keep_random(tensor: &mut [f32], density: f64, rng: &mut Mt19937) {
    if density >= 1.0 {
        return;
    }
    let density = density as f32;
    for x in tensor {
        *x = if rng.uniform_f32(0.0, 1.0) < density { *x / density } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(method: Combination, density: f64) -> CombineOptions {
        CombineOptions { method, density, majority_sign: MajoritySign::Total, svd_rank: None, seed: 0 }
    }

    #[test]
    fn names_are_pefts() {
        for (name, method) in NAMES {
            assert_eq!(name.parse::<Combination>().unwrap(), method);
            assert_eq!(method.to_string(), name);
        }
        assert!("average".parse::<Combination>().unwrap_err().contains("dare_ties"));
    }

    #[test]
    fn pruning_keeps_the_asked_share() {
        let mut x = [3.0, -5.0, 1.0, 4.0, 0.5];
        keep_largest(&mut x, 0.4);
        assert_eq!(x, [0.0, -5.0, 0.0, 4.0, 0.0]);
        let mut x = vec![1.0; 10_000];
        keep_random(&mut x, 0.3, &mut Mt19937::seeded(1));
        let kept = x.iter().filter(|x| **x > 0.0).count();
        // A binomial count: 3000 with a deviation of 46.
        assert!((2800..3200).contains(&kept), "{kept}");
        assert!(x.iter().all(|x| *x == 0.0 || (*x - 1.0 / 0.3).abs() < 1e-6));
    }

    #[test]
    fn signs_are_elected() {
        let rng = &mut Mt19937::seeded(0);
        let tensors = || vec![vec![1.0, -2.0, 0.0], vec![3.0, 1.0, 0.0], vec![-1.0, 0.5, 0.0]];
        let merged = merge(tensors(), &[1.0, 1.0, 2.0], &options(Combination::Ties, 1.0), rng);
        // Sums 3 and -0.5: (1 + 3)/2, and -2 alone.
        assert_eq!(merged, [2.0, -2.0, 0.0]);
        let frequency =
            CombineOptions { majority_sign: MajoritySign::Frequency, ..options(Combination::Ties, 1.0) };
        assert_eq!(merge(tensors(), &[1.0, 1.0, 2.0], &frequency, rng), [2.0, 1.0, 0.0]);
    }

    #[test]
    fn dare_is_unbiased_and_whole_at_density_one() {
        let (a, b) = (vec![1.0, 2.0], vec![0.5, -1.0]);
        let part = || [Factors { a: a.clone(), b: b.clone(), r: 1, weight: -4.0 }];
        let rng = &mut Mt19937::seeded(0);
        let linear = combine(&part(), [2, 2], 1, &options(Combination::Linear, 1.0), rng);
        assert_eq!(linear, (vec![-2.0, -4.0], vec![1.0, -2.0]), "the sign is on A, the root on both");
        assert_eq!(combine(&part(), [2, 2], 1, &options(Combination::DareLinear, 1.0), rng), linear);
    }
}
