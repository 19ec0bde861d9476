//! bitsandbytes' dynamic 8-bit code (Dettmers 2016, "8-Bit Approximations for Parallelism in Deep Learning";
//! bitsandbytes 0.50 `functional.create_dynamic_map`): 256 ascending numbers in [-1, 1] or [0, 1], spaced evenly
//! inside each power of ten and denser towards 1.

use std::sync::OnceLock;

/// A code with what quantising needs.
pub(crate) struct DynamicMap {
    /// The numbers, ascending.
    pub(crate) values: [f32; 256],
    /// Mid-points between neighbours, then infinity.
    bounds: [f32; 256],
    /// For the upper 16 bits of an f32: how many mid-points lie below every number with these bits. At most one more
    /// lies among those numbers: neighbours of the code are further apart than 2⁻⁷ of their size.
    below: Vec<u8>,
}

impl DynamicMap {
    /// The code of numbers with a sign: first moments.
    pub(crate) fn signed() -> &'static Self {
        static MAP: OnceLock<DynamicMap> = OnceLock::new();
        MAP.get_or_init(|| Self::new(true))
    }

    /// The code of numbers that are not negative: second moments.
    pub(crate) fn unsigned() -> &'static Self {
        static MAP: OnceLock<DynamicMap> = OnceLock::new();
        MAP.get_or_init(|| Self::new(false))
    }

    fn new(is_signed: bool) -> Self {
        let values = values(is_signed);
        let mut bounds = [f32::INFINITY; 256];
        for i in 0..255 {
            bounds[i] = (values[i] + values[i + 1]) / 2.0;
        }
        let below = (0..=u16::MAX)
            .map(|upper| {
                // Of a negative number more bits make it less.
                let least = if upper >> 15 == 1 { 0xffff } else { 0 };
                let least = f32::from_bits(u32::from(upper) << 16 | least);
                bounds[..255].iter().filter(|bound| **bound < least).count() as u8
            })
            .collect();
        Self { values, bounds, below }
    }

    /// Index of the number nearest to `x`, a number in [-1, 1]; of two equally near ones the lower.
    #[inline(always)]
    pub(crate) fn nearest(&self, x: f32) -> u8 {
        let first = self.below[(x.to_bits() >> 16) as usize];
        first + u8::from(x > self.bounds[first as usize])
    }
}

fn values(is_signed: bool) -> [f32; 256] {
    let mut values = vec![0.0, 1.0];
    for exponent in 0..7 {
        let count = 1 << (exponent + if is_signed { 0 } else { 1 });
        let ends = linspace(count + 1);
        let scale = 10f64.powi(exponent - 6) as f32;
        for pair in ends.windows(2) {
            let middle = scale * ((pair[0] + pair[1]) / 2.0);
            values.push(middle);
            if is_signed {
                values.push(-middle);
            }
        }
    }
    values.sort_by(f32::total_cmp);
    values.try_into().expect("two numbers, and 254 between them")
}

/// `torch.linspace(0.1, 1, n)` in f32: from both ends to the middle, each number rounded once (a fused multiplication).
fn linspace(n: usize) -> Vec<f32> {
    let step = f64::from((1.0 - 0.1f32) / (n - 1) as f32);
    let number = |i: usize| match i < n / 2 {
        true => f64::from(0.1f32) + step * i as f64,
        false => 1.0 - step * (n - 1 - i) as f64,
    };
    (0..n).map(|i| number(i) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantising_is_a_search_among_the_mid_points() {
        for map in [DynamicMap::signed(), DynamicMap::unsigned()] {
            let probes = (0..=2000u32).map(|i| i as f32 / 1000.0 - 1.0);
            let small = (0..300).map(|i| 10f32.powf(-i as f32 / 30.0));
            let near = map.bounds[..255].iter().flat_map(|b| [b.next_down(), *b, b.next_up()]);
            for x in probes.chain(small.flat_map(|x| [x, -x])).chain(near).chain([0.0, -0.0]) {
                let searched = map.bounds[..255].iter().filter(|bound| **bound < x).count();
                assert_eq!(usize::from(map.nearest(x)), searched, "{x:e}");
            }
        }
    }

    #[test]
    fn the_numbers_are_bitsandbytes() {
        // `create_dynamic_map(True)` and `(False)` of bitsandbytes 0.50.2: bits at some places, and the sum of all
        // bits.
        let signed = DynamicMap::signed().values.map(f32::to_bits);
        let unsigned = DynamicMap::unsigned().values.map(f32::to_bits);
        let sum = |bits: [u32; 256]| bits.iter().map(|b| u64::from(*b)).sum::<u64>();
        assert_eq!(([0, 1, 126, 127, 128, 254, 255].map(|i| signed[i]), sum(signed)), SIGNED);
        assert_eq!(([0, 1, 126, 127, 128, 254, 255].map(|i| unsigned[i]), sum(unsigned)), UNSIGNED);
    }

    // Printed by `crates/kernels/golden/optimizers.py`.
    const SIGNED: ([u32; 7], u64) =
        ([0xbf7e3333, 0xbf7a999a, 0xb513a3b7, 0x00000000, 0x3513a3b7, 0x3f7e3333, 0x3f800000], 535306620548);
    const UNSIGNED: ([u32; 7], u64) =
        ([0x00000000, 0x34ae7baa, 0x3dcb5c29, 0x3dd40000, 0x3de26666, 0x3f7f199a, 0x3f800000], 262570225560);
}
