#!/usr/bin/env python3
"""Does an MLflow server take what llm-foundry tells it?

    python interop/mlflow_read.py LLM_FOUNDRY CONFIG [OVERRIDE…]     # LLM_FOUNDRY is the binary, CONFIG a short run

Starts PyPI's `mlflow server` on loopback, trains CONFIG with `report_to: [mlflow]` into a temporary directory, and
compares what MLflow's own client reads back with metrics.jsonl, number for number. Then the same for a run that is
killed and resumed, and for one whose server comes up only after it was killed: each must be one run. (CONFIG needs
six steps at least; the number of steps is set here.)
Needs: pip install mlflow.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from mlflow.tracking import MlflowClient

NAMES = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "epoch": "epoch",
    "mean_token_accuracy": "mean_token_accuracy",
    "tokens_per_second": "tokens_per_second",
}
EVALUATED = {"eval_loss": "eval_loss", "eval_seconds": "eval_runtime"}
STEPS = 6


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Server:
    """`mlflow server` with a database in `folder`."""

    def __init__(self, folder, port):
        self.address = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
                   "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/files"]
        self.log = open(os.path.join(folder, "server.log"), "ab")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, start_new_session=True)
        for _ in range(240):
            time.sleep(0.5)
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=2).read()
                return
            except OSError:
                assert self.process.poll() is None, f"the server ended: see {self.log.name}"
        raise AssertionError("the server does not answer")

    def stop(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait()
        self.log.close()


def train(binary, config, overrides, run_dir, address, name, crash=None, resume=False):
    """Trains; returns the exit code and what was said."""
    command = [binary, "train", config, *overrides, "training.report_to=[mlflow]", f"training.project={name}",
               f"training.max_steps={STEPS}", "training.save_steps=2", "training.logging_steps=1", f"output_dir={run_dir}"]
    if resume:
        command.append("--resume")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment["MLFLOW_TRACKING_URI"] = address
    if crash:
        environment["FOUNDRY_CRASH_AT"] = crash
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr


def expected(run_dir, since=0):
    """Name -> step -> value, as metrics.jsonl has it, of steps after `since`."""
    curves = {}
    with open(os.path.join(run_dir, "metrics.jsonl"), encoding="utf-8") as file:
        for line in map(json.loads, file):
            names = {None: NAMES, "eval": EVALUATED}.get(line.get("event"), {})
            for key, name in names.items():
                if line.get(key) is not None and line["step"] > since:
                    curves.setdefault(name, {})[line["step"]] = line[key]
    return curves


def read_back(client, name, run_dir, since=0):
    """The only run of the experiment, compared with metrics.jsonl."""
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None, f"no experiment {name}"
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 1, f"{name}: {len(runs)} runs instead of one"
    run = runs[0]
    assert run.info.status == "FINISHED", run.info.status
    # As a resumed run looks for it, if it knows no more.
    mark = run.data.tags["llm-foundry.run"]
    marked = client.search_runs([experiment.experiment_id], f"tags.`llm-foundry.run` = '{mark}'")
    assert [other.info.run_id for other in marked] == [run.info.run_id], "the run is not found by its tag"
    curves = expected(run_dir, since)
    assert curves and all(curves.values()), "metrics.jsonl has no line"
    for key, points in curves.items():
        # A step that was taken again has several values: the last one counts.
        history = sorted(client.get_metric_history(run.info.run_id, key), key=lambda m: m.timestamp)
        read = {m.step: m.value for m in history if m.step > since}
        assert read == points, f"{name}: {key}: {read} != {points}"
    print(f"{name}: {sum(map(len, curves.values()))} values of {len(curves)} metrics are those of metrics.jsonl; "
          f"{len(run.data.params)} settings, tags {sorted(t for t in run.data.tags if t.startswith('llm-foundry'))}")
    return run


def main():
    binary, config, overrides = os.path.abspath(sys.argv[1]), sys.argv[2], sys.argv[3:]
    with tempfile.TemporaryDirectory() as folder:
        def run_dir(name):
            return os.path.join(folder, name)

        port = free_port()
        address = f"http://127.0.0.1:{port}"
        # Killed while no server is there: the checkpoint does not know the run's identity.
        train(binary, config, overrides, run_dir("late"), address, "late", crash="step.4")
        server = Server(folder, port)
        try:
            client = MlflowClient(address)
            code, said = train(binary, config, overrides, run_dir("whole"), address, "whole")
            assert code == 0, said
            assert "MLflow: http" in said and "refused" not in said, said
            run = read_back(client, "whole", run_dir("whole"))
            for key in ["learning_rate", "max_steps", "model/num_parameters"]:
                assert key in run.data.params, f"no setting {key} in {sorted(run.data.params)}"

            code, said = train(binary, config, overrides, run_dir("resumed"), address, "resumed", crash="step.5")
            assert code != 0, "the run was to be killed"
            code, said = train(binary, config, overrides, run_dir("resumed"), address, "resumed", resume=True)
            assert code == 0, said
            read_back(client, "resumed", run_dir("resumed"), since=4)

            code, said = train(binary, config, overrides, run_dir("late"), address, "late", resume=True)
            assert code == 0, said
            read_back(client, "late", run_dir("late"), since=2)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
