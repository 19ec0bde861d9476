//! The arguments of a training run, under transformers' and TRL's names.

use crate::best::{Comparison, EvalMetric};
use crate::schedule::SchedulerType;
use foundry_models::Parameter;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// A number of steps, or, below 1, a share of all steps of the run (rounded up), as in transformers.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct StepCount(f64);

impl StepCount {
    /// `value` must be a whole number of steps, or a share in `0..1`.
    pub fn new(value: f64) -> Option<Self> {
        let valid = value.is_finite() && value >= 0.0 && (value < 1.0 || value.fract() == 0.0);
        valid.then_some(Self(value))
    }

    /// A whole number of steps.
    pub const fn steps(count: u32) -> Self {
        Self(count as f64)
    }

    /// The number as it was given.
    pub fn value(self) -> f64 {
        self.0
    }

    /// The number of steps in a run of `total`.
    pub fn resolve(self, total: u64) -> u64 {
        if self.0 >= 1.0 { self.0 as u64 } else { (total as f64 * self.0).ceil() as u64 }
    }
}

impl Serialize for StepCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 {
            serializer.serialize_u64(self.0 as u64)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for StepCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(deserializer)?;
        StepCount::new(value).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{value} is neither a whole number of steps nor a share below 1"
            ))
        })
    }
}

/// When something is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntervalStrategy {
    /// Never.
    No,
    /// Every so many steps, and at the end of the run.
    #[default]
    Steps,
    /// At the end of every epoch, and at the end of the run.
    Epoch,
}

/// When a checkpoint is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SaveStrategy {
    /// Never.
    No,
    /// Every so many steps, and at the end of the run.
    #[default]
    Steps,
    /// At the end of every epoch, and at the end of the run.
    Epoch,
    /// After an evaluation that is the best so far.
    Best,
}

/// The loss of one token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossType {
    /// Negative log-likelihood.
    #[default]
    Nll,
    /// Dynamic fine-tuning: `-p.detach()·log p`.
    Dft,
}

/// The optimiser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Optim {
    /// AdamW.
    #[default]
    #[serde(rename = "adamw_torch_fused")]
    AdamW,
    /// AdamW with moments of eight bits.
    #[serde(rename = "adamw_bnb_8bit")]
    AdamW8Bit,
    /// Lion.
    #[serde(rename = "lion_32bit")]
    Lion,
    /// Stochastic gradient descent.
    #[serde(rename = "sgd")]
    Sgd,
    /// Adafactor with a given learning rate.
    #[serde(rename = "adafactor")]
    Adafactor,
}

/// What SGD is told besides, torch's names and defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SgdArgs {
    /// Decay of the momentum buffer; 0: none.
    pub momentum: f64,
    /// The gradient enters the momentum buffer with the factor `1 - dampening`.
    pub dampening: f64,
    /// Nesterov's correction.
    pub nesterov: bool,
}

/// What a run is told. Names and meanings are those of transformers 5.23 `TrainingArguments` and TRL 1.16 `SFTConfig`;
/// the defaults are TRL's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingArgs {
    /// Rows of a micro-batch on each rank.
    pub per_device_train_batch_size: usize,
    /// Rows of a micro-batch of an evaluation on each rank.
    pub per_device_eval_batch_size: usize,
    /// Micro-batches of one optimiser step on each rank; the loss is normalised over the labelled tokens of all.
    pub gradient_accumulation_steps: usize,
    /// Passes over the data; a fraction ends within an epoch.
    pub num_train_epochs: f64,
    /// Optimiser steps; above 0 it overrides `num_train_epochs`.
    pub max_steps: i64,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// The learning rate of adapters' B matrices, and of their vectors, is this many times as high (LoRA+, Hayou et al.
    /// 2024; PEFT 0.21 `create_loraplus_optimizer`); absent: 1.
    pub loraplus_lr_ratio: Option<f64>,
    /// Peak learning rate of embedding and head, where they are trained; `learning_rate` where absent.
    pub embedding_learning_rate: Option<f64>,
    /// Family of the schedule.
    pub lr_scheduler_type: SchedulerType,
    /// Options of the schedule.
    pub lr_scheduler_kwargs: Map<String, Value>,
    /// Warm-up, in steps or as a share of all steps.
    pub warmup_steps: StepCount,
    /// The optimiser.
    pub optim: Optim,
    /// Momentum of SGD.
    pub sgd: SgdArgs,
    /// Decoupled weight decay; norms and biases are excluded.
    pub weight_decay: f64,
    /// β₁ of AdamW and Lion.
    pub adam_beta1: f64,
    /// β₂ of AdamW and Lion.
    pub adam_beta2: f64,
    /// AdamW's ε.
    pub adam_epsilon: f64,
    /// Gradients are scaled down to this global L2 norm; 0 turns clipping off.
    pub max_grad_norm: f64,
    /// ε of label smoothing, 0 turns it off.
    pub label_smoothing_factor: f64,
    /// α of NEFTune's noise on the embeddings; absent or 0 turns it off.
    pub neftune_noise_alpha: Option<f64>,
    /// Loss of one token.
    pub loss_type: LossType,
    /// Seed of everything random.
    pub seed: u64,
    /// Seed of the order of the data; `seed` where absent.
    pub data_seed: Option<u64>,
    /// A metrics record every so many steps.
    pub logging_steps: StepCount,
    /// A metrics record for the first step as well.
    pub logging_first_step: bool,
    /// When to evaluate on the held-out split.
    pub eval_strategy: IntervalStrategy,
    /// Steps between evaluations; `logging_steps` where absent.
    pub eval_steps: Option<StepCount>,
    /// Evaluate before the first step.
    pub eval_on_start: bool,
    /// When to write a checkpoint.
    pub save_strategy: SaveStrategy,
    /// Steps between checkpoints.
    pub save_steps: StepCount,
    /// Checkpoints to keep (the best of an evaluated run among them); absent or 0: all.
    pub save_total_limit: Option<usize>,
    /// Checkpoints without the optimiser's state: smaller, and no run can go on from them.
    pub save_only_model: bool,
    /// The result is the model of the best evaluation, not of the last step. Whenever an evaluation is the
    /// best so far, a checkpoint is written, whatever `save_strategy` is.
    pub load_best_model_at_end: bool,
    /// The figure that decides which evaluation is the best.
    pub metric_for_best_model: EvalMetric,
    /// Whether more of it is better; absent: as the metric's nature is ([`EvalMetric::greater_is_better`]).
    pub greater_is_better: Option<bool>,
}

impl Default for TrainingArgs {
    fn default() -> Self {
        Self {
            per_device_train_batch_size: 8,
            per_device_eval_batch_size: 8,
            gradient_accumulation_steps: 1,
            num_train_epochs: 3.0,
            max_steps: -1,
            learning_rate: 2e-5,
            loraplus_lr_ratio: None,
            embedding_learning_rate: None,
            lr_scheduler_type: SchedulerType::Linear,
            lr_scheduler_kwargs: Map::new(),
            warmup_steps: StepCount::steps(0),
            optim: Optim::AdamW,
            sgd: SgdArgs::default(),
            weight_decay: 0.0,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            max_grad_norm: 1.0,
            label_smoothing_factor: 0.0,
            neftune_noise_alpha: None,
            loss_type: LossType::Nll,
            seed: 42,
            data_seed: None,
            logging_steps: StepCount::steps(10),
            logging_first_step: false,
            eval_strategy: IntervalStrategy::No,
            eval_steps: None,
            eval_on_start: false,
            save_strategy: SaveStrategy::Steps,
            save_steps: StepCount::steps(500),
            save_total_limit: None,
            save_only_model: false,
            load_best_model_at_end: false,
            metric_for_best_model: EvalMetric::Loss,
            greater_is_better: None,
        }
    }
}

/// A training argument that cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("training.{key} is {value}, expected {expected}")]
pub struct ArgumentError {
    /// The argument.
    pub key: &'static str,
    /// What was given.
    pub value: String,
    /// What would do.
    pub expected: &'static str,
}

fn require(
    holds: bool,
    key: &'static str,
    value: impl ToString,
    expected: &'static str,
) -> Result<(), ArgumentError> {
    if holds { Ok(()) } else { Err(ArgumentError { key, value: value.to_string(), expected }) }
}

impl TrainingArgs {
    /// Checks every value by itself and the few that exclude each other.
    pub fn validate(&self) -> Result<(), ArgumentError> {
        let batch = self.per_device_train_batch_size;
        require(batch > 0, "per_device_train_batch_size", batch, "1 or more")?;
        let batch = self.per_device_eval_batch_size;
        require(batch > 0, "per_device_eval_batch_size", batch, "1 or more")?;
        let windows = self.gradient_accumulation_steps;
        require(windows > 0, "gradient_accumulation_steps", windows, "1 or more")?;
        let epochs = self.num_train_epochs;
        let has_end = self.max_steps > 0 || (epochs.is_finite() && epochs > 0.0);
        require(has_end, "num_train_epochs", epochs, "a number above 0, or max_steps above 0")?;
        let rate = self.learning_rate;
        require(rate.is_finite() && rate > 0.0, "learning_rate", rate, "a number above 0")?;
        let ratio = self.loraplus_lr_ratio.unwrap_or(1.0);
        require(ratio.is_finite() && ratio > 0.0, "loraplus_lr_ratio", ratio, "a number above 0")?;
        let rate = self.embedding_learning_rate.unwrap_or(1.0);
        require(rate.is_finite() && rate > 0.0, "embedding_learning_rate", rate, "a number above 0")?;
        let decay = self.weight_decay;
        require(decay.is_finite() && decay >= 0.0, "weight_decay", decay, "a number of 0 or more")?;
        for (key, beta) in [("adam_beta1", self.adam_beta1), ("adam_beta2", self.adam_beta2)] {
            require((0.0..1.0).contains(&beta), key, beta, "a number from 0 up to, not including, 1")?;
        }
        let epsilon = self.adam_epsilon;
        // The kernel adds it in f32, where 1e-50 is 0.
        let added = epsilon as f32;
        require(added.is_finite() && added > 0.0, "adam_epsilon", epsilon, "a number above 0, in f32 too")?;
        let norm = self.max_grad_norm;
        require(
            norm.is_finite() && norm >= 0.0,
            "max_grad_norm",
            norm,
            "a number of 0 (no clipping) or more",
        )?;
        self.validate_sgd()?;
        self.validate_objective()?;
        self.validate_intervals()
    }

    fn validate_sgd(&self) -> Result<(), ArgumentError> {
        let SgdArgs { momentum, dampening, nesterov } = self.sgd;
        require((0.0..1.0).contains(&momentum), "optim_args", momentum, "a momentum from 0 to below 1")?;
        require((0.0..=1.0).contains(&dampening), "optim_args", dampening, "a dampening from 0 to 1")?;
        let possible = !nesterov || (momentum > 0.0 && dampening == 0.0);
        require(
            possible,
            "optim_args",
            "nesterov=true",
            "a momentum above 0 and no dampening with nesterov",
        )?;
        let alone = self.optim == Optim::Sgd || self.sgd == SgdArgs::default();
        require(alone, "optim_args", "momentum", "none where optim is not sgd")
    }

    fn validate_objective(&self) -> Result<(), ArgumentError> {
        let smoothing = self.label_smoothing_factor;
        let in_range = (0.0..1.0).contains(&smoothing);
        require(in_range, "label_smoothing_factor", smoothing, "a number from 0 up to, not including, 1")?;
        let alone = smoothing == 0.0 || self.loss_type == LossType::Nll;
        require(
            alone,
            "label_smoothing_factor",
            smoothing,
            "0 where loss_type is dft: the two exclude each other",
        )?;
        let alpha = self.neftune_noise_alpha.unwrap_or(0.0);
        require(
            alpha.is_finite() && alpha >= 0.0,
            "neftune_noise_alpha",
            alpha,
            "a number of 0 (off) or more",
        )
    }

    fn validate_intervals(&self) -> Result<(), ArgumentError> {
        let logging = self.logging_steps.value();
        require(logging > 0.0, "logging_steps", logging, "1 or more, or a share above 0")?;
        if self.eval_strategy == IntervalStrategy::Steps {
            let steps = self.eval_steps.unwrap_or(self.logging_steps).value();
            require(steps > 0.0, "eval_steps", steps, "1 or more, or a share above 0")?;
        }
        if self.save_strategy == SaveStrategy::Steps {
            let steps = self.save_steps.value();
            require(
                steps > 0.0,
                "save_steps",
                steps,
                "1 or more, or a share above 0; save_strategy: no for none",
            )?;
        }
        Ok(())
    }

    /// Evaluations that were asked for need a held-out split.
    pub fn validate_evaluation(&self, has_held_out: bool) -> Result<(), ArgumentError> {
        let expected = "no where there is no held-out split";
        let strategy = format!("{:?}", self.eval_strategy).to_lowercase();
        let possible = has_held_out || self.eval_strategy == IntervalStrategy::No;
        require(possible, "eval_strategy", strategy, expected)?;
        let expected = "false where there is no held-out split";
        require(has_held_out || !self.eval_on_start, "eval_on_start", self.eval_on_start, expected)?;
        let by_task = matches!(self.metric_for_best_model, EvalMetric::Task(_));
        let evaluates = by_task || self.eval_strategy != IntervalStrategy::No;
        let wants_best = self.load_best_model_at_end;
        let expected = "false where nothing is evaluated (eval_strategy: no)";
        require(evaluates || !wants_best, "load_best_model_at_end", wants_best, expected)?;
        let is_possible = evaluates || self.save_strategy != SaveStrategy::Best;
        let expected = "steps, epoch or no where nothing is evaluated (eval_strategy: no)";
        require(is_possible, "save_strategy", "best", expected)
    }

    /// How evaluations are compared.
    pub fn comparison(&self) -> Comparison {
        let metric = self.metric_for_best_model.clone();
        let greater_is_better = self.greater_is_better.unwrap_or_else(|| metric.greater_is_better());
        Comparison { metric, greater_is_better }
    }

    /// A checkpoint is written after an evaluation that is the best so far.
    pub fn saves_best(&self) -> bool {
        self.load_best_model_at_end || self.save_strategy == SaveStrategy::Best
    }

    /// What a parameter's learning rate is multiplied by.
    pub fn learning_rate_factor(&self, parameter: &Parameter) -> f64 {
        let name = &parameter.name;
        let is_of = |module: &str| name.split('.').any(|part| part == module);
        match (self.embedding_learning_rate, self.loraplus_lr_ratio) {
            (Some(rate), _) if is_of("embed_tokens") || is_of("lm_head") => rate / self.learning_rate,
            (_, Some(ratio)) if is_of("lora_B") || parameter.shape.len() == 1 => ratio,
            _ => 1.0,
        }
    }

    /// Seed of the order of the data.
    pub fn data_seed(&self) -> u64 {
        self.data_seed.unwrap_or(self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The defaults, changed.
    fn with(change: impl FnOnce(&mut TrainingArgs)) -> TrainingArgs {
        let mut args = TrainingArgs::default();
        change(&mut args);
        args
    }

    #[test]
    fn defaults_are_valid_and_survive_json() {
        let args = TrainingArgs::default();
        args.validate().unwrap();
        let json = serde_json::to_string(&args).unwrap();
        assert!(json.contains("\"save_steps\":500,"), "whole numbers stay whole: {json}");
        assert_eq!(serde_json::from_str::<TrainingArgs>(&json).unwrap(), args);
    }

    #[test]
    fn each_bad_value_is_named() {
        let cases = [
            with(|a| a.per_device_train_batch_size = 0),
            with(|a| a.per_device_eval_batch_size = 0),
            with(|a| a.gradient_accumulation_steps = 0),
            with(|a| a.num_train_epochs = 0.0),
            with(|a| a.learning_rate = f64::NAN),
            with(|a| a.weight_decay = -0.1),
            with(|a| a.adam_beta1 = 1.0),
            with(|a| a.adam_beta2 = -0.5),
            with(|a| a.adam_epsilon = 0.0),
            with(|a| a.adam_epsilon = 1e-50),
            with(|a| a.max_grad_norm = -1.0),
            with(|a| a.sgd.momentum = 0.9),
            with(|a| {
                a.optim = Optim::Sgd;
                a.sgd.momentum = 1.0;
            }),
            with(|a| {
                a.optim = Optim::Sgd;
                a.sgd.dampening = -0.5;
            }),
            with(|a| {
                a.optim = Optim::Sgd;
                a.sgd.nesterov = true;
            }),
            with(|a| a.label_smoothing_factor = 1.0),
            with(|a| {
                a.label_smoothing_factor = 0.1;
                a.loss_type = LossType::Dft;
            }),
            with(|a| a.neftune_noise_alpha = Some(-5.0)),
            with(|a| a.logging_steps = StepCount::steps(0)),
            with(|a| {
                a.eval_strategy = IntervalStrategy::Steps;
                a.eval_steps = Some(StepCount::steps(0));
            }),
            with(|a| a.save_steps = StepCount::steps(0)),
        ];
        let keys = [
            "per_device_train_batch_size",
            "per_device_eval_batch_size",
            "gradient_accumulation_steps",
            "num_train_epochs",
            "learning_rate",
            "weight_decay",
            "adam_beta1",
            "adam_beta2",
            "adam_epsilon",
            "adam_epsilon",
            "max_grad_norm",
            "optim_args",
            "optim_args",
            "optim_args",
            "optim_args",
            "label_smoothing_factor",
            "label_smoothing_factor",
            "neftune_noise_alpha",
            "logging_steps",
            "eval_steps",
            "save_steps",
        ];
        for (args, key) in cases.iter().zip(keys) {
            assert_eq!(args.validate().unwrap_err().key, key);
        }
    }

    #[test]
    fn without_epochs_steps_decide() {
        let args = with(|a| (a.num_train_epochs, a.max_steps) = (0.0, 5));
        args.validate().unwrap();
    }

    #[test]
    fn learning_rates_of_groups_are_checked() {
        let ratio = with(|a| a.loraplus_lr_ratio = Some(0.0));
        assert_eq!(ratio.validate().unwrap_err().key, "loraplus_lr_ratio");
        let rate = with(|a| a.embedding_learning_rate = Some(f64::INFINITY));
        assert_eq!(rate.validate().unwrap_err().key, "embedding_learning_rate");
    }

    #[test]
    fn evaluations_need_a_held_out_split() {
        with(|_| {}).validate_evaluation(false).unwrap();
        for (args, key) in [
            (with(|a| a.eval_strategy = IntervalStrategy::Epoch), "eval_strategy"),
            (with(|a| a.eval_on_start = true), "eval_on_start"),
        ] {
            assert_eq!(args.validate_evaluation(false).unwrap_err().key, key);
            args.validate_evaluation(true).unwrap();
        }
        for (args, key) in [
            (with(|a| a.load_best_model_at_end = true), "load_best_model_at_end"),
            (with(|a| a.save_strategy = SaveStrategy::Best), "save_strategy"),
        ] {
            assert_eq!(args.validate_evaluation(true).unwrap_err().key, key, "nothing is evaluated");
            let args = TrainingArgs { eval_strategy: IntervalStrategy::Epoch, ..args };
            args.validate_evaluation(true).unwrap();
        }
    }

    #[test]
    fn a_step_count_is_whole_or_a_share() {
        let read = |text: &str| serde_json::from_str::<StepCount>(text);
        // transformers 5.23 `get_warmup_steps`: `math.ceil(total * share)`.
        for (share, total, steps) in [("0", 100, 0), ("0.03", 100, 3), ("0.03", 101, 4), ("0.999", 100, 100)]
        {
            assert_eq!(read(share).unwrap().resolve(total), steps, "{share} of {total}");
        }
        assert_eq!(read("7").unwrap().resolve(100), 7);
        assert_eq!(read("7.0").unwrap().resolve(100), 7);
        assert!(read("1.5").unwrap_err().to_string().contains("1.5"));
        assert!(read("-1").is_err());
    }

    #[test]
    fn unknown_arguments_are_errors() {
        let error = serde_json::from_str::<TrainingArgs>(r#"{"learning_rat": 1}"#).unwrap_err();
        assert!(error.to_string().contains("learning_rat"), "{error}");
    }
}
