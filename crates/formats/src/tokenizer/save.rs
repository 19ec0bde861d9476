//! Writing a tokenizer's files.

use std::path::Path;

use super::Stored;
use crate::FormatError;
use crate::safetensors::write_unflushed;

pub(super) fn write(stored: &Stored, dir: &Path) -> Result<(), FormatError> {
    std::fs::create_dir_all(dir).map_err(FormatError::io(dir, "create"))?;
    write_unflushed(&dir.join("tokenizer.json"), &stored.tokenizer_json)?;
    let config = match &stored.config_bytes {
        Some(bytes) => bytes.clone(),
        None => {
            let text = serde_json::to_string_pretty(&stored.config).expect("a JSON object serialises");
            (text + "\n").into_bytes()
        }
    };
    write_unflushed(&dir.join("tokenizer_config.json"), &config)?;
    if let Some(template) = &stored.chat_template_jinja {
        write_unflushed(&dir.join("chat_template.jinja"), template.as_bytes())?;
    }
    for (name, bytes) in &stored.others {
        write_unflushed(&dir.join(name), bytes)?;
    }
    Ok(())
}
