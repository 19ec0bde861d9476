//! `linear_cross_entropy`: gradients by finite differences, every fast path against the reference, equal bits for
//! any threads.

use super::reference;
use crate::testing::{Numbers, buffer, check, filled, gradcheck, operands, read};
use crate::{Backend, Dtype, LinearCrossEntropy, RowLoss, TokenLoss};

const OBJECTIVES: [TokenLoss; 3] = [TokenLoss::CrossEntropy, TokenLoss::LabelSmoothing(0.1), TokenLoss::Dft];

struct Case {
    tokens: usize,
    width: usize,
    vocab: usize,
    rows: Vec<u32>,
    /// Length of the logits buffer.
    logits: usize,
}

fn run(
    backend: &dyn Backend,
    case: &Case,
    objective: TokenLoss,
    dtype: Dtype,
    gradients: bool,
) -> Vec<Vec<f32>> {
    let Case { tokens, width, vocab, .. } = *case;
    let mut numbers = Numbers::new(5);
    let x = buffer(dtype, &numbers.vec(tokens * width + 2, 2.0));
    let weight = buffer(dtype, &numbers.vec(vocab * width, 1.0));
    let targets = numbers.below(case.rows.len(), vocab as u32);
    let op =
        LinearCrossEntropy { rows: &case.rows, targets: &targets, width, vocab, objective, grad_scale: 0.25 };
    let mut logits = filled(Dtype::F32, case.logits, f32::NAN);
    let mut dx = filled(dtype, tokens * width + 2, 0.5);
    let mut dweight = filled(Dtype::F32, vocab * width, 0.125);
    let mut per_row = vec![RowLoss::default(); case.rows.len()];
    let sums = backend.linear_cross_entropy(
        &op,
        tokens,
        &x,
        &weight,
        &mut logits,
        gradients.then_some(&mut dx),
        gradients.then_some(&mut dweight),
        Some(&mut per_row),
    );
    let log_probs = per_row.iter().map(|row| row.log_prob).collect();
    let greedy = per_row.iter().map(|row| f32::from(row.is_greedy)).collect();
    let totals = vec![sums.loss as f32, sums.entropy as f32];
    vec![read(&dx), read(&dweight), log_probs, greedy, totals, vec![sums.correct as f32, sums.count as f32]]
}

/// Sums of up to 100 products in f32, then a softmax: 1e-5. bf16: `dz` and `dx` are rounded: two units.
fn check_case(name: &str, case: &Case) {
    for objective in OBJECTIVES {
        for (dtype, tolerance) in operands(1e-5) {
            for gradients in [true, false] {
                let name = format!("{name}, {objective:?}, {dtype:?}");
                check(&name, 2.0 * tolerance, |b| run(b, case, objective, dtype, gradients));
            }
        }
    }
}

#[test]
fn chunks_and_odd_sizes() {
    let rows = vec![0, 1, 2, 5, 9, 10, 12];
    for logits in [1, 2, 7, 20] {
        let case = Case { tokens: 13, width: 19, vocab: 37, rows: rows.clone(), logits: logits * 37 + 5 };
        check_case(&format!("{logits} rows per chunk"), &case);
    }
}

#[test]
fn neighbouring_rows_and_longer_vocabulary() {
    check_case(
        "neighbours",
        &Case { tokens: 9, width: 32, vocab: 2500, rows: (2..8).collect(), logits: 4 * 2500 },
    );
    check_case("one row", &Case { tokens: 1, width: 8, vocab: 16, rows: vec![0], logits: 16 });
}

#[test]
fn no_labels_means_zero() {
    check_case("no labels", &Case { tokens: 4, width: 8, vocab: 16, rows: vec![], logits: 16 });
}

#[test]
fn extreme_logits() {
    for objective in OBJECTIVES {
        // One logit far above the others; then a tie for the first place, which the lower index wins.
        for (weight, target, greedy) in
            [([1e4f32, 0.0, -1e4], 1, false), ([3.0, 3.0, 1.0], 1, false), ([3.0, 3.0, 1.0], 0, true)]
        {
            // dx is a sum of three terms that nearly cancel.
            check("extreme", 1e-5, |backend| {
                let (x, weight) = (buffer(Dtype::F32, &[1.0]), buffer(Dtype::F32, &weight));
                let (mut logits, mut dx) = (filled(Dtype::F32, 3, 0.0), filled(Dtype::F32, 1, 0.0));
                let mut per_row = [RowLoss::default()];
                let op = LinearCrossEntropy {
                    rows: &[0],
                    targets: &[target],
                    width: 1,
                    vocab: 3,
                    objective,
                    grad_scale: 1.0,
                };
                let sums = backend.linear_cross_entropy(
                    &op,
                    1,
                    &x,
                    &weight,
                    &mut logits,
                    Some(&mut dx),
                    None,
                    Some(&mut per_row),
                );
                assert_eq!(per_row[0].is_greedy, greedy);
                vec![read(&dx), vec![per_row[0].log_prob], vec![sums.loss as f32], vec![sums.entropy as f32]]
            });
        }
    }
}

#[test]
fn reference_gradients_agree_with_finite_differences() {
    let (tokens, width, vocab) = (4, 3, 7);
    let mut numbers = Numbers::new(6);
    let inputs = [numbers.vec64(tokens * width, 2.0), numbers.vec64(vocab * width, 1.0)];
    let (rows, targets) = ([0, 2, 3], [6, 0, 3]);
    for objective in OBJECTIVES {
        let op =
            LinearCrossEntropy { rows: &rows, targets: &targets, width, vocab, objective, grad_scale: 0.5 };
        let mut gradients = [vec![9.0; tokens * width], vec![0.0; vocab * width]];
        let [dx, dweight] = &mut gradients;
        reference::forward_backward(&op, &inputs[0], &inputs[1], Some(dx), Some(dweight), None);
        // DFT's factor p(target) is a constant for the gradient: its loss is a weighted cross-entropy.
        let fixed: Vec<f64> = (0..3).map(|i| weight_of(&op, i, &inputs)).collect();
        gradcheck(&inputs, &gradients, |moved| (0..3).map(|i| 0.5 * fixed[i] * loss_of(&op, i, moved)).sum());
    }
}

/// Probability of the target under DFT, else one.
fn weight_of(op: &LinearCrossEntropy<'_>, i: usize, inputs: &[Vec<f64>]) -> f64 {
    if op.objective == TokenLoss::Dft { (-loss_of(op, i, inputs)).exp() } else { 1.0 }
}

/// Loss of labelled row `i`, without DFT's factor.
fn loss_of(op: &LinearCrossEntropy<'_>, i: usize, inputs: &[Vec<f64>]) -> f64 {
    let objective = if op.objective == TokenLoss::Dft { TokenLoss::CrossEntropy } else { op.objective };
    let one = LinearCrossEntropy { rows: &op.rows[i..=i], targets: &op.targets[i..=i], objective, ..*op };
    reference::forward_backward(&one, &inputs[0], &inputs[1], None, None, None).loss
}
