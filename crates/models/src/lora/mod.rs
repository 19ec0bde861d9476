//! Low-rank adapters (Hu et al. 2021): `y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ`, in PEFT 0.21's words and files.

mod adapter_config;
mod adapter_files;
mod adapter_tensors;
mod branch;
mod combine;
mod combined;
mod decomposition;
mod dora;
mod init;
mod initialization;
mod merge;
mod spec;
mod target;
mod token_rows;

pub(crate) use adapter_tensors::AdapterTensors;
pub(crate) use branch::{Branch, BranchScratch};
pub use combine::{Combination, CombineOptions, MajoritySign};
pub use combined::CombinedAdapter;
pub(crate) use dora::Dora;
pub use initialization::InitLora;
pub use merge::MergedWeights;
pub use spec::{Bias, LoraSpec, TargetModules};
pub(crate) use target::{Role, Roles, roles};
pub(crate) use token_rows::TokenRows;
