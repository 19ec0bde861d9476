//! A decoder and its tokenizer as evaluations see them ([`foundry_eval::LanguageModel`]).

use crate::error::BoxedError;
use foundry_eval::{Conventions, EvalError, GenerateRequest, LanguageModel, LogLikelihood, ScoreRequest};
use foundry_formats::Tokenizer;
use foundry_kernels::Backend;
use foundry_models::inference::{Answers, Continuations, Request, RequestId};
use foundry_models::{Decoder, Inference, InferenceOptions, ModelError, Sampling};
use std::collections::HashMap;

/// Most requests that generate at once.
const MAX_RUNNING: usize = 64;
/// Requests that are open at once: those that generate, and as many that wait.
const MAX_OPEN: usize = 2 * MAX_RUNNING;
/// Most room in the cache beside the longest of those that generate. Where it runs out, some wait.
const OTHERS_TOKENS: usize = 32_768;
/// Room for others takes at most this part of the memory there is.
const SHARE_FOR_OTHERS: u64 = 4;

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
    /// The model's own settings of generation, where a request has none: its generation_config.json.
    pub sampling: Sampling,
    /// Told how many of how many requests have been answered.
    pub progress: Option<&'a mut dyn FnMut(usize, usize)>,
    /// Bytes that the cache may take; `None`: any number.
    pub memory: Option<u64>,
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

/// A cache that does not fit.
#[derive(Debug, thiserror::Error)]
#[error(
    "the keys and values of a text of {tokens} tokens take {needed} bytes, and {available} are available; cut the texts \
     with a smaller maximal length, or take fewer examples"
)]
struct CacheTooLarge {
    tokens: usize,
    needed: u64,
    available: u64,
}

fn failed(error: impl Into<BoxedError>) -> EvalError {
    EvalError::Model(error.into())
}

impl<'a> DecoderLanguageModel<'a> {
    /// With transformers' defaults of generation; nobody is told how far it is, and the cache may be of any size.
    pub fn new(
        decoder: &'a mut Decoder,
        backend: &'a dyn Backend,
        tokenizer: &'a Tokenizer,
        eos_token_ids: Vec<u32>,
    ) -> Self {
        let sampling = Sampling::default();
        Self { decoder, backend, tokenizer, eos_token_ids, sampling, progress: None, memory: None }
    }

    /// What evaluations must know about the model: its longest context, and BOS, or EOS where there is none. `None`:
    /// it has neither.
    pub fn conventions(&self) -> Option<Conventions> {
        conventions(self.tokenizer, self.decoder.config().max_position_embeddings)
    }

    /// A cache for sequences of up to `longest` tokens, with room for up to `others` tokens of others.
    fn inference(&self, longest: usize, others: usize) -> Result<Inference, EvalError> {
        let most = self.decoder.config().max_position_embeddings;
        if longest > most {
            return Err(failed(TooLong { tokens: longest, most }));
        }
        let options = |others: usize| InferenceOptions {
            max_sequence: longest,
            cache_tokens: longest + others,
            max_running: MAX_RUNNING,
            ..InferenceOptions::default()
        };
        let (config, compute) = (self.decoder.config(), self.decoder.compute());
        let others = match self.memory {
            None => others,
            Some(available) => {
                let bytes = |others: usize| Inference::bytes(config, compute, options(others));
                let needed = bytes(0);
                if needed > available {
                    return Err(failed(CacheTooLarge { tokens: longest, needed, available }));
                }
                fitting(others, available, bytes)
            }
        };
        Ok(Inference::allocate(self.backend, config, compute, options(others)))
    }

    fn tell(&mut self, answered: usize, asked: usize) {
        if let Some(progress) = &mut self.progress {
            progress(answered, asked);
        }
    }
}

/// Room for others that fits into `available` bytes: `others` tokens, half of them, and so on. `bytes`: of a cache with
/// room for that many, of which `bytes(0)` fits.
fn fitting(others: usize, available: u64, bytes: impl Fn(usize) -> u64) -> usize {
    let needed = bytes(0);
    let fits = |others: &usize| {
        let whole = bytes(*others);
        *others == 0 || (whole <= available && whole - needed <= available / SHARE_FOR_OTHERS)
    };
    std::iter::successors(Some(others), |others| Some(others / 2)).find(fits).unwrap_or(0)
}

/// What evaluations must know about a model that takes `max_length` tokens. `None`: its tokenizer has neither BOS nor
/// EOS.
pub fn conventions(tokenizer: &Tokenizer, max_length: usize) -> Option<Conventions> {
    let prefix_token = tokenizer.bos_token_id().or(tokenizer.eos_token_id())?;
    Some(Conventions {
        max_length,
        prefix_token,
        prefix_text: tokenizer.id_to_token(prefix_token).unwrap_or_default(),
        eos_text: tokenizer.eos_token_id().and_then(|id| tokenizer.id_to_token(id)),
    })
}

/// Indices of texts in the order of their tokens, so that those with a common beginning are neighbours.
fn by_beginning<'t>(texts: impl Iterator<Item = &'t [u32]>) -> Vec<usize> {
    let texts: Vec<&[u32]> = texts.collect();
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by(|a, b| texts[*a].cmp(texts[*b]));
    order
}

/// Requests of one context, which are neighbours in `order`, together.
fn grouped(requests: &[ScoreRequest], order: &[usize]) -> Vec<Continuations> {
    let mut groups: Vec<Continuations> = Vec::new();
    for request in order.iter().map(|index| &requests[*index]) {
        let (context, ending) = request.parts();
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
        let order = by_beginning(requests.iter().map(|request| request.parts().0));
        let groups = grouped(requests, &order);
        // Requests before each group.
        let before: Vec<usize> = std::iter::once(0)
            .chain(groups.iter().scan(0, |sum, group| {
                *sum += group.endings.len();
                Some(*sum)
            }))
            .collect();
        // Beside the longest: those that share its row, and beginnings that later ones share.
        let mut inference = self.inference(longest, 4 * self.decoder.max_tokens())?;
        let mut progress = self.progress.take();
        let mut told = |done: usize| {
            if let Some(progress) = &mut progress {
                progress(before[done], requests.len());
            }
        };
        told(0);
        let scores = inference.score_and_tell(self.decoder, self.backend, &groups, &mut told);
        self.progress = progress;
        let scores = scores.map_err(|error| match error {
            ModelError::ScoreNotFinite { group, ending } => {
                EvalError::NotFinite { request: order[before[group] + ending] }
            }
            other => failed(other),
        })?;
        let mut answers = vec![LogLikelihood { log_prob: f64::NAN, is_greedy: false }; requests.len()];
        for (index, score) in order.into_iter().zip(scores.into_iter().flatten()) {
            answers[index] = LogLikelihood { log_prob: score.log_prob, is_greedy: score.is_greedy };
        }
        Ok(answers)
    }

    fn generate_until(&mut self, requests: &[GenerateRequest]) -> Result<Vec<String>, EvalError> {
        let Some(longest) = requests.iter().map(|r| r.tokens.len() + r.max_new_tokens).max() else {
            return Ok(Vec::new());
        };
        let together = longest * (requests.len().min(MAX_RUNNING) - 1);
        let mut inference = self.inference(longest, together.min(OTHERS_TOKENS))?;
        let mut answers = Answers::new(self.tokenizer);
        let mut open: HashMap<RequestId, usize> = HashMap::new();
        let mut texts = vec![String::new(); requests.len()];
        let mut waiting =
            by_beginning(requests.iter().map(|request| &request.tokens[..])).into_iter().peekable();
        let mut answered = 0;
        self.tell(0, requests.len());
        while waiting.peek().is_some() || !open.is_empty() {
            for index in waiting.by_ref().take(MAX_OPEN - open.len()) {
                let asked = &requests[index];
                let request = Request::new(
                    asked.tokens.clone(),
                    sampling(asked, &self.sampling),
                    self.eos_token_ids.clone(),
                );
                let id = answers.submit(&mut inference, request, &asked.until).map_err(failed)?;
                open.insert(id, index);
            }
            let mut news = Vec::new();
            let stepped = answers.step(&mut inference, self.decoder, self.backend, &mut news);
            stepped.map_err(|error| match error {
                ModelError::LogitsNotFinite { request } if open.contains_key(&request) => {
                    EvalError::NotFinite { request: open[&request] }
                }
                other => failed(other),
            })?;
            for news in news {
                texts[open[&news.id]].push_str(&news.text);
                if news.finish.is_some() {
                    open.remove(&news.id);
                    answered += 1;
                }
            }
            self.tell(answered, requests.len());
        }
        Ok(texts)
    }
}

/// A request's settings over the model's.
fn sampling(asked: &GenerateRequest, model: &Sampling) -> Sampling {
    let drawing = &asked.drawing;
    Sampling {
        do_sample: drawing.do_sample,
        temperature: drawing.temperature.unwrap_or(model.temperature),
        top_p: drawing.top_p.unwrap_or(model.top_p),
        top_k: drawing.top_k.unwrap_or(model.top_k),
        seed: drawing.seed,
        max_new_tokens: asked.max_new_tokens,
        ..model.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_others_is_within_its_share_and_what_is_free() {
        let bytes = |longest: u64| move |others: usize| longest + others as u64;
        assert_eq!(fitting(20, 100, bytes(10)), 20);
        assert_eq!(fitting(64, 100, bytes(10)), 16, "a quarter");
        assert_eq!(fitting(20, 100, bytes(90)), 10, "what is free beside the longest");
        assert_eq!(fitting(20, 100, bytes(100)), 0);
    }

    #[test]
    fn requests_of_one_context_are_together_wherever_they_were() {
        let request = |tokens: &[u32]| ScoreRequest { tokens: tokens.to_vec(), scored: 1 };
        let requests =
            [request(&[1, 2, 3, 7]), request(&[1, 9, 5]), request(&[1, 2, 3, 8]), request(&[1, 2, 4, 7])];
        let order = by_beginning(requests.iter().map(|request| request.parts().0));
        assert_eq!(order, [0, 2, 3, 1], "the longest common beginnings are neighbours");
        let groups = grouped(&requests, &order);
        assert_eq!(groups.len(), 3);
        assert_eq!((groups[0].prefix.as_slice(), groups[0].endings.len()), ([1, 2, 3].as_slice(), 2));
    }
}
