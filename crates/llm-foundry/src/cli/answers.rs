//! `chat`, `generate` and `serve`: a model, and how it draws tokens.

use super::adapters::{WeightedAdapter, parse_adapter};
use super::parse_count;
use clap::Args;
use std::path::PathBuf;

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
#[command(after_help = "Examples:\n  \
    llm-foundry chat HuggingFaceTB/SmolLM2-135M-Instruct\n  \
    llm-foundry chat HuggingFaceTB/SmolLM2-135M-Instruct --adapter runs/mine --greedy\n  \
    echo 'Who are you?' | llm-foundry chat HuggingFaceTB/SmolLM2-135M-Instruct --max-new-tokens 8")]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    /// System message
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
}

#[cfg(feature = "serve")]
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    llm-foundry serve HuggingFaceTB/SmolLM2-135M-Instruct --name mine\n  \
    FOUNDRY_API_KEY=secret llm-foundry serve HuggingFaceTB/SmolLM2-135M-Instruct --host 0.0.0.0")]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Address to listen on; other than this machine's own needs a key
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub(crate) host: String,
    /// Port to listen on (0: any free one)
    #[arg(long, default_value_t = 8000, value_name = "N")]
    pub(crate) port: u16,
    /// Key that clients must send (better in the environment variable FOUNDRY_API_KEY, which others cannot see)
    #[arg(long, env = "FOUNDRY_API_KEY", hide_env = true, value_name = "KEY")]
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) api_key: Option<String>,
    /// Another name that clients may call the model by (may be given several times)
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) name: Vec<String>,
    /// Texts that are generated at once
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = parse_count)]
    pub(crate) max_running: usize,
    /// Texts that are generated or wait; requests beyond are refused with status 429
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = parse_count)]
    pub(crate) max_open: usize,
    /// Bytes of a request
    #[arg(long, default_value_t = 1 << 20, value_name = "BYTES", value_parser = parse_count)]
    pub(crate) max_body: usize,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("input").required(true).args(["prompt", "messages", "prompts"]))]
#[command(after_help = "Examples:\n  \
    llm-foundry generate HuggingFaceTB/SmolLM2-135M-Instruct -p 'The cat' --max-new-tokens 8\n  \
    llm-foundry generate HuggingFaceTB/SmolLM2-135M-Instruct --messages messages.json --json\n  \
    llm-foundry generate HuggingFaceTB/SmolLM2-135M-Instruct --prompts prompts.jsonl --greedy")]
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
    /// JSONL file whose lines each have a `prompt` to continue, or `messages` (and `tools`) to answer (`-`: standard
    /// input). Every line is printed with its `answer`, in the order of the file; line N draws with seed + N - 1
    #[arg(long, value_name = "FILE")]
    pub(crate) prompts: Option<PathBuf>,
    /// Answers that are generated at once, with --prompts
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = parse_count, requires = "prompts")]
    pub(crate) batch_size: usize,
    /// Print one JSON object with text, token ids and timing instead of the text; with --prompts: ids on each line
    #[arg(long)]
    pub(crate) json: bool,
}
