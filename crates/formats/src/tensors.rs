//! What a set of named tensors on disk looks like to the rest of the program.

use std::path::Path;

use crate::{FormatError, StoredDtype};

/// Name, shape and stored type of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The tensor's name as Hugging Face checkpoints have it.
    pub name: String,
    /// Its row-major shape: the last dimension varies fastest.
    pub shape: Vec<usize>,
    /// How its elements are stored.
    pub dtype: StoredDtype,
}

impl TensorInfo {
    /// Number of elements. The readers check at open that the product does not overflow.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Named tensors to read from: a safetensors file, a sharded checkpoint, or a GGUF seen under Hugging Face names.
pub trait TensorSource: Send + Sync {
    /// All tensors, sorted by name.
    fn tensors(&self) -> &[TensorInfo];

    /// The tensor of that name.
    fn find(&self, name: &str) -> Option<&TensorInfo> {
        let tensors = self.tensors();
        tensors.binary_search_by(|t| t.name.as_str().cmp(name)).ok().map(|i| &tensors[i])
    }

    /// Reads elements `start..start + dst.len()` of the row-major tensor as f32: widened or rounded from the stored
    /// float type, dequantised where quantised. (GGUF: the rows of q_proj and k_proj are in Hugging Face order.)
    ///
    /// # Errors
    /// [`FormatError::UnknownTensor`], [`FormatError::TensorRange`], [`FormatError::TensorDtype`] for integers,
    /// [`FormatError::FileShrank`].
    fn read_f32(&self, name: &str, start: usize, dst: &mut [f32]) -> Result<(), FormatError>;

    /// Reads elements `start..start + dst.len()` of an integer or boolean tensor.
    ///
    /// # Errors
    /// As [`TensorSource::read_f32`], with [`FormatError::TensorDtype`] for floats.
    fn read_i64(&self, name: &str, start: usize, dst: &mut [i64]) -> Result<(), FormatError>;

    /// The stored little-endian bytes of a whole tensor, not necessarily aligned; `None` where there is no such
    /// tensor or its stored order differs from the order that [`TensorSource::read_f32`] gives.
    ///
    /// # Errors
    /// [`FormatError::FileShrank`].
    fn raw(&self, name: &str) -> Result<Option<&[u8]>, FormatError>;
}

/// Checks a range of elements against a tensor's size and returns its end.
pub(crate) fn check_range(
    path: &Path,
    info: &TensorInfo,
    start: usize,
    len: usize,
) -> Result<usize, FormatError> {
    let end = start.saturating_add(len);
    let elements = info.elements();
    if end > elements {
        return Err(FormatError::TensorRange {
            path: path.to_owned(),
            name: info.name.clone(),
            elements,
            start,
            end,
        });
    }
    Ok(end)
}

/// The error for a name that is not there, with a name that ends alike: prefixes differ most often.
pub(crate) fn unknown_tensor(path: &Path, name: &str, tensors: &[TensorInfo]) -> FormatError {
    let ends = |long: &str, short: &str| long.strip_suffix(short).is_some_and(|prefix| prefix.ends_with('.'));
    let nearest = tensors.iter().find(|t| ends(&t.name, name) || ends(name, &t.name)).map(|t| t.name.clone());
    FormatError::UnknownTensor { path: path.to_owned(), name: name.to_owned(), nearest }
}
