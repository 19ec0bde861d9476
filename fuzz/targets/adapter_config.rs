//! PEFT's `adapter_config.json`: a LoRA description, or an error.

use foundry_models::LoraSpec;

use crate::scratch;

/// The input is the file.
pub(crate) fn run(data: &[u8]) {
    scratch::with_file("adapter_config.json", data, |path| {
        let dir = path.parent().expect("it lies in a directory");
        if let Ok(spec) = LoraSpec::from_adapter(dir) {
            assert!(spec.r > 0, "a rank of 0 must be refused");
        }
    });
}
