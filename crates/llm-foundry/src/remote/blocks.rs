//! A file of another machine in blocks on this machine's disk: what was fetched once is not fetched again, in this run
//! or the next, and a run that was stopped goes on where it was.
//!
//! `KEY.data` holds the blocks at their places (a sparse file), `KEY.sums` eight bytes of SHA-256 for each block, zero
//! where it was not fetched. Blocks are checked when they are used for the first time in a run: a cache that a power
//! cut has spoiled is fetched again.

use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Bytes of a block.
pub(super) const BLOCK: u64 = 4 << 20;
/// Blocks of a file in memory: columns of a table are read in turns.
const HELD: usize = 8;
/// Bytes of a sum.
const SUM: usize = 8;

/// The blocks of one file.
#[derive(Debug)]
pub(super) struct Blocks {
    data: File,
    sums: File,
    size: u64,
    /// Blocks that were checked in this run.
    checked: Vec<bool>,
    /// The blocks that were used last, and their numbers; the very last one at the end.
    last: Vec<(u64, Vec<u8>)>,
}

impl Blocks {
    /// Opens or makes the cache of a file of `size` bytes.
    pub(super) fn open(dir: &Path, key: &str, size: u64) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let open = |ending: &str| {
            let path = dir.join(format!("{key}.{ending}"));
            File::options().read(true).write(true).create(true).truncate(false).open(path)
        };
        let (data, sums) = (open("data")?, open("sums")?);
        let count = size.div_ceil(BLOCK);
        sums.set_len(count * SUM as u64)?;
        data.set_len(size)?;
        Ok(Self { data, sums, size, checked: vec![false; count as usize], last: Vec::new() })
    }

    /// A cache for this run alone: its files have no names any more.
    pub(super) fn of_this_run(dir: &Path, key: &str, size: u64) -> io::Result<Self> {
        let blocks = Self::open(dir, key, size)?;
        for ending in ["data", "sums"] {
            std::fs::remove_file(dir.join(format!("{key}.{ending}")))?;
        }
        Ok(blocks)
    }

    /// The first byte of a block and the one behind its last.
    pub(super) fn range(&self, block: u64) -> (u64, u64) {
        (block * BLOCK, self.size.min((block + 1) * BLOCK))
    }

    /// A block, by `fetch` where the cache does not have it.
    pub(super) fn block(
        &mut self,
        block: u64,
        fetch: impl FnOnce(u64, u64) -> io::Result<Vec<u8>>,
    ) -> io::Result<&[u8]> {
        if let Some(at) = self.last.iter().position(|(number, _)| *number == block) {
            let used = self.last.remove(at);
            self.last.push(used);
        } else {
            let bytes = match self.cached(block)? {
                Some(bytes) => bytes,
                None => {
                    let (start, end) = self.range(block);
                    let bytes = fetch(start, end)?;
                    if bytes.len() as u64 != end - start {
                        let problem = format!("{} bytes came instead of {}", bytes.len(), end - start);
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem));
                    }
                    self.store(block, &bytes)?;
                    bytes
                }
            };
            if self.last.len() == HELD {
                self.last.remove(0);
            }
            self.last.push((block, bytes));
        }
        Ok(self.last.last().map_or(&[], |(_, bytes)| bytes))
    }

    fn cached(&mut self, block: u64) -> io::Result<Option<Vec<u8>>> {
        let mut sum = [0; SUM];
        self.sums.seek(SeekFrom::Start(block * SUM as u64))?;
        self.sums.read_exact(&mut sum)?;
        if sum == [0; SUM] {
            return Ok(None);
        }
        let (start, end) = self.range(block);
        let mut bytes = vec![0; (end - start) as usize];
        self.data.seek(SeekFrom::Start(start))?;
        self.data.read_exact(&mut bytes)?;
        let is_sound = self.checked[block as usize] || sum_of(&bytes) == sum;
        self.checked[block as usize] = is_sound;
        Ok(is_sound.then_some(bytes))
    }

    fn store(&mut self, block: u64, bytes: &[u8]) -> io::Result<()> {
        let (start, _) = self.range(block);
        self.data.seek(SeekFrom::Start(start))?;
        self.data.write_all(bytes)?;
        self.sums.seek(SeekFrom::Start(block * SUM as u64))?;
        self.sums.write_all(&sum_of(bytes))?;
        self.checked[block as usize] = true;
        Ok(())
    }
}

/// Never all zeros.
fn sum_of(bytes: &[u8]) -> [u8; SUM] {
    let digest = Sha256::digest(bytes);
    let mut sum = [0; SUM];
    sum.copy_from_slice(&digest[..SUM]);
    sum[0] |= 1;
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(size: usize) -> Vec<u8> {
        (0..size).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn what_has_no_version_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut blocks = Blocks::of_this_run(dir.path(), "k", 100).expect("opened");
        assert_eq!(blocks.block(0, |_, _| Ok(content(100))).expect("fetched"), content(100));
        blocks.last.clear();
        assert_eq!(blocks.block(0, |_, _| panic!("it is there")).expect("cached"), content(100));
        assert_eq!(std::fs::read_dir(dir.path()).expect("read").count(), 0);
    }

    #[test]
    fn blocks_are_fetched_once_and_again_where_they_are_spoiled() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let whole = content(BLOCK as usize + 100);
        let part = |start: u64, end: u64| Ok(whole[start as usize..end as usize].to_vec());
        let open = || Blocks::open(dir.path(), "k", whole.len() as u64).expect("opened");
        let mut blocks = open();
        assert_eq!(blocks.block(1, part).expect("fetched"), &whole[BLOCK as usize..]);
        let never = |_, _| panic!("it is there");
        assert_eq!(blocks.block(1, never).expect("cached"), &whole[BLOCK as usize..]);
        let mut blocks = open();
        assert_eq!(blocks.block(1, never).expect("cached"), &whole[BLOCK as usize..]);
        assert_eq!(blocks.block(0, part).expect("fetched"), &whole[..BLOCK as usize]);
        // A byte of the file is lost.
        let mut data = File::options().write(true).open(dir.path().join("k.data")).expect("there");
        data.write_all(&[77]).expect("written");
        let mut blocks = open();
        let mut fetched = 0;
        let count = |start, end| {
            fetched += 1;
            part(start, end)
        };
        assert_eq!(blocks.block(0, count).expect("fetched again"), &whole[..BLOCK as usize]);
        assert_eq!(fetched, 1);
        let short = blocks.block(1, |_, _| Ok(vec![1]));
        assert_eq!(short.expect("cached").len(), 100);
        let mut empty = Blocks::open(dir.path(), "other", 10).expect("opened");
        assert!(empty.block(0, |_, _| Ok(vec![1])).is_err());
    }
}
