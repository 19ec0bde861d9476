//! Memory that a product needs and forgets, kept between calls, so that steps do not allocate: what a task needs by
//! each thread, what a whole operation needs by the process, as any thread may be the one that begins it.

use crate::Attention;
use bytemuck::{Pod, Zeroable};
use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

/// A cache line: scratch starts on a 64-byte boundary.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u32; 16]);

thread_local! {
    /// Blocks not in use. A stack, so that nested uses find the block they had the last time.
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Blocks not in use that are lent to whole operations.
static SHARED: Mutex<Vec<Vec<Line>>> = Mutex::new(Vec::new());

/// About the most bytes that all threads together keep between calls, for products of up to `tokens` rows and `widest`
/// columns and for the backward of `attention` over them: for a whole operation, rows laid out anew (at most 8 MiB at a
/// time) or sums of `dq`; on each thread packed panels (half of a second-level cache), tiles, strips of quantised
/// factors and attention's blocks.
pub fn scratch_bound(threads: usize, tokens: usize, widest: usize, attention: &Attention) -> u64 {
    let staged = (tokens as u64).saturating_mul(4 * widest as u64).min(8 << 20);
    let shared = staged.max(crate::attention::sums_bytes(attention, tokens));
    let of_a_thread = crate::simd::cache::second_level_bytes() / 2 + (1280 << 10);
    shared + (threads as u64).saturating_mul(of_a_thread as u64)
}

/// Runs `f` on `len` elements of this thread's scratch memory. What they hold is what the last user left there.
pub(crate) fn with<T: Pod, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    let mut lines = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    let result = f(elements(&mut lines, len));
    FREE.with_borrow_mut(|free| free.push(lines));
    result
}

/// Runs `f` on `len` elements of the process's scratch memory: for what an operation needs before it shares its work
/// out. The thread that begins it may be another one each time, and each would keep a block of this size.
pub(crate) fn shared<T: Pod, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    let free = || SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut lines = free().pop().unwrap_or_default();
    let result = f(elements(&mut lines, len));
    free().push(lines);
    result
}

/// Cuts parts of these sizes off the front of `memory`.
#[inline(always)]
pub(crate) fn split<'m, T, const N: usize>(memory: &mut &'m mut [T], sizes: [usize; N]) -> [&'m mut [T]; N] {
    sizes.map(
        #[inline(always)]
        |size| memory.split_off_mut(..size).expect("the sizes add up"),
    )
}

/// The first `len` elements of a block, which grows if it has to.
fn elements<T: Pod>(lines: &mut Vec<Line>, len: usize) -> &mut [T] {
    let needed = (len * size_of::<T>()).div_ceil(size_of::<Line>());
    if lines.len() < needed {
        lines.resize(needed, Line::zeroed());
    }
    &mut bytemuck::cast_slice_mut(&mut lines[..needed])[..len]
}
