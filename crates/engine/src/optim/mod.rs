//! Optimisers: from gradients to new values.

mod adafactor;
mod adamw;
mod adamw_8bit;
mod lion;
mod sgd;

pub use adafactor::Adafactor;
pub use adamw::AdamW;
pub use adamw_8bit::AdamW8Bit;
pub use lion::Lion;
pub use sgd::Sgd;

use crate::arguments::{Optim, TrainingArgs};
use crate::seeds::rounding_seed;
use foundry_kernels::{Allocator, Backend, Buffer, Dtype, Rounding};
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
    /// The run's seed: decides how parameters that are kept in bfloat16 are rounded.
    pub seed: u64,
}

impl Update {
    /// How parameter number `index` is rounded: at random where it is kept in bfloat16, because small updates would
    /// otherwise be lost. A function of seed, step and index, so that a resumed run rounds alike.
    fn rounding(&self, index: usize, parameter: &Parameter) -> Rounding {
        match parameter.value.dtype() {
            Dtype::Bf16 => Rounding::Stochastic { seed: rounding_seed(self.seed, self.step, index as u64) },
            _ => Rounding::Nearest,
        }
    }
}

/// One tensor of an optimiser's state.
pub struct StateTensor<B> {
    /// What it is, under the peer's name, such as `exp_avg`.
    pub kind: &'static str,
    /// Index of the parameter that it belongs to.
    pub parameter: usize,
    /// Its dimensions: often the parameter's.
    pub shape: Vec<usize>,
    /// The numbers: f32, or bytes.
    pub buffer: B,
}

/// An optimiser with its state, made for one list of parameters.
pub trait Optimizer: Send {
    /// Name in a checkpoint.
    fn name(&self) -> &'static str;

    /// One step on all parameters, which must be those the optimiser was made for, in the same order.
    fn update(&mut self, backend: &dyn Backend, update: &Update, parameters: &mut [Parameter]);

    /// Everything that a resumed run needs, in a fixed order.
    fn state(&self) -> Vec<StateTensor<&Buffer>>;

    /// The same, to be overwritten.
    fn state_mut(&mut self) -> Vec<StateTensor<&mut Buffer>>;
}

/// The optimiser that the arguments name, its state zero. A plan calls this with a [`foundry_kernels::Meter`] to learn
/// its size.
pub fn make(alloc: &dyn Allocator, parameters: &[Parameter], args: &TrainingArgs) -> Box<dyn Optimizer> {
    match args.optim {
        Optim::AdamW => Box::new(AdamW::allocate(alloc, parameters, args)),
        Optim::AdamW8Bit => Box::new(AdamW8Bit::allocate(alloc, parameters, args)),
        Optim::Lion => Box::new(Lion::allocate(alloc, parameters, args)),
        Optim::Sgd => Box::new(Sgd::allocate(alloc, parameters, args)),
        Optim::Adafactor => Box::new(Adafactor::allocate(alloc, parameters, args)),
    }
}

/// Factors on the learning rate.
fn factors(parameters: &[Parameter], args: &TrainingArgs) -> Vec<f64> {
    parameters.iter().map(|parameter| args.learning_rate_factor(parameter)).collect()
}

/// The update and the state belong to the same parameters.
fn check_count(parameters: &[Parameter], states: usize) {
    assert_eq!(parameters.len(), states, "the optimiser was made for another list of parameters");
}

/// State tensors of one kind, one for each parameter and shaped like it.
fn alike<'a, B>(
    kind: &'static str,
    shapes: &'a [Vec<usize>],
    buffers: impl Iterator<Item = B> + 'a,
) -> impl Iterator<Item = StateTensor<B>> + 'a {
    buffers.zip(shapes).enumerate().map(move |(parameter, (buffer, shape))| StateTensor {
        kind,
        parameter,
        shape: shape.clone(),
        buffer,
    })
}

/// The shapes of parameters.
fn shapes(parameters: &[Parameter]) -> Vec<Vec<usize>> {
    parameters.iter().map(|parameter| parameter.shape.clone()).collect()
}
