//! Aggregation of scores, as in lm_eval 0.4.13 `api/metrics.py`.

/// Arithmetic mean; NaN of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Standard deviation with Bessel's correction, `√(Σ(x-x̄)²/(n-1))`; `None` below two values.
pub(crate) fn sample_deviation(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let centre = mean(values);
    let squares: f64 = values.iter().map(|x| (x - centre).powi(2)).sum();
    Some((squares / (values.len() as f64 - 1.0)).sqrt())
}

/// Standard error of the mean, `√(Σ(x-x̄)²/(n-1)) / √n`; `None` below two values (lm_eval writes "N/A").
pub fn mean_stderr(values: &[f64]) -> Option<f64> {
    sample_deviation(values).map(|deviation| deviation / (values.len() as f64).sqrt())
}

/// Index of the largest value, the first of equals (`numpy.argmax`); a NaN wins over everything, as in numpy.
pub(crate) fn argmax(values: &[f64]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if values[best].is_nan() {
            break;
        }
        if value.is_nan() || *value > values[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_error_of_the_mean() {
        // Sample variance of 0,0,1,1 is 1/3; divided by 4 and rooted.
        let expected = (1.0f64 / 3.0).sqrt() / 2.0;
        assert_eq!(mean_stderr(&[0.0, 0.0, 1.0, 1.0]), Some(expected));
        assert_eq!(mean_stderr(&[1.0]), None);
        assert_eq!(mean(&[1.0, 2.0]), 1.5);
    }

    #[test]
    fn the_first_of_equals_wins() {
        assert_eq!(argmax(&[-2.0, -1.0, -1.0]), 1);
        assert_eq!(argmax(&[f64::NEG_INFINITY]), 0);
        assert_eq!(argmax(&[0.0, f64::NAN, 5.0]), 1);
    }
}
