//! Section `card`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Section `card`: what the model card (README.md beside the result) says besides what is known anyway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CardSection {
    /// The hub's name of the result's licence, such as `apache-2.0`. Default: that of the base model, where
    /// its files say it.
    pub(crate) license: Option<String>,
    /// Languages, as two letters: `[en, de]`. Default: none.
    pub(crate) language: Vec<String>,
    /// Further tags. Default: none.
    pub(crate) tags: Vec<String>,
}
