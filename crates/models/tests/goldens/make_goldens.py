"""Golden numbers from transformers + peft for tiny random decoder models.

Usage: make_goldens.py OUT_DIR [--seed N] [--families a,b,c]
The folders beside this file were made with torch 2.15, transformers 5.23 and peft 0.21.2, seed 0.

Each family gets a folder with
  config.json, model.safetensors     a random checkpoint as transformers writes it (float32)
  adapter/                           a PEFT LoRA adapter (B made non-zero, so that it acts)
  case.safetensors                   tokens [n] int64, seq_lens [s] int64, labels [n] int64 (-100 = ignored;
                                     labels[i] is the token at i, the shift is the model's own business),
                                     logits [n, vocab] float32 of the base model (each sequence on its own,
                                     as block-diagonal attention over the packed row must give)
                                     adapter_logits [n, vocab] float32 with the adapter on
  expected.json                      loss / grad norms (base, full fine-tuning and LoRA), and two 10-step AdamW
                                     loss trajectories (full and LoRA), mean over unmasked targets
All in float32 on CPU, eager attention, no dropout.
"""
import argparse, json, os
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoConfig, CONFIG_MAPPING
from peft import LoraConfig, get_peft_model, PeftModel

B = dict(vocab_size=512, hidden_size=64, intermediate_size=176, num_hidden_layers=3, num_attention_heads=4,
         num_key_value_heads=2, max_position_embeddings=256, attention_dropout=0.0, pad_token_id=0, bos_token_id=1,
         eos_token_id=2)
LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
FAMILIES = {
    "llama": ("llama", dict(B, tie_word_embeddings=False)),
    "llama_tied": ("llama", dict(B, tie_word_embeddings=True)),
    "llama3_rope": ("llama", dict(B, head_dim=32, rope_parameters=LLAMA3)),
    "mistral": ("mistral", dict(B, sliding_window=16)),
    "llama_bias": ("llama", dict(B, vocab_size=128, num_hidden_layers=2, attention_bias=True, mlp_bias=True)),
}
SEQ_LENS = [37, 50, 21, 20]

def seq_slices(lens):
    o = 0
    for n in lens:
        yield slice(o, o + n); o += n

def loss_of(model, tokens, labels, lens):
    total, count = 0.0, 0
    for s in seq_slices(lens):
        logits = model(input_ids=tokens[s][None]).logits[0].float()
        tgt = labels[s][1:]
        total = total + torch.nn.functional.cross_entropy(logits[:-1], tgt, ignore_index=-100, reduction="sum")
        count += int((tgt != -100).sum())
    return total / count

def logits_of(model, tokens, lens):
    with torch.no_grad():
        return torch.cat([model(input_ids=tokens[s][None]).logits[0].float() for s in seq_slices(lens)])

def grad_norms(model):
    return {n: p.grad.norm().item() for n, p in model.named_parameters() if p.requires_grad and p.grad is not None}

def trajectory(model, tokens, labels, lens, lr, steps=10):
    ps = [p for p in model.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(ps, lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    out = []
    for _ in range(steps):
        opt.zero_grad(); l = loss_of(model, tokens, labels, lens); l.backward(); opt.step(); out.append(l.item())
    return out

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("out")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--families", default=",".join(FAMILIES))
    a = ap.parse_args()
    for name in a.families.split(","):
        kind, kw = FAMILIES[name]
        torch.manual_seed(a.seed); d = os.path.join(a.out, name); os.makedirs(d, exist_ok=True)
        cfg = CONFIG_MAPPING[kind](**kw); cfg._attn_implementation = "eager"
        model = AutoModelForCausalLM.from_config(cfg, attn_implementation="eager").float().eval()
        with torch.no_grad():                      # not the library's initial values: norms and biases must count
            for n, p in model.named_parameters():
                if p.dim() == 1: p.add_(torch.randn_like(p) * 0.1)
                else: p.mul_(3.0)
        model.save_pretrained(d)
        model = AutoModelForCausalLM.from_pretrained(d, dtype=torch.float32, attn_implementation="eager").eval()
        n = sum(SEQ_LENS); tokens = torch.randint(3, cfg.vocab_size, (n,)); labels = tokens.clone()
        for i, s in enumerate(seq_slices(SEQ_LENS)): labels[s.start: s.start + 5 + 3 * i] = -100   # a masked prompt
        exp = {"family": kind, "seq_lens": SEQ_LENS}
        logits = logits_of(model, tokens, SEQ_LENS)
        l = loss_of(model, tokens, labels, SEQ_LENS); l.backward()
        exp["loss"] = l.item(); exp["full_grad_norms"] = grad_norms(model); model.zero_grad()
        lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM", lora_dropout=0.0)
        base = AutoModelForCausalLM.from_pretrained(d, dtype=torch.float32, attn_implementation="eager")
        pm = get_peft_model(base, lora).eval()
        with torch.no_grad():
            for pn, p in pm.named_parameters():
                if "lora_B" in pn: p.normal_(0, 0.02)
        pm.save_pretrained(os.path.join(d, "adapter"))
        alogits = logits_of(pm, tokens, SEQ_LENS)
        l = loss_of(pm, tokens, labels, SEQ_LENS); l.backward()
        exp["lora_loss"] = l.item(); exp["lora_grad_norms"] = grad_norms(pm)
        pm.zero_grad(); exp["lora_trajectory_lr1e-3"] = trajectory(pm, tokens, labels, SEQ_LENS, 1e-3)
        exp["full_trajectory_lr1e-3"] = trajectory(model, tokens, labels, SEQ_LENS, 1e-3)
        case = {"tokens": tokens, "labels": labels, "seq_lens": torch.tensor(SEQ_LENS), "logits": logits.contiguous(),
                "adapter_logits": alogits.contiguous()}
        save_file(case, os.path.join(d, "case.safetensors"))
        json.dump(exp, open(os.path.join(d, "expected.json"), "w"), indent=1)
        print(name, exp["loss"], exp["lora_loss"], exp["full_trajectory_lr1e-3"][-1], flush=True)
main()
