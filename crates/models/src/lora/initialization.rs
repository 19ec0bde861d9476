//! `init_lora_weights` and the per-module patterns of PEFT 0.21's `LoraConfig`.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// How a new adapter begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitLora {
    /// `true`: A as `nn.Linear` draws it, B zero.
    #[default]
    Default,
    /// `false`: A and B both as `nn.Linear` draws them. The adapter acts from the start; for tests.
    Random,
    /// `gaussian`: A from N(0, 1/r²), B zero.
    Gaussian,
    /// `pissa`: the `r` largest singular triplets of W move into the adapter (Meng et al. 2024).
    Pissa,
    /// `pissa_niter_N`: the same, approximated by N rounds of subspace iteration (Halko et al. 2011).
    PissaIterations(u32),
    /// `olora`: the first `r` columns of Q and rows of R, of `W = Q·R` (Büyükakyüz 2024).
    Olora,
}

impl InitLora {
    /// The base weights change: `s·B·A` is taken out of W, so that nothing changes together.
    pub fn changes_base(self) -> bool {
        matches!(self, InitLora::Pissa | InitLora::PissaIterations(_) | InitLora::Olora)
    }

    fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        match lower.as_str() {
            "gaussian" => Some(InitLora::Gaussian),
            "pissa" => Some(InitLora::Pissa),
            "olora" => Some(InitLora::Olora),
            other => {
                let rounds = other.strip_prefix("pissa_niter_")?.parse().ok()?;
                (rounds <= 1000).then_some(InitLora::PissaIterations(rounds))
            }
        }
    }
}

impl fmt::Display for InitLora {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InitLora::Default => f.write_str("true"),
            InitLora::Random => f.write_str("false"),
            InitLora::Gaussian => f.write_str("gaussian"),
            InitLora::Pissa => f.write_str("pissa"),
            InitLora::PissaIterations(rounds) => write!(f, "pissa_niter_{rounds}"),
            InitLora::Olora => f.write_str("olora"),
        }
    }
}

impl Serialize for InitLora {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            InitLora::Default => serializer.serialize_bool(true),
            InitLora::Random => serializer.serialize_bool(false),
            named => serializer.collect_str(named),
        }
    }
}

impl<'de> Deserialize<'de> for InitLora {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Flag(bool),
            Name(String),
        }
        const EXPECTED: &str = "`init_lora_weights` must be true, false, gaussian, pissa, pissa_niter_N (N up to \
                                1000) or olora";
        match Written::deserialize(deserializer).map_err(|_| D::Error::custom(EXPECTED))? {
            Written::Flag(true) => Ok(InitLora::Default),
            Written::Flag(false) => Ok(InitLora::Random),
            Written::Name(name) => {
                InitLora::parse(&name).ok_or_else(|| D::Error::custom(format!("{EXPECTED}, not `{name}`")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::InitLora;

    #[test]
    fn every_kind_survives_json_and_others_are_named() {
        let all = [
            InitLora::Default,
            InitLora::Random,
            InitLora::Gaussian,
            InitLora::Pissa,
            InitLora::PissaIterations(16),
            InitLora::Olora,
        ];
        for init in all {
            let json = serde_json::to_string(&init).unwrap();
            assert_eq!(serde_json::from_str::<InitLora>(&json).unwrap(), init, "{json}");
        }
        for wrong in ["\"eva\"", "\"pissa_niter_x\"", "\"pissa_niter_5000\"", "3"] {
            let error = serde_json::from_str::<InitLora>(wrong).unwrap_err().to_string();
            assert!(error.contains("pissa_niter_N"), "{error}");
        }
    }
}
