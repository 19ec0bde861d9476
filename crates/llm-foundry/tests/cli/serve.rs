//! `serve`, through a plain socket.

use crate::support::{Room, tiny_model};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A server that ends with the test.
struct Server {
    child: Child,
    address: SocketAddr,
    _room: Room,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and body.
type Answer = (u16, String);

impl Server {
    fn start(more: &[&str]) -> Self {
        let room = Room::new();
        let model = tiny_model().to_str().expect("UTF-8");
        let args = ["serve", model, "--port", "0", "--name", "tiny", "--dtype", "float32"];
        let mut command = room.command(&[&args[..], more].concat());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
        let mut said = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("a line");
        let address = line.split_once("http://").and_then(|(_, rest)| rest.split_once("/v1"));
        let address =
            address.unwrap_or_else(|| panic!("no address in {line:?}")).0.parse().expect("an address");
        // What comes after must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Self { child, address, _room: room }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        stream
    }

    /// Sends bytes and reads until the server closes.
    fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // The server may refuse before it has read everything.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).expect("UTF-8");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        (status, body.to_owned())
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        self.raw(
            format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
            )
            .as_bytes(),
        )
    }

    fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", "")
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, "", &body.to_string())
    }

    /// A request that must go well.
    #[track_caller]
    fn ask(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, &body);
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(&answer).expect("JSON")
    }

    /// The number of a line of `/metrics`.
    fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics").1;
        let line =
            page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {page}"));
        line.rsplit(' ').next().expect("a number").parse().expect("a number")
    }
}

/// The events of a stream; the last is `[DONE]`.
fn events(body: &str) -> Vec<Value> {
    let mut data: Vec<&str> = body.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
    assert_eq!(data.pop(), Some("[DONE]"), "{body}");
    data.into_iter().map(|event| serde_json::from_str(event).expect("JSON")).collect()
}

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

#[test]
fn completions_are_those_of_generate() {
    let server = Server::start(&[]);
    let room = Room::new();
    let model = tiny_model().to_str().expect("UTF-8");
    let args =
        ["generate", model, "--prompt", "The cat", "--json", "--dtype", "float32", "--max-new-tokens", "9"];
    let said = room.foundry(&args).expect_done();
    let expected: Value = serde_json::from_str(&said.out).expect("JSON");
    let body = json!({"model": "tiny", "prompt": ["The cat", "The cat"], "max_tokens": 9, "temperature": 0});
    let answer = server.ask(COMPLETIONS, body);
    for index in 0..2 {
        assert_eq!(answer["choices"][index]["text"], expected["text"]);
        assert_eq!(answer["choices"][index]["index"], index);
    }
    let tokens = expected["token_ids"].as_array().expect("ids").len();
    assert_eq!(answer["usage"]["completion_tokens"], 2 * tokens);
    let ids = &expected["prompt_token_ids"];
    let body = json!({"model": "tiny", "prompt": ids, "max_tokens": 9, "temperature": 0, "stream": true,
                      "stream_options": {"include_usage": true}});
    let (status, stream) = server.post(COMPLETIONS, &body);
    assert_eq!(status, 200, "{stream}");
    let events = events(&stream);
    let text: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, expected["text"].as_str().expect("a text"));
    assert_eq!(events.last().expect("events")["usage"]["completion_tokens"], tokens);
    let models: Value = serde_json::from_str(&server.get("/v1/models").1).expect("JSON");
    assert_eq!(models["data"][0]["id"], "tiny");
    let model: Value = serde_json::from_str(&server.get("/v1/models/tin%79").1).expect("JSON");
    assert_eq!(model, models["data"][0]);
    let (status, answer) = server.get("/v1/models/other");
    assert!(status == 404 && answer.contains("no model `other` here"), "{answer}");
    assert_eq!(server.send("HEAD", "/v1/models", "", ""), (200, String::new()));
    assert_eq!(server.send("HEAD", COMPLETIONS, "", "").0, 405);
    assert_eq!(server.get("/health").0, 200);
    assert_eq!(server.metric("llm_foundry_generated_tokens_total"), 3.0 * tokens as f64);
}

/// What lm_eval's `local-completions` reads.
#[test]
fn echoed_prompts_have_log_probabilities() {
    let server = Server::start(&[]);
    let ids = [5, 6, 7, 8, 9, 10];
    let body = json!({"model": "tiny", "prompt": ids, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": true,
                      "seed": 1234});
    let answer = server.ask(COMPLETIONS, body);
    let told = &answer["choices"][0]["logprobs"];
    let column = |name: &str| told[name].as_array().unwrap_or_else(|| panic!("{name}: {told}"));
    let new = column("tokens").len() - ids.len();
    assert_eq!(new, 1, "the new token, and be it the end of the text: {told}");
    for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(column(name).len(), ids.len() + new, "{name}");
    }
    assert!(column("token_logprobs")[0].is_null() && column("top_logprobs")[0].is_null());
    for at in 1..ids.len() + new {
        let own = column("token_logprobs")[at].as_f64().expect("a number");
        let top = column("top_logprobs")[at].as_object().expect("an object");
        let best = top.values().filter_map(Value::as_f64).fold(f64::NEG_INFINITY, f64::max);
        assert!(own <= best && best <= 0.0, "{told}");
        assert_eq!(top[column("tokens")[at].as_str().expect("a text")], column("token_logprobs")[at]);
    }
    let scored = server.ask(
        COMPLETIONS,
        json!({"model": "tiny", "prompt": ids, "max_tokens": 0, "temperature": 0, "logprobs": 1, "echo": true}),
    );
    let short = scored["choices"][0]["logprobs"]["token_logprobs"].as_array().expect("a list");
    assert_eq!(short.as_slice(), &column("token_logprobs")[..ids.len()]);
}

#[test]
fn conversations_are_answered_whole_and_in_chunks() {
    let server = Server::start(&[]);
    let messages = json!([{"role": "user", "content": "Hello"}]);
    let ask = |more: Value| {
        let mut body =
            json!({"model": "tiny", "messages": messages, "max_tokens": 8, "seed": 3, "temperature": 1.5});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        body
    };
    let whole = server.ask(CHAT, ask(json!({"n": 2, "logprobs": true, "top_logprobs": 2})));
    let contents: Vec<&Value> = (0..2).map(|i| &whole["choices"][i]["message"]["content"]).collect();
    assert_ne!(contents[0], contents[1], "choices have seeds of their own");
    let told = whole["choices"][0]["logprobs"]["content"].as_array().expect("a list");
    assert_eq!(told[0]["top_logprobs"].as_array().expect("a list").len(), 2);
    let parts = |texts: &[&str]| {
        let parts: Vec<Value> = texts.iter().map(|text| json!({"type": "text", "text": text})).collect();
        ask(json!({"messages": [{"role": "user", "content": parts}]}))
    };
    let answer = |body: Value| server.ask(CHAT, body)["choices"][0]["message"]["content"].clone();
    assert_eq!(answer(parts(&["Hello"])), *contents[0]);
    let lines = json!({"messages": [{"role": "user", "content": "Hel\nlo"}]});
    assert_eq!(answer(parts(&["Hel", "lo"])), answer(ask(lines)));
    let (_, stream) = server.post(CHAT, &ask(json!({"stream": true, "n": 2})));
    let events = events(&stream);
    for (index, expected) in contents.into_iter().enumerate() {
        let own = events.iter().map(|event| &event["choices"][0]).filter(|choice| choice["index"] == index);
        let text: String = own.clone().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
        assert_eq!(text, expected.as_str().expect("a text"));
        let ends = own.filter(|choice| choice["finish_reason"].is_string()).count();
        assert_eq!(ends, 1);
    }
}

#[test]
fn wrong_requests_are_told_what_is_wrong() {
    let server = Server::start(&["--max-body", "4000", "--max-open", "200"]);
    let refused = |status: u16, (found, body): Answer, words: &[&str]| {
        assert_eq!(found, status, "{body}");
        let error: Value = serde_json::from_str(&body).expect("JSON");
        let message = error["error"]["message"].as_str().expect("a message");
        words.iter().for_each(|word| assert!(message.contains(word), "no {word} in {message}"));
    };
    refused(404, server.get("/v2/models"), &["/v2/models", "/v1/models"]);
    refused(405, server.get(CHAT), &["POST"]);
    refused(400, server.send("POST", COMPLETIONS, "", "{\"a\":"), &["not JSON"]);
    refused(404, server.post(COMPLETIONS, &json!({"model": "gpt", "prompt": "a"})), &["gpt", "tiny"]);
    let wrong = |more: Value| {
        let mut body = json!({"model": "tiny", "prompt": "a"});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        server.post(COMPLETIONS, &body)
    };
    refused(400, wrong(json!({"colour": 1})), &["colour"]);
    refused(400, wrong(json!({"temperature": -1})), &["temperature"]);
    refused(400, wrong(json!({"max_tokens": 100_000})), &["100000", "--max-length"]);
    refused(400, wrong(json!({"prompt": [1, 2, 999_999]})), &["999999"]);
    refused(413, wrong(json!({"prompt": "a".repeat(5000)})), &["--max-body"]);
    refused(400, wrong(json!({"prompt": vec!["a"; 20], "n": 16})), &["320 texts", "--max-open"]);
    refused(400, wrong(json!({"max_tokens": -1})), &["a whole number, 0 or more"]);
    let said = |message: Value| server.post(CHAT, &json!({"model": "tiny", "messages": [message]}));
    refused(400, said(json!({"role": "user"})), &["`messages`", "message 1 has no `content`"]);
    refused(400, said(json!({"role": "user", "content": 5})), &["neither a text nor a list of parts"]);
    let image = json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]});
    refused(400, said(image), &["of type `image_url`; only `text`"]);
    refused(400, server.raw(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"), &["HTTP"]);
    refused(431, server.raw(&[b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 40_000]].concat()), &["headers"]);
    refused(
        411,
        server.raw(b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"),
        &["Content-Length"],
    );
    // And it still answers.
    server.ask(COMPLETIONS, json!({"model": "tiny", "prompt": "a", "max_tokens": 1}));
}

#[test]
fn a_key_is_asked_for() {
    let server = Server::start(&["--api-key", "secret"]);
    let key = |key: &str| server.send("GET", "/v1/models", &format!("Authorization: Bearer {key}\r\n"), "").0;
    assert_eq!(
        (server.get("/v1/models").0, server.get("/metrics").0, server.get("/health").0),
        (401, 401, 200)
    );
    assert_eq!((key("secret"), key("secre"), key("secrets"), key("Secret")), (200, 401, 401, 401));
    let long = "a".repeat(2_000_000);
    assert_eq!(server.send("POST", COMPLETIONS, "", &long).0, 401, "before the body is looked at");
    let said = Room::new().foundry(&["serve", tiny_model().to_str().expect("UTF-8"), "--host", "0.0.0.0"]);
    said.expect_refusal(&["--api-key", "127.0.0.1"]);
}

#[test]
fn web_pages_are_no_programs_of_this_machine() {
    let server = Server::start(&[]);
    let host = |name: &str| {
        server
            .raw(format!("GET /v1/models HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").as_bytes())
            .0
    };
    let port = server.address.port();
    assert_eq!(
        (host(&format!("localhost:{port}")), host(&format!("127.0.0.1:{port}")), host("[::1]")),
        (200, 200, 200)
    );
    assert_eq!(
        (host("evil.example"), host("localhost.evil.example"), host("127.0.0.1.evil:80")),
        (403, 403, 403)
    );
    assert_eq!(server.send("GET", "/v1/models", "Origin: http://evil.example\r\n", "").0, 403);
}

#[test]
fn a_client_without_a_stream_that_leaves_is_noticed() {
    let server = Server::start(&["--max-length", "250", "--max-running", "2"]);
    let until = Instant::now() + Duration::from_secs(60);
    let body =
        json!({"model": "tiny", "prompt": vec!["a"; 15], "max_tokens": 240, "temperature": 3, "n": 16});
    let text = body.to_string();
    while server.metric("llm_foundry_cancelled_total") == 0.0 {
        assert!(Instant::now() < until, "every answer was computed to its end");
        let mut leaving = server.connect();
        let head = format!("POST {COMPLETIONS} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", text.len());
        leaving.write_all(format!("{head}{text}").as_bytes()).expect("sent");
        std::thread::sleep(Duration::from_millis(20));
        drop(leaving);
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn one_connection_takes_several_requests() {
    let server = Server::start(&[]);
    let mut stream = server.connect();
    let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // Two at once, then one more.
    stream.write_all(&[request.as_slice(), request].concat()).expect("sent");
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    for round in 0..3 {
        if round == 2 {
            stream.write_all(request).expect("sent");
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a line");
            length =
                line.strip_prefix("Content-Length: ").map_or(length, |n| n.trim().parse().expect("a number"));
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("the body");
        assert_eq!(body, br#"{"status":"ok"}"#);
    }
}

/// A long answer whose client leaves makes room, and too many open texts are refused.
#[test]
fn clients_that_leave_are_forgotten_and_too_many_are_refused() {
    let server = Server::start(&["--max-running", "1", "--max-open", "2", "--max-length", "250"]);
    // No end of text in sight: many choices, so that the answers take a while.
    let body =
        json!({"model": "tiny", "prompt": "a", "max_tokens": 200, "temperature": 3, "stream": true, "n": 2});
    let text = body.to_string();
    let head = format!("POST {COMPLETIONS} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", text.len());
    let mut seen_busy = false;
    for _ in 0..40 {
        let mut leaving = server.connect();
        leaving.write_all(format!("{head}{text}").as_bytes()).expect("sent");
        let mut first = [0; 16];
        leaving.read_exact(&mut first).expect("the answer begins");
        if first.starts_with(b"HTTP/1.1 429") {
            seen_busy = true;
        } else {
            let one = json!({"model": "tiny", "prompt": "a", "max_tokens": 1});
            seen_busy |= server.post(COMPLETIONS, &one).0 == 429;
        }
        drop(leaving);
    }
    assert!(seen_busy, "two open texts are the most");
    let until = Instant::now() + Duration::from_secs(30);
    while server.metric("llm_foundry_running") + server.metric("llm_foundry_waiting") > 0.0 {
        assert!(Instant::now() < until, "abandoned texts are still open");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(server.metric("llm_foundry_cancelled_total") > 0.0);
    server.ask(COMPLETIONS, json!({"model": "tiny", "prompt": "a", "max_tokens": 1}));
}
