//! Rules that one value alone cannot break, and ranges. Each names the keys, the values and the way out.

mod data;
mod tracking;

pub(crate) use tracking::{LONGEST_NAME, wrong_name, wrong_project};

use super::problem::Problem;
use super::tree::{Node, Place};
use super::{
    BestMetric, ComputeDtype, Config, EvalWhen, LoraSection, LossKind, Modules, OptimKind, SaveWhen,
    TrainingSection, WeightInit,
};
use foundry_engine::StepCount;
use foundry_engine::schedule::{Schedule, ScheduleError};
use foundry_models::ModelError;

/// Everything that is wrong with a configuration whose values have the right types.
pub(crate) fn check(config: &Config, tree: &Node) -> Vec<Problem> {
    let mut rules = Rules { tree, problems: Vec::new() };
    rules.model(config);
    rules.data(config);
    rules.lora(config);
    rules.steps(config);
    rules.optimiser(config);
    rules.optim_kind(config);
    rules.schedule(config);
    rules.events(config);
    rules.tracking(config);
    rules.eval(config);
    rules.card(config);
    rules.output_dir(config);
    rules.problems
}

struct Rules<'a> {
    tree: &'a Node,
    problems: Vec<Problem>,
}

/// Rows, micro-batches, threads: more at once is a slip of the keyboard.
const MOST_AT_ONCE: u64 = 1_000_000;
/// The same of steps.
const MOST_STEPS: i64 = 1_000_000_000;

impl Rules<'_> {
    /// Reports at the value of `path` (or, where it was not written, at its section or nowhere).
    fn wrong(&mut self, path: &str, message: impl Into<String>, help: impl Into<String>) {
        let place = self.place(path);
        self.problems.push(Problem { place, message: message.into(), help: Some(help.into()) });
    }

    fn place(&self, path: &str) -> Option<Place> {
        let keys: Vec<&str> = path.split('.').collect();
        if let Some(entry) = self.tree.entry(&keys) {
            let empty =
                matches!(&entry.node.place, Place::File(_, r) | Place::Argument(_, r) if r.is_empty());
            return Some(if empty { entry.key_place.clone() } else { entry.node.place.clone() });
        }
        self.tree.entry(&keys[..1]).map(|section| section.key_place.clone())
    }

    /// `path` was written, and `is_default` does not hold: a resolved configuration writes every default.
    fn asked_for(&self, path: &str, is_default: bool) -> bool {
        !is_default && self.tree.at(&path.split('.').collect::<Vec<_>>()).is_some()
    }

    /// `value` must satisfy `holds`; `range` is how a person would say it.
    fn range(&mut self, path: &str, value: impl std::fmt::Display, holds: bool, range: &str) {
        if !holds {
            let key = path.rsplit('.').next().unwrap_or(path);
            self.wrong(path, format!("`{path}` is {value}, but must be {range}"), format!("change `{key}`"));
        }
    }

    /// `value` is computed with in 32-bit floating point, where it must stay finite and not become 0 (unless 0 is
    /// allowed and meant).
    fn single_precision(&mut self, path: &str, value: f64, zero_is_allowed: bool) {
        let single = value as f32;
        let holds =
            single.is_finite() && (single > 0.0 || (zero_is_allowed && single == 0.0 && value >= 0.0));
        let range = if zero_is_allowed { "0 or more" } else { "above 0" };
        // Unlike `{}`, `{:?}` writes 1e300 without three hundred zeros.
        let shown = format!("{value:?}");
        let shown = shown.trim_end_matches(".0");
        self.range(path, shown, holds, &format!("{range}, and at most 3.4e38 (32-bit floating point)"));
    }

    fn eval(&mut self, config: &Config) {
        let eval = &config.eval;
        if eval.steps == Some(0) {
            self.wrong(
                "eval.steps",
                "`eval.steps` is 0",
                "write how many steps lie between, or leave it away",
            );
        }
        if eval.limit.is_some_and(|limit| !(limit > 0.0 && (limit < 1.0 || limit.fract() == 0.0))) {
            let remedy = "write a number of documents, or a share between 0 and 1";
            self.wrong("eval.limit", "`eval.limit` is neither", remedy);
        }
        if eval.max_new_tokens == 0 {
            self.wrong("eval.max_new_tokens", "`eval.max_new_tokens` is 0", "write 1 or more");
        }
    }

    fn card(&mut self, config: &Config) {
        let card = &config.card;
        let texts = card.license.iter().map(|text| ("card.license", text));
        let texts = texts.chain(card.language.iter().map(|text| ("card.language", text)));
        let texts: Vec<_> = texts.chain(card.tags.iter().map(|text| ("card.tags", text))).collect();
        for (path, text) in texts {
            if text.trim().is_empty() || text.chars().any(char::is_control) {
                self.wrong(path, format!("`{path}` has an empty text or a line break"), "write a name");
            }
        }
    }

    fn output_dir(&mut self, config: &Config) {
        let Some(dir) = &config.output_dir else { return };
        let what = match () {
            () if dir.trim().is_empty() => "is empty",
            () if dir.contains('\0') => "contains a NUL character, which no path can",
            () => return,
        };
        self.wrong("output_dir", format!("`output_dir` {what}"), "name a directory, for example runs/first");
    }

    fn model(&mut self, config: &Config) {
        let model = &config.model;
        let from_config = model.init == WeightInit::Random && model.config.is_some();
        if model.name_or_path.is_none() && !from_config {
            self.wrong(
                "model.name_or_path",
                "no model is named: `model.name_or_path` is missing",
                "give a directory, a .gguf file or a hub id, for example HuggingFaceTB/SmolLM2-135M-Instruct",
            );
        }
        if model.config.is_some() && model.init == WeightInit::Pretrained {
            self.wrong(
                "model.config",
                "`model.config` is used only for random weights, but `model.init` is pretrained",
                "remove `config`, or set `init: random`",
            );
        }
        if from_config && model.name_or_path.is_none() && config.tokenizer.name_or_path.is_none() {
            self.wrong(
                "model.config",
                "random weights from `model.config` come without a tokenizer",
                "name one with `tokenizer.name_or_path`",
            );
        }
        if model.init == WeightInit::Random && config.lora.is_some() {
            self.wrong(
                "lora",
                "an adapter on random weights learns nothing of use: `model.init` is random",
                "remove the section `lora` to train every weight",
            );
        }
        self.quantization(config);
        if matches!(&model.name_or_path, Some(name) if name.trim().is_empty()) {
            self.wrong("model.name_or_path", "`model.name_or_path` is empty", "name a model");
        }
    }

    fn quantization(&mut self, config: &Config) {
        let model = &config.model;
        if model.load_in_4bit && model.load_in_8bit {
            self.wrong(
                "model.load_in_8bit",
                "`model.load_in_4bit` and `model.load_in_8bit` are both given",
                "keep one of them",
            );
        }
        for (key, is_on) in [("load_in_4bit", model.load_in_4bit), ("load_in_8bit", model.load_in_8bit)] {
            if is_on && config.lora.is_none() {
                self.wrong(
                    &format!("model.{key}"),
                    format!("`model.{key}` stores the weights in few bits, and such weights cannot be trained"),
                    "add a section `lora` to train an adapter on them, or remove the key for full fine-tuning",
                );
            }
        }
        if model.bnb_4bit_use_double_quant && !model.load_in_4bit {
            self.wrong(
                "model.bnb_4bit_use_double_quant",
                "`model.bnb_4bit_use_double_quant` is given, but not `load_in_4bit`",
                "add `load_in_4bit: true`, or remove it",
            );
        }
        if !model.llm_int8_skip_modules.is_empty() && model.quantization().is_none() {
            self.wrong(
                "model.llm_int8_skip_modules",
                "`model.llm_int8_skip_modules` is given, but nothing is quantised",
                "add `load_in_4bit: true` or `load_in_8bit: true`, or remove it",
            );
        }
        if model.init == WeightInit::Random && model.quantization().is_some() {
            self.wrong(
                "model.init",
                "random weights are not quantised: `model.init` is random",
                "remove `load_in_4bit` or `load_in_8bit`",
            );
        }
    }

    fn lora(&mut self, config: &Config) {
        let Some(lora) = &config.lora else { return };
        self.range("lora.r", lora.r, lora.r >= 1, "1 or more");
        self.single_precision("lora.lora_alpha", lora.lora_alpha, false);
        self.range(
            "lora.lora_dropout",
            lora.lora_dropout,
            (0.0..1.0).contains(&lora.lora_dropout),
            "from 0 to below 1",
        );
        let empty = match &lora.target_modules {
            Modules::Pattern(text) => text.trim().is_empty(),
            Modules::Suffixes(names) => names.is_empty() && lora.modules_to_save.is_none(),
        };
        if empty {
            self.wrong(
                "lora.target_modules",
                "`lora.target_modules` names no module",
                "write all-linear, or a list of names",
            );
        }
        if lora.adapter.is_none()
            && let Err(ModelError::Lora { what, remedy }) = lora.spec().check()
            && self.problems.iter().all(|problem| !problem.message.contains("`lora."))
        {
            self.wrong(&lora_key(&what), what, remedy);
        }
        if lora.adapter.is_some() {
            let default = LoraSection::default();
            let decided = [
                ("r", lora.r == default.r),
                ("lora_alpha", lora.lora_alpha == default.lora_alpha),
                ("lora_dropout", lora.lora_dropout == default.lora_dropout),
                ("target_modules", lora.target_modules == default.target_modules),
                ("exclude_modules", lora.exclude_modules == default.exclude_modules),
                ("use_rslora", lora.use_rslora == default.use_rslora),
                ("modules_to_save", lora.modules_to_save == default.modules_to_save),
                ("init_lora_weights", lora.init_lora_weights == default.init_lora_weights),
                ("use_dora", lora.use_dora == default.use_dora),
                ("lora_bias", lora.lora_bias == default.lora_bias),
                ("rank_pattern", lora.rank_pattern == default.rank_pattern),
                ("alpha_pattern", lora.alpha_pattern == default.alpha_pattern),
                ("trainable_token_indices", lora.trainable_token_indices == default.trainable_token_indices),
                ("layers_to_transform", lora.layers_to_transform == default.layers_to_transform),
            ];
            for (key, is_default) in decided {
                let path = format!("lora.{key}");
                if self.asked_for(&path, is_default) {
                    self.wrong(
                        &path,
                        format!("`{path}` is given, but the adapter in `lora.adapter` decides it"),
                        format!("remove `{key}`"),
                    );
                }
            }
        }
    }

    fn steps(&mut self, config: &Config) {
        let t = &config.training;
        let one_or_more = [
            ("per_device_train_batch_size", t.per_device_train_batch_size as u64),
            ("per_device_eval_batch_size", t.per_device_eval_batch_size as u64),
            ("gradient_accumulation_steps", t.gradient_accumulation_steps as u64),
            ("save_total_limit", t.save_total_limit.unwrap_or(1) as u64),
            ("threads", t.threads.unwrap_or(1) as u64),
        ];
        for (key, value) in one_or_more {
            // Products of a few of them are counts of rows and tokens.
            let holds = (1..=MOST_AT_ONCE).contains(&value);
            self.range(&format!("training.{key}"), value, holds, "from 1 to a million");
        }
        let above_zero = [
            ("logging_steps", t.logging_steps.value()),
            ("save_steps", t.save_steps.value()),
            ("eval_steps", t.eval_steps.map_or(1.0, StepCount::value)),
        ];
        for (key, value) in above_zero {
            self.range(
                &format!("training.{key}"),
                value,
                value > 0.0,
                "1 or more steps, or a share of all steps above 0",
            );
        }
        self.range(
            "training.max_steps",
            t.max_steps,
            t.max_steps == -1 || (1..=MOST_STEPS).contains(&t.max_steps),
            "-1 (epochs decide), or from 1 to a billion",
        );
        if t.max_steps < 1 && !(t.num_train_epochs > 0.0 && t.num_train_epochs.is_finite()) {
            self.wrong(
                "training.num_train_epochs",
                format!(
                    "nothing to do: `training.num_train_epochs` is {} and there is no `max_steps`",
                    t.num_train_epochs
                ),
                "set `num_train_epochs` above 0, or `max_steps`",
            );
        }
    }

    fn optimiser(&mut self, config: &Config) {
        let t = &config.training;
        let rate = t.learning_rate.unwrap_or(1.0);
        self.single_precision("training.learning_rate", rate, false);
        self.single_precision("training.loraplus_lr_ratio", t.loraplus_lr_ratio.unwrap_or(1.0), false);
        self.single_precision(
            "training.embedding_learning_rate",
            t.embedding_learning_rate.unwrap_or(1.0),
            false,
        );
        if t.loraplus_lr_ratio.is_some() && config.lora.is_none() {
            self.wrong(
                "training.loraplus_lr_ratio",
                "`training.loraplus_lr_ratio` is about adapters, but there is no section `lora`",
                "remove it, or add a section `lora`",
            );
        }
        let saves_head = |lora: &LoraSection| lora.modules_to_save.is_some() || lora.adapter.is_some();
        if t.embedding_learning_rate.is_some() && !config.lora.as_ref().is_none_or(saves_head) {
            self.wrong(
                "training.embedding_learning_rate",
                "`training.embedding_learning_rate` is given, but neither embedding nor head is trained",
                "add `modules_to_save: [embed_tokens, lm_head]` to the section `lora`, or remove the key",
            );
        }
        self.single_precision("training.weight_decay", t.weight_decay, true);
        self.range(
            "training.adam_beta1",
            t.adam_beta1,
            (0.0..1.0).contains(&t.adam_beta1),
            "from 0 to below 1",
        );
        self.range(
            "training.adam_beta2",
            t.adam_beta2,
            (0.0..1.0).contains(&t.adam_beta2),
            "from 0 to below 1",
        );
        self.single_precision("training.adam_epsilon", t.adam_epsilon, false);
        self.range("training.max_grad_norm", t.max_grad_norm, t.max_grad_norm >= 0.0, "0 (off) or more");
        let smoothing = t.label_smoothing_factor;
        self.range(
            "training.label_smoothing_factor",
            smoothing,
            (0.0..1.0).contains(&smoothing),
            "from 0 to below 1",
        );
        if smoothing > 0.0 && t.loss_type == LossKind::Dft {
            self.wrong(
                "training.label_smoothing_factor",
                "label smoothing is not defined for `loss_type: dft`",
                "remove `label_smoothing_factor`, or use `loss_type: nll`",
            );
        }
        if let Some(alpha) = t.neftune_noise_alpha {
            self.single_precision("training.neftune_noise_alpha", alpha, true);
        }
    }

    /// What an optimiser does not look at must not be given.
    fn optim_kind(&mut self, config: &Config) {
        let t = &config.training;
        let default = TrainingSection::default();
        let is_adamw = matches!(t.optim, OptimKind::AdamwTorchFused | OptimKind::AdamwBnb8bit);
        let has_betas = is_adamw || t.optim == OptimKind::Lion32bit;
        let unused = [
            ("adam_beta1", has_betas || t.adam_beta1 == default.adam_beta1),
            ("adam_beta2", has_betas || t.adam_beta2 == default.adam_beta2),
            ("adam_epsilon", is_adamw || t.adam_epsilon == default.adam_epsilon),
        ];
        for (key, is_fine) in unused {
            let path = format!("training.{key}");
            if self.asked_for(&path, is_fine) {
                let message = format!("`{path}` is given, but the optimiser of `training.optim` has none");
                self.wrong(&path, message, format!("remove `{key}`, or choose another `optim`"));
            }
        }
        match t.sgd() {
            Err(problem) => self.wrong(
                "training.optim_args",
                format!("`training.optim_args`: {problem}"),
                "write for example momentum=0.9,nesterov=true, or remove `optim_args`",
            ),
            Ok(sgd) => {
                let holds = (0.0..1.0).contains(&sgd.momentum) && (0.0..=1.0).contains(&sgd.dampening);
                let alone = !sgd.nesterov || (sgd.momentum > 0.0 && sgd.dampening == 0.0);
                if !holds || !alone {
                    self.wrong(
                        "training.optim_args",
                        "`training.optim_args`: momentum must be from 0 to below 1, dampening from 0 to 1, and \
                         nesterov needs a momentum and no dampening",
                        "change `optim_args`",
                    );
                }
            }
        }
        if t.bf16_stochastic_round && config.model.dtype == ComputeDtype::Float32 {
            self.wrong(
                "training.bf16_stochastic_round",
                "`training.bf16_stochastic_round` keeps weights in bfloat16, but `model.dtype` is float32",
                "set model.dtype to bfloat16, or remove `bf16_stochastic_round`",
            );
        }
    }

    /// The engine knows the arguments of each schedule.
    fn schedule(&mut self, config: &Config) {
        let t = &config.training;
        let rate = t.learning_rate(config.lora.is_some());
        let made = Schedule::new(t.lr_scheduler_type.into(), rate, 0, 1000, &t.lr_scheduler_kwargs);
        let Err(error) = made else { return };
        let (path, help) = match &error {
            ScheduleError::UnknownKey { key, known, family } => {
                let help = match super::problem::nearest(key, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None if known.is_empty() => format!("`{family}` takes no arguments: remove it"),
                    None => format!("possible: {}", known.join(", ")),
                };
                (format!("training.lr_scheduler_kwargs.{key}"), help)
            }
            ScheduleError::Value { key, .. } => {
                (format!("training.lr_scheduler_kwargs.{key}"), "change the value".into())
            }
            ScheduleError::Requirement { .. } => (
                "training.lr_scheduler_type".into(),
                "see transformers' lr_scheduler_kwargs of this schedule".into(),
            ),
        };
        self.wrong(&path, error.to_string(), help);
    }

    fn events(&mut self, config: &Config) {
        let t = &config.training;
        let by_task = matches!(t.metric_for_best_model, BestMetric::Task(_));
        let has_eval = !config.data.eval.0.is_empty() || config.data.eval_fraction > 0.0;
        if !has_eval {
            let asked = [
                ("eval_steps", t.eval_steps.is_some()),
                ("eval_strategy", matches!(t.eval_strategy, Some(EvalWhen::Steps | EvalWhen::Epoch))),
                ("eval_on_start", t.eval_on_start),
                ("load_best_model_at_end", t.load_best_model_at_end && !by_task),
                ("early_stopping_patience", t.early_stopping_patience.is_some() && !by_task),
                ("save_strategy", t.save_strategy == SaveWhen::Best && !by_task),
                ("greater_is_better", t.greater_is_better.is_some() && !by_task),
                (
                    "metric_for_best_model",
                    !by_task
                        && self.asked_for(
                            "training.metric_for_best_model",
                            t.metric_for_best_model == BestMetric::LOSS,
                        ),
                ),
            ];
            for (key, _) in asked.into_iter().filter(|(_, asked)| *asked) {
                self.wrong(
                    &format!("training.{key}"),
                    format!("`training.{key}` asks for evaluations, but there is no evaluation data"),
                    "give `data.eval` or `data.eval_fraction`",
                );
            }
        }
        if by_task && (config.eval.tasks.is_empty() || config.eval.steps.is_none()) {
            let key = if config.eval.tasks.is_empty() { "tasks" } else { "steps" };
            self.wrong(
                "training.metric_for_best_model",
                format!("`metric_for_best_model` is a benchmark's, but there is no `eval.{key}`"),
                "give `eval.tasks`, and with `eval.steps` how often they are run",
            );
        }
        self.best_model(config);
        if t.eval_strategy == Some(EvalWhen::Steps) && t.eval_steps.is_none() {
            self.wrong(
                "training.eval_strategy",
                "`eval_strategy: steps` needs `eval_steps`",
                "give `eval_steps`",
            );
        }
        if matches!(t.eval_strategy, Some(EvalWhen::No | EvalWhen::Epoch)) && t.eval_steps.is_some() {
            self.wrong(
                "training.eval_steps",
                "`eval_steps` is given, but `eval_strategy` is not steps",
                "remove one of the two",
            );
        }
        if t.save_strategy != SaveWhen::Steps
            && self.asked_for("training.save_steps", t.save_steps == StepCount::steps(500))
        {
            self.wrong(
                "training.save_steps",
                "`save_steps` is given, but `save_strategy` is not steps",
                "remove one of the two",
            );
        }
    }

    /// What depends on evaluations needs some; and early stopping has two keys.
    fn best_model(&mut self, config: &Config) {
        let t = &config.training;
        let by_task = matches!(t.metric_for_best_model, BestMetric::Task(_));
        if t.eval_strategy == Some(EvalWhen::No) && !by_task {
            let asked = [
                ("load_best_model_at_end", t.load_best_model_at_end),
                ("early_stopping_patience", t.early_stopping_patience.is_some()),
                ("save_strategy", t.save_strategy == SaveWhen::Best),
            ];
            for (key, _) in asked.into_iter().filter(|(_, asked)| *asked) {
                self.wrong(
                    &format!("training.{key}"),
                    format!("`training.{key}` needs evaluations, but `eval_strategy` is no"),
                    "set `eval_strategy` to steps or epoch",
                );
            }
        }
        if let Some(patience) = t.early_stopping_patience {
            self.range("training.early_stopping_patience", patience, patience >= 1, "1 or more");
        }
        let threshold = t.early_stopping_threshold;
        let is_number = threshold.is_finite() && threshold >= 0.0;
        self.range("training.early_stopping_threshold", threshold, is_number, "0 or more");
        if t.early_stopping_patience.is_none()
            && self.asked_for("training.early_stopping_threshold", threshold == 0.0)
        {
            self.wrong(
                "training.early_stopping_threshold",
                "`early_stopping_threshold` is given, but nothing stops early",
                "give `early_stopping_patience`, or remove it",
            );
        }
        if t.save_only_model && t.max_time.is_some() {
            self.wrong(
                "training.save_only_model",
                "`max_time` stops a run that is to go on later, but `save_only_model` leaves out what that needs",
                "remove one of the two",
            );
        }
    }
}

/// The key that an error about LoRA settings names first.
fn lora_key(what: &str) -> String {
    let name = what.split('`').nth(1).unwrap_or_default();
    format!("lora.{}", name.split(['.', ':', ' ']).next().unwrap_or_default())
}
