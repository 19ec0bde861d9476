//! Decoder models: one decoder, families as tables, LoRA, loading and saving under Hugging Face names.
