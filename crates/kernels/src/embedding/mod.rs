//! Rows of a table: `out_td[t] = table_vd[ids[t]]`. Backward: `dtable_vd[ids[t]] += dout_td[t]`.

mod cpu;
pub(crate) mod reference;
#[cfg(test)]
mod tests;

use crate::operand::with_operand;
use crate::pool::Pool;
use crate::{Buffer, Isa};

/// Copies one row for each id, converting if the dtypes differ.
pub(crate) fn forward(
    pool: &Pool,
    isa: Isa,
    [tokens, width]: [usize; 2],
    ids: &Buffer,
    table: &Buffer,
    out: &mut Buffer,
) {
    let ids = &ids.u32()[..tokens];
    with_operand!(table.dtype(), T => with_operand!(out.dtype(), O => {
        cpu::forward::<T, O>(pool, isa, width, ids, table.typed(), &mut out.typed_mut()[..tokens * width]);
    }));
}

/// Adds each row of `dout` to the table row of its id, in the order of the tokens.
pub(crate) fn backward(
    pool: &Pool,
    isa: Isa,
    [tokens, width]: [usize; 2],
    ids: &Buffer,
    dout: &Buffer,
    dtable: &mut Buffer,
) {
    let ids = &ids.u32()[..tokens];
    with_operand!(dout.dtype(), T => {
        cpu::backward::<T>(pool, isa, width, ids, &dout.typed()[..tokens * width], dtable.f32_mut());
    });
}
