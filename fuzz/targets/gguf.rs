//! GGUF files: metadata, configuration, tokenizer and tensors can be read, or there is an error.

use foundry_formats::{Tokenizer, gguf::Gguf};

use crate::scratch;

/// The input is the file.
pub(crate) fn run(data: &[u8]) {
    scratch::with_file("model.gguf", data, |path| {
        let Ok(gguf) = Gguf::open(path) else { return };
        let _ = (gguf.config(), gguf.generation_config());
        let _ = Tokenizer::from_gguf(&gguf);
        for tensor in gguf.tensors() {
            let elements = tensor.elements();
            let mut values = vec![0.0; elements.min(256)];
            let _ = gguf.read_f32(&tensor.name, elements - values.len(), &mut values);
        }
        let _ = gguf.into_source();
    });
}
