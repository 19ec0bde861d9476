"""PEFT reads our adapters and we read PEFT's: both ways the same numbers, for every kind of adapter.

    cargo build --release && cargo xtask golden peft_roundtrip PYTHON MODEL_DIR [KIND …]

MODEL_DIR is SmolLM2-135M-Instruct as a Hugging Face directory. There and back, in float32:
  1. llm-foundry trains an adapter of each kind (OURS) for a few steps; PEFT loads it.
  2. PEFT makes an adapter of each kind (THEIRS) in which every trained value has moved; llm-foundry loads it.
KIND names some of them; without, all are done. For each, both sides say the log-probability of every token of the 20
held-out conversations (llm-foundry through `serve`, which takes token ids and echoes them) and continue four prompts
greedily. Prints the largest difference and the r.m.s. difference as a part of the r.m.s.; ends with exit code 1 when
the latter exceeds TOLERANCE, or an answer differs in which no step was a tie.
Needs torch, transformers and peft; takes one minute a kind on two cores.
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parent.parent
BINARY = Path(os.environ.get("FOUNDRY_BINARY", ROOT / "target/release/llm-foundry"))
CONFIG = "configs/sft/smollm2_quickstart.yaml"
TEMPLATE = ROOT / "datasets/quickstart/smollm2_chat.jinja"
QUESTIONS = ["Who are you?", "What is the capital of France?", "What is snow?", "Count to five."]
NEW_TOKENS = 24
# Two float32 implementations that add in different orders.
TOLERANCE = 1e-5
# Logits this near are a tie, which rounding decides: some ten times the largest difference that is seen.
TIE = 1e-3
# Overrides of the configuration.
OURS = {
    "plain": [],
    "gaussian": ["lora.init_lora_weights=gaussian", r"lora.target_modules='.*self_attn\..*'"],
    "rslora": ["lora.use_rslora=true", "lora.target_modules=[q_proj, v_proj]"],
    "dora": ["lora.use_dora=true"],
    "pissa": ["lora.init_lora_weights=pissa", "lora.r=8"],
    "pissa_niter": ["lora.init_lora_weights=pissa_niter_4", "lora.r=8", "lora.use_dora=true"],
    "olora": ["lora.init_lora_weights=olora", "lora.r=8", "lora.use_rslora=true"],
    "saved": ["lora.modules_to_save=[norm]"],
    "saved_tables": ["lora.modules_to_save=[embed_tokens, lm_head]", "training.learning_rate=1e-4"],
    "tokens": ["lora.trainable_token_indices=[1, 2, 504, 2683]"],
    "added_tokens": ["tokenizer.add_special_tokens=['<|tool|>', '<|end|>']", "lora.trainable_token_indices=added"],
    "lora_bias": ["lora.lora_bias=true", "lora.target_modules=[o_proj, gate_proj]"],
    "patterns": ["lora.rank_pattern={down_proj: 4, 'layers.2.*q_proj': 3}", "lora.alpha_pattern={v_proj: 8}"],
    "layers": ["lora.layers_to_transform=[3, 20]"],
    "exclude": ["lora.exclude_modules=[down_proj, k_proj]"],
    "all_at_once": ["lora.use_dora=true", "lora.use_rslora=true", "lora.modules_to_save=[norm]",
                    "lora.trainable_token_indices=[1, 2]", "lora.rank_pattern={o_proj: 2}",
                    "lora.layers_to_transform=[0, 7, 29]", "lora.exclude_modules='.*up_proj'"],
}
LINEAR = ["q_proj", "v_proj", "down_proj"]
# PEFT does not take `all-linear` together with `layers_to_transform`.
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# Arguments of LoraConfig.
THEIRS = {
    "plain": dict(target_modules=LINEAR),
    "gaussian": dict(init_lora_weights="gaussian", target_modules=r".*self_attn\.(q|k)_proj"),
    "rslora": dict(use_rslora=True, target_modules=LINEAR),
    "dora": dict(use_dora=True, target_modules="all-linear"),
    "pissa": dict(init_lora_weights="pissa", target_modules=["k_proj", "gate_proj"]),
    # Random, so that PEFT itself saves it with the conversion to a plain adapter: see make_adapter.
    "pissa_niter": dict(init_lora_weights="pissa_niter_4", target_modules=["k_proj", "o_proj"]),
    "olora": dict(init_lora_weights="olora", target_modules=["q_proj", "down_proj"]),
    "saved": dict(modules_to_save=["norm"], target_modules=["up_proj"]),
    "saved_tables": dict(modules_to_save=["embed_tokens", "lm_head"], target_modules=["v_proj"]),
    "tokens": dict(trainable_token_indices=[7, 3, 90, 2683], target_modules=["v_proj"]),
    "added_tokens": dict(trainable_token_indices=[49152, 49153, 2], target_modules=["v_proj"]),
    "lora_bias": dict(lora_bias=True, target_modules=["up_proj", "q_proj"]),
    "patterns": dict(target_modules="all-linear", rank_pattern={"o_proj": 2, r"layers\.1.*v_proj": 3},
                     alpha_pattern={"up_proj": 2}),
    "layers": dict(target_modules=EVERY, layers_to_transform=[0, 29]),
    "exclude": dict(target_modules="all-linear", exclude_modules=["down_proj", "q_proj"]),
    "all_at_once": dict(use_dora=True, use_rslora=True, modules_to_save=["norm"], trainable_token_indices=[1, 2],
                        target_modules=EVERY, rank_pattern={"o_proj": 2}, layers_to_transform=[0, 7, 29],
                        exclude_modules=["up_proj"]),
}
# Kinds whose vocabulary grows, and by how many tokens.
GROWN = {"added_tokens": 2}
# Kinds that PEFT can only hand on after it has taken the first values out again.
CONVERTED = {"pissa_niter"}


def foundry(*words):
    """Runs the binary in the root of the repository; what it printed."""
    done = subprocess.run([BINARY, *words], cwd=ROOT, text=True, capture_output=True)
    if done.returncode != 0:
        sys.exit(f"llm-foundry {' '.join(map(str, words))}\n{done.stderr}")
    return done.stdout


def train(model_dir, out, *overrides):
    """Our `train` command, silent and in float32, five steps."""
    common = [f"model.name_or_path={model_dir}", "model.dtype=float32", f"output_dir={out}", "data.max_length=256",
              "training.max_steps=5", "training.eval_strategy='no'"]
    foundry("train", CONFIG, *common, *overrides)


def texts(tokenizer):
    """Token ids of the held-out conversations, and of the questions."""
    render = dict(chat_template=TEMPLATE.read_text(), return_dict=True)
    lines = (ROOT / "datasets/quickstart/eval.jsonl").read_text().splitlines()
    known = [tokenizer.apply_chat_template(json.loads(line)["messages"], **render)["input_ids"] for line in lines]
    asked = [[{"role": "user", "content": question}] for question in QUESTIONS]
    asked = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, **render)["input_ids"] for chat in asked]
    return known, asked


def our_side(model_dir, adapter, known, asked, tokenizer):
    """Log-probabilities of all tokens but the first, and greedy answers as text, by `llm-foundry serve`."""
    command = [BINARY, "serve", model_dir, "--adapter", adapter, "--dtype", "float32", "--port", "0", "--max-length", "512"]
    server = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        said = ""
        while not (found := re.search(r"http://[\d.:]+/v1", said)):
            line = server.stderr.readline()
            if not line:
                sys.exit(f"{' '.join(map(str, command))}\n{said}")
            said += line
        def ask(**fields):
            body = json.dumps({"model": str(model_dir), "temperature": 0, **fields}).encode()
            request = urllib.request.Request(found[0] + "/completions", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request) as reply:
                return json.load(reply)["choices"][0]
        scores = []
        for ids in known:
            told = ask(prompt=ids, echo=True, max_tokens=0, logprobs=1)["logprobs"]["token_logprobs"]
            assert len(told) == len(ids), (len(told), len(ids))
            scores += told[1:]
        return torch.tensor(scores), [ask(prompt=ids, max_tokens=NEW_TOKENS)["text"] for ids in asked]
    finally:
        server.terminate()
        server.wait()


def their_side(model, known, asked, tokenizer):
    """The same by transformers and PEFT; and whether each answer came through a tie."""
    scores, answers, ties = [], [], []
    with torch.no_grad():
        for ids in known:
            ids = torch.tensor(ids)
            logits = model(input_ids=ids[None]).logits[0].double()
            scores.append(torch.log_softmax(logits[:-1], -1).gather(-1, ids[1:, None])[:, 0])
        for ids in asked:
            ids = torch.tensor([ids])
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS,
                                 do_sample=False, return_dict_in_generate=True, output_logits=True)
            answers.append(tokenizer.decode(out.sequences[0, ids.shape[1]:], skip_special_tokens=True))
            best = torch.stack([step[0].topk(2).values for step in out.logits])
            ties.append((best[:, 0] - best[:, 1]).min().item() < TIE)
    return torch.cat(scores), answers, ties


def agree(name, ours, theirs):
    """Prints both sides; whether they are the same."""
    difference = (ours[0].double() - theirs[0]).abs()
    part = (difference.pow(2).mean().sqrt() / theirs[0].pow(2).mean().sqrt()).item()
    same = [a == b or tie for a, b, tie in zip(ours[1], theirs[1], theirs[2], strict=True)]
    print(f"{name}: {len(difference)} log-probabilities, largest difference {difference.max():.1e}, r.m.s. {part:.1e} of "
          f"theirs; {sum(same)} of {len(same)} greedy answers equal", flush=True)
    for a, b, fine in zip(ours[1], theirs[1], same):
        if not fine:
            print(f"  ours: {a!r}\n  PEFT: {b!r}")
    return part <= TOLERANCE and all(same)


def base(model_dir, kind):
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="eager").eval()
    if kind in GROWN:
        model.resize_token_embeddings(model.config.vocab_size + GROWN[kind])
    return model


def make_adapter(model_dir, tokenizer, out, kind):
    """A PEFT adapter that acts: every trained value is moved at random."""
    torch.manual_seed(1)
    model = get_peft_model(base(model_dir, kind), LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **THEIRS[kind]))
    first = Path(f"{out}-first")
    if kind in CONVERTED:
        # The documented way to hand on an adapter of a random decomposition (PEFT 0.21, `save_pretrained`).
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(first)
        model.peft_config["default"].init_lora_weights = THEIRS[kind]["init_lora_weights"]
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.requires_grad:
                scale = 0.02 if "lora_B" in name else 0.05 * value.std()
                value.add_(torch.randn_like(value) * scale)
    more = dict(path_initial_model_for_weight_conversion=str(first)) if kind in CONVERTED else {}
    model.save_pretrained(out, **more)
    if kind in GROWN:
        tokenizer.save_pretrained(out)


def round_trip(kind, model_dir, scratch):
    """One kind, there and back."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    known, asked = texts(tokenizer)
    if kind in GROWN:
        new = ["<|tool|>", "<|end|>"]
        tokenizer.add_special_tokens({"additional_special_tokens": new})
        known = known + [tokenizer("Use <|tool|> and then <|end|> here.")["input_ids"]]
    fine = True
    for whose in ["our", "PEFT's"]:
        adapter = scratch / f"{kind}-{whose.removesuffix(chr(39) + 's')}"
        if whose == "our":
            train(model_dir, adapter, *OURS[kind])
        else:
            make_adapter(model_dir, tokenizer, adapter, kind)
        theirs = PeftModel.from_pretrained(base(model_dir, kind), adapter).eval()
        theirs = their_side(theirs, known, asked, tokenizer)
        fine &= agree(f"{kind}, {whose} adapter", our_side(model_dir, adapter, known, asked, tokenizer), theirs)
    return fine


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    model_dir, kinds = Path(sys.argv[1]).resolve(), sys.argv[2:] or list(OURS)
    with tempfile.TemporaryDirectory() as scratch:
        # All of them, whatever the first ones say.
        results = {kind: round_trip(kind, model_dir, Path(scratch)) for kind in kinds}
    failed = [kind for kind, fine in results.items() if not fine]
    print(f"{len(results) - len(failed)} of {len(results)} kinds agree" + (f"; not: {', '.join(failed)}" if failed else ""))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
