//! Ranks as threads of one process: for tests of everything that must hold between ranks, and for machines with
//! several memory nodes.

use crate::{CommError, Communicator};
use foundry_kernels::{Backend, Buffer};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// One rank of a group of threads; made by [`Threads::group`], moved into its thread. Dropping it tells the others that
/// this rank has ended, so that nobody waits forever.
pub struct Threads {
    rank: usize,
    meeting: Arc<Meeting>,
}

/// Where the ranks of a group meet. One collective is two rounds: all have brought, all have taken.
struct Meeting {
    world_size: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// What each rank brought to the present collective.
    brought: Vec<Contribution>,
    /// Ranks that wait in the present round.
    waiting: usize,
    /// Rounds finished.
    round: u64,
    /// A rank has ended.
    left: bool,
}

/// Numbers of one rank, in the precision of their sum.
#[derive(Clone)]
enum Contribution {
    None,
    Doubles(Vec<f64>),
    Singles(Vec<f32>),
}

impl Contribution {
    /// What its numbers are, for an error.
    fn precision(&self) -> &'static str {
        match self {
            Contribution::None => "no",
            Contribution::Doubles(_) => "f64",
            Contribution::Singles(_) => "f32",
        }
    }

    /// Why `self`, of `rank`, cannot be summed with `other`.
    fn mismatch(&self, rank: usize, other_rank: usize, other: &Contribution) -> Option<CommError> {
        let (own, found) = (self.precision(), other.precision());
        if own != found {
            return Some(CommError::PrecisionMismatch { rank, own, other_rank, other: found });
        }
        let (own, other) = (self.len(), other.len());
        (own != other).then_some(CommError::LengthMismatch { rank, own, other_rank, other })
    }

    fn len(&self) -> usize {
        match self {
            Contribution::None => 0,
            Contribution::Doubles(values) => values.len(),
            Contribution::Singles(values) => values.len(),
        }
    }
}

impl Threads {
    /// A group of `world_size` ranks (at least one), in the order of their numbers.
    pub fn group(world_size: usize) -> Vec<Threads> {
        let world_size = world_size.max(1);
        let state =
            State { brought: vec![Contribution::None; world_size], waiting: 0, round: 0, left: false };
        let meeting = Arc::new(Meeting { world_size, state: Mutex::new(state), changed: Condvar::new() });
        (0..world_size).map(|rank| Threads { rank, meeting: Arc::clone(&meeting) }).collect()
    }

    fn left(&self) -> CommError {
        CommError::RankLeft { rank: self.rank, world_size: self.meeting.world_size }
    }

    /// The state; a rank that panicked while holding it is reported by `left`, not by a second panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.meeting.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until every rank has entered this round.
    fn finish_round(&self, mut state: MutexGuard<'_, State>) -> Result<(), CommError> {
        if state.left {
            return Err(self.left());
        }
        state.waiting += 1;
        if state.waiting == self.meeting.world_size {
            state.waiting = 0;
            state.round += 1;
            self.meeting.changed.notify_all();
            return Ok(());
        }
        let round = state.round;
        while state.round == round {
            if state.left {
                return Err(self.left());
            }
            state = self.meeting.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Brings `own`, waits for all, folds what all brought with `fold`, waits until all have done so.
    fn exchange(&self, own: Contribution, fold: impl FnOnce(&[Contribution])) -> Result<(), CommError> {
        let mut state = self.lock();
        state.brought[self.rank] = own;
        self.finish_round(state)?;
        let mut state = self.lock();
        let own = &state.brought[self.rank];
        let mut others = state.brought.iter().enumerate();
        let mismatch = others.find_map(|(rank, other)| own.mismatch(self.rank, rank, other));
        if let Some(mismatch) = mismatch {
            // The group cannot go on; the others must not wait for a rank that gave up.
            state.left = true;
            self.meeting.changed.notify_all();
            return Err(mismatch);
        }
        fold(&state.brought);
        self.finish_round(state)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.lock().left = true;
        self.meeting.changed.notify_all();
    }
}

impl Communicator for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.meeting.world_size
    }

    fn all_reduce_sum(&self, values: &mut [f64]) -> Result<(), CommError> {
        let own = Contribution::Doubles(values.to_vec());
        self.exchange(own, |brought| {
            values.fill(0.0);
            for contribution in brought {
                if let Contribution::Doubles(other) = contribution {
                    values.iter_mut().zip(other).for_each(|(sum, x)| *sum += x);
                }
            }
        })
    }

    fn all_reduce_buffer(&self, backend: &dyn Backend, buffer: &mut Buffer) -> Result<(), CommError> {
        let mut values = vec![0.0f32; buffer.len()];
        backend.download(buffer, 0, &mut values);
        let own = Contribution::Singles(values.clone());
        self.exchange(own, |brought| {
            values.fill(0.0);
            for contribution in brought {
                if let Contribution::Singles(other) = contribution {
                    values.iter_mut().zip(other).for_each(|(sum, x)| *sum += x);
                }
            }
        })?;
        backend.upload(&values, buffer, 0);
        Ok(())
    }

    fn barrier(&self) -> Result<(), CommError> {
        self.finish_round(self.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `f` on each rank of a group and returns the results in the order of the ranks.
    fn on_ranks<R: Send>(world_size: usize, f: impl Fn(Threads) -> R + Sync) -> Vec<R> {
        let f = &f;
        std::thread::scope(|scope| {
            let group: Vec<_> =
                Threads::group(world_size).into_iter().map(|rank| scope.spawn(move || f(rank))).collect();
            group.into_iter().map(|thread| thread.join().expect("the rank does not panic")).collect()
        })
    }

    #[test]
    fn sums_are_folded_in_rank_order_with_the_same_bits_everywhere() {
        // 1e16 + 1 - 1e16 depends on the order: only ((1e16 + 1) - 1e16) gives 0.
        let brought = [1e16, 1.0, -1e16];
        for _ in 0..50 {
            let sums = on_ranks(3, |rank| {
                let mut values = [brought[rank.rank()], rank.rank() as f64];
                rank.all_reduce_sum(&mut values).unwrap();
                values
            });
            assert!(sums.iter().all(|sum| *sum == [0.0, 3.0]), "{sums:?}");
        }
    }

    #[test]
    fn collectives_follow_each_other_without_mixing() {
        let sums = on_ranks(4, |rank| {
            (0..200)
                .map(|call| {
                    let mut values = [(call * 10 + rank.rank()) as f64];
                    rank.all_reduce_sum(&mut values).unwrap();
                    if call % 3 == 0 {
                        rank.barrier().unwrap();
                    }
                    values[0]
                })
                .collect::<Vec<_>>()
        });
        let expected: Vec<f64> = (0..200).map(|call| (call * 40 + 6) as f64).collect();
        assert!(sums.iter().all(|sum| *sum == expected));
    }

    #[test]
    fn a_rank_that_ends_frees_those_that_wait() {
        let answers = on_ranks(3, |rank| {
            if rank.rank() == 1 {
                return Ok(());
            }
            rank.all_reduce_sum(&mut [1.0])
        });
        assert_eq!(answers[0], Err(CommError::RankLeft { rank: 0, world_size: 3 }));
        assert_eq!(answers[2], Err(CommError::RankLeft { rank: 2, world_size: 3 }));
    }

    #[test]
    fn different_lengths_are_an_error_not_a_wrong_sum() {
        let answers = on_ranks(2, |rank| rank.all_reduce_sum(&mut vec![1.0; 1 + rank.rank()]));
        // One rank names the mismatch; the other may learn only that its partner has ended.
        assert!(answers.iter().all(Result::is_err), "{answers:?}");
        assert!(answers.iter().any(|a| matches!(a, Err(CommError::LengthMismatch { .. }))), "{answers:?}");
    }

    #[test]
    fn different_precisions_of_one_length_are_an_error_not_a_partial_sum() {
        use foundry_kernels::{Allocator, Dtype, MemoryClass, ReferenceBackend};
        let answers = on_ranks(2, |rank| {
            if rank.rank() == 0 {
                return rank.all_reduce_sum(&mut [1.0; 3]);
            }
            let backend = ReferenceBackend::default();
            let mut buffer = backend.alloc(MemoryClass::Gradients, Dtype::F32, 3);
            rank.all_reduce_buffer(&backend, &mut buffer)
        });
        assert!(answers.iter().all(Result::is_err), "{answers:?}");
        let named = |a: &Result<(), CommError>| matches!(a, Err(CommError::PrecisionMismatch { .. }));
        assert!(answers.iter().any(named), "{answers:?}");
    }

    #[test]
    fn buffers_of_both_precisions_are_summed() {
        use foundry_kernels::{Allocator, Dtype, MemoryClass, ReferenceBackend};
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let sums = on_ranks(3, |rank| {
                let backend = ReferenceBackend::default();
                let mut buffer = backend.alloc(MemoryClass::Gradients, dtype, 5);
                let own: Vec<f32> = (0..5).map(|i| (i + 10 * rank.rank()) as f32).collect();
                backend.upload(&own, &mut buffer, 0);
                rank.all_reduce_buffer(&backend, &mut buffer).unwrap();
                let mut sum = vec![0.0; 5];
                backend.download(&buffer, 0, &mut sum);
                sum
            });
            let expected: Vec<f32> = (0..5).map(|i| (3 * i + 30) as f32).collect();
            assert!(sums.iter().all(|sum| *sum == expected), "{dtype:?}: {sums:?}");
        }
    }
}
