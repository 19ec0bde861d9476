"""Writes a tiny random model, documents of our own and expected.json: what lm_eval 0.4.13's HF backend says of them in float32.

    python crates/llm-foundry/tests/goldens/lm_eval/make.py

Needs `pip install lm_eval torch transformers sacrebleu`. The tokenizer is crates/formats/tests/fixtures/tiny_tokenizer.
"""
import json, os, random, shutil, tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
HERE = Path(__file__).resolve().parent
TOKENIZER = HERE.parents[3] / "formats/tests/fixtures/tiny_tokenizer"
import torch
from transformers import LlamaConfig, LlamaForCausalLM

RUNS = [
    {"name": "zero-shot", "tasks": ["capitals", "endings", "pages", "sums", "rhymes"]},
    {"name": "few-shot", "tasks": ["capitals", "sums"], "num_fewshot": 3},
    {"name": "system instruction", "tasks": ["capitals", "sums"], "num_fewshot": 1, "system_instruction": "Be brief."},
    {"name": "chat, one turn", "tasks": ["capitals", "endings", "sums"], "num_fewshot": 2, "chat": True, "multiturn": False},
    {"name": "chat, several turns", "tasks": ["capitals", "endings", "sums"], "num_fewshot": 2, "chat": True, "multiturn": True,
     "system_instruction": "You are a clerk."},
    {"name": "limit", "tasks": ["capitals", "sums"], "limit": 3},
]


def lines(name, rows):
    path = HERE / "data" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def data():
    rnd = random.Random(3)
    towns = "Arden Birkholm Cael Dorra Estu Falmer Gint Hollow".split()
    things = "bridge market harbour mill tower garden".split()
    def capital(i):
        choices = rnd.sample(things, 3 + i % 2)
        if i % 3 == 0: choices[1] += " made of grey stone"
        if i % 4 == 1: choices[0] = "\u00e9tang bleu"
        return {"town": rnd.choice(towns), "answer": rnd.choice(choices),
                "question": f"What is the {rnd.choice(['oldest', 'largest'])} place in {rnd.choice(towns)}? ", "choices": choices}
    lines("capitals_train.jsonl", [capital(i) for i in range(8)])
    lines("capitals_test.jsonl", [capital(i) for i in range(10)])
    lines("endings.jsonl", [{"text": f"They walked from the {a} to the {b} and then back to the {a}"} for a, b in zip(things, things[1:] + things[:1])])
    long = " ".join(f"In {rnd.choice(towns)} the {rnd.choice(things)} cost {rnd.randint(2, 99)} coins ." for _ in range(60))
    lines("pages.jsonl", [{"page": "A short page.\n"}, {"page": " \u65e5\u672c and caf\u00e9 :  two   words "}, {"page": long}])
    def sum_of():
        a, b = rnd.randint(1, 60), rnd.randint(1, 60)
        return {"question": f"What is {a} plus {b}?", "answer": str(a + b)}
    lines("sums_train.jsonl", [sum_of() for _ in range(6)])
    lines("sums_test.jsonl", [sum_of() for _ in range(8)])
    lines("rhymes.jsonl", [{"line": f"The {a} stood near the {b} and", "rhyme": f"the {b} stood near the {a}"} for a, b in zip(things, things[2:])])


def model():
    torch.manual_seed(11)
    vocab = len(json.loads((TOKENIZER / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])
    config = LlamaConfig(vocab_size=vocab, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
                         tie_word_embeddings=True, initializer_range=0.25,
                         bos_token_id=1, eos_token_id=2, pad_token_id=0)
    made = LlamaForCausalLM(config).to(torch.bfloat16)
    made.save_pretrained(HERE / "model")
    config = json.loads((HERE / "model/config.json").read_text())
    del config["transformers_version"]
    (HERE / "model/config.json").write_text(json.dumps(config, indent=2) + "\n")
    (HERE / "model/generation_config.json").unlink(missing_ok=True)


def plain(value):
    return value if isinstance(value, (int, float, str, bool, type(None))) else [plain(item) for item in value]


def run(lm, manager, asked):
    import lm_eval
    results = lm_eval.simple_evaluate(
        model=lm, tasks=asked["tasks"], num_fewshot=asked.get("num_fewshot"), limit=asked.get("limit"), task_manager=manager,
        log_samples=True, bootstrap_iters=0, apply_chat_template=asked.get("chat", False),
        fewshot_as_multiturn=asked.get("multiturn", False), system_instruction=asked.get("system_instruction"))
    samples = {}
    for task, all in results["samples"].items():
        samples[task] = [{
            "doc_id": one["doc_id"], "filter": one["filter"],
            "arguments": [plain(args if isinstance(args[-1], str) else args[:1]) for args in one["arguments"]],
            "answers": [plain(answer) for answer in one["filtered_resps"]],
            "hashes": [one["doc_hash"], one["prompt_hash"], one["target_hash"]],
        } for one in all]
    numbers = {task: {key: value for key, value in own.items() if isinstance(value, float) and "stderr" not in key}
               for task, own in results["results"].items()}
    return {**asked, "results": numbers, "samples": samples}


def main():
    data()
    model()
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    with tempfile.TemporaryDirectory() as room:
        os.environ["HF_DATASETS_CACHE"] = room + "/cache"
        shutil.copytree(HERE / "model", room + "/model")
        for name in ("tokenizer.json", "tokenizer_config.json"): shutil.copy(TOKENIZER / name, room + "/model")
        for name in ("tasks", "data"): shutil.copytree(HERE / name, f"{room}/{name}")
        os.chdir(room)
        manager = TaskManager(include_path="tasks", include_defaults=False)
        lm = HFLM(pretrained="model", dtype="float32", device="cpu", batch_size=1)
        runs = [run(lm, manager, asked) for asked in RUNS]
    (HERE / "expected.json").write_text(json.dumps(runs, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


main()
