//! Which adapters act at inference: one as it is, or several, weighted and added up.

use crate::checkpoint_dir;
use crate::cli::WeightedAdapter;
use crate::failure::{Failure, Outcome};
use foundry_kernels::Backend;
use foundry_models::{Combination, CombineOptions, CombinedAdapter, Decoder, LoraSpec, MajoritySign, Tuning};
use std::path::{Path, PathBuf};

/// What `--adapter` says, read.
pub(crate) enum AdapterChoice {
    /// None.
    Base,
    /// One, in full.
    One(PathBuf, LoraSpec),
    /// A weighted sum.
    Sum(CombinedAdapter),
}

impl AdapterChoice {
    /// Refuses damaged checkpoints: to be called before anything of them is read.
    pub(crate) fn check(adapters: &[WeightedAdapter]) -> Outcome {
        adapters.iter().try_for_each(|adapter| checkpoint_dir::check(&adapter.dir))
    }

    /// Reads the settings of one adapter, or adds up several.
    pub(crate) fn open(adapters: &[WeightedAdapter]) -> Outcome<Self> {
        match adapters {
            [] => Ok(Self::Base),
            [WeightedAdapter { dir, weight }] if *weight == 1.0 => {
                Ok(Self::One(dir.clone(), LoraSpec::from_adapter(dir).map_err(Failure::input)?))
            }
            several => {
                let sources: Vec<(PathBuf, f64)> =
                    several.iter().map(|a| (a.dir.clone(), a.weight)).collect();
                let options = CombineOptions {
                    method: Combination::Cat,
                    density: 1.0,
                    majority_sign: MajoritySign::Total,
                    svd_rank: None,
                    seed: 0,
                };
                let sum = CombinedAdapter::new(&sources, &options).map_err(Failure::input)?;
                Ok(Self::Sum(sum))
            }
        }
    }

    /// The directory, where one acts in full.
    pub(crate) fn dir(&self) -> Option<&Path> {
        match self {
            Self::One(dir, _) => Some(dir),
            Self::Base | Self::Sum(_) => None,
        }
    }

    /// What a decoder must be allocated for.
    pub(crate) fn tuning(&self) -> Tuning {
        match self {
            Self::Base => Tuning::Frozen,
            Self::One(_, spec) => Tuning::Adapted(spec.clone()),
            Self::Sum(sum) => Tuning::Adapted(sum.spec.clone()),
        }
    }

    /// Puts it on the base model.
    pub(crate) fn load(&self, decoder: &mut Decoder, backend: &dyn Backend) -> Outcome {
        match self {
            Self::Base => Ok(()),
            Self::One(dir, _) => decoder.load_adapter(backend, dir).map_err(Failure::input),
            Self::Sum(sum) => decoder.load_combined(backend, sum).map_err(Failure::input),
        }
    }
}
