//! The text of a new configuration.

use super::answers::{Answers, Method};
use crate::config::yaml_scalar;
use std::fmt::Write;

/// What was chosen for a model and its data.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) method: Method,
    /// A built-in template, for a model that has none.
    pub(super) chat_template: Option<&'static str>,
    pub(super) max_length: usize,
    /// Plain text rather than conversations or tasks.
    pub(super) is_text: bool,
    pub(super) assistant_only_loss: bool,
    /// The template renders earlier turns differently once later ones follow.
    pub(super) multi_turn_auto: bool,
    pub(super) eval_fraction: Option<f64>,
    pub(super) epochs: usize,
    pub(super) accumulation: usize,
    /// `None`: the data was not looked at.
    pub(super) examples: Option<usize>,
    /// Rows are read while training, so that their number is not known.
    pub(super) streamed: bool,
}

/// Steps of a run whose rows cannot be counted.
const STEPS_OF_A_STREAM: usize = 1000;

impl Choice {
    /// What is written before anything was looked at.
    pub(super) fn unseen(answers: &Answers) -> Self {
        Self {
            method: answers.method.unwrap_or(Method::Lora),
            chat_template: None,
            max_length: 1024,
            is_text: false,
            assistant_only_loss: false,
            multi_turn_auto: false,
            eval_fraction: None,
            epochs: 3,
            accumulation: 8,
            examples: None,
            // A stream needs `max_steps`, anything else takes it too.
            streamed: true,
        }
    }
}

/// The file.
pub(super) fn text(answers: &Answers, choice: &Choice) -> String {
    let mut text = String::from(
        "# A run of llm-foundry. Values are chosen for this model and this data; `llm-foundry schema` lists all keys, and\n\
         # any can be changed on the command line: llm-foundry train FILE training.learning_rate=1e-4\n",
    );
    model(&mut text, answers, choice);
    data(&mut text, answers, choice);
    if choice.method != Method::Full {
        text.push_str(
            "\n# Two small matrices beside each weight are trained, and the model itself stays as it is.\n\
             # Without this section every weight is trained.\nlora:\n  \
             r: 16                  # rank: more learns more and needs more memory\n  \
             lora_alpha: 32\n  # lora_dropout: 0.05   # against learning by heart\n  target_modules: all-linear\n",
        );
    }
    training(&mut text, choice);
    let _ = write!(
        text,
        "\n# Adapter or model, metrics.jsonl, report.html and checkpoints\noutput_dir: {}\n",
        yaml_scalar(&answers.output_dir)
    );
    text
}

fn model(text: &mut String, answers: &Answers, choice: &Choice) {
    let _ = write!(
        text,
        "\nmodel:\n  name_or_path: {}   # a directory, a .gguf file or a hub id\n  # dtype: auto          # bfloat16 where \
         the processor multiplies it fast, else float32\n",
        yaml_scalar(&answers.model)
    );
    if choice.method == Method::Qlora {
        text.push_str(
            "  load_in_4bit: true     # the frozen weights take half a byte each\n  bnb_4bit_use_double_quant: true\n",
        );
    }
    if let Some(template) = choice.chat_template {
        let _ = write!(
            text,
            "\ntokenizer:\n  # The model comes without a chat template: it learns this one.\n  chat_template: {template}\n"
        );
    }
}

fn data(text: &mut String, answers: &Answers, choice: &Choice) {
    let train = match answers.data.as_slice() {
        [one] => yaml_scalar(one),
        many => format!("[{}]", many.iter().map(|name| yaml_scalar(name)).collect::<Vec<_>>().join(", ")),
    };
    let examples = choice.examples.map_or_else(String::new, |examples| format!("   # {examples} examples"));
    let examples = if choice.streamed { String::new() } else { examples };
    let _ = write!(text, "\ndata:\n  train: {train}{examples}\n");
    match (&answers.eval, choice.eval_fraction) {
        (Some(eval), _) => {
            let _ = writeln!(text, "  eval: {}", yaml_scalar(eval));
        }
        (None, Some(fraction)) => {
            let _ = writeln!(
                text,
                "  eval_fraction: {fraction}    # kept back, to see whether the model learns or only remembers"
            );
        }
        (None, None) => text.push_str(
            "  # eval_fraction: 0.05  # keep some examples back, to see whether the model learns\n",
        ),
    }
    if choice.assistant_only_loss {
        text.push_str("  assistant_only_loss: true   # learn to answer, not to ask\n");
    }
    if choice.multi_turn_auto {
        text.push_str("  multi_turn: auto       # the template shows earlier turns differently: a row for each learned turn\n");
    }
    text.push_str("  packing: true          # several examples share a row; none sees another\n");
    if choice.is_text {
        text.push_str(
            "  packing_strategy: bfd_split   # documents longer than a row go on in the next one\n",
        );
    }
    let _ =
        writeln!(text, "  max_length: {:<11}# tokens of a row; longer examples are cut", choice.max_length);
}

fn training(text: &mut String, choice: &Choice) {
    let (rate, about) = match choice.method {
        Method::Full => ("2.0e-5", "usual for all weights"),
        _ => ("2.0e-4", "usual for adapters"),
    };
    let _ = write!(
        text,
        "\ntraining:\n  per_device_train_batch_size: 1\n  gradient_accumulation_steps: {}   # rows of an update\n",
        choice.accumulation
    );
    match choice.streamed {
        true => {
            let _ = writeln!(
                text,
                "  max_steps: {STEPS_OF_A_STREAM}        # the data is read while training: say when to end"
            );
        }
        false => {
            let _ = writeln!(text, "  num_train_epochs: {}    # passes over the data", choice.epochs);
        }
    }
    let _ = write!(
        text,
        "  learning_rate: {rate}  # {about}\n  lr_scheduler_type: cosine\n  warmup_steps: 0.05     # below 1: a share of all \
         steps\n  logging_steps: 10\n  save_total_limit: 2    # only the latest checkpoints\n  # report_to: wandb     \
         # or tensorboard, mlflow; metrics.jsonl is always written\n"
    );
}
