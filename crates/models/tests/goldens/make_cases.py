"""Smaller facts from transformers and PEFT: rotations and variants of LoRA.

Usage: make_cases.py GOLDENS_DIR    (the folder that make_goldens.py filled)

Writes rope_cases.json (config fragments with the inverse frequencies and attention factor that transformers computes)
and lora_cases.json (LoraConfig arguments with initial losses, gradient norms and a 5-step AdamW trajectory of the
adapter that torch.manual_seed(SEED) and get_peft_model draw; init_lora_weights=False makes B non-zero).
The files beside this one were made with torch 2.15, transformers 5.23 and peft 0.21.2.
"""
import json, os, sys
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

SEED = 7
BASE = dict(hidden_size=64, num_attention_heads=4, num_key_value_heads=2, intermediate_size=176, vocab_size=512,
            num_hidden_layers=3, max_position_embeddings=512)
def llama3(factor, original):
    return dict(rope_type="llama3", factor=factor, low_freq_factor=1.0, high_freq_factor=4.0,
                original_max_position_embeddings=original)

def yarn(**settings):
    return dict(rope_type="yarn", original_max_position_embeddings=128) | settings

ROPE = [
    dict(rope_theta=10000.0),
    dict(head_dim=32, rope_parameters=dict(rope_type="default", rope_theta=500000.0)),
    dict(rope_theta=10000.0, rope_scaling=dict(type="linear", factor=4.0)),
    dict(rope_parameters=dict(rope_type="linear", rope_theta=20000.0, factor=2.5)),
    dict(head_dim=128, rope_theta=500000.0, rope_scaling=llama3(8.0, 128)),
    dict(head_dim=64, rope_parameters=llama3(32.0, 64) | dict(rope_theta=500000.0)),
    dict(head_dim=64, rope_theta=10000.0,
         rope_scaling=dict(type="yarn", factor=4.0, original_max_position_embeddings=128)),
    dict(head_dim=64, rope_parameters=yarn(rope_theta=1e6, factor=4.0, attention_factor=1.25, beta_fast=16,
                                           beta_slow=2)),
    dict(head_dim=64, rope_parameters=yarn(rope_theta=1e4, factor=40.0, mscale=0.707, mscale_all_dim=1.2,
                                           truncate=False)),
]
LORA = [
    ("llama_tied", dict(r=4, lora_alpha=8, use_rslora=True, target_modules=r".*\.(q|v)_proj",
                        modules_to_save=["lm_head"], init_lora_weights=False)),
    ("llama_tied", dict(r=4, lora_alpha=6, modules_to_save=["embed_tokens"], init_lora_weights=False)),
    ("llama", dict(r=3, lora_alpha=12, target_modules="all-linear", exclude_modules=["0.self_attn.k_proj"],
                   modules_to_save=["norm", "1.mlp.up_proj"], init_lora_weights=False)),
    ("llama", dict(r=2, lora_alpha=2, target_modules=["model.layers.2.mlp.down_proj"], init_lora_weights=False)),
    ("llama", dict(r=2, lora_alpha=2, target_modules=["1.self_attn.k_proj", "2.mlp.up_proj"], init_lora_weights=False)),
    ("mistral", dict(r=8, lora_alpha=16, target_modules=["gate_proj", "o_proj"])),
    ("llama", dict(r=4, lora_alpha=8, target_modules="all-linear", use_dora=True, init_lora_weights=False)),
    ("llama_bias", dict(r=3, lora_alpha=12, use_rslora=True, use_dora=True, init_lora_weights=False,
                        target_modules=["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"],
                        rank_pattern={"v_proj": 5, "layers.1.mlp.up_proj": 2, "^model.layers.0.self_attn.q_proj": 7},
                        alpha_pattern={"down_proj": 3.5, "1.self_attn.(q|v)_proj": 1})),
    ("llama", dict(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj", "down_proj"], layers_to_transform=[0, 2],
                   init_lora_weights=False)),
    ("llama_bias", dict(r=4, lora_alpha=8, target_modules="all-linear", lora_bias=True, init_lora_weights=False)),
    ("llama", dict(r=4, lora_alpha=8, target_modules=["k_proj", "gate_proj"], init_lora_weights="gaussian")),
    ("llama_tied", dict(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights="pissa")),
    ("mistral", dict(r=5, lora_alpha=2, target_modules="all-linear", init_lora_weights="olora")),
    ("llama_bias", dict(r=4, lora_alpha=6, use_rslora=True, use_dora=True, target_modules="all-linear",
                        rank_pattern={"k_proj": 2}, init_lora_weights="pissa")),
    ("llama", dict(r=2, lora_alpha=4, target_modules=["o_proj"], trainable_token_indices=list(range(3, 200, 2)))),
    ("llama_tied", dict(r=2, lora_alpha=4, target_modules=["up_proj"], trainable_token_indices=list(range(0, 300)))),
    ("llama_bias", dict(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], bias="all",
                        init_lora_weights=False)),
    ("llama_bias", dict(r=3, lora_alpha=6, target_modules=["v_proj", "o_proj", "up_proj"], bias="lora_only",
                        use_dora=True, init_lora_weights=False)),
    ("llama_bias", dict(r=2, lora_alpha=2, target_modules=["gate_proj"], layers_to_transform=[1], bias="all")),
]

def rope_case(config):
    torch_config = LlamaConfig(**BASE | json.loads(json.dumps(config)))
    rotary = LlamaRotaryEmbedding(torch_config)
    positions = torch.arange(300)[None]
    cos, sin = rotary(torch.zeros(1), positions)
    half = cos.shape[-1] // 2
    return dict(config=BASE | config, inv_freq=rotary.inv_freq.tolist(),
                attention_factor=float(rotary.attention_scaling),
                last_cos=cos[0, -1, :half].tolist(), last_sin=sin[0, -1, :half].tolist())

def loss_of(model, case):
    total, count, at = 0.0, 0, 0
    for n in case["seq_lens"].tolist():
        part = slice(at, at + n); at += n
        logits = model(input_ids=case["tokens"][part][None]).logits[0].float()
        target = case["labels"][part][1:]
        total = total + torch.nn.functional.cross_entropy(logits[:-1], target, ignore_index=-100, reduction="sum")
        count += int((target != -100).sum())
    return total / count

def lora_case(root, family, settings):
    folder = os.path.join(root, family)
    case = load_file(os.path.join(folder, "case.safetensors"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    torch.manual_seed(SEED)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    loss = loss_of(model, case); loss.backward()
    norms = {n.replace(".default", "").replace("modules_to_save.", "").replace("vector.weight", "vector"): p.grad.norm().item() for n, p in trained}
    optimizer = torch.optim.AdamW([p for _, p in trained], lr=1e-2, weight_decay=0.1)
    trajectory = []
    for _ in range(5):
        optimizer.zero_grad(); loss = loss_of(model, case); loss.backward(); optimizer.step()
        trajectory.append(loss.item())
    return dict(family=family, seed=SEED, spec=settings, grad_norms=norms, trajectory=trajectory)

def main():
    root = sys.argv[1]
    write = lambda name, value: json.dump(value, open(os.path.join(root, name), "w"), indent=1)
    write("rope_cases.json", [rope_case(config) for config in ROPE])
    write("lora_cases.json", [lora_case(root, family, settings) for family, settings in LORA])
main()
