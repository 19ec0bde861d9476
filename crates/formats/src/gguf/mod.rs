//! GGUF, llama.cpp's single-file models (versions 2 and 3): metadata, tensors, and the file seen as a Hugging Face
//! model. Layout: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod config;
mod cursor;
mod dequant;
mod dequant_k;
mod export;
mod header;
mod metadata;
mod names;
mod origin;
mod quant;
mod quant_k;
mod quant_search;
mod recipe;
mod rope;
mod source;
mod value;
mod writer;

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use serde_json::Value;

use crate::mmap::MappedFile;
use crate::{FormatError, HfConfig, StoredDtype, TensorInfo, TensorSource};

pub use export::{GgufExport, GgufSummary, TypeSummary};
pub use origin::Origin;
pub use recipe::Recipe;
pub use value::{MetaArray, MetaValue};
pub use writer::GgufWriter;

/// An opened GGUF file: its metadata is in memory, its tensors are mapped.
#[derive(Debug)]
pub struct Gguf {
    file: MappedFile,
    version: u32,
    metadata: HashMap<String, MetaValue>,
    /// In the file's order, under GGUF names, with row-major shapes.
    tensors: Vec<TensorInfo>,
    /// Bytes of each tensor from the start of the file; parallel to `tensors`.
    ranges: Vec<Range<usize>>,
}

impl Gguf {
    /// Opens a GGUF file and checks its header: all counts, lengths, types, shapes and offsets fit the file.
    ///
    /// # Errors
    /// [`FormatError::InvalidGguf`], [`FormatError::GgufVersion`], [`FormatError::UnsupportedDtype`],
    /// [`FormatError::Io`].
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        header::read(MappedFile::open(path)?)
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The format's version: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// A metadata value by its key, such as `general.architecture`.
    pub fn metadata(&self, key: &str) -> Option<&MetaValue> {
        self.metadata.get(key)
    }

    /// The tensors under their GGUF names in the file's order; shapes are row-major (reversed from ggml's).
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Elements `start..start + dst.len()` of a tensor under its GGUF name, dequantised, in the file's order.
    ///
    /// # Errors
    /// [`FormatError::UnknownTensor`], [`FormatError::TensorRange`], [`FormatError::TensorDtype`],
    /// [`FormatError::FileShrank`].
    pub fn read_f32(&self, name: &str, start: usize, dst: &mut [f32]) -> Result<(), FormatError> {
        let i = self.tensors.iter().position(|t| t.name == name);
        let i = i.ok_or_else(|| crate::tensors::unknown_tensor(self.path(), name, &self.tensors))?;
        self.read_tensor(i, start, dst)
    }

    /// `values` as the stored bytes of `dtype`, on up to `threads` threads with the same result.
    ///
    /// # Panics
    /// If `dtype` is an integer type, or `values` is not whole blocks of it.
    pub fn quantise(dtype: StoredDtype, values: &[f32], threads: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        quant::quantise(dtype, values, threads, &mut bytes);
        bytes
    }

    /// The equivalent of a Hugging Face `config.json`.
    ///
    /// # Errors
    /// [`FormatError::GgufUnsupported`] for architectures other than llama and mistral,
    /// [`FormatError::GgufKeyMissing`], [`FormatError::GgufKey`].
    pub fn config(&self) -> Result<HfConfig, FormatError> {
        config::build(self)
    }

    /// The equivalent of a Hugging Face `generation_config.json`, if the file names special tokens.
    pub fn generation_config(&self) -> Option<Value> {
        config::generation(self)
    }

    /// The file's tensors under Hugging Face names and in Hugging Face's layout.
    ///
    /// # Errors
    /// As [`Gguf::config`], and [`FormatError::GgufUnsupported`] for tensors that have no place in the model.
    pub fn into_source(self) -> Result<Box<dyn TensorSource>, FormatError> {
        Ok(Box::new(source::HfView::new(self)?))
    }

    /// Reads from tensor `i`, see [`Gguf::read_f32`].
    fn read_tensor(&self, i: usize, start: usize, dst: &mut [f32]) -> Result<(), FormatError> {
        let info = &self.tensors[i];
        crate::tensors::check_range(self.path(), info, start, dst.len())?;
        let bytes = &self.file.bytes()?[self.ranges[i].clone()];
        if dequant::read(info.dtype, bytes, start, dst) {
            return Ok(());
        }
        let (path, name) = (self.path().to_owned(), info.name.clone());
        Err(FormatError::TensorDtype { path, name, dtype: info.dtype, wanted: "a float or quantised type" })
    }

    pub(crate) fn unsupported(&self, problem: String) -> FormatError {
        FormatError::GgufUnsupported { path: self.path().to_owned(), problem }
    }

    pub(crate) fn bad_key(&self, key: &str, problem: String) -> FormatError {
        FormatError::GgufKey { path: self.path().to_owned(), key: key.to_owned(), problem }
    }

    /// A required metadata value, converted; the wrong kind is an error.
    pub(crate) fn required<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        convert: impl FnOnce(&'a MetaValue) -> Option<T>,
    ) -> Result<T, FormatError> {
        let missing = || FormatError::GgufKeyMissing { path: self.path().to_owned(), key: key.to_owned() };
        self.optional(key, wanted, convert)?.ok_or_else(missing)
    }

    /// An optional metadata value, converted; the wrong kind is an error.
    pub(crate) fn optional<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        convert: impl FnOnce(&'a MetaValue) -> Option<T>,
    ) -> Result<Option<T>, FormatError> {
        let Some(value) = self.metadata(key) else { return Ok(None) };
        let problem = || format!("should be {wanted}, but is {}", value.kind());
        convert(value).map(Some).ok_or_else(|| self.bad_key(key, problem()))
    }
}
