"""Tokens a second of a single answer beside llama.cpp's, at equal bits of a weight and by turns.

    python interop/llama_decode.py --binary target/release/llm-foundry --model MODEL_DIR --work DIR [--rounds 5]
        [--only bf16,q8_0,q4_0]

Python with llama-cpp-python. Writes the model as GGUF (bf16, q8_0, q4_0) and, for us, as bitsandbytes' int8 and nf4 into
DIR. Both answer the same prompt greedily on all processors; the time is that from the first new token to the last.
Prints medians, their ratio, and one line `RESULT {json}`.
"""
import argparse, json, os, statistics, subprocess, sys, time

PAIRS = [("bf16", "bf16", None), ("q8_0", "8 bits", "int8"), ("q4_0", "4 bits", "nf4")]
PROMPT = "The lighthouse keeper climbed the stairs and"


def ours(args, model):
    command = [args.binary, "generate", model, "--prompt", PROMPT, "--greedy", "--json", "--quiet",
               "--max-new-tokens", str(args.tokens), "--threads", str(args.threads)]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return (len(said["token_ids"]) - 1) / (said["seconds"] - said["seconds_to_first_token"])


def llama(args, path):
    from llama_cpp import Llama
    model = Llama(path, n_ctx=512, n_threads=args.threads, verbose=False)
    ids, stamps = model.tokenize(PROMPT.encode()), []
    for _ in model.generate(ids, temp=0.0):
        stamps.append(time.perf_counter())
        if len(stamps) == args.tokens:
            break
    model.close()
    return (len(stamps) - 1) / (stamps[-1] - stamps[0])


parser = argparse.ArgumentParser()
parser.add_argument("--binary", required=True)
parser.add_argument("--model", required=True)
parser.add_argument("--work", required=True)
parser.add_argument("--tokens", type=int, default=128)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--only", default="bf16,q8_0,q4_0")
args = parser.parse_args()
args.threads = len(os.sched_getaffinity(0))
os.makedirs(args.work, exist_ok=True)
results = {}
for gguf, name, bits in (pair for pair in PAIRS if pair[0] in args.only.split(",")):
    path = os.path.join(args.work, f"{gguf}.gguf")
    mine = os.path.join(args.work, bits) if bits else args.model
    for output, form, quant in [(path, "gguf", gguf), (mine, "safetensors", bits)]:
        if not os.path.exists(output):
            command = [args.binary, "export", args.model, "--to", form, "--quant", quant, "-o", output, "--quiet"]
            subprocess.run(command, check=True)
    rounds = [(ours(args, mine), llama(args, path)) for _ in range(args.rounds)]
    we, they = (statistics.median(side) for side in zip(*rounds))
    results[name] = {"ours": we, "llama.cpp": they, "ratio": statistics.median(a / b for a, b in rounds)}
    print(f"{name:8} ours {we:7.1f}  llama.cpp {they:7.1f} tokens/s  ratio {results[name]['ratio']:.2f}")
    sys.stdout.flush()
print("RESULT", json.dumps(results))
