"""PEFT reads our adapters and we read PEFT's: both ways the same numbers.

    cargo build --release && cargo xtask golden peft_roundtrip PYTHON MODEL_DIR [KIND …]

MODEL_DIR is SmolLM2-135M-Instruct as a Hugging Face directory. There and back, in float32:
  1. llm-foundry trains an adapter of each kind (OURS) for a few steps; PEFT loads it.
  2. PEFT makes an adapter of each kind (THEIRS) whose B matrices are not zero; llm-foundry loads it.
KIND names some of them; without, all are done. For each, both sides say the loss of the 20 held-out conversations (a
mean of some 500 log-probabilities) and continue four prompts greedily. Ends with exit code 1 when the losses differ by
more than LOSS_TOLERANCE or a token differs.
Needs torch, transformers and peft; takes one minute a kind on two cores.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parent.parent
BINARY = ROOT / "target/release/llm-foundry"
CONFIG = "configs/sft/smollm2_quickstart.yaml"
TEMPLATE = ROOT / "datasets/quickstart/smollm2_chat.jinja"
QUESTIONS = ["Who are you?", "What is the capital of France?", "What is snow?", "Count to five."]
NEW_TOKENS = 24
# Two float32 implementations that add in different orders, averaged over some 500 tokens.
LOSS_TOLERANCE = 1e-4
# Overrides of the configuration.
OURS = {
    "plain": [],
    "dora": ["lora.use_dora=true", "lora.rank_pattern={down_proj: 4}", "lora.alpha_pattern={v_proj: 8}"],
    "pissa": ["lora.init_lora_weights=pissa", "lora.r=8"],
    "olora": ["lora.init_lora_weights=olora", "lora.r=8", "lora.use_rslora=true"],
    "saved": ["lora.modules_to_save=[norm]", "lora.lora_bias=true", "lora.layers_to_transform=[3, 20]"],
}
# Arguments of LoraConfig.
THEIRS = {
    "plain": dict(use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"]),
    "dora": dict(use_dora=True, target_modules="all-linear", rank_pattern={"o_proj": 2}, alpha_pattern={"up_proj": 2}),
    "pissa": dict(init_lora_weights="pissa", target_modules=["k_proj", "gate_proj"]),
    "olora": dict(init_lora_weights="olora", target_modules=["q_proj", "down_proj"]),
    "saved": dict(lora_bias=True, modules_to_save=["norm"], target_modules=["up_proj"], layers_to_transform=[0, 29]),
}


def foundry(*words, text=None):
    """Runs the binary in the root of the repository; what it printed."""
    done = subprocess.run([BINARY, *words], cwd=ROOT, input=text, text=True, capture_output=True)
    if done.returncode != 0:
        sys.exit(f"llm-foundry {' '.join(map(str, words))}\n{done.stderr}")
    return done.stdout


def train(model_dir, out, *overrides):
    """Our `train` command, silent and in float32."""
    common = [f"model.name_or_path={model_dir}", "model.dtype=float32", f"output_dir={out}", "data.max_length=256"]
    foundry("train", CONFIG, *common, *overrides)


def our_side(model_dir, adapter, scratch):
    """Held-out loss and greedy tokens, by llm-foundry. The loss is that before the first step of a continued run."""
    run = scratch / "evaluated"
    train(
        model_dir,
        run,
        # The adapter's own adapter_config.json decides what the section would say.
        f"lora={{adapter: '{adapter}'}}",
        "training.eval_on_start=true",
        "training.max_steps=1",
        "training.eval_strategy='no'",
        "--overwrite-output-dir",
    )
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    loss = next(event["eval_loss"] for event in events if event.get("event") == "eval")
    tokens = []
    for question in QUESTIONS:
        said = foundry(
            "generate", model_dir, "--adapter", adapter, "--dtype", "float32", "--greedy", "--json", "--quiet",
            "--max-new-tokens", str(NEW_TOKENS), "--messages", "-",
            text=json.dumps([{"role": "user", "content": question}]),
        )
        tokens.append(json.loads(said)["token_ids"])
    return loss, tokens


def their_side(tokenizer, model):
    """The same by transformers and PEFT."""
    total, count = 0.0, 0
    for line in (ROOT / "datasets/quickstart/eval.jsonl").read_text().splitlines():
        row = tokenizer.apply_chat_template(
            json.loads(line)["messages"],
            chat_template=TEMPLATE.read_text(),
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        ids, mask = torch.tensor(row["input_ids"]), torch.tensor(row["assistant_masks"]).bool()
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0].float()
        log_probs = torch.log_softmax(logits[:-1], -1).gather(-1, ids[1:, None])[:, 0]
        total -= log_probs[mask[1:]].sum().item()
        count += int(mask[1:].sum())
    tokens = []
    for question in QUESTIONS:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        with torch.no_grad():
            out = model.generate(**prompt, max_new_tokens=NEW_TOKENS, do_sample=False)
        tokens.append(out[0, prompt["input_ids"].shape[1]:].tolist())
    return total / count, tokens


def without_end(tokens, end):
    """One side may list the token that ended the answer and the other not."""
    return tokens[:-1] if tokens and tokens[-1] == end else tokens


def agree(name, ours, theirs, end):
    """Prints both sides; whether they are the same."""
    same_loss = abs(ours[0] - theirs[0]) <= LOSS_TOLERANCE
    same_tokens = [without_end(a, end) == without_end(b, end) for a, b in zip(ours[1], theirs[1], strict=True)]
    print(f"{name}: loss {ours[0]:.6f} (ours) {theirs[0]:.6f} (PEFT), "
          f"{sum(same_tokens)} of {len(same_tokens)} greedy answers equal")
    return same_loss and all(same_tokens)


def base(model_dir):
    return AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="eager").eval()


def make_adapter(model_dir, out, settings):
    """A PEFT adapter that acts: whatever is zero at the start is drawn at random."""
    torch.manual_seed(1)
    model = get_peft_model(base(model_dir), LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.add_(torch.randn_like(value) * 0.02)
    model.save_pretrained(out)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    model_dir = Path(sys.argv[1]).resolve()
    kinds = sys.argv[2:] or list(OURS)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    end = tokenizer.eos_token_id
    ok = True
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for kind in kinds:
            ours, made = scratch / f"ours-{kind}", scratch / f"theirs-{kind}"
            train(model_dir, ours, "training.max_steps=5", "training.eval_strategy='no'", *OURS[kind])
            theirs = their_side(tokenizer, PeftModel.from_pretrained(base(model_dir), ours).eval())
            ok &= agree(f"{kind}, our adapter", our_side(model_dir, ours, scratch), theirs, end)
            make_adapter(model_dir, made, THEIRS[kind])
            theirs = their_side(tokenizer, PeftModel.from_pretrained(base(model_dir), made).eval())
            ok &= agree(f"{kind}, PEFT's adapter", our_side(model_dir, made, scratch), theirs, end)
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
