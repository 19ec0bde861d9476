//! A decoder and its tokenizer as evaluations see them ([`foundry_eval::LanguageModel`]).

use crate::error::BoxedError;
use foundry_eval::{Conventions, EvalError, GenerateRequest, LanguageModel, LogLikelihood, ScoreRequest};
use foundry_formats::Tokenizer;
use foundry_kernels::Backend;
use foundry_models::inference::{Answers, Continuations, Request, RequestId};
use foundry_models::{Decoder, Inference, InferenceOptions, Sampling};
use std::collections::HashMap;

/// Most requests that generate at once.
const MAX_RUNNING: usize = 64;
/// Most room in the cache beside the longest of them. They share examples; where room runs out all the same, some wait.
const OTHERS_TOKENS: usize = 8192;

/// A decoder that answers an evaluation's requests.
pub struct DecoderLanguageModel<'a> {
    /// The model; what it computes at once are rows of up to its longest.
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

/// A request for more tokens than the model has positions.
#[derive(Debug, thiserror::Error)]
#[error("a request has {tokens} tokens, the model takes at most {most} (its max_position_embeddings)")]
struct TooLong {
    tokens: usize,
    most: usize,
}

fn failed(error: impl Into<BoxedError>) -> EvalError {
    EvalError::Model(error.into())
}

impl DecoderLanguageModel<'_> {
    /// What evaluations must know about the model: its longest context, and BOS, or EOS where there is none. `None`:
    /// it has neither.
    pub fn conventions(&self) -> Option<Conventions> {
        let prefix_token = self.tokenizer.bos_token_id().or(self.tokenizer.eos_token_id())?;
        Some(Conventions {
            max_length: self.decoder.config().max_position_embeddings,
            prefix_token,
            prefix_text: self.tokenizer.id_to_token(prefix_token).unwrap_or_default(),
            eos_text: self.tokenizer.eos_token_id().and_then(|id| self.tokenizer.id_to_token(id)),
        })
    }

    /// A cache for sequences of up to `longest` tokens, with room for `others` tokens of others.
    fn inference(&self, longest: usize, others: usize) -> Result<Inference, EvalError> {
        let most = self.decoder.config().max_position_embeddings;
        if longest > most {
            return Err(failed(TooLong { tokens: longest, most }));
        }
        let options = InferenceOptions {
            max_sequence: longest,
            cache_tokens: longest + others,
            max_running: MAX_RUNNING,
            ..InferenceOptions::default()
        };
        let decoder = &self.decoder;
        Ok(Inference::allocate(self.backend, decoder.config(), decoder.compute(), options))
    }
}

/// Neighbouring requests of one context, together.
fn grouped(requests: &[ScoreRequest]) -> Vec<Continuations> {
    let mut groups: Vec<Continuations> = Vec::new();
    for request in requests {
        let (context, ending) = request.tokens.split_at(request.tokens.len() - request.scored);
        match groups.last_mut() {
            Some(group) if group.prefix == context => group.endings.push(ending.to_vec()),
            _ => groups.push(Continuations { prefix: context.to_vec(), endings: vec![ending.to_vec()] }),
        }
    }
    groups
}

impl LanguageModel for DecoderLanguageModel<'_> {
    fn encode(&mut self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, EvalError> {
        self.tokenizer.encode(text, add_special_tokens).map_err(failed)
    }

    fn log_likelihood(&mut self, requests: &[ScoreRequest]) -> Result<Vec<LogLikelihood>, EvalError> {
        for ScoreRequest { tokens, scored } in requests {
            let (scored, tokens) = (*scored, tokens.len());
            if scored == 0 || scored >= tokens {
                return Err(failed(ScoredOutOfRange { scored, tokens }));
            }
        }
        // The last token is only predicted.
        let Some(longest) = requests.iter().map(|request| request.tokens.len() - 1).max() else {
            return Ok(Vec::new());
        };
        // Beside the longest: those that share its row, and beginnings that later ones share.
        let mut inference = self.inference(longest, 4 * self.decoder.max_tokens())?;
        let scores = inference.score(self.decoder, self.backend, &grouped(requests)).map_err(failed)?;
        let answer = |score: foundry_models::inference::Score| LogLikelihood {
            log_prob: score.log_prob,
            is_greedy: score.is_greedy,
        };
        Ok(scores.into_iter().flatten().map(answer).collect())
    }

    fn generate_until(&mut self, requests: &[GenerateRequest]) -> Result<Vec<String>, EvalError> {
        let Some(longest) = requests.iter().map(|r| r.tokens.len() + r.max_new_tokens).max() else {
            return Ok(Vec::new());
        };
        let together = longest * (requests.len().min(MAX_RUNNING) - 1);
        let mut inference = self.inference(longest, together.min(OTHERS_TOKENS))?;
        let mut answers = Answers::new(self.tokenizer);
        let mut order: HashMap<RequestId, usize> = HashMap::new();
        for (index, asked) in requests.iter().enumerate() {
            let drawing = &asked.drawing;
            let sampling = Sampling {
                do_sample: drawing.temperature > 0.0,
                temperature: if drawing.temperature > 0.0 { drawing.temperature } else { 1.0 },
                top_p: drawing.top_p.unwrap_or(1.0),
                top_k: drawing.top_k.unwrap_or(0),
                seed: drawing.seed,
                max_new_tokens: asked.max_new_tokens,
                ..Sampling::default()
            };
            let request = Request::new(asked.tokens.clone(), sampling, self.eos_token_ids.clone());
            order.insert(answers.submit(&mut inference, request, &asked.until).map_err(failed)?, index);
        }
        let (mut texts, mut news) = (vec![String::new(); requests.len()], Vec::new());
        while answers.step(&mut inference, self.decoder, self.backend, &mut news).map_err(failed)? > 0 {
            for news in news.drain(..) {
                texts[order[&news.id]].push_str(&news.text);
            }
        }
        news.drain(..).for_each(|news| texts[order[&news.id]].push_str(&news.text));
        Ok(texts)
    }
}
