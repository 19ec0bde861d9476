//! What to load and how: the `data` section of a run, under Hugging Face's names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::filter::TextFilter;
use crate::source::DataFile;

/// The shape of the rows of a data set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FormatHint {
    /// Found out from the keys of the first row of each file; every later row must have the same shape.
    #[default]
    Auto,
    /// `{"messages": [{"role", "content"}, …], "tools"?: […]}`; the key `conversations` is accepted too.
    Messages,
    /// `{"prompt", "completion"}`, both texts or both lists of messages.
    PromptCompletion,
    /// `{"instruction", "input"?, "output", "system"?, "history"?}`.
    Alpaca,
    /// `{"conversations": [{"from", "value"}, …], "system"?, "tools"?}`.
    #[serde(rename = "sharegpt")]
    ShareGpt,
    /// Plain text: `.txt` files, or rows with the text field.
    Text,
}

/// How tokenised examples become rows (TRL's `packing_strategy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackingStrategy {
    /// Best fit decreasing; examples longer than `max_length` are truncated.
    #[default]
    Bfd,
    /// Best fit decreasing; longer examples are split into pieces of `max_length`.
    BfdSplit,
    /// All tokens end to end, cut every `max_length`; examples in one row see each other.
    Wrapped,
}

/// What one example of a `.txt` file is (datasets' `sample_by`, whose default is `line`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SampleBy {
    /// The whole file.
    #[default]
    Document,
    /// Stretches between blank lines.
    Paragraph,
    /// Each line.
    Line,
}

/// One of several sources that make up a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Its files, in this order.
    pub files: Vec<DataFile>,
    /// Shape of its rows.
    pub format: FormatHint,
    /// The key of plain text in its rows.
    pub text_field: String,
    /// Keys that rows should have → columns that hold their values.
    pub columns: BTreeMap<String, String>,
    /// Rows to leave out at the start.
    pub skip: u64,
    /// The most rows to use.
    pub take: Option<u64>,
    /// The part of the rows to use, drawn by `seed` and the row's number: the same rows in every pass.
    pub fraction: Option<f64>,
    /// How likely the next row is one of this source; all sources of a data set have one, or none has.
    pub probability: Option<f64>,
    /// Settings that were given for this source or for all, under the names of the configuration, even where they are
    /// defaults: what was asked for must be what token files were made with.
    pub given: BTreeSet<String>,
}

impl Default for Source {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            format: FormatHint::Auto,
            text_field: "text".to_owned(),
            columns: BTreeMap::new(),
            skip: 0,
            take: None,
            fraction: None,
            probability: None,
            given: BTreeSet::new(),
        }
    }
}

/// When the mixture of sources with probabilities ends (datasets' `interleave_datasets`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoppingStrategy {
    /// As soon as one source is used up.
    #[default]
    FirstExhausted,
    /// When every source has been used up once; those that end earlier begin again.
    AllExhausted,
    /// When every row of every source has been used; those that end earlier stay out.
    AllExhaustedWithoutReplacement,
}

/// What happens with a row that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// It is an error.
    #[default]
    Fail,
    /// It is left out and counted.
    Skip,
}

/// A check of training rows against texts that they must not contain.
#[derive(Clone, Debug, PartialEq)]
pub struct Decontamination {
    /// Files with the texts (evaluation sets); every text in their rows counts.
    pub files: Vec<DataFile>,
    /// Words in a row that must be equal; 13 in Brown et al., "Language Models are Few-Shot Learners" (2020).
    pub ngram: usize,
    /// Leave such rows out; otherwise they are only counted.
    pub drop: bool,
}

/// Which turns of a conversation are learned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainOn {
    /// The assistant's last turn.
    Last,
    /// All turns of the assistant.
    All,
    /// All turns of these roles.
    #[serde(untagged)]
    Roles(Vec<String>),
}

/// How many rows a conversation with several turns of the assistant makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MultiTurn {
    /// One, as in TRL.
    #[default]
    Whole,
    /// One for each learned turn, in which it comes last and only it is learned: what the model sees when it answers.
    Split,
    /// `split` for conversations whose earlier turns the template renders differently once later ones follow (as
    /// templates with thoughts do), `whole` for all others.
    Auto,
    /// One; conversations that `auto` would split are an error.
    Refuse,
}

/// Everything [`crate::load`] needs to know. [`DataSpec::default`] has TRL's defaults and no files.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSpec {
    /// Files to read, in this order, as one source of the shape `format`.
    pub files: Vec<PathBuf>,
    /// Several sources in place of `files` (which is then empty).
    pub sources: Vec<Source>,
    /// When a mixture of sources ends.
    pub stopping_strategy: StoppingStrategy,
    /// What happens with rows that cannot be used.
    pub on_error: OnError,
    /// Leave out rows by their text.
    pub filter: TextFilter,
    /// Leave out rows whose texts are those of an earlier one.
    pub deduplicate: bool,
    /// Look for evaluation texts in the rows.
    pub decontaminate: Option<Decontamination>,
    /// Shape of the rows.
    pub format: FormatHint,
    /// The key of plain text in JSON rows (TRL's `dataset_text_field`).
    pub text_field: String,
    /// What one example of a `.txt` file is.
    pub sample_by: SampleBy,
    /// Truncation of examples, or the length of packed rows; in tokens.
    pub max_length: Option<usize>,
    /// Pack several examples into one row.
    pub packing: bool,
    /// How to pack.
    pub packing_strategy: PackingStrategy,
    /// Loss on the completion only; `None`: yes for prompt/completion and Alpaca data, no otherwise.
    pub completion_only_loss: Option<bool>,
    /// Loss on the assistant's turns only (conversations).
    pub assistant_only_loss: bool,
    /// Which turns are learned (conversations); `None`: what the two settings above say.
    pub train_on: Option<TrainOn>,
    /// How many rows a conversation makes.
    pub multi_turn: MultiTurn,
    /// Take masked turns that end with no special token, from which the model may not learn to stop.
    pub allow_missing_eos: bool,
    /// Shuffle the examples before packing and the rows after it, by `seed`.
    pub shuffle_dataset: bool,
    /// Seed of `shuffle_dataset`.
    pub seed: u64,
    /// End plain texts and text completions with the EOS token; chat templates end turns themselves.
    pub append_eos: bool,
    /// Ids that end generation besides the tokenizer's EOS (generation_config.json); only for the report.
    pub eos_token_ids: Vec<u32>,
    /// A Jinja template to use in place of the tokenizer's own.
    pub chat_template: Option<String>,
    /// The moment that `strftime_now` in templates tells, in seconds since 1970; `None`: now.
    pub rendered_at: Option<i64>,
    /// Extra variables of the chat template (`enable_thinking`, …); a row's own `chat_template_kwargs` win.
    pub chat_template_kwargs: Map<String, Value>,
    /// Tokenising threads; `None`: one per core. The result does not depend on it.
    pub dataset_num_proc: Option<usize>,
}

impl Default for DataSpec {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            sources: Vec::new(),
            stopping_strategy: StoppingStrategy::FirstExhausted,
            on_error: OnError::Fail,
            filter: TextFilter::default(),
            deduplicate: false,
            decontaminate: None,
            format: FormatHint::Auto,
            text_field: "text".to_owned(),
            sample_by: SampleBy::Document,
            max_length: Some(1024),
            packing: false,
            packing_strategy: PackingStrategy::Bfd,
            completion_only_loss: None,
            assistant_only_loss: false,
            train_on: None,
            multi_turn: MultiTurn::Whole,
            allow_missing_eos: false,
            shuffle_dataset: false,
            seed: 42,
            append_eos: true,
            eos_token_ids: Vec::new(),
            chat_template: None,
            rendered_at: None,
            chat_template_kwargs: Map::new(),
            dataset_num_proc: None,
        }
    }
}

impl DataSpec {
    /// Whether sources are mixed by probabilities, so that rows may come again and rows of one example apart.
    pub(crate) fn is_mixed(&self) -> bool {
        self.sources.iter().any(|source| source.probability.is_some())
    }

    /// The sources, `files` being one.
    pub fn all_sources(&self) -> Vec<Source> {
        if self.files.is_empty() {
            return self.sources.clone();
        }
        vec![Source {
            files: self.files.iter().map(DataFile::local).collect(),
            format: self.format,
            text_field: self.text_field.clone(),
            ..Source::default()
        }]
    }
}

/// How much of the data is held out for evaluation (datasets' `train_test_split(test_size, seed)`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Holdout {
    /// So many examples.
    Examples(usize),
    /// This part of all examples, rounded up; above 0 and below 1.
    Fraction(f64),
}

impl Holdout {
    /// Examples held out of `examples`; `None` when one side would be empty.
    pub fn count(self, examples: usize) -> Option<usize> {
        let count = match self {
            Holdout::Examples(n) => n,
            Holdout::Fraction(part) if part > 0.0 && part < 1.0 => (part * examples as f64).ceil() as usize,
            Holdout::Fraction(_) => return None,
        };
        (count > 0 && count < examples).then_some(count)
    }
}

impl std::fmt::Display for Holdout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Holdout::Examples(n) => write!(f, "{n} example(s)"),
            Holdout::Fraction(part) => write!(f, "{part} of the examples"),
        }
    }
}
