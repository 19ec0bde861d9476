//! Requests come in, steps are taken, news come out.

use super::blocks::Blocks;
use super::cache::{PagedCache, PagedRow};
use super::request::{Event, Request, RequestId};
use super::schedule::Asked;
use super::sequence::Sequence;
use crate::{Decoder, DecoderConfig, ModelError};
use foundry_kernels::{Allocator, Backend, Dtype, Meter};
use std::collections::VecDeque;

/// Rows whose logits are fetched at a time: those of a whole vocabulary are large.
const LOGIT_ROWS: usize = 64;

/// Sizes of an [`Inference`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InferenceOptions {
    /// Most tokens that are computed of one sequence, prompt and answer.
    pub max_sequence: usize,
    /// Tokens the cache has room for, all sequences together; rounded up to whole blocks, and one block more. At least
    /// `max_sequence`.
    pub cache_tokens: usize,
    /// Tokens of a block: what is shared between sequences are whole blocks.
    pub block_tokens: usize,
    /// Most requests that run at once; others wait.
    pub max_running: usize,
}

impl Default for InferenceOptions {
    /// One conversation.
    fn default() -> Self {
        Self { max_sequence: 4096, cache_tokens: 4096, block_tokens: 16, max_running: 64 }
    }
}

/// The requests of one decoder. Every call must be given the same decoder, or [`Inference::forget`] be called after its
/// weights have changed.
pub struct Inference {
    pub(super) options: InferenceOptions,
    pub(super) blocks: Blocks,
    pub(super) cache: PagedCache,
    pub(super) row: PagedRow,
    pub(super) waiting: VecDeque<Sequence>,
    /// In the order in which they began.
    pub(super) running: Vec<Sequence>,
    logits: Vec<f32>,
    last_id: u64,
    vocab_size: usize,
}

impl Inference {
    /// Allocates the cache; `compute` must be the decoder's. With a [`Meter`](foundry_kernels::Meter) that is how a
    /// plan counts bytes.
    pub fn allocate(
        alloc: &dyn Allocator,
        config: &DecoderConfig,
        compute: Dtype,
        options: InferenceOptions,
    ) -> Self {
        let block_tokens = options.block_tokens.max(1);
        let max_sequence = options.max_sequence.max(1);
        // One more than the longest sequence needs: a prefix and the continuation that is scored after it each have
        // their own of the block in which they part.
        let blocks = options.cache_tokens.max(max_sequence).div_ceil(block_tokens) + 1;
        let max_running = options.max_running.max(1);
        let cache_tokens = blocks * block_tokens;
        let options = InferenceOptions { max_sequence, cache_tokens, block_tokens, max_running };
        Self {
            options,
            blocks: Blocks::new(blocks, block_tokens),
            cache: PagedCache::allocate(alloc, config, compute, [blocks, block_tokens], max_sequence),
            row: PagedRow::default(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            logits: Vec::new(),
            last_id: 0,
            vocab_size: config.vocab_size,
        }
    }

    /// Bytes that [`Inference::allocate`] takes of a device.
    pub fn bytes(config: &DecoderConfig, compute: Dtype, options: InferenceOptions) -> u64 {
        let meter = Meter::default();
        Self::allocate(&meter, config, compute, options);
        meter.allocated().iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }

    /// The sizes that were allocated for.
    pub fn options(&self) -> InferenceOptions {
        self.options
    }

    /// Takes a request, which runs when there is room for it. Where `max_new_tokens` is 0 its only news is its end.
    ///
    /// # Errors
    /// An empty prompt, tokens outside the vocabulary, a prompt that is longer than a sequence may be, settings outside
    /// their ranges.
    pub fn submit(&mut self, request: Request) -> Result<RequestId, ModelError> {
        self.check(&request.tokens)?;
        if request.tokens.is_empty() {
            return Err(ModelError::Row("no tokens to continue from".into()));
        }
        self.last_id += 1;
        let id = RequestId(self.last_id);
        self.waiting.push_back(Sequence::new(id, request)?);
        Ok(id)
    }

    pub(super) fn check(&self, tokens: &[u32]) -> Result<(), ModelError> {
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= self.vocab_size) {
            return Err(ModelError::TokenOutOfRange { token, vocab_size: self.vocab_size });
        }
        match tokens.len() > self.options.max_sequence {
            true => Err(ModelError::CacheFull { tokens: tokens.len(), capacity: self.options.max_sequence }),
            false => Ok(()),
        }
    }

    /// Drops a request without further news; `false`: it had finished.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        let before = self.waiting.len() + self.running.len();
        self.waiting.retain(|sequence| sequence.id != id);
        let blocks = &mut self.blocks;
        self.running.retain_mut(|sequence| {
            let stays = sequence.id != id;
            if !stays {
                sequence.held.release(blocks);
            }
            stays
        });
        self.waiting.len() + self.running.len() < before
    }

    /// Requests that have not finished: those that run, and those that wait.
    pub fn open_requests(&self) -> (usize, usize) {
        (self.running.len(), self.waiting.len())
    }

    /// Tokens that could be stored without taking room from a running request.
    pub fn free_tokens(&self) -> usize {
        self.blocks.available() * self.options.block_tokens
    }

    /// Forgets what was computed with earlier weights.
    ///
    /// # Panics
    /// If requests are open: their keys and values are of the earlier weights.
    pub fn forget(&mut self) {
        assert_eq!(self.open_requests(), (0, 0), "requests must not outlive the weights");
        self.blocks.forget_all();
    }

    /// Computes one packed row and appends the news to `events`. Returns the number of tokens computed; 0: nothing is
    /// open.
    ///
    /// # Errors
    /// Scores that are not finite. All requests are dropped then.
    pub fn step(
        &mut self,
        decoder: &mut Decoder,
        backend: &dyn Backend,
        events: &mut Vec<Event>,
    ) -> Result<usize, ModelError> {
        self.finish_empty(events);
        let asked = self.schedule(decoder.max_tokens());
        if self.row.tokens.is_empty() {
            return Ok(0);
        }
        let Self { cache, row, .. } = self;
        backend.row_of_operations(&mut || decoder.forward_paged(backend, cache, row));
        let first = events.len();
        for asked in asked.chunks(LOGIT_ROWS) {
            let rows: Vec<u32> = asked.iter().map(|asked| asked.row).collect();
            decoder.paged_logits(backend, &rows, &mut self.logits);
            if let Err(error) = self.advance(asked, first, events) {
                self.drop_all();
                return Err(error);
            }
        }
        for event in events[first..].iter().filter(|event| event.finish.is_some()) {
            self.cancel(event.id);
        }
        Ok(self.row.tokens.len())
    }

    /// What `logits` say of the rows that were asked for. News of one request in one step, whose events are those from
    /// `first` on, become one.
    fn advance(&mut self, asked: &[Asked], first: usize, events: &mut Vec<Event>) -> Result<(), ModelError> {
        let longest = self.options.max_sequence;
        for (asked, logits) in asked.iter().zip(self.logits.chunks_exact_mut(self.vocab_size)) {
            let event = self.running[asked.index].advance(asked.position, logits, longest)?;
            match events[first..].last_mut() {
                Some(last) if last.id == event.id && last.token.is_none() && last.finish.is_none() => {
                    last.scores.extend(event.scores);
                    (last.token, last.finish) = (event.token, event.finish);
                }
                _ => events.push(event),
            }
        }
        Ok(())
    }

    /// Requests for no tokens end before they begin.
    fn finish_empty(&mut self, events: &mut Vec<Event>) {
        self.waiting.retain(|sequence| {
            let is_empty = sequence.wants_nothing();
            if is_empty {
                let finish = Some(super::Finish::Length);
                events.push(Event { id: sequence.id, token: None, scores: Vec::new(), finish });
            }
            !is_empty
        });
    }

    fn drop_all(&mut self) {
        self.waiting.clear();
        for sequence in &mut self.running {
            sequence.held.release(&mut self.blocks);
        }
        self.running.clear();
        self.blocks.forget_all();
    }
}
