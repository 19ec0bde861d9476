//! Seeds for the parts of a pass, from the one seed of the call.

/// A stream for the noise on the embeddings, apart from the branches' streams, which count from 0.
pub(crate) const EMBEDDING_NOISE: u64 = u64::MAX;

/// A seed for `stream`: the finaliser of SplitMix64 (Steele, Lea and Flood 2014) over both numbers.
pub(crate) fn mix(seed: u64, stream: u64) -> u64 {
    let mut z = seed ^ stream.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::mix;

    #[test]
    fn streams_and_seeds_do_not_collide() {
        let mut all: Vec<u64> =
            (0..100).flat_map(|seed| (0..100).map(move |stream| mix(seed, stream))).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 10_000);
    }
}
