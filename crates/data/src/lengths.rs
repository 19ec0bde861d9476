//! How long examples are: a histogram of bounded size, exact for short examples.

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

/// Lengths up to this are counted one by one.
const EXACT: usize = 4096;
/// Classes between a power of two and the next, above [`EXACT`].
const CLASSES_PER_OCTAVE: usize = 16;

/// Numbers of examples by their length in tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    /// Counts by class; classes are [`class_of`] a length.
    counts: Vec<u64>,
    examples: u64,
    longest: usize,
}

impl Lengths {
    /// Counts an example of `length` tokens.
    pub fn add(&mut self, length: usize) {
        let class = class_of(length);
        if self.counts.len() <= class {
            self.counts.resize(class + 1, 0);
        }
        self.counts[class] += 1;
        self.examples += 1;
        self.longest = self.longest.max(length);
    }

    /// Examples counted.
    pub fn examples(&self) -> u64 {
        self.examples
    }

    /// The longest example, in tokens.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The length that `percent` of the examples do not exceed: exact up to 4096 tokens, else at most 6 % too long.
    pub fn percentile(&self, percent: f64) -> usize {
        let wanted = (percent / 100.0 * self.examples as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (class, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return last_of(class).min(self.longest);
            }
        }
        self.longest
    }

    /// The histogram in about two classes per doubling: shortest length, longest length, examples. From the first
    /// class that is not empty to the last.
    pub fn classes(&self) -> Vec<(usize, usize, u64)> {
        let mut classes: Vec<(usize, usize, u64)> = Vec::new();
        let (mut from, mut upto) = (0, 16);
        let mut sum = 0;
        for (class, count) in self.counts.iter().enumerate() {
            while last_of(class) > upto {
                classes.push((from, upto, sum));
                (from, upto, sum) = (upto + 1, next_bound(upto), 0);
            }
            sum += count;
        }
        classes.push((from, upto, sum));
        let first = classes.iter().position(|class| class.2 > 0).unwrap_or(classes.len());
        classes.split_off(first)
    }
}

/// 16, 24, 32, 48, 64, 96, …: powers of two and what lies in their middle.
fn next_bound(bound: usize) -> usize {
    if bound.is_power_of_two() { bound.saturating_add(bound / 2) } else { bound.saturating_mul(4) / 3 }
}

/// Classes above [`EXACT`] end where those of the histogram do: at 2^k and its sixteenths, the bound itself included.
fn class_of(length: usize) -> usize {
    if length <= EXACT {
        return length;
    }
    let octave = (length - 1).ilog2() as usize;
    let within = ((length - 1 - (1 << octave)) * CLASSES_PER_OCTAVE) >> octave;
    EXACT + 1 + (octave - EXACT.ilog2() as usize) * CLASSES_PER_OCTAVE + within
}

/// The longest length of a class.
fn last_of(class: usize) -> usize {
    if class <= EXACT {
        return class;
    }
    let above = class - EXACT - 1;
    let (octave, within) = (above / CLASSES_PER_OCTAVE, above % CLASSES_PER_OCTAVE);
    let power = 1_usize << (octave + EXACT.ilog2() as usize);
    power + (within + 1) * (power / CLASSES_PER_OCTAVE)
}

/// As the list of [`Lengths::classes`].
impl Serialize for Lengths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Class {
            from: usize,
            upto: usize,
            examples: u64,
        }
        let classes = self.classes();
        let mut list = serializer.serialize_seq(Some(classes.len()))?;
        for (from, upto, examples) in classes {
            list.serialize_element(&Class { from, upto, examples })?;
        }
        list.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact_for_short_examples_and_near_for_long_ones() {
        let mut lengths = Lengths::default();
        (1..=100).for_each(|length| lengths.add(length));
        assert_eq!([50.0, 90.0, 100.0].map(|p| lengths.percentile(p)), [50, 90, 100]);
        assert_eq!(Lengths::default().percentile(50.0), 0);
        let mut long = Lengths::default();
        for length in (4000..1_000_000).step_by(997) {
            long.add(length);
        }
        let middle = long.percentile(50.0) as f64;
        // Classes are a sixteenth of their octave wide.
        assert!((middle / 502_000.0 - 1.0).abs() < 0.0625, "{middle}");
        assert_eq!(long.percentile(100.0), long.longest());
    }

    #[test]
    fn classes_hold_every_example_once() {
        let mut lengths = Lengths::default();
        for length in [17, 24, 25, 100, 4095, 4096, 5000, 1 << 20] {
            lengths.add(length);
        }
        let classes = lengths.classes();
        assert_eq!(classes[0], (17, 24, 2));
        assert_eq!(classes.iter().map(|c| c.2).sum::<u64>(), lengths.examples());
        assert!(classes.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{classes:?}");
        let json = serde_json::to_value(&lengths).expect("JSON");
        assert_eq!(json[1], serde_json::json!({"from": 25, "upto": 32, "examples": 1}));
    }

    #[test]
    fn every_length_lies_in_its_class() {
        for length in (0..40).flat_map(|bit| [(1_usize << bit) - 1, 1 << bit, (1 << bit) + 1]) {
            let class = class_of(length);
            assert!(last_of(class) >= length, "{length}");
            assert!(class == 0 || last_of(class - 1) < length, "{length}");
        }
    }
}
