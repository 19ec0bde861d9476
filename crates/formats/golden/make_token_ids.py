"""Golden token ids from transformers: 2,000 generated lines of mixed Unicode, code and whitespace, and chat texts.

    python make_token_ids.py tiny                          # ../tests/fixtures/tiny_tokenizer/line_ids.txt
    python make_token_ids.py smollm2 HF_DIR GGUF_FILE      # ../tests/fixtures/smollm2_line_ids.txt, smollm2_texts.json

The lines come from mixed_lines.json by the SplitMix64 walk below, which tests/common/mod.rs repeats. A line of output
is "<number of ids> <hash>", the hash being FNV-1a over the ids as little-endian u32, folded to 32 bits.
"""
import json, os, sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
from transformers import AutoTokenizer

HERE = Path(__file__).parent
FIXTURES = HERE.parent / "tests" / "fixtures"
PIECES = json.loads((FIXTURES / "mixed_lines.json").read_text(encoding="utf-8"))
MASK = (1 << 64) - 1


class SplitMix64:
    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return (z ^ (z >> 31)) % n


def piece(rng):
    kind = PIECES["kinds"][rng.below(len(PIECES["kinds"]))]
    if kind == "number":
        return str(rng.below(10 ** (1 + rng.below(12))))
    if kind == "codepoints":
        low, high = PIECES["ranges"][rng.below(len(PIECES["ranges"]))]
        return "".join(chr(low + rng.below(high - low + 1)) for _ in range(1 + rng.below(4)))
    return PIECES[kind][rng.below(len(PIECES[kind]))]


def lines(count):
    rng = SplitMix64(PIECES["seed"])
    return ["".join(piece(rng) for _ in range(1 + rng.below(16))) for _ in range(count)]


def fold(ids):
    h = 0xCBF29CE484222325
    for i in ids:
        for byte in i.to_bytes(4, "little"):
            h = ((h ^ byte) * 0x100000001B3) & MASK
    return f"{len(ids)} {(h ^ (h >> 32)) & 0xFFFFFFFF:08x}\n"


def write(path, tokenizer, count):
    ids = [tokenizer(line, add_special_tokens=False)["input_ids"] for line in lines(count)]
    path.write_text("".join(map(fold, ids)), encoding="utf-8")
    return ids


if sys.argv[1] == "tiny":
    write(FIXTURES / "tiny_tokenizer" / "line_ids.txt", AutoTokenizer.from_pretrained(FIXTURES / "tiny_tokenizer"), 400)
else:
    directory, gguf = sys.argv[2:4]
    from_dir = AutoTokenizer.from_pretrained(directory)
    from_gguf = AutoTokenizer.from_pretrained(os.path.dirname(gguf), gguf_file=os.path.basename(gguf))
    ids = write(FIXTURES / "smollm2_line_ids.txt", from_dir, 2000)
    assert ids == [from_gguf(line, add_special_tokens=False)["input_ids"] for line in lines(2000)]
    conversations = [
        [{"role": "user", "content": "What is the capital of France?"}],
        [
            {"role": "system", "content": "You are terse."},
            {"role": "user", "content": "Name three prime numbers."},
            {"role": "assistant", "content": "2, 3, 5."},
            {"role": "user", "content": "And two more?"},
        ],
        [{"role": "user", "content": "Écris une phrase en français, s'il te plaît — 你好 🙂"}],
    ]
    texts = [from_dir.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in conversations]
    texts += ["", " ", "1234567890", "    12", "\x04lost\x1d", "<|im_start|><|im_end|><|endoftext|>", *lines(3)]
    rows = [
        {"text": t, "ids": from_dir(t)["input_ids"], "decoded": from_dir.decode(from_dir(t)["input_ids"])} for t in texts
    ]
    assert [r["ids"] for r in rows] == [from_gguf(t)["input_ids"] for t in texts]
    (FIXTURES / "smollm2_texts.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
