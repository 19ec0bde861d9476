//! A source whose numbers are looked at while they are read.

use foundry_formats::{FormatError, TensorInfo, TensorSource};

/// The tensors of another source; reading one that is NaN or infinite somewhere is an error. What is written from it is
/// then whole, however few bits would have hidden the place.
pub struct Finite<'a>(pub &'a dyn TensorSource);

impl TensorSource for Finite<'_> {
    fn tensors(&self) -> &[TensorInfo] {
        self.0.tensors()
    }

    fn read_f32(&self, name: &str, start: usize, dst: &mut [f32]) -> Result<(), FormatError> {
        self.0.read_f32(name, start, dst)?;
        let Some(at) = dst.iter().position(|value| !value.is_finite()) else { return Ok(()) };
        let problem = format!("element {} is {}", start + at, dst[at]);
        Err(FormatError::NotFinite { name: name.to_owned(), problem })
    }

    fn read_i64(&self, name: &str, start: usize, dst: &mut [i64]) -> Result<(), FormatError> {
        self.0.read_i64(name, start, dst)
    }

    /// Always none: bytes are not looked at.
    fn raw(&self, _: &str) -> Result<Option<&[u8]>, FormatError> {
        Ok(None)
    }
}
