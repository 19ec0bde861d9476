//! `merge`, `export`, `push` and `report`: what becomes of a trained model, and of its run.

use clap::Args;
use std::path::PathBuf;

/// `--base`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BaseWeights {
    Original,
    Dequantized,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    llm-foundry merge HuggingFaceTB/SmolLM2-135M-Instruct runs/mine -o runs/merged")]
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
#[command(after_help = "Examples:\n  \
    llm-foundry export runs/merged --to gguf --quant q8_0 -o mine.gguf\n  \
    llm-foundry export runs/merged --target vllm")]
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

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    llm-foundry push runs/mine me/my-adapter --private --dry-run")]
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
#[command(after_help = "Examples:\n  \
    llm-foundry report runs/mine\n  \
    llm-foundry report runs/mine runs/other -o comparison.html")]
pub(crate) struct RunReportArgs {
    /// Output directories of runs, or of sweeps: all runs of it
    #[arg(value_name = "RUN", required = true)]
    pub(crate) runs: Vec<PathBuf>,
    /// Where to write the page [default: report.html in the directory of RUN, or here if there are several]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}
