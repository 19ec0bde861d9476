//! Files of models: safetensors, GGUF, Hugging Face config.json, tokenizers. Bytes in, structs out.
