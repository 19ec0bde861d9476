//! F1 and Matthews' correlation over all documents, as in scikit-learn.

/// F1 of class 1: `2·TP / (2·TP + FP + FN)`, 0 where that is 0/0. Items are (right class, chosen class).
pub(super) fn f1(items: &[&(i64, i64)]) -> f64 {
    let count = |gold: bool, chosen: bool| {
        items.iter().filter(|(g, c)| (*g == 1) == gold && (*c == 1) == chosen).count() as f64
    };
    let (both, missed, wrong) = (count(true, true), count(true, false), count(false, true));
    let denominator = 2.0 * both + wrong + missed;
    if denominator == 0.0 { 0.0 } else { 2.0 * both / denominator }
}

/// Matthews' correlation coefficient of any number of classes (Gorodkin 2004): with `c` right of `s`,
/// `(c·s - Σ_k p_k·t_k) / √((s² - Σ p_k²)·(s² - Σ t_k²))`, 0 where the root is 0.
pub(super) fn matthews(items: &[&(i64, i64)]) -> f64 {
    let mut classes: Vec<i64> = items.iter().flat_map(|(g, c)| [*g, *c]).collect();
    classes.sort_unstable();
    classes.dedup();
    let total = items.len() as f64;
    let right = items.iter().filter(|(g, c)| g == c).count() as f64;
    let (mut products, mut chosen_squares, mut gold_squares) = (0.0, 0.0, 0.0);
    for class in classes {
        let gold = items.iter().filter(|(g, _)| *g == class).count() as f64;
        let chosen = items.iter().filter(|(_, c)| *c == class).count() as f64;
        products += gold * chosen;
        chosen_squares += chosen * chosen;
        gold_squares += gold * gold;
    }
    let denominator = ((total * total - chosen_squares) * (total * total - gold_squares)).sqrt();
    if denominator == 0.0 { 0.0 } else { (right * total - products) / denominator }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_scikit_learns() {
        // golds, preds = [1,0,1,1,0,2], [1,1,0,1,0,2]; sklearn.metrics.matthews_corrcoef(golds, preds)
        let items = [(1, 1), (0, 1), (1, 0), (1, 1), (0, 0), (2, 2)];
        let all: Vec<&(i64, i64)> = items.iter().collect();
        assert!((matthews(&all) - 10.0 / 22.0).abs() < 1e-12);
        // Without the last: f1_score = 2·2/(4+1+1)
        assert!((f1(&all[..5]) - 4.0 / 6.0).abs() < 1e-12);
        assert_eq!((f1(&[&(0, 0)]), matthews(&[&(1, 1)])), (0.0, 0.0));
    }
}
