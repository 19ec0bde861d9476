//! Plain (unquantised) little-endian numbers, from bytes at any alignment.

use half::{bf16, f16};

use crate::StoredDtype;

/// Widens or rounds plain floats to f32. `bytes` holds exactly `dst.len()` elements. False for other types.
pub(crate) fn floats_to_f32(dtype: StoredDtype, bytes: &[u8], dst: &mut [f32]) -> bool {
    match dtype {
        StoredDtype::F32 => fill(bytes, dst, f32::from_le_bytes),
        StoredDtype::F16 => fill(bytes, dst, |b: [u8; 2]| f16::from_le_bytes(b).to_f32()),
        StoredDtype::BF16 => fill(bytes, dst, |b: [u8; 2]| bf16::from_le_bytes(b).to_f32()),
        StoredDtype::F64 => fill(bytes, dst, |b: [u8; 8]| f64::from_le_bytes(b) as f32),
        StoredDtype::F8E4M3 => fill(bytes, dst, |b: [u8; 1]| crate::fp8::from_e4m3(b[0])),
        _ => return false,
    }
    true
}

/// Widens plain integers and booleans to i64. `bytes` holds exactly `dst.len()` elements. False for other types.
pub(crate) fn integers_to_i64(dtype: StoredDtype, bytes: &[u8], dst: &mut [i64]) -> bool {
    match dtype {
        StoredDtype::I64 => fill(bytes, dst, i64::from_le_bytes),
        StoredDtype::I32 => fill(bytes, dst, |b| i32::from_le_bytes(b).into()),
        StoredDtype::I16 => fill(bytes, dst, |b| i16::from_le_bytes(b).into()),
        StoredDtype::I8 => fill(bytes, dst, |b| i8::from_le_bytes(b).into()),
        StoredDtype::U8 => fill(bytes, dst, |b: [u8; 1]| b[0].into()),
        StoredDtype::Bool => fill(bytes, dst, |b: [u8; 1]| i64::from(b[0] != 0)),
        _ => return false,
    }
    true
}

/// Rounds f32 (to nearest, ties to even) into a plain float type, appending to `out`. False for other types.
pub(crate) fn f32_to_floats(dtype: StoredDtype, values: &[f32], out: &mut Vec<u8>) -> bool {
    match dtype {
        StoredDtype::F32 => {
            let start = out.len();
            out.resize(start + 4 * values.len(), 0);
            let (elements, _) = out[start..].as_chunks_mut::<4>();
            elements.iter_mut().zip(values).for_each(|(element, value)| *element = value.to_le_bytes());
        }
        StoredDtype::F16 => {
            values.iter().for_each(|&v| out.extend_from_slice(&f16::from_f32(v).to_le_bytes()));
        }
        StoredDtype::BF16 => {
            values.iter().for_each(|&v| out.extend_from_slice(&bf16::from_f32(v).to_le_bytes()));
        }
        StoredDtype::F64 => values.iter().for_each(|&v| out.extend_from_slice(&f64::from(v).to_le_bytes())),
        _ => return false,
    }
    true
}

/// `dst[i] = convert(element i)`. Chunked copies compile to unaligned vector loads, so alignment costs nothing.
fn fill<const N: usize, T>(bytes: &[u8], dst: &mut [T], convert: impl Fn([u8; N]) -> T) {
    let (elements, rest) = bytes.as_chunks::<N>();
    assert!(
        rest.is_empty() && elements.len() == dst.len(),
        "{} bytes for {} elements",
        bytes.len(),
        dst.len()
    );
    for (d, e) in dst.iter_mut().zip(elements) {
        *d = convert(*e);
    }
}
