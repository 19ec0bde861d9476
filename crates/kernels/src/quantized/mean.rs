//! The mean of a vector with torch's bits: bitsandbytes' `offset` is one.

/// Numbers in a vector register of torch's AVX2 kernels.
const WIDTH: usize = 8;
/// Independent sums, one vector each.
const ROWS: usize = 4;
/// Levels of partial sums.
const LEVELS: usize = 4;

/// `torch.mean(x)` of f32 numbers on one thread with AVX2 (ATen's cascade sum, `SumKernel.cpp`): pairs of levels, each
/// summing up to `2^p` sums of the one below. Above 32768 numbers torch may split the sum among its threads, and its
/// last bits then depend on their number; these do not.
pub(super) fn mean(x: &[f32]) -> f32 {
    let (vectors, tail) = x.as_chunks::<WIDTH>();
    // Shorter than a vector, torch has vectors of one number.
    let sum = match vectors {
        [] => cascade(x.as_chunks::<1>().0)[0],
        _ => {
            let head = cascade(vectors);
            let rest = tail.iter().fold(0.0, |sum, x| sum + x);
            head.iter().fold(rest, |sum, x| sum + x)
        }
    };
    sum / x.len() as f32
}

fn cascade<const W: usize>(x: &[[f32; W]]) -> [f32; W] {
    let (groups, tail) = x.as_chunks::<ROWS>();
    let mut levels = [[[0.0f32; W]; ROWS]; LEVELS];
    let ceil_log2 = groups.len().next_power_of_two().trailing_zeros();
    let power = (ceil_log2 / LEVELS as u32).max(4);
    let (step, mask) = (1 << power, (1usize << power) - 1);
    let whole = groups.len() / step * step;
    for (i, group) in groups[..whole].iter().enumerate() {
        add(&mut levels[0], group);
        let done = i + 1;
        if !done.is_multiple_of(step) {
            continue;
        }
        for level in 1..LEVELS {
            let below = std::mem::replace(&mut levels[level - 1], [[0.0; W]; ROWS]);
            add(&mut levels[level], &below);
            if done & (mask << (level as u32 * power)) != 0 {
                break;
            }
        }
    }
    groups[whole..].iter().for_each(|group| add(&mut levels[0], group));
    let [mut sums, rest @ ..] = levels;
    rest.iter().for_each(|level| add(&mut sums, level));
    let [mut sum, others @ ..] = sums;
    for row in tail.iter().chain(&others) {
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    sum
}

fn add<const W: usize>(sums: &mut [[f32; W]; ROWS], rows: &[[f32; W]; ROWS]) {
    for (sum, x) in sums.as_flattened_mut().iter_mut().zip(rows.as_flattened()) {
        *sum += x;
    }
}
