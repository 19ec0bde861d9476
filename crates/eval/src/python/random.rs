//! CPython's `random.Random`: the Mersenne Twister MT19937 (Matsumoto & Nishimura 1998) seeded, and drawn from, as
//! CPython 3.11 does (`Modules/_randommodule.c`, `Lib/random.py`).

const N: usize = 624;
const M: usize = 397;

/// A generator with `random.Random(seed)`'s numbers.
pub(crate) struct Random {
    state: [u32; N],
    index: usize,
}

impl Random {
    /// `random.Random(seed)` for an integer.
    pub(crate) fn new(seed: u64) -> Self {
        let mut key = vec![seed as u32];
        if seed >> 32 > 0 {
            key.push((seed >> 32) as u32);
        }
        let mut random = Self::seeded(19_650_218);
        random.mix_in(&key);
        random
    }

    /// `init_genrand`.
    fn seeded(seed: u32) -> Self {
        let mut state = [0; N];
        state[0] = seed;
        for i in 1..N {
            let before = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(i as u32);
        }
        Self { state, index: N }
    }

    /// `init_by_array`.
    fn mix_in(&mut self, key: &[u32]) {
        let state = &mut self.state;
        let (mut i, mut j) = (1, 0);
        let folded = |before: u32, factor: u32| (before ^ (before >> 30)).wrapping_mul(factor);
        for _ in 0..N.max(key.len()) {
            let mixed = state[i] ^ folded(state[i - 1], 1_664_525);
            state[i] = mixed.wrapping_add(key[j]).wrapping_add(j as u32);
            i += 1;
            j = (j + 1) % key.len();
            if i >= N {
                state[0] = state[N - 1];
                i = 1;
            }
        }
        for _ in 0..N - 1 {
            state[i] = (state[i] ^ folded(state[i - 1], 1_566_083_941)).wrapping_sub(i as u32);
            i += 1;
            if i >= N {
                state[0] = state[N - 1];
                i = 1;
            }
        }
        state[0] = 0x8000_0000;
    }

    fn next_u32(&mut self) -> u32 {
        if self.index >= N {
            for k in 0..N {
                let y = (self.state[k] & 0x8000_0000) | (self.state[(k + 1) % N] & 0x7fff_ffff);
                let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[k] = self.state[(k + M) % N] ^ (y >> 1) ^ twist;
            }
            self.index = 0;
        }
        let mut y = self.state[self.index];
        self.index += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// `random()`: 53 bits in `[0, 1)`.
    pub(crate) fn random(&mut self) -> f64 {
        let (a, b) = (self.next_u32() >> 5, self.next_u32() >> 6);
        (f64::from(a) * 67_108_864.0 + f64::from(b)) / 9_007_199_254_740_992.0
    }

    /// `_randbelow(n)` for `0 < n < 2³²`: as many bits as `n` has, drawn until they are below it.
    fn below(&mut self, n: usize) -> usize {
        let bits = usize::BITS - n.leading_zeros();
        loop {
            let drawn = (self.next_u32() >> (32 - bits)) as usize;
            if drawn < n {
                return drawn;
            }
        }
    }

    /// The indices that `sample(population, count)` takes of a population of `size`; `count <= size`.
    pub(crate) fn sample(&mut self, size: usize, count: usize) -> Vec<usize> {
        assert!(count <= size, "{count} of {size}");
        let mut set_size = 21;
        if count > 5 {
            // 4 ** ceil(log(count * 3, 4))
            set_size += 4usize.pow((((count * 3) as f64).ln() / 4f64.ln()).ceil() as u32);
        }
        let mut result = Vec::with_capacity(count);
        if size <= set_size {
            let mut pool: Vec<usize> = (0..size).collect();
            for i in 0..count {
                let j = self.below(size - i);
                result.push(pool[j]);
                pool[j] = pool[size - i - 1];
            }
        } else {
            for _ in 0..count {
                let mut j = self.below(size);
                while result.contains(&j) {
                    j = self.below(size);
                }
                result.push(j);
            }
        }
        result
    }

    /// The index of each of `choices(population, k=size)`.
    pub(crate) fn choice(&mut self, size: usize) -> usize {
        (self.random() * size as f64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // python 3.11: the comments are what was typed.
    #[test]
    fn numbers_are_cpythons() {
        // r = random.Random(1234); [r.random() for _ in range(3)]
        let mut random = Random::new(1234);
        let drawn: Vec<f64> = (0..3).map(|_| random.random()).collect();
        assert_eq!(drawn, [0.9664535356921388, 0.4407325991753527, 0.007491470058587191]);
        // random.Random(2**40 + 7).random()
        assert_eq!(Random::new((1 << 40) + 7).random(), 0.6137037779936511);
    }

    #[test]
    fn samples_are_cpythons() {
        // r = random.Random(1234); [r.sample(range(7473), 5) for _ in range(2)], r.sample(range(10), 6)
        let mut random = Random::new(1234);
        assert_eq!(random.sample(7473, 5), [6374, 3610, 957, 61, 742]);
        assert_eq!(random.sample(7473, 5), [7462, 6610, 4769, 286, 5501]);
        assert_eq!(random.sample(10, 6), [1, 9, 5, 8, 0, 7]);
        // random.Random(3).choices(range(100), k=6)
        let mut random = Random::new(3);
        assert_eq!((0..6).map(|_| random.choice(100)).collect::<Vec<_>>(), [23, 54, 36, 60, 62, 6]);
    }
}
