#!/usr/bin/env python3
"""Does PyPI TensorBoard read the event files that llm-foundry writes?

    python interop/tensorboard_read.py RUN_DIR     # RUN_DIR is the output_dir of a run with report_to: tensorboard

Reads RUN_DIR/runs with TensorBoard's own reader and with its server, and compares both with RUN_DIR/metrics.jsonl.
Needs: pip install tensorboard.
"""

import glob
import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.parse
import urllib.request

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

NAMES = {
    "loss": "train/loss",
    "grad_norm": "train/grad_norm",
    "learning_rate": "train/learning_rate",
    "epoch": "train/epoch",
    "mean_token_accuracy": "train/mean_token_accuracy",
    "tokens_per_second": "train/tokens_per_second",
}
EVALUATED = {"eval_loss": "eval/loss", "eval_seconds": "eval/runtime"}


def f32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def expected(run_dir):
    """Name -> step -> value, as metrics.jsonl has it."""
    curves = {}
    with open(os.path.join(run_dir, "metrics.jsonl"), encoding="utf-8") as file:
        for line in map(json.loads, file):
            names = {None: NAMES, "eval": EVALUATED}.get(line.get("event"), {})
            for key, name in names.items():
                if line.get(key) is not None:
                    curves.setdefault(name, {})[line["step"]] = f32(line[key])
    return curves


def compare(curves, read, reader):
    for name, points in curves.items():
        assert read(name) == points, f"{reader}: {name}: {read(name)} != {points}"
    print(f"{reader}: {sum(map(len, curves.values()))} points of {len(curves)} curves are those of metrics.jsonl")


def served(folder, curves):
    """The curves as TensorBoard's server gives them to a browser."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--port", str(port), "--host", "127.0.0.1",
               "--samples_per_plugin", "scalars=100000"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        def get(path):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return json.load(answer)

        tags = {}
        for _ in range(120):
            time.sleep(0.5)
            try:
                tags = get("/data/plugin/scalars/tags")
            except OSError:
                continue
            if tags and all(name in next(iter(tags.values())) for name in curves):
                break
        run = next(iter(tags))

        def read(name):
            query = urllib.parse.urlencode({"run": run, "tag": name})
            return {step: f32(value) for _, step, value in get(f"/data/plugin/scalars/scalars?{query}")}

        compare(curves, read, "the server")
        texts = get("/data/plugin/text/tags")
        print(f"texts: {texts}")
    finally:
        server.terminate()
        server.wait()


def main():
    run_dir = sys.argv[1]
    folders = sorted(glob.glob(os.path.join(run_dir, "runs", "*")))
    assert len(folders) == 1, f"one folder of event files expected: {folders}"
    curves = expected(run_dir)
    assert curves, "metrics.jsonl has no line"
    accumulator = EventAccumulator(folders[0], size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    compare(curves, lambda name: {e.step: e.value for e in accumulator.Scalars(name)}, "EventAccumulator")
    files = [os.path.basename(path) for path in glob.glob(os.path.join(folders[0], "*"))]
    print(f"files: {files}; tags: {sorted(accumulator.Tags()['scalars'])}")
    served(os.path.join(run_dir, "runs"), curves)


if __name__ == "__main__":
    main()
