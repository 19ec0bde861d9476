//! The file of a run: LevelDB's log format with another header and another checksum.
//!
//! Blocks of 32 KiB, counted from the start of the file; the first one begins with seven bytes of file header. A record
//! is cut into pieces that do not cross blocks: CRC-32 (IEEE) of type and data, length (`u16`), type (1 whole, 2 first,
//! 3 middle, 4 last), data; all little-endian. Fewer than seven bytes at the end of a block are zeros.

use std::fs::File;
use std::io::{self, Write as _};

const BLOCK: u64 = 32 * 1024;
const PIECE_HEADER: u64 = 7;
/// `:W&B`, a magic number and version 0.
const FILE_HEADER: [u8; 7] = [b':', b'W', b'&', b'B', 0xe1, 0xbe, 0];

const WHOLE: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// Appends records to a file. What was written is in the hands of the system at once, so that a killed process loses
/// nothing; it is flushed to the disk block by block.
pub(crate) struct RecordWriter {
    file: File,
    /// Bytes in the file.
    length: u64,
    /// Bytes of them that are certainly on the disk.
    flushed: u64,
}

impl RecordWriter {
    /// Begins an empty file.
    pub(crate) fn begin(mut file: File) -> io::Result<Self> {
        file.write_all(&FILE_HEADER)?;
        Ok(Self { file, length: FILE_HEADER.len() as u64, flushed: 0 })
    }

    /// Appends a record, in one write.
    pub(crate) fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(record.len() + 2 * PIECE_HEADER as usize);
        let mut rest = record;
        let mut is_first = true;
        loop {
            let mut room = BLOCK - (self.length + bytes.len() as u64) % BLOCK;
            if room < PIECE_HEADER {
                bytes.resize(bytes.len() + room as usize, 0);
                room = BLOCK;
            }
            let (piece, left) = rest.split_at(rest.len().min((room - PIECE_HEADER) as usize));
            let kind = match (is_first, left.is_empty()) {
                (true, true) => WHOLE,
                (true, false) => FIRST,
                (false, false) => MIDDLE,
                (false, true) => LAST,
            };
            bytes.extend(checksum(kind, piece).to_le_bytes());
            bytes.extend((piece.len() as u16).to_le_bytes());
            bytes.push(kind);
            bytes.extend(piece);
            (rest, is_first) = (left, false);
            if rest.is_empty() {
                break;
            }
        }
        self.file.write_all(&bytes)?;
        self.length += bytes.len() as u64;
        if self.length / BLOCK > self.flushed / BLOCK { self.flush() } else { Ok(()) }
    }

    /// Everything is on the disk when this returns.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.flushed = self.length;
        Ok(())
    }
}

fn checksum(kind: u8, piece: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(piece);
    hasher.finalize()
}

/// The records of a file up to its end, or to the first that is torn or damaged. `None`: it is no such file.
pub(crate) fn records(file: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut at = FILE_HEADER.len();
    file.starts_with(&FILE_HEADER).then_some(())?;
    let mut found = Vec::new();
    let mut begun: Option<Vec<u8>> = None;
    while let Some((kind, piece, next)) = piece(file, at) {
        at = next;
        match (kind, begun.take()) {
            (WHOLE, None) => found.push(piece.to_vec()),
            (FIRST, None) => begun = Some(piece.to_vec()),
            (MIDDLE, Some(mut record)) => {
                record.extend(piece);
                begun = Some(record);
            }
            (LAST, Some(mut record)) => {
                record.extend(piece);
                found.push(record);
            }
            _ => break,
        }
    }
    Some(found)
}

/// Type and data of the piece at `at`, and where the next one begins.
fn piece(file: &[u8], mut at: usize) -> Option<(u8, &[u8], usize)> {
    let room = BLOCK as usize - at % BLOCK as usize;
    if room < PIECE_HEADER as usize {
        at += room;
    }
    let header = file.get(at..at + PIECE_HEADER as usize)?;
    let expected = u32::from_le_bytes(header[..4].try_into().ok()?);
    let length = usize::from(u16::from_le_bytes(header[4..6].try_into().ok()?));
    let kind = header[6];
    let data = file.get(at + PIECE_HEADER as usize..)?.get(..length)?;
    (checksum(kind, data) == expected).then_some((kind, data, at + PIECE_HEADER as usize + length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn written(records: &[Vec<u8>]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.wandb");
        let mut writer = RecordWriter::begin(File::create(&path).unwrap()).unwrap();
        for record in records {
            writer.append(record).unwrap();
        }
        writer.flush().unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, writer.length);
        bytes
    }

    #[test]
    fn records_of_every_length_come_back() {
        // Around the end of a block, where padding begins, and over several blocks.
        for first in
            [0, 1, 32_700, 32_740, 32_741, 32_742, 32_747, 32_748, 32_750, 32_754, 32_755, 70_000, 200_000]
        {
            let records = vec![vec![7; first], vec![1, 2, 3], vec![], vec![9; 40_000], b"end".to_vec()];
            assert_eq!(self::records(&written(&records)).unwrap(), records, "{first}");
        }
    }

    #[test]
    fn bytes_are_those_of_the_format() {
        let bytes = written(&[b"abc".to_vec()]);
        assert_eq!(bytes[..7], *b":W&B\xe1\xbe\x00");
        // CRC-32 of "\x01abc", as zlib gives it.
        assert_eq!(bytes[7..], [0xa9, 0x20, 0x9d, 0x53, 3, 0, 1, b'a', b'b', b'c']);
    }

    #[test]
    fn a_torn_or_damaged_end_is_left_out() {
        let records = vec![b"one".to_vec(), vec![5; 50_000], b"three".to_vec()];
        let bytes = written(&records);
        for length in 7..bytes.len() {
            if length > 40 && length % 997 != 0 && length + 40 < bytes.len() {
                continue;
            }
            let found = self::records(&bytes[..length]).unwrap();
            assert_eq!(found, records[..found.len()], "{length}");
        }
        let mut damaged = bytes.clone();
        damaged[30_000] ^= 1;
        assert_eq!(self::records(&damaged).unwrap(), records[..1]);
        assert_eq!(self::records(b"another file"), None);
    }
}
