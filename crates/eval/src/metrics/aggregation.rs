//! From the values of all documents to one number and its standard error (lm_eval 0.4.13 `api/metrics.py`).

use super::{bleu, chrf, classification, ter};
use crate::document::Score;
use crate::python::random::Random;
use crate::statistics::{mean, mean_stderr, sample_deviation};
use std::path::Path;

/// Documents drawn again at a time, from a generator with the number of the chunk as seed.
const CHUNK: usize = 1000;

/// How values become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aggregation {
    Mean,
    NanMean,
    Median,
    Perplexity,
    WeightedPerplexity,
    BitsPerByte,
    F1,
    Matthews,
    Brier,
    Bleu,
    Chrf {
        words: bool,
    },
    Ter,
    Bypass,
    /// The mean of all values of all documents.
    MeanOfAll,
}

/// One number and its standard error, where there is one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Aggregate {
    pub(crate) value: f64,
    pub(crate) stderr: Option<f64>,
}

impl Aggregation {
    pub(crate) const NAMES: &str = "mean, nanmean, median, perplexity, weighted_perplexity, bits_per_byte, f1, \
                                    matthews_corrcoef, brier_score, bleu, chrf, chrf++, ter or bypass";

    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "mean" => Self::Mean,
            "nanmean" => Self::NanMean,
            "median" => Self::Median,
            "perplexity" => Self::Perplexity,
            "weighted_perplexity" => Self::WeightedPerplexity,
            "bits_per_byte" => Self::BitsPerByte,
            "f1" => Self::F1,
            "matthews_corrcoef" => Self::Matthews,
            "brier_score" => Self::Brier,
            "bleu" => Self::Bleu,
            "chrf" => Self::Chrf { words: false },
            "chrf++" => Self::Chrf { words: true },
            "ter" => Self::Ter,
            "bypass" => Self::Bypass,
            _ => return None,
        })
    }

    /// A Python aggregation that is built in.
    pub(crate) fn native(file: &Path, function: &str) -> Option<Self> {
        let folder = file.parent()?.file_name()?.to_str()?;
        ((folder, function) == ("ifeval", "utils.agg_inst_level_acc")).then_some(Self::MeanOfAll)
    }

    /// The number and its standard error. `iterations`: of the bootstrap; 0: no standard errors.
    ///
    /// # Errors
    /// Values that cannot be aggregated so.
    pub(crate) fn apply(self, scores: &[&Score], iterations: usize) -> Result<Aggregate, String> {
        match self {
            Self::Bypass => return Ok(Aggregate { value: 999.0, stderr: None }),
            Self::MeanOfAll => return mean_of_all(scores),
            Self::WeightedPerplexity | Self::BitsPerByte => return self.weighted(scores),
            Self::F1 | Self::Matthews => {
                let items: Vec<(i64, i64)> =
                    scores.iter().map(|score| classes(score)).collect::<Result<_, _>>()?;
                if self == Self::F1 && items.iter().any(|(g, c)| ![0, 1].contains(g) || ![0, 1].contains(c)) {
                    return Err("f1 is for two classes, 0 and 1; use mcc".into());
                }
                let f = if self == Self::F1 { classification::f1 } else { classification::matthews };
                return Ok(resampled(&items, iterations, &f));
            }
            Self::Brier => return brier(scores),
            Self::Bleu => {
                let items: Result<Vec<_>, String> =
                    scores.iter().map(|score| texts(score).map(|(r, t)| bleu::counts(t, r))).collect();
                return Ok(resampled(&items?, iterations.min(100), &bleu::bleu));
            }
            Self::Chrf { words } => {
                let items: Result<Vec<_>, String> =
                    scores.iter().map(|score| texts(score).map(|(r, t)| chrf::counts(t, r, words))).collect();
                return Ok(resampled(&items?, iterations.min(100), &chrf::chrf));
            }
            Self::Ter => {
                let items: Result<Vec<_>, String> =
                    scores.iter().map(|score| texts(score).map(|(r, t)| ter::counts(t, r))).collect();
                return Ok(resampled(&items?, iterations.min(100), &ter::ter));
            }
            Self::Mean | Self::NanMean | Self::Median | Self::Perplexity => {}
        }
        let numbers: Option<Vec<f64>> = scores.iter().map(|score| score.number()).collect();
        let numbers = numbers.ok_or("these values are no numbers, and cannot be averaged")?;
        Ok(match self {
            Self::Mean => {
                let stderr = if iterations > 0 { mean_stderr(&numbers) } else { None };
                Aggregate { value: mean(&numbers), stderr }
            }
            Self::Perplexity => resampled(&numbers, iterations, &|items: &[&f64]| {
                (-(items.iter().copied().sum::<f64>() / items.len() as f64)).exp()
            }),
            Self::Median => resampled(&numbers, iterations, &median),
            _ => resampled(&numbers, iterations, &|items: &[&f64]| {
                let kept: Vec<f64> = items.iter().map(|x| **x).filter(|x| !x.is_nan()).collect();
                mean(&kept)
            }),
        })
    }

    fn weighted(self, scores: &[&Score]) -> Result<Aggregate, String> {
        let (mut sum, mut weights) = (0.0, 0.0);
        for score in scores {
            let Score::Weighted(value, weight) = score else {
                return Err("this aggregation is for log-likelihoods with weights".into());
            };
            sum += value;
            weights += weight;
        }
        let per_weight = sum / weights;
        let value = if self == Self::BitsPerByte {
            -per_weight / std::f64::consts::LN_2
        } else {
            (-per_weight).exp()
        };
        Ok(Aggregate { value, stderr: None })
    }
}

fn mean_of_all(scores: &[&Score]) -> Result<Aggregate, String> {
    let mut all = Vec::new();
    for score in scores {
        let Score::Flags(flags) = score else {
            return Err("these values are no lists of true and false".into());
        };
        all.extend(flags.iter().map(|flag| f64::from(u8::from(*flag))));
    }
    Ok(Aggregate { value: mean(&all), stderr: None })
}

/// Upper median.
fn median(items: &[&f64]) -> f64 {
    let mut sorted: Vec<f64> = items.iter().map(|x| **x).collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn classes(score: &Score) -> Result<(i64, i64), String> {
    match score {
        Score::Classes(gold, chosen) => match gold.as_i64() {
            Some(gold) => Ok((gold, *chosen as i64)),
            None => Err(format!("the right class {gold} is not one number")),
        },
        _ => Err("this aggregation is for classes".into()),
    }
}

fn texts(score: &Score) -> Result<(&[String], &str), String> {
    match score {
        Score::Texts(references, text) => Ok((references, text)),
        _ => Err("this aggregation is for texts".into()),
    }
}

/// Mean squared distance of the probabilities from the truth.
fn brier(scores: &[&Score]) -> Result<Aggregate, String> {
    let mut total = 0.0;
    for score in scores {
        let Score::Probabilities(gold, probabilities) = score else {
            return Err("this aggregation is for probabilities".into());
        };
        let gold = gold.as_u64().filter(|&gold| (gold as usize) < probabilities.len());
        let gold = gold.ok_or("brier_score wants one right class")? as usize;
        let target = |i: usize| if i == gold { 1.0 } else { 0.0 };
        total += probabilities.iter().enumerate().map(|(i, p)| (p - target(i)).powi(2)).sum::<f64>();
    }
    Ok(Aggregate { value: total / scores.len() as f64, stderr: None })
}

/// The number, and the deviation of those of `iterations` samples with replacement.
fn resampled<T: Sync>(items: &[T], iterations: usize, f: &(dyn Fn(&[&T]) -> f64 + Sync)) -> Aggregate {
    let all: Vec<&T> = items.iter().collect();
    let value = f(&all);
    if iterations == 0 || items.len() < 2 {
        return Aggregate { value, stderr: None };
    }
    let size = CHUNK.min(iterations);
    let chunks: Vec<usize> = (0..iterations / size).collect();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(chunks.len());
    let draw = |chunk: &usize| {
        let mut random = Random::new(*chunk as u64);
        let mut sample = Vec::with_capacity(items.len());
        let mut values = Vec::with_capacity(size);
        for _ in 0..size {
            sample.clear();
            sample.extend((0..items.len()).map(|_| &items[random.choice(items.len())]));
            values.push(f(&sample));
        }
        values
    };
    let values: Vec<f64> = std::thread::scope(|scope| {
        let parts: Vec<_> = chunks
            .chunks(chunks.len().div_ceil(threads))
            .map(|part| scope.spawn(move || part.iter().flat_map(draw).collect::<Vec<f64>>()))
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("drawing samples does not panic")).collect()
    });
    Aggregate { value, stderr: sample_deviation(&values) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn class(gold: i64, chosen: usize) -> Score {
        Score::Classes(gold.into(), chosen)
    }

    fn apply(aggregation: Aggregation, scores: &[Score], iterations: usize) -> Aggregate {
        aggregation.apply(&scores.iter().collect::<Vec<_>>(), iterations).unwrap()
    }

    #[test]
    fn bootstrap_is_lm_evals() {
        // lm_eval.api.metrics.bootstrap_stderr(perplexity, [-1.5, -0.25, -3.0, -2.0, -0.5], iters=2000)
        let numbers = [-1.5, -0.25, -3.0, -2.0, -0.5].map(Score::Number);
        let result = apply(Aggregation::Perplexity, &numbers, 2000);
        assert!((result.value - 1.45f64.exp()).abs() < 1e-12);
        assert!((result.stderr.unwrap() - 2.283231858562565).abs() < 1e-12, "{result:?}");
        // … of (matthews_corrcoef, [(1,1),(0,1),(1,0),(1,1),(0,0)], iters=1000)
        let classes = [class(1, 1), class(0, 1), class(1, 0), class(1, 1), class(0, 0)];
        let result = apply(Aggregation::Matthews, &classes, 1000);
        assert!((result.stderr.unwrap() - 0.45980548193585813).abs() < 1e-12, "{result:?}");
    }

    #[test]
    fn values_and_errors_are_lm_evals() {
        let golden: Value = serde_json::from_str(include_str!("../../tests/goldens/metrics.json")).unwrap();
        for (name, own) in golden.as_object().unwrap() {
            let score = |item: &Value| match name.as_str() {
                "f1" | "matthews_corrcoef" => {
                    class(item[0].as_i64().unwrap(), item[1].as_u64().unwrap() as usize)
                }
                "brier_score" => {
                    let shares = item[1].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
                    Score::Probabilities(item[0].clone(), shares)
                }
                _ => Score::Texts(vec![item[0].as_str().unwrap().into()], item[1].as_str().unwrap().into()),
            };
            let scores: Vec<Score> = own["items"].as_array().unwrap().iter().map(score).collect();
            let result = apply(Aggregation::named(name).unwrap(), &scores, 100);
            // Sums of a hundred numbers up to 100, in another order than numpy's.
            let is_near = |ours: f64, theirs: &Value| (ours - theirs.as_f64().unwrap()).abs() < 1e-10;
            assert!(is_near(result.value, &own["value"]), "{name}: {result:?}");
            match result.stderr {
                Some(stderr) => assert!(is_near(stderr, &own["stderr"]), "{name}: {result:?}"),
                None => assert!(own["stderr"].is_null(), "{name}"),
            }
        }
    }

    #[test]
    fn weights_medians_and_nans() {
        let weighted = [Score::Weighted(-8.0, 4.0), Score::Weighted(-4.0, 2.0)];
        assert!((apply(Aggregation::WeightedPerplexity, &weighted, 100).value - 2f64.exp()).abs() < 1e-12);
        let bits = apply(Aggregation::BitsPerByte, &weighted, 100);
        assert!((bits.value - 2.0 / std::f64::consts::LN_2).abs() < 1e-12 && bits.stderr.is_none());
        let numbers = [3.0, 1.0, 2.0, 4.0].map(Score::Number);
        assert_eq!(apply(Aggregation::Median, &numbers, 0), Aggregate { value: 3.0, stderr: None });
        let broken = [1.0, f64::NAN].map(Score::Number);
        assert_eq!(apply(Aggregation::NanMean, &broken, 0).value, 1.0);
        let probabilities = [Score::Probabilities(1.into(), vec![0.25, 0.75])];
        assert_eq!(apply(Aggregation::Brier, &probabilities, 0).value, 0.125);
        assert!(Aggregation::F1.apply(&[&class(2, 0)], 0).is_err());
        assert!(Aggregation::Mean.apply(&[&class(1, 0)], 0).is_err());
    }
}
