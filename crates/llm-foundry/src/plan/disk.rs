//! What a run writes, and whether it fits.

use crate::console::bytes;
use crate::disk::{self, SMALL_FILES};
use crate::failure::{Failure, Outcome};
use foundry_engine::TrainingArgs;
use foundry_engine::arguments::{IntervalStrategy, SaveStrategy};
use std::path::Path;

/// Bytes of a run on disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disk {
    /// The adapter or model.
    pub(crate) result: u64,
    /// One checkpoint.
    pub(crate) checkpoint: u64,
    /// The most checkpoints that are there at once, the one in the making included; `None`: unknown.
    pub(crate) checkpoints: Option<u64>,
}

/// What decides how much a run writes.
pub(super) struct Written {
    /// Numbers of the adapter or model as it is saved.
    pub(super) saved: u64,
    /// Numbers that are trained.
    pub(super) trainable: u64,
    /// Bytes of the optimiser's state.
    pub(super) optimizer: u64,
    /// Optimiser steps, and those of an epoch.
    pub(super) steps: Option<(u64, Option<u64>)>,
}

impl Disk {
    pub(super) fn of(args: &TrainingArgs, written: &Written) -> Self {
        let result = written.saved.saturating_mul(4).saturating_add(SMALL_FILES);
        let state = match args.save_only_model {
            true => 0,
            false => written.trainable.saturating_mul(4).saturating_add(written.optimizer),
        };
        let checkpoints = written.steps.map(|steps| checkpoints(args, steps));
        Self { result, checkpoint: result.saturating_add(state), checkpoints }
    }

    /// All of it, as far as it is known.
    pub(crate) fn total(&self) -> u64 {
        self.checkpoint.saturating_mul(self.checkpoints.unwrap_or(1)).saturating_add(self.result)
    }

    /// Refuses a run that does not fit below `dir`. A run that goes on has most of it there already.
    pub(crate) fn check(&self, dir: &Path, goes_on: bool) -> Outcome {
        let more = self.checkpoint.saturating_mul(2).saturating_add(self.result);
        let needed = if goes_on { self.total().min(more) } else { self.total() };
        let Some((place, free)) = disk::free(dir).filter(|(_, free)| *free < needed) else { return Ok(()) };
        Err(Failure::Input(format!(
            "not enough disk space: this run writes up to {} ({}), and {} are free in {}\n  to need less: \
             training.save_total_limit=2, fewer checkpoints (training.save_steps), training.save_only_model=true\n  to \
             write elsewhere: output_dir=DIR\n  to try anyway: training.check_disk=false",
            bytes(needed),
            self.words(),
            bytes(free),
            place.display()
        )))
    }

    /// Its parts.
    pub(crate) fn words(&self) -> String {
        let result = bytes(self.result);
        match self.checkpoints {
            Some(0) => format!("result {result}, no checkpoints"),
            Some(count) => {
                format!("result {result}, at most {count} checkpoint(s) of {}", bytes(self.checkpoint))
            }
            None => format!("result {result}, each checkpoint {}", bytes(self.checkpoint)),
        }
    }
}

/// The most checkpoints at once: an old one goes when the new one is complete, and the best may stay beside the last.
fn checkpoints(args: &TrainingArgs, (total, per_epoch): (u64, Option<u64>)) -> u64 {
    let evaluations = match args.eval_strategy {
        IntervalStrategy::No => 0,
        IntervalStrategy::Steps => {
            total.div_ceil(args.eval_steps.unwrap_or(args.logging_steps).resolve(total).max(1))
        }
        IntervalStrategy::Epoch => total.div_ceil(per_epoch.unwrap_or(total).max(1)),
    };
    let regular = match args.save_strategy {
        SaveStrategy::No => 0,
        SaveStrategy::Steps => total.div_ceil(args.save_steps.resolve(total).max(1)),
        SaveStrategy::Epoch => total.div_ceil(per_epoch.unwrap_or(total).max(1)),
        SaveStrategy::Best => evaluations,
    };
    let best = if args.load_best_model_at_end { evaluations } else { 0 };
    let written = regular.max(best);
    match args.save_total_limit.filter(|limit| *limit > 0) {
        None => written,
        Some(limit) => written.min(limit as u64 + 1 + u64::from(args.load_best_model_at_end)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foundry_engine::arguments::StepCount;

    #[test]
    fn checkpoints_are_counted_as_they_are_kept() {
        let args = |steps: u32, limit: Option<usize>| TrainingArgs {
            save_steps: StepCount::steps(steps),
            save_total_limit: limit,
            ..TrainingArgs::default()
        };
        assert_eq!(checkpoints(&args(500, None), (1700, None)), 4, "500, 1000, 1500 and the end");
        assert_eq!(checkpoints(&args(500, Some(2)), (1700, None)), 3, "two, and one in the making");
        assert_eq!(checkpoints(&args(500, Some(9)), (1700, None)), 4);
        let never = TrainingArgs { save_strategy: SaveStrategy::No, ..args(1, None) };
        assert_eq!(checkpoints(&never, (1700, None)), 0);
        let written = Written { saved: 1000, trainable: 1000, optimizer: 8000, steps: Some((10, None)) };
        let disk = Disk::of(&args(5, Some(1)), &written);
        assert_eq!(disk.result, 4000 + SMALL_FILES);
        assert_eq!(disk.checkpoint, disk.result + 4000 + 8000);
        assert_eq!(disk.total(), 2 * disk.checkpoint + disk.result);
    }
}
