//! Randomness without state: every seed is a function of where it is used, so that a resumed run draws the same.

/// Seed of dropout and noise in one micro-batch: a function of the run's seed and the place alone.
pub(crate) fn micro_batch_seed(seed: u64, step: u64, micro_batch: u64, rank: u64) -> u64 {
    [step, micro_batch, rank].into_iter().fold(mix(seed), |state, part| mix(state.wrapping_add(part)))
}

/// Seed of the rounding of one parameter in one step.
pub(crate) fn rounding_seed(seed: u64, step: u64, parameter: u64) -> u64 {
    // Apart from the seeds of dropout and noise, which mix two more numbers.
    mix(mix(mix(seed ^ 0x524f_554e_4449_4e47).wrapping_add(step)).wrapping_add(parameter))
}

/// SplitMix64's output function (Steele, Lea & Flood 2014).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_place_has_its_own_seed() {
        let mut seen = HashSet::new();
        for seed in 0..3 {
            for step in 0..20 {
                for micro_batch in 0..8 {
                    for rank in 0..4 {
                        seen.insert(micro_batch_seed(seed, step, micro_batch, rank));
                    }
                }
            }
        }
        assert_eq!(seen.len(), 3 * 20 * 8 * 4);
    }

    #[test]
    fn mixing_is_splitmix64() {
        // First output of SplitMix64 from state 0.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
    }
}
