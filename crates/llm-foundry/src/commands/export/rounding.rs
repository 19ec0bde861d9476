//! That the numbers in a written file are as far from the source as they were when they were written. Predictions of a
//! file of few bits differ from the source's by rounding alone, and so cannot tell a damaged one; this can.

use crate::failure::{Failure, Outcome};
use foundry_formats::TensorSource;
use std::collections::BTreeMap;

/// Numbers that are compared at a time.
const PIECE: usize = 1 << 20;
/// The same squares, added in float64 in another order.
const TOLERANCE: f64 = 1e-9;

/// Compares each tensor that `squared_errors` names.
///
/// # Errors
/// A tensor that is missing, has another shape, cannot be read, or is nearer or further than it was.
pub(super) fn is_as_written(
    source: &dyn TensorSource,
    written: &dyn TensorSource,
    squared_errors: &BTreeMap<String, f64>,
) -> Outcome {
    for (name, &expected) in squared_errors {
        let shape = |tensors: &dyn TensorSource| tensors.find(name).map(|info| info.shape.clone());
        if shape(source) != shape(written) {
            return Err(refused(name, "it is missing or has another shape"));
        }
        let found = squared_error(source, written, name)?;
        // Also where it is no number.
        let is_same = (found - expected).abs() <= TOLERANCE * expected;
        if !is_same {
            let how = format!(
                "the squares of its rounding errors come to {found:.6e}, and came to {expected:.6e} when it was written"
            );
            return Err(refused(name, &how));
        }
    }
    Ok(())
}

fn refused(name: &str, how: &str) -> Failure {
    Failure::Run(format!(
        "tensor `{name}` does not come back as it was written: {how}; nothing was kept (with --no-check it would be)"
    ))
}

fn squared_error(source: &dyn TensorSource, written: &dyn TensorSource, name: &str) -> Outcome<f64> {
    let elements = source.find(name).map_or(0, |info| info.elements());
    let (mut exact, mut rounded) = (Vec::new(), Vec::new());
    let mut sum = 0.0;
    for start in (0..elements).step_by(PIECE) {
        let count = PIECE.min(elements - start);
        exact.resize(count, 0.0f32);
        rounded.resize(count, 0.0f32);
        source.read_f32(name, start, &mut exact).map_err(Failure::of_format)?;
        let unreadable = |e| Failure::Run(format!("what was written cannot be read back: {e}"));
        written.read_f32(name, start, &mut rounded).map_err(unreadable)?;
        let squares = exact.iter().zip(&rounded).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
        sum += squares.sum::<f64>();
    }
    Ok(sum)
}
