//! Translation edit rate (Snover et al. 2006) of a corpus with sacrebleu's defaults: insertions, deletions,
//! substitutions and shifts of words, over the mean length of the references. Which shifts are tried, and which of
//! equally good ones is made, follows Tercom as sacrebleu's `lib_ter.py` has it; texts are compared in lower case,
//! words end at spaces.

use crate::python::text::is_space;

/// Words that are moved together at most.
const SHIFT_SIZE: usize = 10;
/// How far words are moved at most.
const SHIFT_DISTANCE: usize = 50;
/// Shifts that are tried for one text against one reference.
const CANDIDATES: usize = 1000;
/// How far from the diagonal distances are computed.
const BEAM: usize = 25;
/// More than any distance.
const INFINITE: usize = usize::MAX / 2;

/// Edits of one document, by the reference that needs the fewest, and the mean length of its references.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Counts {
    edits: f64,
    length: f64,
}

/// One step of making a reference out of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    Keep,
    Substitute,
    Insert,
    Delete,
}

/// The counts of a text against its references.
pub(super) fn counts(text: &str, references: &[String]) -> Counts {
    let words = |text: &str| -> Vec<String> {
        text.to_lowercase().split(is_space).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let references: Vec<Vec<String>> = references.iter().map(|reference| words(reference)).collect();
    let own = words(text);
    let edits = references.iter().map(|reference| edits(&own, reference)).min().unwrap_or(0);
    let length: usize = references.iter().map(Vec::len).sum();
    Counts { edits: edits as f64, length: length as f64 / references.len().max(1) as f64 }
}

/// The score of all documents together, in percent; 0 is best.
pub(super) fn ter(items: &[&Counts]) -> f64 {
    let edits: f64 = items.iter().map(|counts| counts.edits).sum();
    let length: f64 = items.iter().map(|counts| counts.length).sum();
    match (length > 0.0, edits > 0.0) {
        (true, _) => 100.0 * (edits / length),
        (false, true) => 100.0,
        (false, false) => 0.0,
    }
}

/// The fewest edits that were found.
fn edits(text: &[String], reference: &[String]) -> usize {
    if reference.is_empty() {
        return text.len();
    }
    let (mut words, mut shifts, mut tried) = (text.to_vec(), 0, 0);
    loop {
        let best = best_shift(&words, reference, &mut tried);
        let better = best.filter(|shift| tried < CANDIDATES && shift.gain > 0);
        let Some(shift) = better else { break };
        words = shift.words;
        shifts += 1;
    }
    shifts + distance(&words, reference).0
}

/// Gain, words moved, from where and to where, the latter two negative: the greatest is best.
type Rank = (i64, usize, i64, i64);

/// Words in another order, and how many edits fewer they need.
struct Shift {
    gain: i64,
    words: Vec<String>,
}

/// The shift with the greatest gain; of several the longest, then that of the earliest words to the earliest place.
fn best_shift(text: &[String], reference: &[String], tried: &mut usize) -> Option<Shift> {
    let (before, steps) = distance(text, reference);
    let alignment = Alignment::new(&steps);
    let mut best: Option<(Rank, Vec<String>)> = None;
    for (start, start_ref, length) in equal_runs(text, reference) {
        let is_wrong = |errors: &[bool], from: usize| errors[from..from + length].contains(&true);
        let target = alignment.of_reference[start_ref];
        if is_wrong(&alignment.text_errors, start)
            && is_wrong(&alignment.reference_errors, start_ref)
            && !(start as i64 <= target && target < (start + length) as i64)
        {
            let mut previous = None;
            for offset in 0..=length {
                // Before word 0, or after the word that the one before this reference word stands at.
                let place = match (start_ref + offset).checked_sub(1) {
                    None => 0,
                    Some(at) => match alignment.of_reference.get(at) {
                        Some(place) => (place + 1) as usize,
                        None => break,
                    },
                };
                if previous.replace(place) == Some(place) {
                    continue;
                }
                let shifted = shifted(text, start, length, place);
                let gain = before as i64 - distance(&shifted, reference).0 as i64;
                let candidate = ((gain, length, -(start as i64), -(place as i64)), shifted);
                *tried += 1;
                if best.as_ref().is_none_or(|best| candidate > *best) {
                    best = Some(candidate);
                }
            }
        } else {
            continue;
        }
        if *tried >= CANDIDATES {
            break;
        }
    }
    best.map(|((gain, ..), words)| Shift { gain, words })
}

/// Runs of words that are equal: where in the text, where in the reference, how many.
fn equal_runs(text: &[String], reference: &[String]) -> Vec<(usize, usize, usize)> {
    let mut runs = Vec::new();
    for start in 0..text.len() {
        let near = start.saturating_sub(SHIFT_DISTANCE)..reference.len().min(start + SHIFT_DISTANCE + 1);
        for start_ref in near {
            let pairs = text[start..].iter().zip(&reference[start_ref..]).take(SHIFT_SIZE);
            let equal = pairs.take_while(|(word, wanted)| word == wanted).count();
            runs.extend((1..=equal).map(|length| (start, start_ref, length)));
        }
    }
    runs
}

/// The words with `length` of them, from `start`, put before word `place`; in front of the words moved, or inside of
/// them, `place` counts without them.
fn shifted(words: &[String], start: usize, length: usize, place: usize) -> Vec<String> {
    let moved = &words[start..start + length];
    let mut rest = [&words[..start], &words[start + length..]].concat();
    let at = if place > start + length { place - length } else { place.min(rest.len()) };
    rest.splice(at..at, moved.iter().cloned());
    rest
}

/// Which word stands where after the edits.
struct Alignment {
    /// For each word of the reference the last one of the text up to it; -1: none.
    of_reference: Vec<i64>,
    reference_errors: Vec<bool>,
    text_errors: Vec<bool>,
}

impl Alignment {
    fn new(steps: &[Edit]) -> Self {
        let mut alignment =
            Self { of_reference: Vec::new(), reference_errors: Vec::new(), text_errors: Vec::new() };
        let mut at = -1;
        for step in steps {
            let is_wrong = *step != Edit::Keep;
            if *step != Edit::Insert {
                at += 1;
                alignment.text_errors.push(is_wrong);
            }
            if *step != Edit::Delete {
                alignment.of_reference.push(at);
                alignment.reference_errors.push(is_wrong);
            }
        }
        alignment
    }
}

/// Levenshtein's distance within a beam around the diagonal, and the steps from the text to the reference.
fn distance(text: &[String], reference: &[String]) -> (usize, Vec<Edit>) {
    let width = reference.len() + 1;
    let ratio = if text.is_empty() { 1.0 } else { reference.len() as f64 / text.len() as f64 };
    let beam = if (BEAM as f64) < ratio / 2.0 { (ratio / 2.0 + BEAM as f64).ceil() as usize } else { BEAM };
    let mut table: Vec<(usize, Edit)> = (0..width).map(|j| (j, Edit::Insert)).collect();
    table.resize(width * (text.len() + 1), (INFINITE, Edit::Keep));
    for i in 1..=text.len() {
        let diagonal = (i as f64 * ratio).floor() as usize;
        let end = if i == text.len() { width } else { width.min(diagonal + beam) };
        for j in diagonal.saturating_sub(beam)..end {
            let above = table[(i - 1) * width + j].0 + 1;
            table[i * width + j] = match j.checked_sub(1) {
                None => (above, Edit::Delete),
                Some(before) => {
                    let is_equal = text[i - 1] == reference[before];
                    let step = if is_equal { Edit::Keep } else { Edit::Substitute };
                    let all = [
                        (table[(i - 1) * width + before].0 + usize::from(!is_equal), step),
                        (above, Edit::Delete),
                        (table[i * width + before].0 + 1, Edit::Insert),
                    ];
                    // The first of the cheapest.
                    all.into_iter().min_by_key(|(cost, _)| *cost).unwrap_or((INFINITE, Edit::Keep))
                }
            };
        }
    }
    let (mut i, mut j, mut steps) = (text.len(), reference.len(), Vec::new());
    while i > 0 || j > 0 {
        let step = table[i * width + j].1;
        i -= usize::from(step != Edit::Insert);
        j -= usize::from(step != Edit::Delete);
        steps.push(step);
    }
    steps.reverse();
    (table[width * text.len() + reference.len()].0, steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn scores_are_sacrebleus() {
        let golden: Value = serde_json::from_str(include_str!("../../tests/goldens/ter.json")).unwrap();
        let mut pairs = Vec::new();
        for case in golden["cases"].as_array().unwrap() {
            let references: Vec<String> = serde_json::from_value(case[1].clone()).unwrap();
            let counts = counts(case[0].as_str().unwrap(), &references);
            assert_eq!(ter(&[&counts]), case[2].as_f64().unwrap(), "{case}");
            if references.len() == 2 {
                pairs.push(counts);
            }
        }
        assert!(pairs.len() > 20);
        assert_eq!(Some(ter(&pairs.iter().collect::<Vec<_>>())), golden["corpus"].as_f64());
    }
}
