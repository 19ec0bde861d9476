//! What the user asks of LoRA, under the names of PEFT 0.21's `LoraConfig`.

use super::InitLora;
use crate::ModelError;
use fancy_regex::Regex;
use indexmap::IndexMap;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Settings of a LoRA adapter; names and defaults are those of PEFT 0.21 (`tuners/lora/config.py`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraSpec {
    /// Rank of the update.
    pub r: usize,
    /// The update is multiplied by `lora_alpha / r`.
    pub lora_alpha: f64,
    /// Probability of dropping an input of the branch, in training.
    pub lora_dropout: f64,
    /// Which linear layers are adapted; `None`: the family's default.
    pub target_modules: Option<TargetModules>,
    /// Modules that are not adapted although they are targeted.
    pub exclude_modules: Option<TargetModules>,
    /// Modules that are trained in full and saved with the adapter, by the ending of their name.
    pub modules_to_save: Option<Vec<String>>,
    /// The update is multiplied by `lora_alpha / √r` instead (Kalajdzievski 2023).
    pub use_rslora: bool,
    /// Which biases are trained.
    pub bias: Bias,
    /// How a new adapter begins.
    pub init_lora_weights: InitLora,
    /// Outputs get a trained magnitude, and the adapter changes their direction only (DoRA, Liu et al. 2024).
    pub use_dora: bool,
    /// B has a trained bias.
    pub lora_bias: bool,
    /// Ranks of single modules: a pattern that the end of a module's name must match, after a dot or from its start;
    /// the first that does counts.
    pub rank_pattern: IndexMap<String, usize>,
    /// `lora_alpha` of single modules, by the same rule.
    pub alpha_pattern: IndexMap<String, f64>,
    /// Rows of the embedding that are trained; the others stay.
    #[serde(deserialize_with = "token_indices")]
    pub trainable_token_indices: Option<Vec<u32>>,
    /// Only modules of these layers are adapted.
    #[serde(deserialize_with = "one_or_many")]
    pub layers_to_transform: Option<Vec<usize>>,
    /// Name of the list of layers, where it is not the obvious one.
    #[serde(deserialize_with = "one_or_many")]
    pub layers_pattern: Option<Vec<String>>,
}

/// PEFT takes a list for the embedding, or lists by module.
fn token_indices<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u32>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        List(Vec<u32>),
        ByModule(IndexMap<String, Vec<u32>>),
    }
    let expected = "`trainable_token_indices` must be a list of token ids (or embed_tokens with such a list)";
    let written = Option::<Written>::deserialize(deserializer).map_err(|_| D::Error::custom(expected))?;
    match written {
        None => Ok(None),
        Some(Written::List(indices)) => Ok(Some(indices)),
        Some(Written::ByModule(mut modules)) => match (modules.len(), modules.shift_remove("embed_tokens")) {
            (1, Some(indices)) => Ok(Some(indices)),
            _ => Err(D::Error::custom(expected)),
        },
    }
}

/// PEFT takes a single value for a list of one.
fn one_or_many<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written<T> {
        Many(Vec<T>),
        One(T),
    }
    Ok(Option::<Written<T>>::deserialize(deserializer)?.map(|written| match written {
        Written::One(value) => vec![value],
        Written::Many(values) => values,
    }))
}

/// Which biases are trained with the adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bias {
    /// None of them.
    #[default]
    None,
    /// All of them.
    All,
    /// Those of adapted layers.
    LoraOnly,
}

/// How modules are chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetModules {
    /// `all-linear`: every linear layer except the head.
    AllLinear,
    /// Names, or endings of names after a dot.
    List(Vec<String>),
    /// A regular expression that the whole name must match.
    Regex(String),
}

impl Default for LoraSpec {
    fn default() -> Self {
        Self {
            r: 8,
            lora_alpha: 8.0,
            lora_dropout: 0.0,
            target_modules: None,
            exclude_modules: None,
            modules_to_save: None,
            use_rslora: false,
            bias: Bias::None,
            init_lora_weights: InitLora::Default,
            use_dora: false,
            lora_bias: false,
            rank_pattern: IndexMap::new(),
            alpha_pattern: IndexMap::new(),
            trainable_token_indices: None,
            layers_to_transform: None,
            layers_pattern: None,
        }
    }
}

impl LoraSpec {
    /// Rank of a module's branch, by its full name.
    pub fn rank_of(&self, module: &str) -> usize {
        self.rank_pattern.get(pattern_key(self.rank_pattern.keys(), module)).copied().unwrap_or(self.r)
    }

    /// Factor on a module's branch: `lora_alpha / r`, or `lora_alpha / √r` with rsLoRA.
    pub fn scale_of(&self, module: &str) -> f32 {
        let r = self.rank_of(module) as f64;
        let alpha = self.alpha_pattern.get(pattern_key(self.alpha_pattern.keys(), module));
        let alpha = alpha.copied().unwrap_or(self.lora_alpha);
        (alpha / if self.use_rslora { r.sqrt() } else { r }) as f32
    }

    /// The settings of the plain adapter of twice the rank that says the same as one whose initialisation changed the
    /// base (PEFT 0.21 `save_pretrained` with `path_initial_model_for_weight_conversion`).
    pub fn converted(&self) -> Self {
        if !self.init_lora_weights.changes_base() {
            return self.clone();
        }
        let alpha = if self.use_rslora { 2f64.sqrt() } else { 2.0 };
        Self {
            r: 2 * self.r,
            lora_alpha: alpha * self.lora_alpha,
            rank_pattern: self.rank_pattern.iter().map(|(key, r)| (key.clone(), 2 * r)).collect(),
            alpha_pattern: self.alpha_pattern.iter().map(|(key, a)| (key.clone(), alpha * a)).collect(),
            init_lora_weights: InitLora::Default,
            ..self.clone()
        }
    }

    /// Refuses values that no adapter can have and features that are not computed here.
    ///
    /// # Errors
    /// [`ModelError::Lora`] names the key, the value and the way out.
    pub fn check(&self) -> Result<(), ModelError> {
        let error = |what: String, remedy: &str| Err(ModelError::Lora { what, remedy: remedy.into() });
        if self.r == 0 || self.r > 1 << 16 {
            return error(format!("`r` is {}", self.r), "choose a rank from 1 to 65536, for example 16");
        }
        if !self.lora_alpha.is_finite() {
            return error(format!("`lora_alpha` is {}", self.lora_alpha), "choose a number, for example 2·r");
        }
        // Dropout computes in f32, where 0.99999999 is 1.
        if !(0.0..1.0).contains(&(self.lora_dropout as f32)) {
            let what = format!("`lora_dropout` is {}", self.lora_dropout);
            return error(what, "choose a probability from 0 to below 1");
        }
        self.check_patterns()?;
        self.check_combinations()?;
        if self.exclude_modules == Some(TargetModules::AllLinear) {
            return error(
                "`exclude_modules: all-linear` excludes everything".into(),
                "list the modules to leave out",
            );
        }
        Ok(())
    }

    fn check_patterns(&self) -> Result<(), ModelError> {
        let error = |what: String, remedy: &str| Err(ModelError::Lora { what, remedy: remedy.into() });
        for (key, r) in &self.rank_pattern {
            if *r == 0 || *r > 1 << 16 {
                return error(format!("`rank_pattern.{key}` is {r}"), "choose a rank from 1 to 65536");
            }
        }
        for (key, alpha) in &self.alpha_pattern {
            if !alpha.is_finite() {
                return error(format!("`alpha_pattern.{key}` is {alpha}"), "choose a number");
            }
        }
        let ranks = self.rank_pattern.keys().map(|key| ("rank_pattern", key));
        for (name, key) in ranks.chain(self.alpha_pattern.keys().map(|key| ("alpha_pattern", key))) {
            if let Err(problem) = compile_pattern(key) {
                let what =
                    format!("`{name}` has the key `{key}`, which is not a regular expression ({problem})");
                return error(what, "correct it, or write the end of a module's name such as q_proj");
            }
        }
        Ok(())
    }

    fn check_combinations(&self) -> Result<(), ModelError> {
        let error =
            |what: &str, remedy: &str| Err(ModelError::Lora { what: what.into(), remedy: remedy.into() });
        if self.lora_bias && self.use_dora {
            return error("`lora_bias` and `use_dora` exclude each other", "keep one of them");
        }
        if self.lora_bias && !matches!(self.init_lora_weights, InitLora::Default | InitLora::Random) {
            return error("`lora_bias` needs `init_lora_weights` true or false", "remove one of the two");
        }
        if let Some(indices) = &self.trainable_token_indices {
            let mut sorted = indices.clone();
            sorted.sort_unstable();
            sorted.dedup();
            if sorted.is_empty() || sorted.len() != indices.len() {
                return error(
                    "`trainable_token_indices` is empty or names a token twice",
                    "name each token once, or remove the key",
                );
            }
        }
        match (&self.layers_to_transform, &self.layers_pattern) {
            (None, Some(_)) => error("`layers_pattern` needs `layers_to_transform`", "give both or neither"),
            (Some(layers), _) if layers.is_empty() => {
                error("`layers_to_transform` is an empty list", "name layers, or remove it for all of them")
            }
            (Some(_), _) if matches!(self.target_modules, Some(TargetModules::Regex(_))) => error(
                "`layers_to_transform` and a regular expression in `target_modules` exclude each other",
                "put the layers into the expression, or list the modules' names",
            ),
            _ => Ok(()),
        }
    }
}

/// The first pattern that the end of a module's name matches, after a dot or from its start: PEFT 0.21
/// `get_pattern_key`, `re.match(rf"(.*\.)?({key})$", module)`; else the name itself.
fn pattern_key<'a>(keys: impl Iterator<Item = &'a String>, module: &'a str) -> &'a str {
    keys.map(String::as_str)
        .find(|key| compile_pattern(key).is_ok_and(|regex| regex.is_match(module).unwrap_or(false)))
        .unwrap_or(module)
}

fn compile_pattern(key: &str) -> Result<Regex, Box<fancy_regex::Error>> {
    Regex::new(&format!(r"\A(.*\.)?({key})\z")).map_err(Box::new)
}

impl Serialize for TargetModules {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            TargetModules::AllLinear => serializer.serialize_str("all-linear"),
            TargetModules::Regex(pattern) => serializer.serialize_str(pattern),
            TargetModules::List(names) => names.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for TargetModules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            List(Vec<String>),
        }
        let written = Written::deserialize(deserializer).map_err(|_| {
            D::Error::custom("expected `all-linear`, a regular expression, or a list of module names")
        })?;
        match written {
            Written::Text(text) if text.eq_ignore_ascii_case("all-linear") => Ok(TargetModules::AllLinear),
            Written::Text(text) => Ok(TargetModules::Regex(text)),
            Written::List(names) => Ok(TargetModules::List(names)),
        }
    }
}
