//! What the user asks of LoRA, under the names of PEFT 0.21's `LoraConfig`.

use crate::ModelError;
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
    /// `true`: A as `nn.Linear` draws it, B zero. `false`: both as `nn.Linear` draws them.
    pub init_lora_weights: bool,
}

/// Which biases are trained with the adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bias {
    /// None of them.
    #[default]
    None,
    /// All of them; refused by [`LoraSpec::check`].
    All,
    /// Those of adapted layers; refused by [`LoraSpec::check`].
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
            init_lora_weights: true,
        }
    }
}

impl LoraSpec {
    /// Factor on the branch: `lora_alpha / r`, or `lora_alpha / √r` with rsLoRA.
    pub fn scale(&self) -> f32 {
        let r = self.r as f64;
        (self.lora_alpha / if self.use_rslora { r.sqrt() } else { r }) as f32
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
        if self.bias != Bias::None {
            let what = "training biases (`bias: all` or `lora_only`) is not supported".into();
            return error(what, "set `bias: none`, or name the modules in `modules_to_save`");
        }
        if self.exclude_modules == Some(TargetModules::AllLinear) {
            return error(
                "`exclude_modules: all-linear` excludes everything".into(),
                "list the modules to leave out",
            );
        }
        Ok(())
    }
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
