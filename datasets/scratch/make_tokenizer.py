"""Makes the tokenizer of the model that is pre-trained on the spot, from the texts of this repository.

    python datasets/scratch/make_tokenizer.py

Needs the PyPI package tokenizers (0.23.3 was used). Byte-level BPE of 2,048 tokens, so that any text can be encoded;
ChatML's two markers are tokens of their own, and `<|im_end|>` ends a turn and a document alike.
"""
import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).parent
OUT = HERE / "model"
VOCABULARY = 2048
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}"
    "{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def texts():
    """Every text that the small model will see."""
    for line in open(HERE / "corpus.jsonl", encoding="utf-8"):
        yield json.loads(line)["text"]
    for line in open(HERE.parent / "quickstart" / "train.jsonl", encoding="utf-8"):
        for message in json.loads(line)["messages"]:
            yield message["role"] + "\n" + message["content"] + "\n"


def main():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    OUT.mkdir(exist_ok=True)
    tokenizer.save(str(OUT / "tokenizer.json"))
    config = {
        "eos_token": "<|im_end|>",
        "model_max_length": 512,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<|endoftext|>",
    }
    (OUT / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (OUT / "chat_template.jinja").write_text(TEMPLATE + "\n")
    print(f"{tokenizer.get_vocab_size()} tokens in {OUT.relative_to(HERE.parent.parent)}")


if __name__ == "__main__":
    main()
