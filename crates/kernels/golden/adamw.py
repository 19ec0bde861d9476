"""Writes the golden numbers of `src/adamw/tests.rs`: torch's fused AdamW (the default of transformers' Trainer) on CPU.

Run with torch 2.15:  python crates/kernels/golden/adamw.py
Everything that goes in is a short binary fraction, so the test can make it again without a table. Thirty-two elements
are whole vectors: torch treats the tail of a tensor with another order of roundings.
"""

import torch

torch.set_num_threads(1)
n, steps = 32, 6
index = torch.arange(n, dtype=torch.float64)
param = torch.nn.Parameter(((index * 5 % 32 - 15.5) / 16).float())
optimizer = torch.optim.AdamW([param], lr=3e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, fused=True)
for step in range(steps):
    param.grad = ((index * 37 + step * 101) % 64 / 64 - 0.4921875).float()
    optimizer.step()
state = optimizer.state[param]
for name, x in (("PARAM", param.detach()), ("M", state["exp_avg"]), ("V", state["exp_avg_sq"])):
    bits = x.contiguous().view(torch.int32).tolist()
    print(f"const {name}: [u32; {n}] = [" + ", ".join(f"0x{b & 0xFFFFFFFF:08x}" for b in bits) + "];")
