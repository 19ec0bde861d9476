//! Section `training`.

use crate::config::best_metric::BestMetric;
use crate::config::memory::{GradientCheckpointing, MemoryBudget};
use crate::config::optim_args;
use crate::config::sections::ReportTo;
use crate::config::values::TimeSpan;
use foundry_engine::schedule::SchedulerType;
use foundry_engine::{IntervalStrategy, LossType, Optim, SaveStrategy, StepCount, TrainingArgs};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Section `training` (transformers `TrainingArguments` and TRL `SFTConfig`; TRL's default where they differ).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TrainingSection {
    /// Rows of one micro-batch. Default 8.
    pub(crate) per_device_train_batch_size: usize,
    /// Rows evaluated at once. Default 8.
    pub(crate) per_device_eval_batch_size: usize,
    /// Micro-batches of one optimiser step; the loss is the mean over all their labelled tokens. Default 1.
    pub(crate) gradient_accumulation_steps: usize,
    /// Passes over the data; may be a fraction. Default 3. `max_steps` comes first.
    pub(crate) num_train_epochs: f64,
    /// Optimiser steps in all. Default -1: `num_train_epochs` decides.
    pub(crate) max_steps: i64,
    /// Peak learning rate. Default 2e-4 with `lora`, 2e-5 without (TRL: 2e-5 for both; ten times that is the common
    /// practice for adapters).
    pub(crate) learning_rate: Option<f64>,
    /// Learning rate of the adapters' B matrices as a multiple of `learning_rate` (LoRA+; common: 16).
    /// Default: the same for all. PEFT: `loraplus_lr_ratio`.
    pub(crate) loraplus_lr_ratio: Option<f64>,
    /// Peak learning rate of embedding and head where they are trained. Default: `learning_rate`. Unsloth:
    /// `embedding_learning_rate`.
    pub(crate) embedding_learning_rate: Option<f64>,
    /// Course of the learning rate. Default `linear`.
    pub(crate) lr_scheduler_type: Scheduler,
    /// Arguments of the schedule, by transformers' names (`num_cycles`, `min_lr`, `min_lr_rate`, `num_decay_steps`,
    /// `power`, …). Default: none.
    pub(crate) lr_scheduler_kwargs: Map<String, Value>,
    /// Steps in which the learning rate rises from 0; a number below 1 is a share of all steps. Default 0.
    #[schemars(with = "f64")]
    pub(crate) warmup_steps: StepCount,
    /// Optimiser. `adamw_torch_fused` (default; also `adamw_torch`): 8 bytes of state a trained number.
    /// `adamw_bnb_8bit` (also `adamw_8bit`): 2 bytes, as bitsandbytes. `lion_32bit` (also `lion`): 4 bytes.
    /// `adafactor`: a
    /// few bytes a row and column. `sgd`: none, 4 bytes with momentum. The `paged_` names of bitsandbytes mean the same
    /// here: there is no other memory to page to.
    pub(crate) optim: OptimKind,
    /// Arguments of `sgd`, as transformers writes them: `momentum=0.9,nesterov=true` (also `dampening`). Default: none.
    pub(crate) optim_args: Option<String>,
    /// Keep trained matrices in bfloat16 only, without float32 copies, and round each update up or down at random, so
    /// that small ones are not lost (torchao: `bf16_stochastic_round`). Saves 4 bytes a trained number. Needs
    /// `model.dtype: bfloat16`. Default false.
    pub(crate) bf16_stochastic_round: bool,
    /// Weight decay, decoupled except for `sgd`; biases and norms have none. Default 0.
    pub(crate) weight_decay: f64,
    /// AdamW: decay of the first moment; Lion: share of the momentum in the direction. Default 0.9.
    pub(crate) adam_beta1: f64,
    /// AdamW: decay of the second moment; Lion: decay of the momentum (its authors: 0.99). Default 0.999.
    pub(crate) adam_beta2: f64,
    /// AdamW: added to the denominator. Default 1e-8.
    pub(crate) adam_epsilon: f64,
    /// Gradients are scaled down to this L2 norm; 0 turns that off. Default 1.
    pub(crate) max_grad_norm: f64,
    /// Loss of a token: `nll` (cross-entropy, default) or `dft` (cross-entropy weighted by the token's own
    /// probability).
    pub(crate) loss_type: LossKind,
    /// Label smoothing ε, 0 (default) to below 1.
    pub(crate) label_smoothing_factor: f64,
    /// NEFTune: magnitude α of the noise on embeddings; usual values 5 to 15. Default: none.
    pub(crate) neftune_noise_alpha: Option<f64>,
    /// What the blocks keep for the backward pass; the result is the same bit for bit. `none` (or false): everything.
    /// `selective`: all but norms and activations, which are made again at hardly any cost. `full` (or true, as
    /// transformers): the inputs of the blocks only, about a third more time. `auto` (default; TRL: true): the fastest
    /// of these, or of the mixtures of the last two, that fits into `memory_budget`.
    pub(crate) gradient_checkpointing: GradientCheckpointing,
    /// The most memory that the whole process may need: an amount (`2GB`, `800MiB`) or a share of what is available
    /// (`50%`). A plan that needs more is refused. Default: what is available, less a tenth for `auto` to leave free.
    pub(crate) memory_budget: Option<MemoryBudget>,
    /// Seed of adapter initialisation, dropout and noise. Default 42.
    pub(crate) seed: u64,
    /// Seed of the order of the data. Default: `seed`.
    pub(crate) data_seed: Option<u64>,
    /// A line of metrics every so many steps; below 1: a share of all steps. Default 10, as TRL.
    #[schemars(with = "f64")]
    pub(crate) logging_steps: StepCount,
    /// A line of metrics for the first step too. Default false.
    pub(crate) logging_first_step: bool,
    /// Trackers that the run is reported to besides `metrics.jsonl`: `wandb`, `tensorboard`, `mlflow`, a list of them,
    /// `all`, or `none` (default). `wandb` writes a run directory below `output_dir/wandb` that `wandb sync` uploads,
    /// and tells the server too where WANDB_API_KEY is set. `mlflow` needs MLFLOW_TRACKING_URI. (See docs/logging.md
    /// for all environment variables.)
    pub(crate) report_to: ReportTo,
    /// Project (MLflow: experiment) that trackers file the run under. Default: environment WANDB_PROJECT, else
    /// `huggingface`, as transformers; of MLflow MLFLOW_EXPERIMENT_NAME, else `Default`.
    pub(crate) project: Option<String>,
    /// Name of the run in trackers. Default: environment WANDB_NAME, else the name of `output_dir`.
    pub(crate) run_name: Option<String>,
    /// Directory of TensorBoard's event files. Default: environment TENSORBOARD_LOGGING_DIR, else
    /// `output_dir/runs/DATE_TIME_HOST`.
    pub(crate) logging_dir: Option<String>,
    /// `steps`, `epoch` or `no`. Default: `steps` where `eval_steps` is given, else `epoch` where there is evaluation
    /// data (transformers: `no`).
    pub(crate) eval_strategy: Option<EvalWhen>,
    /// Evaluate every so many steps; below 1: a share of all steps.
    #[schemars(with = "Option<f64>")]
    pub(crate) eval_steps: Option<StepCount>,
    /// Evaluate once before the first step. Default false.
    pub(crate) eval_on_start: bool,
    /// `steps` (default), `epoch` (both: and one at the end), `best` (after each evaluation that is the best so far) or
    /// `no`: when checkpoints are written. An interrupted run always writes one.
    pub(crate) save_strategy: SaveWhen,
    /// A checkpoint every so many steps; below 1: a share of all steps. Default 500.
    #[schemars(with = "f64")]
    pub(crate) save_steps: StepCount,
    /// Keep only so many of the latest checkpoints; the best of an evaluated run stays too. Default: all.
    pub(crate) save_total_limit: Option<usize>,
    /// Checkpoints without the optimiser's state: smaller, but a run cannot go on from them. Default false.
    pub(crate) save_only_model: bool,
    /// The result is the model of the best evaluation instead of the last step's. Every evaluation that is the best so
    /// far then writes a checkpoint, whatever `save_strategy` is. Default false.
    pub(crate) load_best_model_at_end: bool,
    /// Which figure is compared: of the held-out split `loss` (default), `perplexity`, `mean_token_accuracy` or
    /// `entropy`; of section `eval` `TASK/METRIC`, such as `arc_easy/acc` or `gsm8k/exact_match,strict-match`.
    pub(crate) metric_for_best_model: BestMetric,
    /// More of it is better. Default: true for `mean_token_accuracy`, for a task as the task says, else false.
    pub(crate) greater_is_better: Option<bool>,
    /// End the run when so many evaluations in a row were not better than the best before them. Default: never.
    /// transformers: argument of `EarlyStoppingCallback`.
    pub(crate) early_stopping_patience: Option<u64>,
    /// By how much an evaluation must be better to count for `early_stopping_patience`. Default 0.
    pub(crate) early_stopping_threshold: f64,
    /// Save and stop before this command has run for so long: `90m`, `1h30m`, `2d`, `12:00:00`, or seconds.
    /// The run can be resumed. Default: no limit.
    pub(crate) max_time: Option<TimeSpan>,
    /// Measure where the time of a step goes: by phase and operation, with rates, the wait for data, and the share
    /// of the floor that matrix products set. Told at the end, and written to `profile.json`. Default false.
    pub(crate) profile: bool,
    /// Threads of the processor. Default: all this process may use (environment: FOUNDRY_THREADS). Results do not
    /// depend on it.
    pub(crate) threads: Option<usize>,
    /// Refuse to start when the plan needs more memory than is available. Default true; set it to false when you know
    /// better (swap, memory about to be freed).
    pub(crate) check_memory: bool,
    /// Refuse a run whose result and checkpoints would not fit on the disk of `output_dir`. Default true.
    pub(crate) check_disk: bool,
}

impl Default for TrainingSection {
    fn default() -> Self {
        Self {
            per_device_train_batch_size: 8,
            per_device_eval_batch_size: 8,
            gradient_accumulation_steps: 1,
            num_train_epochs: 3.0,
            max_steps: -1,
            learning_rate: None,
            loraplus_lr_ratio: None,
            embedding_learning_rate: None,
            lr_scheduler_type: Scheduler::Linear,
            lr_scheduler_kwargs: Map::new(),
            warmup_steps: StepCount::steps(0),
            optim: OptimKind::AdamwTorchFused,
            optim_args: None,
            bf16_stochastic_round: false,
            weight_decay: 0.0,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            max_grad_norm: 1.0,
            loss_type: LossKind::Nll,
            label_smoothing_factor: 0.0,
            neftune_noise_alpha: None,
            gradient_checkpointing: GradientCheckpointing::Auto,
            memory_budget: None,
            seed: 42,
            data_seed: None,
            logging_steps: StepCount::steps(10),
            logging_first_step: false,
            report_to: ReportTo::default(),
            project: None,
            run_name: None,
            logging_dir: None,
            eval_strategy: None,
            eval_steps: None,
            eval_on_start: false,
            save_strategy: SaveWhen::Steps,
            save_steps: StepCount::steps(500),
            save_total_limit: None,
            save_only_model: false,
            load_best_model_at_end: false,
            metric_for_best_model: BestMetric::LOSS,
            greater_is_better: None,
            early_stopping_patience: None,
            early_stopping_threshold: 0.0,
            max_time: None,
            profile: false,
            threads: None,
            check_memory: true,
            check_disk: true,
        }
    }
}

impl TrainingSection {
    /// What the engine is told. `is_lora` decides the default learning rate, `has_eval` whether evaluations happen.
    pub(crate) fn arguments(&self, is_lora: bool, has_eval: bool) -> TrainingArgs {
        let eval_strategy = match (self.eval_strategy, self.eval_steps) {
            (Some(EvalWhen::No), _) => IntervalStrategy::No,
            (Some(EvalWhen::Steps), _) | (None, Some(_)) => IntervalStrategy::Steps,
            (Some(EvalWhen::Epoch), _) => IntervalStrategy::Epoch,
            (None, None) if has_eval => IntervalStrategy::Epoch,
            (None, None) => IntervalStrategy::No,
        };
        TrainingArgs {
            per_device_train_batch_size: self.per_device_train_batch_size,
            per_device_eval_batch_size: self.per_device_eval_batch_size,
            gradient_accumulation_steps: self.gradient_accumulation_steps,
            num_train_epochs: self.num_train_epochs,
            max_steps: self.max_steps,
            learning_rate: self.learning_rate(is_lora),
            loraplus_lr_ratio: self.loraplus_lr_ratio,
            embedding_learning_rate: self.embedding_learning_rate,
            lr_scheduler_type: self.lr_scheduler_type.into(),
            lr_scheduler_kwargs: self.lr_scheduler_kwargs.clone(),
            warmup_steps: self.warmup_steps,
            optim: self.optim.into(),
            sgd: self.sgd().unwrap_or_default(),
            weight_decay: self.weight_decay,
            adam_beta1: self.adam_beta1,
            adam_beta2: self.adam_beta2,
            adam_epsilon: self.adam_epsilon,
            max_grad_norm: self.max_grad_norm,
            label_smoothing_factor: self.label_smoothing_factor,
            neftune_noise_alpha: self.neftune_noise_alpha,
            loss_type: match self.loss_type {
                LossKind::Nll => LossType::Nll,
                LossKind::Dft => LossType::Dft,
            },
            seed: self.seed,
            data_seed: self.data_seed,
            logging_steps: self.logging_steps,
            logging_first_step: self.logging_first_step,
            eval_strategy,
            eval_steps: self.eval_steps,
            eval_on_start: self.eval_on_start,
            save_strategy: match self.save_strategy {
                SaveWhen::No => SaveStrategy::No,
                SaveWhen::Steps => SaveStrategy::Steps,
                SaveWhen::Epoch => SaveStrategy::Epoch,
                SaveWhen::Best => SaveStrategy::Best,
            },
            save_steps: self.save_steps,
            save_total_limit: self.save_total_limit,
            save_only_model: self.save_only_model,
            load_best_model_at_end: self.load_best_model_at_end,
            metric_for_best_model: self.metric_for_best_model.for_engine(),
            greater_is_better: self.greater_is_better,
        }
    }

    /// `optim_args`, read; the error says what is wrong with it.
    pub(crate) fn sgd(&self) -> Result<foundry_engine::SgdArgs, String> {
        optim_args::parse(self.optim.into(), self.optim_args.as_deref().unwrap_or_default())
    }

    /// The peak learning rate, its default filled in.
    pub(crate) fn learning_rate(&self, is_lora: bool) -> f64 {
        self.learning_rate.unwrap_or(if is_lora { 2e-4 } else { 2e-5 })
    }
}

/// `training.optim`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OptimKind {
    /// AdamW.
    #[serde(alias = "adamw_torch", alias = "paged_adamw_32bit", alias = "paged_adamw")]
    AdamwTorchFused,
    /// AdamW with moments of eight bits.
    #[serde(rename = "adamw_bnb_8bit", alias = "adamw_8bit", alias = "paged_adamw_8bit")]
    AdamwBnb8bit,
    /// Lion.
    #[serde(rename = "lion_32bit", alias = "lion", alias = "paged_lion_32bit")]
    Lion32bit,
    /// Stochastic gradient descent.
    Sgd,
    /// Adafactor.
    Adafactor,
}

impl From<OptimKind> for Optim {
    fn from(kind: OptimKind) -> Self {
        match kind {
            OptimKind::AdamwTorchFused => Optim::AdamW,
            OptimKind::AdamwBnb8bit => Optim::AdamW8Bit,
            OptimKind::Lion32bit => Optim::Lion,
            OptimKind::Sgd => Optim::Sgd,
            OptimKind::Adafactor => Optim::Adafactor,
        }
    }
}

/// `training.lr_scheduler_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scheduler {
    /// Down to 0 in a straight line.
    Linear,
    /// Down to 0 along half a cosine (`num_cycles`: 0.5).
    Cosine,
    /// Several cosines down to 0 with hard restarts (`num_cycles`: 1).
    CosineWithRestarts,
    /// Always the peak, without warm-up.
    Constant,
    /// The peak after warm-up.
    ConstantWithWarmup,
    /// A cosine down to `min_lr` or `min_lr_rate`.
    CosineWithMinLr,
    /// The same, with a warm-up that need not begin at 0 (`warmup_lr_rate`).
    CosineWarmupWithMinLr,
    /// Warm-up, a constant stretch, then a decay over `num_decay_steps`.
    WarmupStableDecay,
    /// 1/√step.
    InverseSqrt,
    /// Down to `lr_end` as a power.
    Polynomial,
}

impl From<Scheduler> for SchedulerType {
    fn from(name: Scheduler) -> Self {
        match name {
            Scheduler::Linear => SchedulerType::Linear,
            Scheduler::Cosine => SchedulerType::Cosine,
            Scheduler::CosineWithRestarts => SchedulerType::CosineWithRestarts,
            Scheduler::Constant => SchedulerType::Constant,
            Scheduler::ConstantWithWarmup => SchedulerType::ConstantWithWarmup,
            Scheduler::CosineWithMinLr => SchedulerType::CosineWithMinLr,
            Scheduler::CosineWarmupWithMinLr => SchedulerType::CosineWarmupWithMinLr,
            Scheduler::WarmupStableDecay => SchedulerType::WarmupStableDecay,
            Scheduler::InverseSqrt => SchedulerType::InverseSqrt,
            Scheduler::Polynomial => SchedulerType::Polynomial,
        }
    }
}

/// `training.loss_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LossKind {
    /// Cross-entropy.
    Nll,
    /// Dynamic fine-tuning: cross-entropy times the token's own probability.
    Dft,
}

/// `training.eval_strategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EvalWhen {
    /// Never.
    No,
    /// Every `eval_steps` steps.
    Steps,
    /// At the end of each epoch.
    Epoch,
}

/// `training.save_strategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SaveWhen {
    /// No checkpoints.
    No,
    /// Every `save_steps` steps.
    Steps,
    /// At the end of each epoch.
    Epoch,
    /// After each evaluation that is the best so far.
    Best,
}
