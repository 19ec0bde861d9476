//! A request on its way: its tokens, its blocks and how far it is computed.

use super::blocks::{Blocks, Name};
use super::cache::PagedRow;
use super::request::{Event, Finish, Request, RequestId, TokenScore};
use crate::ModelError;
use crate::sampling::Sampler;

/// The tokens of one sequence and where their keys and values are.
#[derive(Default)]
pub(super) struct Held {
    /// All tokens so far.
    pub(super) tokens: Vec<u32>,
    /// How many of them have their keys and values in `blocks`, or will have after the pass that is being laid out.
    pub(super) computed: usize,
    pub(super) blocks: Vec<u32>,
    /// The first so many of `blocks` can be found by others.
    named: usize,
    /// Name of the last of those.
    name: Name,
}

impl Held {
    /// Nothing computed, no block held.
    pub(super) fn new(tokens: Vec<u32>) -> Self {
        Self { tokens, ..Self::default() }
    }

    /// Takes over the blocks that others have computed, leaving at least the last token to be computed.
    pub(super) fn find_beginning(&mut self, blocks: &mut Blocks) {
        debug_assert!(self.blocks.is_empty());
        let most = self.tokens.len().saturating_sub(1);
        (self.blocks, self.name) = blocks.hold_beginning(&self.tokens[..most]);
        self.named = self.blocks.len();
        self.computed = self.named * blocks.block_tokens();
    }

    /// Takes over the full blocks of another sequence, which these tokens begin with.
    pub(super) fn share(&mut self, other: &Held, blocks: &mut Blocks) {
        debug_assert!(self.blocks.is_empty());
        self.blocks.extend_from_slice(&other.blocks[..other.named]);
        self.blocks.iter().for_each(|block| blocks.hold(*block));
        (self.named, self.name) = (other.named, other.name);
        self.computed = self.named * blocks.block_tokens();
    }

    /// Tokens that are not computed yet.
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Blocks to take so that `more` tokens fit.
    pub(super) fn missing(&self, more: usize, blocks: &Blocks) -> usize {
        (self.computed + more).div_ceil(blocks.block_tokens()).saturating_sub(self.blocks.len())
    }

    /// Makes room for `more` tokens; `false`: there are not enough blocks, and nothing was taken.
    pub(super) fn make_room(&mut self, more: usize, blocks: &mut Blocks) -> bool {
        let missing = self.missing(more, blocks);
        if missing > blocks.available() {
            return false;
        }
        self.blocks.extend((0..missing).map(|_| blocks.take().expect("as many are available")));
        true
    }

    /// Appends the next `count` tokens to a row, for which there is room. Others may find the blocks that become full:
    /// in every layer all rows of a pass are stored before any is read. Returns the row of the last one.
    pub(super) fn lay_out(&mut self, count: usize, row: &mut PagedRow, blocks: &mut Blocks) -> usize {
        let (from, to, size) = (self.computed, self.computed + count, blocks.block_tokens());
        let first = row.push(&self.tokens[from..to], from, &self.blocks, size);
        self.computed = to;
        for index in self.named..to / size {
            let tokens = &self.tokens[index * size..(index + 1) * size];
            self.name = blocks.name(self.blocks[index], self.name, tokens);
            self.named = index + 1;
        }
        first + count - 1
    }

    /// Gives all blocks back; the tokens stay.
    pub(super) fn release(&mut self, blocks: &mut Blocks) {
        blocks.release(&mut self.blocks);
        (self.computed, self.named, self.name) = (0, 0, 0);
    }
}

/// A request that has not finished.
pub(super) struct Sequence {
    pub(super) id: RequestId,
    pub(super) held: Held,
    /// New tokens so far.
    generated: usize,
    max_new_tokens: usize,
    sampler: Sampler,
    eos_token_ids: Vec<u32>,
    log_probs: Option<usize>,
    /// Tokens of the prompt that are still to be told of: those from here on, before `prompt_end`.
    prompt_told: usize,
    prompt_end: usize,
}

impl Sequence {
    pub(super) fn new(id: RequestId, request: Request) -> Result<Self, ModelError> {
        let Request { tokens, sampling, eos_token_ids, log_probs, prompt_log_probs } = request;
        let prompt_end = if prompt_log_probs { tokens.len() } else { 0 };
        Ok(Self {
            id,
            sampler: Sampler::new(&sampling)?,
            held: Held::new(tokens),
            generated: 0,
            max_new_tokens: sampling.max_new_tokens,
            eos_token_ids,
            log_probs,
            prompt_told: 1,
            prompt_end,
        })
    }

    /// Takes over what others have computed, unless every token of the prompt is to be told of.
    pub(super) fn find_beginning(&mut self, blocks: &mut Blocks) {
        if self.prompt_told >= self.prompt_end {
            self.held.find_beginning(blocks);
        }
    }

    /// Which of the `count` tokens computed last need logits: those before a token of the prompt that is to be told of,
    /// and the last of all tokens.
    pub(super) fn asked(&self, count: usize) -> std::ops::Range<usize> {
        let (end, is_last) = (self.held.computed, self.held.pending() == 0);
        let first = (end - count).max(self.prompt_told - 1);
        let told = self.prompt_end.saturating_sub(1).min(end);
        match (first < told, is_last) {
            (true, _) => first..if is_last { end } else { told },
            (false, true) => end - 1..end,
            (false, false) => end..end,
        }
    }

    /// How likely the token is that follows `position`, if that is the prompt's and is to be told of.
    pub(super) fn tell(&mut self, position: usize, logits: &[f32]) -> Option<TokenScore> {
        (position + 1 == self.prompt_told && self.prompt_told < self.prompt_end).then(|| {
            self.prompt_told += 1;
            score(self.held.tokens[position + 1], logits, self.log_probs.unwrap_or(0))
        })
    }

    /// No more tokens are asked for.
    pub(super) fn wants_nothing(&self) -> bool {
        self.generated >= self.max_new_tokens && self.prompt_told >= self.prompt_end
    }

    /// What the logits at `position` say, which are changed: of the prompt's next token, or of a new one. `longest`:
    /// tokens that may be computed of one sequence.
    pub(super) fn advance(
        &mut self,
        position: usize,
        logits: &mut [f32],
        longest: usize,
    ) -> Result<Event, ModelError> {
        if !logits.iter().all(|logit| logit.is_finite()) {
            return Err(ModelError::LogitsNotFinite { request: self.id });
        }
        let mut event = Event { id: self.id, token: None, scores: Vec::new(), finish: None };
        event.scores.extend(self.tell(position, logits));
        if position + 1 < self.held.tokens.len() {
            return Ok(event);
        }
        if self.wants_nothing() {
            event.finish = Some(Finish::Length);
            return Ok(event);
        }
        let before = self.log_probs.map(|top| (logits.to_vec(), top));
        let token = self.sampler.next(logits, &self.held.tokens);
        event.scores.extend(before.map(|(logits, top)| score(token, &logits, top)));
        if self.eos_token_ids.contains(&token) {
            event.finish = Some(Finish::EndOfSequence);
            return Ok(event);
        }
        self.held.tokens.push(token);
        self.generated += 1;
        event.token = Some(token);
        let is_last = self.wants_nothing() || self.held.tokens.len() > longest;
        event.finish = is_last.then_some(Finish::Length);
        Ok(event)
    }
}

/// Logarithms of softmax: of `token` and of the `top` likeliest.
fn score(token: u32, logits: &[f32], top: usize) -> TokenScore {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - largest).exp()).sum();
    let log_prob = |token: u32| (f64::from(logits[token as usize]) - largest - sum.ln()) as f32;
    let mut best: Vec<u32> = (0..logits.len() as u32).collect();
    let falling = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let top = top.min(best.len());
    if top > 0 {
        best.select_nth_unstable_by(top - 1, falling);
    }
    best.truncate(top);
    best.sort_unstable_by(falling);
    TokenScore { token, log_prob: log_prob(token), top: best.into_iter().map(|t| (t, log_prob(t))).collect() }
}
