//! Quantised base weights in bitsandbytes' safetensors layout: which tensors a weight is stored as, and back.
//!
//! | kind | tensors of the weight `W` of module `M` |
//! |---|---|
//! | NF4 | `M.weight` (U8, `[⌈n/2⌉, 1]`), `.absmax` (F32), `.quant_map` (F32), `.quant_state.bitsandbytes__nf4`
//! (U8: JSON) |
//! | NF4, double quantised | the same with `.absmax` in U8, and `.nested_absmax`, `.nested_quant_map` (F32) |
//! | int8 | `M.weight` (I8, `[outputs, inputs]`), `M.SCB` (F32), `M.weight_format` (U8) |
//!
//! (bitsandbytes 0.50 `QuantState.as_dict(packed=True)` and `Linear8bitLt`; transformers 5.23 reads and writes them.)

use crate::{ModelError, QuantizedWeights};
use foundry_formats::safetensors::{Entry, ShardedWriter};
use foundry_formats::{FormatError, HfConfig, StoredDtype, TensorSource};
use foundry_kernels::{
    ABSMAX_BLOCK, Absmax, NF4_BLOCK, NF4_LEVELS, Quantization, QuantizedParts, dynamic_levels,
};
use serde_json::{Map, Value, json};

/// Endings of the tensors that stand beside `M.weight`, after `M.`.
const BESIDE: [&str; 7] = [
    "weight.absmax",
    "weight.quant_map",
    "weight.nested_absmax",
    "weight.nested_quant_map",
    "weight.quant_state.bitsandbytes__nf4",
    "SCB",
    "weight_format",
];

/// The ending of NF4's description.
const STATE: &str = "quant_state.bitsandbytes__nf4";

/// Which quantisation a `quantization_config` of config.json says the files have; `None`: they are not quantised.
///
/// # Errors
/// Quantisations that are not read here: the message names the two that are.
pub fn stored_quantization(hf: &HfConfig) -> Result<Option<Quantization>, ModelError> {
    let unsupported = |what: String| {
        ModelError::Unsupported {
        what,
        remedy: "bitsandbytes' nf4 and int8 checkpoints are read; else use the unquantised checkpoint of the model".into(),
    }
    };
    // The reader of FP8 checkpoints hands out dense tensors.
    if hf.get("quantization_config").is_none_or(Value::is_null) || foundry_formats::fp8::is_fp8(hf) {
        return Ok(None);
    }
    let text = |key: &str| hf.opt_str(&format!("quantization_config.{key}"));
    let flag =
        |key: &str| Ok::<_, ModelError>(hf.opt_bool(&format!("quantization_config.{key}"))?.unwrap_or(false));
    match text("quant_method")? {
        Some("bitsandbytes") | None => {}
        Some(other) => return Err(unsupported(format!("`quantization_config` of method {other:?}"))),
    }
    match (flag("load_in_4bit")?, flag("load_in_8bit")?) {
        (true, false) => {
            // bitsandbytes' own default is fp4.
            let kind = text("bnb_4bit_quant_type")?.unwrap_or("fp4");
            let storage = text("bnb_4bit_quant_storage")?.unwrap_or("uint8");
            if kind != "nf4" || storage != "uint8" {
                return Err(unsupported(format!("4-bit weights of type {kind:?} stored as {storage:?}")));
            }
            Ok(Some(Quantization::Nf4 { double_quant: flag("bnb_4bit_use_double_quant")? }))
        }
        (false, true) => Ok(Some(Quantization::Int8)),
        _ => Err(unsupported("`quantization_config` that asks for neither 4 nor 8 bits".into())),
    }
}

/// The same with the modules that the files leave as they are.
///
/// # Errors
/// As [`stored_quantization`].
pub fn quantized_weights(hf: &HfConfig) -> Result<Option<QuantizedWeights>, ModelError> {
    let Some(kind) = stored_quantization(hf)? else { return Ok(None) };
    let skip = hf.opt_strings("quantization_config.llm_int8_skip_modules")?.unwrap_or_default();
    Ok(Some(QuantizedWeights { kind, skip: skip.into_iter().map(str::to_owned).collect() }))
}

/// How these parts are stored.
pub(crate) fn kind_of(parts: &QuantizedParts) -> Quantization {
    match parts {
        QuantizedParts::Int8 { .. } => Quantization::Int8,
        QuantizedParts::Nf4 { absmax, .. } => {
            Quantization::Nf4 { double_quant: matches!(absmax, Absmax::Nested { .. }) }
        }
    }
}

/// `quantization_config` of a model whose linear layers (but the head) are stored like this, as transformers writes it.
pub(crate) fn quantization_config(kind: Quantization, compute: &str, skip: &[String]) -> Value {
    let (is_4bit, double_quant) = match kind {
        Quantization::Nf4 { double_quant } => (true, double_quant),
        Quantization::Int8 => (false, false),
    };
    json!({
        "_load_in_4bit": is_4bit,
        "_load_in_8bit": !is_4bit,
        "bnb_4bit_compute_dtype": compute,
        "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_quant_type": if is_4bit { "nf4" } else { "fp4" },
        "bnb_4bit_use_double_quant": double_quant,
        "llm_int8_enable_fp32_cpu_offload": false,
        "llm_int8_has_fp16_weight": false,
        "llm_int8_skip_modules": if skip.is_empty() { Value::Null } else { json!(skip) },
        "llm_int8_threshold": 6.0,
        "load_in_4bit": is_4bit,
        "load_in_8bit": !is_4bit,
        "quant_method": "bitsandbytes",
    })
}

/// Whether `tensor` stands beside the quantised weight of a module that `is_known` by the name of its weight.
pub(crate) fn is_beside(tensor: &str, is_known: impl Fn(&str) -> bool) -> bool {
    BESIDE.iter().any(|ending| {
        tensor
            .strip_suffix(ending)
            .is_some_and(|module| module.ends_with('.') && is_known(&format!("{module}weight")))
    })
}

/// `weight` is stored in few bits in this source.
pub(crate) fn is_quantized(source: &dyn TensorSource, weight: &str) -> bool {
    source.find(&format!("{weight}.{STATE}")).is_some()
        || source.find(weight).is_some_and(|info| info.dtype == StoredDtype::I8)
}

/// The module of a weight that quantisation covers: a linear layer inside the blocks.
pub(crate) fn layer_module(weight: &str) -> Option<&str> {
    weight.strip_suffix(".weight").filter(|m| m.starts_with("model.layers.") && m.ends_with("_proj"))
}

/// The shape `[outputs, inputs]` of a weight that is stored in few bits.
pub(crate) fn stored_shape(source: &dyn TensorSource, weight: &str) -> Result<[usize; 2], ModelError> {
    let file = File { source, weight };
    let pair = |shape: Option<Vec<usize>>| shape.and_then(|shape| <[usize; 2]>::try_from(shape).ok());
    let shape =
        match source.find(&format!("{weight}.{STATE}")) {
            Some(_) => file.state_json()?.get("shape").and_then(Value::as_array).and_then(|list| {
                list.iter().map(|n| n.as_u64().and_then(|n| usize::try_from(n).ok())).collect()
            }),
            None => source.find(weight).map(|info| info.shape.clone()),
        };
    let is_sane = |[outputs, inputs]: &[usize; 2]| outputs.checked_mul(*inputs).is_some_and(|n| n < 1 << 40);
    pair(shape).filter(is_sane).ok_or_else(|| file.wrong("it is no matrix".into()))
}

/// The parts of the weight of shape `[outputs, inputs]`. Sizes are those of the shape, whatever the file says.
pub(crate) fn read_parts(
    source: &dyn TensorSource,
    weight: &str,
    shape: [usize; 2],
) -> Result<QuantizedParts, ModelError> {
    let file = File { source, weight };
    let [outputs, inputs] = shape;
    if source.find(&format!("{weight}.{STATE}")).is_none() {
        let module = weight.strip_suffix("weight").unwrap_or(weight);
        let codes = file.integers(weight, &[outputs, inputs], StoredDtype::I8)?;
        return Ok(QuantizedParts::Int8 {
            codes: codes.into_iter().map(|code| code as i8).collect(),
            absmax: file.floats(&format!("{module}SCB"), outputs)?,
        });
    }
    let state = file.state(shape)?;
    let elements = outputs * inputs;
    let blocks = elements.div_ceil(NF4_BLOCK);
    let codes = file.bytes(weight, elements.div_ceil(2))?;
    let absmax = format!("{weight}.absmax");
    let absmax = match state.nested_offset {
        None => Absmax::Plain(file.floats(&absmax, blocks)?),
        Some(offset) => {
            file.check_map(&format!("{weight}.nested_quant_map"), dynamic_levels())?;
            Absmax::Nested {
                codes: file.bytes(&absmax, blocks)?,
                absmax: file.floats(&format!("{weight}.nested_absmax"), blocks.div_ceil(ABSMAX_BLOCK))?,
                offset,
            }
        }
    };
    file.check_map(&format!("{weight}.quant_map"), &NF4_LEVELS)?;
    Ok(QuantizedParts::Nf4 { codes, absmax })
}

/// What the description of an NF4 weight says besides its shape.
struct State {
    nested_offset: Option<f32>,
}

/// One weight in a file.
struct File<'a> {
    source: &'a dyn TensorSource,
    weight: &'a str,
}

impl File<'_> {
    fn wrong(&self, what: String) -> ModelError {
        ModelError::QuantizedWeight { name: self.weight.to_owned(), what }
    }

    /// The JSON that bitsandbytes packs into a tensor of bytes.
    fn state_json(&self) -> Result<Value, ModelError> {
        let name = format!("{}.{STATE}", self.weight);
        let info = self.source.find(&name).ok_or_else(|| ModelError::MissingTensor { name: name.clone() })?;
        if info.elements() > 4096 {
            return Err(self.wrong(format!("a description of {} bytes", info.elements())));
        }
        let bytes = self.bytes(&name, info.elements())?;
        serde_json::from_slice(&bytes)
            .map_err(|e| self.wrong(format!("`{name}` is not the JSON that bitsandbytes writes ({e})")))
    }

    fn state(&self, [outputs, inputs]: [usize; 2]) -> Result<State, ModelError> {
        let state = self.state_json()?;
        let expect = |key: &str, expected: Value| match state.get(key) {
            Some(found) if *found == expected => Ok(()),
            found => {
                Err(self.wrong(format!("`{key}` is {}, expected {expected}", found.unwrap_or(&Value::Null))))
            }
        };
        expect("quant_type", json!("nf4"))?;
        expect("blocksize", json!(NF4_BLOCK))?;
        expect("shape", json!([outputs, inputs]))?;
        if state.get("nested_blocksize").is_none() {
            return Ok(State { nested_offset: None });
        }
        expect("nested_blocksize", json!(ABSMAX_BLOCK))?;
        let offset = state.get("nested_offset").and_then(Value::as_f64).map(|x| x as f32);
        let offset = offset.filter(|x| x.is_finite());
        let offset = offset.ok_or_else(|| self.wrong("`nested_offset` is not a number".into()))?;
        Ok(State { nested_offset: Some(offset) })
    }

    fn integers(&self, name: &str, shape: &[usize], dtype: StoredDtype) -> Result<Vec<i64>, ModelError> {
        let info = self.source.find(name).ok_or_else(|| ModelError::MissingTensor { name: name.into() })?;
        if info.dtype != dtype {
            return Err(self.wrong(format!("`{name}` is stored as {}, expected {dtype}", info.dtype)));
        }
        if info.elements() != shape.iter().product::<usize>() {
            let (found, expected) = (info.shape.clone(), shape.to_vec());
            return Err(ModelError::TensorShape { name: name.into(), found, expected });
        }
        let mut values = vec![0; info.elements()];
        self.source.read_i64(name, 0, &mut values)?;
        Ok(values)
    }

    fn bytes(&self, name: &str, len: usize) -> Result<Vec<u8>, ModelError> {
        let values = self.integers(name, &[len, 1], StoredDtype::U8)?;
        Ok(values.into_iter().map(|value| value as u8).collect())
    }

    fn floats(&self, name: &str, len: usize) -> Result<Vec<f32>, ModelError> {
        let info = self.source.find(name).ok_or_else(|| ModelError::MissingTensor { name: name.into() })?;
        if info.elements() != len {
            let (found, expected) = (info.shape.clone(), vec![len]);
            return Err(ModelError::TensorShape { name: name.into(), found, expected });
        }
        let mut values = vec![0.0; len];
        self.source.read_f32(name, 0, &mut values)?;
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(self.wrong(format!("`{name}` holds {value}")));
        }
        Ok(values)
    }

    /// A code's numbers must be those that the kernels have built in.
    fn check_map(&self, name: &str, expected: &[f32]) -> Result<(), ModelError> {
        let found = self.floats(name, expected.len())?;
        // Other versions computed the numbers in another order: a unit in the last place.
        let is_near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
        if found.iter().zip(expected).all(is_near) {
            return Ok(());
        }
        Err(self.wrong(format!("`{name}` is another code than bitsandbytes' own")))
    }
}

/// The weight's values, computed from its parts on the host: the kernels' definition.
pub(crate) fn dequantize(parts: &QuantizedParts, inputs: usize, start: usize, into: &mut [f32]) {
    match parts {
        QuantizedParts::Int8 { codes, absmax } => {
            for (i, value) in into.iter_mut().enumerate() {
                let at = start + i;
                *value = f32::from(codes[at]) * absmax[at / inputs] * (1.0 / 127.0);
            }
        }
        QuantizedParts::Nf4 { codes, absmax } => {
            let levels = dynamic_levels();
            for (i, value) in into.iter_mut().enumerate() {
                let at = start + i;
                let byte = codes[at / 2];
                let code = if at.is_multiple_of(2) { byte >> 4 } else { byte & 15 };
                let block = at / NF4_BLOCK;
                let scale = match absmax {
                    Absmax::Plain(absmax) => absmax[block],
                    Absmax::Nested { codes, absmax, offset } => {
                        levels[codes[block] as usize] * absmax[block / ABSMAX_BLOCK] + offset
                    }
                };
                *value = NF4_LEVELS[code as usize] * scale;
            }
        }
    }
}

/// The tensors of a quantised weight, in the order of [`write_parts`].
pub(crate) fn entries(weight: &str, shape: &[usize], kind: Quantization, compute: &str) -> Vec<Entry> {
    let elements: usize = shape.iter().product();
    let blocks = elements.div_ceil(NF4_BLOCK);
    let entry = |ending: &str, dtype: StoredDtype, shape: &[usize]| {
        Entry::new(format!("{weight}{ending}"), dtype, shape)
    };
    match kind {
        Quantization::Int8 => {
            let module = weight.strip_suffix("weight").unwrap_or(weight);
            vec![
                Entry::new(format!("{module}SCB"), StoredDtype::F32, &shape[..1]),
                entry("", StoredDtype::I8, shape),
                Entry::new(format!("{module}weight_format"), StoredDtype::U8, &[]),
            ]
        }
        Quantization::Nf4 { double_quant } => {
            // The length of the description depends on the offset's digits, at most those of the longest f64.
            let state = state_json(shape, compute, double_quant.then_some(0.0)).len() + 24;
            let mut entries = vec![
                entry("", StoredDtype::U8, &[elements.div_ceil(2), 1]),
                entry(".absmax", if double_quant { StoredDtype::U8 } else { StoredDtype::F32 }, &[blocks]),
            ];
            if double_quant {
                entries.push(entry(".nested_absmax", StoredDtype::F32, &[blocks.div_ceil(ABSMAX_BLOCK)]));
                entries.push(entry(".nested_quant_map", StoredDtype::F32, &[256]));
            }
            entries.push(entry(".quant_map", StoredDtype::F32, &[NF4_LEVELS.len()]));
            entries.push(entry(&format!(".{STATE}"), StoredDtype::U8, &[state]));
            entries
        }
    }
}

/// Writes tensor `entry` of the weight that `parts` belong to.
pub(crate) fn write_part(
    entry: &Entry,
    parts: &QuantizedParts,
    shape: &[usize],
    compute: &str,
    writer: &mut ShardedWriter,
) -> Result<(), FormatError> {
    let name = entry.name.as_str();
    let bytes_of = |codes: &[i8]| codes.iter().map(|code| *code as u8).collect::<Vec<u8>>();
    match parts {
        QuantizedParts::Int8 { codes, absmax } => match () {
            () if name.ends_with("SCB") => writer.write_f32(name, absmax),
            // 0 is the format "row".
            () if name.ends_with("weight_format") => writer.write_bytes(name, &[0]),
            () => writer.write_bytes(name, &bytes_of(codes)),
        },
        QuantizedParts::Nf4 { codes, absmax } => match (name, absmax) {
            (name, Absmax::Nested { absmax, .. }) if name.ends_with(".nested_absmax") => {
                writer.write_f32(name, absmax)
            }
            (name, _) if name.ends_with(".nested_quant_map") => writer.write_f32(name, dynamic_levels()),
            (name, _) if name.ends_with(".quant_map") => writer.write_f32(name, &NF4_LEVELS),
            (name, Absmax::Plain(absmax)) if name.ends_with(".absmax") => writer.write_f32(name, absmax),
            (name, Absmax::Nested { codes, .. }) if name.ends_with(".absmax") => {
                writer.write_bytes(name, codes)
            }
            (name, absmax) if name.ends_with(STATE) => {
                let offset = match absmax {
                    Absmax::Nested { offset, .. } => Some(*offset),
                    Absmax::Plain(_) => None,
                };
                let mut state = state_json(shape, compute, offset);
                // JSON may end in spaces.
                state.extend(std::iter::repeat_n(' ', entry.elements().saturating_sub(state.len())));
                writer.write_bytes(name, state.as_bytes())
            }
            (name, _) => writer.write_bytes(name, codes),
        },
    }
}

/// bitsandbytes' description of an NF4 weight.
fn state_json(shape: &[usize], compute: &str, nested_offset: Option<f32>) -> String {
    let mut state = Map::from_iter([
        ("quant_type".to_owned(), json!("nf4")),
        ("blocksize".to_owned(), json!(NF4_BLOCK)),
        ("dtype".to_owned(), json!(compute)),
        ("shape".to_owned(), json!(shape)),
    ]);
    if let Some(offset) = nested_offset {
        state.insert("nested_blocksize".into(), json!(ABSMAX_BLOCK));
        state.insert("nested_dtype".into(), json!("float32"));
        state.insert("nested_offset".into(), json!(f64::from(offset)));
    }
    Value::Object(state).to_string()
}
