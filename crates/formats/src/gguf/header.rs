//! The header of a GGUF file: magic, version, metadata, tensor table, and where the data is.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

use super::cursor::{Cursor, Fault};
use super::{Gguf, MetaValue};
use crate::mmap::MappedFile;
use crate::{FormatError, StoredDtype, TensorInfo};

/// ggml's limit on the number of dimensions.
const MAX_DIMS: u32 = 4;
/// Where no `general.alignment` is stated.
const DEFAULT_ALIGNMENT: u64 = 32;
/// Types by their number in the file (`enum ggml_type`).
pub(super) const TYPES: [(u32, StoredDtype); 18] = [
    (0, StoredDtype::F32),
    (1, StoredDtype::F16),
    (2, StoredDtype::Q4_0),
    (3, StoredDtype::Q4_1),
    (6, StoredDtype::Q5_0),
    (7, StoredDtype::Q5_1),
    (8, StoredDtype::Q8_0),
    (10, StoredDtype::Q2K),
    (11, StoredDtype::Q3K),
    (12, StoredDtype::Q4K),
    (13, StoredDtype::Q5K),
    (14, StoredDtype::Q6K),
    (24, StoredDtype::I8),
    (25, StoredDtype::I16),
    (26, StoredDtype::I32),
    (27, StoredDtype::I64),
    (28, StoredDtype::F64),
    (30, StoredDtype::BF16),
];
/// Names of types that exist but are not read, for the message.
const OTHER_TYPES: [(u32, &str); 16] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

/// One line of the tensor table.
struct TableEntry {
    info: TensorInfo,
    bytes: usize,
    /// From the start of the data section.
    offset: u64,
    /// Where the line is, for messages.
    at: usize,
}

pub(super) fn read(file: MappedFile) -> Result<Gguf, FormatError> {
    let path = file.path().to_owned();
    let bytes = file.bytes()?;
    let mut cursor = Cursor::new(bytes);
    let version = read_version(&mut cursor, bytes, &path)?;
    let fault = |f: Fault| FormatError::InvalidGguf {
        path: path.clone(),
        offset: f.offset as u64,
        problem: f.problem,
    };
    // A tensor's line has at least a name's length, a dimension count, a type and an offset; a metadata line a key's
    // length, a type and one byte.
    let tensor_count = cursor.count(8 + 4 + 4 + 8, "the tensor count").map_err(fault)?;
    let metadata_count = cursor.count(8 + 4 + 1, "the metadata count").map_err(fault)?;
    let metadata = read_metadata(&mut cursor, metadata_count).map_err(fault)?;
    let table = read_table(&mut cursor, tensor_count, &path, &fault)?;
    let alignment = alignment(&metadata, &path)?;
    let data_start = (cursor.position() as u64).next_multiple_of(alignment);
    let mut tensors = Vec::with_capacity(table.len());
    let mut ranges = Vec::with_capacity(table.len());
    for entry in table {
        ranges.push(place(&entry, data_start, alignment, bytes.len()).map_err(fault)?);
        tensors.push(entry.info);
    }
    Ok(Gguf { file, version, metadata, tensors, ranges })
}

fn read_version(cursor: &mut Cursor<'_>, bytes: &[u8], path: &Path) -> Result<u32, FormatError> {
    let fault = |f: Fault| FormatError::InvalidGguf {
        path: path.to_owned(),
        offset: f.offset as u64,
        problem: f.problem,
    };
    if !bytes.starts_with(b"GGUF") {
        return Err(fault(Fault { offset: 0, problem: "the file does not begin with `GGUF`".to_owned() }));
    }
    cursor.u32("the magic").map_err(fault)?;
    let version = cursor.u32("the version").map_err(fault)?;
    let refuse = |version: String| Err(FormatError::GgufVersion { path: path.to_owned(), version });
    match version {
        2 | 3 => Ok(version),
        v if v >= 0x1_0000 && v.swap_bytes() < 0x1_0000 => refuse(format!("{} (big-endian)", v.swap_bytes())),
        v => refuse(v.to_string()),
    }
}

fn read_metadata(cursor: &mut Cursor<'_>, count: usize) -> Result<HashMap<String, MetaValue>, Fault> {
    let mut metadata = HashMap::new();
    for _ in 0..count {
        let at = cursor.position();
        let key = cursor.string("a metadata key")?;
        let kind = cursor.u32("a metadata type")?;
        let value = cursor.value(kind, &format!("metadata `{}`", shorten(&key)))?;
        let shown = shorten(&key);
        if metadata.insert(key, value).is_some() {
            return Err(Fault { offset: at, problem: format!("metadata `{shown}` is there twice") });
        }
    }
    Ok(metadata)
}

fn read_table(
    cursor: &mut Cursor<'_>,
    count: usize,
    path: &Path,
    fault: &dyn Fn(Fault) -> FormatError,
) -> Result<Vec<TableEntry>, FormatError> {
    let mut table = Vec::new();
    let mut names = HashSet::new();
    for _ in 0..count {
        let at = cursor.position();
        let name = cursor.string("a tensor's name").map_err(fault)?;
        if !names.insert(name.clone()) {
            let problem = format!("tensor `{}` is there twice", shorten(&name));
            return Err(fault(Fault { offset: at, problem }));
        }
        let (shape, type_id, offset) = read_shape(cursor, &name).map_err(fault)?;
        let dtype = TYPES.iter().find(|(id, _)| *id == type_id).map(|(_, dtype)| *dtype);
        let dtype = dtype.ok_or_else(|| unsupported(path, &name, type_id))?;
        let bytes = tensor_bytes(&shape, dtype).map_err(|problem| {
            fault(Fault { offset: at, problem: format!("tensor `{}`: {problem}", shorten(&name)) })
        })?;
        table.push(TableEntry { info: TensorInfo { name, shape, dtype }, bytes, offset, at });
    }
    Ok(table)
}

/// Row-major shape, type number and offset of one tensor.
fn read_shape(cursor: &mut Cursor<'_>, name: &str) -> Result<(Vec<usize>, u32, u64), Fault> {
    let shown = shorten(name);
    let dims = cursor.u32("a tensor's dimension count")?;
    if dims > MAX_DIMS {
        return cursor.fault(format!("tensor `{shown}` has {dims} dimensions; {MAX_DIMS} are possible"));
    }
    let mut shape = Vec::new();
    for _ in 0..dims {
        let size = cursor.u64("a tensor's dimension")?;
        match usize::try_from(size) {
            Ok(size) if size > 0 => shape.push(size),
            _ => return cursor.fault(format!("tensor `{shown}` has a dimension of {size}")),
        }
    }
    shape.reverse(); // ggml counts the fastest dimension first
    let type_id = cursor.u32("a tensor's type")?;
    Ok((shape, type_id, cursor.u64("a tensor's offset")?))
}

/// Bytes of a tensor, or what is wrong with its shape.
fn tensor_bytes(shape: &[usize], dtype: StoredDtype) -> Result<usize, String> {
    let per_block = dtype.block().0;
    let row = shape.last().copied().unwrap_or(1);
    if !row.is_multiple_of(per_block) {
        return Err(format!("rows of {row} elements are not whole {dtype} blocks of {per_block}"));
    }
    let elements = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
    elements.and_then(|n| dtype.bytes_of(n)).ok_or_else(|| format!("its shape {shape:?} overflows"))
}

fn alignment(metadata: &HashMap<String, MetaValue>, path: &Path) -> Result<u64, FormatError> {
    let key = "general.alignment";
    let Some(value) = metadata.get(key) else { return Ok(DEFAULT_ALIGNMENT) };
    let problem = || format!("{value:?} is not a power of two below 1 MiB");
    let valid = value.as_u64().filter(|a| a.is_power_of_two() && *a < 1 << 20);
    valid.ok_or_else(|| FormatError::GgufKey {
        path: path.to_owned(),
        key: key.to_owned(),
        problem: problem(),
    })
}

/// The tensor's bytes counted from the start of the file.
fn place(
    entry: &TableEntry,
    data_start: u64,
    alignment: u64,
    file_len: usize,
) -> Result<Range<usize>, Fault> {
    let fault = |problem: String| {
        let problem = format!("tensor `{}`: {problem}", shorten(&entry.info.name));
        Err(Fault { offset: entry.at, problem })
    };
    if !entry.offset.is_multiple_of(alignment) {
        return fault(format!("its offset {} is not a multiple of the alignment {alignment}", entry.offset));
    }
    let start = data_start.checked_add(entry.offset);
    let end = start.and_then(|s| s.checked_add(entry.bytes as u64));
    match (start, end) {
        (Some(start), Some(end)) if end <= file_len as u64 => Ok(start as usize..end as usize),
        _ => fault(format!(
            "its {} bytes at offset {} of the data reach past the end of the file ({file_len} bytes)",
            entry.bytes, entry.offset
        )),
    }
}

fn unsupported(path: &Path, name: &str, type_id: u32) -> FormatError {
    let known = OTHER_TYPES.iter().find(|(id, _)| *id == type_id);
    FormatError::UnsupportedDtype {
        path: path.to_owned(),
        name: shorten(name),
        dtype: known
            .map_or_else(|| format!("the unknown GGUF type {type_id}"), |(_, name)| (*name).to_owned()),
        supported: "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K".to_owned(),
    }
}

/// A name from the file, short enough for a message.
fn shorten(name: &str) -> String {
    if name.chars().count() <= 80 {
        name.to_owned()
    } else {
        name.chars().take(77).chain("...".chars()).collect()
    }
}
