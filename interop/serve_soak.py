"""Two thousand mixed requests to `llm-foundry serve`, malformed ones among them: every one is answered, memory stays flat.

    python interop/serve_soak.py --model MODEL_DIR --foundry target/release/llm-foundry [--requests 2000] [--clients 16]

Starts the server on a free port of this machine and stops it. Only Python's standard library. Prints one line
`RESULT {json}` and fails if a request is left without an answer, an answer has an unexpected status, or the server's
resident memory after the last request is more than a tenth above that after the first quarter.
"""
import argparse, collections, http.client, json, random, re, socket, subprocess, sys, threading, time

ap = argparse.ArgumentParser()
ap.add_argument("--model", required=True)
ap.add_argument("--foundry", required=True)
ap.add_argument("--requests", type=int, default=2000)
ap.add_argument("--clients", type=int, default=16)
ap.add_argument("--tokens", type=int, default=12)
a = ap.parse_args()

server = subprocess.Popen(
    [a.foundry, "serve", a.model, "--port", "0", "--name", "m", "--max-length", "512", "--max-open", "12"],
    stderr=subprocess.PIPE, text=True)
address = re.search(r"http://([\d.]+):(\d+)/v1", server.stderr.readline())
host, port = address[1], int(address[2])
threading.Thread(target=lambda: collections.deque(server.stderr, maxlen=5), daemon=True).start()


def memory():
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{server.pid}/status").read())[1])


def post(path, body, **more):
    connection = http.client.HTTPConnection(host, port, timeout=120)
    try:
        connection.request("POST", path, body if isinstance(body, (str, bytes)) else json.dumps(body), **more)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def raw(data, waits=True):
    with socket.create_connection((host, port), timeout=120) as s:
        try:
            s.sendall(data)
            answer = s.recv(65536) if waits else b""
        except ConnectionError:
            return 0, b""
        return (int(answer.split(b" ")[1]) if answer.startswith(b"HTTP/1.1 ") else 0), answer


WORDS = "the cat sat on a mat and looked at rain that fell over green hills while nobody spoke of it".split()


def text(r, most):
    return " ".join(r.choice(WORDS) for _ in range(r.randint(1, most)))


def one(r):
    """A kind of request, its answer's status, and the statuses it may have (429: too many at once)."""
    kind = r.choice(["plain", "plain", "chat", "stream", "echo", "several", "leave", "broken json", "unknown key",
                     "not http", "huge", "bad token", "half", "wrong path", "metrics"])
    base = {"model": "m", "max_tokens": r.randint(1, a.tokens), "temperature": r.choice([0, 0.7, 1.5])}
    chat = {**base, "messages": [{"role": "user", "content": text(r, 20)}]}
    ok = {200, 429}
    if kind == "plain":
        return kind, post("/v1/completions", {**base, "prompt": text(r, 120)})[0], ok
    if kind == "chat":
        return kind, post("/v1/chat/completions", chat)[0], ok
    if kind == "stream":
        status, body = post("/v1/chat/completions", {**chat, "stream": True})
        assert status != 200 or body.endswith(b"data: [DONE]\n\n"), body[-100:]
        return kind, status, ok
    if kind == "echo":
        return kind, post("/v1/completions", {**base, "prompt": text(r, 30), "echo": True, "logprobs": 2, "max_tokens": 1})[0], ok
    if kind == "several":
        return kind, post("/v1/completions", {**base, "prompt": [text(r, 30), text(r, 30)], "n": 2})[0], ok
    if kind == "leave":
        body = json.dumps({**base, "prompt": text(r, 50), "max_tokens": 200, "stream": r.random() < 0.5})
        head = f"POST /v1/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        raw(head.encode(), waits=False)
        return kind, 0, {0}
    if kind == "broken json":
        return kind, post("/v1/completions", '{"model": "m", "prompt": ')[0], {400}
    if kind == "unknown key":
        return kind, post("/v1/completions", {**base, "prompt": "a", "colour": "red"})[0], {400}
    if kind == "not http":
        return kind, raw(bytes(r.randrange(256) for _ in range(200)) + b"\r\n\r\n")[0], {400}
    if kind == "huge":
        return kind, raw(b"POST /v1/completions HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n")[0], {413}
    if kind == "bad token":
        return kind, post("/v1/completions", {**base, "prompt": [1, 2, 10_000_000]})[0], {400, 429}
    if kind == "half":
        raw(b"POST /v1/completions HTTP/1.1\r\nContent-Length: 50\r\n\r\n{", waits=False)
        return kind, 0, {0}
    if kind == "wrong path":
        return kind, post("/v2/completions", {})[0], {404}
    connection = http.client.HTTPConnection(host, port, timeout=120)
    connection.request("GET", "/metrics")
    return kind, connection.getresponse().status, {200}


counts, wrong, sizes, lock = collections.Counter(), [], [], threading.Lock()


def client(seed, share):
    r = random.Random(seed)
    for _ in range(share):
        try:
            kind, status, expected = one(r)
        except Exception as error:
            kind, status, expected = "exception", repr(error), set()
        with lock:
            counts[f"{kind} {status}"] += 1
            if status not in expected:
                wrong.append((kind, status))
            if sum(counts.values()) % max(1, a.requests // 20) == 0:
                sizes.append(memory())


began = time.time()
clients = [threading.Thread(target=client, args=(i, a.requests // a.clients)) for i in range(a.clients)]
[c.start() for c in clients]
[c.join() for c in clients]
seconds = time.time() - began
until = time.time() + 60
while time.time() < until:
    connection = http.client.HTTPConnection(host, port, timeout=60)
    connection.request("GET", "/metrics")
    page = connection.getresponse().read().decode()
    if "llm_foundry_running 0" in page and "llm_foundry_waiting 0" in page:
        break
    time.sleep(0.2)
else:
    wrong.append(("texts left open", page))
alive = server.poll() is None and post("/v1/completions", {"model": "m", "prompt": "a", "max_tokens": 1})[0] == 200
last = memory()
server.terminate()
server.wait()
quarter = sizes[len(sizes) // 4]
print("RESULT", json.dumps({"requests": sum(counts.values()), "seconds": round(seconds, 1), "wrong": wrong[:10],
                            "alive": alive, "kB_first_quarter": quarter, "kB_end": last, "answers": dict(sorted(counts.items()))}))
sys.exit(bool(wrong) or not alive or last > 1.1 * quarter)
