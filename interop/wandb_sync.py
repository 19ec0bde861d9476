#!/usr/bin/env python3
"""Does PyPI wandb take the run directories that llm-foundry writes?

    python interop/wandb_sync.py RUN_DIR        # RUN_DIR is the output_dir of a run with report_to: wandb
    python interop/wandb_sync.py --train LLM_FOUNDRY CONFIG [OVERRIDE…]      # LLM_FOUNDRY is the binary

Starts a server on loopback that answers as Weights & Biases does, lets `wandb sync` upload every run directory below
RUN_DIR/wandb to it, and compares what arrived with RUN_DIR/metrics.jsonl, number for number. With --train it trains
CONFIG (a few steps) into a temporary directory: once with `wandb sync` in the middle, after which the sync at the end
must bring the rest; and once online, where the same must arrive without `wandb sync`. Nothing leaves the machine.
Needs: pip install wandb.
"""

import glob
import gzip
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict

# Name in metrics.jsonl -> name in Weights & Biases.
LOGGED = {
    "loss": "train/loss",
    "grad_norm": "train/grad_norm",
    "learning_rate": "train/learning_rate",
    "epoch": "train/epoch",
    "tokens": "train/num_input_tokens_seen",
    "mean_token_accuracy": "train/mean_token_accuracy",
    "entropy": "train/entropy",
    "tokens_per_second": "train/tokens_per_second",
}
EVALUATED = {
    "eval_loss": "eval/loss",
    "eval_seconds": "eval/runtime",
    "eval_mean_token_accuracy": "eval/mean_token_accuracy",
}


class Store:
    """What a server was told."""

    def __init__(self):
        self.lock = threading.Lock()
        self.lines = defaultdict(dict)  # file of the stream -> line number -> text
        self.files = {}  # uploaded files
        self.config = None
        self.run = {}
        self.exit_code = None
        self.operations = []


class Server(http.server.ThreadingHTTPServer):
    """Says nothing about connections that the client drops at its end."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def handler(store, port):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def body(self):
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

        def answer(self, value):
            text = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self):
            self.answer({})

        def do_PUT(self):
            data = self.body()
            with store.lock:
                store.files[self.path.removeprefix("/upload/")] = data
            self.answer({})

        def do_POST(self):
            request = json.loads(self.body() or b"{}")
            if self.path == "/graphql":
                with store.lock:
                    self.answer({"data": graphql(store, request, port)})
                return
            with store.lock:
                for name, part in (request.get("files") or {}).items():
                    for index, line in enumerate(part["content"]):
                        store.lines[name][part["offset"] + index] = line
                if request.get("complete") is not None and "exitcode" in request:
                    store.exit_code = request["exitcode"]
            self.answer({"limits": {}, "stop": False})

    return Handler


def graphql(store, request, port):
    """Answers to every question that the client asks while it uploads a run."""
    variables = request.get("variables") or {}
    operation = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
    store.operations.append(operation.group(1) if operation else "?")
    if variables.get("config"):
        store.config = json.loads(variables["config"])
    for key in ("name", "project", "displayName", "groupName", "tags"):
        if variables.get(key):
            store.run[key] = variables[key]
    name = store.run.get("name", "run")
    project = {"id": "UHJvajox", "name": store.run.get("project", "p"), "entity": {"id": "RW50OjE=", "name": "me"}}
    bucket = {
        "id": "UnVuOjE=", "name": name, "displayName": store.run.get("displayName", name), "description": "",
        "config": "{}", "sweepName": None, "historyLineCount": 0, "project": project,
    }
    wanted = variables.get("files") or []
    uploads = [
        {"name": file, "uploadUrl": f"http://127.0.0.1:{port}/upload/{file}"}
        for file in (entry if isinstance(entry, str) else entry.get("name") for entry in wanted)
    ]
    return {
        "viewer": {"id": "1", "username": "me", "email": "me@localhost", "admin": False, "flags": "{}", "entity": "me",
                   "teams": {"edges": []}, "apiKeys": {"edges": []}},
        "serverInfo": {"cliVersionInfo": {"max_cli_version": "99.0.0"}, "latestLocalVersionInfo": None, "features": [],
                       "exposesExplicitRunIdsInputs": None},
        "upsertBucket": {"bucket": bucket, "inserted": True},
        "model": {"bucket": None},
        "project": {"run": None},
        "createRunFiles": {"runID": name, "uploadHeaders": [], "files": uploads},
        "entity": {"name": "me"},
        "QueryType": {"fields": []}, "MutationType": {"fields": []}, "UpsertBucketInput": {"inputFields": []},
        "TypeInfo": {"fields": []}, "ServerInfoType": {"fields": []},
    }


def serve():
    """A server that knows nothing yet, and what it will be told."""
    store = Store()
    server = Server(("127.0.0.1", 0), lambda *args: handler(store, server.server_port)(*args))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return store, server


def reach(server, home):
    """The environment in which a client talks to the server."""
    return {
        "PATH": os.environ["PATH"], "HOME": home, "WANDB_API_KEY": "0" * 40,
        "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}", "WANDB_ERROR_REPORTING": "false",
    }


def sync(directory, server, is_copied):
    """Lets PyPI's client upload a run directory, or a copy: it marks what it has uploaded."""
    with tempfile.TemporaryDirectory() as home:
        if is_copied:
            copy = os.path.join(home, os.path.basename(directory))
            shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("*.synced"))
            directory = copy
        command = [sys.executable, "-m", "wandb", "sync", os.path.abspath(directory)]
        # In a directory of its own: the client leaves a log where it is started.
        done = subprocess.run(
            command, env=reach(server, home), cwd=home, capture_output=True, text=True, timeout=300
        )
        print(done.stdout[-2000:] + done.stderr[-2000:])
        assert done.returncode == 0, f"wandb sync ended with {done.returncode}"


def directories_of(run_dir):
    directories = sorted(glob.glob(os.path.join(run_dir, "wandb", "*run-*")))
    assert directories, f"no run directory below {run_dir}/wandb"
    return directories


def trained(binary, config, overrides):
    """A run that is uploaded in its middle and at its end, and one that is online."""
    with tempfile.TemporaryDirectory() as folder:
        def command(name, *more):
            return [os.path.abspath(binary), "train", config, *overrides, "training.report_to=[wandb]",
                    "training.logging_steps=1", f"output_dir={folder}/{name}", *more]

        run_dir = os.path.join(folder, "middle")
        run = subprocess.Popen(command("middle", "training.max_steps=100000"), stderr=subprocess.DEVNULL)
        metrics = os.path.join(run_dir, "metrics.jsonl")
        while not os.path.exists(metrics) or open(metrics, encoding="utf-8").read().count("\n") < 3:
            assert run.poll() is None, "the run ended too early"
            time.sleep(0.05)
        directory = directories_of(run_dir)[0]
        sync(directory, serve()[1], is_copied=False)
        assert glob.glob(os.path.join(directory, "*.synced")), "the client does not mark what it has uploaded any more"
        run.send_signal(signal.SIGINT)
        assert run.wait() == 130, run.returncode
        store, server = serve()
        sync(directory, server, is_copied=False)
        with store.lock:
            compare(store, run_dir)

        store, server = serve()
        done = subprocess.run(command("online"), env=reach(server, folder), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f"Weights & Biases: http://127.0.0.1:{server.server_port}" in done.stderr, done.stderr
        with store.lock:
            compare(store, os.path.join(folder, "online"))


def main():
    if sys.argv[1] == "--train":
        trained(sys.argv[2], sys.argv[3], sys.argv[4:])
        return
    run_dir = sys.argv[1]
    store, server = serve()
    for directory in directories_of(run_dir):
        sync(directory, server, is_copied=True)
    with store.lock:
        compare(store, run_dir)


def rows_of(store, file):
    return [json.loads(line) for _, line in sorted(store.lines.get(file, {}).items())]


def compare(store, run_dir):
    history = rows_of(store, "wandb-history.jsonl")
    assert history, f"no history arrived; operations: {store.operations}"
    with open(os.path.join(run_dir, "metrics.jsonl"), encoding="utf-8") as file:
        metrics = [json.loads(line) for line in file]
    checked = 0
    for event, names in [(None, LOGGED), ("eval", EVALUATED)]:
        for line in (line for line in metrics if line.get("event") == event):
            key = "eval/loss" if event else "train/loss"
            rows = [row for row in history if row.get("train/global_step") == line["step"] and key in row]
            assert len(rows) == 1, f"step {line['step']} arrived {len(rows)} times"
            for name, arrived in names.items():
                if line.get(name) is None:
                    continue
                assert rows[0][arrived] == line[name], f"{arrived} at step {line['step']}: {rows[0][arrived]} != {line[name]}"
                checked += 1
    steps = [row["_step"] for row in history]
    assert steps == list(range(len(steps))), f"_step: {steps}"
    events = rows_of(store, "wandb-events.jsonl")
    console = sorted(store.lines.get("output.log", {}).items())
    summary = rows_of(store, "wandb-summary.json")
    last = [line for line in metrics if line.get("event") == "run_end"]
    if last:
        assert summary[-1]["train_loss"] == last[-1]["train_loss"], summary[-1]
    config = {key: value.get("value") if isinstance(value, dict) else value for key, value in (store.config or {}).items()}
    for key in ("learning_rate", "hidden_size", "model/num_parameters"):
        assert key in config, f"config lacks {key}: {sorted(config)}"
    print(f"{checked} numbers in {len(history)} rows arrived and are those of metrics.jsonl")
    print(f"run {store.run}, {len(config)} keys of configuration, {len(summary[-1]) if summary else 0} figures of summary")
    print(f"{len(events)} lines of system metrics, {len(console)} lines of console, exit code {store.exit_code}")
    print(f"files: {sorted(store.files)}")


if __name__ == "__main__":
    main()
