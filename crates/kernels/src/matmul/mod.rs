//! Matrix product: `C[m,n] = alpha · Σ_k op(A)[m,k] · op(B)[k,n]`, or `C += …`.
//!
//! Legend: `op(X)` is `X` or its transpose ([`Matmul::trans_a`], [`Matmul::trans_b`]); every matrix is row-major.
//! `A` and `B` are both f32 or both bf16, products are summed in f32, `C` is f32 or bf16 and rounded once.
//!
//! For `Y = X·Wᵀ` the gradients are the same operation: `dX = dY·W` ([`Matmul::nn`]) and `dW = dYᵀ·X` ([`Matmul::tn`]).
//!
//! | file | what |
//! |---|---|
//! | `reference.rs` | the definition in plain loops |
//! | `cpu.rs` | blocks, tasks, packing |
//! | `cpu_kernel.rs`, `cpu_x86.rs` | what differs between instruction sets |
//! | `cpu_factor.rs` | `B` as it is stored: dense or quantised |
//! | `cpu_partition.rs` | the cut into tasks |
//! | `cpu_few_rows.rs` | decoding: a handful of rows, limited by memory |
//! | `cpu_few_rows_amx.rs` | the same on AMX, up to 64 rows |
//! | `cpu_narrow.rs` | `Aᵀ·B` with few columns |
//!
//! Operations that need a product inside (attention, the head) call [`dispatch`] with their own strided views: with
//! a pool for a large one, without for a tile of their own task.

mod cpu;
mod cpu_factor;
mod cpu_few_rows;
#[cfg(target_arch = "x86_64")]
mod cpu_few_rows_amx;
mod cpu_kernel;
mod cpu_narrow;
mod cpu_partition;
#[cfg(target_arch = "x86_64")]
mod cpu_x86;
pub(crate) mod reference;
pub(crate) mod scratch;
#[cfg(test)]
mod tests;

use crate::operand::{Operand, with_operand};
use crate::pool::Pool;
use crate::quantized::{QuantizedMatrix, View};
use crate::simd::matrix::{BlockMut, Matrix, Out};
use crate::{Buffer, Dtype, Isa, Matmul};
use cpu_factor::Factor;

/// The product on dense buffers. Panics if a buffer is too short or of a dtype that does not belong here.
pub(crate) fn matmul(pool: &Pool, isa: Isa, op: &Matmul, a: &Buffer, b: &Buffer, c: &mut Buffer) {
    let Matmul { m, n, k, .. } = *op;
    assert!(a.dtype() == b.dtype(), "matmul: A is {:?}, B is {:?}", a.dtype(), b.dtype());
    let c = result(c, m, n);
    with_operand!(a.dtype(), T => {
        let a = Matrix::new(a.typed::<T>(), stored_cols(op.trans_a, m, k));
        let b = Matrix::new(b.typed::<T>(), stored_cols(op.trans_b, k, n));
        dispatch(Some(pool), isa, op, a, b, c);
    });
}

/// The product with a quantised `B`, which keeps its form: `op(B)` is `W` (`dX = dY·W`) or its transpose (`Y = X·Wᵀ`).
/// Panics as [`matmul`] does, and if `A` is used transposed.
pub(crate) fn matmul_quantized(
    pool: &Pool,
    isa: Isa,
    op: &Matmul,
    a: &Buffer,
    w: &QuantizedMatrix,
    c: &mut Buffer,
) {
    let Matmul { m, n, k, trans_a, .. } = *op;
    assert!(!trans_a, "matmul: a quantised factor with a transposed A");
    let c = result(c, m, n);
    with_operand!(a.dtype(), T => {
        let a = Matrix::new(a.typed::<T>(), k);
        dispatch_factor::<T>(Some(pool), isa, op, a, Factor::Quantized(isa, View::new(w)), c);
    });
}

fn result(c: &mut Buffer, rows: usize, cols: usize) -> Out<'_> {
    match c.dtype() {
        Dtype::F32 => Out::F32(BlockMut::new(c.f32_mut(), rows, cols, cols)),
        Dtype::Bf16 => Out::Bf16(BlockMut::new(c.bf16_mut(), rows, cols, cols)),
        other => panic!("matmul: C is {other:?}, expected F32 or Bf16"),
    }
}

/// Columns of a matrix as it is stored, from the shape `rows × cols` in which it is used.
fn stored_cols(trans: bool, rows: usize, cols: usize) -> usize {
    if trans { rows } else { cols }
}

/// The product on strided views, on the threads of `pool` (`None`: on this one alone). Checks the operands and picks
/// the path, by shape and instruction set alone.
pub(crate) fn dispatch<T: Operand>(
    pool: Option<&Pool>,
    isa: Isa,
    op: &Matmul,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    c: Out<'_>,
) {
    if cpu_narrow::fits(op) {
        expect(op, a, Factor::Dense(b));
        return cpu_narrow::run(pool, isa, op, a, b, c);
    }
    dispatch_factor(pool, isa, op, a, Factor::Dense(b), c);
}

fn expect<T: Operand>(op: &Matmul, a: Matrix<'_, T>, b: Factor<'_, T>) {
    let Matmul { m, n, k, trans_a, trans_b, .. } = *op;
    a.expect("matmul: A", if trans_a { k } else { m }, stored_cols(trans_a, m, k));
    b.expect(if trans_b { n } else { k }, stored_cols(trans_b, k, n));
}

fn dispatch_factor<T: Operand>(
    pool: Option<&Pool>,
    isa: Isa,
    op: &Matmul,
    a: Matrix<'_, T>,
    b: Factor<'_, T>,
    c: Out<'_>,
) {
    expect(op, a, b);
    let Matmul { m, n, .. } = *op;
    if m == 0 || n == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if let Isa::Amx(witness) = isa
        && T::DTYPE == Dtype::Bf16
        && cpu_few_rows_amx::fits(op)
    {
        return cpu_few_rows_amx::run(witness, pool, op, same(a), b.same(), c);
    }
    if cpu_few_rows::fits(op) {
        return cpu_few_rows::run(pool, isa, op, a, b, c);
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx(witness) if T::DTYPE == Dtype::Bf16 => {
            let (a, b) = (same(a), b.same());
            cpu::Driver { kernel: cpu_x86::Bf16Amx(witness), pool, op: *op, a, b }.run(c);
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(witness) if T::DTYPE == Dtype::Bf16 => {
            let (a, b) = (same(a), b.same());
            cpu::Driver { kernel: cpu_x86::Bf16Avx512(witness), pool, op: *op, a, b }.run(c);
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Amx(_) | Isa::Avx512(_) => {
            let witness = isa.avx512().expect("both include AVX-512");
            let (a, b) = (same(a), b.same());
            cpu::Driver { kernel: cpu_x86::F32Avx512(witness), pool, op: *op, a, b }.run(c);
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(witness) => {
            cpu::Driver { kernel: cpu_x86::F32Avx2::<T>::new(witness), pool, op: *op, a, b }.run(c);
        }
        _ => cpu::Driver { kernel: cpu_kernel::Portable::<T>::new(), pool, op: *op, a, b }.run(c),
    }
}

/// The same matrix under the name of its element type.
#[cfg(target_arch = "x86_64")]
fn same<T: Operand, U: Operand>(x: Matrix<'_, T>) -> Matrix<'_, U> {
    assert!(T::DTYPE == U::DTYPE);
    Matrix::new(bytemuck::cast_slice(x.data), x.stride)
}
