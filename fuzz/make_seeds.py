"""Writes the first inputs of the fuzz targets: small sound files, and some that once caused trouble.

Usage: make_seeds.py        (needs nothing but Python; writes beside itself into corpus/)
"""
import hashlib
import json
import os
import struct

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


def write(target, name, data):
    folder = os.path.join(HERE, target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())


def jsonl(settings, *rows):
    return bytes([settings]) + "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def say(role, content, **more):
    return {"role": role, "content": content, **more}


def rows():
    chat = {"messages": [say("system", "s"), say("user", "hi"), say("assistant", "ja ☀️", weight=0),
                         say("user", [{"type": "text", "text": "part"}]), say("assistant", None, train=True)]}
    write("jsonl_rows", "messages", jsonl(0, chat, chat))
    write("jsonl_rows", "messages_packed_masked", jsonl(3, chat, chat))
    write("jsonl_rows", "prompt_completion", jsonl(5, {"prompt": "a b", "completion": " c"}, {"prompt": "", "completion": "x " * 90}))
    write("jsonl_rows", "prompt_completion_chat", jsonl(1, {"prompt": [say("user", "a")], "completion": [say("assistant", "b")],
                                                            "tools": [{"name": "f"}], "chat_template_kwargs": {"x": 1}}))
    write("jsonl_rows", "alpaca", jsonl(0, {"instruction": "i", "input": "j", "output": "o", "history": [["a", "b"]], "system": None}))
    write("jsonl_rows", "sharegpt", jsonl(2, {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}))
    write("jsonl_rows", "text", jsonl(1, {"text": "word " * 40}, {"text": ""}, {"text": "\u0000\ufffd\U00100000"}))
    write("jsonl_rows", "broken", b"\x00{\"text\": \"\\ud800\"}\n\n[1]\n{\"text\": null}\n{\"text\": \"\xff\"}")
    write("jsonl_rows", "deep", b"\x00" + b'{"messages":' + b"[" * 200)


def templates():
    write("chat_template", "chatml", "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
    write("chat_template", "tools", "{%- if tools %}{{ tools | tojson(indent=2) }}{% endif %}{%- macro show(x, n=0) -%}{{ x.items() | list if x is mapping "
          "else x }}{{ show({'a': x}, n + 1) if n < 4 }}{%- endmacro -%}{%- for m in messages %}{% generation %}{{ show(m) }}{% endgeneration %}{% endfor %}")
    write("chat_template", "thinking", "{%- set ns = namespace(last=-1) %}{%- for m in messages[::-1] %}{%- if m.role == 'user' %}{% set ns.last = loop.revindex0 "
          "%}{% break %}{% endif %}{% endfor %}{%- for m in messages %}{% set c = m.content.split('</think>')[-1].lstrip('\\n') %}"
          "{{- raise_exception('no') if m.role == 'x' }}{{- c.partition(' ')[2] ~ c.rjust(9) ~ 'a' * 3 ~ '%s|%5.2f' % (c, 1.5) }}{% endfor %}")
    write("chat_template", "names", "{% set ns = namespace(a=[1], b='x') %}{% set ns.a = ns.a + [ns.b] %}{{ ns.a | join(', ') ~ ns.b | upper }}"
          "{{ [3, 1] | sort | map('string') | list }}{{ strftime_now('%Y') | length }}{{ '{:>5}'.format(3) }}{{ 'a,b' | replace(',', ';') }}")
    # A namespace that contains itself, values that nest without end.
    write("chat_template", "cycle", "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns == ns }}{{ [ns] | join }}{{ '%s' | format(ns) }}")
    write("chat_template", "deep", "{% macro m(x, n) %}{% if n %}{{ m([[[[[[[[x]]]]]]]], n - 1) }}{% else %}{{ x == [x] }}{% endif %}{% endmacro %}{{ m([], 400) }}")


def tensors():
    header = {"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
              "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}, "c": {"dtype": "I64", "shape": [], "data_offsets": [32, 40]}}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    write("safetensors", "three", struct.pack("<Q", len(text)) + text + bytes(range(40)))
    write("safetensors", "huge_header", struct.pack("<Q", 1 << 62) + b"{}")
    overflow = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 24]}}).encode()
    write("safetensors", "overflow", struct.pack("<Q", len(overflow)) + overflow + bytes(24))


def adapter():
    prefix = "base_model.model.model.layers.0.self_attn.q_proj."

    def packed(**tensors):
        header, data = {"__metadata__": {"format": "pt"}}, b""
        for name, shape in tensors.items():
            count = 1
            for length in shape:
                count *= length
            end = len(data) + 4 * count
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), end]}
            data += b"".join(struct.pack("<f", 0.01 * (i % 7)) for i in range(count))
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text + data

    pair = {prefix + "lora_A.weight": [2, 8], prefix + "lora_B.weight": [8, 2]}
    write("adapter_weights", "lora", packed(**pair))
    write("adapter_weights", "dora", packed(**pair, **{prefix + "lora_magnitude_vector": [8]}))
    write("adapter_weights", "table", packed(**pair, **{"base_model.model.model.embed_tokens.weight": [18, 8]}))
    write("adapter_weights", "branch", packed(**pair, **{"base_model.model.model.embed_tokens.lora_embedding_A": [2, 16],
                                                         "base_model.model.model.embed_tokens.lora_embedding_B": [8, 2]}))
    write("adapter_weights", "other_shape", packed(**{**pair, prefix + "lora_B.weight": [9, 2]}))


def gguf_string(text):
    return struct.pack("<Q", len(text)) + text.encode()


def gguf():
    def pair(key, kind, value):
        return gguf_string(key) + struct.pack("<I", kind) + value

    def strings(items):
        return struct.pack("<IQ", 8, len(items)) + b"".join(map(gguf_string, items))

    tokens = ["<unk>", "<s>", "</s>"] + [chr(97 + i) for i in range(6)] + ["ab"]
    meta = [
        pair("general.architecture", 8, gguf_string("llama")), pair("llama.context_length", 4, struct.pack("<I", 64)),
        pair("llama.embedding_length", 4, struct.pack("<I", 32)), pair("llama.block_count", 4, struct.pack("<I", 1)),
        pair("llama.feed_forward_length", 4, struct.pack("<I", 32)), pair("llama.attention.head_count", 4, struct.pack("<I", 2)),
        pair("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-5)), pair("tokenizer.ggml.model", 8, gguf_string("gpt2")),
        pair("tokenizer.ggml.pre", 8, gguf_string("default")), pair("tokenizer.ggml.tokens", 9, strings(tokens)),
        pair("tokenizer.ggml.merges", 9, strings(["a b"])), pair("tokenizer.ggml.eos_token_id", 4, struct.pack("<I", 2)),
    ]
    infos, data = b"", b""
    for name, shape, kind, size in [("token_embd.weight", [32, 10], 0, 1280), ("blk.0.attn_q.weight", [32, 32], 8, 1088), ("output_norm.weight", [32], 0, 128)]:
        infos += gguf_string(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", n) for n in shape)
        infos += struct.pack("<IQ", kind, len(data))
        data += bytes(i % 60 for i in range(size))
    head = b"GGUF" + struct.pack("<IQQ", 3, 3, len(meta)) + b"".join(meta) + infos
    write("gguf", "small", head + bytes(-len(head) % 32) + data)
    # One file for each type that is written: id, elements and bytes of a block.
    blocks = {"f32": (0, 1, 4), "f16": (1, 1, 2), "bf16": (30, 1, 2), "q4_0": (2, 32, 18), "q4_1": (3, 32, 20), "q5_0": (6, 32, 22),
              "q5_1": (7, 32, 24), "q8_0": (8, 32, 34), "q2_k": (10, 256, 84), "q3_k": (11, 256, 110), "q4_k": (12, 256, 144),
              "q5_k": (13, 256, 176), "q6_k": (14, 256, 210)}
    for name, (kind, elements, size) in blocks.items():
        info = gguf_string("token_embd.weight") + struct.pack("<IQQIQ", 2, 256, 10, kind, 0)
        head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(meta)) + b"".join(meta) + info
        body = bytes((i * 37 + 11) % 251 for i in range(2560 // elements * size))
        write("gguf", "type_" + name, head + bytes(-len(head) % 32) + body)
    write("gguf", "lying_counts", b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60))
    write("gguf", "long_array", b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + gguf_string("a") + struct.pack("<IIQ", 9, 4, 1 << 61))


def configs():
    lora = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "target_modules": ["q_proj", "v_proj"],
            "bias": "none", "use_rslora": True, "modules_to_save": ["lm_head"], "base_model_name_or_path": "x", "rank_pattern": {}, "alpha_pattern": {}}
    write("adapter_config", "lora", json.dumps(lora))
    write("adapter_config", "regex", json.dumps({**lora, "target_modules": ".*\\.(q|v)_proj", "r": 0, "lora_alpha": 1e300, "rank_pattern": {"(a+)+$": 4}}))
    write("adapter_config", "wrong", '{"peft_type": "LORA", "r": -1, "target_modules": {"a": [1]}}')
    write("manifest", "empty_list", '{"format": 2, "step": 3, "files": {}}')
    write("manifest", "outside", '{"format": 2, "step": 3, "files": {"../../x": {"bytes": 18446744073709551615, "sha256": ""}, "/y": {"bytes": 0, "sha256": ""}}}')
    write("manifest", "self", '{"format": 2, "step": 3, "files": {"manifest.json": {"bytes": 1, "sha256": "00"}, ".": {"bytes": 0, "sha256": ""}}}')


def token_file(width, lengths, mask, version=1, continued=()):
    total = sum(lengths)
    pad = lambda data: data + bytes(-len(data) % 8)
    flags = (1 if mask else 0) + (2 if continued else 0)
    head = b"LFTOKENS" + struct.pack("<IIQQQ", version, width, len(lengths), total, flags) + bytes(24)
    tokens = b"".join(struct.pack("<H" if width == 2 else "<I", 7 * i % 700) for i in range(total))
    bits = bytes(0x5A for _ in range((total + 7) // 8)) if mask else b""
    offsets = b"".join(struct.pack("<Q", sum(lengths[:i])) for i in range(len(lengths) + 1))
    content = head + pad(tokens) + pad(bits) + offsets
    if version == 1:
        return content
    if continued:
        content += pad(sum(1 << d for d in continued).to_bytes((len(lengths) + 7) // 8, "little"))
    blocks = [content[at : at + 65536] for at in range(0, len(content), 65536)]
    return content + b"".join(hashlib.sha256(block).digest() for block in blocks)


def token_files():
    write("token_files", "two_bytes", token_file(2, [3, 0, 14], False))
    write("token_files", "four_bytes_masked", token_file(4, [5, 9], True))
    write("token_files", "empty", token_file(2, [], False))
    write("token_files", "sums", token_file(2, [3, 0, 14], True, 2))
    write("token_files", "continued", token_file(4, [5, 9, 1], True, 2, (1, 2)))
    write("token_files", "first_continues", token_file(2, [5, 9], False, 2, (0,)))
    write("token_files", "falling_offsets", token_file(2, [3, 5], False)[:-16] + struct.pack("<QQ", 9, 8))
    write("token_files", "huge_counts", b"LFTOKENS" + struct.pack("<IIQQQ", 1, 4, 1 << 61, 1 << 62, 1) + bytes(24))


for make in (rows, templates, tensors, adapter, gguf, configs, token_files):
    make()
