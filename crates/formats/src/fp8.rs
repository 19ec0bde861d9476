//! Eight-bit floats (OCP FP8, E4M3 without infinities) with a scale for each row: what compressed-tensors calls
//! `float-quantized` with strategy `channel`, and vLLM reads.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::tensors::unknown_tensor;
use crate::{FormatError, HfConfig, StoredDtype, TensorInfo, TensorSource};

/// The largest number of the format.
pub const LARGEST: f32 = 448.0;
/// What stands after the name of a weight's module for its scales.
const SCALE: &str = "_scale";

/// The code nearest to `x`, ties to even, numbers beyond the largest becoming it. NaN stays NaN.
pub fn to_e4m3(x: f32) -> u8 {
    let sign = ((x.to_bits() >> 31) as u8) << 7;
    let size = x.abs();
    if size.is_nan() {
        return sign | 0x7f;
    }
    if size >= LARGEST {
        return sign | 0x7e;
    }
    // Numbers below 2⁻⁶ have the spacing of those just above it.
    let exponent = ((size.to_bits() >> 23) as i32 - 127).max(-6);
    let steps = (size * 2f32.powi(3 - exponent)).round_ties_even() as u8;
    // Sixteen steps are the first number of the next exponent, whose code is the next one too.
    let code = if steps < 8 { steps } else { ((exponent + 7) << 3) as u8 + (steps - 8) };
    sign | code
}

/// The number of a code.
pub fn from_e4m3(code: u8) -> f32 {
    let (exponent, fraction) = (i32::from((code >> 3) & 15), f32::from(code & 7));
    let size = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => fraction * 2f32.powi(-9),
        _ => (8.0 + fraction) * 2f32.powi(exponent - 10),
    };
    if code & 0x80 == 0 { size } else { -size }
}

/// One row as codes, and the scale by which they are to be multiplied.
pub fn quantise_row(row: &[f32], codes: &mut Vec<u8>) -> f32 {
    let largest = row.iter().fold(0f32, |most, v| most.max(v.abs()));
    // A row of zeros, or of numbers whose scale would vanish, is zero under any scale.
    let scale = if largest / LARGEST > 0.0 { largest / LARGEST } else { 1.0 };
    codes.extend(row.iter().map(|v| to_e4m3(v / scale)));
    scale
}

/// The entry of config.json: weights by channel, activations by token while the model runs (`FP8_DYNAMIC`).
pub fn quantization_config() -> Value {
    let common = json!({ "num_bits": 8, "type": "float", "symmetric": true });
    let with = |strategy: &str, dynamic: bool| {
        let mut args = common.clone();
        args["strategy"] = json!(strategy);
        args["dynamic"] = json!(dynamic);
        args
    };
    json!({
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "kv_cache_scheme": null,
        "config_groups": { "group_0": {
            "targets": ["Linear"],
            "weights": with("channel", false),
            "input_activations": with("token", true),
            "output_activations": null,
        } },
    })
}

/// True if config.json says that the weights are stored so.
pub fn is_fp8(config: &HfConfig) -> bool {
    let at = |key: &str| config.get(&format!("quantization_config.{key}")).and_then(Value::as_str);
    at("quant_method") == Some("compressed-tensors") && at("format") == Some("float-quantized")
}

/// Such a checkpoint with its weights multiplied out; the scales are not tensors of their own.
pub(crate) struct Fp8View {
    path: PathBuf,
    inner: Box<dyn TensorSource>,
    tensors: Vec<TensorInfo>,
}

impl Fp8View {
    pub(crate) fn new(path: PathBuf, inner: Box<dyn TensorSource>) -> Self {
        let tensors =
            inner.tensors().iter().filter(|info| !info.name.ends_with(".weight_scale")).cloned().collect();
        Self { path, inner, tensors }
    }
}

impl TensorSource for Fp8View {
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn read_f32(&self, name: &str, start: usize, dst: &mut [f32]) -> Result<(), FormatError> {
        let info = self.find(name).ok_or_else(|| unknown_tensor(&self.path, name, &self.tensors))?;
        self.inner.read_f32(name, start, dst)?;
        if info.dtype != StoredDtype::F8E4M3 {
            return Ok(());
        }
        let width = info.shape.get(1).copied().unwrap_or(1).max(1);
        let scales = format!("{name}{SCALE}");
        let mut done = 0;
        while done < dst.len() {
            let (row, column) = ((start + done) / width, (start + done) % width);
            let len = (width - column).min(dst.len() - done);
            let mut scale = [0f32];
            self.inner.read_f32(&scales, row, &mut scale)?;
            dst[done..done + len].iter_mut().for_each(|v| *v *= scale[0]);
            done += len;
        }
        Ok(())
    }

    fn read_i64(&self, name: &str, start: usize, dst: &mut [i64]) -> Result<(), FormatError> {
        self.inner.read_i64(name, start, dst)
    }

    fn raw(&self, name: &str) -> Result<Option<&[u8]>, FormatError> {
        match self.find(name) {
            Some(info) if info.dtype != StoredDtype::F8E4M3 => self.inner.raw(name),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{from_e4m3, quantise_row, to_e4m3};

    #[test]
    fn every_code_is_its_own_nearest() {
        for code in (0..=u8::MAX).filter(|code| code & 0x7f != 0x7f) {
            assert_eq!(to_e4m3(from_e4m3(code)), code, "{code:#x}");
        }
        assert!(from_e4m3(0x7f).is_nan() && to_e4m3(f32::NAN) & 0x7f == 0x7f);
        // Values of the standard: the largest, the smallest normal and subnormal numbers, one.
        let standard = [(0x7e, 448.0), (0x08, 2f32.powi(-6)), (0x01, 2f32.powi(-9)), (0x38, 1.0)];
        standard.into_iter().for_each(|(code, value)| assert_eq!(from_e4m3(code), value));
    }

    #[test]
    fn numbers_between_go_to_the_nearer_or_the_even_one() {
        for code in 0..0x7eu8 {
            let (low, high) = (from_e4m3(code), from_e4m3(code + 1));
            let middle = (low + high) / 2.0;
            assert_eq!(to_e4m3(middle), if code % 2 == 0 { code } else { code + 1 }, "{code:#x}");
            assert_eq!(to_e4m3(middle + (high - low) / 16.0), code + 1);
            assert_eq!(to_e4m3(-middle + (high - low) / 16.0), 0x80 | code);
        }
        assert_eq!([to_e4m3(1e9), to_e4m3(-460.0)], [0x7e, 0xfe], "no infinities: the largest");
    }

    #[test]
    fn a_row_keeps_its_largest_number() {
        let mut codes = Vec::new();
        let scale = quantise_row(&[0.1, -0.7, 0.0, 0.35], &mut codes);
        let back: Vec<f32> = codes.iter().map(|&code| from_e4m3(code) * scale).collect();
        assert!((back[1] + 0.7).abs() < 1e-6 && (back[3] - 0.35).abs() < 1e-6, "{back:?}");
        assert_eq!(quantise_row(&[0.0, 0.0], &mut codes), 1.0);
    }
}
