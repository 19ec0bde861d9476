//! Low-rank adapters (Hu et al. 2021): `y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ`, in PEFT 0.21's words and files.

mod adapter_config;
mod adapter_files;
mod init;
mod spec;
mod target;

pub use spec::{Bias, LoraSpec, TargetModules};
pub(crate) use target::{Role, Roles, roles};
