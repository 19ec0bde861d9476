//! Writing GGUF version 3 in a stream: header, metadata, tensor table, then each tensor's bytes at an aligned offset.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use super::header::TYPES;
use super::{MetaArray, MetaValue};
use crate::safetensors::TemporaryFile;
use crate::{FormatError, StoredDtype, TensorInfo};

/// Offsets of tensors are multiples of this (the format's default, so it is not stated in the metadata).
const ALIGNMENT: usize = 32;
const VERSION: u32 = 3;

/// Writes one GGUF file from front to back. The data goes to a temporary file in the same directory, which
/// [`GgufWriter::finish`] flushes to disk and renames: under the final name there is never a partial file. Dropping an
/// unfinished writer removes the temporary file.
#[derive(Debug)]
pub struct GgufWriter {
    temporary: TemporaryFile,
    out: BufWriter<File>,
    tensors: Vec<TensorInfo>,
    /// The tensor being written, and its bytes still to come.
    position: usize,
    left: usize,
}

impl GgufWriter {
    /// Begins a file with this metadata (in this order) and these tensors (GGUF names, row-major shapes, this order).
    ///
    /// # Errors
    /// [`FormatError::Io`].
    ///
    /// # Panics
    /// If a tensor has a type that GGUF has not, or rows that are not whole blocks: the caller's mistake.
    pub fn create(
        path: &Path,
        metadata: &[(String, MetaValue)],
        tensors: &[TensorInfo],
    ) -> Result<Self, FormatError> {
        let header = header(metadata, tensors);
        let (temporary, file) = TemporaryFile::create(path)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(&header).map_err(FormatError::io(path, "write"))?;
        let mut writer = Self { temporary, out, tensors: tensors.to_vec(), position: 0, left: 0 };
        writer.next_with_bytes();
        Ok(writer)
    }

    /// Appends bytes to the tensor `name`, whose turn it must be.
    ///
    /// # Errors
    /// [`FormatError::Io`].
    ///
    /// # Panics
    /// If it is another tensor's turn, or more bytes come than it has: the caller's mistake.
    pub fn write_bytes(&mut self, name: &str, bytes: &[u8]) -> Result<(), FormatError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let current = self.tensors.get(self.position).map_or("the end", |t| &t.name);
        assert!(current == name, "tensor `{name}` was written where `{current}` was declared");
        assert!(bytes.len() <= self.left, "tensor `{name}` has {} bytes left", self.left);
        let target = &self.temporary.target;
        self.out.write_all(bytes).map_err(FormatError::io(target, "write"))?;
        self.left -= bytes.len();
        if self.left == 0 {
            let written = bytes_of(&self.tensors[self.position]);
            let padding = written.next_multiple_of(ALIGNMENT) - written;
            self.out.write_all(&[0; ALIGNMENT][..padding]).map_err(FormatError::io(target, "write"))?;
            self.position += 1;
            self.next_with_bytes();
        }
        Ok(())
    }

    /// Tensors without elements are written already.
    fn next_with_bytes(&mut self) {
        while let Some(tensor) = self.tensors.get(self.position) {
            self.left = bytes_of(tensor);
            if self.left > 0 {
                return;
            }
            self.position += 1;
        }
        self.left = 0;
    }

    /// Flushes the file to disk and gives it its name.
    ///
    /// # Errors
    /// [`FormatError::Io`].
    ///
    /// # Panics
    /// If a declared tensor was not written completely.
    pub fn finish(self) -> Result<(), FormatError> {
        if let Some(tensor) = self.tensors.get(self.position) {
            panic!("tensor `{}` lacks {} bytes", tensor.name, self.left);
        }
        let target = self.temporary.target.clone();
        let file = self.out.into_inner().map_err(|e| FormatError::io(&target, "write")(e.into_error()))?;
        self.temporary.persist(&file)
    }
}

fn bytes_of(tensor: &TensorInfo) -> usize {
    let row = tensor.shape.last().copied().unwrap_or(1);
    let per_block = tensor.dtype.block().0;
    assert!(row.is_multiple_of(per_block), "rows of `{}` are not whole blocks", tensor.name);
    tensor.dtype.bytes_of(tensor.elements()).expect("whole blocks")
}

fn header(metadata: &[(String, MetaValue)], tensors: &[TensorInfo]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        string(key, &mut out);
        out.extend(kind_of(value).to_le_bytes());
        put(value, &mut out);
    }
    let mut offset = 0usize;
    for tensor in tensors {
        string(&tensor.name, &mut out);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        // ggml counts the fastest dimension first
        tensor.shape.iter().rev().for_each(|&size| out.extend((size as u64).to_le_bytes()));
        out.extend(type_id(tensor.dtype).to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset += bytes_of(tensor).next_multiple_of(ALIGNMENT);
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    out
}

fn type_id(dtype: StoredDtype) -> u32 {
    let found = TYPES.iter().find(|(_, known)| *known == dtype);
    found.unwrap_or_else(|| panic!("GGUF has no type {dtype}")).0
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// `enum gguf_type`. Integers take 32 bits where they fit, which is what llama.cpp asks of its own keys.
fn kind_of(value: &MetaValue) -> u32 {
    match value {
        MetaValue::Unsigned(v) => unsigned_kind(&[*v]),
        MetaValue::Signed(v) => signed_kind(&[*v]),
        MetaValue::F32(_) => 6,
        MetaValue::Bool(_) => 7,
        MetaValue::String(_) => 8,
        MetaValue::Array(_) => 9,
        MetaValue::F64(_) => 12,
    }
}

fn unsigned_kind(values: &[u64]) -> u32 {
    if values.iter().all(|&v| v <= u64::from(u32::MAX)) { 4 } else { 10 }
}

fn signed_kind(values: &[i64]) -> u32 {
    if values.iter().all(|&v| i32::try_from(v).is_ok()) { 5 } else { 11 }
}

fn put(value: &MetaValue, out: &mut Vec<u8>) {
    match value {
        MetaValue::Unsigned(v) => put_unsigned(&[*v], out),
        MetaValue::Signed(v) => put_signed(&[*v], out),
        MetaValue::F32(v) => out.extend(v.to_le_bytes()),
        MetaValue::F64(v) => out.extend(v.to_le_bytes()),
        MetaValue::Bool(v) => out.push(u8::from(*v)),
        MetaValue::String(v) => string(v, out),
        MetaValue::Array(array) => put_array(array, out),
    }
}

fn put_unsigned(values: &[u64], out: &mut Vec<u8>) {
    match unsigned_kind(values) {
        4 => values.iter().for_each(|&v| out.extend((v as u32).to_le_bytes())),
        _ => values.iter().for_each(|&v| out.extend(v.to_le_bytes())),
    }
}

fn put_signed(values: &[i64], out: &mut Vec<u8>) {
    match signed_kind(values) {
        5 => values.iter().for_each(|&v| out.extend((v as i32).to_le_bytes())),
        _ => values.iter().for_each(|&v| out.extend(v.to_le_bytes())),
    }
}

/// Kind of the elements, count, elements.
fn put_array(array: &MetaArray, out: &mut Vec<u8>) {
    let kind: u32 = match array {
        MetaArray::Unsigned(values) => unsigned_kind(values),
        MetaArray::Signed(values) => signed_kind(values),
        MetaArray::F32(_) => 6,
        MetaArray::Bool(_) => 7,
        MetaArray::String(_) => 8,
        MetaArray::Array(_) => 9,
        MetaArray::F64(_) => 12,
    };
    out.extend(kind.to_le_bytes());
    out.extend((array.len() as u64).to_le_bytes());
    match array {
        MetaArray::Unsigned(values) => put_unsigned(values, out),
        MetaArray::Signed(values) => put_signed(values, out),
        MetaArray::F32(values) => values.iter().for_each(|v| out.extend(v.to_le_bytes())),
        MetaArray::F64(values) => values.iter().for_each(|v| out.extend(v.to_le_bytes())),
        MetaArray::Bool(values) => values.iter().for_each(|&v| out.push(u8::from(v))),
        MetaArray::String(values) => values.iter().for_each(|v| string(v, out)),
        MetaArray::Array(arrays) => arrays.iter().for_each(|a| put_array(a, out)),
    }
}
