//! What can be typed on the command line. What it means is in `commands/`.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Adapts open-weight language models: one YAML file in, a tuned model out.
#[derive(Debug, Parser)]
#[command(name = "llm-foundry", version, propagate_version = true, max_term_width = 110)]
#[command(
    after_help = "Exit codes: 0 done, 1 the run failed, 2 wrong input, 101 a bug, 130 interrupted (signal or training.max_time).\n\
    Environment: FOUNDRY_THREADS, FOUNDRY_ISA, HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_TOKEN_PATH, HF_ENDPOINT, \
    HF_HUB_OFFLINE, NO_COLOR."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

/// Options that every command has.
#[derive(Clone, Debug, Args)]
pub(crate) struct MachineArgs {
    /// Say nothing but errors and results
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Threads to compute with [default: all that this process may use]
    #[arg(long, global = true, env = "FOUNDRY_THREADS", hide_env = true, value_name = "N")]
    #[arg(value_parser = parse_count)]
    pub(crate) threads: Option<usize>,
    /// Instruction set: avx512, avx2 or portable [default: the best of this machine]
    #[arg(long, global = true, env = "FOUNDRY_ISA", value_name = "NAME", hide_env = true)]
    pub(crate) isa: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train as the configuration says
    Train(TrainArgs),
    /// Show what a training run would need and do, without running it
    Plan(PlanArgs),
    /// Talk with a model (reads standard input where that is not a terminal)
    Chat(ChatArgs),
    /// Continue a prompt or answer messages
    Generate(GenerateArgs),
    /// Add an adapter to its base model and write the merged model
    Merge(MergeArgs),
    /// Write a model for other programs: GGUF, Ollama, safetensors
    Export(ExportArgs),
    /// Look at the data of a configuration
    #[command(subcommand)]
    Data(DataCommand),
    /// Make one adapter of several
    #[command(subcommand)]
    Adapters(AdaptersCommand),
    /// Upload a model or an adapter to the hub
    Push(PushArgs),
    /// Print the JSON schema of configuration files, for editors
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration file (YAML)
    #[arg(value_name = "CONFIG")]
    pub(crate) config: PathBuf,
    /// Values that come before the file's: section.key=value, for example training.learning_rate=1e-4. Also
    /// `+key=value` (add), `++key=value` (add or change), `~key` (take away)
    #[arg(value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Print the whole configuration, each value with the place that it comes from, and do nothing
    #[arg(long)]
    pub(crate) print_config: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Go on from a checkpoint: a directory, `latest` of the output directory, or `auto` (the latest if there
    /// is one, else from the start)
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = "latest")]
    pub(crate) resume: Option<String>,
    /// Move an earlier run that is in the output directory aside and start anew
    #[arg(long, conflicts_with = "resume")]
    pub(crate) overwrite_output_dir: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// The output directory of a run, a merge or an export
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The repository: org/name, or name of the token's owner; made if it is not there
    #[arg(value_name = "REPO")]
    pub(crate) repo: String,
    /// If the repository is made now, make it private
    #[arg(long)]
    pub(crate) private: bool,
    /// Branch, made if it is not there
    #[arg(long, default_value = "main", value_name = "NAME")]
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) revision: String,
    /// Summary of the commit
    #[arg(long, short, default_value = "Upload with llm-foundry", value_name = "TEXT")]
    pub(crate) message: String,
    /// Only list the files that would be uploaded
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Show rows as the model sees them: learned tokens, special tokens, where one example ends and the next begins
    Preview(PreviewArgs),
    /// Count what the data holds and what is lost on the way: lengths, truncation, masks, end tokens, duplicates
    Report(ReportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PreviewArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Rows to show
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) rows: usize,
    /// First row to show, from 0
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) from: usize,
    /// Show the evaluation data
    #[arg(long)]
    pub(crate) eval: bool,
    /// Print one JSON object a row: tokens, labels, lengths of its sequences, and text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is done with adapters.
#[derive(Debug, Subcommand)]
pub(crate) enum AdaptersCommand {
    /// Combine adapters of one base model into one (PEFT's add_weighted_adapter)
    Merge(MergeAdaptersArgs),
}

#[derive(Debug, Args)]
pub(crate) struct MergeAdaptersArgs {
    /// Adapters in PEFT's format, each with its weight (1 where there is none), for example runs/a:0.7 runs/b:0.3
    #[arg(value_name = "DIR[:WEIGHT]", required = true, value_parser = parse_adapter)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) adapters: Vec<WeightedAdapter>,
    /// linear, cat, svd, ties, dare_linear, dare_ties or magnitude_prune
    #[arg(long, default_value = "cat", value_name = "NAME")]
    pub(crate) method: foundry_models::Combination,
    /// Share of the numbers that is kept, 0 to 1 (ties, dare_linear, dare_ties, magnitude_prune)
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    pub(crate) density: Option<f64>,
    /// Which sign wins in ties and dare_ties: that of the sum, or the most frequent
    #[arg(long, default_value = "total", value_name = "NAME")]
    pub(crate) majority_sign: SignElection,
    /// Rank of the result of svd [default: the largest of the adapters']
    #[arg(long, value_name = "R", value_parser = parse_count)]
    pub(crate) svd_rank: Option<usize>,
    /// Seed of dare_linear and dare_ties
    #[arg(long, default_value_t = 42, value_name = "N")]
    pub(crate) seed: u64,
    /// Directory of the result
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Replace what is in DIR
    #[arg(long)]
    pub(crate) force: bool,
}

/// `--majority-sign`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum SignElection {
    Total,
    Frequency,
}

impl From<SignElection> for foundry_models::MajoritySign {
    fn from(election: SignElection) -> Self {
        match election {
            SignElection::Total => Self::Total,
            SignElection::Frequency => Self::Frequency,
        }
    }
}

/// An adapter and its weight.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WeightedAdapter {
    pub(crate) dir: PathBuf,
    pub(crate) weight: f64,
}

/// `DIR` or `DIR:WEIGHT`; a directory whose name looks like that comes first.
fn parse_adapter(text: &str) -> Result<WeightedAdapter, String> {
    let whole = PathBuf::from(text);
    let weighted = text.rsplit_once(':').and_then(|(dir, weight)| Some((dir, weight.parse::<f64>().ok()?)));
    match weighted {
        Some((dir, weight)) if !whole.is_dir() && !dir.is_empty() => {
            if !weight.is_finite() {
                return Err(format!("the weight {weight} is not a number to multiply with"));
            }
            Ok(WeightedAdapter { dir: dir.into(), weight })
        }
        _ => Ok(WeightedAdapter { dir: whole, weight: 1.0 }),
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.trim().parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "must be a number from 0 to 1".into())
}

/// Which model answers.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// Directory, .gguf file or hub id
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// Directory of a LoRA adapter in PEFT's format; several times, each perhaps with a weight: their sum
    #[arg(long, value_name = "DIR[:WEIGHT]", value_parser = parse_adapter)]
    pub(crate) adapter: Vec<WeightedAdapter>,
    /// Branch, tag or commit of a hub id
    #[arg(long, default_value = "main", value_name = "NAME")]
    pub(crate) revision: String,
    /// Number format: auto, float32 or bfloat16
    #[arg(long, default_value = "auto", value_name = "NAME", value_parser = ["auto", "float32", "bfloat16"])]
    pub(crate) dtype: String,
    /// Longest conversation in tokens, prompt and answer together [default: 4096, or less if the model has less]
    #[arg(long, value_name = "TOKENS", value_parser = parse_count)]
    pub(crate) max_length: Option<usize>,
    /// Chat template: path of a Jinja file, or the name of a built-in one, such as chatml [default: the model's]
    #[arg(long, value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
    /// Start even if memory seems too small
    #[arg(long)]
    pub(crate) no_memory_check: bool,
}

/// How tokens are drawn. Defaults are the model's generation_config.json, as in transformers; --temperature, --top-k,
/// --top-p and --min-p turn sampling on.
#[derive(Debug, Args)]
pub(crate) struct SamplingArgs {
    /// Most tokens to generate
    #[arg(long, value_name = "N")]
    pub(crate) max_new_tokens: Option<usize>,
    /// Divides the logits; 0 means greedy
    #[arg(long, value_name = "T")]
    pub(crate) temperature: Option<f64>,
    /// Keep only the K most likely tokens
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<usize>,
    /// Keep the most likely tokens that together have probability P
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f64>,
    /// Keep tokens at least P times as likely as the most likely one
    #[arg(long, value_name = "P")]
    pub(crate) min_p: Option<f64>,
    /// Divides the scores of tokens already seen (1: off)
    #[arg(long, value_name = "X")]
    pub(crate) repetition_penalty: Option<f64>,
    /// Stop at this text (may be given several times)
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) stop: Vec<String>,
    /// Seed of the drawing
    #[arg(long, default_value_t = 42, value_name = "N")]
    pub(crate) seed: u64,
    /// Always take the most likely token
    #[arg(long, conflicts_with_all = ["do_sample", "temperature", "top_k", "top_p", "min_p"])]
    pub(crate) greedy: bool,
    /// Draw tokens at random even if the model's default is greedy
    #[arg(long)]
    pub(crate) do_sample: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    /// System message
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("input").required(true).args(["prompt", "messages"]))]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    /// Text to continue, as it is (`-`: standard input)
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// JSON file with a list of messages to answer, or an object with `messages` and `tools` (`-`: standard input)
    #[arg(long, value_name = "FILE")]
    pub(crate) messages: Option<PathBuf>,
    /// Print one JSON object with text, token ids and timing instead of the text
    #[arg(long)]
    pub(crate) json: bool,
}

/// `--base`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BaseWeights {
    Original,
    Dequantized,
}

#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// The base model: directory, .gguf file or hub id
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// Directory of a LoRA adapter in PEFT's format
    #[arg(value_name = "ADAPTER")]
    pub(crate) adapter: PathBuf,
    /// Where to write the merged model
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Branch, tag or commit of a hub id
    #[arg(long, default_value = "main", value_name = "NAME")]
    pub(crate) revision: String,
    /// Number format: auto (as the base is stored; bfloat16 where that is quantised), float32, bfloat16 or float16
    #[arg(long, default_value = "auto", value_name = "NAME")]
    #[arg(value_parser = ["auto", "float32", "bfloat16", "float16"])]
    pub(crate) dtype: String,
    /// Base weights: original (as they are; the default) or dequantized (rounded as the adapter's run with
    /// load_in_4bit or load_in_8bit saw them; the default where MODEL is stored in few bits)
    #[arg(long, value_name = "NAME")]
    pub(crate) base: Option<BaseWeights>,
    /// Largest file of weights
    #[arg(long, default_value = "50GB", value_name = "SIZE")]
    pub(crate) max_shard_size: String,
    /// Replace what is in DIR
    #[arg(long)]
    pub(crate) force: bool,
    /// Do not compare predictions with those of the adapter
    #[arg(long)]
    pub(crate) no_check: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The model: directory, .gguf file or hub id
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// What to write
    #[arg(long, value_name = "FORMAT", value_parser = ["gguf", "ollama", "safetensors"])]
    #[arg(required_unless_present = "target")]
    pub(crate) to: Option<String>,
    /// Number format. GGUF: f32, f16, bf16, q8_0, q6_k, q5_k_m, q5_k_s, q4_k_m, q4_k_s, q3_k_l, q3_k_m, q3_k_s, q2_k,
    /// q5_1, q5_0, q4_1, q4_0 [default: q4_k_m]; safetensors: f32, f16, bf16, fp8, and as bitsandbytes nf4, nf4_double,
    /// int8 [default: as stored]
    #[arg(long, value_name = "NAME")]
    pub(crate) quant: Option<String>,
    /// Name what a program would refuse; without --to nothing is written
    #[arg(long, value_name = "PROGRAM", value_parser = ["vllm"])]
    pub(crate) target: Option<String>,
    /// Where to write [default: a name made of the model's and the number format, in the working directory]
    #[arg(long, short, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// Branch, tag or commit of a hub id
    #[arg(long, default_value = "main", value_name = "NAME")]
    pub(crate) revision: String,
    /// Largest file of safetensors weights
    #[arg(long, default_value = "50GB", value_name = "SIZE")]
    pub(crate) max_shard_size: String,
    /// Replace what is there
    #[arg(long)]
    pub(crate) force: bool,
    /// Do not read back and compare
    #[arg(long)]
    pub(crate) no_check: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_count(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(0) | Err(_) => Err("must be a whole number, 1 or more".into()),
        Ok(count) => Ok(count),
    }
}

impl TrainArgs {
    /// `--resume a.b=1` was meant as `--resume` and an override: a value that looks like an override is one, and one
    /// that looks like a configuration is one where the configuration's place is taken by an override.
    pub(crate) fn untangled(mut self) -> Self {
        let is_override =
            |v: &str| v.split_once('=').is_some_and(|(key, _)| key.contains('.') && !key.contains('/'));
        if let Some(value) = self.resume.take_if(|v| is_override(v)) {
            self.config.overrides.insert(0, value);
            self.resume = Some("latest".into());
        }
        // `train --resume b.yaml a.b=1`: the file was meant as the configuration.
        let is_config = |v: &str| [".yaml", ".yml"].iter().any(|end| v.to_ascii_lowercase().ends_with(end));
        let first = self.config.config.to_str().filter(|word| word.contains('=')).map(str::to_owned);
        if let Some((config, first)) = self.resume.clone().filter(|v| is_config(v)).zip(first) {
            self.config.overrides.insert(0, first);
            self.config.config = config.into();
            self.resume = Some("latest".into());
        }
        self
    }
}
