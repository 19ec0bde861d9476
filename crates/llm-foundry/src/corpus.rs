//! The data of a run: training rows, evaluation rows, and how many of them the model sees at once.

use crate::config::Config;
use crate::data_files::expand;
use crate::failure::{Failure, Outcome};
use foundry_data::{DataSpec, Dataset, Holdout, PackedRow, load, load_with_holdout};
use foundry_formats::Tokenizer;
use std::path::PathBuf;

/// Loaded data.
pub(crate) struct Corpus {
    pub(crate) train: Dataset,
    pub(crate) eval: Option<Dataset>,
}

/// The files that a configuration names, all of which exist.
pub(crate) struct CorpusFiles {
    train: Vec<PathBuf>,
    eval: Vec<PathBuf>,
}

impl CorpusFiles {
    /// Finds them.
    pub(crate) fn find(config: &Config) -> Outcome<Self> {
        let train = expand("data.train", &config.data.train.0)?;
        let eval = expand("data.eval", &config.data.eval.0)?;
        Ok(Self { train, eval })
    }

    /// Reads, tokenises and packs them.
    pub(crate) fn load(
        self,
        config: &Config,
        tokenizer: &Tokenizer,
        eos_token_ids: Vec<u32>,
        threads: usize,
    ) -> Outcome<Corpus> {
        let data = &config.data;
        let spec = data.spec(self.train, config.training.seed, eos_token_ids, threads);
        if data.eval_fraction > 0.0 {
            let holdout = Holdout::Fraction(data.eval_fraction);
            let (train, eval) = load_with_holdout(&spec, tokenizer, holdout).map_err(Failure::input)?;
            return Ok(Corpus { train, eval: Some(eval) });
        }
        let eval_spec: DataSpec = data.eval_spec(&spec, self.eval);
        let train = load(&spec, tokenizer).map_err(Failure::input)?;
        let eval = match eval_spec.files.is_empty() {
            true => None,
            false => Some(load(&eval_spec, tokenizer).map_err(Failure::input)?),
        };
        Ok(Corpus { train, eval })
    }
}

impl Corpus {
    /// The most tokens that a micro-batch of `batch_size` rows can have, whatever the order of the rows.
    pub(crate) fn longest_batch(&self, batch_size: usize) -> usize {
        longest(&self.train.rows, batch_size)
    }

    /// The longest row of the evaluation data.
    pub(crate) fn longest_eval_row(&self) -> usize {
        self.eval.as_ref().map_or(0, |eval| longest(&eval.rows, 1))
    }

    /// Bytes of the rows in memory: a token id and a label for each token.
    pub(crate) fn bytes(&self) -> u64 {
        let tokens = |data: &Dataset| data.report.tokens as u64;
        8 * (tokens(&self.train) + self.eval.as_ref().map_or(0, tokens))
    }
}

fn longest(rows: &[PackedRow], batch_size: usize) -> usize {
    let mut lengths: Vec<usize> = rows.iter().map(|row| row.tokens.len()).collect();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    lengths.into_iter().take(batch_size).sum()
}
