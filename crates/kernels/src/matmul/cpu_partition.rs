//! How the sums of one product are shared out: which rows and columns make a task.
//!
//! Every element of `C` is one sum over ascending `k`, computed the same way wherever it falls, so the partition may
//! depend on the number of threads without changing a bit of the result.

/// What packing a panel of `B` costs, in rows of `A` multiplied with it (measured on Zen 4, as the next).
const PACKING_ROWS: usize = 12;
/// What it costs a row of a panel of `C` that two threads write to the same rows, in steps of `k`.
const SHARED_ROW_STEPS: usize = 12;

/// `0..total` cut into `parts` runs whose lengths differ by at most one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    total: usize,
    parts: usize,
}

impl Cut {
    pub(super) fn new(total: usize, parts: usize) -> Self {
        Self { total, parts: parts.clamp(1, total.max(1)) }
    }

    pub(super) fn parts(self) -> usize {
        self.parts
    }

    /// Start of part `i`; the end of part `i` is the start of part `i + 1`.
    pub(super) fn start(self, i: usize) -> usize {
        self.total * i / self.parts
    }

    /// Start and length of every part.
    pub(super) fn runs(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.parts).map(move |i| (self.start(i), self.start(i + 1) - self.start(i)))
    }
}

/// Tasks: row parts × column parts, both in units of tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    /// Tiles of rows, cut.
    pub(super) rows: Cut,
    /// Panels of columns, cut.
    pub(super) cols: Cut,
}

impl Grid {
    /// The grid with the least work on the busiest thread, for sums of `k` products: `row_tiles` of `tile_rows` rows,
    /// `panels` of columns of which at most `most_panels` fit the cache at a time. Each task packs its own panels.
    pub(super) fn new(
        (row_tiles, tile_rows): (usize, usize),
        (panels, most_panels): (usize, usize),
        k: usize,
        threads: usize,
    ) -> Self {
        let fewest = panels.div_ceil(most_panels.max(1)).max(1);
        let (mut best, mut best_cost) = ((1, fewest), usize::MAX);
        for col_parts in fewest..=(fewest + threads - 1).min(panels).max(fewest) {
            let mut row_parts = 1;
            while row_parts <= threads.min(row_tiles).max(1) {
                let rounds = (col_parts * row_parts).div_ceil(threads);
                let rows = row_tiles.div_ceil(row_parts) * tile_rows;
                let steps = if row_parts < threads { k + SHARED_ROW_STEPS } else { k };
                let cost = rounds * panels.div_ceil(col_parts) * (rows * steps + PACKING_ROWS * k);
                if cost < best_cost {
                    (best, best_cost) = ((row_parts, col_parts), cost);
                }
                row_parts = if row_parts < threads { (2 * row_parts).min(threads) } else { threads + 1 };
            }
        }
        Self { rows: Cut::new(row_tiles, best.0), cols: Cut::new(panels, best.1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_covers_everything_once() {
        for total in 0..40 {
            for parts in 0..12 {
                let mut next = 0;
                let (mut least, mut most) = (usize::MAX, 0);
                for (start, len) in Cut::new(total, parts).runs() {
                    assert_eq!(start, next);
                    (next, least, most) = (start + len, least.min(len), most.max(len));
                }
                assert_eq!(next, total);
                assert!(most - least <= 1, "{total} in {parts}");
            }
        }
    }

    #[test]
    fn a_grid_fits_the_cache_and_keeps_every_thread_busy() {
        for threads in [1, 2, 3, 8, 64] {
            for (row_tiles, panels, most_panels) in
                [(74, 18, 14), (74, 1536, 14), (74, 1, 30), (2, 18, 8), (1, 1, 1)]
            {
                let grid = Grid::new((row_tiles, 14), (panels, most_panels), 576, threads);
                assert!(grid.cols.runs().all(|(_, len)| len <= most_panels), "{grid:?}");
                let longest = |cut: Cut| cut.runs().map(|(_, len)| len).max().unwrap_or(0);
                let rounds = (grid.rows.parts() * grid.cols.parts()).div_ceil(threads);
                let busiest = rounds * longest(grid.rows) * longest(grid.cols);
                // Twice an even share: tiles are not divisible, and packing again may cost more than it saves.
                assert!(busiest <= (2 * row_tiles * panels).div_ceil(threads), "{threads} threads: {grid:?}");
            }
        }
    }

    #[test]
    fn one_thread_packs_each_panel_once() {
        assert_eq!(Grid::new((74, 14), (18, 14), 576, 1).rows.parts(), 1);
    }

    #[test]
    fn a_single_panel_is_shared_by_rows() {
        let grid = Grid::new((74, 14), (1, 30), 576, 2);
        assert_eq!((grid.rows.parts(), grid.cols.parts()), (2, 1));
    }

    #[test]
    fn short_sums_are_shared_by_rows_and_long_ones_by_columns() {
        let parts = |k| {
            let grid = Grid::new((74, 14), (18, 100), k, 2);
            (grid.rows.parts(), grid.cols.parts())
        };
        assert_eq!(parts(16), (2, 1));
        assert_eq!(parts(2048), (1, 2));
    }
}
