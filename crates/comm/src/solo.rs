//! One rank alone: every sum is already complete.

use crate::{CommError, Communicator};
use foundry_kernels::{Backend, Buffer};

/// The communicator of a run on one rank.
#[derive(Debug, Clone, Copy, Default)]
pub struct Solo;

impl Communicator for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn all_reduce_sum(&self, _values: &mut [f64]) -> Result<(), CommError> {
        Ok(())
    }

    fn all_reduce_buffer(&self, _backend: &dyn Backend, _buffer: &mut Buffer) -> Result<(), CommError> {
        Ok(())
    }

    fn barrier(&self) -> Result<(), CommError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alone_a_sum_is_what_was_brought() {
        let mut values = [1.5, -2.0];
        Solo.all_reduce_sum(&mut values).unwrap();
        assert_eq!(values, [1.5, -2.0]);
        assert_eq!((Solo.rank(), Solo.world_size()), (0, 1));
        Solo.barrier().unwrap();
    }
}
