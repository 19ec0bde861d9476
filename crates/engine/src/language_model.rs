//! A decoder and its tokenizer as evaluations see them ([`foundry_eval::LanguageModel`]).

use crate::error::BoxedError;
use foundry_data::IGNORED;
use foundry_eval::{Conventions, EvalError, GenerateRequest, LanguageModel, LogLikelihood, ScoreRequest};
use foundry_formats::Tokenizer;
use foundry_kernels::{Backend, Dtype, RowLoss};
use foundry_models::generate::generate;
use foundry_models::{Batch, Decoder, KvCache, Sampling};
use std::ops::ControlFlow;

/// A decoder that answers an evaluation's requests.
pub struct DecoderLanguageModel<'a> {
    /// The model; several requests share a row of up to its longest.
    pub decoder: &'a mut Decoder,
    /// Where it computes.
    pub backend: &'a dyn Backend,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Tokens that end a generation.
    pub eos_token_ids: Vec<u32>,
}

/// A request without a token to score, or without one before those.
#[derive(Debug, thiserror::Error)]
#[error(
    "a request asks for the last {scored} of {tokens} tokens to be scored; at least one must be scored and at least one \
     must come before it: start the context with BOS or EOS"
)]
struct ScoredOutOfRange {
    scored: usize,
    tokens: usize,
}

fn failed(error: impl Into<BoxedError>) -> EvalError {
    EvalError::Model(error.into())
}

impl DecoderLanguageModel<'_> {
    /// What evaluations must know about the model: its longest context (one token less than its longest row, because a
    /// row also holds the last predicted token), and BOS, or EOS where there is none. `None`: it has neither.
    pub fn conventions(&self) -> Option<Conventions> {
        let longest = self.decoder.max_tokens().saturating_sub(1);
        let prefix_token = self.tokenizer.bos_token_id().or(self.tokenizer.eos_token_id())?;
        Some(Conventions {
            max_length: longest.min(self.decoder.config().max_position_embeddings),
            prefix_token,
            prefix_text: self.tokenizer.id_to_token(prefix_token).unwrap_or_default(),
            eos_text: self.tokenizer.eos_token_id().and_then(|id| self.tokenizer.id_to_token(id)),
        })
    }

    /// Scores requests that fit into one row together.
    fn score(
        &mut self,
        requests: &[ScoreRequest],
        answers: &mut Vec<LogLikelihood>,
    ) -> Result<(), EvalError> {
        let (mut tokens, mut seq_lens, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for request in requests {
            let (scored, tokens) = (request.scored, request.tokens.len());
            if scored == 0 || scored >= tokens {
                return Err(failed(ScoredOutOfRange { scored, tokens }));
            }
        }
        for request in requests {
            let context = request.tokens.len() - request.scored;
            tokens.extend_from_slice(&request.tokens);
            seq_lens.push(request.tokens.len() as u32);
            labels.resize(labels.len() + context, IGNORED);
            labels.extend(request.tokens[context..].iter().map(|&token| token as i32));
        }
        let batch = Batch { tokens: &tokens, seq_lens: &seq_lens, labels: &labels };
        let mut scored: Vec<RowLoss> = Vec::new();
        self.decoder.forward_loss(self.backend, &batch, Some(&mut scored)).map_err(failed)?;
        let mut rest = scored.as_slice();
        for request in requests {
            let (own, others) = rest.split_at(request.scored);
            rest = others;
            answers.push(LogLikelihood {
                log_prob: own.iter().map(|row| f64::from(row.log_prob)).sum(),
                is_greedy: own.iter().all(|row| row.is_greedy),
            });
        }
        Ok(())
    }

    /// Generates for one request; the text up to the first stop string.
    fn answer(&mut self, request: &GenerateRequest, cache: &mut KvCache) -> Result<String, EvalError> {
        let drawing = &request.drawing;
        let sampling = Sampling {
            do_sample: drawing.temperature > 0.0,
            temperature: if drawing.temperature > 0.0 { drawing.temperature } else { 1.0 },
            top_p: drawing.top_p.unwrap_or(1.0),
            top_k: drawing.top_k.unwrap_or(0),
            seed: drawing.seed,
            max_new_tokens: request.max_new_tokens,
            ..Sampling::default()
        };
        let tokenizer = self.tokenizer;
        let mut new_tokens = Vec::new();
        let mut watch = |token| {
            new_tokens.push(token);
            // Undecodable so far (half a character) is not a stop string yet.
            let text = tokenizer.decode(&new_tokens, true).unwrap_or_default();
            if request.until.iter().any(|stop| text.contains(stop)) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let eos = &self.eos_token_ids;
        let generation =
            generate(self.decoder, self.backend, cache, &request.tokens, &sampling, eos, &mut watch)
                .map_err(failed)?;
        let text = tokenizer.decode(&generation.tokens, true).map_err(failed)?;
        let end = request.until.iter().filter_map(|stop| text.find(stop)).min().unwrap_or(text.len());
        Ok(text[..end].to_owned())
    }
}

impl LanguageModel for DecoderLanguageModel<'_> {
    fn encode(&mut self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, EvalError> {
        self.tokenizer.encode(text, add_special_tokens).map_err(failed)
    }

    fn log_likelihood(&mut self, requests: &[ScoreRequest]) -> Result<Vec<LogLikelihood>, EvalError> {
        let longest = self.decoder.max_tokens();
        let mut answers = Vec::with_capacity(requests.len());
        let (mut start, mut tokens) = (0, 0);
        for (index, request) in requests.iter().enumerate() {
            if index > start && tokens + request.tokens.len() > longest {
                self.score(&requests[start..index], &mut answers)?;
                (start, tokens) = (index, 0);
            }
            tokens += request.tokens.len();
        }
        if start < requests.len() {
            self.score(&requests[start..], &mut answers)?;
        }
        Ok(answers)
    }

    fn generate_until(&mut self, requests: &[GenerateRequest]) -> Result<Vec<String>, EvalError> {
        let Some(room) = requests.iter().map(|r| r.tokens.len() + r.max_new_tokens).max() else {
            return Ok(Vec::new());
        };
        let compute: Dtype = self.decoder.compute();
        let mut cache = KvCache::allocate(self.backend, self.decoder.config(), compute, room);
        requests.iter().map(|request| self.answer(request, &mut cache)).collect()
    }
}
