//! Words and their tokens, found again by their bytes: most words of a text were seen before.
//!
//! An open hash table over two arenas, without an allocation a word. It is emptied when it is full, by words or by
//! bytes: what is frequent is soon back.

use std::hash::{BuildHasher, RandomState};

/// The longest word that is kept, in bytes, so that lengths fit into a byte.
pub(super) const LONGEST: usize = u8::MAX as usize;
/// Words that are kept at most: of usual ones some 8 MB with their texts and tokens.
const MOST_WORDS: usize = 1 << 17;
/// Bytes of texts and tokens that are kept at most: words may be long, and have a token for each byte.
const MOST_BYTES: usize = 16 << 20;
/// Of them, those of the longest word.
const MOST_OF_A_WORD: usize = LONGEST * (1 + size_of::<u32>() + 1);
/// Slots of an empty cache; they double when half of them are taken.
const FEWEST_SLOTS: usize = 1 << 10;

/// Where a word is; a length of 0 marks a free slot.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    hash: u32,
    /// Of its bytes in `words`.
    start: u32,
    /// Of its tokens.
    first: u32,
    len: u8,
    count: u8,
    /// The tokens' lengths add up to the word.
    is_covered: bool,
}

/// The tokens of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tokens<'c> {
    pub(super) ids: &'c [u32],
    /// Bytes of the word that each is; meaningless where `is_covered` is false.
    pub(super) lens: &'c [u8],
    /// Every byte of the word belongs to a token.
    pub(super) is_covered: bool,
}

/// A cache of one thread.
#[derive(Debug)]
pub(super) struct WordCache {
    slots: Vec<Slot>,
    taken: usize,
    words: Vec<u8>,
    ids: Vec<u32>,
    lens: Vec<u8>,
    /// Makes hashes unforeseeable: a stranger's text must not be able to fill one place of the table.
    key: u64,
}

impl WordCache {
    pub(super) fn new() -> Self {
        let key = RandomState::new().hash_one(0u8);
        Self {
            slots: vec![Slot::default(); FEWEST_SLOTS],
            taken: 0,
            words: Vec::new(),
            ids: Vec::new(),
            lens: Vec::new(),
            key,
        }
    }

    /// The tokens of a word of 1 to [`LONGEST`] bytes, if it is known.
    pub(super) fn get(&self, word: &[u8]) -> Option<Tokens<'_>> {
        let slot = self.slots[self.place(hash(word, self.key), word)];
        (slot.len > 0).then(|| self.tokens(slot))
    }

    /// Keeps the tokens of a word that is not known, of 1 to [`LONGEST`] bytes and at most as many tokens.
    pub(super) fn insert(&mut self, word: &[u8], ids: &[u32], lens: &[u8], is_covered: bool) {
        if self.taken >= MOST_WORDS || self.bytes() > MOST_BYTES - MOST_OF_A_WORD {
            self.slots.fill(Slot::default());
            self.taken = 0;
            self.words.clear();
            self.ids.clear();
            self.lens.clear();
        }
        if self.taken * 2 >= self.slots.len() {
            self.grow();
        }
        let hash = hash(word, self.key);
        let (start, first) = (self.words.len() as u32, self.ids.len() as u32);
        let (len, count) = (word.len() as u8, ids.len() as u8);
        let place = self.place(hash, word);
        self.slots[place] = Slot { hash, start, first, len, count, is_covered };
        self.words.extend_from_slice(word);
        self.ids.extend_from_slice(ids);
        self.lens.extend_from_slice(lens);
        self.taken += 1;
    }

    /// Bytes of the texts and tokens that are kept.
    fn bytes(&self) -> usize {
        self.words.len() + size_of_val(self.ids.as_slice()) + self.lens.len()
    }

    fn tokens(&self, slot: Slot) -> Tokens<'_> {
        let range = slot.first as usize..slot.first as usize + usize::from(slot.count);
        Tokens { ids: &self.ids[range.clone()], lens: &self.lens[range], is_covered: slot.is_covered }
    }

    /// The slot of a word, or the free one where it belongs.
    fn place(&self, hash: u32, word: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut place = hash as usize & mask;
        loop {
            let slot = &self.slots[place];
            if slot.len == 0 {
                return place;
            }
            let start = slot.start as usize;
            if slot.hash == hash && &self.words[start..start + usize::from(slot.len)] == word {
                return place;
            }
            place = (place + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let double = vec![Slot::default(); self.slots.len() * 2];
        let mask = double.len() - 1;
        let old = std::mem::replace(&mut self.slots, double);
        for slot in old.into_iter().filter(|slot| slot.len > 0) {
            let mut place = slot.hash as usize & mask;
            while self.slots[place].len > 0 {
                place = (place + 1) & mask;
            }
            self.slots[place] = slot;
        }
    }
}

/// Folded products of eight bytes at a time (wyhash's step), keyed.
fn hash(word: &[u8], key: u64) -> u32 {
    let eight = |at: usize| u64::from_le_bytes(word[at..at + 8].try_into().unwrap_or_default());
    let four = |at: usize| u64::from(u32::from_le_bytes(word[at..at + 4].try_into().unwrap_or_default()));
    let len = word.len();
    let mut sum = key ^ (len as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    match len {
        0 => {}
        1..=3 => {
            let bytes = [word[0], word[len / 2], word[len - 1]];
            sum ^= bytes.iter().fold(0, |sum, &byte| (sum << 8) | u64::from(byte));
        }
        4..=7 => sum ^= (four(0) << 32) | four(len - 4),
        _ => {
            for at in (0..len - 8).step_by(8) {
                sum = mixed(sum ^ eight(at));
            }
            sum ^= eight(len - 8);
        }
    }
    (mixed(sum) >> 16) as u32
}

fn mixed(word: u64) -> u64 {
    let product = u128::from(word) * 0xa076_1d64_78bd_642f;
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_comes_out_after_growing_and_is_gone_after_filling() {
        let mut cache = WordCache::new();
        let word = |n: usize| format!("{n:x}{}", "ab".repeat(n % 40)).into_bytes();
        for n in 0..MOST_WORDS {
            assert!(cache.get(&word(n)).is_none(), "{n}");
            cache.insert(&word(n), &[n as u32, 7], &[1, 2], n % 2 == 0);
        }
        for n in (0..MOST_WORDS).step_by(97) {
            let expected = Tokens { ids: &[n as u32, 7], lens: &[1, 2], is_covered: n % 2 == 0 };
            assert_eq!(cache.get(&word(n)), Some(expected));
        }
        cache.insert(b"one more", &[], &[], false);
        assert!(cache.get(&word(1)).is_none(), "the cache was full");
        assert_eq!(cache.get(b"one more"), Some(Tokens { ids: &[], lens: &[], is_covered: false }));
    }

    #[test]
    fn long_words_of_many_tokens_do_not_fill_the_memory() {
        let mut cache = WordCache::new();
        let word = |n: usize| format!("{n:0>LONGEST$}").into_bytes();
        for n in 0..2 * MOST_BYTES / MOST_OF_A_WORD {
            cache.insert(&word(n), &[n as u32; LONGEST], &[1; LONGEST], true);
            assert!(cache.bytes() <= MOST_BYTES, "{n}");
            assert!(cache.get(&word(n)).is_some_and(|tokens| tokens.ids == [n as u32; LONGEST]), "{n}");
        }
        assert!(cache.taken < MOST_WORDS / 2, "it was emptied before it had its words");
        assert!(cache.get(&word(0)).is_none());
    }

    #[test]
    fn hashes_tell_near_words_apart() {
        let mut seen = std::collections::HashSet::new();
        let mut collisions = 0;
        for len in 1..40 {
            for at in 0..len {
                for byte in 1..=255u8 {
                    let mut word = vec![b'a'; len];
                    word[at] = byte;
                    collisions += usize::from(byte != b'a' && !seen.insert(hash(&word, 1)));
                }
            }
        }
        // 198,120 words: five pairs are expected among 2^32 hashes.
        assert!(collisions < 40, "{collisions}");
    }
}
