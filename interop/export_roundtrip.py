"""PEFT's merge is ours, transformers loads it, and gguf-py and llama.cpp agree with every GGUF type that we write.

    cargo build --release && cargo xtask golden export_roundtrip PYTHON MODEL_DIR LLAMA_PYTHON [BINARY]

MODEL_DIR is SmolLM2-135M-Instruct as a Hugging Face directory, LLAMA_PYTHON a Python with llama-cpp-python (it need not
have the other peers). In float32:
  1. PEFT makes an adapter whose B matrices are not zero and merges it; llm-foundry merges it; transformers loads both.
  2. llm-foundry exports the merged model to every GGUF type. gguf-py reads each file: types of 32 numbers a block (and
     f16, bf16) must have the bytes of its own quantisation. llama.cpp quantises our f32 file to each type: tensor by
     tensor ours must be of the same type and not further from the source (of the K types the bytes are equal).
  3. llama.cpp loads each, gives the ids of some texts and continues some prompts greedily.
  4. transformers loads the merged model as fp8 (compressed-tensors), nf4, nf4_double and int8 (bitsandbytes): its
     layers are of that kind, their numbers those that llm-foundry reads from the same files, and it predicts what the
     source does, as far as so few bits can.
Ends with exit code 1 when logits differ by more than LOGIT_TOLERANCE, a type or an id differs, an error is larger than
llama.cpp's, a type of SAME_ANSWERS answers otherwise than llm-foundry does with the same file (but for a tie), a
number of (4) differs by more than its last bit, or a file does not load. LLAMA_PYTHON may be `-`: then (2) leaves out
llama.cpp, and (3) is left out.
Needs torch, transformers, peft, gguf, bitsandbytes, compressed-tensors.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import bitsandbytes
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize, quantize
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parent.parent
# Each with llama.cpp's number of it (`enum llama_ftype`).
TYPES = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7, "q6_k": 18, "q5_k_m": 17, "q5_k_s": 16, "q4_k_m": 15, "q4_k_s": 14,
         "q3_k_l": 13, "q3_k_m": 12, "q3_k_s": 11, "q2_k": 10, "q5_1": 9, "q5_0": 8, "q4_1": 3, "q4_0": 2}
# Types whose greedy answers must be llm-foundry's, and how near llama.cpp's two best logits must be to count as a tie
# that may fall the other way: it computes in other roundings (activations in float16, and in 8 bits for quantised
# weights, where llm-foundry keeps float32).
SAME_ANSWERS = {"f32": 1e-3, "f16": 0.02, "q8_0": 0.3}
TEXTS = ["Hello, world! It's 1984 or 10,000 years later.", "Grüße 你好 🙂 ½", "def f(x):\n    return x + 3.14\n",
         "<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n<|im_start|>assistant\n", "  two  spaces\n\n\nand lines "]
PROMPTS = ["The capital of France is", "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n",
           "1, 2, 3, 4,"]
NEW_TOKENS = 16
# Two float32 implementations of the same sums, logits up to some 40.
LOGIT_TOLERANCE = 1e-3
# Largest mean KL divergence (nats) from the unrounded model, by the kind of rounding: some three times what is seen.
FEW_BITS = {"fp8": 1.0, "int8": 0.15, "nf4": 1.2, "nf4_double": 1.2}
# One float32 product in another order.
LAST_BIT = 2.0**-22
# Errors are sums in float32 and float64.
ERROR_TOLERANCE = 1e-5

LLAMA = r"""
import json, sys
import llama_cpp
import numpy as np
from llama_cpp import Llama
ask = json.load(sys.stdin)
for name, (ftype, path) in ask["quantise"].items():
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = ftype, 2
    assert llama_cpp.llama_model_quantize(ask["source"].encode(), path.encode(), params) == 0, name
out = {}
for name, path in ask["files"].items():
    llama = Llama(path, n_ctx=256, n_threads=2, verbose=False, logits_all=False, flash_attn=False)
    ids = [llama.tokenize(t.encode(), add_bos=True, special=True) for t in ask["texts"]]
    answers, leads = [], []
    for prompt in ask["prompts"]:
        tokens, new, lead = llama.tokenize(prompt.encode(), add_bos=True, special=True), [], []
        llama.reset()
        for token in llama.generate(tokens, temp=0.0, repeat_penalty=1.0):
            logits = llama_cpp.llama_get_logits_ith(llama._ctx.ctx, -1)
            best = np.sort(np.ctypeslib.as_array(logits, shape=(llama.n_vocab(),)))[-2:]
            lead.append(float(best[1] - best[0]))
            if token == llama.token_eos() or len(new) == ask["new"]:
                break
            new.append(token)
        answers.append(new)
        leads.append(lead)
    out[name] = {"ids": ids, "answers": answers, "leads": leads}
print("\n" + json.dumps(out))
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
            # Small enough for the model to keep its senses: of a confused one all answers are ties.
            weight.data.mul_(0.1)
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


def numbers(tensor):
    """A tensor of a GGUF file as float32."""
    return dequantize(tensor.data, tensor.tensor_type).astype(np.float32).ravel()


def as_gguf_py(name, file, source):
    """Whether tensors of the simple types have the bytes that gguf-py gives them."""
    kinds = GGMLQuantizationType
    simple = {kinds.F16, kinds.BF16, kinds.Q8_0, kinds.Q5_1, kinds.Q5_0, kinds.Q4_1, kinds.Q4_0}
    checked = [t for t in file.tensors if t.tensor_type in simple]
    differ = [t.name for t in checked if not np.array_equal(
        quantize(source[t.name].reshape(t.shape[::-1]), t.tensor_type).view(np.uint8).ravel(),
        np.ascontiguousarray(t.data).view(np.uint8).ravel())]
    if differ:
        print(f"{name}: gguf-py gives {len(differ)} of {len(checked)} tensors other bytes, such as {differ[0]}")
    return not differ


def as_llama(name, file, theirs, source):
    """Whether each tensor has llama.cpp's type and no larger error; how many have its bytes."""
    theirs = {t.name: t for t in theirs.tensors}
    equal, fine = 0, set(theirs) == {t.name for t in file.tensors}
    errors = np.zeros(2)
    for ours in file.tensors:
        other, exact = theirs[ours.name], source[ours.name].astype(np.float64)
        if ours.tensor_type != other.tensor_type:
            print(f"{name}: {ours.name} is {ours.tensor_type.name}, llama.cpp's {other.tensor_type.name}")
            fine = False
        equal += np.array_equal(ours.data, other.data)
        both = np.array([np.square(numbers(t) - exact).sum() for t in (ours, other)])
        if both[0] > both[1] * (1 + ERROR_TOLERANCE):
            print(f"{name}: {ours.name} has an error of {both[0]:.6e}, llama.cpp's has {both[1]:.6e}")
            fine = False
        errors += both
    whole = np.sqrt(sum(np.square(x.astype(np.float64)).sum() for x in source.values()))
    ours, other = np.sqrt(errors) / whole
    print(f"{name:7} rounding error {ours:.6e}, llama.cpp's {other:.6e}; {equal} of {len(theirs)} tensors have its bytes")
    return fine


def widened(module):
    """The numbers of a quantised linear layer, multiplied out, and the format they were rounded to; None for another."""
    weight = module.weight
    if getattr(weight, "quant_state", None) is not None:
        numbers = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
        return numbers.float(), numbers.dtype
    if isinstance(module, bitsandbytes.nn.Linear8bitLt):
        scales = weight.SCB if weight.SCB is not None else module.state.SCB
        return weight.data.float() * (scales.float() / 127).unsqueeze(1), torch.float32
    if hasattr(module, "weight_scale"):
        return weight.float() * module.weight_scale.float(), torch.float32
    return None


def few_bits(room):
    """The merged model in few bits, loaded by transformers."""
    tokenizer = AutoTokenizer.from_pretrained(room / "merged")
    source = AutoModelForCausalLM.from_pretrained(room / "merged", dtype=torch.float32)
    fine = True
    for kind, limit in FEW_BITS.items():
        foundry("export", room / "merged", "--to", "safetensors", "--quant", kind, "-o", room / kind)
        foundry("export", room / kind, "--to", "safetensors", "--quant", "f32", "-o", room / f"{kind}-wide", "--no-check")
        model = AutoModelForCausalLM.from_pretrained(room / kind, device_map="cpu")
        ours = load_file(room / f"{kind}-wide" / "model.safetensors")
        layers, worst = 0, 0.0
        for name, module in model.named_modules():
            theirs = widened(module) if isinstance(module, torch.nn.Linear) else None
            if theirs is not None:
                numbers, dtype = theirs
                weight = ours[name + ".weight"].to(dtype).float()
                worst = max(worst, ((numbers - weight).abs() / weight.abs().clamp(min=1e-9)).max().item())
                layers += 1
        expected = sum(name.endswith("_proj.weight") for name in ours)
        divergence = np.mean([divergences(source, model, tokenizer(text)["input_ids"]) for text in TEXTS])
        print(f"{kind:10} in transformers: {layers} of {expected} layers, largest relative difference of a number {worst:.1e}, "
              f"mean KL from the source {divergence:.3f}")
        fine &= layers == expected and worst <= LAST_BIT and divergence <= limit
    return fine


def divergences(source, other, ids):
    """Mean KL divergence of two models' predictions on one text."""
    ids = torch.tensor([ids])
    with torch.no_grad():
        p, q = (model(ids).logits.float().log_softmax(-1) for model in (source, other))
    return (p.exp() * (p - q)).sum(-1).mean().item()


def export(room, llama_python):
    """Every type, read by gguf-py and llama.cpp."""
    files = {}
    for name in TYPES:
        files[name] = str(room / f"{name}.gguf")
        report = json.loads(foundry("export", room / "merged", "--to", "gguf", "--quant", name, "-o", files[name], "--json"))
        kinds = {str(t.tensor_type.name) for t in GGUFReader(files[name]).tensors}
        print(f"{name:7} {report['bytes'] / 1e6:6.1f} MB  KL {report['comparison']['mean_kl']:.2e}  {sorted(kinds)}")
    source = {t.name: numbers(t) for t in GGUFReader(files["f32"]).tensors}
    fine = all([as_gguf_py(name, GGUFReader(path), source) for name, path in files.items()])
    if llama_python == "-":
        return fine
    quantised = {name: (ftype, str(room / f"theirs-{name}.gguf")) for name, ftype in TYPES.items() if name != "f32"}
    ask = {"files": files, "texts": TEXTS, "prompts": PROMPTS, "new": NEW_TOKENS, "source": files["f32"],
           "quantise": quantised}
    done = subprocess.run([llama_python, "-c", LLAMA], input=json.dumps(ask), text=True, capture_output=True)
    if done.returncode != 0:
        sys.exit(f"llama.cpp: {done.stderr[-2000:]}")
    fine &= answers_agree(room, files, json.loads(done.stdout.splitlines()[-1]))
    for name, (_, path) in quantised.items():
        fine &= as_llama(name, GGUFReader(files[name]), GGUFReader(path), source)
    return fine


def answers_agree(room, files, theirs):
    """Token ids and greedy answers."""
    tokenizer, fine = AutoTokenizer.from_pretrained(room / "merged"), True
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    for name in TYPES:
        if theirs[name]["ids"] != ids:
            print(f"{name}: llama.cpp's token ids differ: {theirs[name]['ids']} {ids}")
            fine = False
        answers = []
        for prompt in PROMPTS:
            words = ["generate", files[name], "--prompt", prompt, "--greedy", "--dtype", "float32", "--json"]
            answers.append(json.loads(foundry(*words, "--max-new-tokens", NEW_TOKENS))["token_ids"])
        told = list(zip(answers, theirs[name]["answers"], theirs[name]["leads"]))
        # Where they differ: llama.cpp's lead of its token over the next.
        leads = [lead[first_difference(a, b)] for a, b, lead in told if a != b]
        print(f"{name:7} {len(told) - len(leads)} of {len(told)} greedy answers as llama.cpp's" +
              "".join(f"; one parts at a lead of {lead:.3f}" for lead in leads))
        if name in SAME_ANSWERS and max(leads, default=0.0) > SAME_ANSWERS[name]:
            print(answers, theirs[name]["answers"])
            fine = False
    return fine


def first_difference(a, b):
    """The first place at which two lists differ."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def main(model_dir, llama_python, binary=None):
    global BINARY
    BINARY = binary or ROOT / "target/release/llm-foundry"
    with tempfile.TemporaryDirectory() as room:
        results = [merge(model_dir, Path(room)), few_bits(Path(room)), export(Path(room), llama_python)]
    sys.exit(0 if all(results) else 1)


if len(sys.argv) < 3:
    sys.exit(__doc__)
main(*sys.argv[1:])
