"""Writes tests/goldens/bitsandbytes/: a tiny Llama in bfloat16 and what transformers + bitsandbytes store of it.

    python crates/models/tests/goldens/make_bitsandbytes.py      (torch 2.15, transformers 5.23, bitsandbytes 0.50.2)
`base/` is the model; `nf4/`, `nf4_double/`, `int8/` are `save_pretrained` of it loaded with the quantisation.
`expected.json` holds logits in float32: for nf4 those of bitsandbytes' own layers, for int8 those of the dequantised
weights (its layers also round the activations to 8 bits, which llm-foundry does not).
"""
import json
import os
import shutil

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bitsandbytes")
shutil.rmtree(here, ignore_errors=True)
torch.manual_seed(5)
# 40 columns: rows are not whole blocks of 64, and one matrix has an odd number of blocks.
config = LlamaConfig(vocab_size=48, hidden_size=40, intermediate_size=72, num_hidden_layers=1, num_attention_heads=2,
                     num_key_value_heads=1, head_dim=20, tie_word_embeddings=False, max_position_embeddings=64,
                     bos_token_id=1, eos_token_id=2, initializer_range=0.2)
base = LlamaForCausalLM(config).to(torch.bfloat16)
base.save_pretrained(os.path.join(here, "base"))
ids = [int(i) for i in (torch.arange(24) * 7 + 3) % 48]
expected = {"tokens": ids, "versions": {"torch": torch.__version__}}


def logits(model):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().flatten().tolist()


for name, settings in (
    ("nf4", dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)),
    ("nf4_double", dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                        bnb_4bit_compute_dtype=torch.float32)),
    ("int8", dict(load_in_8bit=True)),
):
    model = AutoModelForCausalLM.from_pretrained(
        os.path.join(here, "base"), dtype=torch.float32, quantization_config=BitsAndBytesConfig(**settings))
    model.save_pretrained(os.path.join(here, name))
    if name == "int8":
        plain = LlamaForCausalLM.from_pretrained(os.path.join(here, "base"), dtype=torch.float32)
        stored = model.state_dict()
        for key, value in stored.items():
            if value.dtype == torch.int8:
                scale = stored[key[: -len("weight")] + "SCB"]
                target = plain.get_parameter(key)
                target.data = value.float() * scale[:, None] * (1 / 127)
        model = plain
    expected[name] = logits(model)
for folder, _, files in os.walk(here):
    for file in files:
        if file == "generation_config.json":
            os.remove(os.path.join(folder, file))
with open(os.path.join(here, "expected.json"), "w") as out:
    json.dump(expected, out)
