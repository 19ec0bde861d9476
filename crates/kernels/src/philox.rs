//! Philox4x32-10: random numbers as a function of (seed, index) alone, so that a mask does not depend on who computes
//! which part of it (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, §4.3; the
//! constants are those of the authors' Random123 1.14).

use crate::lanes::LANES;

const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// What a stream of random numbers is for; streams of one seed are independent.
#[derive(Clone, Copy)]
pub(crate) enum Stream {
    /// Which elements are dropped.
    Dropout,
    /// Noise on embeddings.
    Noise,
    /// Rounding of updated parameters.
    Rounding,
}

/// Words per call of [`words`]: sixteen blocks, one per lane of a wide register.
pub(crate) const WORDS: usize = 4 * LANES;

/// Ten rounds on the blocks of sixteen counters; `counters[w][l]` is word `w` of lane `l`, kept in 64 bits between the
/// rounds, as the products need them.
#[inline(always)]
fn blocks(counters: [[u64; LANES]; 4], mut key: [u32; 2]) -> [[u64; LANES]; 4] {
    const LOW: u64 = u32::MAX as u64;
    let [mut a, mut b, mut c, mut d] = counters;
    for _ in 0..10 {
        for l in 0..LANES {
            let product0 = MULTIPLIERS[0] * (a[l] & LOW);
            let product1 = MULTIPLIERS[1] * (c[l] & LOW);
            a[l] = (product1 >> 32) ^ b[l] ^ u64::from(key[0]);
            b[l] = product1 & LOW;
            c[l] = (product0 >> 32) ^ d[l] ^ u64::from(key[1]);
            d[l] = product0 & LOW;
        }
        key = [key[0].wrapping_add(KEY_STEPS[0]), key[1].wrapping_add(KEY_STEPS[1])];
    }
    [a, b, c, d]
}

/// Random words `64·group .. 64·(group+1)` of a stream. Word `w` of the group is word `w / 16` of block
/// `16·group + w % 16`: neighbouring elements come from neighbouring blocks, so that the rounds run in lanes.
#[inline(always)]
pub(crate) fn words(seed: u64, stream: Stream, group: u64) -> [u32; WORDS] {
    let mut counters = [[0; LANES], [0; LANES], [0; LANES], [stream as u64; LANES]];
    for lane in 0..LANES {
        let index = group.wrapping_mul(LANES as u64) | lane as u64;
        counters[0][lane] = index & 0xffff_ffff;
        counters[1][lane] = index >> 32;
    }
    let counters = blocks(counters, [seed as u32, (seed >> 32) as u32]);
    let mut out = [0; WORDS];
    for word in 0..4 {
        for lane in 0..LANES {
            out[word * LANES + lane] = counters[word][lane] as u32;
        }
    }
    out
}

/// Uniform in `[0, 1)` with 24 bits.
#[inline(always)]
pub(crate) fn uniform(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
        let mut counters = [[7; LANES]; 4];
        counters.iter_mut().zip(counter).for_each(|(lanes, word)| lanes[5] = u64::from(word));
        blocks(counters, key).map(|lanes| lanes[5] as u32)
    }

    /// The three vectors that Random123 1.14 publishes for `philox4x32 10` (`tests/kat_vectors`).
    #[test]
    fn published_vectors() {
        let ones = u32::MAX;
        assert_eq!(block([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(block([ones; 4], [ones; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            block([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn streams_and_groups_differ() {
        let first = words(7, Stream::Dropout, 0);
        assert_ne!(first, words(7, Stream::Noise, 0));
        assert_ne!(first, words(7, Stream::Dropout, 1));
        assert_ne!(first, words(8, Stream::Dropout, 0));
    }
}
