//! The base as an adapter on quantised weights saw it: dense numbers, rounded as its few bits round them.

use crate::load::rounded_for;
use crate::quantized::{dequantize, is_beside, is_quantized, layer_module, read_parts, stored_shape};
use crate::{ModelError, QuantizedWeights};
use foundry_formats::{FormatError, StoredDtype, TensorInfo, TensorSource};
use foundry_kernels::{Backend, Dtype, MemoryClass, QuantizedMatrix, QuantizedParts};
use std::sync::Mutex;

/// Dense values of a source whose layers are stored in few bits, or are to be rounded as if they were. One tensor in
/// few bits is held at a time.
pub struct Dequantized<'a> {
    base: Box<dyn TensorSource>,
    infos: Vec<TensorInfo>,
    rounding: Option<Rounding<'a>>,
    last: Mutex<Option<(String, QuantizedParts)>>,
}

/// How dense weights are rounded.
struct Rounding<'a> {
    weights: QuantizedWeights,
    compute: Dtype,
    backend: &'a dyn Backend,
}

impl<'a> Dequantized<'a> {
    /// What is stored in few bits, as dense numbers; all else as it is.
    ///
    /// # Errors
    /// Descriptions of quantised weights that make no sense.
    pub fn of_stored(base: Box<dyn TensorSource>) -> Result<Self, ModelError> {
        Self::new(base, None)
    }

    /// Dense weights rounded as training with these `weights` in few bits and operands in `compute` rounded them.
    ///
    /// # Errors
    /// As [`Dequantized::of_stored`].
    pub fn as_trained(
        base: Box<dyn TensorSource>,
        weights: QuantizedWeights,
        compute: Dtype,
        backend: &'a dyn Backend,
    ) -> Result<Self, ModelError> {
        Self::new(base, Some(Rounding { weights, compute, backend }))
    }

    fn new(base: Box<dyn TensorSource>, rounding: Option<Rounding<'a>>) -> Result<Self, ModelError> {
        let mut infos = Vec::new();
        for info in base.tensors() {
            if is_beside(&info.name, |weight| is_quantized(base.as_ref(), weight)) {
                continue;
            }
            let mut info = info.clone();
            if is_quantized(base.as_ref(), &info.name) {
                info.shape = stored_shape(base.as_ref(), &info.name)?.to_vec();
                info.dtype = StoredDtype::BF16;
            }
            infos.push(info);
        }
        Ok(Self { base, infos, rounding, last: Mutex::new(None) })
    }

    /// The few bits of a weight, read or made.
    fn parts(&self, name: &str, shape: [usize; 2]) -> Result<Option<QuantizedParts>, ModelError> {
        if is_quantized(self.base.as_ref(), name) {
            return read_parts(self.base.as_ref(), name, shape).map(Some);
        }
        let module = layer_module(name);
        let rounding = self.rounding.as_ref().zip(module);
        let Some((Rounding { weights, compute, backend }, _)) =
            rounding.filter(|(rounding, module)| rounding.weights.covers(module))
        else {
            return Ok(None);
        };
        let mut values = vec![0.0; shape[0] * shape[1]];
        self.base.read_f32(name, 0, &mut values)?;
        rounded_for(weights.kind, *compute, &mut values);
        let [outputs, inputs] = shape;
        let mut matrix =
            QuantizedMatrix::allocate(*backend, MemoryClass::Workspace, weights.kind, outputs, inputs);
        backend.quantize(&values, &mut matrix);
        Ok(Some(backend.download_quantized(&matrix)))
    }
}

impl TensorSource for Dequantized<'_> {
    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn read_f32(&self, name: &str, start: usize, dst: &mut [f32]) -> Result<(), FormatError> {
        let shape = self.find(name).map(|info| info.shape.clone()).unwrap_or_default();
        let &[outputs, inputs] = shape.as_slice() else { return self.base.read_f32(name, start, dst) };
        if start.saturating_add(dst.len()) > outputs.saturating_mul(inputs) {
            return self.base.read_f32(name, start, dst); // says what is wrong with the range
        }
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.as_ref().is_none_or(|(held, _)| held != name) {
            let parts = self.parts(name, [outputs, inputs]).map_err(|error| match error {
                ModelError::Format(error) => error,
                other => FormatError::NotFinite { name: name.to_owned(), problem: other.to_string() },
            })?;
            let Some(parts) = parts else { return self.base.read_f32(name, start, dst) };
            *last = Some((name.to_owned(), parts));
        }
        if let Some((_, parts)) = last.as_ref() {
            dequantize(parts, inputs, start, dst);
        }
        Ok(())
    }

    fn read_i64(&self, name: &str, start: usize, dst: &mut [i64]) -> Result<(), FormatError> {
        self.base.read_i64(name, start, dst)
    }

    fn raw(&self, name: &str) -> Result<Option<&[u8]>, FormatError> {
        let is_rounded = self.rounding.is_some() && layer_module(name).is_some();
        if is_rounded || is_quantized(self.base.as_ref(), name) { Ok(None) } else { self.base.raw(name) }
    }
}
