"""Adapters that PEFT saved, with the logits they give: DoRA, patterns, biases, PiSSA, OLoRA, and sums of adapters.

Usage: make_variants.py GOLDENS_DIR    (the folder that make_goldens.py filled)

Writes variants/NAME/ (adapter_config.json and adapter_model.safetensors, as `save_pretrained` writes them) and
variants/logits.safetensors (the logits of the first sequence of llama_bias/case.safetensors under each adapter, as
`PeftModel.from_pretrained` computes them; and, by the method's name, those of 0.7 · plain + (-0.4) · other combined by
`add_weighted_adapter`, with density 0.5 and svd_rank 3 where a method asks). Every trained value is moved by noise, so
that nothing stands at its start. Under the adapters of RESIZED the vocabulary has grown by two tokens, and the fourth
token of the sequence is the first of them.
The files beside this one were made with torch 2.15, transformers 5.23 and peft 0.21.2.
"""
import os, sys
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

VARIANTS = {
    "dora": dict(r=2, lora_alpha=8, use_dora=True, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"],
                 rank_pattern={"v_proj": 3}, alpha_pattern={"1.mlp.down_proj": 5}),
    "lora_bias": dict(r=2, lora_alpha=4, lora_bias=True, target_modules=["o_proj", "gate_proj"],
                      layers_to_transform=[1]),
    "pissa": dict(r=2, lora_alpha=2, init_lora_weights="pissa", target_modules=["q_proj", "up_proj"]),
    "olora": dict(r=2, lora_alpha=6, init_lora_weights="olora", target_modules=["k_proj", "down_proj"]),
    "tokens": dict(r=2, lora_alpha=2, target_modules=["v_proj"], trainable_token_indices=[7, 3, 90, 64]),
    "plain": dict(r=2, lora_alpha=6, target_modules=["q_proj", "down_proj"]),
    "other": dict(r=2, lora_alpha=3, use_rslora=True, target_modules=["q_proj", "v_proj"]),
    "bias_all": dict(r=2, lora_alpha=2, target_modules=["q_proj", "down_proj"], bias="all"),
    "bias_lora_only": dict(r=2, lora_alpha=2, target_modules=["k_proj", "up_proj"], bias="lora_only", lora_bias=True),
}
RESIZED = {
    "resized": dict(r=2, lora_alpha=2, target_modules=["v_proj"]),
    "resized_tokens": dict(r=2, lora_alpha=2, target_modules=["v_proj"], trainable_token_indices=[128, 129, 7]),
    "resized_saved": dict(r=2, lora_alpha=2, target_modules=["v_proj"], modules_to_save=["embed_tokens", "lm_head"]),
}
# Branches at embedding and head: this program only merges them.
TABLES = {
    "tables": dict(r=2, lora_alpha=4, target_modules=["q_proj", "embed_tokens", "lm_head"]),
}
METHODS = {"linear": {}, "cat": {}, "svd": dict(svd_rank=3), "ties": dict(density=0.5),
           "ties_frequency": dict(density=0.5, majority_sign_method="frequency"), "magnitude_prune": dict(density=0.5),
           "dare_linear": dict(density=1.0), "dare_ties": dict(density=1.0),
           # What is kept is random: `torch.manual_seed(11)` comes before.
           "dare_linear_half": dict(density=0.5), "dare_ties_half": dict(density=0.5)}

def main():
    root = sys.argv[1]
    family = os.path.join(root, "llama_bias")
    case = load_file(os.path.join(family, "case.safetensors"))
    tokens = case["tokens"][: int(case["seq_lens"][0])][None]
    base = lambda: AutoModelForCausalLM.from_pretrained(family, dtype=torch.float32, attn_implementation="eager")
    def base_for(name):
        model = base()
        if name in RESIZED:
            model.resize_token_embeddings(model.config.vocab_size + 2)
        return model
    logits = {}
    for number, (name, settings) in enumerate((VARIANTS | RESIZED | TABLES).items()):
        torch.manual_seed(number)
        model = get_peft_model(base_for(name), LoraConfig(task_type="CAUSAL_LM", **settings))
        with torch.no_grad():
            for _, value in (p for p in model.named_parameters() if p[1].requires_grad):
                value.add_(torch.randn_like(value) * 0.05)
        folder = os.path.join(root, "variants", name)
        model.save_pretrained(folder)
        os.remove(os.path.join(folder, "README.md"))
        asked = tokens.clone()
        if name in RESIZED:
            asked[0, 3] = model.config.vocab_size - 2
        with torch.no_grad():
            model = PeftModel.from_pretrained(base_for(name), folder).eval()
            logits[name] = model(input_ids=asked).logits[0].contiguous()
    for name, options in METHODS.items():
        model = PeftModel.from_pretrained(base(), os.path.join(root, "variants", "plain"), adapter_name="plain")
        model.load_adapter(os.path.join(root, "variants", "other"), adapter_name="other")
        method = name.removesuffix("_frequency").removesuffix("_half")
        torch.manual_seed(11)
        model.add_weighted_adapter(["plain", "other"], [0.7, -0.4], "sum", method, **options)
        model.set_adapter("sum")
        with torch.no_grad():
            logits[name] = model.eval()(input_ids=tokens).logits[0].contiguous()
    save_file(logits, os.path.join(root, "variants", "logits.safetensors"))
main()
