//! `residual`: gradients by finite differences, every fast path against the reference, equal bits for any threads.

use crate::testing::{Numbers, buffer, check, operands, read};

#[test]
fn every_path_agrees_with_the_reference() {
    for n in [0, 1, 17, 64, 33_000] {
        for [(x_type, x_tolerance), (y_type, y_tolerance)] in
            operands(1e-7).into_iter().flat_map(|x| operands(1e-7).map(|y| [x, y]))
        {
            check(&format!("{n} {x_type:?} {y_type:?}"), f32::max(x_tolerance, y_tolerance), |backend| {
                let mut numbers = Numbers::new(22);
                let x = buffer(x_type, &numbers.vec(n + 1, 1.0));
                let mut y = buffer(y_type, &numbers.vec(n + 3, 1.0));
                backend.add(n, &x, &mut y);
                vec![read(&y)]
            });
        }
    }
}
