//! Section `data`.

use super::sources::{DecontaminateSection, FilterSection, RowErrors, SourceSection, Stopping};
use crate::config::values::{AutoOr, OneOrMany, TrainOnTurns};
use foundry_data::{
    DataSpec, FormatHint, MultiTurn, OnError, PackingStrategy, SampleBy, Source, StoppingStrategy,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Section `data`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DataSection {
    /// Training files: a path, a directory, a pattern with `*`, `?` or `**`, or a list of them.
    /// `.jsonl`, `.json`, `.csv`, `.tsv` and `.txt` (also with `.gz` or `.zst`), `.parquet`, `.arrow`, or a directory
    /// that `data tokenize` has written, or the id of a data set of the hub (`org/name`). Files of one pattern are read
    /// in the order of their names. Required, unless there are `sources`.
    pub(crate) train: OneOrMany,
    /// Which configuration of a data set of the hub. Default: its only or its default one. datasets: `name`, TRL:
    /// `dataset_config`.
    pub(crate) name: Option<String>,
    /// Which split of a data set of the hub is trained on. Default `train`. TRL: `dataset_train_split`.
    pub(crate) split: Option<String>,
    /// Which split of a data set of the hub `eval` and `decontaminate` mean. Default `test`. TRL: `dataset_test_split`.
    pub(crate) eval_split: Option<String>,
    /// Branch, tag or commit of a data set of the hub. Default `main`.
    pub(crate) revision: Option<String>,
    /// Several sources of training rows in place of `train`, one after the other or mixed by `weight`.
    pub(crate) sources: Vec<SourceSection>,
    /// When a mixture by `weight` ends. Default `first_exhausted`. datasets: `stopping_strategy`.
    pub(crate) stopping_strategy: Stopping,
    /// Which column holds what, for example `{prompt: question, completion: answer}`. Default: columns have the
    /// names of the shape.
    pub(crate) columns: BTreeMap<String, String>,
    /// Read rows while training instead of before it, in memory that does not grow with the data; where
    /// `training.max_steps` does not say when to end, all rows are counted before the first step. Default `auto`: when
    /// the files have more than 64 MB and are not all token files, which are read in any order without being held.
    pub(crate) streaming: AutoOr,
    /// Streamed rows leave in random order from a buffer of so many; 0: in their own order. Default 1000.
    pub(crate) shuffle_buffer: usize,
    /// What happens with a row that cannot be used. Default `fail`.
    pub(crate) on_error: RowErrors,
    /// Leave out training examples by their text. Default: none.
    pub(crate) filter: FilterSection,
    /// Leave out training examples that are equal to an earlier one (not when streaming). Default false.
    pub(crate) deduplicate: bool,
    /// Look for evaluation texts in the training examples. Default: no.
    pub(crate) decontaminate: Option<DecontaminateSection>,
    /// Evaluation files, in the same way. Default: none.
    pub(crate) eval: OneOrMany,
    /// Share of the training examples set aside for evaluation, from 0 (default) to below 1, drawn with
    /// `training.seed`. Only without `eval`. TRL: `test_split_size`.
    pub(crate) eval_fraction: f64,
    /// Shape of the examples. Default `auto`: recognised from the first example's keys.
    pub(crate) format: DataFormat,
    /// Key of the text in examples of plain text. Default `text`. TRL: `dataset_text_field`.
    pub(crate) text_field: String,
    /// What one example is in a `.txt` file. Default `document` (datasets' `sample_by` has `line`, which would end
    /// every line with an EOS token).
    pub(crate) sample_by: SampleKind,
    /// Longest example, and length of a packed row, in tokens; longer examples are cut at the end. `null`: no limit.
    /// Default 1024. TRL: `max_length`.
    pub(crate) max_length: Option<usize>,
    /// Several examples share a row of `max_length` tokens; attention never crosses from one to another. Default false.
    /// TRL: `packing`.
    pub(crate) packing: bool,
    /// How rows are packed. Default `bfd`. TRL: `packing_strategy`.
    pub(crate) packing_strategy: PackingKind,
    /// Packing of the evaluation data. Default: as `packing`. TRL: `eval_packing`.
    pub(crate) eval_packing: Option<bool>,
    /// Train on the completion only. Default: true for prompt/completion and Alpaca data, false otherwise. TRL:
    /// `completion_only_loss`.
    pub(crate) completion_only_loss: Option<bool>,
    /// Train on the assistant's turns only, with any chat template: by its `{% generation %}` tags, else by
    /// rendering the conversation turn by turn. Default false. TRL: `assistant_only_loss`.
    pub(crate) assistant_only_loss: bool,
    /// Which turns of conversations are learned: `last` (the assistant's last), `all` (all of the assistant's, as
    /// `assistant_only_loss` says), or a list of roles. A message's own `train: true | false` or `weight: 0 | 1` comes
    /// before it. Default: what `assistant_only_loss` says. Axolotl: `roles_to_train`.
    pub(crate) train_on: Option<TrainOnTurns>,
    /// How many rows a conversation makes. Default `whole`.
    pub(crate) multi_turn: MultiTurnKind,
    /// Train even if no example trains an end-of-sequence token, or masked turns end with no special token, so that the
    /// model will not learn to stop. Default false: `train` refuses such data, unless it is plain text.
    pub(crate) allow_missing_eos: bool,
    /// Shuffle the examples before packing and the rows after it. Default false (rows are drawn in random order in any
    /// case). TRL: `shuffle_dataset`.
    pub(crate) shuffle_dataset: bool,
    /// Append the EOS token to texts and completions that do not end with it (never to chats: their template says).
    /// Default true, which is what TRL always does.
    pub(crate) append_eos: bool,
    /// Further variables for the chat template, for example `{enable_thinking: false}`. Default: none. TRL:
    /// `chat_template_kwargs`.
    pub(crate) chat_template_kwargs: serde_json::Map<String, serde_json::Value>,
    /// Keys of this section that were written (`append_eos`, `sources.0.format`), whatever their values.
    #[serde(skip)]
    pub(crate) given: BTreeSet<String>,
}

impl Default for DataSection {
    fn default() -> Self {
        Self {
            train: OneOrMany::default(),
            name: None,
            split: None,
            eval_split: None,
            revision: None,
            sources: Vec::new(),
            stopping_strategy: Stopping::FirstExhausted,
            columns: BTreeMap::new(),
            streaming: AutoOr::Auto,
            shuffle_buffer: 1000,
            on_error: RowErrors::Fail,
            filter: FilterSection::default(),
            deduplicate: false,
            decontaminate: None,
            eval: OneOrMany::default(),
            eval_fraction: 0.0,
            format: DataFormat::Auto,
            text_field: "text".into(),
            sample_by: SampleKind::Document,
            max_length: Some(1024),
            packing: false,
            packing_strategy: PackingKind::Bfd,
            eval_packing: None,
            completion_only_loss: None,
            assistant_only_loss: false,
            train_on: None,
            multi_turn: MultiTurnKind::Whole,
            allow_missing_eos: false,
            shuffle_dataset: false,
            append_eos: true,
            chat_template_kwargs: serde_json::Map::new(),
            given: BTreeSet::new(),
        }
    }
}

impl DataSection {
    /// What the data crate is told about the training files.
    pub(crate) fn spec(
        &self,
        sources: Vec<Source>,
        seed: u64,
        eos_token_ids: Vec<u32>,
        threads: usize,
    ) -> DataSpec {
        DataSpec {
            sources,
            stopping_strategy: match self.stopping_strategy {
                Stopping::FirstExhausted => StoppingStrategy::FirstExhausted,
                Stopping::AllExhausted => StoppingStrategy::AllExhausted,
                Stopping::AllExhaustedWithoutReplacement => StoppingStrategy::AllExhaustedWithoutReplacement,
            },
            on_error: match self.on_error {
                RowErrors::Fail => OnError::Fail,
                RowErrors::Skip => OnError::Skip,
            },
            filter: self.filter.filter(),
            deduplicate: self.deduplicate,
            format: self.format.hint(),
            text_field: self.text_field.clone(),
            sample_by: match self.sample_by {
                SampleKind::Line => SampleBy::Line,
                SampleKind::Paragraph => SampleBy::Paragraph,
                SampleKind::Document => SampleBy::Document,
            },
            max_length: self.max_length,
            packing: self.packing,
            packing_strategy: match self.packing_strategy {
                PackingKind::Bfd => PackingStrategy::Bfd,
                PackingKind::BfdSplit => PackingStrategy::BfdSplit,
                PackingKind::Wrapped => PackingStrategy::Wrapped,
            },
            completion_only_loss: self.completion_only_loss,
            assistant_only_loss: self.assistant_only_loss,
            train_on: self.train_on.as_ref().map(|turns| turns.0.clone()),
            multi_turn: match self.multi_turn {
                MultiTurnKind::Whole => MultiTurn::Whole,
                MultiTurnKind::Split => MultiTurn::Split,
                MultiTurnKind::Auto => MultiTurn::Auto,
                MultiTurnKind::Refuse => MultiTurn::Refuse,
            },
            allow_missing_eos: self.allow_missing_eos,
            shuffle_dataset: self.shuffle_dataset,
            seed,
            append_eos: self.append_eos,
            eos_token_ids,
            // `tokenizer.chat_template` has replaced the tokenizer's own by then.
            chat_template: None,
            chat_template_kwargs: self.chat_template_kwargs.clone(),
            dataset_num_proc: Some(threads),
            ..DataSpec::default()
        }
    }

    /// The same for the evaluation files.
    pub(crate) fn eval_spec(&self, train: &DataSpec, sources: Vec<Source>) -> DataSpec {
        DataSpec {
            sources,
            // What is measured is all of it, as it is.
            filter: Default::default(),
            deduplicate: false,
            decontaminate: None,
            packing: self.eval_packing.unwrap_or(self.packing),
            shuffle_dataset: false,
            ..train.clone()
        }
    }
}

/// `data.packing_strategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PackingKind {
    /// Best fit, longest first; longer examples are cut.
    Bfd,
    /// Best fit, longest first; longer examples are split into several.
    BfdSplit,
    /// All examples in a row, cut every `max_length` tokens.
    Wrapped,
}

/// `data.multi_turn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MultiTurnKind {
    /// One row for a conversation, as in TRL.
    Whole,
    /// One row for each learned turn, in which it comes last and only it is learned.
    Split,
    /// `split` where the chat template renders earlier turns differently once later ones follow (as templates with
    /// thoughts do), `whole` elsewhere.
    Auto,
    /// As `whole`, but conversations that `auto` would split are an error.
    Refuse,
}

/// `data.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DataFormat {
    /// Recognised from the first example's keys.
    Auto,
    /// `{"text": …}`, or lines of a `.txt` file.
    Text,
    /// `{"prompt": …, "completion": …}`, texts or messages.
    PromptCompletion,
    /// `{"messages": [{"role": …, "content": …}, …]}`.
    Messages,
    /// `{"instruction": …, "input": …, "output": …}`.
    Alpaca,
    /// `{"conversations": [{"from": …, "value": …}, …]}`.
    Sharegpt,
}

impl DataFormat {
    pub(crate) fn hint(self) -> FormatHint {
        match self {
            DataFormat::Auto => FormatHint::Auto,
            DataFormat::Text => FormatHint::Text,
            DataFormat::PromptCompletion => FormatHint::PromptCompletion,
            DataFormat::Messages => FormatHint::Messages,
            DataFormat::Alpaca => FormatHint::Alpaca,
            DataFormat::Sharegpt => FormatHint::ShareGpt,
        }
    }
}

/// `data.sample_by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SampleKind {
    /// Each line is an example.
    Line,
    /// Paragraphs, separated by empty lines.
    Paragraph,
    /// The whole file.
    Document,
}
