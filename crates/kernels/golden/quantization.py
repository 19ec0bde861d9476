"""Writes the golden numbers of `src/quantized/tests.rs`: what bitsandbytes 0.50 makes of two small matrices on CPU.

Run with bitsandbytes 0.50 and torch 2.15:  python crates/kernels/golden/quantization.py
What goes in is a short formula of 24-bit fractions, so that the test can make it again without a table. Long results
are written as checksums (FNV-1a of their little-endian bytes), short ones as bits.
"""

import numpy as np
import torch
import bitsandbytes.functional as F

torch.set_num_threads(1)


def numbers(n, seed):
    """A linear congruential generator; cubes, so that magnitudes differ by block."""
    state, out = seed, np.empty(n, np.float32)
    for i in range(n):
        state = (state * 1664525 + 1013904223) % 2**32
        x = np.float32(state >> 8) / np.float32(2**24) - np.float32(0.5)
        out[i] = x * x * x
    return out


def fnv(array):
    h = 0xCBF29CE484222325
    for byte in np.ascontiguousarray(array).tobytes():
        h = ((h ^ byte) * 0x100000001B3) % 2**64
    return f"0x{h:016x}"


def bits(array):
    return "[" + ", ".join(f"0x{b:08x}" for b in np.ascontiguousarray(array, np.float32).view(np.uint32)) + "]"


print("levels of the dynamic map:", fnv(F.create_dynamic_map().numpy()))
for rows, cols, seed in ((96, 704, 7), (5, 33, 9)):
    x = torch.from_numpy(numbers(rows * cols, seed).reshape(rows, cols))
    x[1, :70] = 0
    codes, state = F.quantize_4bit(x, blocksize=64, quant_type="nf4")
    print(f"{rows}x{cols} nf4: codes {fnv(codes.numpy())} absmax {fnv(state.absmax.numpy())}")
    for dtype in (torch.float32, torch.bfloat16):
        back = F.dequantize_4bit(codes, F.QuantState(state.absmax, x.shape, state.code, 64, "nf4", dtype))
        back = back.view(torch.int16) if dtype == torch.bfloat16 else back
        print(f"    dequantised to {dtype}: {fnv(back.numpy())}")
    codes, state = F.quantize_4bit(x, blocksize=64, quant_type="nf4", compress_statistics=True)
    print(f"    nested codes {fnv(state.absmax.numpy())} absmax {fnv(state.state2.absmax.numpy())} "
          f"offset {bits([state.offset.item()])}")
    back = F.dequantize_4bit(codes, state)
    print(f"    dequantised: {fnv(back.numpy())}")
    codes, absmax, _ = F.int8_vectorwise_quant(x.half())
    back = F.int8_vectorwise_dequant(codes, absmax)
    print(f"    int8: codes {fnv(codes.numpy())} absmax {fnv(absmax.numpy())} dequantised {fnv(back.numpy())}")
