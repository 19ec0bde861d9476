//! chrF (Popović 2015) of a corpus with sacrebleu's defaults: character n-grams of up to six, β = 2; chrF++ with words
//! and pairs of words besides.

use std::collections::HashMap;
use std::hash::Hash;

const CHARACTERS: usize = 6;
const WORDS: usize = 2;
const ORDER: usize = CHARACTERS + WORDS;

/// For each order the n-grams of the text, of the reference, and of both.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Counts {
    orders: [[f64; 3]; ORDER],
    used: usize,
}

/// The counts of a text against the reference that gives it the best score.
pub(super) fn counts(text: &str, references: &[String], with_words: bool) -> Counts {
    let mut best = (-1.0, Counts::default());
    for reference in references {
        let counts = against(text, reference, with_words);
        let score = chrf(&[&counts]);
        if score > best.0 {
            best = (score, counts);
        }
    }
    best.1
}

fn against(text: &str, reference: &str, with_words: bool) -> Counts {
    let mut counts = Counts { used: if with_words { ORDER } else { CHARACTERS }, ..Counts::default() };
    let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<Vec<char>>();
    let (text_letters, reference_letters) = (letters(text), letters(reference));
    for n in 1..=CHARACTERS {
        counts.orders[n - 1] = matched(&text_letters, &reference_letters, n);
    }
    if with_words {
        let (text_words, reference_words) = (words(text), words(reference));
        for n in 1..=WORDS {
            counts.orders[CHARACTERS + n - 1] = matched(&text_words, &reference_words, n);
        }
    }
    counts
}

fn matched<T: Eq + Hash>(text: &[T], reference: &[T], n: usize) -> [f64; 3] {
    let (text, reference) = (grams(text, n), grams(reference, n));
    let total = |grams: &HashMap<&[T], usize>| grams.values().sum::<usize>() as f64;
    let both: usize =
        text.iter().map(|(gram, count)| (*count).min(reference.get(gram).copied().unwrap_or(0))).sum();
    let of_text = if reference.is_empty() { 0.0 } else { total(&text) };
    [of_text, total(&reference), both as f64]
}

fn grams<T: Eq + Hash>(items: &[T], n: usize) -> HashMap<&[T], usize> {
    let mut counts = HashMap::new();
    for gram in items.windows(n) {
        *counts.entry(gram).or_default() += 1;
    }
    counts
}

/// Words with one mark of punctuation at an end split off.
fn words(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for word in text.split_whitespace() {
        let is_mark = |c: Option<char>| c.is_some_and(|c| c.is_ascii_punctuation());
        if word.chars().count() == 1 {
            out.push(word.to_owned());
        } else if is_mark(word.chars().next_back()) {
            let (start, end) = word.split_at(word.len() - 1);
            out.extend([start.to_owned(), end.to_owned()]);
        } else if is_mark(word.chars().next()) {
            let (start, end) = word.split_at(1);
            out.extend([start.to_owned(), end.to_owned()]);
        } else {
            out.push(word.to_owned());
        }
    }
    out
}

/// The score of all documents together, 0 to 100: F_β of the mean precision and recall over the orders that occur.
pub(super) fn chrf(items: &[&Counts]) -> f64 {
    let mut sum = Counts::default();
    for counts in items {
        sum.used = counts.used;
        for (total, order) in sum.orders.iter_mut().zip(&counts.orders) {
            for (a, b) in total.iter_mut().zip(order) {
                *a += b;
            }
        }
    }
    let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
    for [of_text, of_reference, both] in &sum.orders[..sum.used] {
        if *of_text > 0.0 && *of_reference > 0.0 {
            precision += both / of_text;
            recall += both / of_reference;
            orders += 1.0;
        }
    }
    if orders == 0.0 || precision + recall == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (precision / orders, recall / orders);
    let factor = 4.0;
    100.0 * (1.0 + factor) * precision * recall / (factor * precision + recall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_sacrebleus() {
        // sacrebleu.corpus_chrf(preds, [refs]).score, and with word_order=2
        let pairs = [
            ("The cat sat on the mat today.", "The cat is sitting on the mat."),
            ("Hello there, world!", "Hello, world!"),
            ("12 apples", "12 pears and 3 plums"),
        ];
        for (with_words, expected) in [(false, 40.195_520_049_531_01), (true, 43.028_483_932_313_08)] {
            let all: Vec<Counts> = pairs
                .iter()
                .map(|(text, reference)| counts(text, &[reference.to_string()], with_words))
                .collect();
            assert!((chrf(&all.iter().collect::<Vec<_>>()) - expected).abs() < 1e-9, "{with_words}");
        }
        assert_eq!(chrf(&[&counts("", &["a".into()], false)]), 0.0);
    }
}
