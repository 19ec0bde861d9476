"""Golden rows and batches by TRL's SFTTrainer for the small data files beside this script.

Usage: make_trl_goldens.py TOKENIZER_DIR [OUT]     (default: trl.json beside this file)

TOKENIZER_DIR is crates/formats/tests/fixtures/tiny_tokenizer. Needs Python with torch, transformers 5 and trl 1.16.
Each case has the prepared rows (tokens, sequence lengths, and a text of 0 and 1 for labels) and the batches of two
epochs as
indices of rows, read back from the trainer's own data loader.
"""
import json
import os
import sys
import tempfile

from datasets import Dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer

import rows

TAGGED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|im_end|>\n' }}{% endgeneration %}{% else %}{{ m['content'] + '<|im_end|>\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CASES = [
    dict(file="alpaca.json", max_length=64, packing=True, seed=0),
    dict(file="alpaca.json", max_length=96, packing=True, seed=1, batch=3),
    dict(file="alpaca.json", max_length=48, packing=True, packing_strategy="bfd_split", seed=42, shuffle_dataset=True),
    dict(file="alpaca.json", max_length=50, packing=True, packing_strategy="wrapped", seed=7, shuffle_dataset=True),
    dict(file="alpaca.json", max_length=24, seed=0, batch=4),
    dict(file="alpaca.json", max_length=40, seed=3, batch=4, shuffle_dataset=True, completion_only_loss=False),
    dict(file="chats.jsonl", max_length=128, seed=0, batch=2, assistant_only_loss=True, tagged=True),
    dict(file="chats.jsonl", max_length=100, packing=True, seed=5),
    dict(file="pairs.jsonl", max_length=64, packing=True, seed=0),
    dict(file="pairs.jsonl", max_length=60, seed=2, batch=5, completion_only_loss=False),
    dict(file="texts.jsonl", max_length=64, packing=True, packing_strategy="wrapped", seed=0, batch=2),
    dict(file="texts.jsonl", max_length=64, packing=True, packing_strategy="bfd_split", seed=9),
]


def read(here, name):
    with open(os.path.join(here, name), encoding="utf-8") as f:
        if not name.endswith(".json"):
            return [json.loads(line) for line in f]
        return [{"prompt": [{"role": "user", "content": r["instruction"] + ("\n" + r["input"] if r["input"] else "")}],
                 "completion": [{"role": "assistant", "content": r["output"]}]} for r in json.load(f)]


def sequences(batch):
    """The rows of a collated batch: (tokens, labels), padding taken away."""
    if "attention_mask" in batch:
        lens = batch["attention_mask"].sum(1).tolist()
        return [(t[:n], l[:n]) for t, l, n in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), lens)]
    return [(batch["input_ids"][0].tolist(), batch["labels"][0].tolist())]


def run(here, tokenizer_dir, case):
    case = dict(case)
    file, tagged = case.pop("file"), case.pop("tagged", False)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    if tagged:
        tokenizer.chat_template = TAGGED
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8,
                                         num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1))
    with tempfile.TemporaryDirectory() as out:
        args = SFTConfig(output_dir=out, per_device_train_batch_size=case.pop("batch", 1), use_cpu=True, bf16=False,
                         report_to=[], **case)
        rows = Dataset.from_list(read(here, file))
        trainer = SFTTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer)
        data = trainer.train_dataset
        kept = [c for c in ("input_ids", "labels", "seq_lengths") if c in data.column_names]
        prepared = [data[i] for i in range(len(data))]
        collated = [trainer.data_collator([{k: r[k] for k in kept}]) for r in prepared]
        result = []
        for row, single in zip(prepared, collated):
            (tokens, labels), = sequences(single)
            lens = row.get("seq_lengths") or [len(tokens)]
            starts = [sum(lens[:i]) for i in range(len(lens))]
            # The first label of a sequence is never used (the shift drops it); write it as ignored throughout.
            mask = "".join("0" if label == -100 or i in starts else "1" for i, label in enumerate(labels))
            assert all(label in (-100, token) for token, label in zip(tokens, labels))
            result.append({"tokens": tokens, "seq_lens": lens, "labels": mask})
        epochs = []
        loader = trainer.get_train_dataloader()
        for epoch in (0, 1):
            loader.set_epoch(epoch)
            epochs.append([indices(batch, result) for batch in loader])
    return {"rows": result, "epochs": epochs}


def indices(batch, rows):
    """Which rows a batch is made of, in order."""
    parts = sequences(batch)
    if "attention_mask" in batch:
        return [next(i for i, r in enumerate(rows) if r["tokens"] == tokens) for tokens, _ in parts]
    tokens, found = parts[0][0], []
    while tokens:
        hits = [i for i, r in enumerate(rows) if r["tokens"] == tokens[:len(r["tokens"])] and i not in found]
        found.append(max(hits, key=lambda i: len(rows[i]["tokens"])))
        tokens = tokens[len(rows[found[-1]]["tokens"]):]
    return found


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    rows.main()
    out = sys.argv[2] if len(sys.argv) > 2 else os.path.join(here, "trl.json")
    cases = [{"case": case, **run(here, sys.argv[1], case)} for case in CASES]
    with open(out, "w", encoding="utf-8") as f:
        f.write(json.dumps({"tagged_template": TAGGED, "cases": cases}, ensure_ascii=False).replace('{"tokens"', '\n{"tokens"')
                .replace('"epochs"', '\n"epochs"').replace('{"case"', '\n{"case"') + "\n")
    print(*((c["case"]["file"], len(c["rows"])) for c in cases))


main()
