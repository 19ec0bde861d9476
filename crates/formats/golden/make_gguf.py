"""Small GGUF files with the numbers and token ids that the peers read from them.

    python make_gguf.py        # writes ../tests/fixtures/gguf/

types.gguf            one tensor of every supported type; types.safetensors: the same, dequantised by gguf-py
tiny_llama.gguf       a random Llama with permuted q/k, Llama 3's rope factors and the tiny byte-level tokenizer;
                      tiny_llama.safetensors: its weights under Hugging Face names; tiny_llama_config.json
tiny_spm.gguf         a SentencePiece-like tokenizer (kind llama) alone; spm_ids.txt: transformers' ids
bpe_ids_<pre>.txt     transformers' ids of the tiny byte-level tokenizer with another tokenizer.ggml.pre

Needs the peers' gguf 0.19.0, transformers 5.23, tokenizers, torch. Deterministic.
"""
import json, os, tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import numpy as np
from gguf import GGMLQuantizationType as T, GGUFWriter, TokenType, dequantize, quantize
from gguf.constants import GGML_QUANT_SIZES
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

HERE = Path(__file__).parent
FIXTURES = HERE.parent / "tests" / "fixtures"
OUT = FIXTURES / "gguf"
OUT.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(7)


def lines_module():
    """lines() and fold() of make_token_ids.py, without running it."""
    source = (HERE / "make_token_ids.py").read_text(encoding="utf-8").split("if sys.argv[1]")[0]
    scope = {"__file__": str(HERE / "make_token_ids.py")}
    exec(compile(source, "make_token_ids.py", "exec"), scope)
    return scope["lines"], scope["fold"]


lines, fold = lines_module()


def k_quant_blocks(kind, rows, columns):
    """Random bytes that are valid blocks: the half-precision scales are small finite numbers."""
    per_block, size = GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, size=(rows * columns // per_block, size), dtype=np.uint8)
    scales = rng.normal(0, 0.01, size=(len(blocks), 2)).astype(np.float16).view(np.uint8)
    if kind == T.Q6_K:
        blocks[:, 208:210] = scales[:, :2]
    else:
        blocks[:, :4] = scales
    return blocks.reshape(rows, -1)


def types():
    writer = GGUFWriter(OUT / "types.gguf", "llama")
    writer.add_name("one tensor of every type")
    writer.add_array("test.nested_numbers", [1, 2, 3])
    expected = {}
    values = rng.normal(0, 1, size=(2, 256)).astype(np.float32)
    for name, dtype in [("F32", np.float32), ("F16", np.float16), ("F64", np.float64)]:
        writer.add_tensor(name, values.astype(dtype))
        expected[name] = values.astype(dtype).astype(np.float32)
    for name, dtype in [("I8", np.int8), ("I16", np.int16), ("I32", np.int32), ("I64", np.int64)]:
        info = np.iinfo(dtype)
        integers = rng.integers(info.min, info.max, size=(2, 4), dtype=dtype, endpoint=True)
        writer.add_tensor(name, integers)
        expected[name] = integers.astype(np.int64)
    for kind in [T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0]:
        data = quantize(values, kind)
        writer.add_tensor(kind.name, data, raw_dtype=kind)
        expected[kind.name] = dequantize(data, kind)
    for kind in [T.Q4_K, T.Q5_K, T.Q6_K]:
        data = k_quant_blocks(kind, 2, 256)
        writer.add_tensor(kind.name, data, raw_dtype=kind)
        expected[kind.name] = dequantize(data, kind)
    finish(writer)
    save_file({k: np.ascontiguousarray(v) for k, v in expected.items()}, OUT / "types.safetensors")


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tiny_tokenizer(writer, pre):
    data = json.loads((FIXTURES / "tiny_tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    config = json.loads((FIXTURES / "tiny_tokenizer" / "tokenizer_config.json").read_text(encoding="utf-8"))
    vocab = data["model"]["vocab"]
    tokens = sorted(vocab, key=vocab.get)
    special = {t["id"] for t in data["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if i in special else TokenType.NORMAL for i in range(len(tokens))])
    writer.add_token_merges([" ".join(m) for m in data["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(config["chat_template"])
    return len(tokens)


def permute(w, heads):
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def llama3_divisors(theta, head_dim, factor, low, high, original):
    freqs = 1.0 / (theta ** (np.arange(0, head_dim, 2, dtype=np.float32) / head_dim))
    out = []
    for f in freqs:
        wavelength = 2 * np.pi / f
        if wavelength < original / high:
            out.append(1.0)
        elif wavelength > original / low:
            out.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            out.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(out, dtype=np.float32)


def tiny_llama():
    D, F, L, H, K, HD = 32, 64, 2, 4, 2, 16
    writer = GGUFWriter(OUT / "tiny_llama.gguf", "llama")
    writer.add_name("tiny random llama")
    writer.add_context_length(128)
    writer.add_embedding_length(D)
    writer.add_block_count(L)
    writer.add_feed_forward_length(F)
    writer.add_head_count(H)
    writer.add_head_count_kv(K)
    writer.add_key_length(HD)
    writer.add_rope_dimension_count(HD)
    writer.add_rope_freq_base(500000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    V = add_tiny_tokenizer(writer, "smollm")
    writer.add_uint32("tokenizer.ggml.eot_token_id", 0)
    expected = {}

    def weight(gguf_name, hf_name, shape, kind=T.F16, heads=None):
        w = rng.normal(0, 0.05, size=shape).astype(np.float32)
        stored = quantize(permute(w, heads) if heads else w, kind)
        writer.add_tensor(gguf_name, stored, raw_dtype=kind)
        plain = dequantize(stored, kind).reshape(shape)
        if heads:  # undo: reshape(heads, d/2, 2).swapaxes
            plain = plain.reshape(heads, shape[0] // heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
        expected[hf_name] = np.ascontiguousarray(plain)

    weight("token_embd.weight", "model.embed_tokens.weight", (V, D), T.Q4_0)
    for i in range(L):
        b, h = f"blk.{i}.", f"model.layers.{i}."
        weight(b + "attn_norm.weight", h + "input_layernorm.weight", (D,), T.F32)
        weight(b + "ffn_norm.weight", h + "post_attention_layernorm.weight", (D,), T.F32)
        weight(b + "attn_q.weight", h + "self_attn.q_proj.weight", (H * HD, D), T.Q8_0, H)
        weight(b + "attn_k.weight", h + "self_attn.k_proj.weight", (K * HD, D), T.F16, K)
        weight(b + "attn_v.weight", h + "self_attn.v_proj.weight", (K * HD, D))
        weight(b + "attn_output.weight", h + "self_attn.o_proj.weight", (D, H * HD), T.Q5_1)
        weight(b + "ffn_gate.weight", h + "mlp.gate_proj.weight", (F, D))
        weight(b + "ffn_up.weight", h + "mlp.up_proj.weight", (F, D), T.Q4_1)
        weight(b + "ffn_down.weight", h + "mlp.down_proj.weight", (D, F), T.Q5_0)
    weight("output_norm.weight", "model.norm.weight", (D,), T.F32)
    writer.add_tensor("rope_freqs.weight", llama3_divisors(500000.0, HD, 32.0, 1.0, 4.0, 8192))
    finish(writer)
    # The embedding and the first layer are left out: the file stays small, and layer 1 shows everything.
    expected = {k: v for k, v in expected.items() if "embed" not in k and "layers.0." not in k}
    save_file(expected, OUT / "tiny_llama.safetensors")


def spm():
    trained = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(split=True)
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=560, special_tokens=specials, show_progress=False)
    text = (HERE / "prose.txt").read_text(encoding="utf-8")
    trained.train_from_iterator(text.splitlines(), trainer)
    data = json.loads(trained.to_str())["model"]
    tokens = sorted(data["vocab"], key=data["vocab"].get)
    order = {}
    for rank, (left, right) in enumerate(data["merges"]):
        order.setdefault(left + right, rank)
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL] + [TokenType.BYTE] * 256
    types += [TokenType.NORMAL] * (len(tokens) - len(types))
    tokens.append("<|user|>")
    types.append(TokenType.USER_DEFINED)
    scores = [0.0 if i < 259 else -float(order.get(t, 10_000)) for i, t in enumerate(tokens)]
    writer = GGUFWriter(OUT / "tiny_spm.gguf", "llama")
    writer.add_name("tiny sentencepiece")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    finish(writer)
    tokenizer = AutoTokenizer.from_pretrained(OUT, gguf_file="tiny_spm.gguf")
    texts = lines(400)
    (OUT / "spm_ids.txt").write_text("".join(fold(tokenizer(t)["input_ids"]) for t in texts), encoding="utf-8")


def other_splits():
    for pre in ["llama-bpe", "qwen2", "tekken"]:
        with tempfile.TemporaryDirectory() as folder:
            writer = GGUFWriter(Path(folder) / "t.gguf", "llama")
            writer.add_name("tiny")
            add_tiny_tokenizer(writer, pre)
            finish(writer)
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file="t.gguf")
            text = "".join(fold(tokenizer(t)["input_ids"]) for t in lines(400))
        (OUT / f"bpe_ids_{pre}.txt").write_text(text, encoding="utf-8")


types()
tiny_llama()
spm()
other_splits()
