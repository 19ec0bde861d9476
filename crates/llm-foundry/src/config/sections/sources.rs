//! Parts of section `data` that say where rows come from and which of them are used.

use super::data::DataFormat;
use crate::config::values::OneOrMany;
use foundry_data::Charset;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One of several sources of training rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SourceSection {
    /// Its files, as in `data.train`. Required.
    pub(crate) path: OneOrMany,
    /// Configuration, split and revision of a data set of the hub. Defaults: those of `data`.
    pub(crate) name: Option<String>,
    /// See `name`.
    pub(crate) split: Option<String>,
    /// See `name`.
    pub(crate) revision: Option<String>,
    /// Shape of its rows. Default: `data.format`.
    pub(crate) format: Option<DataFormat>,
    /// Key of the text in rows of plain text. Default: `data.text_field`.
    pub(crate) text_field: Option<String>,
    /// Which column holds what, for example `{prompt: question, completion: answer}`. Default: `data.columns`.
    pub(crate) columns: BTreeMap<String, String>,
    /// How often its rows are drawn, in relation to the other sources' weights (which all sources then need). Default:
    /// none, and the sources follow each other. datasets: `interleave_datasets(probabilities=…)`.
    pub(crate) weight: Option<f64>,
    /// Rows to leave out at the start. Default 0.
    pub(crate) skip: u64,
    /// The most rows to use. Default: all.
    pub(crate) take: Option<u64>,
    /// Part of the rows to use, above 0 and at most 1, drawn with `training.seed`. Default: all.
    pub(crate) fraction: Option<f64>,
}

/// `data.filter`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FilterSection {
    /// The fewest characters of an example (all turns of a conversation together). Default: no limit.
    pub(crate) min_chars: Option<usize>,
    /// The most characters. Default: no limit.
    pub(crate) max_chars: Option<usize>,
    /// Characters that are expected: `ascii`, or `latin` (Latin letters, and whatever is no letter). Default: all.
    pub(crate) charset: Option<CharsetKind>,
    /// The least part of the characters that must be expected ones, from 0 to 1. Default 1.
    pub(crate) min_charset_fraction: Option<f64>,
    /// Leave out examples with an answer that says nothing (empty, blank or null, without a call of a tool).
    pub(crate) drop_empty_answers: bool,
}

/// `data.filter.charset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CharsetKind {
    /// ASCII.
    Ascii,
    /// Latin letters, and whatever is no letter.
    Latin,
}

impl FilterSection {
    pub(crate) fn filter(&self) -> foundry_data::TextFilter {
        foundry_data::TextFilter {
            min_chars: self.min_chars,
            max_chars: self.max_chars,
            charset: self.charset.map(|charset| match charset {
                CharsetKind::Ascii => Charset::Ascii,
                CharsetKind::Latin => Charset::Latin,
            }),
            min_charset_fraction: self.min_charset_fraction,
            drop_empty_answers: self.drop_empty_answers,
        }
    }
}

/// `data.decontaminate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DecontaminateSection {
    /// Files with evaluation texts, as in `data.train`; every text in their rows counts. Required.
    pub(crate) path: OneOrMany,
    /// Words in a row that must be equal (lower case, without punctuation). Default 13 (GPT-3's).
    pub(crate) ngram: usize,
    /// Leave such examples out. Default false: they are only counted.
    pub(crate) drop: bool,
}

impl Default for DecontaminateSection {
    fn default() -> Self {
        Self { path: OneOrMany::default(), ngram: 13, drop: false }
    }
}

/// `data.stopping_strategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stopping {
    /// When one source is used up.
    FirstExhausted,
    /// When every source was used up once; those that end earlier begin again.
    AllExhausted,
    /// When every row of every source was used once.
    AllExhaustedWithoutReplacement,
}

/// `data.on_error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RowErrors {
    /// Stop.
    Fail,
    /// Leave the row out, count it, and tell the first ones.
    Skip,
}
