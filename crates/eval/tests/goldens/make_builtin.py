"""Writes builtin.json: what lm_eval 0.4.13 asks about documents of our own in each task that is built in.

    python crates/eval/tests/goldens/make_builtin.py

Needs `pip install lm_eval` (datasets comes with it; nltk, langdetect and immutabledict for ifeval). No model is asked.
"""
import json
import logging
from pathlib import Path

import datasets
from lm_eval.tasks import TaskManager

SEED = 1234


def arc(i):
    labels = ["A", "B", "C", "D"] if i != 1 else ["1", "2", "3"]
    texts = [f"answer {i} {label} with  spaces" for label in labels]
    return {"id": str(i), "question": f"Which of these, number {i}? ", "answerKey": labels[i % len(labels)],
            "choices": {"text": texts, "label": labels}}


def hellaswag(i):
    return {"ind": i, "activity_label": "Mending  nets", "ctx_a": f"The fisher [step] sits down {i} [title] .",
            "ctx_b": ["he mends", "every net", ""][i % 3], "label": str(i % 2), "split": "val",
            "ctx": "", "endings": [f"and [header] sleeps {i}.", f"  until dusk [substeps] {i}"]}


def gsm8k(i):
    return {"question": f"Ida has {i} eggs and buys {i + 2}. How many has she?",
            "answer": f"She has {i} + {i + 2} = <<{i}+{i + 2}={2 * i + 2}>>{2 * i + 2} eggs.\n#### {2 * i + 2}"}


def truthful(i):
    answers = [f"Nothing happens {i}", "You grow tall", "Nobody knows"]
    return {"question": f"What happens if you count to {i}?", "mc1_targets": {"choices": answers, "labels": [1, 0, 0]},
            "mc2_targets": {"choices": answers, "labels": [1, 0, 1]}}


PAGES = [" \n = Mill = \n \n The mill 's wheel , built in 1 @,@ 820 , was \" large \" . \n ",
         "\n = Bridge = \n It is 3 @.@ 5 m wide ( see map ) ; nobody < unk > crossed it . \n = = Name = = \n x @-@ y \n",
         "Plain text of one line"]
DOCUMENTS = {
    "arc_easy": arc,
    "arc_challenge": arc,
    "boolq": lambda i: {"passage": f"Mills grind corn {i}.", "question": f"do mills grind {i}", "idx": i,
                        "label": i % 2},
    "gsm8k": gsm8k,
    "gsm8k_cot": gsm8k,
    "hellaswag": hellaswag,
    "ifeval": lambda i: {"key": i, "prompt": f"Write about mills, {i}.\n",
                         "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"num_words": None}]},
    "lambada_openai": lambda i: {"text": f"Ida went to the mill number {i} and called the miller"},
    "piqa": lambda i: {"goal": f"To grind corn {i}", "sol1": "turn the wheel", "sol2": "stop  the wheel.",
                       "label": i % 2},
    "truthfulqa_mc1": truthful,
    "truthfulqa_mc2": truthful,
    "wikitext": lambda i: {"page": PAGES[i % len(PAGES)]},
    "winogrande": lambda i: {"sentence": f"Ida thanked Ola {i} because _ had helped.", "option1": "Ida",
                             "option2": "Ola", "answer": str(1 + i % 2)},
    "mmlu_anatomy": lambda i: {"question": f" Which bone is number {i}?\n", "subject": "anatomy",
                               "choices": ["skull", "rib ", "shin", "toe"], "answer": i % 4},
    "mmlu_us_foreign_policy": lambda i: {"question": f"Who said {i}?", "subject": "us_foreign_policy",
                                         "choices": ["Ida", "Ola", "Per", "Kim"], "answer": 3 - i % 4},
}
SPLITS = ["train", "validation", "test", "dev"]


def asked(manager, name, document, shots):
    rows = {split: [document(i + 3 * at) for i in range(3)] for at, split in enumerate(SPLITS)}
    datasets.load_dataset = lambda *args, **kwargs: datasets.DatasetDict(
        {split: datasets.Dataset.from_list(rows) for split, rows in rows.items()})
    task = manager.load([name])["tasks"][name]
    task.set_fewshot_seed(SEED)
    own = task.config.num_fewshot
    number = 0 if own == 0 else shots
    samples = []
    for index, doc in enumerate(task.eval_docs):
        context = task.fewshot_context(doc, number, gen_prefix=task.doc_to_prefix(doc))
        instances = task.construct_requests(doc, context, metadata=(name, index, 1))
        instances = instances if isinstance(instances, list) else [instances]
        arguments = [[arg for arg in instance.args if isinstance(arg, str)] for instance in instances]
        samples.append({"arguments": arguments, "target": str(task.doc_to_target(doc))})
    return {"task": name, "shots": shots, "documents": rows, "samples": samples}


def main():
    logging.disable(logging.CRITICAL)
    datasets.disable_progress_bars()
    manager = TaskManager()
    runs = [asked(manager, name, document, shots) for name, document in DOCUMENTS.items() for shots in (0, 2)]
    lines = ",\n".join(json.dumps(run, ensure_ascii=False) for run in runs)
    (Path(__file__).resolve().parent / "builtin.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


main()
