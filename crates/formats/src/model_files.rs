//! A model on disk: a Hugging Face directory or a GGUF file, named by its path.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config::token_ids;
use crate::gguf::Gguf;
use crate::json::read_object_if_there;
use crate::{FormatError, HfConfig, TensorSource, Tokenizer, fp8, safetensors};

/// A model's files. Opening reads the configuration only, so that planning a run needs no weights.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    /// The directory or `.gguf` file.
    pub path: PathBuf,
    /// `config.json`, or its equivalent made from GGUF metadata.
    pub config: HfConfig,
    /// `generation_config.json` (an object) if there is one.
    pub generation_config: Option<Value>,
    is_gguf: bool,
}

impl ModelFiles {
    /// Opens a directory with `config.json`, or a `.gguf` file.
    ///
    /// # Errors
    /// [`FormatError::NotFound`], [`FormatError::PickleOnly`] for a pickle file, [`FormatError::Io`],
    /// [`FormatError::InvalidJson`], and the errors of [`Gguf::open`] and [`Gguf::config`].
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        if path.is_dir() {
            return Self::open_dir(path);
        }
        if !path.exists() {
            let remedy = "name an existing directory with config.json, or a .gguf file";
            return Err(FormatError::NotFound { path: path.to_owned(), wanted: "model", remedy });
        }
        if is_gguf(path) {
            let gguf = Gguf::open(path)?;
            let (config, generation_config) = (gguf.config()?, gguf.generation_config());
            return Ok(Self { path: path.to_owned(), config, generation_config, is_gguf: true });
        }
        // A file that is neither: a pickle is named as such, anything else belongs to a directory.
        safetensors::refuse_pickle(path)?;
        let remedy = "name the directory that holds config.json and the weights, or a .gguf file";
        Err(FormatError::NotFound { path: path.to_owned(), wanted: "model", remedy })
    }

    fn open_dir(dir: &Path) -> Result<Self, FormatError> {
        let config = dir.join("config.json");
        if !config.exists() {
            let gguf = std::fs::read_dir(dir).into_iter().flatten().flatten().any(|e| is_gguf(&e.path()));
            let remedy = if gguf {
                "the directory holds GGUF files: name one of them"
            } else {
                "name a directory in the Hugging Face layout (config.json, safetensors, tokenizer.json), or a .gguf file"
            };
            return Err(FormatError::NotFound { path: dir.to_owned(), wanted: "config.json", remedy });
        }
        let config = HfConfig::read(&config)?;
        let generation_config = read_object_if_there(&dir.join("generation_config.json"))?.map(Value::Object);
        Ok(Self { path: dir.to_owned(), config, generation_config, is_gguf: false })
    }

    /// True for a `.gguf` file.
    pub fn is_gguf(&self) -> bool {
        self.is_gguf
    }

    /// Opens the weights under Hugging Face names.
    ///
    /// # Errors
    /// As [`safetensors::open`] and [`Gguf::into_source`].
    pub fn weights(&self) -> Result<Box<dyn TensorSource>, FormatError> {
        if self.is_gguf {
            return Gguf::open(&self.path)?.into_source();
        }
        let source = safetensors::open(&self.path)?;
        if fp8::is_fp8(&self.config) {
            return Ok(Box::new(fp8::Fp8View::new(self.path.clone(), source)));
        }
        Ok(source)
    }

    /// Reads the tokenizer.
    ///
    /// # Errors
    /// As [`Tokenizer::from_dir`] and [`Tokenizer::from_gguf`].
    pub fn tokenizer(&self) -> Result<Tokenizer, FormatError> {
        if self.is_gguf {
            Tokenizer::from_gguf(&Gguf::open(&self.path)?)
        } else {
            Tokenizer::from_dir(&self.path)
        }
    }

    /// The tokens that end a generation: `eos_token_id` (integer or list) of `generation_config.json`, then those of
    /// `config.json`, each once.
    pub fn eos_token_ids(&self) -> Vec<u32> {
        let generation = self.generation_config.as_ref().and_then(|g| g.get("eos_token_id"));
        let sources = [generation, self.config.get("eos_token_id")];
        let mut ids = Vec::new();
        for id in sources.into_iter().flatten().filter_map(token_ids).flatten() {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
}
