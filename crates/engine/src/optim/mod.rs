//! Optimisers: from gradients to new values.

mod adamw;

pub use adamw::AdamW;

use foundry_kernels::{Backend, Buffer};
use foundry_models::Parameter;

/// What an update is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Number of the step, from 1.
    pub step: u64,
    /// Its learning rate.
    pub learning_rate: f64,
    /// Factor on every gradient (clipping).
    pub grad_scale: f32,
}

/// One tensor of an optimiser's state.
pub struct StateTensor<B> {
    /// What it is, under torch's name, such as `exp_avg`.
    pub kind: &'static str,
    /// Index of the parameter that it belongs to and is shaped like.
    pub parameter: usize,
    /// The numbers, f32.
    pub buffer: B,
}

/// An optimiser with its state, made for one list of parameters.
pub trait Optimizer {
    /// Name in a configuration.
    fn name(&self) -> &'static str;

    /// One step on all parameters, which must be those the optimiser was made for, in the same order.
    fn update(&mut self, backend: &dyn Backend, update: &Update, parameters: &mut [Parameter]);

    /// Everything that a resumed run needs, in a fixed order.
    fn state(&self) -> Vec<StateTensor<&Buffer>>;

    /// The same, to be overwritten.
    fn state_mut(&mut self) -> Vec<StateTensor<&mut Buffer>>;
}
