"""From a file to packed rows with masks: TRL + datasets and llm-foundry in turn, in seconds of one core.

    python interop/trl_data_speed.py --model MODEL_DIR --data alpaca_en_demo.json --binary target/release/llm-foundry
        [--copies 20] [--len 1024] [--rounds 3]

The file's rows are taken `--copies` times, so that what is measured is not the start. Ours is `data report` with one
thread (which also looks for duplicates), less the same on one row; TRL's is `SFTTrainer._prepare_dataset` alone, with
one process. Both are user + system time. Says whether the rows are the same, and prints one line `RESULT {json}`.
"""
import argparse
import json
import os
import resource
import subprocess
import tempfile
import time

ap = argparse.ArgumentParser()
ap.add_argument("--model", required=True)
ap.add_argument("--data", required=True)
ap.add_argument("--binary", required=True)
ap.add_argument("--copies", type=int, default=20)
ap.add_argument("--len", type=int, default=1024)
ap.add_argument("--rounds", type=int, default=3)
a = ap.parse_args()
os.environ["HF_HUB_OFFLINE"] = "1"

from datasets import Dataset  # noqa: E402
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402

ROOM = tempfile.TemporaryDirectory()
rows = json.load(open(a.data))
# A number in each row: datasets and tokenizers must not profit from equal texts.
many = [dict(row, instruction=f"{copy} {row['instruction']}") for copy in range(a.copies) for row in rows]


def cpu(who):
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def ours(path):
    """Core-seconds and the report."""
    config = os.path.join(ROOM.name, "config.yaml")
    with open(config, "w") as f:
        json.dump({"model": {"name_or_path": os.path.abspath(a.model)}, "output_dir": "unused",
                   "data": {"train": path, "max_length": a.len, "packing": True, "streaming": False}}, f)
    before = cpu(resource.RUSAGE_CHILDREN)
    out = subprocess.run([a.binary, "data", "report", config, "--json", "--threads", "1"], check=True, capture_output=True)
    return cpu(resource.RUSAGE_CHILDREN) - before, json.loads(out.stdout)["train"]


class Timed(SFTTrainer):
    """Measures the preparation of the data set, which the constructor begins."""
    used = wall = 0.0

    def _prepare_dataset(self, *args, **kwargs):
        start, began = cpu(resource.RUSAGE_SELF), time.perf_counter()
        prepared = super()._prepare_dataset(*args, **kwargs)
        Timed.used, Timed.wall = cpu(resource.RUSAGE_SELF) - start, time.perf_counter() - began
        return prepared


tokenizer = AutoTokenizer.from_pretrained(a.model)
shape = LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                    num_attention_heads=2)


def theirs():
    """Core-seconds, seconds and the packed data set."""
    data = Dataset.from_list([
        {"prompt": [{"role": "user", "content": r["instruction"] + ("\n" + r["input"] if r["input"] else "")}],
         "completion": [{"role": "assistant", "content": r["output"]}]} for r in many])
    args = SFTConfig(output_dir=ROOM.name, max_length=a.len, packing=True, use_cpu=True, bf16=False, report_to=[], save_strategy="no")
    trainer = Timed(model=LlamaForCausalLM(shape), args=args, train_dataset=data, processing_class=tokenizer)
    return Timed.used, Timed.wall, trainer.train_dataset


whole, one = os.path.join(ROOM.name, "many.json"), os.path.join(ROOM.name, "one.json")
json.dump(many, open(whole, "w"))
json.dump(many[:1], open(one, "w"))
own, peer = [], []
for _ in range(a.rounds):
    start, _ = ours(one)
    used, report = ours(whole)
    own.append(used - start)
    used, wall, packed = theirs()
    peer.append(used)
    print(f"ours {own[-1]:.2f} core-seconds (start {start:.2f}), TRL {used:.2f} ({wall:.2f} s)", flush=True)
lengths = [len(row) for row in packed["input_ids"]]
same = (len(lengths), sum(lengths)) == (report["rows"], report["tokens"])
own, peer = sorted(own)[len(own) // 2], sorted(peer)[len(peer) // 2]
print("RESULT", json.dumps({
    "rows": len(many), "tokens": report["tokens"], "same_rows": same, "ours_core_seconds": round(own, 3),
    "trl_core_seconds": round(peer, 3), "ratio": round(peer / own, 1), "ours_rows_per_core_second": round(len(many) / own),
    "trl_rows_per_core_second": round(len(many) / peer)}))
