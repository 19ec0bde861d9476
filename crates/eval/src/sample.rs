//! One document with its prompt, answer and metrics: a line of lm_eval's `samples_*.jsonl`.

use crate::EvalError;
use crate::document::{Reading, Scores};
use crate::python::text::str_of;
use crate::run::Asked;
use crate::scoring::Answers;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// One line of a file of samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The line.
    pub fields: Map<String, Value>,
}

impl Sample {
    pub(crate) fn new(
        reading: &Reading<'_>,
        asked: &Asked<'_>,
        answers: &Answers,
        at: usize,
        filtered: &[Value],
        filter: &str,
        scores: &Scores,
    ) -> Result<Self, EvalError> {
        let spec = reading.spec;
        let target = reading.target(&spec.doc_to_target, asked.document);
        let target = target
            .map_err(|problem| reading.failed(asked.index, asked.document, "doc_to_target", problem))?;
        let target = str_of(&target);
        let mut arguments = Map::new();
        for (i, request) in asked.requests.iter().enumerate() {
            let own = request.arguments(spec).into_iter().enumerate();
            let own: Map<String, Value> = own.map(|(j, argument)| (format!("arg_{j}"), argument)).collect();
            arguments.insert(format!("gen_args_{i}"), own.into());
        }
        let (resps, filtered_resps) = answers.json(at, filtered);
        let names: Vec<&str> = scores.iter().map(|(name, _)| name.as_str()).collect();
        let prompt = asked.requests.first().map_or("", |request| request.first_argument());
        let document = serde_json::to_string_pretty(asked.document).unwrap_or_default();
        let fields = json!({
            "doc_id": asked.index,
            "doc": asked.document,
            "target": target,
            "arguments": arguments,
            "resps": resps,
            "filtered_resps": filtered_resps,
            "filter": filter,
            "metrics": names,
            "doc_hash": sha256(&document),
            "prompt_hash": sha256(prompt),
            "target_hash": sha256(&target),
        });
        let Value::Object(mut fields) = fields else { unreachable!("an object was written") };
        fields.extend(scores.iter().map(|(name, score)| (name.clone(), score.json())));
        Ok(Self { fields })
    }

    /// The hashes of document, prompt and target, one after the other.
    pub(crate) fn hashes(&self) -> String {
        let text = |key: &str| self.fields.get(key).and_then(Value::as_str).unwrap_or_default();
        ["doc_hash", "prompt_hash", "target_hash"].map(text).concat()
    }
}

/// SHA-256 in hexadecimal digits.
pub fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
