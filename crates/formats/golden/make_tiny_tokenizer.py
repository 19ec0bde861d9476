"""Trains the tiny byte-level BPE tokenizer of the tests on prose.txt.

    python make_tiny_tokenizer.py          # writes ../tests/fixtures/tiny_tokenizer/ and its golden ids

Needs the PyPI packages tokenizers and transformers (the peers' versions). Deterministic: the same text gives the same
files. The vocabulary has all 256 byte atoms, so any text survives a round trip.
"""
import json, os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

HERE = Path(__file__).parent
OUT = HERE.parent / "tests" / "fixtures" / "tiny_tokenizer"
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONFIG = {
    "add_bos_token": False,
    "bos_token": "<|im_start|>",
    "chat_template": TEMPLATE,
    "eos_token": "<|im_end|>",
    "model_max_length": 2048,
    "pad_token": "<|endoftext|>",
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": "<|endoftext|>",
}
TEXTS = [
    "The capital of France is Paris.",
    "  two spaces, a\ttab and a\nnew line  ",
    "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n",
    "naïve café — 你好 🙂🌳 \u00a0\u200d\ufeff \x00\x7f",
    "def add(a, b):\n    return a + b  # 1234567890",
    "",
]


def train():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=768,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((HERE / "prose.txt").read_text(encoding="utf-8").splitlines(keepends=True), trainer)
    OUT.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(OUT / "tokenizer.json"))
    (OUT / "tokenizer_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")


def golden():
    tokenizer = AutoTokenizer.from_pretrained(OUT)
    conversation = [{"role": "user", "content": "Name a fruit."}, {"role": "assistant", "content": "An apple."}]
    rows = [{"text": text, "ids": tokenizer(text, add_special_tokens=False)["input_ids"]} for text in TEXTS]
    rendered = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    rows.append({"text": rendered, "ids": tokenizer(rendered, add_special_tokens=False)["input_ids"]})
    (OUT / "golden_ids.json").write_text(json.dumps({"vocab_size": len(tokenizer), "rows": rows}, indent=1) + "\n")


train()
golden()
