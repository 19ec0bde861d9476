//! Codes to numbers, a run of weights at a time.

use super::{ABSMAX_BLOCK, NF4_BLOCK, NF4_LEVELS, QuantizedMatrix, Stored, StoredAbsmax, dynamic_levels};
#[cfg(target_arch = "x86_64")]
use crate::Dtype;
use crate::Isa;
use crate::operand::Operand;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx512, dot_bf16, expand_bf16, matrix::Matrix, nf4 as vector};
#[cfg(target_arch = "x86_64")]
use half::bf16;

/// A quantised matrix to be read.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    rows: usize,
    cols: usize,
    stored: Slices<'a>,
}

#[derive(Clone, Copy)]
enum Slices<'a> {
    Nf4 { codes: &'a [u8], absmax: Scales<'a> },
    Int8 { codes: &'a [i8], absmax: &'a [f32] },
}

#[derive(Clone, Copy)]
enum Scales<'a> {
    Plain(&'a [f32]),
    Nested { codes: &'a [u8], absmax: &'a [f32], offset: f32, levels: &'a [f32; 256] },
}

impl Scales<'_> {
    #[inline(always)]
    fn of(&self, block: usize) -> f32 {
        match *self {
            Scales::Plain(absmax) => absmax[block],
            Scales::Nested { codes, absmax, offset, levels } => {
                levels[usize::from(codes[block])] * absmax[block / ABSMAX_BLOCK] + offset
            }
        }
    }
}

impl Scales<'_> {
    /// Those of neighbouring blocks.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn all(&self, first: usize, scales: &mut [f32]) {
        match *self {
            Scales::Plain(absmax) => scales.copy_from_slice(&absmax[first..first + scales.len()]),
            Scales::Nested { codes, absmax, offset, levels } => {
                let (mut at, mut rest) = (first, scales);
                while !rest.is_empty() {
                    // As far as one scale of scales goes.
                    let len = rest.len().min(ABSMAX_BLOCK - at % ABSMAX_BLOCK);
                    let part = rest.split_off_mut(..len).expect("not longer");
                    let unit = absmax[at / ABSMAX_BLOCK];
                    for (scale, code) in part.iter_mut().zip(&codes[at..at + len]) {
                        *scale = levels[usize::from(*code)] * unit + offset;
                    }
                    at += len;
                }
            }
        }
    }
}

impl<'a> View<'a> {
    pub(crate) fn new(w: &'a QuantizedMatrix) -> Self {
        let stored = match &w.stored {
            Stored::Int8 { codes, absmax } => {
                Slices::Int8 { codes: bytemuck::cast_slice(codes.u8()), absmax: absmax.f32() }
            }
            Stored::Nf4 { codes, absmax } => Slices::Nf4 {
                codes: codes.u8(),
                absmax: match absmax {
                    StoredAbsmax::Plain(absmax) => Scales::Plain(absmax.f32()),
                    StoredAbsmax::Nested { codes, absmax, offset } => Scales::Nested {
                        codes: codes.u8(),
                        absmax: absmax.f32(),
                        offset: offset.f32()[0],
                        levels: dynamic_levels(),
                    },
                },
            },
        };
        Self { rows: w.rows(), cols: w.cols(), stored }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// The products of the first `rows` rows of `x` with row `row`, straight from the codes. `None`: this form of the
    /// matrix has to be written out first. `scratch`: room for a scale of each block of a row.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn dots(
        &self,
        witness: Avx512,
        x: Matrix<'_, bf16>,
        rows: usize,
        row: usize,
        scratch: &mut [f32],
    ) -> Option<[f32; dot_bf16::ROWS]> {
        let numbers = row * self.cols..(row + 1) * self.cols;
        match self.stored {
            Slices::Int8 { codes, absmax } => {
                Some(dot_bf16::dots_int8(witness, x, rows, &codes[numbers], absmax[row]))
            }
            // Blocks that cross from one row into the next are rare: widths are multiples of 64.
            Slices::Nf4 { codes, absmax } if self.cols.is_multiple_of(NF4_BLOCK) => {
                let (first, codes) = (numbers.start / NF4_BLOCK, &codes[numbers.start / 2..numbers.end / 2]);
                let scales = &mut scratch[..self.cols / NF4_BLOCK];
                absmax.all(first, scales);
                Some(dot_bf16::dots_nf4(witness, x, rows, codes, scales))
            }
            Slices::Nf4 { .. } => None,
        }
    }

    /// Numbers of scratch memory for [`View::dots`].
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn dots_scratch(&self) -> usize {
        self.cols.div_ceil(NF4_BLOCK)
    }

    /// The weights from number `first` on, counted row by row, for a product: where numbers are bf16 and the product
    /// takes denormal ones for zero, they may be zero here.
    #[inline]
    pub(crate) fn factors<T: Operand>(&self, isa: Isa, first: usize, out: &mut [T]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(witness) = isa.avx512()
            && T::DTYPE == Dtype::Bf16
        {
            return self.fast_factors(isa, witness, first, bytemuck::cast_slice_mut(out));
        }
        self.run(isa, first, out);
    }

    /// [`View::factors`] with AVX-512, for whole blocks of four bits and for what lies in one row of eight.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn fast_factors(&self, isa: Isa, witness: Avx512, first: usize, out: &mut [bf16]) {
        let (row, col) = (first / self.cols, first % self.cols);
        match self.stored {
            Slices::Int8 { codes, absmax } if col + out.len() <= self.cols => {
                expand_bf16::int8(witness, &codes[first..][..out.len()], absmax[row], out);
            }
            Slices::Int8 { .. } => self.run(isa, first, out),
            Slices::Nf4 { codes, absmax } => {
                let before = (first.next_multiple_of(NF4_BLOCK) - first).min(out.len());
                let (begun, out) = out.split_at_mut(before);
                self.run(isa, first, begun);
                let (whole, rest) = out.split_at_mut(out.len() / NF4_BLOCK * NF4_BLOCK);
                let mut at = first + before;
                for part in whole.chunks_mut(MANY * NF4_BLOCK) {
                    let mut scales = [0.0; MANY];
                    let scales = &mut scales[..part.len() / NF4_BLOCK];
                    absmax.all(at / NF4_BLOCK, scales);
                    expand_bf16::nf4(witness, &codes[at / 2..][..part.len() / 2], scales, part);
                    at += part.len();
                }
                self.run(isa, at, rest);
            }
        }
    }

    /// The weights from number `first` on, counted row by row.
    #[inline]
    pub(crate) fn run<T: Operand>(&self, isa: Isa, first: usize, out: &mut [T]) {
        match self.stored {
            Slices::Nf4 { codes, absmax } => nf4(isa, codes, absmax, first, out),
            Slices::Int8 { codes, absmax } => {
                let mut at = first;
                let mut rest = out;
                while !rest.is_empty() {
                    let (row, col) = (at / self.cols, at % self.cols);
                    let part = rest.split_off_mut(..(self.cols - col).min(rest.len())).expect("not longer");
                    let codes = &codes[at..][..part.len()];
                    isa.vectorize(
                        #[inline(always)]
                        || int8(codes, absmax[row], part),
                    );
                    at += part.len();
                }
            }
        }
    }
}

/// bitsandbytes' 1/127.
pub(crate) const INT8_UNIT: f32 = 7.874_015_718_698_502e-3;

/// `q · absmax · (1/127)`, in bitsandbytes' order and with its constant.
#[inline(always)]
fn int8<T: Operand>(codes: &[i8], absmax: f32, out: &mut [T]) {
    for i in 0..out.len() {
        out[i] = T::narrow(int8_weight(codes[i], absmax));
    }
}

/// One weight.
#[inline(always)]
pub(super) fn int8_weight(code: i8, absmax: f32) -> f32 {
    f32::from(code) * absmax * INT8_UNIT
}

/// Blocks whose scales are worked out at a time.
const MANY: usize = 16;

#[inline]
fn nf4<T: Operand>(isa: Isa, codes: &[u8], absmax: Scales<'_>, first: usize, out: &mut [T]) {
    let (mut at, mut rest) = (first, out);
    while !rest.is_empty() {
        // Up to the end of a block, then whole blocks.
        let into = at % NF4_BLOCK;
        let most = if into == 0 { MANY * NF4_BLOCK } else { NF4_BLOCK - into };
        let part = rest.split_off_mut(..most.min(rest.len())).expect("not longer");
        let mut scales = [0.0; MANY];
        let blocks = (into + part.len()).div_ceil(NF4_BLOCK);
        for (b, scale) in scales[..blocks].iter_mut().enumerate() {
            *scale = absmax.of(at / NF4_BLOCK + b);
        }
        let whole = if at.is_multiple_of(2) { by_eight(isa, &codes[at / 2..], &scales, part) } else { 0 };
        for (i, out) in part.iter_mut().enumerate().skip(whole) {
            let scale = scales[(into + i) / NF4_BLOCK];
            *out = T::narrow(NF4_LEVELS[usize::from(nf4_code(codes, at + i))] * scale);
        }
        at += part.len();
    }
}

/// Writes as many whole groups of eight as the instruction set can; returns how many numbers that were. `out` does not
/// cross into another block, or starts with one.
#[inline]
fn by_eight<T: Operand>(isa: Isa, codes: &[u8], scales: &[f32], out: &mut [T]) -> usize {
    let whole = out.len() / 8 * 8;
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(witness) => vector::expand(witness, codes, scales, &mut out[..whole]),
        isa => match isa.avx512() {
            Some(witness) => vector::expand(witness.avx2(), codes, scales, &mut out[..whole]),
            None => return 0,
        },
    }
    whole
}

/// The code of weight `i`.
#[inline(always)]
pub(super) fn nf4_code(codes: &[u8], i: usize) -> u8 {
    let byte = codes[i / 2];
    if i.is_multiple_of(2) { byte >> 4 } else { byte & 15 }
}
