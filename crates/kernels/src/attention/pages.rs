//! Keys and values that do not lie side by side: a cache hands out pages of a fixed number of rows, and a sequence has
//! its rows in any of them (Kwon et al. 2023, "PagedAttention").

/// Where the key rows that spans count lie in `k` and `v`: row `r` is row `table[r / tokens]·tokens + r % tokens`.
/// Spans may name the same page more than once.
#[derive(Clone, Copy, Debug)]
pub struct Pages<'a> {
    /// Rows of a page.
    pub tokens: usize,
    /// Page of each run of `tokens` key rows.
    pub table: &'a [u32],
}

impl Pages<'_> {
    /// Where key row `row` lies.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> usize {
        self.table[row / self.tokens] as usize * self.tokens + row % self.tokens
    }

    /// Rows that a buffer must have, so that the first `keys` key rows lie in it.
    ///
    /// # Panics
    /// If the table is too short for them, or pages have no rows.
    pub(crate) fn rows(&self, keys: usize) -> usize {
        assert!(self.tokens > 0, "pages without rows");
        let pages = keys.div_ceil(self.tokens);
        assert!(
            pages <= self.table.len(),
            "{keys} key rows in {} pages of {}",
            self.table.len(),
            self.tokens
        );
        let last = self.table[..pages].iter().max().map_or(0, |page| *page as usize + 1);
        last * self.tokens
    }

    /// The first `keys` key rows of `x`, side by side; a row has `width` numbers.
    pub(crate) fn gather<T: Copy>(&self, keys: usize, width: usize, x: &[T]) -> Vec<T> {
        (0..keys).flat_map(|row| &x[self.row(row) * width..][..width]).copied().collect()
    }
}
