//! How a tensor's elements are stored on disk.

use std::fmt;

/// The stored type of a tensor: plain numbers, or blocks of quantised numbers as GGUF has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum StoredDtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16: the upper half of a single.
    BF16,
    /// IEEE double precision.
    F64,
    /// Eight bits: sign, four of exponent, three of fraction ([`crate::fp8`]).
    F8E4M3,
    /// Signed 64-bit integer.
    I64,
    /// Signed 32-bit integer.
    I32,
    /// Signed 16-bit integer.
    I16,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 8-bit integer.
    U8,
    /// One byte, 0 or 1.
    Bool,
    /// GGUF: 32 × 4 bits and a scale.
    Q4_0,
    /// GGUF: 32 × 4 bits, scale and minimum.
    Q4_1,
    /// GGUF: 32 × 5 bits and a scale.
    Q5_0,
    /// GGUF: 32 × 5 bits, scale and minimum.
    Q5_1,
    /// GGUF: 32 × 8 bits and a scale.
    Q8_0,
    /// GGUF: 256 × 2 bits, sixteen 4-bit scales and minima.
    Q2K,
    /// GGUF: 256 × 3 bits, sixteen 6-bit scales.
    Q3K,
    /// GGUF: 256 × 4 bits, eight 6-bit scales and minima.
    Q4K,
    /// GGUF: 256 × 5 bits, eight 6-bit scales and minima.
    Q5K,
    /// GGUF: 256 × 6 bits, sixteen 8-bit scales.
    Q6K,
}

impl StoredDtype {
    /// Elements per block and bytes per block; a plain number is a block of one.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F32 | Self::I32 => (1, 4),
            Self::F16 | Self::BF16 | Self::I16 => (1, 2),
            Self::F64 | Self::I64 => (1, 8),
            Self::F8E4M3 | Self::I8 | Self::U8 | Self::Bool => (1, 1),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q2K => (256, 84),
            Self::Q3K => (256, 110),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
        }
    }

    /// True for the block types of GGUF.
    pub fn is_quantised(self) -> bool {
        self.block().0 > 1
    }

    /// True for types whose elements are real numbers: floats and quantised floats.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16 | Self::F64 | Self::F8E4M3) || self.is_quantised()
    }

    /// The name used in messages and, for plain types, in safetensors headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F64 => "F64",
            Self::F8E4M3 => "F8_E4M3",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Bytes of `elements` elements, or `None` if they are not whole blocks or overflow.
    pub fn bytes_of(self, elements: usize) -> Option<usize> {
        let (per_block, bytes) = self.block();
        if !elements.is_multiple_of(per_block) {
            return None;
        }
        (elements / per_block).checked_mul(bytes)
    }
}

impl fmt::Display for StoredDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
