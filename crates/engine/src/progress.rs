//! Where a run stands: the sums behind its reports, and the state a checkpoint keeps.

use crate::best::{Comparison, EvalMetric};
use crate::callbacks::Flow;
use crate::checkpoint::{BestEvaluation, LogWindow, TrainerState};
use crate::report::{EvalReport, Judgement, LogRecord, StepReport, Summary};
use crate::step::{StepPlan, Taken};
use crate::timetable::Timetable;
use crate::trainer::Run;
use serde_json::Value;

/// The running sums of a run.
pub(crate) struct Progress {
    timetable: Timetable,
    pub(crate) step: u64,
    learning_rate: f64,
    grad_norm: f64,
    loss_sum: f64,
    tokens: u64,
    seconds: f64,
    window: LogWindow,
    /// The evaluation of this step is still to be made.
    pub(crate) owes_evaluation: bool,
    /// The examination of this step is still to be made.
    pub(crate) owes_examination: bool,
    /// A callback takes this step for the last, though another may want to stop the run before it is treated so.
    pub(crate) finishes: bool,
    best: Option<BestEvaluation>,
    last_evaluation: Option<EvalReport>,
    log_history: Vec<Value>,
}

impl Progress {
    /// Of a run that begins.
    pub(crate) fn new(timetable: Timetable) -> Self {
        Self {
            timetable,
            step: 0,
            learning_rate: 0.0,
            grad_norm: 0.0,
            loss_sum: 0.0,
            tokens: 0,
            seconds: 0.0,
            window: LogWindow::default(),
            owes_evaluation: false,
            owes_examination: false,
            finishes: false,
            best: None,
            last_evaluation: None,
            log_history: Vec::new(),
        }
    }

    /// Of a run that goes on from `state`.
    pub(crate) fn resumed(timetable: Timetable, state: &TrainerState) -> Self {
        Self {
            step: state.step,
            learning_rate: state.learning_rate,
            loss_sum: state.loss_sum,
            tokens: state.tokens,
            seconds: state.seconds,
            window: state.window,
            owes_evaluation: state.owes_evaluation,
            owes_examination: state.owes_examination,
            best: state.best.clone(),
            log_history: state.log_history.clone(),
            ..Self::new(timetable)
        }
    }

    /// Epochs seen, the present one in part.
    pub(crate) fn epoch(&self) -> f64 {
        self.timetable.epoch(self.step)
    }

    /// The best figure so far, unless it is of another metric (that of before a resume).
    pub(crate) fn best_value(&self, metric: &EvalMetric) -> Option<f64> {
        self.best.as_ref().filter(|best| best.metric == *metric).map(|best| best.value)
    }

    /// The model of this step is the best so far.
    pub(crate) fn is_best(&self) -> bool {
        self.best.as_ref().is_some_and(|best| best.step == self.step)
    }

    /// Compares a figure with the best before it.
    pub(crate) fn judge(&mut self, value: f64, comparison: &Comparison) -> Judgement {
        let (step, best_before) = (self.step, self.best_value(&comparison.metric));
        // Of the model before the first step there is no checkpoint.
        let is_best = step > 0 && comparison.improves(value, best_before);
        if is_best {
            self.best = Some(BestEvaluation { step, metric: comparison.metric.clone(), value });
        }
        Judgement { step, value, best_before, is_best }
    }

    /// The stronger of two answers, of which a stop does not hide that the run has reached its end.
    pub(crate) fn heed(&mut self, flow: Flow, answer: Flow) -> Flow {
        self.finishes |= answer == Flow::Finish;
        flow.or(answer)
    }

    /// A step was taken, in `seconds`.
    pub(crate) fn advance(&mut self, plan: &StepPlan, taken: &Taken, seconds: f64) -> StepReport {
        self.step = plan.step;
        self.learning_rate = plan.learning_rate;
        self.grad_norm = taken.grad_norm;
        self.loss_sum += taken.loss;
        // Counts saturate: those of a checkpoint may come from a stranger.
        self.tokens = self.tokens.saturating_add(taken.tokens);
        self.seconds += seconds;
        self.window.steps = self.window.steps.saturating_add(1);
        self.window.loss += taken.loss;
        self.window.entropy += taken.sums.entropy;
        self.window.correct = self.window.correct.saturating_add(taken.sums.correct);
        self.window.labelled = self.window.labelled.saturating_add(taken.sums.count);
        self.window.data_seconds += taken.data_seconds;
        StepReport {
            step: self.step,
            total_steps: self.timetable.total_steps,
            epoch: self.epoch(),
            loss: taken.loss,
            grad_norm: taken.grad_norm,
            learning_rate: plan.learning_rate,
            tokens: taken.tokens,
            labelled_tokens: taken.sums.count,
            seconds,
            data_seconds: taken.data_seconds,
        }
    }

    /// The line of the log since the last one; begins the next.
    pub(crate) fn log(&mut self) -> LogRecord {
        let window = std::mem::take(&mut self.window);
        let labelled = (window.labelled as f64).max(1.0);
        LogRecord {
            step: self.step,
            epoch: self.epoch(),
            loss: window.loss / (window.steps as f64).max(1.0),
            grad_norm: self.grad_norm,
            learning_rate: self.learning_rate,
            tokens: self.tokens,
            tokens_per_second: None,
            mean_token_accuracy: window.correct as f64 / labelled,
            entropy: window.entropy / labelled,
            peak_rss_bytes: None,
            seconds: self.seconds,
            data_seconds: window.data_seconds,
            profile: Default::default(),
        }
    }

    /// Keeps a line for the history.
    pub(crate) fn remember(&mut self, line: &impl serde::Serialize) {
        TrainerState::remember(&mut self.log_history, line);
    }

    /// The held-out split was evaluated.
    pub(crate) fn evaluated(&mut self, report: &EvalReport) {
        self.remember(report);
        self.last_evaluation = Some(report.clone());
    }

    /// What a checkpoint keeps.
    pub(crate) fn state(&self, run: &Run<'_>) -> TrainerState {
        TrainerState {
            step: self.step,
            total_steps: self.timetable.total_steps,
            epoch: self.epoch(),
            data: run.loader.state(),
            batches_per_epoch: self.timetable.batches_per_epoch,
            world_size: run.comm.world_size(),
            optimizer: run.optimizer.name().to_owned(),
            learning_rate: self.learning_rate,
            loss_sum: self.loss_sum,
            tokens: self.tokens,
            seconds: self.seconds,
            window: self.window,
            owes_evaluation: self.owes_evaluation,
            owes_examination: self.owes_examination,
            best: self.best.clone(),
            callbacks: run.callbacks.iter().filter_map(|callback| callback.state()).collect(),
            arguments: run.args.clone(),
            facts: run.facts.clone(),
            log_history: self.log_history.clone(),
        }
    }

    /// The end, by the last step or because of `flow`.
    pub(crate) fn summary(self, flow: Flow) -> Summary {
        let owes = self.owes_evaluation || self.owes_examination;
        let is_early = self.step < self.timetable.total_steps || owes;
        Summary {
            step: self.step,
            total_steps: self.timetable.total_steps,
            epoch: self.epoch(),
            train_loss: self.loss_sum / (self.step as f64).max(1.0),
            tokens: self.tokens,
            seconds: self.seconds,
            stopped: is_early && flow == Flow::Stop,
            finished_early: is_early && flow == Flow::Finish,
            best: self.best,
            eval: self.last_evaluation,
        }
    }
}
