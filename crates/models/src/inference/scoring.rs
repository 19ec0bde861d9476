//! Log-likelihoods of given continuations: a beginning that several share is computed once, in whole blocks across
//! calls and to the last token within one call.
//!
//! The rows of a group: what is left of its prefix, then each continuation without its last token. The last row of the
//! prefix scores the first token of every continuation, so that continuations of one token cost nothing more. Where the
//! prefix ends inside a block, its rows in that block are stored once for each continuation, in the continuation's own
//! block; where they were computed in an earlier pass, they are computed again.

use super::engine::Inference;
use super::sequence::Held;
use crate::{Decoder, ModelError};
use foundry_kernels::{Backend, RowLoss};

/// Continuations of one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuations {
    /// What comes before, at least one token.
    pub prefix: Vec<u32>,
    /// What is scored, each at least one token and each right after the prefix.
    pub endings: Vec<Vec<u32>>,
}

/// How likely a continuation is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Sum of the natural logarithms of the tokens' probabilities.
    pub log_prob: f64,
    /// Every token is the likeliest one at its place (the lowest id wins a tie).
    pub is_greedy: bool,
}

/// A row of the pass and the token it is to predict.
struct Asked {
    row: u32,
    target: u32,
    /// Group and ending.
    of: [usize; 2],
}

/// The pass that is being laid out.
struct Scoring<'a> {
    inference: &'a mut Inference,
    decoder: &'a mut Decoder,
    backend: &'a dyn Backend,
    asked: Vec<Asked>,
    /// Sequences whose last row is in this pass.
    done: Vec<Held>,
    scores: Vec<Vec<Score>>,
    /// The group that is being laid out: those before it are.
    group: usize,
    /// Told how many groups have their scores, after each pass.
    told: &'a mut dyn FnMut(usize),
}

impl Inference {
    /// Scores of every ending of every group, in their order. Neighbouring groups with a common beginning share it.
    ///
    /// # Errors
    /// Empty prefixes or endings, tokens outside the vocabulary, more tokens than a sequence may have (the last one is
    /// not computed and does not count), too little room beside running requests, scores that are not finite.
    pub fn score(
        &mut self,
        decoder: &mut Decoder,
        backend: &dyn Backend,
        groups: &[Continuations],
    ) -> Result<Vec<Vec<Score>>, ModelError> {
        self.score_and_tell(decoder, backend, groups, &mut |_| {})
    }

    /// The same; `told` hears after each pass how many groups are done.
    ///
    /// # Errors
    /// As [`Inference::score`].
    pub fn score_and_tell(
        &mut self,
        decoder: &mut Decoder,
        backend: &dyn Backend,
        groups: &[Continuations],
        told: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<Score>>, ModelError> {
        for group in groups {
            self.check_group(group)?;
        }
        let unscored = Score { log_prob: 0.0, is_greedy: true };
        let scores = groups.iter().map(|group| vec![unscored; group.endings.len()]).collect();
        self.row.clear();
        let (asked, done) = (Vec::new(), Vec::new());
        let mut scoring = Scoring { inference: self, decoder, backend, asked, done, scores, group: 0, told };
        for (index, group) in groups.iter().enumerate() {
            scoring.group = index;
            let mut stem = Held::new(group.prefix.clone());
            let result = scoring.group(index, group, &mut stem);
            scoring.done.push(stem);
            if let Err(error) = result {
                scoring.release();
                // What was laid out may not have been computed.
                scoring.inference.blocks.forget_all();
                return Err(error);
            }
        }
        scoring.group = groups.len();
        scoring.pass()?;
        Ok(scoring.scores)
    }

    fn check_group(&self, group: &Continuations) -> Result<(), ModelError> {
        let Continuations { prefix, endings } = group;
        if prefix.is_empty() || endings.iter().any(Vec::is_empty) {
            return Err(ModelError::Row("a prefix or a continuation to be scored without tokens".into()));
        }
        self.check(prefix)?;
        let capacity = self.options.max_sequence;
        for ending in endings {
            let (last, computed) = ending.split_last().expect("no ending is empty");
            self.check(computed)?;
            self.check(&[*last])?;
            let tokens = prefix.len() + computed.len();
            if tokens > capacity {
                return Err(ModelError::CacheFull { tokens, capacity });
            }
        }
        Ok(())
    }
}

impl Scoring<'_> {
    fn group(&mut self, index: usize, group: &Continuations, stem: &mut Held) -> Result<(), ModelError> {
        stem.find_beginning(&mut self.inference.blocks);
        let size = self.inference.options.block_tokens;
        let tail = group.prefix.len() / size * size;
        let last = loop {
            let count = self.portion(stem, tail)?;
            let last = self.lay_out(stem, count);
            if stem.pending() == 0 {
                break last;
            }
        };
        // Row of the first token of the prefix's last block, while it is in the pass.
        let mut tail_row = (last + 1).checked_sub(group.prefix.len() - tail);
        let ask = |(ending, tokens): (usize, &Vec<u32>)| Asked {
            row: last as u32,
            target: tokens[0],
            of: [index, ending],
        };
        self.asked.extend(group.endings.iter().enumerate().map(ask));
        for (ending, tokens) in group.endings.iter().enumerate().filter(|(_, tokens)| tokens.len() > 1) {
            let mut branch = Held::default();
            let result = self.branch([index, ending], group, tokens, stem, &mut branch, &mut tail_row);
            self.done.push(branch);
            result?;
        }
        Ok(())
    }

    /// How many tokens of a prefix come next, with room for them. A prefix is never cut inside its last block.
    fn portion(&mut self, stem: &mut Held, tail: usize) -> Result<usize, ModelError> {
        let most = self.decoder.max_tokens();
        loop {
            let (pending, free) = (stem.pending(), most - self.inference.row.tokens.len());
            let count = match pending <= free {
                true => pending,
                false => free.min(tail.saturating_sub(stem.computed)),
            };
            // An empty pass takes what it can, even if that cuts the last block.
            let count = if count == 0 && free == most { pending.min(most) } else { count };
            if count > 0 && stem.make_room(count, &mut self.inference.blocks) {
                return Ok(count);
            }
            self.next_pass(stem.computed + count)?;
        }
    }

    /// One continuation of more than one token. `tail_row`: row of the first token of the prefix's last block.
    fn branch(
        &mut self,
        of: [usize; 2],
        group: &Continuations,
        tokens: &[u32],
        stem: &Held,
        branch: &mut Held,
        tail_row: &mut Option<usize>,
    ) -> Result<(), ModelError> {
        let (prefix, size) = (group.prefix.len(), self.inference.options.block_tokens);
        let tail = prefix / size * size;
        branch.tokens = [&group.prefix, &tokens[..tokens.len() - 1]].concat();
        branch.share(stem, &mut self.inference.blocks);
        while branch.pending() > 0 {
            let free = self.decoder.max_tokens() - self.inference.row.tokens.len();
            let copied = match *tail_row {
                Some(_) if branch.computed == tail => prefix - tail,
                _ => 0,
            };
            let count = (branch.pending() - copied).min(free);
            if count == 0 || !branch.make_room(copied + count, &mut self.inference.blocks) {
                *tail_row = None;
                self.next_pass(branch.computed + copied + count)?;
                continue;
            }
            if let Some(row) = tail_row.filter(|_| copied > 0) {
                self.inference.row.store(row, tail..prefix, &branch.blocks, size);
                branch.computed = prefix;
            }
            let last = self.lay_out(branch, count);
            let first = branch.computed - count;
            for position in first.max(prefix)..branch.computed {
                let row = (last + 1 - (branch.computed - position)) as u32;
                self.asked.push(Asked { row, target: tokens[position - prefix + 1], of });
            }
        }
        Ok(())
    }

    fn lay_out(&mut self, held: &mut Held, count: usize) -> usize {
        let Inference { row, blocks, .. } = &mut *self.inference;
        held.lay_out(count, row, blocks)
    }

    /// Computes what is laid out, to make room; an error if nothing is.
    fn next_pass(&mut self, tokens: usize) -> Result<(), ModelError> {
        if self.inference.row.tokens.is_empty() {
            let capacity = self.inference.free_tokens();
            return Err(ModelError::CacheFull { tokens, capacity });
        }
        self.pass()
    }

    fn pass(&mut self) -> Result<(), ModelError> {
        let Self { inference, decoder, backend, asked, scores, .. } = self;
        let mut broken = None;
        if !inference.row.tokens.is_empty() {
            decoder.forward_paged(*backend, &mut inference.cache, &inference.row);
            let rows: Vec<u32> = asked.iter().map(|asked| asked.row).collect();
            let targets: Vec<u32> = asked.iter().map(|asked| asked.target).collect();
            let mut results = vec![RowLoss::default(); rows.len()];
            decoder.paged_scores(*backend, rows, targets, &mut results);
            for (asked, result) in asked.drain(..).zip(results) {
                let [group, ending] = asked.of;
                let score = &mut scores[group][ending];
                score.log_prob += f64::from(result.log_prob);
                score.is_greedy &= result.is_greedy;
                if !score.log_prob.is_finite() && broken.is_none() {
                    broken = Some(ModelError::ScoreNotFinite { group, ending });
                }
            }
        }
        self.release();
        (self.told)(self.group);
        broken.map_or(Ok(()), Err)
    }

    fn release(&mut self) {
        for mut held in self.done.drain(..) {
            held.release(&mut self.inference.blocks);
        }
        self.inference.row.clear();
    }
}
