"""A model of Llama-3.2-1B's shapes with random bfloat16 weights, to measure speed where weights do not matter.

    python interop/random_llama.py --tokenizer MODEL_DIR --out DIR
The tokenizer is copied from another model directory (its vocabulary must not be larger than 128,256).
"""
import argparse
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
ap = argparse.ArgumentParser()
ap.add_argument("--tokenizer", required=True); ap.add_argument("--out", required=True)
a = ap.parse_args()
torch.manual_seed(0)
tok = AutoTokenizer.from_pretrained(a.tokenizer)
config = LlamaConfig(vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16,
                     num_attention_heads=32,
                     num_key_value_heads=8, head_dim=64, tie_word_embeddings=True, max_position_embeddings=8192,
                     bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id)
torch.set_default_dtype(torch.bfloat16)
LlamaForCausalLM(config).save_pretrained(a.out)
tok.save_pretrained(a.out)
