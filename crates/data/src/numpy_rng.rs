//! `numpy.random.default_rng(seed).permutation(n)`, bit for bit.
//!
//! Hugging Face's datasets shuffle and split rows by NumPy's default generator, so equal rows need equal numbers.
//! Sources: O'Neill's PCG64 (XSL-RR 128/64; "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms
//! for Random Number Generation", 2014), her `seed_seq` variant that NumPy calls SeedSequence (NEP 19), and the masked
//! rejection by which NumPy's shuffles draw bounded integers (`random_interval`).

use serde::{Deserialize, Serialize};

const MULTIPLIER: u128 = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645;
const POOL_WORDS: usize = 4;
const INIT_A: u32 = 0x43b0_d7e5;
const MULT_A: u32 = 0x931e_8875;
const INIT_B: u32 = 0x8b51_f9dd;
const MULT_B: u32 = 0x58f3_8ded;
const MIX_LEFT: u32 = 0xca01_f9dd;
const MIX_RIGHT: u32 = 0x4973_f715;

/// NumPy's `default_rng(seed)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumpyRng {
    #[serde(with = "hexadecimal")]
    state: u128,
    #[serde(with = "hexadecimal")]
    increment: u128,
    /// The upper half of the last 64-bit draw, waiting for the next 32-bit one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spare: Option<u32>,
}

/// 128-bit numbers as texts: JSON numbers are read as 64-bit ones by most programs.
mod hexadecimal {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

impl NumpyRng {
    /// The generator that `numpy.random.default_rng(seed)` makes.
    pub fn seeded(seed: u64) -> Self {
        let words = seed_state(seed);
        let wide = |i: usize| (u128::from(words[i]) << 64) | u128::from(words[i + 1]);
        let mut rng = Self { state: 0, increment: (wide(2) << 1) | 1, spare: None };
        rng.step();
        rng.state = rng.state.wrapping_add(wide(0));
        rng.step();
        rng
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    fn next_u64(&mut self) -> u64 {
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    fn next_u32(&mut self) -> u32 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let word = self.next_u64();
        self.spare = Some((word >> 32) as u32);
        word as u32
    }

    /// A uniform integer in 0..=max: draws are masked to the bits of `max` until one is not above it.
    fn up_to(&mut self, max: u64) -> u64 {
        let mask = u64::MAX.checked_shr(max.leading_zeros()).unwrap_or(0);
        loop {
            let word = if max <= u64::from(u32::MAX) { u64::from(self.next_u32()) } else { self.next_u64() };
            if word & mask <= max {
                return word & mask;
            }
        }
    }

    /// A uniform index below `n`, which must be above 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.up_to(n as u64 - 1) as usize
    }

    /// `Generator.random()`: a uniform number in `0..1` of 53 bits.
    pub(crate) fn random(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One draw of `Generator.choice(len(p), size=…, p=p)`; `cdf` is [`cumulative`] of p.
    pub(crate) fn choice(&mut self, cdf: &[f64]) -> usize {
        let draw = self.random();
        // searchsorted(side="right")
        cdf.partition_point(|&end| end <= draw).min(cdf.len() - 1)
    }

    /// `Generator.permutation(n)`: a random order of `0..n`.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            let j = self.up_to(i as u64) as usize;
            order.swap(i, j);
        }
        order
    }
}

/// `p.cumsum() / p.sum()`, as `Generator.choice` computes it.
pub(crate) fn cumulative(p: &[f64]) -> Vec<f64> {
    let mut sum = 0.0;
    let mut cdf: Vec<f64> = p
        .iter()
        .map(|&p| {
            sum += p;
            sum
        })
        .collect();
    cdf.iter_mut().for_each(|end| *end /= sum);
    cdf
}

/// `SeedSequence(seed).generate_state(4, uint64)`.
fn seed_state(seed: u64) -> [u64; 4] {
    let pool = seed_pool(seed);
    let mut constant = INIT_B;
    let mut words = [0u32; 8];
    for (i, word) in words.iter_mut().enumerate() {
        let mut value = pool[i % POOL_WORDS] ^ constant;
        constant = constant.wrapping_mul(MULT_B);
        value = value.wrapping_mul(constant);
        *word = value ^ (value >> 16);
    }
    std::array::from_fn(|i| u64::from(words[2 * i]) | (u64::from(words[2 * i + 1]) << 32))
}

/// The entropy pool: the seed's 32-bit words hashed in, then every word mixed into every other.
fn seed_pool(seed: u64) -> [u32; POOL_WORDS] {
    let mut constant = INIT_A;
    let mut hash = move |mut value: u32| {
        value ^= constant;
        constant = constant.wrapping_mul(MULT_A);
        value = value.wrapping_mul(constant);
        value ^ (value >> 16)
    };
    // A seed of fewer than four words is padded with zeros, and a u64 has at most two.
    let mut pool = [hash(seed as u32), hash((seed >> 32) as u32), hash(0), hash(0)];
    for source in 0..POOL_WORDS {
        for target in 0..POOL_WORDS {
            if source != target {
                let hashed = hash(pool[source]);
                let mixed = pool[target].wrapping_mul(MIX_LEFT).wrapping_sub(hashed.wrapping_mul(MIX_RIGHT));
                pool[target] = mixed ^ (mixed >> 16);
            }
        }
    }
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    // Expected values were printed by numpy 2.

    #[test]
    fn seed_sequence_equals_numpy() {
        let expected = [11465652750463011511, 15382171918060459190, 9018504550953525431, 3703499796004394495];
        assert_eq!(seed_state(42), expected);
    }

    #[test]
    fn raw_words_equal_numpy() {
        let mut rng = NumpyRng::seeded(42);
        let words: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(words, [14276969152011380360, 8095878257575067585, 15838336090824644132]);
    }

    #[test]
    fn permutations_equal_numpy() {
        let of = |seed: u64, n: usize| NumpyRng::seeded(seed).permutation(n);
        assert_eq!(of(42, 10), [5, 6, 0, 7, 3, 2, 4, 9, 1, 8]);
        assert_eq!(of(0, 10), [4, 6, 2, 7, 3, 5, 9, 0, 8, 1]);
        assert_eq!(of((1 << 32) + 5, 7), [4, 2, 0, 6, 5, 3, 1]);
        assert_eq!(of(12345678901234567890, 16), [4, 6, 0, 11, 10, 14, 9, 3, 1, 13, 5, 2, 7, 12, 15, 8]);
        assert_eq!(of(1 << 63, 3), [0, 2, 1]);
        assert_eq!(of(1, 1), [0]);
        assert!(of(1, 0).is_empty());
    }

    #[test]
    fn a_long_permutation_equals_numpy() {
        let order = NumpyRng::seeded(7).permutation(5000);
        assert_eq!(order[..5], [553, 4157, 148, 228, 402]);
        assert_eq!(order[4995..], [1858, 3516, 2709, 425, 2699]);
        let weighted: usize = order.iter().enumerate().map(|(i, v)| i * v).sum();
        assert_eq!(weighted, 31_286_435_628);
    }
}
