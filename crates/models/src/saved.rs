//! A model or an adapter on its way to disk: its numbers are shared with the decoder until they have been written,
//! perhaps by another thread.

use crate::ModelError;
use crate::quantized::dequantize;
use foundry_kernels::{SharedBuffer, SharedMatrix};
use std::path::Path;

/// What is left of saving once everything has been gathered: it writes the files into an existing directory, on
/// whatever thread. Until it has run or was dropped, nobody can write to the decoder's weights.
pub type WriteFiles = Box<dyn FnOnce(&Path) -> Result<(), ModelError> + Send>;

/// Elements that are converted at a time.
const PIECE: usize = 1 << 20;

/// The numbers of a weight, shared with the decoder.
pub(crate) enum Numbers {
    Dense(SharedBuffer),
    Quantized(SharedMatrix),
}

impl Numbers {
    /// Hands `elements` values to `write` in pieces.
    pub(crate) fn write_out<E>(
        &self,
        elements: usize,
        write: impl FnMut(&[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Numbers::Dense(buffer) => in_pieces(elements, |start, piece| buffer.read(start, piece), write),
            Numbers::Quantized(matrix) => {
                let parts = matrix.parts();
                in_pieces(elements, |start, piece| dequantize(&parts, matrix.cols(), start, piece), write)
            }
        }
    }
}

fn in_pieces<E>(
    elements: usize,
    read: impl Fn(usize, &mut [f32]),
    mut write: impl FnMut(&[f32]) -> Result<(), E>,
) -> Result<(), E> {
    let mut piece = vec![0.0; elements.min(PIECE)];
    for start in (0..elements).step_by(PIECE) {
        let piece = &mut piece[..PIECE.min(elements - start)];
        read(start, piece);
        write(piece)?;
    }
    Ok(())
}
