"""Bytes of every quantised GGUF type, made by the peers, for crates/formats/tests/gguf_quants.rs.

Simple types by the PyPI package gguf; K-quants, which it cannot make, by ggml_quantize_chunk of llama.cpp's own library
(the wheel of llama-cpp-python). Run by hand:
    python crates/formats/golden/make_quants.py LIBGGML_BASE.so crates/formats/tests/fixtures/gguf/quants.json
"""
import ctypes, json, sys
import numpy as np
import gguf
from gguf import GGMLQuantizationType as T, quants


def values(rows):
    """The numbers that the Rust test makes too: exact in float32, so that no library's generator is needed."""
    state, out = 42, np.zeros((rows, 256), np.float32)
    for r in range(rows):
        for c in range(256):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            v = ((state >> 48) - 32768) * 2.0**-18
            if r == 1: v = abs(v)
            if r == 2: v = 0.0 if c < 100 else v * 2.0**-20
            if r == 3: v = 0.5
            if r == 4 and (state >> 20) % 64 == 0: v *= 32
            if r == 5: v = -abs(v) - 1
            if r == 6: v = 0.0
            if r == 7: v = v ** 3 * 512
            out[r, c] = v
    return out


def main(library, target):
    x = values(8)
    assert (x[7] == x[7].astype(np.float32)).all()
    lib = ctypes.CDLL(library)
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    pointer = ctypes.c_void_p
    lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer] + [ctypes.c_int64] * 3 + [pointer]
    golden = {"gguf": "0.19.0", "llama-cpp-python": "0.3.36"}
    for kind in (T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0):
        golden[kind.name] = quants.quantize(x, kind).tobytes().hex()
    for kind in (T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K):
        block, size = gguf.GGML_QUANT_SIZES[kind]
        out = np.zeros(x.size // block * size, np.uint8)
        lib.ggml_quantize_chunk(kind.value, x.ctypes.data, out.ctypes.data, 0, x.shape[0], x.shape[1], None)
        golden[kind.name] = out.tobytes().hex()
        back = quants.dequantize(out, kind)
        golden[kind.name + "_sum"] = float(np.abs(back.astype(np.float64)).sum())
    with open(target, "w") as file:
        json.dump(golden, file, indent=0)
        file.write("\n")


main(*sys.argv[1:])
