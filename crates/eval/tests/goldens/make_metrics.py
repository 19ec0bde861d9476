"""Writes metrics.json: lm_eval 0.4.13's aggregations of values made at random, with their standard errors.

    python crates/eval/tests/goldens/make_metrics.py

Needs `pip install lm_eval scikit-learn sacrebleu`.
"""
import json
import random
from pathlib import Path

from lm_eval.api import metrics
from lm_eval.api.registry import get_aggregation

WORDS = "the river, Stone under old mill and a bridge. Œuvre 1,000 well-known".split()


def main():
    rnd = random.Random(9)
    text = lambda: " ".join(rnd.choice(WORDS) for _ in range(rnd.randint(3, 12)))
    def near(reference):
        words = reference.split()
        words[rnd.randrange(len(words))] = rnd.choice(WORDS)
        return " ".join(words)
    def shares():
        parts = [rnd.random() for _ in range(4)]
        return [part / sum(parts) for part in parts]
    references = [text() for _ in range(12)]
    items = {
        "f1": [[rnd.randint(0, 1), rnd.randint(0, 1)] for _ in range(30)],
        "matthews_corrcoef": [[rnd.randint(0, 3), rnd.randint(0, 3)] for _ in range(30)],
        "brier_score": [[rnd.randint(0, 3), shares()] for _ in range(20)],
        "bleu": [[reference, near(reference)] for reference in references],
        "chrf": [[reference, near(reference)] for reference in references],
        "chrf++": [[reference, near(reference)] for reference in references],
        "ter": [[reference, near(reference)] for reference in references],
    }
    golden = {}
    for name, values in items.items():
        function = get_aggregation(name)
        stderr = metrics.stderr_for_metric(function, 100)
        error = float(stderr(values)) if stderr else None
        golden[name] = {"items": values, "value": float(function(values)), "stderr": error}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(one, ensure_ascii=False)}" for name, one in golden.items())
    (Path(__file__).resolve().parent / "metrics.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
