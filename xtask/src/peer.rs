//! `cargo xtask bench --peer PYTHON`: TRL and llm-foundry on the same work, by turns, and the table of ratios that the
//! README shows.

use crate::shell;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const USAGE: &str = "\
cargo xtask bench --peer PYTHON --model DIR --data ALPACA.json
    [--only NAME] [--steps N] [--rounds N] [--length TOKENS]

PYTHON has torch, transformers, trl, peft, datasets and bitsandbytes. DIR is SmolLM2-135M (or another small model) in
safetensors. The rows of the table are: lora-bf16, lora-f32, qlora-nf4, int8, full-bf16, llama-1b.";

/// One row of the table.
struct Work {
    name: &'static str,
    /// Arguments of `interop/trl_speed.py`, in the peer's fastest setting.
    peer: &'static [&'static str],
    /// Changes of the configuration.
    ours: &'static [&'static str],
    /// On a model of Llama-3.2-1B's shapes with random weights, made on the spot.
    is_large: bool,
    /// Once more within the peer's memory divided by this.
    share: Option<f64>,
}

const BF16: &str = "model.dtype=bfloat16";

const WORKS: [Work; 6] = [
    Work {
        name: "lora-bf16",
        peer: &["--dtype", "bfloat16", "--bf16", "1"],
        ours: &[BF16],
        is_large: false,
        share: Some(6.0),
    },
    Work {
        name: "lora-f32",
        peer: &["--dtype", "float32", "--bf16", "0"],
        ours: &["model.dtype=float32"],
        is_large: false,
        share: None,
    },
    Work {
        name: "qlora-nf4",
        peer: &["--dtype", "bfloat16", "--bf16", "1", "--q4", "1", "--dq", "1"],
        ours: &[BF16, "model.load_in_4bit=true", "model.bnb_4bit_use_double_quant=true"],
        is_large: false,
        share: Some(8.0),
    },
    // TRL with LLM.int8() is slower than its bfloat16: the row compares with the latter.
    Work {
        name: "int8",
        peer: &["--dtype", "bfloat16", "--bf16", "1"],
        ours: &[BF16, "model.load_in_8bit=true"],
        is_large: false,
        share: None,
    },
    Work {
        name: "full-bf16",
        peer: &["--dtype", "bfloat16", "--bf16", "1", "--full", "1"],
        ours: &[BF16, "lora=null"],
        is_large: false,
        share: None,
    },
    Work {
        name: "llama-1b",
        peer: &["--dtype", "bfloat16", "--bf16", "1"],
        ours: &[BF16],
        is_large: true,
        share: None,
    },
];

/// What one run showed.
#[derive(Clone, Debug)]
struct Figures {
    tokens_per_second: f64,
    peak_mb: f64,
    /// From the start of the process to the end of the first step, less the time of a later step.
    start_seconds: f64,
    losses: Vec<f64>,
}

struct Settings {
    python: String,
    model: PathBuf,
    data: PathBuf,
    only: Option<String>,
    steps: usize,
    rounds: usize,
    length: usize,
}

/// Runs the rows asked for and prints the table.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let settings = Settings::parse(args)?;
    shell::run(&mut shell::cargo(&["build", "--release", "--quiet", "--package", "llm-foundry"]))?;
    let scratch = shell::target_dir().join("peer");
    fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    let mut table = String::from(
        "| work | TRL tokens/s | ours | ratio | TRL memory | ours | share | TRL start | ours | first losses, TRL / ours |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for work in WORKS.iter().filter(|work| settings.only.as_deref().is_none_or(|only| only == work.name)) {
        let model = if work.is_large { settings.large_model(&scratch)? } else { settings.model.clone() };
        let (mut peers, mut ours, mut within) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..settings.rounds {
            let peer = settings.peer(work, &model, &scratch)?;
            ours.push(settings.ours(work, &model, &scratch, None)?);
            if let Some(share) = work.share {
                within.push(settings.ours(work, &model, &scratch, Some(peer.peak_mb / share))?);
            }
            peers.push(peer);
        }
        let mut lines = vec![row(work.name, &median(&peers), &median(&ours))];
        if let Some(share) = work.share {
            let name = format!("{} within 1/{share} of the memory", work.name);
            lines.push(row(&name, &median(&peers), &median(&within)));
        }
        for line in lines {
            println!("{line}");
            table.push_str(&line);
            table.push('\n');
        }
    }
    println!("\n{table}");
    Ok(())
}

impl Settings {
    fn parse(args: &[String]) -> Result<Self> {
        let mut settings = Self {
            python: String::new(),
            model: PathBuf::new(),
            data: PathBuf::new(),
            only: None,
            steps: 6,
            rounds: 1,
            length: 1024,
        };
        for pair in args.chunks(2) {
            let [key, value] = pair else { bail!("`{}` needs a value\n\n{USAGE}", pair[0]) };
            match key.as_str() {
                "--peer" => settings.python = value.clone(),
                "--model" => settings.model = PathBuf::from(value),
                "--data" => settings.data = PathBuf::from(value),
                "--only" => settings.only = Some(value.clone()),
                "--steps" => settings.steps = value.parse().context("--steps")?,
                "--rounds" => settings.rounds = value.parse().context("--rounds")?,
                "--length" => settings.length = value.parse().context("--length")?,
                other => bail!("unknown option `{other}`\n\n{USAGE}"),
            }
        }
        ensure!(!settings.python.is_empty(), "no --peer\n\n{USAGE}");
        ensure!(settings.steps >= 3 && settings.rounds >= 1, "at least 3 steps and 1 round");
        ensure!(settings.model.join("config.json").exists(), "--model must be a directory with config.json");
        ensure!(settings.data.is_file(), "--data must be a JSON file");
        let known = settings.only.as_deref().is_none_or(|only| WORKS.iter().any(|work| work.name == only));
        ensure!(known, "no such row\n\n{USAGE}");
        Ok(settings)
    }

    /// Steps before the measurement begins: a third, as `interop/trl_speed.py`.
    fn warm_up(&self) -> usize {
        (self.steps / 3).max(1)
    }

    fn script(&self, name: &str) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(shell::root().join("interop").join(name)).env("HF_HUB_OFFLINE", "1");
        command
    }

    fn peer(&self, work: &Work, model: &Path, scratch: &Path) -> Result<Figures> {
        let mut command = self.script("trl_speed.py");
        command.args(work.peer).arg("--model").arg(model).arg("--data").arg(&self.data);
        command.args(["--steps", &self.steps.to_string(), "--len", &self.length.to_string()]);
        command.arg("--out").arg(scratch.join("trl")).stderr(Stdio::null());
        let output = shell::capture(&mut command)?;
        let line = output.lines().find_map(|line| line.strip_prefix("RESULT "));
        let result: Value = serde_json::from_str(line.context("the peer printed no RESULT")?)?;
        let number = |key: &str| result[key].as_f64().with_context(|| format!("RESULT has no {key}"));
        Ok(Figures {
            tokens_per_second: number("tokens_per_second")?,
            peak_mb: number("peak_kib")? * 1024.0 / 1e6,
            start_seconds: number("start_seconds")?,
            losses: result["loss"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect(),
        })
    }

    /// Our run, within `budget_mb` megabytes if they are given.
    fn ours(&self, work: &Work, model: &Path, scratch: &Path, budget_mb: Option<f64>) -> Result<Figures> {
        let out = scratch.join("ours");
        if out.exists() {
            fs::remove_dir_all(&out).with_context(|| format!("cannot clear {}", out.display()))?;
        }
        let config = scratch.join("peer.yaml");
        fs::write(&config, self.config(model, &out)?)?;
        let mut command = Command::new(shell::target_dir().join("release/llm-foundry"));
        command.arg("train").arg(&config).args(work.ours).arg("--quiet");
        command.args(budget_mb.map(|megabytes| format!("training.memory_budget={megabytes:.0}MB")));
        let began = Instant::now();
        let mut child =
            command.spawn().with_context(|| format!("cannot start `{}`", shell::show(&command)))?;
        let metrics = out.join("metrics.jsonl");
        let first = loop {
            if let Some(status) = child.try_wait()? {
                ensure!(status.success(), "`{}` ended with {status}", shell::show(&command));
            }
            if steps(&metrics).is_ok_and(|steps| !steps.is_empty()) {
                break began.elapsed().as_secs_f64();
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let status = child.wait()?;
        ensure!(status.success(), "`{}` ended with {status}", shell::show(&command));
        let steps = steps(&metrics)?;
        ensure!(steps.len() == self.steps, "{} steps in {}", steps.len(), metrics.display());
        let number = |at: usize, key: &str| steps[at][key].as_f64().with_context(|| format!("no `{key}`"));
        let (from, to) = (self.warm_up() - 1, self.steps - 1);
        let seconds = number(to, "seconds")? - number(from, "seconds")?;
        let tokens = number(to, "tokens")? - number(from, "tokens")?;
        Ok(Figures {
            tokens_per_second: tokens / seconds,
            peak_mb: number(to, "peak_rss_bytes")? / 1e6,
            start_seconds: first - seconds / (to - from) as f64,
            losses: (0..steps.len()).map(|at| number(at, "loss")).collect::<Result<_>>()?,
        })
    }

    /// The work of `interop/trl_speed.py` as a configuration.
    fn config(&self, model: &Path, out: &Path) -> Result<String> {
        let text = |path: &Path| serde_json::to_string(&path.to_string_lossy()).context("a path is text");
        Ok(format!(
            "model:\n  name_or_path: {}\ndata:\n  train: {}\n  packing: true\n  max_length: {}\nlora:\n  r: 16\n  \
             lora_alpha: 32\n  target_modules: all-linear\ntraining:\n  per_device_train_batch_size: 1\n  max_steps: \
             {}\n  learning_rate: 2.0e-4\n  logging_steps: 1\n  save_strategy: \"no\"\n  seed: 0\noutput_dir: {}\n",
            text(&std::path::absolute(model)?)?,
            text(&std::path::absolute(&self.data)?)?,
            self.length,
            self.steps,
            text(out)?
        ))
    }

    /// A model of Llama-3.2-1B's shapes with random weights and the small model's tokenizer, made once.
    fn large_model(&self, scratch: &Path) -> Result<PathBuf> {
        let dir = scratch.join("llama-1b");
        if !dir.join("config.json").exists() {
            shell::run(
                self.script("random_llama.py").arg("--tokenizer").arg(&self.model).arg("--out").arg(&dir),
            )?;
        }
        Ok(dir)
    }
}

/// The lines of the log, one for each step.
fn steps(metrics: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(metrics)?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(lines.filter(|line| line.get("event").is_none() && line.get("loss").is_some()).collect())
}

/// The run with the median speed.
fn median(figures: &[Figures]) -> Figures {
    let mut sorted = figures.to_vec();
    sorted.sort_by(|a, b| a.tokens_per_second.total_cmp(&b.tokens_per_second));
    sorted[sorted.len() / 2].clone()
}

fn row(name: &str, peer: &Figures, ours: &Figures) -> String {
    let losses = |figures: &Figures| {
        figures.losses.iter().take(3).map(|loss| format!("{loss:.3}")).collect::<Vec<_>>().join(" ")
    };
    format!(
        "| {name} | {:.0} | {:.0} | {:.2} | {:.0} MB | {:.0} MB | 1/{:.1} | {:.1} s | {:.2} s | {} / {} |",
        peer.tokens_per_second,
        ours.tokens_per_second,
        ours.tokens_per_second / peer.tokens_per_second,
        peer.peak_mb,
        ours.peak_mb,
        peer.peak_mb / ours.peak_mb,
        peer.start_seconds,
        ours.start_seconds,
        losses(peer),
        losses(ours)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_checked_before_anything_runs() {
        let parse = |words: &[&str]| {
            Settings::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
                .err()
                .unwrap()
                .to_string()
        };
        assert!(parse(&["--peer"]).contains("needs a value"));
        assert!(parse(&["--model", "x"]).contains("no --peer"));
        assert!(parse(&["--peer", "python", "--model", "nowhere"]).contains("config.json"));
        assert!(parse(&["--pear", "python"]).contains("unknown option"));
    }

    #[test]
    fn the_row_shows_ratios() {
        let figures = |speed: f64, memory: f64| Figures {
            tokens_per_second: speed,
            peak_mb: memory,
            start_seconds: 1.0,
            losses: vec![1.5, 1.25],
        };
        let line =
            row("lora", &figures(100.0, 4000.0), &median(&[figures(400.0, 800.0), figures(500.0, 800.0)]));
        assert!(
            line.contains("| 5.00 |") && line.contains("1/5.0") && line.contains("1.500 1.250"),
            "{line}"
        );
    }
}
