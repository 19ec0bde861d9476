//! Memory that a product needs and forgets: kept by each thread between calls, so that steps do not allocate.

use bytemuck::{Pod, Zeroable};
use std::cell::RefCell;

/// A cache line: scratch starts on a 64-byte boundary.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u32; 16]);

thread_local! {
    /// Blocks not in use. A stack, so that nested uses find the block they had the last time.
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// About the most bytes that all threads together keep between calls, for products of up to `tokens` rows and `widest`
/// columns: rows laid out anew (on the calling thread, at most 8 MiB at a time), and on each thread packed panels
/// (half of a second-level cache), tiles, strips of quantised factors and attention's blocks.
pub fn scratch_bound(threads: usize, tokens: usize, widest: usize) -> u64 {
    let staged = (tokens as u64).saturating_mul(4 * widest as u64).min(8 << 20);
    staged
        + (threads as u64).saturating_mul((crate::simd::cache::second_level_bytes() / 2 + (768 << 10)) as u64)
}

/// Runs `f` on `len` elements of this thread's scratch memory. What they hold is what the last user left there.
pub(crate) fn with<T: Pod, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    let mut lines = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    let needed = (len * size_of::<T>()).div_ceil(size_of::<Line>());
    if lines.len() < needed {
        lines.resize(needed, Line::zeroed());
    }
    let result = f(&mut bytemuck::cast_slice_mut(&mut lines[..needed])[..len]);
    FREE.with_borrow_mut(|free| free.push(lines));
    result
}
