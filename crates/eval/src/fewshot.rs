//! Which documents come before a question as examples (lm_eval 0.4.13 `api/samplers.py`).

use crate::EvalError;
use crate::python::random::Random;
use crate::task::TaskSpec;
use serde_json::Value;

/// Draws the examples of one question after the other.
pub(crate) struct Examples<'a> {
    spec: &'a TaskSpec,
    pool: &'a [Value],
    random: Random,
    count: usize,
    /// The question itself may be among the examples' split.
    avoids_question: bool,
}

impl<'a> Examples<'a> {
    pub(crate) fn new(spec: &'a TaskSpec, pool: &'a [Value], count: usize, seed: u64) -> Self {
        // As in lm_eval, the names in the task's file decide, two missing ones included.
        let avoids_question = spec.fewshot.split == spec.test_split;
        Self { spec, pool, random: Random::new(seed), count, avoids_question }
    }

    /// The examples of the next question.
    pub(crate) fn next(&mut self, question: &Value) -> Result<Vec<&'a Value>, EvalError> {
        if self.count == 0 {
            return Ok(Vec::new());
        }
        let others = || self.pool.iter().filter(|document| *document != question);
        if self.spec.fewshot.is_first_n {
            let first: Vec<&Value> = match self.avoids_question {
                true => others().take(self.count).collect(),
                false => self.pool.iter().take(self.count).collect(),
            };
            return if first.len() == self.count {
                Ok(first)
            } else {
                Err(self.few(self.count, first.len()))
            };
        }
        if !self.avoids_question {
            return self.sample(&self.pool.iter().collect::<Vec<_>>(), self.count);
        }
        let all: Vec<&Value> = self.pool.iter().collect();
        let mut drawn = self.sample(&all, self.count + 1)?;
        drawn.retain(|document| *document != question);
        drawn.truncate(self.count);
        if drawn.len() < self.count {
            return self.sample(&others().collect::<Vec<_>>(), self.count);
        }
        Ok(drawn)
    }

    fn sample(&mut self, pool: &[&'a Value], count: usize) -> Result<Vec<&'a Value>, EvalError> {
        if count > pool.len() {
            return Err(self.few(count, pool.len()));
        }
        Ok(self.random.sample(pool.len(), count).into_iter().map(|index| pool[index]).collect())
    }

    fn few(&self, wanted: usize, available: usize) -> EvalError {
        EvalError::FewExamples { task: self.spec.name.clone(), wanted, available }
    }
}
