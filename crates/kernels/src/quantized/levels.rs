//! The numbers that codes stand for.

use crate::dynamic_map::DynamicMap;
use std::sync::LazyLock;

/// The sixteen levels of NF4: quantiles of a normal distribution, scaled to ±1 (QLoRA, appendix E; digits of
/// bitsandbytes).
pub const NF4_LEVELS: [f32; 16] = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
];

/// Where one level ends and the next begins; a number on the border belongs to the lower one.
pub(super) const NF4_BORDERS: [f32; 15] = {
    let mut borders = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        borders[i] = (NF4_LEVELS[i] + NF4_LEVELS[i + 1]) / 2.0;
        i += 1;
    }
    borders
};

/// The 256 levels of the signed dynamic map, which the scales of NF4 are quantised with: `nested_quant_map` of
/// bitsandbytes' files.
pub fn dynamic_levels() -> &'static [f32; 256] {
    &DynamicMap::signed().values
}

/// Positions of the table [`nearest_dynamic`] looks numbers up in.
const POSITIONS: usize = 1 << 16;

/// The code of the dynamic level for `x` in [-1, 1], as bitsandbytes' CPU code finds it: `x` is rounded to one of 65536
/// positions first. Near zero, where levels are closer than positions, that is coarser than the nearest level.
pub(super) fn nearest_dynamic(x: f32) -> u8 {
    static CODES: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let levels = dynamic_levels();
        let code = |i: usize| {
            let x = i as f32 / 32767.5 - 1.0;
            levels.windows(2).take_while(|pair| (pair[0] + pair[1]) / 2.0 < x).count() as u8
        };
        (0..POSITIONS).map(code).collect()
    });
    // A NaN becomes position 0, as there.
    CODES[(((x + 1.0) * 32767.5 + 0.5) as usize).min(POSITIONS - 1)]
}
