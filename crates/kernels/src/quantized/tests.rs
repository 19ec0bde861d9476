//! bitsandbytes' golden numbers, every path against plain loops, and products against those with the dense matrix.

use super::*;
use crate::testing::{Numbers, buffer, filled, read};
use crate::{Allocator, Backend, CpuBackend, Dtype, Matmul, MemoryClass, Meter, ReferenceBackend};
use proptest::prelude::*;

const KINDS: [Quantization; 3] =
    [Quantization::Nf4 { double_quant: false }, Quantization::Nf4 { double_quant: true }, Quantization::Int8];

fn quantised(
    backend: &dyn Backend,
    kind: Quantization,
    [rows, cols]: [usize; 2],
    x: &[f32],
) -> QuantizedMatrix {
    let mut w = QuantizedMatrix::allocate(backend, MemoryClass::Weights, kind, rows, cols);
    backend.quantize(x, &mut w);
    w
}

fn backends() -> Vec<CpuBackend> {
    Isa::available().into_iter().flat_map(|isa| [1, 3].map(|threads| CpuBackend::new(threads, isa))).collect()
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}

fn fnv_f32(x: &[f32]) -> u64 {
    fnv(bytemuck::cast_slice(x))
}

/// As `numbers` in `golden/quantization.py`, with the zeros that it puts into the second row.
fn golden_input([rows, cols]: [usize; 2], mut state: u32) -> Vec<f32> {
    let mut x: Vec<f32> = (0..rows * cols)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let x = (state >> 8) as f32 / (1u32 << 24) as f32 - 0.5;
            x * x * x
        })
        .collect();
    x[cols..cols + cols.min(70)].fill(0.0);
    x
}

/// Checksums of one matrix.
struct Golden {
    shape: [usize; 2],
    seed: u32,
    codes: u64,
    absmax: u64,
    dense: u64,
    dense_bf16: u64,
    nested_codes: u64,
    nested_absmax: u64,
    offset: u32,
    nested_dense: u64,
    int8_codes: u64,
    int8_absmax: u64,
    int8_dense: u64,
}

// Printed by `crates/kernels/golden/quantization.py` with bitsandbytes 0.50.
const GOLDENS: [Golden; 2] = [
    Golden {
        shape: [96, 704],
        seed: 7,
        codes: 0xab589dc5c1d56de2,
        absmax: 0xc126fe2aa37413dd,
        dense: 0x10f88f86e4bca97f,
        dense_bf16: 0xcfd0366dce34b691,
        nested_codes: 0x1039d1a4cb1c99da,
        nested_absmax: 0x136e719439973131,
        offset: 0x3df46f5c,
        nested_dense: 0x983a5b480e1c6865,
        int8_codes: 0x3bbbfb9ae4b26e15,
        int8_absmax: 0x3319bdccacc9cf20,
        int8_dense: 0xfcdb188594ac2af6,
    },
    Golden {
        shape: [5, 33],
        seed: 9,
        codes: 0x0b39e2a6a72e7b60,
        absmax: 0x0d6f937783680241,
        dense: 0x1192eba1e8a21300,
        dense_bf16: 0x6ab007fee202698c,
        nested_codes: 0xf453d41c725ddad1,
        nested_absmax: 0xf58d0a7b7535628a,
        offset: 0x3dfce828,
        nested_dense: 0x5c1f46608c099dd6,
        int8_codes: 0xe69b73c0fa0c019b,
        int8_absmax: 0x73597b093e4f24fd,
        int8_dense: 0xc2e17c381dff5526,
    },
];

#[test]
fn levels_are_bitsandbytes() {
    assert_eq!(fnv_f32(dynamic_levels()), 0xd677f22a96665bc4);
    assert!(dynamic_levels().is_sorted() && NF4_LEVELS.is_sorted());
}

fn check_golden(backend: &dyn Backend, golden: &Golden) {
    let (name, x) = (backend.name(), golden_input(golden.shape, golden.seed));
    let [rows, cols] = golden.shape;
    let dense = |w: &QuantizedMatrix, dtype| {
        let mut out = Buffer::host(dtype, rows * cols);
        backend.dequantize(w, &mut out);
        out
    };
    let nf4 = quantised(backend, KINDS[0], golden.shape, &x);
    let QuantizedParts::Nf4 { codes, absmax: Absmax::Plain(absmax) } = backend.download_quantized(&nf4)
    else {
        panic!("{name}: other parts")
    };
    assert_eq!((fnv(&codes), fnv_f32(&absmax)), (golden.codes, golden.absmax), "{name}");
    assert_eq!(fnv_f32(&read(&dense(&nf4, Dtype::F32))), golden.dense, "{name}");
    let rounded = dense(&nf4, Dtype::Bf16);
    assert_eq!(fnv(bytemuck::cast_slice(rounded.typed::<half::bf16>())), golden.dense_bf16, "{name}");

    let nested = quantised(backend, KINDS[1], golden.shape, &x);
    let parts = backend.download_quantized(&nested);
    let QuantizedParts::Nf4 { codes, absmax: Absmax::Nested { codes: small, absmax, offset } } = parts else {
        panic!("{name}: other parts")
    };
    assert_eq!(offset.to_bits(), golden.offset, "{name}: {offset}");
    assert_eq!(
        (fnv(&codes), fnv(&small), fnv_f32(&absmax)),
        (golden.codes, golden.nested_codes, golden.nested_absmax),
        "{name}"
    );
    assert_eq!(fnv_f32(&read(&dense(&nested, Dtype::F32))), golden.nested_dense, "{name}");

    let int8 = quantised(backend, KINDS[2], golden.shape, &x);
    let QuantizedParts::Int8 { codes, absmax } = backend.download_quantized(&int8) else {
        panic!("{name}: other parts")
    };
    assert_eq!(
        (fnv(bytemuck::cast_slice(&codes)), fnv_f32(&absmax)),
        (golden.int8_codes, golden.int8_absmax),
        "{name}"
    );
    assert_eq!(fnv_f32(&read(&dense(&int8, Dtype::F32))), golden.int8_dense, "{name}");
}

#[test]
fn codes_scales_and_weights_are_bitsandbytes() {
    for golden in &GOLDENS {
        check_golden(&ReferenceBackend::default(), golden);
        backends().iter().for_each(|backend| check_golden(backend, golden));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn every_path_stores_the_same_parts(
        (rows, cols, seed) in (1usize..40, 1usize..400, any::<u64>()),
        kind in prop::sample::select(&KINDS[..]),
    ) {
        let mut numbers = Numbers::new(seed);
        let scale = [1e-30, 1e-3, 1.0, 1e30][seed as usize % 4];
        let x = numbers.vec(rows * cols, scale);
        let expected = reference::quantize(kind, rows, cols, &x);
        let wide = reference::dequantize(&expected, rows, cols);
        for backend in backends() {
            let w = quantised(&backend, kind, [rows, cols], &x);
            prop_assert_eq!(&w.parts(), &expected, "{}", backend.name());
            for dtype in [Dtype::F32, Dtype::Bf16] {
                let mut out = Buffer::host(dtype, rows * cols);
                backend.dequantize(&w, &mut out);
                prop_assert_eq!(read(&out), read(&buffer(dtype, &wide)), "{}", backend.name());
            }
        }
    }

    #[test]
    fn products_are_those_of_the_dense_matrix(
        (m, n, k, seed) in (1usize..40, 1usize..150, 1usize..300, any::<u64>()),
        (trans_b, accumulate) in any::<(bool, bool)>(),
        kind in prop::sample::select(&KINDS[..]),
        operands in prop::sample::select(vec![Dtype::F32, Dtype::Bf16]),
    ) {
        let op = Matmul { trans_b, accumulate, ..Matmul::nn(m, n, k).scaled(0.75) };
        check_product(&op, kind, operands, seed);
    }
}

/// Bit for bit the product with the dense matrix; near that of the reference.
fn check_product(op: &Matmul, kind: Quantization, operands: Dtype, seed: u64) {
    let Matmul { m, n, k, .. } = *op;
    let shape = if op.trans_b { [n, k] } else { [k, n] };
    let mut numbers = Numbers::new(seed);
    let (a, x) = (buffer(operands, &numbers.vec(m * k, 1.0)), numbers.vec(n * k, 1.0));
    let before = numbers.vec(m * n, 1.0);
    let reference = ReferenceBackend::default();
    let mut exact = buffer(Dtype::F32, &before);
    reference.matmul_quantized(*op, &a, &quantised(&reference, kind, shape, &x), &mut exact);
    // k roundings on a sum of magnitudes of at most k.
    let bound = ((k + 4) * (k + 4)) as f32 * f32::EPSILON;
    for backend in backends() {
        let w = quantised(&backend, kind, shape, &x);
        let mut dense = Buffer::host(operands, n * k);
        backend.dequantize(&w, &mut dense);
        for result in [Dtype::F32, Dtype::Bf16] {
            let (mut c, mut expected) = (buffer(result, &before), buffer(result, &before));
            backend.matmul(*op, &a, &dense, &mut expected);
            backend.matmul_quantized(*op, &a, &w, &mut c);
            let (c, expected) = (read(&c), read(&expected));
            let same = c.iter().zip(&expected).all(|(c, e)| c.to_bits() == e.to_bits());
            assert!(same, "{} {op:?} {kind:?} {operands:?} {result:?}", backend.name());
            if result == Dtype::F32 {
                for (c, exact) in c.iter().zip(read(&exact)) {
                    assert!(
                        (c - exact).abs() <= bound,
                        "{} {op:?} {kind:?}: {c}, not {exact}",
                        backend.name()
                    );
                }
            }
        }
    }
}

#[test]
fn products_of_several_blocks_of_k_and_of_few_rows() {
    for kind in KINDS {
        for operands in [Dtype::F32, Dtype::Bf16] {
            check_product(&Matmul::nt(12, 40, 4300), kind, operands, 1);
            check_product(&Matmul::nn(12, 40, 4301), kind, operands, 2);
            for m in [1, 2, 3, 7, 8, 9, 16, 17] {
                // Whole blocks, an odd number of them, and rows that begin inside a block.
                for k in [576, 320, 64, 47, 130] {
                    check_product(&Matmul::nt(m, 40, k), kind, operands, 3);
                }
            }
        }
    }
}

#[test]
fn parts_go_out_and_in_again() {
    let backend = CpuBackend::detect();
    let x = Numbers::new(4).vec(7 * 130, 1.0);
    for kind in KINDS {
        let w = quantised(&backend, kind, [7, 130], &x);
        let parts = backend.download_quantized(&w);
        let mut other = QuantizedMatrix::allocate(&backend, MemoryClass::Weights, kind, 7, 130);
        backend.upload_quantized(&parts, &mut other);
        assert_eq!(other.parts(), parts);
        assert_eq!(other.kind(), kind);
    }
}

#[test]
fn a_plan_counts_what_is_stored() {
    for (kind, bits) in KINDS.into_iter().zip([4.5, 4.127, 8.0]) {
        let meter = Meter::default();
        let w = QuantizedMatrix::allocate(&meter, MemoryClass::Weights, kind, 2048, 8192);
        let counted: u64 = meter.allocated().iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(counted, w.bytes());
        let stored = 8.0 * counted as f64 / (2048.0 * 8192.0);
        assert!((stored - bits).abs() < 0.01, "{kind:?}: {stored} bits a weight");
    }
}

#[test]
fn numbers_that_are_none_stay_none() {
    let mut x = Numbers::new(5).vec(256, 1.0);
    x[70] = f32::NAN;
    x[130] = f32::INFINITY;
    for kind in KINDS {
        for backend in backends() {
            // No panic, and the same on every path; a checkpoint with such weights is refused where it is loaded.
            let parts = quantised(&backend, kind, [4, 64], &x).parts();
            let codes = |parts: &QuantizedParts| match parts {
                QuantizedParts::Nf4 { codes, .. } => codes.clone(),
                QuantizedParts::Int8 { codes, .. } => bytemuck::cast_slice(codes).to_vec(),
            };
            assert_eq!(codes(&parts), codes(&reference::quantize(kind, 4, 64, &x)), "{}", backend.name());
        }
    }
}

#[test]
#[should_panic(expected = "matmul: B is a quantised 4×8, not 8×4")]
fn a_matrix_of_another_shape_is_refused() {
    let backend = CpuBackend::new(1, Isa::Portable);
    let w = QuantizedMatrix::allocate(&backend, MemoryClass::Weights, Quantization::Int8, 4, 8);
    let (a, mut c) = (filled(Dtype::F32, 80, 1.0), filled(Dtype::F32, 80, 1.0));
    backend.matmul_quantized(Matmul::nt(10, 8, 4), &a, &w, &mut c);
}

#[test]
#[should_panic(expected = "quantised parts: 3 codes, expected 4")]
fn parts_of_another_size_are_refused() {
    let backend = CpuBackend::new(1, Isa::Portable);
    let mut w = QuantizedMatrix::allocate(&backend, MemoryClass::Weights, Quantization::Int8, 2, 2);
    backend.upload_quantized(&QuantizedParts::Int8 { codes: vec![0; 3], absmax: vec![0.0; 2] }, &mut w);
}
