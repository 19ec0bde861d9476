//! A request on its way: its tokens, its blocks and how far it is computed.

use super::blocks::{Blocks, Name};
use super::cache::PagedRow;
use super::request::{Finish, Request, RequestId};
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
}

impl Sequence {
    pub(super) fn new(id: RequestId, request: Request) -> Result<Self, ModelError> {
        let Request { tokens, sampling, eos_token_ids } = request;
        Ok(Self {
            id,
            sampler: Sampler::new(&sampling)?,
            held: Held::new(tokens),
            generated: 0,
            max_new_tokens: sampling.max_new_tokens,
            eos_token_ids,
        })
    }

    /// No more tokens are asked for.
    pub(super) fn wants_nothing(&self) -> bool {
        self.generated >= self.max_new_tokens
    }

    /// The next token from the logits after all tokens so far, which are changed, and whether it is the end.
    /// `longest`: tokens that may be computed of one sequence.
    pub(super) fn advance(
        &mut self,
        logits: &mut [f32],
        longest: usize,
    ) -> Result<(Option<u32>, Option<Finish>), ModelError> {
        if !logits.iter().all(|logit| logit.is_finite()) {
            return Err(ModelError::LogitsNotFinite);
        }
        let token = self.sampler.next(logits, &self.held.tokens);
        if self.eos_token_ids.contains(&token) {
            return Ok((None, Some(Finish::EndOfSequence)));
        }
        self.held.tokens.push(token);
        self.generated += 1;
        let is_last = self.wants_nothing() || self.held.tokens.len() > longest;
        Ok((Some(token), is_last.then_some(Finish::Length)))
    }
}
