//! The stored form: buffers that a backend holds, and their contents as files hold them.

use super::{ABSMAX_BLOCK, NF4_BLOCK};
use crate::{Allocator, Buffer, Dtype, MemoryClass};

/// How a matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quantization {
    /// Four bits, levels of a normal distribution (`load_in_4bit`, `bnb_4bit_quant_type: nf4`).
    Nf4 {
        /// `absmax` in eight bits as well (`bnb_4bit_use_double_quant`): 4.13 bits a weight instead of 4.5.
        double_quant: bool,
    },
    /// Eight bits with one scale a row (`load_in_8bit`).
    Int8,
}

/// A matrix of `rows × cols` weights in few bits. Only a [`Backend`](crate::Backend) looks inside.
pub struct QuantizedMatrix {
    rows: usize,
    cols: usize,
    pub(crate) stored: Stored,
}

/// The buffers.
pub(crate) enum Stored {
    Nf4 {
        /// U8, two weights each.
        codes: Buffer,
        absmax: StoredAbsmax,
    },
    Int8 {
        /// U8: two's complement.
        codes: Buffer,
        /// f32, one a row.
        absmax: Buffer,
    },
}

/// One scale for each run of [`NF4_BLOCK`] weights.
pub(crate) enum StoredAbsmax {
    /// f32.
    Plain(Buffer),
    Nested {
        /// U8.
        codes: Buffer,
        /// f32, one for [`ABSMAX_BLOCK`] codes.
        absmax: Buffer,
        /// f32, one element.
        offset: Buffer,
    },
}

/// What a [`QuantizedMatrix`] holds, in host memory: what bitsandbytes' files hold.
#[derive(Clone, Debug, PartialEq)]
pub enum QuantizedParts {
    /// NF4.
    Nf4 {
        /// Two weights a byte, the first in the high half: `ceil(rows·cols / 2)`.
        codes: Vec<u8>,
        /// One scale for 64 weights.
        absmax: Absmax,
    },
    /// Eight bits.
    Int8 {
        /// `rows × cols`.
        codes: Vec<i8>,
        /// "SCB": the greatest magnitude of each row.
        absmax: Vec<f32>,
    },
}

/// The scales of NF4.
#[derive(Clone, Debug, PartialEq)]
pub enum Absmax {
    /// One f32 for 64 weights.
    Plain(Vec<f32>),
    /// Quantised themselves.
    Nested {
        /// Codes of [`dynamic_levels`](super::dynamic_levels), one for 64 weights.
        codes: Vec<u8>,
        /// `nested_absmax`: one f32 for 256 codes.
        absmax: Vec<f32>,
        /// `nested_offset`: what is added to each.
        offset: f32,
    },
}

impl QuantizedMatrix {
    /// Room for `rows × cols` weights, with zeros for codes and scales.
    pub fn allocate(
        alloc: &dyn Allocator,
        class: MemoryClass,
        kind: Quantization,
        rows: usize,
        cols: usize,
    ) -> Self {
        let len = rows.checked_mul(cols).expect("a matrix that memory can hold");
        let buffer = |dtype, len| alloc.alloc(class, dtype, len);
        let blocks = len.div_ceil(NF4_BLOCK);
        let stored = match kind {
            Quantization::Int8 => {
                Stored::Int8 { codes: buffer(Dtype::U8, len), absmax: buffer(Dtype::F32, rows) }
            }
            Quantization::Nf4 { double_quant } => Stored::Nf4 {
                codes: buffer(Dtype::U8, len.div_ceil(2)),
                absmax: if double_quant {
                    StoredAbsmax::Nested {
                        codes: buffer(Dtype::U8, blocks),
                        absmax: buffer(Dtype::F32, blocks.div_ceil(ABSMAX_BLOCK)),
                        offset: buffer(Dtype::F32, 1),
                    }
                } else {
                    StoredAbsmax::Plain(buffer(Dtype::F32, blocks))
                },
            },
        };
        Self { rows, cols, stored }
    }

    /// Rows (of a linear layer: outputs).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns (inputs).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How it is stored.
    pub fn kind(&self) -> Quantization {
        match &self.stored {
            Stored::Int8 { .. } => Quantization::Int8,
            Stored::Nf4 { absmax, .. } => {
                Quantization::Nf4 { double_quant: matches!(absmax, StoredAbsmax::Nested { .. }) }
            }
        }
    }

    /// Bytes of all its buffers.
    pub fn bytes(&self) -> u64 {
        match &self.stored {
            Stored::Int8 { codes, absmax } => codes.bytes() + absmax.bytes(),
            Stored::Nf4 { codes, absmax: StoredAbsmax::Plain(absmax) } => codes.bytes() + absmax.bytes(),
            Stored::Nf4 { codes, absmax: StoredAbsmax::Nested { codes: small, absmax, offset } } => {
                codes.bytes() + small.bytes() + absmax.bytes() + offset.bytes()
            }
        }
    }

    /// The same memory once more ([`Buffer::alias`]).
    pub(crate) fn alias(&self) -> Self {
        let stored = match &self.stored {
            Stored::Int8 { codes, absmax } => Stored::Int8 { codes: codes.alias(), absmax: absmax.alias() },
            Stored::Nf4 { codes, absmax } => Stored::Nf4 {
                codes: codes.alias(),
                absmax: match absmax {
                    StoredAbsmax::Plain(absmax) => StoredAbsmax::Plain(absmax.alias()),
                    StoredAbsmax::Nested { codes, absmax, offset } => StoredAbsmax::Nested {
                        codes: codes.alias(),
                        absmax: absmax.alias(),
                        offset: offset.alias(),
                    },
                },
            },
        };
        Self { rows: self.rows, cols: self.cols, stored }
    }

    /// Copies parts in. Panics if they are of another kind or size.
    pub(crate) fn fill(&mut self, parts: &QuantizedParts) {
        match (&mut self.stored, parts) {
            (
                Stored::Int8 { codes, absmax },
                QuantizedParts::Int8 { codes: new_codes, absmax: new_absmax },
            ) => {
                copy(bytemuck::cast_slice(new_codes), codes.u8_mut(), "codes");
                copy(new_absmax, absmax.f32_mut(), "row scales");
            }
            (Stored::Nf4 { codes, absmax }, QuantizedParts::Nf4 { codes: new_codes, absmax: new_absmax }) => {
                copy(new_codes, codes.u8_mut(), "codes");
                match (absmax, new_absmax) {
                    (StoredAbsmax::Plain(to), Absmax::Plain(from)) => copy(from, to.f32_mut(), "scales"),
                    (
                        StoredAbsmax::Nested { codes, absmax, offset },
                        Absmax::Nested { codes: new_codes, absmax: new_absmax, offset: new_offset },
                    ) => {
                        copy(new_codes, codes.u8_mut(), "codes of scales");
                        copy(new_absmax, absmax.f32_mut(), "scales of scales");
                        offset.f32_mut()[0] = *new_offset;
                    }
                    _ => panic!("quantised parts: scales of another kind than the matrix'"),
                }
            }
            _ => panic!("quantised parts of another kind than the matrix'"),
        }
    }

    /// Copies of the parts.
    pub(crate) fn parts(&self) -> QuantizedParts {
        match &self.stored {
            Stored::Int8 { codes, absmax } => QuantizedParts::Int8 {
                codes: bytemuck::cast_slice(codes.u8()).to_vec(),
                absmax: absmax.f32().to_vec(),
            },
            Stored::Nf4 { codes, absmax } => QuantizedParts::Nf4 {
                codes: codes.u8().to_vec(),
                absmax: match absmax {
                    StoredAbsmax::Plain(absmax) => Absmax::Plain(absmax.f32().to_vec()),
                    StoredAbsmax::Nested { codes, absmax, offset } => Absmax::Nested {
                        codes: codes.u8().to_vec(),
                        absmax: absmax.f32().to_vec(),
                        offset: offset.f32()[0],
                    },
                },
            },
        }
    }
}

fn copy<T: Copy>(from: &[T], to: &mut [T], what: &str) {
    assert!(from.len() == to.len(), "quantised parts: {} {what}, expected {}", from.len(), to.len());
    to.copy_from_slice(from);
}
