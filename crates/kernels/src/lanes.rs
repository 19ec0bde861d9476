//! Sums in sixteen fixed lanes: the compiler turns each lane array into vector registers, and the order of every sum is
//! written down, so a result depends neither on the number of threads nor on where a row ends.

use crate::operand::Operand;

/// Numbers per lane array: one 512-bit register of f32, two of 256 bits, four of 128.
pub(crate) const LANES: usize = 16;

/// Elements per round of a sum: four independent lane arrays hide the latency of the additions.
const ROUND: usize = 4 * LANES;

/// `a·b + c`, rounded once where the machine can.
pub(crate) trait MulAdd {
    /// `a·b + c`.
    fn mul_add(a: f32, b: f32, c: f32) -> f32;
}

/// One rounding; needs a machine instruction to be fast.
pub(crate) struct Fused;

/// Two roundings: for machines whose `f32::mul_add` is a function call.
pub(crate) struct Separate;

impl MulAdd for Fused {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

impl MulAdd for Separate {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        if cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c }
    }
}

/// Runs an expression compiled for an instruction set, with a type name standing for its [`MulAdd`]. What the
/// expression calls must be `#[inline(always)]`: a function or closure that is not inlined is compiled for the baseline
/// of the platform, without vectors of this width, and a fused multiplication there is a function call. That is also
/// why hot loops index slices of a known length instead of chaining closures of the standard library.
macro_rules! vectorize {
    ($isa:expr, $F:ident => $body:expr) => {
        match $isa {
            $crate::Isa::Portable => {
                #[allow(dead_code)]
                type $F = $crate::lanes::Separate;
                $body
            }
            isa => {
                #[allow(dead_code)]
                type $F = $crate::lanes::Fused;
                isa.vectorize(
                    #[inline(always)]
                    || $body,
                )
            }
        }
    };
}
pub(crate) use vectorize;

/// Folds sixteen lanes by halves: eight pairs, four, two, one.
#[inline(always)]
fn halves(mut x: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    for i in 0..8 {
        x[i] = f(x[i], x[i + 8]);
    }
    for i in 0..4 {
        x[i] = f(x[i], x[i + 4]);
    }
    f(f(x[0], x[2]), f(x[1], x[3]))
}

/// The sum of sixteen lanes.
#[inline(always)]
pub(crate) fn sum_lanes(x: [f32; LANES]) -> f32 {
    halves(
        x,
        #[inline(always)]
        |a, b| a + b,
    )
}

/// The greatest of sixteen lanes, none of them NaN.
#[inline(always)]
pub(crate) fn max_lanes(x: [f32; LANES]) -> f32 {
    halves(
        x,
        #[inline(always)]
        |a, b| if b > a { b } else { a },
    )
}

/// The greatest number of a row; NaN is passed over.
#[inline(always)]
pub(crate) fn greatest(x: &[f32]) -> f32 {
    let mut max = [f32::NEG_INFINITY; LANES];
    let (whole, tail) = x.as_chunks::<LANES>();
    for x in whole {
        for l in 0..LANES {
            max[l] = if x[l] > max[l] { x[l] } else { max[l] };
        }
    }
    for l in 0..tail.len() {
        max[l] = if tail[l] > max[l] { tail[l] } else { max[l] };
    }
    max_lanes(max)
}

/// `Σ x`.
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    let (whole, tail) = x.as_chunks::<LANES>();
    for x in whole {
        for l in 0..LANES {
            sums[l] += x[l];
        }
    }
    for l in 0..tail.len() {
        sums[l] += tail[l];
    }
    sum_lanes(sums)
}

/// `Σ x²`.
#[inline(always)]
pub(crate) fn sum_of_squares<F: MulAdd, T: Operand>(x: &[T]) -> f32 {
    let mut sums = [0.0; ROUND];
    let (rounds, tail) = x.as_chunks::<ROUND>();
    for x in rounds {
        for i in 0..ROUND {
            sums[i] = F::mul_add(x[i].widen(), x[i].widen(), sums[i]);
        }
    }
    for i in 0..tail.len() {
        sums[i] = F::mul_add(tail[i].widen(), tail[i].widen(), sums[i]);
    }
    fold(sums)
}

/// The sixteen partial sums of `Σ a·b`, written to memory.
#[inline(always)]
fn dot_lanes<F: MulAdd, A: Operand>(a: &[A], b: &[f32], lanes: &mut [f32]) {
    let (len, b, lanes) = (a.len(), &b[..a.len()], &mut lanes[..LANES]);
    let mut sums = [0.0; LANES];
    let whole = len / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let (a, b) = (&a[at..][..LANES], &b[at..][..LANES]);
        for i in 0..LANES {
            sums[i] = F::mul_add(a[i].widen(), b[i], sums[i]);
        }
    }
    for i in whole..len {
        sums[i - whole] = F::mul_add(a[i].widen(), b[i], sums[i - whole]);
    }
    lanes.copy_from_slice(&sums);
}

/// `Σ a·b` of one row `b` and each of the rows `a(i)`, for `out[i]`. `scratch` holds [`LANES`] numbers for each of
/// `out`: the partial sums pass through memory, because the compiler otherwise shapes the products after the final
/// sum, two lanes wide.
#[inline(always)]
pub(crate) fn dots<'a, F: MulAdd, A: Operand>(
    a: impl Fn(usize) -> &'a [A],
    b: &[f32],
    out: &mut [f32],
    scratch: &mut [f32],
) {
    for i in 0..out.len() {
        dot_lanes::<F, A>(a(i), b, &mut scratch[i * LANES..]);
    }
    for i in 0..out.len() {
        let mut lanes = [0.0; LANES];
        lanes.copy_from_slice(&scratch[i * LANES..][..LANES]);
        out[i] = sum_lanes(lanes);
    }
}

/// `Σ a·b` of two rows of one length.
#[inline(always)]
pub(crate) fn dot<F: MulAdd, A: Operand>(a: &[A], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    dot_lanes::<F, A>(a, b, &mut lanes);
    sum_lanes(lanes)
}

/// `Σ a·b·c` of three rows of one length.
#[inline(always)]
pub(crate) fn sum_of_products<F: MulAdd, A: Operand, B: Operand>(a: &[A], b: &[B], c: &[f32]) -> f32 {
    let (len, b, c) = (a.len(), &b[..a.len()], &c[..a.len()]);
    let mut sums = [0.0; ROUND];
    let whole = len / ROUND * ROUND;
    for at in (0..whole).step_by(ROUND) {
        let (a, b, c) = (&a[at..][..ROUND], &b[at..][..ROUND], &c[at..][..ROUND]);
        for i in 0..ROUND {
            sums[i] = F::mul_add(a[i].widen() * b[i].widen(), c[i], sums[i]);
        }
    }
    for i in whole..len {
        sums[i - whole] = F::mul_add(a[i].widen() * b[i].widen(), c[i], sums[i - whole]);
    }
    fold(sums)
}

/// The sum of the four lane arrays of a round.
#[inline(always)]
fn fold(x: [f32; ROUND]) -> f32 {
    let mut lanes = [0.0; LANES];
    for i in 0..LANES {
        lanes[i] = (x[i] + x[i + LANES]) + (x[i + 2 * LANES] + x[i + 3 * LANES]);
    }
    sum_lanes(lanes)
}

/// Elements per task of an elementwise operation: long enough to hide the cost of a task, short enough to share out.
pub(crate) const PIECE: usize = 16 * 1024;
