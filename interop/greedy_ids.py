"""Greedy token ids of `llm-foundry generate --prompts` against transformers, float32.

    python interop/greedy_ids.py --model MODEL_DIR --foundry target/release/llm-foundry [--tokens 48]

Fifty prompts, half of them texts to continue and half conversations, answered together. transformers then reads each
prompt with our answer: it would have said the same if at every place our next token is its likeliest.
Prints each prompt that differs and one line `RESULT {json}`; the exit code is the number of differences. Where the two
likeliest tokens of transformers are closer than 1e-4 at the first difference, float32 itself decides: it is counted as
a tie and named.
"""
import argparse, json, os, subprocess, sys, tempfile, time
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXTS = [
    "The lighthouse keeper climbed the stairs and", "In the beginning of winter, the village", "def fibonacci(n):\n",
    "The three most important things about bread are", "Water boils at", "A train leaves the station at noon and",
    "Dear Sir or Madam,\n\nI am writing", "1, 1, 2, 3, 5, 8,", "The capital of France is", "Once there was a small robot who",
    "import json\n\nwith open(", "The committee decided that", "Roses are red,", "To make tea, first", "SELECT name FROM",
    "The theory of evolution says that", "In 1969, the first", "My grandmother's garden", "Die Katze sitzt auf",
    "El perro corre por", "Q: What is the sum of 4 and 9?\nA:", "The moon is", "# Shopping list\n- milk\n-",
    "She opened the letter, and", "Energy is neither created nor",
]
QUESTIONS = [
    "Who are you?", "Name three colours.", "Explain rain to a child.", "What is 12 times 12?", "Write a haiku about a river.",
    "Translate 'good morning' into Spanish.", "Give me a recipe for pancakes.", "What is a prime number?",
    "How do bees make honey?", "List the planets.", "Write a function that reverses a list in Python.",
    "What should I wear when it snows?", "Summarise: The fox ran. The dog slept. The sun set.", "Is a tomato a fruit?",
    "How far is the sun?", "Tell me a joke.", "What is photosynthesis?", "Why is the sky blue?", "Name a famous painter.",
    "What is the opposite of hot?", "How many days has a leap year?", "Describe the sea in one sentence.",
    "What does HTTP mean?", "Give advice for a job interview.", "Spell the word 'necessary'.",
]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--model", required=True)
    ap.add_argument("--foundry", required=True)
    ap.add_argument("--tokens", type=int, default=48)
    ap.add_argument("--batch", type=int, default=32)
    a = ap.parse_args()
    lines = [{"prompt": text} for text in TEXTS]
    lines += [{"messages": [{"role": "user", "content": text}]} for text in QUESTIONS]
    with tempfile.TemporaryDirectory() as room:
        path = os.path.join(room, "prompts.jsonl")
        with open(path, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        command = [a.foundry, "generate", a.model, "--prompts", path, "--json", "--greedy", "--dtype", "float32",
                   "--max-new-tokens", str(a.tokens), "--batch-size", str(a.batch)]
        began = time.perf_counter()
        said = subprocess.run(command, check=True, capture_output=True, text=True)
        ours_seconds = time.perf_counter() - began
    print(said.stderr.strip().splitlines()[-1])
    ours = [json.loads(line) for line in said.stdout.splitlines()]

    tokenizer = AutoTokenizer.from_pretrained(a.model)
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32)
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
    different, ties, tokens, seconds = [], [], 0, 0.0
    for line, our in zip(lines, ours, strict=True):
        if "prompt" in line:
            ids = tokenizer(line["prompt"])["input_ids"]
        else:
            ids = tokenizer.apply_chat_template(line["messages"], add_generation_prompt=True, return_dict=True)["input_ids"]
        assert ids == our["prompt_token_ids"], line
        began = time.perf_counter()
        with torch.no_grad():
            logits = model(torch.tensor([ids + our["token_ids"]])).logits[0, len(ids) - 1:]
        seconds += time.perf_counter() - began
        theirs = logits.argmax(-1).tolist()
        is_ended = our["finish_reason"] == "end_of_sequence"
        expected = our["token_ids"] + ([theirs[-1] if theirs[-1] in ends else None] if is_ended else [])
        tokens += len(expected)
        at = next((i for i, (x, y) in enumerate(zip(theirs, expected)) if x != y), None)
        if at is None:
            continue
        top = logits[at].topk(2).values
        (ties if top[0] - top[1] < 1e-4 else different).append(line)
        print(f"differs at token {at} (margin {top[0] - top[1]:.2e}): {line}\n  {theirs}\n  {our['token_ids']}", flush=True)
    print("RESULT", json.dumps({"prompts": len(lines), "tokens": tokens, "different": len(different), "ties": len(ties),
                                "ours_seconds_with_loading": round(ours_seconds, 2), "theirs_seconds": round(seconds, 2)}))
    sys.exit(len(different))


main()
