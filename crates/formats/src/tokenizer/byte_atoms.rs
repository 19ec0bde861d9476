//! Which bytes a byte-level vocabulary cannot express.

use std::sync::LazyLock;

use serde_json::Value;

/// GPT-2's spelling of each byte as a printable character: printable Latin-1 characters stand for themselves, the
/// other 68 bytes for U+0100 and up (openai/gpt-2, `encoder.py::bytes_to_unicode`).
pub(super) fn alphabet() -> &'static [char; 256] {
    static ALPHABET: LazyLock<[char; 256]> = LazyLock::new(|| {
        let mut next = 0x100u32;
        std::array::from_fn(|byte| {
            let byte = byte as u8;
            if matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) {
                return char::from(byte);
            }
            let stand_in = char::from_u32(next).expect("U+0100..U+0144 are characters");
            next += 1;
            stand_in
        })
    });
    &ALPHABET
}

/// Bytes that occur in UTF-8 but have no token: by their stand-in character for byte-level pre-tokenizers, by
/// `<0xNN>` for byte-fallback models. Empty for other tokenizers.
pub(super) fn missing(inner: &tokenizers::Tokenizer) -> Vec<u8> {
    let in_utf8 = |byte: &u8| !matches!(byte, 0xc0 | 0xc1 | 0xf5..=0xff);
    let without = |spell: &dyn Fn(u8) -> String| -> Vec<u8> {
        (0..=u8::MAX).filter(in_utf8).filter(|&byte| inner.token_to_id(&spell(byte)).is_none()).collect()
    };
    if let tokenizers::ModelWrapper::BPE(bpe) = inner.get_model()
        && bpe.byte_fallback
    {
        return without(&|byte| format!("<0x{byte:02X}>"));
    }
    let pre_tokenizer = inner.get_pre_tokenizer().and_then(|p| serde_json::to_value(p).ok());
    let normalizer = inner.get_normalizer().and_then(|n| serde_json::to_value(n).ok());
    if [pre_tokenizer, normalizer].iter().flatten().any(is_byte_level) {
        return without(&|byte| alphabet()[usize::from(byte)].to_string());
    }
    Vec::new()
}

/// True if this component, or one inside it, is of type `ByteLevel`.
fn is_byte_level(component: &Value) -> bool {
    match component {
        Value::Object(fields) => {
            fields.get("type").and_then(Value::as_str) == Some("ByteLevel")
                || fields.values().any(is_byte_level)
        }
        Value::Array(list) => list.iter().any(is_byte_level),
        _ => false,
    }
}
