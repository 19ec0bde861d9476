"""Our matrix products and attention against PyTorch's, shape by shape and by turns.

    cargo build --release --package foundry-kernels --example rates
    python interop/torch_matmul.py target/release/examples/rates [--rounds 5] [--seconds 0.3] [SPEC ...]

A SPEC is that of `cargo xtask bench`. A quantised product (`bf16-nf4`) is held against PyTorch's dense one of the
same type, a result in f32 against PyTorch's in the type of the operands. For PyTorch's AVX2 paths set
ATEN_CPU_CAPABILITY=avx2 and ONEDNN_MAX_CPU_ISA=AVX2, and give ours `--isa avx2`. Prints medians in GFLOP/s, their
ratio, and the least and the median ratio.
"""
import argparse, os, re, statistics, subprocess, time
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # torch's threads must not spin while ours are timed
import torch

SPECS = """nt:bf16:bf16:1024x576x576 nt:bf16:bf16:1024x1536x576 nt:bf16:bf16:1024x576x1536 nt:bf16:bf16:2048x576x576
nt:bf16:bf16:2048x1536x576 nt:bf16:bf16:2048x576x1536 nt:bf16:bf16:1024x49152x576 nn:bf16:bf16:1024x576x1536
nn:bf16:bf16:1024x1536x576 tn:bf16:f32:1536x576x1024 nt:bf16:bf16:1024x2048x2048 nt:bf16:bf16:1024x512x2048
nt:bf16:bf16:1024x8192x2048 nt:bf16:bf16:1024x2048x8192 nt:bf16:bf16:2048x2048x2048 nt:bf16:bf16:2048x8192x2048
nt:bf16:bf16:2048x2048x8192 nn:bf16:bf16:1024x2048x8192 tn:bf16:f32:8192x2048x1024
nt:bf16-nf4:bf16:1024x1536x576 nt:bf16-nf4:bf16:2048x576x1536 nt:bf16-nf4:bf16:1024x8192x2048
nn:bf16-nf4:bf16:1024x576x1536 nt:bf16-int8:bf16:1024x1536x576 nt:bf16-int8:bf16:1024x8192x2048
nn:bf16-int8:bf16:1024x576x1536
nt:f32:f32:1024x1536x576 nt:f32:f32:1024x576x1536 nt:f32:f32:1024x2048x2048 nt:f32:f32:1024x2048x8192
nn:f32:f32:1024x576x1536 tn:f32:f32:1536x576x1024
attention:bf16:9x3x64x1024 attention:bf16:9x3x64x8192 attention:bf16:32x8x64x2048 attention:f32:9x3x64x1024""".split()

parser = argparse.ArgumentParser()
parser.add_argument("rates")
parser.add_argument("specs", nargs="*")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--seconds", type=float, default=0.3)
parser.add_argument("--isa")
args = parser.parse_args()
threads = len(os.sched_getaffinity(0))
torch.set_num_threads(threads)
DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}


def median_seconds(call):
    times, start = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - start < args.seconds:
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def matmul(spec):
    layout, operands, _, shape = spec.split(":")
    m, n, k = map(int, shape.split("x"))
    dtype = DTYPES[operands.split("-")[0]]
    a = torch.rand((k, m) if layout[0] == "t" else (m, k)).sub_(0.5).to(dtype)
    b = torch.rand((n, k) if layout[1] == "t" else (k, n)).sub_(0.5).to(dtype)
    a, b = a.T if layout[0] == "t" else a, b.T if layout[1] == "t" else b
    seconds = median_seconds(lambda: torch.matmul(a, b))
    return [2.0 * m * n * k / seconds / 1e9]


def attention(spec):
    _, operands, shape = spec.split(":")
    heads, kv_heads, width, tokens = map(int, shape.split("x"))
    make = lambda count: torch.rand(1, count, tokens, width).sub_(0.5).to(DTYPES[operands]).requires_grad_()
    q, k, v = make(heads), make(kv_heads), make(kv_heads)
    # As transformers does for grouped heads: keys and values are repeated.
    wide = lambda x: x.repeat_interleave(heads // kv_heads, dim=1)
    run = lambda: torch.nn.functional.scaled_dot_product_attention(q, wide(k), wide(v), is_causal=True)
    with torch.no_grad():
        forward = median_seconds(run)
    out = run()
    gradient = torch.rand_like(out)
    backward = median_seconds(lambda: torch.autograd.grad(out, (q, k, v), gradient, retain_graph=True))
    product = heads * width * tokens * (tokens + 1)
    return [2 * product / forward / 1e9, 5 * product / backward / 1e9]


command = [args.rates, "--threads", str(threads), "--seconds", str(args.seconds)]
ours = subprocess.Popen(command + (["--isa", args.isa] if args.isa else []) + ["-"], text=True,
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print(ours.stdout.readline().strip(), "| torch", torch.__version__)


def our_rates(spec, lines):
    ours.stdin.write(spec + "\n")
    ours.stdin.flush()
    return [float(re.search(r"([0-9.]+) GFLOP/s", ours.stdout.readline())[1]) for _ in range(lines)]


ratios = []
for spec in args.specs or SPECS:
    passes = ["forward", "backward"] if spec.startswith("attention") else [""]
    peer = attention if len(passes) == 2 else matmul
    mine, theirs = [], []
    for _ in range(args.rounds):
        mine.append(our_rates(spec, len(passes)))
        theirs.append(peer(spec))
    for i, name in enumerate(passes):
        a, b = (statistics.median(round[i] for round in rounds) for rounds in (mine, theirs))
        ratios.append((a / b, f"{spec} {name}"))
        print(f"{name:9}{spec:34} ours {a:7.1f}  torch {b:7.1f}  ratio {a / b:5.2f}", flush=True)
least, where = min(ratios)
print(f"median ratio {statistics.median(ratio for ratio, _ in ratios):.2f}, least {least:.2f} ({where.strip()})")
ours.stdin.close()
ours.wait()
