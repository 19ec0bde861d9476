"""Our evaluations against lm_eval's (HF backend), task by task, document by document.

    python interop/lm_eval_equality.py --binary target/release/llm-foundry --model MODEL_DIR --work DIR
        [--mmlu DIR] [--gsm8k-test FILE --gsm8k-train FILE] [--subjects 6] [--mmlu-limit 40] [--zero-shot-limit 10]
        [--gsm8k-limit 40] [--dtype float32] [--only own,own3,chat,system,ifeval,zero,five,gsm8k,cot]

Needs `pip install lm_eval torch transformers`; `ifeval` also langdetect, immutabledict, nltk and its punkt_tab.
MMLU: the original directory with dev/ and test/; GSM8K: the two
JSONL files. Sets in the style of ARC, WikiText, HellaSwag and others are made here, of words of our own. Both programs
get the same data; lm_eval's own task files are used with nothing changed but where the data is. What must hold, else
exit code 1: the same values to the last digit for acc, acc_norm and exact_match, prompts and continuations byte for
byte, log-likelihoods within 1e-3, perplexities within 1e-5 of their size. Speed of both is printed: documents of each
task over the time of the task.
"""
import argparse, csv, glob, hashlib, json, os, random, subprocess, sys, time
from pathlib import Path

ap = argparse.ArgumentParser()
ap.add_argument("--binary", required=True); ap.add_argument("--model", required=True); ap.add_argument("--work", required=True)
ap.add_argument("--mmlu"); ap.add_argument("--gsm8k-test"); ap.add_argument("--gsm8k-train")
ap.add_argument("--subjects", type=int, default=6); ap.add_argument("--mmlu-limit", type=int, default=40)
ap.add_argument("--zero-shot-limit", type=int, default=10); ap.add_argument("--gsm8k-limit", type=int, default=40)
ap.add_argument("--dtype", default="float32"); ap.add_argument("--batch-size", type=int, default=8)
ap.add_argument("--own-limit", type=int, default=0); ap.add_argument("--cot-limit", type=int, default=8); ap.add_argument("--only", default="")
a = ap.parse_args()
work = Path(a.work).resolve(); data = work / "data"; tasks = work / "tasks"
for folder in (data, tasks): folder.mkdir(parents=True, exist_ok=True)
os.environ.setdefault("HF_HUB_OFFLINE", "1"); os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_DATASETS_CACHE", str(work / "datasets_cache"))
import lm_eval
from lm_eval.tasks import TaskManager
THEIRS = Path(lm_eval.__file__).parent / "tasks"


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def task(name, include, files, more=""):
    """lm_eval's task with local data."""
    listed = "".join(f"    {split}: {path}\n" for split, path in files.items())
    text = f"include: {THEIRS / include}\ntask: {name}\ndataset_path: json\ndataset_name: null\ndataset_kwargs:\n  data_files:\n{listed}{more}"
    (tasks / f"{name}.yaml").write_text(text, encoding="utf-8")


def mmlu():
    names = sorted(Path(p).name[:-len("_test.csv")] for p in glob.glob(f"{a.mmlu}/test/*_test.csv"))
    for subject in names:
        files = {}
        for split in ("dev", "test"):
            rows = []
            for row in csv.reader(open(f"{a.mmlu}/{split}/{subject}_{split}.csv", encoding="utf-8", newline="")):
                if row[0] == "question" and row[5] == "answer": continue
                rows.append({"question": row[0], "subject": subject, "choices": row[1:5], "answer": ("ABCD".find(row[5].strip()) if row[5].strip() in "ABCD" else int(row[5]))})
            files[split] = lines(data / "mmlu" / split / f"{subject}_{split}.jsonl", rows)
        words = subject.replace("_", " ")
        more = f'description: "The following are multiple choice questions (with answers) about {words}.\\n\\n"\n'
        task(f"mmlu_{subject}", "mmlu/default/_default_template_yaml", files, more)
    return names


THINGS = "river lamp stone cloud garden bridge window engine basket mountain".split()
PLACES = "the valley,the harbour,a small town,the old mill,the north,the kitchen".split(",")


def own_sets():
    rnd = random.Random(7)
    arc = []
    for i in range(60):
        n = 4 if i % 7 else 3
        words = rnd.sample(THINGS, n); label = "ABCD"[:n] if i % 5 else "1234"[:n]
        arc.append({"id": f"own_{i}", "question": f"Which of these would you most likely find near {rnd.choice(PLACES)} when it is {rnd.randint(1, 30)} degrees?",
                    "choices": {"text": [f"a {w}" + (" made of glass" if j == 1 else "") for j, w in enumerate(words)], "label": list(label)},
                    "answerKey": label[rnd.randrange(n)]})
    files = {split: lines(data / "arc_easy" / f"{split}.jsonl", arc[start:end]) for split, start, end in (("train", 0, 20), ("validation", 20, 30), ("test", 30, 60))}
    task("arc_easy", "arc/arc_easy.yaml", files)
    pages = []
    for i in range(6):
        body = " \n ".join(f"The {rnd.choice(THINGS)} of {rnd.choice(PLACES)} had {rnd.randint(1, 9)} @,@ {rnd.randint(100, 999)} visitors ( mostly well @-@ known people ) ; \" {rnd.choice(THINGS)} \" was their word . They 's said : it is {rnd.randint(1, 9)} @.@ {rnd.randint(1, 9)} km away ." for _ in range(6 + 3 * i))
        pages.append({"page": f" = The {rnd.choice(THINGS)} = \n\n {body} \n = = Notes = = \n {rnd.choice(PLACES)} \u00b0 é 日本 . \n"})
    task("wikitext", "wikitext/wikitext.yaml", {s: lines(data / "wikitext" / f"{s}.jsonl", pages) for s in ("train", "validation", "test")})
    swag = []
    for i in range(40):
        swag.append({"ind": i, "activity_label": "Building a " + rnd.choice(THINGS), "ctx_a": f"A man stands near {rnd.choice(PLACES)}. [header] He looks [title] around.",
                     "ctx_b": rnd.choice(["then he", "THE woman"]), "ctx": "", "endings": [f"puts the {w} down [step] and  leaves." for w in rnd.sample(THINGS, 4)],
                     "source_id": "own", "split": "val", "split_type": "own", "label": str(rnd.randrange(4))})
    task("hellaswag", "hellaswag/hellaswag.yaml", {"train": lines(data / "hellaswag" / "train.jsonl", swag[20:]), "validation": lines(data / "hellaswag" / "validation.jsonl", swag[:20])})
    grande = []
    for i in range(40):
        one, two = rnd.sample(THINGS, 2)
        grande.append({"sentence": f"The {one} did not fit next to the {two} because the _ was far too big for {rnd.choice(PLACES)}.", "option1": one, "option2": two, "answer": str(rnd.randint(1, 2))})
    task("winogrande", "winogrande/default.yaml", {"train": lines(data / "winogrande" / "train.jsonl", grande[20:]), "validation": lines(data / "winogrande" / "validation.jsonl", grande[:20])})
    truth = []
    for i in range(12):
        words = rnd.sample(THINGS, 5)
        truth.append({"question": f"What is the {words[0]} made of?", "mc1_targets": {"choices": [f"It is a {w}." for w in words[:4]], "labels": [1, 0, 0, 0]},
                      "mc2_targets": {"choices": [f"It is a {w}." for w in words], "labels": [1, 1, 0, 0, 0]}})
    for name in ("truthfulqa_mc1", "truthfulqa_mc2"):
        task(name, f"truthfulqa/{name}.yaml", {"validation": lines(data / name / "validation.jsonl", truth)})
    wishes = [("punctuation:no_comma", {}, "Do not use commas."), ("length_constraints:number_sentences", {"num_sentences": 4, "relation": "less than"}, "Use fewer than 4 sentences."),
              ("change_case:english_lowercase", {}, "Write in small letters only."), ("keywords:existence", {"keywords": ["river"]}, "Use the word river."),
              ("length_constraints:number_words", {"num_words": 30, "relation": "at least"}, "Use at least 30 words."), ("startend:quotation", {}, "Put your answer in double quotes."),
              ("detectable_format:title", {}, "Give a title in double angular brackets."), ("language:response_language", {"language": "en"}, "Answer in English.")]
    asked = []
    for i in range(12):
        own = rnd.sample(wishes, 2)
        asked.append({"key": i, "prompt": f"Tell me about the {THINGS[i % len(THINGS)]}. " + " ".join(text for _, _, text in own),
                      "instruction_id_list": [name for name, _, _ in own], "kwargs": [kwargs for _, kwargs, _ in own]})
    task("ifeval", "ifeval/ifeval.yaml", {"train": lines(data / "ifeval" / "train.jsonl", asked)})
    passages = [{"text": f"We walked to {rnd.choice(PLACES)} and saw the {w}. It was a fine {w}, and everybody liked the {w}"} for w in THINGS * 2]
    task("lambada_openai", "lambada/lambada_openai.yaml", {"test": lines(data / "lambada_openai" / "test.jsonl", passages)})


def gsm8k():
    files = {}
    for split, path in (("train", a.gsm8k_train), ("test", a.gsm8k_test)):
        rows = [json.loads(line) for line in open(path, encoding="utf-8")]
        files[split] = lines(data / "gsm8k" / f"{split}.jsonl", [{"question": r["question"], "answer": r["answer"]} for r in rows])
    task("gsm8k", "gsm8k/gsm8k.yaml", files); task("gsm8k_cot", "gsm8k/gsm8k-cot.yaml", files)


def run_theirs(lm, manager, names, shots, limit, chat, system, generation):
    start = time.perf_counter()
    results = lm_eval.simple_evaluate(model=lm, tasks=names, num_fewshot=shots, limit=limit,
                                      task_manager=manager, log_samples=True,
                                      apply_chat_template=chat, fewshot_as_multiturn=chat, system_instruction=system,
                                      gen_kwargs=generation, bootstrap_iters=1000)
    return results, time.perf_counter() - start


def run_ours(names, shots, limit, chat, system, generation):
    out = work / "ours"
    for old in glob.glob(f"{out}/**/*", recursive=True):
        if os.path.isfile(old): os.remove(old)
    command = [a.binary, "eval", a.model, "--dtype", a.dtype, "--tasks", ",".join(names), "--data-dir", str(data), "--log-samples", "-o", str(out), "--json", "--bootstrap-iters", "1000"]
    command += ["--num-fewshot", str(shots)] if shots is not None else []
    command += ["--limit", str(limit)] if limit else []
    command += ["--apply-chat-template"] if chat else []
    command += ["--system-instruction", system] if system else []
    command += ["--gen-kwargs", generation] if generation else []
    start = time.perf_counter()
    said = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    sys.stderr.write(said.stderr)
    if said.returncode: sys.exit(f"{' '.join(command)}: {said.returncode}\n{said.stderr}")
    samples = {}
    for name in names:
        [path] = glob.glob(f"{out}/*/samples_{name}_2*.jsonl")
        samples[name] = [json.loads(line) for line in open(path, encoding="utf-8")]
    return json.loads(said.stdout), samples, seconds


def compare(label, lm, manager, names, shots=None, limit=None, chat=False, system=None, generation=None):
    theirs, their_seconds = run_theirs(lm, manager, names, shots, limit, chat, system, generation)
    ours, samples, our_seconds = run_ours(names, shots, limit, chat, system, generation)
    bad, worst, documents, differing = [], 0.0, 0, 0
    for name in names:
        for key, value in theirs["results"][name].items():
            own = ours["results"][name].get(key)
            if isinstance(value, float):
                exact = key.split(",")[0] in EXACT and name != "truthfulqa_mc2"
                if own is None or (own != value if exact else abs(own - value) > 1e-5 * max(1.0, abs(value)) * (100 if "stderr" in key else 1)):
                    bad.append(f"{name} {key}: theirs {value!r}, ours {own!r}")
            elif key not in ("alias",) and own != value: bad.append(f"{name} {key}: theirs {value!r}, ours {own!r}")
        left = sorted(theirs["samples"][name], key=lambda s: (s["filter"], s["doc_id"])); right = sorted(samples[name], key=lambda s: (s["filter"], s["doc_id"]))
        if len(left) != len(right): bad.append(f"{name}: {len(left)} and {len(right)} samples"); continue
        for one, two in zip(left, right):
            documents += 1
            for i, args in enumerate(one["arguments"]):
                for j, arg in enumerate(args):
                    own = two["arguments"][f"gen_args_{i}"][f"arg_{j}"]
                    if own != arg: bad.append(f"{name} {one['doc_id']}: argument {i}/{j}: theirs {arg!r}, ours {own!r}")
            for key in ("doc_hash", "prompt_hash", "target_hash", "filter", "metrics"):
                if one[key] != two[key]: bad.append(f"{name} {one['doc_id']}: {key}: {one[key]!r} {two[key]!r}")
            for theirs_answer, ours_answer in zip(one["filtered_resps"], two["filtered_resps"]):
                if isinstance(theirs_answer, (tuple, list)):
                    worst = max(worst, abs(float(theirs_answer[0]) - float(ours_answer[0])))
                    if str(theirs_answer[1]) != ours_answer[1]: differing += 1
                elif isinstance(theirs_answer, float):
                    scale = max(1.0, abs(theirs_answer) / 100)
                    worst = max(worst, abs(theirs_answer - float(ours_answer)) / scale)
                elif str(theirs_answer) != str(ours_answer): differing += 1
    if worst > 1e-3: bad.append(f"log-likelihoods differ by up to {worst}")
    state = "equal" if not bad else "DIFFERENT"
    questions = sum(len({s["doc_id"] for s in samples[name]}) for name in names)
    print(f"{label}: {state}; {questions} documents of {len(names)} tasks; largest difference of log-likelihoods {worst:.2e}; {differing} answers or greedy marks differ; "
          f"lm_eval {questions / their_seconds:.2f}/s, ours {questions / our_seconds:.2f}/s ({their_seconds / our_seconds:.1f} times)", flush=True)
    for line in bad[:12]: print("   ", line[:600])
    summary.append({"label": label, "state": state, "documents": questions, "largest_difference": worst, "theirs_per_second": questions / their_seconds, "ours_per_second": questions / our_seconds})
    return not bad


EXACT = ("acc", "acc_norm", "exact_match", "prompt_level_strict_acc", "inst_level_strict_acc", "prompt_level_loose_acc", "inst_level_loose_acc")


def wanted(label): return not a.only or label in a.only.split(",")


summary, good = [], True
from lm_eval.models.huggingface import HFLM
own_sets()
subjects = mmlu() if a.mmlu else []
if a.gsm8k_test: gsm8k()
manager = TaskManager(include_path=str(tasks))
lm = HFLM(pretrained=a.model, dtype=a.dtype, device="cpu", batch_size=a.batch_size)
if wanted("own"): good &= compare("own sets", lm, manager, ["arc_easy", "wikitext", "hellaswag", "winogrande", "truthfulqa_mc1", "truthfulqa_mc2", "lambada_openai"], limit=a.own_limit or None)
if wanted("own3"): good &= compare("own sets, 3-shot", lm, manager, ["arc_easy", "hellaswag", "winogrande"], shots=3, limit=a.own_limit or None)
if wanted("chat"): good &= compare("own sets, chat template, 2-shot", lm, manager, ["arc_easy", "hellaswag"], shots=2, chat=True, limit=a.own_limit or None)
if wanted("system"): good &= compare("own sets, chat template, 1-shot, system instruction", lm, manager, ["arc_easy", "hellaswag"], shots=1, chat=True, system="You are a careful clerk.", limit=a.own_limit or None)
if wanted("ifeval"): good &= compare("own ifeval", lm, manager, ["ifeval"], chat=True, generation="max_gen_toks=96", limit=a.own_limit or None)
if subjects and wanted("zero"): good &= compare("MMLU 0-shot, all subjects", lm, manager, [f"mmlu_{s}" for s in subjects], shots=0, limit=a.zero_shot_limit or None)
some = ["abstract_algebra", "anatomy", "high_school_computer_science", "philosophy", "us_foreign_policy", "virology"][:a.subjects]
if subjects and wanted("five"): good &= compare("MMLU 5-shot", lm, manager, [f"mmlu_{s}" for s in some], shots=5, limit=a.mmlu_limit or None)
if a.gsm8k_test and wanted("gsm8k"): good &= compare("GSM8K 5-shot", lm, manager, ["gsm8k"], limit=a.gsm8k_limit or None)
if a.gsm8k_test and wanted("cot"): good &= compare("GSM8K chain of thought", lm, manager, ["gsm8k_cot"], limit=a.cot_limit)
(work / "summary.json").write_text(json.dumps({"versions": {"lm_eval": __import__("importlib.metadata").metadata.version("lm_eval")}, "model": a.model, "dtype": a.dtype, "runs": summary}, indent=1))
sys.exit(0 if good else 1)
