//! The truth: plain loops in f64.

use crate::Adafactor;

/// The means of squared gradients.
pub(crate) enum Means<'a> {
    /// Over rows and columns.
    Matrix { row: &'a mut [f64], column: &'a mut [f64] },
    /// Element by element.
    Vector(&'a mut [f64]),
}

/// One update of a parameter of `columns` columns.
pub(crate) fn step(op: &Adafactor, columns: usize, grad: &[f64], param: &mut [f64], means: Means<'_>) {
    let beta = 1.0 - (op.step as f64).powf(op.decay_rate);
    let g: Vec<f64> = grad.iter().map(|g| g * f64::from(op.grad_scale)).collect();
    let rows = g.len() / columns;
    let square = |i: usize, j: usize| g[i * columns + j].powi(2) + op.eps;
    let mut update: Vec<f64> = match means {
        Means::Vector(v) => {
            v.iter_mut().zip(&g).for_each(|(v, g)| *v = beta * *v + (1.0 - beta) * (g * g + op.eps));
            g.iter().zip(v).map(|(g, v)| g / v.sqrt()).collect()
        }
        Means::Matrix { row, column } => {
            for i in 0..rows {
                let mean = (0..columns).map(|j| square(i, j)).sum::<f64>() / columns as f64;
                row[i] = beta * row[i] + (1.0 - beta) * mean;
            }
            for j in 0..columns {
                let mean = (0..rows).map(|i| square(i, j)).sum::<f64>() / rows as f64;
                column[j] = beta * column[j] + (1.0 - beta) * mean;
            }
            let mean = row.iter().sum::<f64>() / rows as f64;
            (0..g.len()).map(|i| g[i] / (row[i / columns] / mean * column[i % columns]).sqrt()).collect()
        }
    };
    let rms = (update.iter().map(|u| u * u).sum::<f64>() / update.len() as f64).sqrt();
    update.iter_mut().for_each(|u| *u /= (rms / op.clip_threshold).max(1.0));
    for (p, u) in param.iter_mut().zip(update) {
        *p -= op.lr * op.weight_decay * *p + op.lr * u;
    }
}
