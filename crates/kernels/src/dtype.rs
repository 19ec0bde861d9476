//! Number formats a buffer can hold.

/// Number format of a [`Buffer`](crate::Buffer).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32,
    /// bfloat16: the upper half of a binary32. Conversions round to nearest, ties to even.
    Bf16,
    /// Unsigned 32-bit integers: token ids and positions.
    U32,
    /// Bytes: codes of quantised numbers.
    U8,
}

impl Dtype {
    /// Bytes per element.
    pub const fn bytes(self) -> usize {
        match self {
            Dtype::F32 | Dtype::U32 => 4,
            Dtype::Bf16 => 2,
            Dtype::U8 => 1,
        }
    }
}
