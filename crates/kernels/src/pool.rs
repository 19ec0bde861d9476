//! The threads of a CPU backend: one pool, static partition.
//!
//! Work is cut by the shape of the problem, never by the number of threads, and every sum is folded in a fixed order:
//! that is why results have the same bits for any number of threads.

use rayon::prelude::*;

/// A fixed set of worker threads.
pub struct Pool {
    threads: rayon::ThreadPool,
}

impl Pool {
    /// A pool of `threads` workers (at least one).
    pub fn new(threads: usize) -> Self {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|i| format!("kernel-{i}"))
            .build()
            .expect("the operating system can start worker threads");
        Self { threads }
    }

    /// Number of workers.
    pub fn threads(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// Runs `f` on a worker: what it shares out then begins at once, on this worker itself, and a caller outside is
    /// woken once for all of it. Waking costs more than a small operation.
    pub fn inside(&self, f: impl FnOnce() + Send) {
        self.threads.install(f);
    }

    /// Runs `f(0), f(1), …, f(tasks-1)`, in any order and in parallel.
    pub fn run(&self, tasks: usize, f: impl Fn(usize) + Sync + Send) {
        match tasks {
            0 => {}
            1 => f(0),
            _ => self.threads.install(|| (0..tasks).into_par_iter().with_max_len(1).for_each(f)),
        }
    }

    /// Cuts `x` into pieces of `piece` elements (the last may be shorter) and runs `f(index, piece)` on each.
    pub fn pieces<T: Send>(&self, x: &mut [T], piece: usize, f: impl Fn(usize, &mut [T]) + Sync + Send) {
        if x.len() <= piece {
            if !x.is_empty() {
                f(0, x);
            }
            return;
        }
        self.threads.install(|| x.par_chunks_mut(piece).enumerate().for_each(|(i, part)| f(i, part)));
    }

    /// Two slices cut side by side.
    pub fn pieces2<A: Send, B: Send>(
        &self,
        a: &mut [A],
        piece_a: usize,
        b: &mut [B],
        piece_b: usize,
        f: impl Fn(usize, &mut [A], &mut [B]) + Sync + Send,
    ) {
        self.threads.install(|| {
            a.par_chunks_mut(piece_a)
                .zip(b.par_chunks_mut(piece_b))
                .enumerate()
                .for_each(|(i, (a, b))| f(i, a, b));
        });
    }

    /// Runs `f` on every item, in any order and in parallel.
    pub fn each<T: Send>(&self, mut items: Vec<T>, f: impl Fn(T) + Sync + Send) {
        if items.len() > 1 {
            self.threads.install(|| items.into_par_iter().with_max_len(1).for_each(f));
        } else if let Some(item) = items.pop() {
            f(item);
        }
    }

    /// `f(0), …, f(tasks-1)` in parallel, the results in order.
    pub fn map<R: Send>(&self, tasks: usize, f: impl Fn(usize) -> R + Sync + Send) -> Vec<R> {
        if tasks <= 1 {
            return (0..tasks).map(f).collect();
        }
        self.threads.install(|| (0..tasks).into_par_iter().with_max_len(1).map(f).collect())
    }
}
