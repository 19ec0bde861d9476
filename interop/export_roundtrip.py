"""PEFT's merge is ours, transformers loads it, and llama.cpp says our GGUF files' token ids and answers.

    cargo build --release && cargo xtask golden export_roundtrip PYTHON MODEL_DIR LLAMA_PYTHON [BINARY]

MODEL_DIR is SmolLM2-135M-Instruct as a Hugging Face directory, LLAMA_PYTHON a Python with llama-cpp-python (it need not
have the other peers). In float32:
  1. PEFT makes an adapter whose B matrices are not zero and merges it; llm-foundry merges it; transformers loads both.
  2. llm-foundry exports the merged model to every GGUF type; gguf-py reads them; llama.cpp loads each, gives the ids of
     some texts and continues some prompts greedily.
Ends with exit code 1 when logits differ by more than LOGIT_TOLERANCE, an id differs, a type of 8 bits or more answers
otherwise than llm-foundry does with the same file, or a file does not load. Needs torch, transformers, peft, gguf.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from gguf import GGUFReader
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parent.parent
TYPES = ["f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q3_k_l", "q3_k_m", "q3_k_s",
         "q2_k", "q5_1", "q5_0", "q4_1", "q4_0"]
# Types whose greedy answers must be llm-foundry's: llama.cpp computes in other roundings (it quantises activations to 8
# bits for quantised weights), so that for coarse weights a near tie may fall the other way.
SAME_ANSWERS = ["f32", "f16", "q8_0"]
TEXTS = ["Hello, world! It's 1984 or 10,000 years later.", "Grüße 你好 🙂 ½", "def f(x):\n    return x + 3.14\n",
         "<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n<|im_start|>assistant\n", "  two  spaces\n\n\nand lines "]
PROMPTS = ["The capital of France is", "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n",
           "1, 2, 3, 4,"]
NEW_TOKENS = 16
# Two float32 implementations of the same sums, logits up to some 40.
LOGIT_TOLERANCE = 1e-3

LLAMA = r"""
import json, sys
from llama_cpp import Llama
ask = json.load(sys.stdin)
out = {}
for name, path in ask["files"].items():
    llama = Llama(path, n_ctx=256, n_threads=2, verbose=False, logits_all=False, flash_attn=False)
    ids = [llama.tokenize(t.encode(), add_bos=True, special=True) for t in ask["texts"]]
    answers = []
    for prompt in ask["prompts"]:
        tokens, new = llama.tokenize(prompt.encode(), add_bos=True, special=True), []
        llama.reset()
        for token in llama.generate(tokens, temp=0.0, repeat_penalty=1.0):
            if token == llama.token_eos() or len(new) == ask["new"]:
                break
            new.append(token)
        answers.append(new)
    out[name] = {"ids": ids, "answers": answers}
json.dump(out, sys.stdout)
"""


def foundry(*words):
    """Runs the binary; what it printed."""
    done = subprocess.run([BINARY, *map(str, words)], text=True, capture_output=True)
    if done.returncode != 0:
        sys.exit(f"llm-foundry {' '.join(map(str, words))}\n{done.stderr}")
    return done.stdout


def merge(model_dir, room):
    """PEFT's adapter, merged by both; the largest difference of logits."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", use_rslora=True, init_lora_weights=False)
    model = get_peft_model(base, config)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data.mul_(0.2)
    model.save_pretrained(room / "adapter")
    print(foundry("merge", model_dir, room / "adapter", "-o", room / "merged", "--dtype", "float32"), end="")
    theirs = model.merge_and_unload()
    ours = AutoModelForCausalLM.from_pretrained(room / "merged", dtype=torch.float32)
    worst = 0.0
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            worst = max(worst, (theirs(ids).logits - ours(ids).logits).abs().max().item())
    print(f"PEFT's merge and ours, in transformers: largest difference of logits {worst:.2e}")
    return worst <= LOGIT_TOLERANCE


def export(room, llama_python):
    """Every type, read by gguf-py and llama.cpp."""
    files = {}
    for name in TYPES:
        path = room / f"{name}.gguf"
        report = json.loads(foundry("export", room / "merged", "--to", "gguf", "--quant", name, "-o", path, "--json"))
        files[name] = str(path)
        kinds = {str(t.tensor_type.name) for t in GGUFReader(path).tensors}
        print(f"{name:7} {report['bytes'] / 1e6:6.1f} MB  KL {report['comparison']['mean_kl']:.2e}  {sorted(kinds)}")
    ask = {"files": files, "texts": TEXTS, "prompts": PROMPTS, "new": NEW_TOKENS}
    done = subprocess.run([llama_python, "-c", LLAMA], input=json.dumps(ask), text=True, capture_output=True)
    if done.returncode != 0:
        sys.exit(f"llama.cpp: {done.stderr[-2000:]}")
    theirs, fine = json.loads(done.stdout), True
    tokenizer = AutoTokenizer.from_pretrained(room / "merged")
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    for name in TYPES:
        if theirs[name]["ids"] != ids:
            print(f"{name}: llama.cpp's token ids differ: {theirs[name]['ids']} {ids}")
            fine = False
        answers = []
        for prompt in PROMPTS:
            words = ["generate", files[name], "--prompt", prompt, "--greedy", "--dtype", "float32", "--json"]
            answers.append(json.loads(foundry(*words, "--max-new-tokens", NEW_TOKENS))["token_ids"])
        same = sum(a == b for a, b in zip(answers, theirs[name]["answers"]))
        print(f"{name:7} {same} of {len(PROMPTS)} greedy answers as llama.cpp's")
        if name in SAME_ANSWERS and same != len(PROMPTS):
            print(answers, theirs[name]["answers"])
            fine = False
    return fine


def main(model_dir, llama_python, binary=None):
    global BINARY
    BINARY = binary or ROOT / "target/release/llm-foundry"
    with tempfile.TemporaryDirectory() as room:
        results = [merge(model_dir, Path(room)), export(Path(room), llama_python)]
    sys.exit(0 if all(results) else 1)


main(*sys.argv[1:])
