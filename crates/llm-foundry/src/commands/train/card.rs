//! The model card of a run: what is known before it, and what it came to.

use crate::card::{Card, hub_id, license_of};
use crate::config::Config;
use crate::console::thousands;
use crate::machine::dtype_name;
use crate::names;
use crate::plan::Plan;
use foundry_engine::{EvalReport, Summary};
use foundry_models::Tuning;
use std::path::Path;

/// What is known before the run.
pub(super) fn card(plan: &Plan, config: &Config, yaml: &str, output_dir: &Path, command: String) -> Card {
    let subject = &plan.subject;
    let datasets = config.data.train.0.iter().chain(&config.data.eval.0);
    Card {
        name: names::of_model(output_dir),
        base: subject.name.clone(),
        base_id: hub_id(&subject.name),
        is_adapter: matches!(subject.tuning, Tuning::Lora(_)),
        license: subject.files.as_ref().and_then(license_of),
        datasets: datasets.filter_map(|name| hub_id(name)).collect(),
        data: data_lines(plan, config),
        training: training_lines(plan),
        command,
        configuration: yaml.to_owned(),
        ..Card::default()
    }
    .with_section(&config.card)
}

/// What the run came to.
pub(super) fn results(summary: &Summary) -> Vec<(String, String)> {
    let early = if summary.finished_early { " (ended early)" } else { "" };
    let mut lines = vec![
        ("steps".to_owned(), format!("{} of {}{early}", summary.step, summary.total_steps)),
        ("epochs".to_owned(), format!("{:.2}", summary.epoch)),
        ("tokens".to_owned(), thousands(summary.tokens)),
        ("mean training loss".to_owned(), format!("{:.4}", summary.train_loss)),
    ];
    if let Some(best) = &summary.best {
        let metric = serde_json::to_value(&best.metric).map_or_else(|_| String::new(), |m| m.to_string());
        let name = format!("best evaluation ({})", metric.trim_matches('"'));
        lines.push((name, format!("{:.4} at step {}", best.value, best.step)));
    }
    if let Some(report) = &summary.eval {
        lines.extend(evaluation(report));
    }
    lines
}

fn evaluation(report: &EvalReport) -> [(String, String); 3] {
    let at = |name: &str| format!("evaluation at step {}: {name}", report.step);
    [
        (at("loss"), format!("{:.4}", report.eval_loss)),
        (at("perplexity"), format!("{:.3}", report.eval_perplexity)),
        (at("accuracy of the next token"), format!("{:.4}", report.eval_mean_token_accuracy)),
    ]
}

fn data_lines(plan: &Plan, config: &Config) -> Vec<(String, String)> {
    let files: Vec<&str> = config.data.train.0.iter().map(|file| names::without_place(file)).collect();
    let mut lines = vec![("files".to_owned(), files.join(", "))];
    let sets = plan
        .corpus
        .iter()
        .flat_map(|corpus| [("training", Some(&corpus.train)), ("evaluation", corpus.eval.as_ref())]);
    for (name, set) in sets.filter_map(|(name, set)| Some((name, &set?.report))) {
        let counts = format!(
            "{} examples, {} tokens, {} of them learnt",
            thousands(set.examples as u64),
            thousands(set.tokens as u64),
            thousands(set.labelled_tokens as u64)
        );
        lines.push((name.to_owned(), counts));
    }
    lines
}

fn training_lines(plan: &Plan) -> Vec<(String, String)> {
    let (args, subject) = (&plan.args, &plan.subject);
    let tuning = match &subject.tuning {
        Tuning::Lora(spec) => format!("LoRA, r = {}, alpha = {}", spec.r, spec.lora_alpha),
        _ => "all weights".into(),
    };
    let rows = args.per_device_train_batch_size.saturating_mul(args.gradient_accumulation_steps);
    [
        ("tuning", tuning),
        ("trained parameters", thousands(plan.trainable)),
        ("learning rate", format!("{:e}, {}", args.learning_rate, args.lr_scheduler_type)),
        ("rows of an update", rows.to_string()),
        ("number format of products", dtype_name(subject.compute).to_owned()),
        ("seed", args.seed.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}
