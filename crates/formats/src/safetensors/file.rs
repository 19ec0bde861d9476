//! One safetensors file, memory-mapped.

use std::ops::Range;
use std::path::Path;

use safetensors::{Dtype, SafeTensorError, SafeTensors};

use crate::mmap::MappedFile;
use crate::tensors::{check_range, unknown_tensor};
use crate::{FormatError, StoredDtype, TensorInfo, TensorSource, plain};

/// One safetensors file. The header was validated by the `safetensors` crate when it was opened: the tensors are
/// within the file, do not overlap, leave no holes, and their shapes fit their lengths.
pub(crate) struct SafetensorsFile {
    file: MappedFile,
    tensors: Vec<TensorInfo>,
    /// Bytes of each tensor, counted from the start of the file; parallel to `tensors`.
    ranges: Vec<Range<usize>>,
}

impl SafetensorsFile {
    pub(crate) fn open(path: &Path) -> Result<Self, FormatError> {
        let file = MappedFile::open(path)?;
        let bytes = file.bytes()?;
        let (header_len, metadata) =
            SafeTensors::read_metadata(bytes).map_err(|e| invalid(path, explain(&e, bytes)))?;
        let data_start = header_len + 8;
        let mut entries = Vec::new();
        for (name, info) in metadata.tensors() {
            let dtype = stored_dtype(info.dtype).ok_or_else(|| FormatError::UnsupportedDtype {
                path: path.to_owned(),
                name: name.clone(),
                dtype: format!("{:?}", info.dtype),
                supported: "F32, F16, BF16, F64, I64, I32, I16, I8, U8 and BOOL".to_owned(),
            })?;
            let (from, to) = info.data_offsets;
            entries.push((
                TensorInfo { name, shape: info.shape.clone(), dtype },
                data_start + from..data_start + to,
            ));
        }
        entries.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        let (tensors, ranges) = entries.into_iter().unzip();
        Ok(Self { file, tensors, ranges })
    }

    /// Where a tensor is: its index, or the error that says it is not there.
    fn index(&self, name: &str) -> Result<usize, FormatError> {
        self.tensors
            .binary_search_by(|t| t.name.as_str().cmp(name))
            .map_err(|_| unknown_tensor(self.file.path(), name, &self.tensors))
    }

    /// The bytes of elements `start..start + len` of tensor `i`.
    fn elements(&self, i: usize, start: usize, len: usize) -> Result<&[u8], FormatError> {
        let end = check_range(self.file.path(), &self.tensors[i], start, len)?;
        let size = self.tensors[i].dtype.block().1;
        let first = self.ranges[i].start;
        Ok(&self.file.bytes()?[first + start * size..first + end * size])
    }

    fn wrong_dtype(&self, i: usize, wanted: &'static str) -> FormatError {
        let info = &self.tensors[i];
        let (path, name) = (self.file.path().to_owned(), info.name.clone());
        FormatError::TensorDtype { path, name, dtype: info.dtype, wanted }
    }
}

impl TensorSource for SafetensorsFile {
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn read_f32(&self, name: &str, start: usize, dst: &mut [f32]) -> Result<(), FormatError> {
        let i = self.index(name)?;
        let bytes = self.elements(i, start, dst.len())?;
        if plain::floats_to_f32(self.tensors[i].dtype, bytes, dst) {
            let element = self.tensors[i].dtype.block().1;
            let first = self.ranges[i].start + start * element;
            self.file.release(first..first + dst.len() * element);
            Ok(())
        } else {
            Err(self.wrong_dtype(i, "a float type"))
        }
    }

    fn read_i64(&self, name: &str, start: usize, dst: &mut [i64]) -> Result<(), FormatError> {
        let i = self.index(name)?;
        let bytes = self.elements(i, start, dst.len())?;
        if plain::integers_to_i64(self.tensors[i].dtype, bytes, dst) {
            Ok(())
        } else {
            Err(self.wrong_dtype(i, "an integer type"))
        }
    }

    fn raw(&self, name: &str) -> Result<Option<&[u8]>, FormatError> {
        let Ok(i) = self.index(name) else { return Ok(None) };
        Ok(Some(&self.file.bytes()?[self.ranges[i].clone()]))
    }
}

fn stored_dtype(dtype: Dtype) -> Option<StoredDtype> {
    Some(match dtype {
        Dtype::F32 => StoredDtype::F32,
        Dtype::F16 => StoredDtype::F16,
        Dtype::BF16 => StoredDtype::BF16,
        Dtype::F64 => StoredDtype::F64,
        Dtype::I64 => StoredDtype::I64,
        Dtype::I32 => StoredDtype::I32,
        Dtype::I16 => StoredDtype::I16,
        Dtype::I8 => StoredDtype::I8,
        Dtype::U8 => StoredDtype::U8,
        Dtype::BOOL => StoredDtype::Bool,
        _ => return None,
    })
}

fn invalid(path: &Path, problem: String) -> FormatError {
    FormatError::InvalidSafetensors { path: path.to_owned(), problem }
}

/// The crate's error in words that say what contradicts what.
fn explain(error: &SafeTensorError, bytes: &[u8]) -> String {
    let len = bytes.len();
    match error {
        SafeTensorError::HeaderTooSmall => format!("the file has {len} bytes, too few for a header"),
        SafeTensorError::HeaderTooLarge => "the header claims more than 100 MB".to_owned(),
        SafeTensorError::InvalidHeaderLength => {
            let claimed = bytes.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
            format!("the header claims {claimed} bytes, but the file has only {len}")
        }
        SafeTensorError::InvalidHeader(e) => format!("the header is not UTF-8 ({e})"),
        SafeTensorError::InvalidHeaderDeserialization(e) => {
            format!("the header is not the expected JSON ({e})")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            format!("the tensors in the header do not end where the file ends (byte {len})")
        }
        SafeTensorError::InvalidOffset(name) => {
            format!("the offsets of tensor `{name}` overlap or leave a hole")
        }
        SafeTensorError::TensorInvalidInfo => "a tensor's shape and type do not fit its offsets".to_owned(),
        SafeTensorError::ValidationOverflow => "a tensor's shape overflows".to_owned(),
        other => other.to_string(),
    }
}
