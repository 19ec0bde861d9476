//! Writing a tokenizer's files.

use std::path::Path;

use super::TokenizerFiles;
use crate::FormatError;
use crate::safetensors::write_unflushed;

impl TokenizerFiles {
    /// See [`Tokenizer::save`](super::Tokenizer::save).
    ///
    /// # Errors
    /// [`FormatError::Io`].
    pub fn save(&self, dir: &Path) -> Result<(), FormatError> {
        std::fs::create_dir_all(dir).map_err(FormatError::io(dir, "create"))?;
        write_unflushed(&dir.join("tokenizer.json"), &self.tokenizer_json)?;
        let config = match &self.config_bytes {
            Some(bytes) => bytes.clone(),
            None => {
                let text = serde_json::to_string_pretty(&self.config).expect("a JSON object serialises");
                (text + "\n").into_bytes()
            }
        };
        write_unflushed(&dir.join("tokenizer_config.json"), &config)?;
        if let Some(template) = &self.chat_template_jinja {
            write_unflushed(&dir.join("chat_template.jinja"), template.as_bytes())?;
        }
        for (name, bytes) in &self.others {
            write_unflushed(&dir.join(name), bytes)?;
        }
        Ok(())
    }
}
