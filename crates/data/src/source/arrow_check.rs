//! Lengths in Arrow files, held against the size of the file before the Arrow crate believes them: it sets memory aside
//! for what a message says, and a process that asks for more than there is is ended by the system.
//!
//! Only headers are read, bodies are passed over.

use std::io::{self, Read, Seek, SeekFrom};

use arrow_ipc::{Message, RecordBatch, root_as_footer, root_as_message};

/// Before the messages of a file, and behind its footer.
const MAGIC: &[u8] = b"ARROW1";
/// Marks a message of the present format.
const CONTINUES: [u8; 4] = [0xff; 4];
/// Most bytes of a buffer after decompression.
const LARGEST_BUFFER: i64 = 1 << 31;

/// What the headers of the messages say.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Rows of each batch.
    pub(super) rows: Vec<u64>,
    /// Values stand in batches of their own.
    pub(super) has_dictionaries: bool,
}

/// Checks the stream form.
pub(super) fn check_stream(
    content: &mut (impl Read + Seek),
    size: u64,
) -> io::Result<Result<Checked, String>> {
    let mut at = 0;
    let mut checked = Checked::default();
    // A stream may end without saying so.
    while size - at >= 4 {
        match message(content, at, size, &mut checked)? {
            Ok(Some(end)) => at = end,
            Ok(None) => break,
            Err(problem) => return Ok(Err(problem)),
        }
    }
    Ok(Ok(checked))
}

/// Checks the file form.
pub(super) fn check_file(content: &mut (impl Read + Seek), size: u64) -> io::Result<Result<Checked, String>> {
    let tail = 4 + MAGIC.len() as u64;
    if size < 8 + tail {
        return Ok(Err(format!("it has only {size} bytes")));
    }
    let end = bytes(content, size - tail, tail as usize)?;
    let footer_len = i64::from(i32::from_le_bytes([end[0], end[1], end[2], end[3]]));
    if &end[4..] != MAGIC || footer_len < 0 || footer_len as u64 > size - tail - 8 {
        return Ok(Err(format!("its footer of {footer_len} bytes does not fit into its {size} bytes")));
    }
    let footer = bytes(content, size - tail - footer_len as u64, footer_len as usize)?;
    let footer = match root_as_footer(&footer) {
        Ok(footer) => footer,
        Err(error) => return Ok(Err(format!("its footer is broken: {error}"))),
    };
    let blocks = footer.dictionaries().into_iter().chain(footer.recordBatches()).flatten();
    let mut checked = Checked::default();
    for block in blocks {
        let (offset, head, body) = (block.offset(), i64::from(block.metaDataLength()), block.bodyLength());
        let end = offset.checked_add(head).and_then(|end| end.checked_add(body));
        if offset < 8 || head < 0 || body < 0 || end.is_none_or(|end| end as u64 > size) {
            return Ok(Err(format!(
                "a block of {head} + {body} bytes at {offset} is not in its {size} bytes"
            )));
        }
        if let Err(problem) = message(content, offset as u64, size, &mut checked)? {
            return Ok(Err(problem));
        }
    }
    Ok(Ok(checked))
}

/// Checks the message at `at` and notes what it says; where the next one begins, `None` at the end of the stream.
fn message(
    content: &mut (impl Read + Seek),
    at: u64,
    size: u64,
    checked: &mut Checked,
) -> io::Result<Result<Option<u64>, String>> {
    let mut start = at + 4;
    let mut word = bytes(content, at, 4)?;
    if word == CONTINUES && size - start >= 4 {
        word = bytes(content, start, 4)?;
        start += 4;
    }
    let head_len = i64::from(i32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    if head_len == 0 {
        return Ok(Ok(None));
    }
    if head_len < 0 || head_len as u64 > size - start {
        return Ok(Err(format!("a message of {head_len} bytes at {start} is not in its {size} bytes")));
    }
    let head = bytes(content, start, head_len as usize)?;
    let message = match root_as_message(&head) {
        Ok(message) => message,
        Err(error) => return Ok(Err(format!("the message at {start} is broken: {error}"))),
    };
    let (body, body_len) = (start + head_len as u64, message.bodyLength());
    if body_len < 0 || body_len as u64 > size - body {
        return Ok(Err(format!("a message's body of {body_len} bytes at {body} is not in its {size} bytes")));
    }
    match message.header_as_record_batch() {
        Some(batch) => checked.rows.push(u64::try_from(batch.length()).unwrap_or(0)),
        None => checked.has_dictionaries |= message.header_as_dictionary_batch().is_some(),
    }
    match batch_of(&message).map(|batch| buffers(content, &batch, body, body_len)).transpose()? {
        Some(Err(problem)) => Ok(Err(problem)),
        _ => Ok(Ok(Some(body + body_len as u64))),
    }
}

fn batch_of<'a>(message: &Message<'a>) -> Option<RecordBatch<'a>> {
    message
        .header_as_record_batch()
        .or_else(|| message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data()))
}

/// Checks the buffers of a batch, whose body begins at `body`: places, and lengths after decompression.
fn buffers(
    content: &mut (impl Read + Seek),
    batch: &RecordBatch,
    body: u64,
    body_len: i64,
) -> io::Result<Result<(), String>> {
    let is_compressed = batch.compression().is_some();
    for buffer in batch.buffers().into_iter().flatten() {
        let (offset, len) = (buffer.offset(), buffer.length());
        let end = offset.checked_add(len);
        if offset < 0 || len < 0 || end.is_none_or(|end| end > body_len) {
            return Ok(Err(format!("a buffer of {len} bytes at {offset} is not in a body of {body_len}")));
        }
        if is_compressed && len >= 8 {
            let prefix = bytes(content, body + offset as u64, 8)?;
            let mut word = [0; 8];
            word.copy_from_slice(&prefix);
            let plain = i64::from_le_bytes(word);
            // −1: not compressed after all.
            if !(-1..=LARGEST_BUFFER).contains(&plain) {
                return Ok(Err(format!("a buffer says that it has {plain} bytes after decompression")));
            }
        }
    }
    Ok(Ok(()))
}

/// Bytes whose place and number the caller has checked.
fn bytes(content: &mut (impl Read + Seek), at: u64, len: usize) -> io::Result<Vec<u8>> {
    content.seek(SeekFrom::Start(at))?;
    let mut bytes = vec![0; len];
    content.read_exact(&mut bytes)?;
    Ok(bytes)
}
