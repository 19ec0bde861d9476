//! The two number formats of operands, and how they are widened and rounded.

use crate::Dtype;
use bytemuck::Pod;
use half::bf16;

/// An element of an operand buffer. Arithmetic is in f32; a result is rounded once, when it is stored.
pub(crate) trait Operand: Pod + Send + Sync {
    /// Its name at run time.
    const DTYPE: Dtype;
    /// The same number in f32.
    fn widen(self) -> f32;
    /// The nearest representable number, ties to even; NaN stays NaN.
    fn narrow(x: f32) -> Self;
}

impl Operand for f32 {
    const DTYPE: Dtype = Dtype::F32;
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow(x: f32) -> Self {
        x
    }
}

/// Written with plain integer operations, unlike the crate `half`'s, so that loops over it vectorise.
impl Operand for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn narrow(x: f32) -> Self {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        let quiet = (bits >> 16) | 0x40;
        bf16::from_bits(if x.is_nan() { quiet } else { rounded } as u16)
    }
}

/// Runs a block with a type name standing for the operand type of a buffer.
macro_rules! with_operand {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::Dtype::F32 => {
                type $T = f32;
                $body
            }
            $crate::Dtype::Bf16 => {
                type $T = half::bf16;
                $body
            }
            other => panic!("expected f32 or bf16 operands, got {other:?}"),
        }
    };
}
pub(crate) use with_operand;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_the_crate_half() {
        // Every exponent and sign, with mantissas around the ties.
        for high in 0..=u16::MAX {
            for low in [0u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let x = f32::from_bits((u32::from(high) << 16) | low);
                assert_eq!(<bf16 as Operand>::narrow(x).to_bits(), bf16::from_f32(x).to_bits(), "{x:e}");
            }
            let x = bf16::from_bits(high);
            assert!(x.widen().to_bits() == x.to_f32().to_bits() || x.widen().is_nan() && x.is_nan(), "{x}");
        }
    }
}
