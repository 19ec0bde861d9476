//! Numbers that another thread reads, a checkpoint's for example, while the backend goes on reading them too: no copy
//! is made, and nobody writes to them meanwhile.

use crate::operand::{Operand as _, with_operand};
use crate::{Buffer, Dtype, QuantizedMatrix, QuantizedParts};

/// The numbers of a [`Buffer`], made by [`Backend::share`](crate::Backend::share). Until it is dropped, writing to the
/// buffer panics.
pub struct SharedBuffer(Buffer);

impl SharedBuffer {
    pub(crate) fn of(buffer: &Buffer) -> Self {
        Self(buffer.alias())
    }

    /// Number format of the elements.
    pub fn dtype(&self) -> Dtype {
        self.0.dtype()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// No elements.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the elements from `offset` on (f32 or bf16) as f32.
    pub fn read(&self, offset: usize, into: &mut [f32]) {
        with_operand!(self.0.dtype(), T => {
            let from = &self.0.typed::<T>()[offset..offset + into.len()];
            into.iter_mut().zip(from).for_each(|(to, from)| *to = from.widen());
        });
    }

    /// Reads the elements from `offset` on (U8).
    pub fn read_u8(&self, offset: usize, into: &mut [u8]) {
        into.copy_from_slice(&self.0.u8()[offset..offset + into.len()]);
    }
}

/// The same of a [`QuantizedMatrix`], made by [`Backend::share_quantized`](crate::Backend::share_quantized).
pub struct SharedMatrix(QuantizedMatrix);

impl SharedMatrix {
    pub(crate) fn of(matrix: &QuantizedMatrix) -> Self {
        Self(matrix.alias())
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.0.cols()
    }

    /// Copies of all parts.
    pub fn parts(&self) -> QuantizedParts {
        self.0.parts()
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Allocator as _, Backend as _, Buffer, Dtype, MemoryClass, Quantization, QuantizedMatrix,
        ReferenceBackend,
    };
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn another_thread_reads_what_nobody_can_change_meanwhile() {
        let backend = ReferenceBackend::default();
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let mut buffer = backend.alloc(MemoryClass::Trainable, dtype, 3);
            backend.upload(&[1.0, -2.5, 4.0], &mut buffer, 0);
            let shared = backend.share(&buffer);
            let change =
                |buffer: &mut Buffer| catch_unwind(AssertUnwindSafe(|| backend.upload(&[9.0], buffer, 1)));
            assert!(change(&mut buffer).is_err(), "{dtype:?}");
            let read = std::thread::spawn(move || {
                let mut read = [0.0; 2];
                shared.read(1, &mut read);
                read
            });
            assert_eq!(read.join().unwrap(), [-2.5, 4.0]);
            assert!(change(&mut buffer).is_ok(), "{dtype:?}: the other thread is done");
        }
    }

    #[test]
    fn a_quantised_matrix_is_shared_with_all_its_parts() {
        let backend = ReferenceBackend::default();
        let kinds = [false, true].map(|double_quant| Quantization::Nf4 { double_quant });
        for kind in kinds.into_iter().chain([Quantization::Int8]) {
            let mut matrix = QuantizedMatrix::allocate(&backend, MemoryClass::Weights, kind, 8, 64);
            let values: Vec<f32> = (0..8 * 64).map(|i| (i % 37) as f32 - 18.0).collect();
            backend.quantize(&values, &mut matrix);
            let shared = backend.share_quantized(&matrix);
            let parts = backend.download_quantized(&matrix);
            assert_eq!(shared.parts(), parts);
            let change = |matrix: &mut QuantizedMatrix| {
                catch_unwind(AssertUnwindSafe(|| backend.upload_quantized(&parts, matrix)))
            };
            assert!(change(&mut matrix).is_err(), "{kind:?}");
            drop(shared);
            assert!(change(&mut matrix).is_ok(), "{kind:?}");
        }
    }
}
