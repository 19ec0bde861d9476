"""Mixtures of streams by datasets: run by hand, writes interleave.json next to this file."""
import json
from pathlib import Path

import datasets
from datasets import IterableDataset, interleave_datasets


def stream(name, count):
    def rows():
        for i in range(count):
            yield {"text": f"{name}{i}"}

    return IterableDataset.from_generator(rows)


golden = {"datasets": datasets.__version__}
for strategy in ("first_exhausted", "all_exhausted", "all_exhausted_without_replacement"):
    golden[strategy] = {}
    for seed in (0, 7, 42):
        sources = [stream("a", 6), stream("b", 3), stream("c", 4)]
        mixed = interleave_datasets(
            sources, probabilities=[0.5, 0.3, 0.2], seed=seed, stopping_strategy=strategy
        )
        golden[strategy][str(seed)] = [row["text"] for row in mixed]
Path(__file__).with_name("interleave.json").write_text(json.dumps(golden, indent=1) + "\n")
