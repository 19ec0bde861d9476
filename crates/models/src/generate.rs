//! Text generation: the prompt in one pass, then one token at a time with a key/value cache.

use crate::sampling::{Sampler, Sampling};
use crate::{Decoder, KvCache, ModelError};
use foundry_kernels::Backend;
use std::ops::ControlFlow;

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// An end-of-sequence token, which is not part of the result.
    EndOfSequence,
    /// `max_new_tokens`, or the cache is full.
    Length,
    /// The callback said so (a stop string, an interrupt).
    Stopped,
}

/// What was generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// New tokens, without the end-of-sequence token.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
}

/// Continues `prompt`. Tokens already in `cache` that `prompt` starts with are not computed again: pass the whole
/// conversation each time. `on_token` sees each new token and may stop the generation (stop strings are the caller's,
/// who can decode). The cache ends with everything but the last token.
///
/// # Errors
/// An empty prompt, tokens outside the vocabulary, a prompt longer than the cache, settings outside their ranges,
/// scores that are not finite.
pub fn generate(
    decoder: &mut Decoder,
    backend: &dyn Backend,
    cache: &mut KvCache,
    prompt: &[u32],
    sampling: &Sampling,
    eos_token_ids: &[u32],
    on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Generation, ModelError> {
    let mut sampler = Sampler::new(sampling)?;
    let mut seen = prompt.to_vec();
    let mut logits = Vec::new();
    let mut tokens = Vec::new();
    let done = |tokens: Vec<u32>, finish: Finish| Ok(Generation { tokens, finish });
    cache.keep_common(prompt);
    while tokens.len() < sampling.max_new_tokens {
        if !tokens.is_empty() && seen.len() > cache.capacity() {
            return done(tokens, Finish::Length);
        }
        decoder.extend(backend, cache, &seen[cache.len()..], &mut logits)?;
        if !logits.iter().all(|logit| logit.is_finite()) {
            return Err(ModelError::LogitsNotFinite);
        }
        let token = sampler.next(&mut logits, &seen);
        if eos_token_ids.contains(&token) {
            return done(tokens, Finish::EndOfSequence);
        }
        tokens.push(token);
        seen.push(token);
        if on_token(token).is_break() {
            return done(tokens, Finish::Stopped);
        }
    }
    done(tokens, Finish::Length)
}
