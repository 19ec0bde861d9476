//! The matrix decompositions with which PiSSA and OLoRA begin: the largest singular triplets, and QR.
//!
//! Deterministic. Small matrices are decomposed in full by one-sided Jacobi rotations in f64 (Hestenes 1958); of large
//! ones the largest triplets are found by subspace iteration (Halko, Martinsson and Tropp 2011), whose products run on
//! the backend in f32, and whose last step is Jacobi again.

use foundry_formats::torch_rng::Mt19937;
use foundry_kernels::{Allocator, Backend, Buffer, Dtype, Matmul, MemoryClass};

/// A matrix up to this narrow is decomposed in full.
const SMALL: usize = 128;
/// Rounds after which an estimate is taken as it is.
const MOST_ROUNDS: u32 = 60;
/// Seed of the first subspace.
const SEED: u64 = 0;

/// `W ≈ U·diag(s)·Vᵀ`: the `r` largest triplets, each vector on its own, f64.
pub(crate) struct Triplets {
    /// `r` vectors as long as W has rows.
    pub(crate) u: Vec<Vec<f64>>,
    /// Singular values, falling.
    pub(crate) s: Vec<f64>,
    /// `r` vectors as long as W has columns.
    pub(crate) v: Vec<Vec<f64>>,
}

/// Buffers for matrices up to `elements` large and subspaces of up to `columns` vectors up to `longest` long.
pub(crate) struct Workspace {
    w: Buffer,
    q: Buffer,
    y: Buffer,
    z: Buffer,
}

impl Workspace {
    pub(crate) fn allocate(alloc: &dyn Allocator, elements: usize, longest: usize, columns: usize) -> Self {
        let buffer = |len: usize| alloc.alloc(MemoryClass::Workspace, Dtype::F32, len);
        let thin = longest * columns;
        Self { w: buffer(elements), q: buffer(thin), y: buffer(thin), z: buffer(thin) }
    }
}

/// Vectors of a subspace from which `r` triplets are taken.
pub(crate) fn columns(r: usize) -> usize {
    r + r.max(16)
}

/// The `r` largest triplets of `w` `[rows, cols]`. `rounds`: exactly so many rounds of subspace iteration on `r`
/// vectors (`pissa_niter_N`); `None`: until the singular values stand still.
pub(crate) fn largest_triplets(
    backend: &dyn Backend,
    space: &mut Workspace,
    w: &[f32],
    [rows, cols]: [usize; 2],
    r: usize,
    rounds: Option<u32>,
) -> Triplets {
    let narrow = rows.min(cols);
    let wanted = rounds.map_or(columns(r), |_| r).min(narrow);
    if rounds.is_none() && (narrow <= SMALL || wanted == narrow) {
        return in_full(w, [rows, cols], r);
    }
    backend.upload(w, &mut space.w, 0);
    let mut rng = Mt19937::seeded(SEED);
    let mut start = vec![0.0; cols * wanted];
    rng.fill_normal_f32(&mut start, 0.0, 1.0);
    let mut q: Vec<Vec<f64>> =
        start.chunks_exact(cols).map(|v| v.iter().map(|x| f64::from(*x)).collect()).collect();
    orthonormalize(&mut q, 2);
    let mut last = vec![0.0; wanted];
    for _ in 0..rounds.unwrap_or(MOST_ROUNDS) {
        // z = Wᵀ·(W·q): its lengths after orthonormalisation go to the squares of the singular values.
        times(backend, space, [rows, cols], &q);
        backend.matmul(Matmul::tn(cols, wanted, rows), &space.w, &space.y, &mut space.z);
        q = vectors(backend, &space.z, cols, wanted);
        let lengths = orthonormalize(&mut q, 1);
        let moved = (0..r).map(|i| (lengths[i] - last[i]).abs()).fold(0.0, f64::max);
        last.clone_from(&lengths);
        // The products are f32: no estimate gets better than some 1e-7 of the largest.
        if rounds.is_none() && moved <= 1e-6 * lengths[0] {
            break;
        }
    }
    orthonormalize(&mut q, 2);
    times(backend, space, [rows, cols], &q);
    let y = vectors(backend, &space.y, rows, wanted);
    let (u, s, small) = jacobi(y, r);
    let v = small
        .iter()
        .map(|weights| {
            let mut v = vec![0.0; cols];
            for (weight, q) in weights.iter().zip(&q) {
                v.iter_mut().zip(q).for_each(|(v, q)| *v += weight * q);
            }
            v
        })
        .collect();
    Triplets { u, s, v }
}

/// `y = W·q`.
fn times(backend: &dyn Backend, space: &mut Workspace, [rows, cols]: [usize; 2], q: &[Vec<f64>]) {
    let k = q.len();
    let flat: Vec<f32> = (0..cols).flat_map(|i| q.iter().map(move |q| q[i] as f32)).collect();
    backend.upload(&flat, &mut space.q, 0);
    backend.matmul(Matmul::nn(rows, k, cols), &space.w, &space.q, &mut space.y);
}

/// The columns of a matrix `[rows, k]`.
fn vectors(backend: &dyn Backend, buffer: &Buffer, rows: usize, k: usize) -> Vec<Vec<f64>> {
    let mut flat = vec![0.0; rows * k];
    backend.download(buffer, 0, &mut flat);
    (0..k).map(|j| (0..rows).map(|i| f64::from(flat[i * k + j])).collect()).collect()
}

fn in_full(w: &[f32], [rows, cols]: [usize; 2], r: usize) -> Triplets {
    if cols <= rows {
        let columns = (0..cols).map(|j| (0..rows).map(|i| f64::from(w[i * cols + j])).collect()).collect();
        let (u, s, v) = jacobi(columns, r);
        Triplets { u, s, v }
    } else {
        let lines = w.chunks_exact(cols).map(|line| line.iter().map(|x| f64::from(*x)).collect()).collect();
        let (v, s, u) = jacobi(lines, r);
        Triplets { u, s, v }
    }
}

/// One-sided Jacobi: rotates the columns until they stand at right angles. Returns the `r` longest as unit vectors,
/// their lengths, and the rotations' columns: `columns = U·diag(s)·Vᵀ`.
fn jacobi(mut columns: Vec<Vec<f64>>, r: usize) -> (Vec<Vec<f64>>, Vec<f64>, Vec<Vec<f64>>) {
    let n = columns.len();
    let mut turns: Vec<Vec<f64>> =
        (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    // Quadratic convergence: ten sweeps are ample for f64.
    for _ in 0..30 {
        let mut is_done = true;
        for i in 0..n {
            for j in i + 1..n {
                let (alpha, beta) = (dot(&columns[i], &columns[i]), dot(&columns[j], &columns[j]));
                let gamma = dot(&columns[i], &columns[j]);
                if gamma.abs() <= 1e-14 * (alpha * beta).sqrt() || gamma == 0.0 {
                    continue;
                }
                is_done = false;
                let zeta = (beta - alpha) / (2.0 * gamma);
                let t = zeta.signum() / (zeta.abs() + zeta.hypot(1.0));
                let c = 1.0 / t.hypot(1.0);
                rotate(&mut columns, i, j, c, c * t);
                rotate(&mut turns, i, j, c, c * t);
            }
        }
        if is_done {
            break;
        }
    }
    let lengths: Vec<f64> = columns.iter().map(|c| dot(c, c).sqrt()).collect();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| lengths[*b].total_cmp(&lengths[*a]));
    order.truncate(r);
    let unit = |i: &usize| {
        let length = if lengths[*i] > 0.0 { lengths[*i] } else { 1.0 };
        columns[*i].iter().map(|x| x / length).collect()
    };
    (
        order.iter().map(unit).collect(),
        order.iter().map(|i| lengths[*i]).collect(),
        order.iter().map(|i| turns[*i].clone()).collect(),
    )
}

/// In eight sums, so that the compiler may use wide registers; the order is the same everywhere.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    let mut sums = [0.0; 8];
    for (a, b) in a.zip(b) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().sum::<f64>() + rest
}

fn rotate(columns: &mut [Vec<f64>], i: usize, j: usize, c: f64, s: f64) {
    let (left, right) = columns.split_at_mut(j);
    for (x, y) in left[i].iter_mut().zip(&mut right[0]) {
        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
    }
}

/// What Gram-Schmidt leaves of a dependent vector, as a part of it, is rounding: some 1e-16 times the vectors' number.
const DEPENDENT: f64 = 1e-12;

/// Gram-Schmidt; twice is enough for right angles to the last bit (Giraud et al. 2005), once keeps an iteration going.
/// Returns the lengths that were left. A vector that depends on those before it becomes zero: made a unit vector, its
/// rounding errors would lie somewhere in their span.
fn orthonormalize(vectors: &mut [Vec<f64>], passes: usize) -> Vec<f64> {
    let mut lengths = Vec::with_capacity(vectors.len());
    for k in 0..vectors.len() {
        let (before, rest) = vectors.split_at_mut(k);
        let vector = &mut rest[0];
        let whole = dot(vector, vector).sqrt();
        for _ in 0..passes {
            for other in before.iter() {
                let along = dot(other, vector);
                vector.iter_mut().zip(other).for_each(|(v, o)| *v -= along * o);
            }
        }
        let length = dot(vector, vector).sqrt();
        let is_dependent = length <= DEPENDENT * whole;
        vector.iter_mut().for_each(|v| if is_dependent { *v = 0.0 } else { *v /= length });
        lengths.push(if is_dependent { 0.0 } else { length });
    }
    lengths
}

/// The first `r` columns of Q, of `W = Q·R`, by Householder reflections as LAPACK's `geqrf` makes them (so that signs
/// are torch's): `r` vectors as long as W has rows.
pub(crate) fn leading_q(w: &[f32], [rows, cols]: [usize; 2], r: usize) -> Vec<Vec<f64>> {
    let mut panel: Vec<Vec<f64>> =
        (0..r).map(|j| (0..rows).map(|i| f64::from(w[i * cols + j])).collect()).collect();
    let mut reflectors: Vec<Vec<f64>> = Vec::with_capacity(r);
    for k in 0..r {
        let column = &panel[k];
        let below = &column[k..];
        let length = dot(below, below).sqrt();
        let mut v = vec![0.0; rows];
        v[k..].copy_from_slice(below);
        // The sign that does not cancel; nothing below the diagonal leaves the column as it is.
        if below[1..].iter().any(|x| *x != 0.0) {
            v[k] += if below[0] < 0.0 { -length } else { length };
            let norm = dot(&v, &v).sqrt();
            v.iter_mut().for_each(|x| *x /= norm);
        } else {
            v.fill(0.0);
        }
        for column in &mut panel[k..] {
            reflect(&v, column);
        }
        reflectors.push(v);
    }
    (0..r)
        .map(|k| {
            let mut q = vec![0.0; rows];
            q[k] = 1.0;
            for v in reflectors.iter().rev() {
                reflect(v, &mut q);
            }
            q
        })
        .collect()
}

/// `x -= 2·v·(vᵀx)`.
fn reflect(v: &[f64], x: &mut [f64]) {
    let along = 2.0 * dot(v, x);
    x.iter_mut().zip(v).for_each(|(x, v)| *x -= along * v);
}

/// The `rank` largest triplets of `B·A` (`A` `[r, inputs]`, `B` `[outputs, r]`) as `A' = Vᵀ` and `B' = U·diag(s)`, in
/// f64: QR of both factors, and Jacobi on the small matrix between them.
pub(crate) fn svd_of_product(
    a: &[f32],
    b: &[f32],
    [outputs, inputs]: [usize; 2],
    r: usize,
    rank: usize,
) -> (Vec<f32>, Vec<f32>) {
    let wide = |x: &f32| f64::from(*x);
    let rows: Vec<Vec<f64>> = a.chunks_exact(inputs).map(|row| row.iter().map(wide).collect()).collect();
    let columns: Vec<Vec<f64>> =
        (0..r).map(|k| (0..outputs).map(|o| wide(&b[o * r + k])).collect()).collect();
    let (mut q_a, mut q_b) = (rows.clone(), columns.clone());
    orthonormalize(&mut q_a, 2);
    orthonormalize(&mut q_b, 2);
    // B·A = Q_b·(Q_bᵀB·A·Q_a)·Q_aᵀ; column j of what is between.
    let between = (0..r)
        .map(|j| {
            let along: Vec<f64> = rows.iter().map(|row| dot(row, &q_a[j])).collect();
            let column = |q: &Vec<f64>| columns.iter().zip(&along).map(|(c, x)| dot(q, c) * x).sum();
            q_b.iter().map(column).collect()
        })
        .collect();
    let (u, s, v) = jacobi(between, r);
    let (mut new_a, mut new_b) = (vec![0.0; rank * inputs], vec![0.0; outputs * rank]);
    for k in 0..rank.min(r) {
        for (weight, q) in v[k].iter().zip(&q_a) {
            new_a[k * inputs..][..inputs].iter_mut().zip(q).for_each(|(a, q)| *a += (weight * q) as f32);
        }
        for (weight, q) in u[k].iter().zip(&q_b) {
            q.iter().enumerate().for_each(|(o, q)| new_b[o * rank + k] += (s[k] * weight * q) as f32);
        }
    }
    (new_a, new_b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use foundry_kernels::ReferenceBackend;

    fn random(seed: u64, [rows, cols]: [usize; 2]) -> Vec<f32> {
        let mut values = vec![0.0; rows * cols];
        Mt19937::seeded(seed).fill_normal_f32(&mut values, 0.0, 1.0);
        values
    }

    /// Random, with singular values that fall like those of trained weights.
    fn falling(shape: [usize; 2]) -> Vec<f32> {
        let [rows, cols] = shape;
        let (u, v) = (random(1, [40, rows]), random(2, [40, cols]));
        let mut w = vec![0.0f32; rows * cols];
        for k in 0..40 {
            let s = 0.8f32.powi(k as i32);
            for i in 0..rows {
                for j in 0..cols {
                    w[i * cols + j] += s * u[k * rows + i] * v[k * cols + j];
                }
            }
        }
        w
    }

    fn triplets(w: &[f32], shape: [usize; 2], r: usize, rounds: Option<u32>) -> Triplets {
        let backend = ReferenceBackend::default();
        let longest = shape[0].max(shape[1]);
        let mut space = Workspace::allocate(&backend, w.len(), longest, columns(r));
        largest_triplets(&backend, &mut space, w, shape, r, rounds)
    }

    /// `W·v = s·u`, `Wᵀ·u = s·v`, unit vectors.
    fn check(w: &[f32], [rows, cols]: [usize; 2], found: &Triplets, tolerance: f64) {
        for ((u, s), v) in found.u.iter().zip(&found.s).zip(&found.v) {
            assert!((dot(u, u) - 1.0).abs() < tolerance && (dot(v, v) - 1.0).abs() < tolerance);
            for i in 0..rows {
                let wv: f64 = (0..cols).map(|j| f64::from(w[i * cols + j]) * v[j]).sum();
                assert!((wv - s * u[i]).abs() < tolerance * found.s[0], "{wv} {}", s * u[i]);
            }
            for j in 0..cols {
                let wu: f64 = (0..rows).map(|i| f64::from(w[i * cols + j]) * u[i]).sum();
                assert!((wu - s * v[j]).abs() < tolerance * found.s[0]);
            }
        }
        assert!(found.s.windows(2).all(|pair| pair[0] >= pair[1]));
    }

    #[test]
    fn small_matrices_are_decomposed_to_double_precision() {
        for shape in [[7, 5], [5, 9], [12, 12]] {
            let w = random(3, shape);
            let found = triplets(&w, shape, 4, None);
            check(&w, shape, &found, 1e-11);
        }
        // A matrix of rank 1 has one singular value that is not 0.
        let found = triplets(&[1.0, 2.0, 2.0, 4.0], [2, 2], 2, None);
        assert!((found.s[0] - 5.0).abs() < 1e-12 && found.s[1] < 1e-12);
    }

    #[test]
    fn large_matrices_are_decomposed_by_subspace_iteration() {
        for shape in [[150, 140], [140, 170]] {
            let w = falling(shape);
            let found = triplets(&w, shape, 6, None);
            let whole = in_full(&w, shape, 6);
            // f32 products; vectors of neighbouring values 20 % apart are good to some 1e-5.
            check(&w, shape, &found, 1e-4);
            for (a, b) in found.s.iter().zip(&whole.s) {
                assert!((a - b).abs() < 1e-6 * whole.s[0], "{a} {b}");
            }
            // Four rounds on six vectors find the largest value to a few thousandths: (0.8^6)^8 ≈ 2e-5 of the rest.
            let rough = triplets(&w, shape, 6, Some(4));
            assert!((rough.s[0] - whole.s[0]).abs() < 5e-3 * whole.s[0]);
        }
    }

    #[test]
    fn a_product_is_decomposed_through_its_factors() {
        // Rank 3 of 6 × 5; at full rank the product comes back, at rank 1 the best approximation.
        let (a, b) = (random(8, [3, 5]), random(9, [6, 3]));
        let product = |a: &[f32], b: &[f32], r: usize| -> Vec<f32> {
            let at = |o: usize, i: usize| (0..r).map(|k| b[o * r + k] * a[k * 5 + i]).sum::<f32>();
            (0..30).map(|n| at(n / 5, n % 5)).collect()
        };
        let whole = product(&a, &b, 3);
        let (new_a, new_b) = svd_of_product(&a, &b, [6, 5], 3, 4);
        for (x, y) in whole.iter().zip(product(&new_a, &new_b, 4)) {
            assert!((x - y).abs() < 1e-5, "{x} {y}");
        }
        // More factors than the matrix has dimensions.
        let (a, b) = (random(10, [9, 5]), random(11, [6, 9]));
        let whole = product(&a, &b, 9);
        let (new_a, new_b) = svd_of_product(&a, &b, [6, 5], 9, 5);
        for (x, y) in whole.iter().zip(product(&new_a, &new_b, 5)) {
            assert!((x - y).abs() < 1e-5, "{x} {y}");
        }
        let (a, b) = (random(8, [3, 5]), random(9, [6, 3]));
        let whole = product(&a, &b, 3);
        let best = in_full(&whole, [6, 5], 1);
        let (new_a, new_b) = svd_of_product(&a, &b, [6, 5], 3, 1);
        for (n, x) in product(&new_a, &new_b, 1).iter().enumerate() {
            let expected = best.u[0][n / 5] * best.s[0] * best.v[0][n % 5];
            assert!((f64::from(*x) - expected).abs() < 1e-5);
        }
    }

    #[test]
    fn q_is_that_of_lapack() {
        // numpy.linalg.qr([[1,2],[3,4],[5,6]]).
        let q = leading_q(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [3, 2], 2);
        let expected = [
            [-0.169_030_850_945_703_3, -0.507_092_552_837_11, -0.845_154_254_728_516_6],
            [0.897_085_227_145_060_5, 0.276_026_223_736_941_5, -0.345_032_779_671_177_2],
        ];
        for (q, expected) in q.iter().zip(expected) {
            assert!(q.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{q:?}");
        }
    }
}
