//! Who computes how many tokens in the next step.
//!
//! Running requests come first, in the order in which they began: one token each, or more of a prompt. Where the blocks
//! run out, the request that began last gives its own back and begins again later, with its answer so far as part of
//! its prompt. What room is left goes to requests that wait, first come, first served.

use super::engine::Inference;

/// Logits that a running request needs.
pub(super) struct Asked {
    /// Which of those that run.
    pub(super) index: usize,
    /// Of which of its tokens.
    pub(super) position: usize,
    /// Where that is in the packed row.
    pub(super) row: u32,
}

impl Inference {
    /// Lays out the next row of at most `max_tokens` tokens, and says which rows' logits will be needed.
    pub(super) fn schedule(&mut self, max_tokens: usize) -> Vec<Asked> {
        self.row.clear();
        let mut room = max_tokens;
        let mut asked = Vec::new();
        self.run_on(&mut room, &mut asked);
        self.admit(&mut room, &mut asked);
        asked
    }

    /// Tokens of requests that run already. Each keeps one token of the room for every one after it.
    fn run_on(&mut self, room: &mut usize, asked: &mut Vec<Asked>) {
        let mut index = 0;
        while index < self.running.len() && *room > 0 {
            let after = self.running.len() - index - 1;
            let most = room.saturating_sub(after).max(1);
            let count = self.running[index].held.pending().min(most);
            if !self.make_room(index, count) {
                continue;
            }
            self.lay_out(index, count, asked);
            *room -= count;
            index += 1;
        }
    }

    /// Room for `count` tokens of a running request, if need be at the cost of those after it. `false`: it has given
    /// up its own place.
    fn make_room(&mut self, index: usize, count: usize) -> bool {
        while !self.running[index].held.make_room(count, &mut self.blocks) {
            let Some(mut last) = self.running.pop() else { break };
            last.held.release(&mut self.blocks);
            self.waiting.push_front(last);
            if index == self.running.len() {
                return false;
            }
        }
        true
    }

    fn admit(&mut self, room: &mut usize, asked: &mut Vec<Asked>) {
        while *room > 0 && self.running.len() < self.options.max_running {
            let Some(sequence) = self.waiting.front_mut() else { break };
            sequence.find_beginning(&mut self.blocks);
            let held = &mut sequence.held;
            // Room for the whole prompt, and a block for each answer that grows.
            let wanted = held.missing(held.pending(), &self.blocks) + self.running.len();
            if wanted > self.blocks.available() && !self.running.is_empty() {
                held.release(&mut self.blocks);
                break;
            }
            let count = held.pending().min(*room);
            if !held.make_room(count, &mut self.blocks) {
                held.release(&mut self.blocks);
                break;
            }
            let sequence = self.waiting.pop_front().expect("the front was looked at");
            self.running.push(sequence);
            self.lay_out(self.running.len() - 1, count, asked);
            *room -= count;
        }
    }

    fn lay_out(&mut self, index: usize, count: usize, asked: &mut Vec<Asked>) {
        let sequence = &mut self.running[index];
        let last = sequence.held.lay_out(count, &mut self.row, &mut self.blocks);
        let end = sequence.held.computed;
        let ask = |position: usize| Asked { index, position, row: (last + 1 + position - end) as u32 };
        asked.extend(sequence.asked(count).map(ask));
    }
}
