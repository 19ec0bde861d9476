//! PyTorch's CPU random generator, bit for bit.
//!
//! Runs are compared with Hugging Face's tools number by number; two of the numbers are drawn by PyTorch: the order of
//! the rows (`torch.randperm`) and the first values of LoRA adapters (`Tensor.uniform_`, `Tensor.normal_`). The engine
//! is the 32-bit Mersenne Twister (Matsumoto and Nishimura, 1998); how PyTorch turns its words into numbers was taken
//! from the headers that torch 2.15 installs (`ATen/core/MT19937RNGEngine.h`, `ATen/core/TransformationHelper.h`,
//! `ATen/core/DistributionsHelper.h`, `ATen/native/cpu/DistributionTemplates.h`) and from its outputs.

use std::f64::consts::PI;

const STATE_WORDS: usize = 624;
const SHIFT: usize = 397;
const UPPER_MASK: u32 = 0x8000_0000;
const LOWER_MASK: u32 = 0x7fff_ffff;
const MATRIX_A: u32 = 0x9908_b0df;
/// 2⁻²⁴: a float32 in [0, 1) keeps the low 24 bits of a word.
const UNIT_F32: f32 = 1.0 / (1u32 << 24) as f32;
/// 2⁻⁵³: a float64 in [0, 1) keeps the low 53 bits of two words.
const UNIT_F64: f64 = 1.0 / (1u64 << 53) as f64;

/// PyTorch's CPU generator: `torch.Generator().manual_seed(seed)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mt19937 {
    state: [u32; STATE_WORDS],
    next: usize,
    /// The second number of the last Box-Muller pair of [`Mt19937::next_normal`].
    spare_normal: Option<f64>,
}

impl Mt19937 {
    /// The generator after `torch.manual_seed(seed)`. As in PyTorch, only the low 32 bits of the seed count.
    pub fn seeded(seed: u64) -> Self {
        let mut state = [0u32; STATE_WORDS];
        state[0] = (seed & 0xffff_ffff) as u32;
        for i in 1..STATE_WORDS {
            let previous = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(previous ^ (previous >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: STATE_WORDS, spare_normal: None }
    }

    /// Draws a new block of 624 words.
    fn refill(&mut self) {
        for i in 0..STATE_WORDS {
            let (upper, lower) = (self.state[i], self.state[(i + 1) % STATE_WORDS]);
            let mixed = (upper & UPPER_MASK) | (lower & LOWER_MASK);
            let odd = if lower & 1 == 1 { MATRIX_A } else { 0 };
            self.state[i] = self.state[(i + SHIFT) % STATE_WORDS] ^ (mixed >> 1) ^ odd;
        }
        self.next = 0;
    }

    /// The next word, uniform over all 32-bit values.
    pub fn next_u32(&mut self) -> u32 {
        if self.next == STATE_WORDS {
            self.refill();
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// The next 64 bits: the first word drawn is the upper half.
    pub fn next_u64(&mut self) -> u64 {
        let upper = u64::from(self.next_u32());
        (upper << 32) | u64::from(self.next_u32())
    }

    /// One element of `torch.empty(n, dtype=torch.float32).uniform_(from, to)`: 24 bits, in [from, to).
    ///
    /// PyTorch's build contracts `x * (to - from) + from` to a fused multiply-add, so this does too; and a result that
    /// rounded up to `to` becomes `from`.
    pub fn uniform_f32(&mut self, from: f32, to: f32) -> f32 {
        let unit = (self.next_u32() & 0x00ff_ffff) as f32 * UNIT_F32;
        let value = unit.mul_add(to - from, from);
        if value == to { from } else { value }
    }

    /// One float64 in [0, 1): 53 bits of two words.
    pub fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() & ((1 << 53) - 1)) as f64 * UNIT_F64
    }

    /// One standard normal number as PyTorch draws them for tensors of fewer than 16 elements: Box-Muller in float64,
    /// whose second half is kept for the next call.
    pub fn next_normal(&mut self) -> f64 {
        if let Some(spare) = self.spare_normal.take() {
            return spare;
        }
        let (u1, u2) = (self.uniform_f64(), self.uniform_f64());
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let angle = 2.0 * PI * u1;
        self.spare_normal = Some(radius * angle.sin());
        radius * angle.cos()
    }

    /// Fills `out` as `torch.empty(out.len(), dtype=torch.float32).normal_(mean, std)` does.
    ///
    /// From 16 elements on PyTorch fills with uniform float32 and turns blocks of 16 into 8 Box-Muller pairs, the last
    /// 16 elements being drawn again when the length is no multiple of 16. Its vector code approximates log, sin and
    /// cos, so the values agree to a few units in the last place, not to the bit; the state afterwards is the same.
    pub fn fill_normal_f32(&mut self, out: &mut [f32], mean: f32, std: f32) {
        if out.len() < 16 {
            for value in out {
                *value = self.next_normal().mul_add(f64::from(std), f64::from(mean)) as f32;
            }
            return;
        }
        self.fill_uniform_f32(out, 0.0, 1.0);
        for block in out.chunks_exact_mut(16) {
            box_muller_block(block, mean, std);
        }
        if !out.len().is_multiple_of(16) {
            let tail = out.len() - 16;
            self.fill_uniform_f32(&mut out[tail..], 0.0, 1.0);
            box_muller_block(&mut out[tail..], mean, std);
        }
    }

    /// Fills `out` as `torch.empty(out.len(), dtype=torch.float32).uniform_(from, to)` does, to the bit.
    pub fn fill_uniform_f32(&mut self, out: &mut [f32], from: f32, to: f32) {
        for value in out {
            *value = self.uniform_f32(from, to);
        }
    }

    /// `torch.randperm(n)`: a random order of `0..n`.
    ///
    /// For n ≥ (2³² − 1) / 20 the remainder of a 32-bit word would be too uneven, so PyTorch draws 64-bit words and
    /// builds the order from the inside out.
    pub fn randperm(&mut self, n: usize) -> Vec<usize> {
        if n >= (u32::MAX / 20) as usize {
            return self.randperm_inside_out(n);
        }
        let mut order: Vec<usize> = (0..n).collect();
        for i in 0..n.saturating_sub(1) {
            order.swap(i, i + self.next_u32() as usize % (n - i));
        }
        order
    }

    fn randperm_inside_out(&mut self, n: usize) -> Vec<usize> {
        let mut order = Vec::with_capacity(n);
        for i in 0..n {
            order.push(i);
            order.swap(i, (self.next_u64() % (i as u64 + 1)) as usize);
        }
        order
    }
}

/// Turns 16 uniform numbers into 16 normal ones: pairs are elements j and j + 8.
fn box_muller_block(block: &mut [f32], mean: f32, std: f32) {
    let (cosines, sines) = block.split_at_mut(8);
    for (c, s) in cosines.iter_mut().zip(sines) {
        let radius = (-2.0 * f64::from(1.0 - *c).ln()).sqrt();
        let angle = 2.0 * PI * f64::from(*s);
        *c = ((radius * angle.cos()) as f32).mul_add(std, mean);
        *s = ((radius * angle.sin()) as f32).mul_add(std, mean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // All expected values were printed by torch 2.15.

    #[test]
    fn words_are_those_of_the_published_generator() {
        let mut rng = Mt19937::seeded(5489);
        assert_eq!(rng.next_u32(), 3_499_211_612);
        // C++ standard, [rand.predef]: the 10000th invocation of mt19937 is 4123659995.
        for _ in 1..9999 {
            rng.next_u32();
        }
        assert_eq!(rng.next_u32(), 4_123_659_995);
    }

    #[test]
    fn uniform_equals_torch_to_the_bit() {
        let mut rng = Mt19937::seeded(0);
        let unit: Vec<f32> = (0..5).map(|_| rng.uniform_f32(0.0, 1.0)).collect();
        assert_eq!(
            unit,
            [
                0.49625658988952637,
                0.7682217955589294,
                0.08847743272781372,
                0.13203048706054688,
                0.30742281675338745
            ]
        );
        let wide: Vec<f32> = (0..3).map(|_| rng.uniform_f32(-0.3, 0.3)).collect();
        assert_eq!(wide, [0.08044721186161041, -0.005943954456597567, 0.2378668487071991]);
        let mut rng = Mt19937::seeded((1 << 40) + 3);
        let low_bits_only: Vec<f32> = (0..2).map(|_| rng.uniform_f32(0.0, 1.0)).collect();
        assert_eq!(low_bits_only, [0.004263520240783691, 0.10556936264038086]);
    }

    #[test]
    fn randperm_equals_torch() {
        assert_eq!(Mt19937::seeded(0).randperm(12), [8, 0, 5, 9, 7, 4, 2, 10, 3, 1, 11, 6]);
        assert_eq!(Mt19937::seeded(42).randperm(12), [6, 8, 1, 7, 0, 2, 10, 11, 4, 3, 5, 9]);
        assert_eq!(Mt19937::seeded((1 << 32) + 7).randperm(12), [3, 4, 0, 5, 7, 9, 11, 6, 8, 1, 10, 2]);
        assert_eq!(Mt19937::seeded(1).randperm(1), [0]);
        assert!(Mt19937::seeded(1).randperm(0).is_empty());
    }

    #[test]
    fn normal_equals_torch_within_its_approximations() {
        let mut short = [0.0f32; 5];
        Mt19937::seeded(0).fill_normal_f32(&mut short, 0.0, 1.0);
        let expected = [
            1.5409960746765137,
            -0.293428897857666,
            -2.1787893772125244,
            0.5684312582015991,
            -1.0845223665237427,
        ];
        assert_eq!(short, expected, "fewer than 16 elements: float64 arithmetic, equal bits");

        let mut long = [0.0f32; 20];
        let mut rng = Mt19937::seeded(0);
        rng.fill_normal_f32(&mut long, 0.0, 1.0);
        let expected = [
            -1.1258398294448853,
            -1.152360200881958,
            -0.2505785822868347,
            -0.4338788092136383,
            0.5988394618034363,
            -1.5550950765609741,
            -0.3413603901863098,
            1.85300612449646,
            0.46809640526771545,
            -0.1577124446630478,
            1.4436601400375366,
            0.26604941487312317,
            1.3893661499023438,
            1.586334228515625,
            0.946298360824585,
            -0.843676745891571,
            0.9318265914916992,
            1.2590092420578003,
            2.0049805641174316,
            0.05373690277338028,
        ];
        for (ours, torch) in long.iter().zip(expected) {
            // torch's log256_ps and sincos256_ps are good to about 2 units in the last place of numbers below 4.
            assert!((ours - torch).abs() < 1e-6, "{ours} and {torch}");
        }
        let mut mean_and_std = [0.0f32; 40];
        let mut rng = Mt19937::seeded(1);
        rng.fill_normal_f32(&mut mean_and_std, 0.5, 0.25);
        assert!((mean_and_std[39] - 0.289_384_16).abs() < 1e-6);
        // The state after a ragged length is torch's too: two more numbers.
        assert!((rng.next_normal() - 0.4107416570186615).abs() < 1e-7);
        assert!((rng.next_normal() + 0.988007128238678).abs() < 1e-7);
    }
}
