"""Writes the golden numbers of the optimisers other than AdamW: torch's SGD, bitsandbytes' Lion and 8-bit AdamW,
transformers' Adafactor, on CPU.

Run with torch 2.15, bitsandbytes 0.50.2, transformers 5.23:  python crates/kernels/golden/optimizers.py > FILE
Everything that goes in is a short binary fraction, so the tests can make it again without a table.

bitsandbytes' CPU library quantises with a table of 65,536 entries that errs below 2⁻¹⁶ of the block's maximum; its
CUDA kernels and its own torch fallback (`backends/default/ops.py`) take the nearest code. The golden numbers are those
of bitsandbytes' own update with the fallback's quantisation.
"""

import bitsandbytes as bnb
import bitsandbytes.backends.cpu.ops as cpu_ops
import bitsandbytes.functional as F
import torch
from transformers.optimization import Adafactor

torch.set_num_threads(1)


def start(n):
    index = torch.arange(n, dtype=torch.float64)
    return ((index * 5 % 32 - 15.5) / 16).float()


def gradient(n, step):
    index = torch.arange(n, dtype=torch.float64)
    return ((index * 37 + step * 101) % 64 / 64 - 0.4921875).float()


def run(make, shape, steps):
    n = int(torch.tensor(shape).prod())
    param = torch.nn.Parameter(start(n).reshape(shape).clone())
    optimizer = make([param])
    for step in range(steps):
        param.grad = gradient(n, step).reshape(shape)
        optimizer.step()
    return param.detach(), optimizer.state[param]


def bits(x):
    values = x.contiguous().flatten().view(torch.int32).tolist()
    return "[" + ", ".join(f"0x{b & 0xFFFFFFFF:08x}" for b in values) + "]"


def const(name, x):
    print(f"const {name}: [u32; {x.numel()}] = {bits(x)};")


def quantize(x, code, absmax_out, out, blocksize):
    """bitsandbytes' `quantize_blockwise` of backends/default/ops.py, for whole blocks."""
    blocks = x.reshape(-1, blocksize)
    absmax = blocks.abs().max(dim=-1)[0]
    scaled = torch.clamp(blocks * (1.0 / absmax.clamp(min=1e-38).view(-1, 1)), -1, 1).reshape(-1)
    bounds = (code[:-1] + code[1:]) / 2
    out.copy_(torch.bucketize(scaled, bounds, out_int32=True).to(torch.uint8).reshape(x.shape))
    absmax_out.copy_(absmax)


cpu_ops._quant_blockwise_fp32_direct = quantize

for name, is_signed in (("SIGNED", True), ("UNSIGNED", False)):
    code = F.create_dynamic_map(is_signed).view(torch.int32).to(torch.int64) & 0xFFFFFFFF
    some = ", ".join(f"0x{int(code[i]):08x}" for i in (0, 1, 126, 127, 128, 254, 255))
    print(f"const {name}: ([u32; 7], u64) = ([{some}], {int(code.sum())});")

param, state = run(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.25, weight_decay=0.1), [16], 3)
const("MOMENTUM", param)
param, state = run(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True), [16], 3)
const("NESTEROV", param)
param, state = run(lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1), [16], 3)
const("PLAIN", param)

param, state = run(lambda p: bnb.optim.Lion32bit(p, lr=0.01, betas=(0.9, 0.99), weight_decay=0.1), [16], 4)
const("PARAM", param)
const("M", state["state1"])

fixed = dict(lr=0.01, scale_parameter=False, relative_step=False, weight_decay=0.1)
param, state = run(lambda p: Adafactor(p, **fixed), [6, 8], 4)
const("MATRIX", param)
const("ROW", state["exp_avg_sq_row"])
const("COLUMN", state["exp_avg_sq_col"])
param, state = run(lambda p: Adafactor(p, **fixed), [16], 4)
const("VECTOR", param)
const("SQUARES", state["exp_avg_sq"])

settings = dict(lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1, min_8bit_size=1)
param, state = run(lambda p: bnb.optim.AdamW8bit(p, **settings), [512], 5)
const("PARAM8", param[::16])
print(f"const M_CODES: [u8; 512] = {state['state1'].tolist()};")
print(f"const V_CODES: [u8; 512] = {state['state2'].tolist()};")
const("M_ABSMAX", state["absmax1"])
const("V_ABSMAX", state["absmax2"])
