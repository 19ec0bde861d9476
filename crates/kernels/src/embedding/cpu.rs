//! Forward: tokens in parallel. Backward: each task owns a range of the vocabulary and takes its tokens in order, so no
//! two tasks write one row and every row is summed in one order.

use crate::Isa;
use crate::lanes::vectorize;
use crate::operand::Operand;
use crate::pool::Pool;

/// Tokens of one task.
const TOKENS: usize = 16;

/// Tasks of the backward; each looks at every id, which is cheap beside adding the rows.
const RANGES: usize = 32;

pub(super) fn forward<T: Operand, O: Operand>(
    pool: &Pool,
    isa: Isa,
    width: usize,
    ids: &[u32],
    table: &[T],
    out: &mut [O],
) {
    pool.pieces(out, TOKENS * width, |i, out| {
        for (out, &id) in out.chunks_exact_mut(width).zip(&ids[i * TOKENS..]) {
            let row = table_row(id, width, table);
            vectorize!(isa, F => out.iter_mut().zip(row).for_each(|(out, x)| *out = O::narrow(x.widen())));
        }
    });
}

fn table_row<T>(id: u32, width: usize, table: &[T]) -> &[T] {
    let at = id as usize * width;
    assert!(at + width <= table.len(), "token id {id} is outside a table of {} rows", table.len() / width);
    &table[at..at + width]
}

pub(super) fn backward<T: Operand>(
    pool: &Pool,
    isa: Isa,
    width: usize,
    ids: &[u32],
    dout: &[T],
    dtable: &mut [f32],
) {
    let rows = dtable.len() / width;
    if let Some(id) = ids.iter().find(|&&id| id as usize >= rows) {
        panic!("token id {id} is outside a table of {rows} rows");
    }
    let range = rows.div_ceil(RANGES).max(1);
    pool.pieces(dtable, range * width, |i, dtable| {
        for (&id, dout) in ids.iter().zip(dout.chunks_exact(width)) {
            if id as usize / range == i {
                let row = &mut dtable[(id as usize - i * range) * width..][..width];
                vectorize!(isa, F => row.iter_mut().zip(dout).for_each(|(row, dout)| *row += dout.widen()));
            }
        }
    });
}
