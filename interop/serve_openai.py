"""`llm-foundry serve` through OpenAI's own client (PyPI openai), and scored by lm_eval's `local-completions`.

    python interop/serve_openai.py --model MODEL_DIR --foundry target/release/llm-foundry

Starts the server on a free port of this machine and stops it. The second half compares log-likelihoods that lm_eval
gets over HTTP (token ids, echo, logprobs) with those that transformers gives in float32: the largest difference and
whether every `is_greedy` agrees are in the line `RESULT {json}`.
"""
import argparse, asyncio, json, re, subprocess
ap = argparse.ArgumentParser()
ap.add_argument("--model", required=True)
ap.add_argument("--foundry", required=True)
a = ap.parse_args()
server = subprocess.Popen([a.foundry, "serve", a.model, "--port", "0", "--name", "m", "--dtype", "float32",
                           "--max-length", "1024", "--api-key", "key"], stderr=subprocess.PIPE, text=True)
try:
    base = re.search(r"http://[\d.:]+/v1", server.stderr.readline())[0]
    import openai
    client = openai.OpenAI(base_url=base, api_key="key")
    assert "m" in [model.id for model in client.models.list()]
    messages = [{"role": "user", "content": "Name three colours."}]
    whole = client.chat.completions.create(model="m", messages=messages, temperature=0, max_tokens=32)
    parts = client.chat.completions.create(model="m", messages=messages, temperature=0, max_tokens=32, stream=True,
                                           stream_options={"include_usage": True})
    chunks = list(parts)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content and text, (text, whole)
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    told = client.completions.create(model="m", prompt="The sea is", max_tokens=4, temperature=0, logprobs=3)
    assert len(told.choices[0].logprobs.tokens) == 4
    two = client.chat.completions.create(model="m", messages=messages, n=2, seed=1, temperature=1.2, max_tokens=8)
    assert len(two.choices) == 2
    for wrong, kind in [({"model": "x"}, openai.NotFoundError), ({"frequency_penalty": 1.0}, openai.BadRequestError)]:
        try:
            client.chat.completions.create(**{"model": "m", "messages": messages, "max_tokens": 2, **wrong})
            raise AssertionError(wrong)
        except kind:
            pass
    try:
        openai.OpenAI(base_url=base, api_key="no").models.list()
        raise AssertionError("a wrong key")
    except openai.AuthenticationError:
        pass

    import os
    os.environ["OPENAI_API_KEY"] = "key"
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI
    from lm_eval.models.huggingface import HFLM
    pairs = [("The capital of France is", " Paris"), ("Two and two are", " four"), ("Once upon a time", " there was a king."),
             ("Water boils at", " 100 degrees"), ("The opposite of hot is", " cold"), ("She opened the", " door and smiled")]
    asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    ours = LocalCompletionsAPI(base_url=base + "/completions", model="m", tokenizer=a.model, tokenizer_backend="huggingface",
                               num_concurrent=1, max_length=1024).loglikelihood(asked)
    theirs = HFLM(pretrained=a.model, dtype="float32", device="cpu", batch_size=1).loglikelihood(asked)
    difference = max(abs(x[0] - y[0]) for x, y in zip(ours, theirs, strict=True))
    greedy = all(bool(x[1]) == bool(y[1]) for x, y in zip(ours, theirs, strict=True))
    print("RESULT", json.dumps({"openai": openai.__version__, "answer": text, "largest_difference": difference, "greedy_equal": greedy}))
    assert difference < 1e-3 and greedy
finally:
    server.terminate()
    server.wait()
