#!/usr/bin/env python3
"""Does the committed JSON schema say of files what llm-foundry says?

    python interop/schema_check.py LLM_FOUNDRY       # the binary

Every file in configs/, and a few that use all that one may write (`${…}`, other names, empty sections), must satisfy
configs/schema.json and be read by the binary; what the binary writes must satisfy it too; and files with mistakes must
do neither. YAML is read as editors read it (version 1.2: `no` is a text, 1e-4 a number).
Needs: pip install jsonschema ruamel.yaml.
"""

import glob
import json
import os
import subprocess
import sys
import tempfile

import jsonschema
from ruamel.yaml import YAML

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BASE = "model: {name_or_path: m}\ndata: {train: a.jsonl}\noutput_dir: o\n"

GOOD = {
    "interpolations": "model: {name_or_path: m}\ndata: {train: a.jsonl, max_length: '${oc.env:LENGTH,256}', packing: '${oc.decode:true}'}\n"
                      "lora: {r: 8, lora_alpha: '${.r}', layers_to_transform: ['${lora.r}']}\n"
                      "training: {learning_rate: '${oc.select:nothing.here,2e-4}', optim: '${oc.env:OPTIM,adamw_8bit}', seed: '${lora.r}', "
                      "report_to: '${oc.env:TRACKER,none}'}\noutput_dir: runs/${training.seed}\n",
    "other names": "model: {name_or_path: m, dtype: bf16}\ndata: {train: [a.jsonl, b.jsonl], eval: c.jsonl}\n"
                   "training: {optim: paged_adamw_8bit, metric_for_best_model: eval_loss, eval_strategy: epoch, save_strategy: epoch, "
                   "load_best_model_at_end: true}\noutput_dir: o\n",
    "no": BASE + "training: {save_strategy: no, learning_rate: 1e-4}\n",
    "false for no": BASE + "training: {save_strategy: false}\n",
    "empty sections": BASE + "tokenizer:\ntraining:\neval:\ncard:\n",
    "nulls": "model: {name_or_path: m}\ndata: {train: a.jsonl, eval: null, max_length: null}\n"
             "training: {report_to: null, max_time: 90m, memory_budget: 50%, gradient_checkpointing: true}\noutput_dir: o\n",
    "a mixture": "model: {name_or_path: m}\ndata:\n  sources:\n    - {path: a.jsonl, weight: 2}\n    - {path: [b.jsonl], weight: '${data.sources.0.weight}'}\n"
                 "  chat_template_kwargs: {enable_thinking: false}\noutput_dir: o\n",
    "a preset": "preset: trl\n" + BASE + "lora: {target_modules: [q_proj, v_proj], init_lora_weights: pissa}\n",
}
BAD = {
    "unknown section": BASE + "trainig: {seed: 1}\n",
    "unknown key": BASE + "training: {sead: 1}\n",
    "text for a number": BASE + "training: {seed: many}\n",
    "number for a text": "model: {name_or_path: 7}\ndata: {train: a.jsonl}\noutput_dir: o\n",
    "unknown choice": BASE + "training: {optim: adamx}\n",
    "fraction for a whole number": BASE + "lora: {r: 1.5}\n",
    "negative": BASE + "training: {per_device_train_batch_size: -1}\n",
    "unknown tracker": BASE + "training: {report_to: [wandb, banana]}\n",
    "a list for a section": BASE + "lora: [8]\n",
    "a key of an item": BASE.replace("train: a.jsonl", "sources: [{path: a.jsonl, wight: 1}]"),
}


def main():
    binary = os.path.abspath(sys.argv[1])
    with open(os.path.join(ROOT, "configs", "schema.json"), encoding="utf-8") as file:
        schema = json.load(file)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    yaml = YAML(typ="safe", pure=True)

    def problems(text):
        return [f"{'.'.join(map(str, e.absolute_path))}: {e.message[:100]}" for e in validator.iter_errors(yaml.load(text))]

    def read(path):
        return subprocess.run([binary, "plan", path, "--print-config"], capture_output=True, text=True)

    files = sorted(glob.glob(os.path.join(ROOT, "configs", "**", "*.yaml"), recursive=True))
    assert files, "no file in configs/"
    with tempfile.TemporaryDirectory() as folder:
        cases = {path: open(path, encoding="utf-8").read() for path in files}
        cases.update({name: text for name, text in GOOD.items()})
        for name, text in cases.items():
            path = os.path.join(folder, "case.yaml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            said = read(name if name in files else path)
            assert said.returncode == 0, f"{name}: the binary says {said.stderr}"
            assert not problems(text), f"{name}: the schema says {problems(text)}"
            assert not problems(said.stdout), f"{name}, written back: the schema says {problems(said.stdout)}"
        for name, text in BAD.items():
            path = os.path.join(folder, "case.yaml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            assert read(path).returncode == 2, f"{name}: the binary finds nothing wrong"
            assert problems(text), f"{name}: the schema finds nothing wrong"
    print(f"{len(files)} files of configs/ and {len(GOOD)} others are right for both, {len(BAD)} are wrong for both")


if __name__ == "__main__":
    main()
