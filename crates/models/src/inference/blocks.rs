//! Who holds which block of the key/value cache, and which full blocks can be found again by what they hold.
//!
//! A block is *held* by a count of sequences, *idle* (held by none, but still found by its contents) or *free*. A full
//! block is found by its tokens and the name of the block before it, so that equal tokens after different beginnings
//! are different blocks; names are numbers that are never given twice, so there is no hash to collide.

use std::collections::{BTreeMap, HashMap};

/// Stands for what a block holds, and all tokens before it; 0: the beginning of every sequence.
pub(super) type Name = u64;

/// By what a full block is found.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    before: Name,
    tokens: Box<[u32]>,
}

#[derive(Default)]
struct Block {
    /// Sequences that hold it.
    holders: u32,
    /// Full and to be found.
    key: Option<Key>,
    /// When it became idle.
    idle_since: u64,
}

/// All blocks of a cache.
pub(super) struct Blocks {
    block_tokens: usize,
    blocks: Vec<Block>,
    free: Vec<u32>,
    found: HashMap<Key, (u32, Name)>,
    /// Idle blocks by age.
    idle: BTreeMap<u64, u32>,
    clock: u64,
    last_name: Name,
}

impl Blocks {
    /// `count` free blocks of `block_tokens` tokens.
    pub(super) fn new(count: usize, block_tokens: usize) -> Self {
        Self {
            block_tokens,
            blocks: (0..count).map(|_| Block::default()).collect(),
            free: (0..count as u32).rev().collect(),
            found: HashMap::new(),
            idle: BTreeMap::new(),
            clock: 0,
            last_name: 0,
        }
    }

    /// Tokens of a block.
    pub(super) fn block_tokens(&self) -> usize {
        self.block_tokens
    }

    /// Blocks that [`Blocks::take`] can give.
    pub(super) fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Holds the longest run of blocks that begin `tokens` and returns them with the last one's name.
    pub(super) fn hold_beginning(&mut self, tokens: &[u32]) -> (Vec<u32>, Name) {
        let (mut held, mut name) = (Vec::new(), 0);
        for tokens in tokens.chunks_exact(self.block_tokens) {
            let Some(&(block, next)) = self.found.get(&Key { before: name, tokens: tokens.into() }) else {
                break;
            };
            self.hold(block);
            held.push(block);
            name = next;
        }
        (held, name)
    }

    /// One holder more.
    pub(super) fn hold(&mut self, block: u32) {
        let entry = &mut self.blocks[block as usize];
        if entry.holders == 0 {
            self.idle.remove(&entry.idle_since);
        }
        entry.holders += 1;
    }

    /// A block of one's own: a free one, or else the one that has been idle for longest.
    pub(super) fn take(&mut self) -> Option<u32> {
        let block = match self.free.pop() {
            Some(block) => block,
            None => {
                let (_, block) = self.idle.pop_first()?;
                self.forget(block);
                block
            }
        };
        self.blocks[block as usize].holders = 1;
        Some(block)
    }

    /// A full block will be found by its `tokens` after the block called `before`. Returns the name of these contents,
    /// which may be another block's already.
    pub(super) fn name(&mut self, block: u32, before: Name, tokens: &[u32]) -> Name {
        debug_assert_eq!(tokens.len(), self.block_tokens);
        let key = Key { before, tokens: tokens.into() };
        if let Some((_, name)) = self.found.get(&key) {
            return *name;
        }
        self.last_name += 1;
        self.found.insert(key.clone(), (block, self.last_name));
        self.blocks[block as usize].key = Some(key);
        self.last_name
    }

    /// Gives up all of a sequence's blocks; the last become idle first, as they help the fewest others.
    pub(super) fn release(&mut self, blocks: &mut Vec<u32>) {
        for block in blocks.drain(..).rev() {
            let entry = &mut self.blocks[block as usize];
            entry.holders -= 1;
            if entry.holders > 0 {
                continue;
            }
            if entry.key.is_none() {
                self.free.push(block);
                continue;
            }
            self.clock += 1;
            entry.idle_since = self.clock;
            self.idle.insert(self.clock, block);
        }
    }

    /// Nothing is found any more: the weights have changed.
    pub(super) fn forget_all(&mut self) {
        self.found.clear();
        self.blocks.iter_mut().for_each(|block| block.key = None);
        self.free.extend(std::mem::take(&mut self.idle).into_values());
    }

    fn forget(&mut self, block: u32) {
        if let Some(key) = self.blocks[block as usize].key.take() {
            self.found.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_blocks_are_found_by_their_whole_beginning() {
        let mut blocks = Blocks::new(4, 2);
        let (a, b) = (blocks.take().unwrap(), blocks.take().unwrap());
        let first = blocks.name(a, 0, &[1, 2]);
        blocks.name(b, first, &[3, 4]);
        assert_eq!(blocks.hold_beginning(&[1, 2, 3, 4, 5]).0, [a, b]);
        assert_eq!(blocks.hold_beginning(&[1, 2, 4, 4]).0, [a]);
        assert!(blocks.hold_beginning(&[3, 4]).0.is_empty(), "known only after 1, 2");
        let c = blocks.take().unwrap();
        assert_eq!(blocks.name(c, 0, &[1, 2]), first, "the same contents, computed twice");
    }

    #[test]
    fn idle_blocks_are_taken_last_block_first_and_never_while_held() {
        let mut blocks = Blocks::new(3, 1);
        let mut held: Vec<u32> = (0..3).map(|_| blocks.take().unwrap()).collect();
        let first = blocks.name(held[0], 0, &[7]);
        blocks.name(held[1], first, &[8]);
        let named = held.clone();
        blocks.release(&mut held);
        assert_eq!(blocks.available(), 3);
        let (mut mine, _) = blocks.hold_beginning(&[7]);
        assert_eq!(mine, [named[0]]);
        assert_eq!(blocks.take(), Some(named[2]), "the free one");
        assert_eq!(blocks.take(), Some(named[1]), "the idle one, whose contents are forgotten");
        assert_eq!(blocks.take(), None);
        blocks.release(&mut mine);
        assert_eq!(blocks.hold_beginning(&[7, 8]).0, [named[0]]);
    }

    #[test]
    fn nothing_is_found_after_the_weights_changed() {
        let mut blocks = Blocks::new(2, 1);
        let mut held = vec![blocks.take().unwrap()];
        blocks.name(held[0], 0, &[7]);
        blocks.release(&mut held);
        blocks.forget_all();
        assert!(blocks.hold_beginning(&[7]).0.is_empty());
        assert_eq!(blocks.available(), 2);
    }
}
