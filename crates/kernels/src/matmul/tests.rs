//! Every path against the reference, with every instruction set of this machine.

use crate::operand::Operand;
use crate::pool::Pool;
use crate::simd::matrix::{BlockMut, Matrix, Out};
use crate::{Buffer, Dtype, Isa, Matmul};
use half::bf16;
use proptest::prelude::*;
use std::sync::LazyLock;

/// Shared by all tests: starting threads costs more than most of the products.
static TWO_THREADS: LazyLock<Pool> = LazyLock::new(|| Pool::new(2));

/// A small generator (Marsaglia's xorshift) for numbers in (-1, 1).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

fn random(dtype: Dtype, len: usize, seed: u64) -> Buffer {
    let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut buffer = Buffer::host(dtype, len);
    match dtype {
        Dtype::F32 => buffer.f32_mut().iter_mut().for_each(|x| *x = numbers.next()),
        _ => buffer.bf16_mut().iter_mut().for_each(|x| *x = bf16::from_f32(numbers.next())),
    }
    buffer
}

fn wide(x: &Buffer) -> Vec<f64> {
    match x.dtype() {
        Dtype::F32 => x.f32().iter().map(|&x| x.into()).collect(),
        _ => x.typed::<bf16>().iter().map(|x| x.to_f64()).collect(),
    }
}

fn bits(x: &Buffer) -> Vec<u32> {
    match x.dtype() {
        Dtype::F32 => x.f32().iter().map(|x| x.to_bits()).collect(),
        _ => x.typed::<bf16>().iter().map(|x| x.to_bits().into()).collect(),
    }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    op: Matmul,
    operands: Dtype,
    result: Dtype,
}

impl Case {
    fn operands(&self) -> (Buffer, Buffer) {
        (random(self.operands, self.op.m * self.op.k, 1), random(self.operands, self.op.k * self.op.n, 2))
    }

    /// `C` before the product.
    fn before(&self) -> Buffer {
        random(self.result, self.op.m * self.op.n, 3)
    }

    fn run(&self, isa: Isa, pool: &Pool) -> Buffer {
        let ((a, b), mut c) = (self.operands(), self.before());
        super::matmul(pool, isa, &self.op, &a, &b, &mut c);
        c
    }

    /// The exact result, and how far rounding may take one from it: `k + 3` roundings of f32 (the products, their sum,
    /// alpha, the addition to `C`) on the sum of magnitudes, and one of bf16 if the result is bf16.
    fn exact(&self) -> (Vec<f64>, Vec<f64>) {
        let ((a, b), mut exact) = (self.operands(), wide(&self.before()));
        let (a, b) = (wide(&a), wide(&b));
        let magnitude = |x: &[f64]| -> Vec<f64> { x.iter().map(|x| x.abs()).collect() };
        let mut size = magnitude(&exact);
        super::reference::matmul(&self.op, &a, &b, &mut exact);
        let op = Matmul { alpha: self.op.alpha.abs(), ..self.op };
        super::reference::matmul(&op, &magnitude(&a), &magnitude(&b), &mut size);
        let roundings = (self.op.k + 3) as f64 * f64::from(f32::EPSILON) / 2.0;
        let last = if self.result == Dtype::Bf16 { 1.0 / 256.0 } else { 0.0 };
        let bounds = exact
            .iter()
            .zip(size)
            .map(|(exact, size)| roundings * size + last * exact.abs() + f64::from(f32::MIN_POSITIVE));
        let bounds = bounds.collect();
        (exact, bounds)
    }

    fn check(&self) {
        let (exact, bounds) = self.exact();
        for isa in Isa::available() {
            let c = wide(&self.run(isa, &TWO_THREADS));
            for (i, ((c, exact), bound)) in c.iter().zip(&exact).zip(&bounds).enumerate() {
                // Written so that NaN fails.
                let close = (c - exact).abs() <= *bound;
                assert!(close, "{} {self:?}: {c} at {i}, not {exact} ± {bound:e}", isa.name());
            }
        }
    }
}

fn op(m: usize, n: usize, k: usize, trans_a: bool, trans_b: bool) -> Matmul {
    Matmul { m, n, k, trans_a, trans_b, alpha: 1.0, accumulate: false }
}

/// Transposes, dtypes, with or without adding.
fn variants(m: usize, n: usize, k: usize) -> impl Iterator<Item = Case> {
    (0..32).map(move |bits: u32| {
        let flag = |i: u32| bits >> i & 1 == 1;
        let dtype = |flag: bool| if flag { Dtype::Bf16 } else { Dtype::F32 };
        let op = Matmul { alpha: 0.75, accumulate: flag(4), ..op(m, n, k, flag(0), flag(1)) };
        Case { op, operands: dtype(flag(2)), result: dtype(flag(3)) }
    })
}

fn any_dtype() -> impl Strategy<Value = Dtype> {
    prop_oneof![Just(Dtype::F32), Just(Dtype::Bf16)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn every_path_equals_the_reference(
        (m, n, k) in (0usize..80, 0usize..80, 0usize..80),
        (trans_a, trans_b, accumulate) in any::<(bool, bool, bool)>(),
        alpha in prop_oneof![Just(1.0f32), -2.0f32..2.0],
        (operands, result) in (any_dtype(), any_dtype()),
    ) {
        let op = Matmul { alpha, accumulate, ..op(m, n, k, trans_a, trans_b) };
        Case { op, operands, result }.check();
    }
}

#[test]
fn tails_of_tiles_equal_the_reference() {
    for (m, n, k) in
        [(1, 1, 1), (9, 33, 31), (13, 15, 65), (15, 31, 2), (29, 49, 3), (14, 32, 0), (43, 97, 34)]
    {
        variants(m, n, k).for_each(|case| case.check());
    }
}

#[test]
fn several_blocks_of_k_equal_the_reference() {
    // More than two blocks of k for bf16 and four for f32; odd, so that the last pair is half empty.
    variants(17, 35, 16_500).filter(|case| case.op.accumulate).for_each(|case| case.check());
    variants(3, 35, 16_501).filter(|case| case.op.accumulate).for_each(|case| case.check());
}

#[test]
fn rows_a_power_of_two_apart_equal_the_reference() {
    // 4 KiB in f32 for the first, in both formats for the second; the third is too wide to lay `A` out tile by tile.
    for (m, n, k) in [(31, 161, 1024), (31, 161, 2048), (15, 1100, 2048)] {
        let plain = |case: &Case| !case.op.accumulate && !case.op.trans_a && case.op.trans_b;
        variants(m, n, k).filter(plain).for_each(|case| case.check());
    }
}

#[test]
fn few_rows_equal_the_reference() {
    for m in 1..=17 {
        for k in [1, 32, 47, 576] {
            let ops = [op(m, 65, k, false, true), op(m, 65, k, false, true).accumulated().scaled(-0.5)];
            for (op, operands) in ops.into_iter().flat_map(|op| [(op, Dtype::F32), (op, Dtype::Bf16)]) {
                Case { op, operands, result: Dtype::F32 }.check();
                Case { op, operands, result: Dtype::Bf16 }.check();
            }
        }
    }
}

#[test]
fn narrow_and_wide_weight_gradients_equal_the_reference() {
    for (m, n, k) in [(90, 16, 41), (70, 64, 33), (70, 65, 33), (16, 90, 41)] {
        variants(m, n, k).filter(|case| case.op.trans_a).for_each(|case| case.check());
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    let (alone, three) = (Pool::new(1), Pool::new(3));
    for (m, n, k) in [(3, 700, 800), (64, 16, 576), (16, 300, 129), (200, 170, 65), (150, 40, 9000)] {
        for case in variants(m, n, k) {
            for isa in Isa::available() {
                let one = bits(&case.run(isa, &alone));
                for pool in [&*TWO_THREADS, &three] {
                    let more = bits(&case.run(isa, pool));
                    assert!(one == more, "{} {case:?}: {} threads", isa.name(), pool.threads());
                }
            }
        }
    }
}

/// On AMX a row of a product has the same bits among few and among many.
#[test]
fn rows_on_amx_do_not_depend_on_their_number() {
    let Some(isa) = Isa::named("amx") else { return };
    for (n, k) in [(70, 96), (33, 41), (200, 576)] {
        let op = Matmul::nt(100, n, k);
        let whole = Case { op, operands: Dtype::Bf16, result: Dtype::F32 };
        let (a, b) = whole.operands();
        let all = bits(&whole.run(isa, &TWO_THREADS));
        for m in [2, 3, 16, 17, 32, 33, 64, 65] {
            let op = Matmul::nt(m, n, k);
            let mut few = whole.before();
            super::matmul(&TWO_THREADS, isa, &op, &a, &b, &mut few);
            assert!(bits(&few)[..m * n] == all[..m * n], "{m} rows of {n}x{k}");
        }
    }
}

#[test]
fn bf16_results_are_rounded_once() {
    for (m, n, k) in [(5, 40, 300), (33, 70, 300), (20, 33, 9000)] {
        for isa in Isa::available() {
            for op in [op(m, n, k, false, true).scaled(0.3), op(m, n, k, true, false)] {
                let case = Case { op, operands: Dtype::Bf16, result: Dtype::F32 };
                let exact = case.run(isa, &TWO_THREADS);
                let rounded = Case { result: Dtype::Bf16, ..case }.run(isa, &TWO_THREADS);
                for (exact, rounded) in exact.f32().iter().zip(rounded.typed::<bf16>()) {
                    assert_eq!(bf16::from_f32(*exact), *rounded, "{} {case:?}", isa.name());
                }
            }
        }
    }
}

/// A strided matrix of random numbers with NaN between the rows.
fn strided<T: Operand>(rows: usize, cols: usize, stride: usize, seed: u64) -> Vec<T> {
    let mut numbers = Numbers(seed);
    (0..rows * stride).map(|i| T::narrow(if i % stride < cols { numbers.next() } else { f32::NAN })).collect()
}

fn dense<T: Operand>(x: &[T], rows: usize, cols: usize, stride: usize) -> Vec<f64> {
    (0..rows * cols).map(|i| x[i / cols * stride + i % cols].widen().into()).collect()
}

fn check_strided<T: Operand>(isa: Isa, op: &Matmul) {
    let stored = |trans: bool, rows, cols| if trans { (cols, rows) } else { (rows, cols) };
    let (a_rows, a_cols) = stored(op.trans_a, op.m, op.k);
    let (b_rows, b_cols) = stored(op.trans_b, op.k, op.n);
    let (a, b) = (strided::<T>(a_rows, a_cols, a_cols + 3, 5), strided::<T>(b_rows, b_cols, b_cols + 5, 7));
    let mut c = vec![7.0f32; op.m * (op.n + 2)];
    let result = Out::F32(BlockMut::new(&mut c, op.m, op.n, op.n + 2));
    super::dispatch(None, isa, op, Matrix::new(&a, a_cols + 3), Matrix::new(&b, b_cols + 5), result);
    let mut exact = vec![7.0; op.m * op.n];
    let (a, b) = (dense(&a, a_rows, a_cols, a_cols + 3), dense(&b, b_rows, b_cols, b_cols + 5));
    super::reference::matmul(op, &a, &b, &mut exact);
    // Numbers below 1: k products of at most 1, k roundings of a sum of at most k.
    let bound = ((op.k + 8) * (op.k + 3)) as f64 * f64::from(f32::EPSILON);
    for (i, &c) in c.iter().enumerate() {
        let (row, col) = (i / (op.n + 2), i % (op.n + 2));
        let exact = if col < op.n { exact[row * op.n + col] } else { 7.0 };
        assert!(
            (f64::from(c) - exact).abs() <= bound,
            "{} {op:?}: {c} at ({row}, {col}), not {exact}",
            isa.name()
        );
    }
}

#[test]
fn tiles_read_and_write_only_their_rows() {
    for isa in Isa::available() {
        for case in variants(19, 41, 27).chain(variants(64, 64, 64)).chain(variants(4, 30, 33)) {
            check_strided::<f32>(isa, &case.op);
            check_strided::<bf16>(isa, &case.op);
        }
    }
}

#[test]
fn gradients_of_a_linear_layer_equal_finite_differences() {
    let (m, n, k) = (3, 4, 5);
    let mut numbers = Numbers(11);
    let mut draw = |len: usize| -> Vec<f64> { (0..len).map(|_| numbers.next().into()).collect() };
    let (mut x, mut w, dy) = (draw(m * k), draw(n * k), draw(m * n));
    let (mut dx, mut dw) = (vec![0.0; m * k], vec![0.0; n * k]);
    super::reference::matmul(&Matmul::nn(m, k, n), &dy, &w, &mut dx);
    super::reference::matmul(&Matmul::tn(n, k, m), &dy, &x, &mut dw);
    let loss = |x: &[f64], w: &[f64]| -> f64 {
        let mut y = vec![0.0; m * n];
        super::reference::matmul(&Matmul::nt(m, n, k), x, w, &mut y);
        y.iter().zip(&dy).map(|(y, dy)| y * dy).sum()
    };
    // The loss is linear in each number, so that a central difference has only rounding errors.
    let step = 0.5;
    for i in 0..x.len() {
        let at = x[i];
        x[i] = at + step;
        let above = loss(&x, &w);
        x[i] = at - step;
        let below = loss(&x, &w);
        x[i] = at;
        assert!(((above - below) / (2.0 * step) - dx[i]).abs() < 1e-12);
    }
    for i in 0..w.len() {
        let at = w[i];
        w[i] = at + step;
        let above = loss(&x, &w);
        w[i] = at - step;
        let below = loss(&x, &w);
        w[i] = at;
        assert!(((above - below) / (2.0 * step) - dw[i]).abs() < 1e-12);
    }
}

#[test]
#[should_panic(expected = "matmul: B: 4×8 needs 32 elements, got 31")]
fn a_short_operand_is_refused() {
    let (a, b, mut c) =
        (Buffer::host(Dtype::F32, 32), Buffer::host(Dtype::F32, 31), Buffer::host(Dtype::F32, 16));
    super::matmul(&Pool::new(1), Isa::Portable, &Matmul::nt(4, 4, 8), &a, &b, &mut c);
}

#[test]
#[should_panic(expected = "needs 18446744073709551615 elements")]
fn a_size_that_wraps_around_is_refused() {
    let [a, b, mut c] = [1, 1, 1].map(|n| Buffer::host(Dtype::F32, n));
    super::matmul(&Pool::new(1), Isa::Portable, &Matmul::nn(1 << 33, 1 << 33, 0), &a, &b, &mut c);
}

#[test]
#[should_panic(expected = "matmul: A is F32, B is Bf16")]
fn operands_of_two_dtypes_are_refused() {
    let (a, b, mut c) =
        (Buffer::host(Dtype::F32, 16), Buffer::host(Dtype::Bf16, 16), Buffer::host(Dtype::F32, 16));
    super::matmul(&Pool::new(1), Isa::Portable, &Matmul::nt(4, 4, 4), &a, &b, &mut c);
}
