//! BLEU (Papineni et al. 2002) of a corpus with sacrebleu's defaults: tokenizer `13a`, exponential smoothing, n-grams
//! of up to four words.

use crate::python::regex::Pattern;
use std::collections::HashMap;
use std::sync::LazyLock;

const ORDER: usize = 4;

/// Counts of one document: lengths, and for each order the right and all n-grams.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Counts {
    hypothesis: f64,
    reference: f64,
    right: [f64; ORDER],
    total: [f64; ORDER],
}

/// The counts of a text against its references.
pub(super) fn counts(text: &str, references: &[String]) -> Counts {
    let words = tokens(text);
    let references: Vec<Vec<String>> = references.iter().map(|reference| tokens(reference)).collect();
    let distance = |len: usize| (words.len().abs_diff(len), len);
    let closest = references.iter().map(Vec::len).min_by_key(|&len| distance(len)).unwrap_or(0);
    let mut counts =
        Counts { hypothesis: words.len() as f64, reference: closest as f64, ..Counts::default() };
    for n in 1..=ORDER {
        let mut most: HashMap<&[String], usize> = HashMap::new();
        for reference in &references {
            for (gram, count) in grams(reference, n) {
                let entry = most.entry(gram).or_default();
                *entry = count.max(*entry);
            }
        }
        for (gram, count) in grams(&words, n) {
            counts.total[n - 1] += count as f64;
            counts.right[n - 1] += count.min(most.get(gram).copied().unwrap_or(0)) as f64;
        }
    }
    counts
}

/// The score of all documents together, 0 to 100.
pub(super) fn bleu(items: &[&Counts]) -> f64 {
    let mut sum = Counts::default();
    for counts in items {
        sum.hypothesis += counts.hypothesis;
        sum.reference += counts.reference;
        for n in 0..ORDER {
            sum.right[n] += counts.right[n];
            sum.total[n] += counts.total[n];
        }
    }
    if sum.right.iter().all(|&right| right == 0.0) {
        return 0.0;
    }
    let (mut log_sum, mut smooth) = (0.0, 1.0);
    for n in 0..ORDER {
        if sum.total[n] == 0.0 {
            // No n-grams of this order: precision 0, whose logarithm sacrebleu takes for this.
            log_sum += -9_999_999_999.0 * (ORDER - n) as f64;
            break;
        }
        let precision = if sum.right[n] == 0.0 {
            smooth *= 2.0;
            100.0 / (smooth * sum.total[n])
        } else {
            100.0 * sum.right[n] / sum.total[n]
        };
        log_sum += precision.ln();
    }
    let is_short = sum.hypothesis < sum.reference;
    let brevity = if is_short { (1.0 - sum.reference / sum.hypothesis).exp() } else { 1.0 };
    brevity * (log_sum / ORDER as f64).exp()
}

fn grams(words: &[String], n: usize) -> HashMap<&[String], usize> {
    let mut counts = HashMap::new();
    for gram in words.windows(n) {
        *counts.entry(gram).or_default() += 1;
    }
    counts
}

/// mteval-v13a's words.
fn tokens(text: &str) -> Vec<String> {
    static RULES: LazyLock<Vec<(Pattern, &str)>> = LazyLock::new(|| {
        let rules = [
            (r"([\{-\~\[-\` -\&\(-\+\:-\@\/])", r" \1 "),
            (r"([^0-9])([\.,])", r"\1 \2 "),
            (r"([\.,])([^0-9])", r" \1 \2"),
            (r"([0-9])(-)", r"\1 \2 "),
        ];
        rules.map(|(p, r)| (Pattern::new(p).expect("a valid pattern"), r)).to_vec()
    });
    let mut line = text.trim_end().replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    if line.contains('&') {
        line = line.replace("&quot;", "\"").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
    }
    line = format!(" {line} ");
    for (pattern, replacement) in RULES.iter() {
        // These patterns have no backtracking that could fail.
        line = pattern.substitute(&line, replacement, 0).unwrap_or(line);
    }
    line.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_13as() {
        assert_eq!(
            tokens("It's 1,000.5 (ok), -3-4 a&quot;b.").join(" "),
            "It's 1,000.5 ( ok ) , -3 - 4 a \" b ."
        );
    }

    #[test]
    fn scores_are_sacrebleus() {
        // sacrebleu.corpus_bleu(preds, [refs]).score
        let pairs = [
            ("The cat sat on the mat today.", "The cat is sitting on the mat."),
            ("Hello there, world!", "Hello, world!"),
            ("12 apples", "12 pears and 3 plums"),
        ];
        let all: Vec<Counts> =
            pairs.iter().map(|(text, reference)| counts(text, &[reference.to_string()])).collect();
        assert!((bleu(&all.iter().collect::<Vec<_>>()) - 23.095_718_514_175_932).abs() < 1e-9);
        assert_eq!(bleu(&[&counts("a b", &["c d".into()])]), 0.0);
    }
}
