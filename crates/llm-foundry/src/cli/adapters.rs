//! `adapters`, and how adapters are named with a weight.

use super::parse_count;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// What is done with adapters.
#[derive(Debug, Subcommand)]
pub(crate) enum AdaptersCommand {
    /// Combine adapters of one base model into one (PEFT's add_weighted_adapter)
    Merge(MergeAdaptersArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    llm-foundry adapters merge runs/mine:0.7 runs/other:0.3 --method svd -o runs/both")]
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
pub(super) fn parse_adapter(text: &str) -> Result<WeightedAdapter, String> {
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
