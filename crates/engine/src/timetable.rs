//! When a run steps, logs, evaluates, saves and ends, all known before it starts.

use crate::arguments::{ArgumentError, IntervalStrategy, SaveStrategy, TrainingArgs};

/// The steps of a run. Steps are counted from 1; "step 0" is the start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timetable {
    /// Micro-batches of an epoch on each rank.
    pub batches_per_epoch: u64,
    /// Micro-batches of a full step on each rank.
    pub gradient_accumulation_steps: u64,
    /// Optimiser steps of an epoch: the last may have fewer micro-batches.
    pub steps_per_epoch: u64,
    /// Optimiser steps of the run.
    pub total_steps: u64,
    logging: u64,
    logging_first_step: bool,
    eval: Interval,
    save: Interval,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Interval {
    Never,
    Every(u64),
    Epoch,
}

impl Timetable {
    /// The timetable of a run over `batches_per_epoch` micro-batches on each rank (transformers 5.23
    /// `set_initial_training_values`): `ceil(batches / accumulation)` steps an epoch, `ceil(epochs · that)` in all,
    /// unless `max_steps` is set.
    pub fn new(args: &TrainingArgs, batches_per_epoch: usize) -> Self {
        let batches_per_epoch = batches_per_epoch.max(1) as u64;
        let gradient_accumulation_steps = args.gradient_accumulation_steps.max(1) as u64;
        let steps_per_epoch = batches_per_epoch.div_ceil(gradient_accumulation_steps);
        let total_steps = match u64::try_from(args.max_steps) {
            Ok(steps) if steps > 0 => steps,
            _ => (args.num_train_epochs * steps_per_epoch as f64).ceil() as u64,
        };
        let interval = |strategy, steps: u64| match strategy {
            IntervalStrategy::No => Interval::Never,
            IntervalStrategy::Steps => Interval::Every(steps.max(1)),
            IntervalStrategy::Epoch => Interval::Epoch,
        };
        let save_strategy = match args.save_strategy {
            // After evaluations, which the timetable does not foresee.
            SaveStrategy::No | SaveStrategy::Best => IntervalStrategy::No,
            SaveStrategy::Steps => IntervalStrategy::Steps,
            SaveStrategy::Epoch => IntervalStrategy::Epoch,
        };
        let eval_steps = args.eval_steps.unwrap_or(args.logging_steps).resolve(total_steps);
        Self {
            batches_per_epoch,
            gradient_accumulation_steps,
            steps_per_epoch,
            total_steps,
            logging: args.logging_steps.resolve(total_steps).max(1),
            logging_first_step: args.logging_first_step,
            eval: interval(args.eval_strategy, eval_steps),
            save: interval(save_strategy, args.save_steps.resolve(total_steps)),
        }
    }

    /// The timetable of a run over data whose length may be unknown. Without a length `max_steps` must say when to end,
    /// and counts as one epoch, as in transformers.
    pub fn of(args: &TrainingArgs, batches_per_epoch: Option<usize>) -> Result<Self, ArgumentError> {
        match (batches_per_epoch, u64::try_from(args.max_steps)) {
            (Some(batches), _) => Ok(Self::new(args, batches)),
            (None, Ok(steps)) if steps > 0 => {
                let batches = steps.saturating_mul(args.gradient_accumulation_steps.max(1) as u64);
                Ok(Self::new(args, usize::try_from(batches).unwrap_or(usize::MAX)))
            }
            (None, _) => Err(ArgumentError {
                key: "max_steps",
                value: args.max_steps.to_string(),
                expected: "1 or more: how long a pass over streamed data is, is not known",
            }),
        }
    }

    /// Micro-batches of step `step` (from 1) on each rank: fewer in the last step of an epoch when the accumulation
    /// does not divide the epoch.
    pub fn micro_batches(&self, step: u64) -> u64 {
        let before = (step - 1) % self.steps_per_epoch * self.gradient_accumulation_steps;
        self.gradient_accumulation_steps.min(self.batches_per_epoch - before)
    }

    /// Epochs seen after `step` steps: whole epochs plus the share of the present one's micro-batches.
    pub fn epoch(&self, step: u64) -> f64 {
        let (whole, within) = (step / self.steps_per_epoch, step % self.steps_per_epoch);
        let batches = within * self.gradient_accumulation_steps;
        whole as f64 + batches as f64 / self.batches_per_epoch as f64
    }

    /// A metrics record is due after `step`.
    pub fn logs_after(&self, step: u64) -> bool {
        step.is_multiple_of(self.logging) || (step == 1 && self.logging_first_step)
    }

    /// An evaluation is due after `step`.
    pub fn evaluates_after(&self, step: u64) -> bool {
        self.due(self.eval, step)
    }

    /// A checkpoint is due at the end of the run, whichever step that is.
    pub fn saves_at_the_end(&self) -> bool {
        self.save != Interval::Never
    }

    /// A checkpoint is due after `step`.
    pub fn saves_after(&self, step: u64) -> bool {
        self.due(self.save, step)
    }

    fn due(&self, interval: Interval, step: u64) -> bool {
        match interval {
            Interval::Never => false,
            Interval::Every(steps) => step.is_multiple_of(steps) || step == self.total_steps,
            Interval::Epoch => step.is_multiple_of(self.steps_per_epoch) || step == self.total_steps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::StepCount;

    fn table(batches: usize, change: impl FnOnce(&mut TrainingArgs)) -> Timetable {
        let mut args = TrainingArgs::default();
        change(&mut args);
        Timetable::new(&args, batches)
    }

    #[test]
    fn the_last_step_of_an_epoch_may_be_short() {
        let table = table(10, |a| {
            a.gradient_accumulation_steps = 4;
            a.num_train_epochs = 2.0;
        });
        assert_eq!((table.steps_per_epoch, table.total_steps), (3, 6));
        let windows: Vec<u64> = (1..=6).map(|step| table.micro_batches(step)).collect();
        assert_eq!(windows, [4, 4, 2, 4, 4, 2], "each epoch's batches are used up");
        let epochs: Vec<f64> = (0..=6).map(|step| table.epoch(step)).collect();
        assert_eq!(epochs, [0.0, 0.4, 0.8, 1.0, 1.4, 1.8, 2.0]);
    }

    #[test]
    fn fractions_of_epochs_round_up_and_max_steps_wins() {
        assert_eq!(table(10, |a| a.num_train_epochs = 0.25).total_steps, 3);
        assert_eq!(table(10, |a| a.num_train_epochs = 1.5).total_steps, 15);
        assert_eq!(table(10, |a| a.max_steps = 7).total_steps, 7);
        // An accumulation longer than the epoch: one short step an epoch.
        let long = table(3, |a| a.gradient_accumulation_steps = 8);
        assert_eq!((long.steps_per_epoch, long.total_steps, long.micro_batches(2)), (1, 3, 3));
    }

    #[test]
    fn data_of_unknown_length_needs_max_steps_and_is_one_epoch() {
        let mut args = TrainingArgs { gradient_accumulation_steps: 4, ..TrainingArgs::default() };
        let error = Timetable::of(&args, None).unwrap_err().to_string();
        assert!(error.starts_with("training.max_steps is -1, expected 1 or more"), "{error}");
        args.max_steps = 10;
        let table = Timetable::of(&args, None).unwrap();
        assert_eq!((table.total_steps, table.steps_per_epoch, table.micro_batches(10)), (10, 10, 4));
        assert_eq!((table.epoch(5), table.epoch(10)), (0.5, 1.0));
        assert_eq!(Timetable::of(&args, Some(7)).unwrap(), Timetable::new(&args, 7));
    }

    #[test]
    fn what_is_due_when() {
        let table = table(10, |a| {
            a.max_steps = 23;
            a.logging_steps = StepCount::steps(5);
            a.logging_first_step = true;
            a.eval_strategy = IntervalStrategy::Epoch;
            a.save_steps = StepCount::new(0.3).unwrap();
        });
        let due = |f: &dyn Fn(u64) -> bool| (1..=23).filter(|&step| f(step)).collect::<Vec<u64>>();
        assert_eq!(due(&|step| table.logs_after(step)), [1, 5, 10, 15, 20]);
        assert_eq!(due(&|step| table.evaluates_after(step)), [10, 20, 23]);
        assert_eq!(due(&|step| table.saves_after(step)), [7, 14, 21, 23], "ceil(0.3 · 23) = 7");
    }
}
