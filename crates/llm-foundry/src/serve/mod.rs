//! An HTTP server with OpenAI's interface, on plain threads: one for each connection, and one that computes.
//!
//! | path | what |
//! |---|---|
//! | `GET /v1/models`, `GET /v1/models/NAME` | the model |
//! | `POST /v1/completions` | texts continued, with `echo` and `logprobs` |
//! | `POST /v1/chat/completions` | conversations answered |
//! | `GET /health` | whether the server is up |
//! | `GET /metrics` | counters in Prometheus' text format |
//!
//! | file | what |
//! |---|---|
//! | `http.rs` | requests and answers on a socket |
//! | `fields.rs` | JSON requests key by key |
//! | `asked.rs` | what completions ask |
//! | `replies.rs`, `token_text.rs` | what they hear |
//! | `worker.rs` | the thread that computes |
//! | `metrics.rs` | counters |

mod asked;
mod fields;
mod http;
mod metrics;
mod replies;
mod token_text;
mod worker;

use crate::answer::{Answerer, Front, sampling};
use asked::{Asked, Prompt};
use fields::ApiError;
use foundry_models::Sampling;
use foundry_models::inference::Request;
use http::{Connection, Head, HttpRequest, NoRequest, Refused};
use metrics::Metrics;
use replies::Reply;
use serde_json::json;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use token_text::TokenTexts;
use worker::{Job, Queue, Update};

/// Most connections at once; those beyond are told to come back.
const MOST_CONNECTIONS: usize = 512;
/// Most log-probabilities of prompts in one answer: each takes some hundred bytes until it is sent.
const MOST_SCORES: usize = 200_000;
/// How often a waiting connection looks whether its client is still there.
const LOOK: Duration = Duration::from_millis(100);

/// Limits and names of a server.
pub(crate) struct ServeOptions {
    /// Names that the model answers to, the first of them its own.
    pub(crate) model_names: Vec<String>,
    /// Without it everything but `/health` is refused.
    pub(crate) api_key: Option<String>,
    /// Names of this machine that a client without a key may use.
    pub(crate) hosts: Vec<String>,
    /// Texts that may be open at once.
    pub(crate) most_open: usize,
    /// Bytes of a request's body.
    pub(crate) body_bytes: usize,
}

/// Whether a `Host` header names `own`, whatever port it says.
fn is_host(header: &str, own: &str) -> bool {
    let rest = header.to_ascii_lowercase();
    let port = rest.strip_prefix(&own.to_ascii_lowercase());
    let is_port =
        |rest: &str| rest.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
    port.is_some_and(|rest| rest.is_empty() || is_port(rest))
}

/// A part of a path with its `%2F` and the like as what they stand for.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| byte == b'%').and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What every connection shares.
struct Shared {
    front: Arc<Front>,
    options: ServeOptions,
    queue: Queue,
    metrics: Arc<Metrics>,
    requests: AtomicU64,
    connections: AtomicUsize,
}

/// Serves until the process ends. Connections are accepted elsewhere; this thread computes.
pub(crate) fn serve(
    answerer: &mut Answerer,
    listener: TcpListener,
    options: ServeOptions,
) -> std::io::Result<()> {
    let (sender, jobs) = mpsc::channel();
    let open = Arc::new(AtomicUsize::new(0));
    let metrics = Arc::new(Metrics::default());
    let shared = Arc::new(Shared {
        front: answerer.front.clone(),
        queue: Queue::new(sender, open.clone(), options.most_open),
        options,
        metrics: metrics.clone(),
        requests: AtomicU64::new(0),
        connections: AtomicUsize::new(0),
    });
    std::thread::Builder::new().name("accept".into()).spawn(move || accept(&listener, &shared))?;
    worker::run(answerer, &jobs, &open, &metrics);
    Ok(())
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        // A client that left before it was met, or too many open files: the next one may do better.
        let Ok(stream) = stream else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        let shared = shared.clone();
        if shared.connections.fetch_add(1, Ordering::AcqRel) >= MOST_CONNECTIONS {
            turn_away(stream, &shared);
            shared.connections.fetch_sub(1, Ordering::AcqRel);
            continue;
        }
        let answering = shared.clone();
        let talk = move || {
            // A bug in one connection must not take its place for ever.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| answering.talk(stream)));
            answering.connections.fetch_sub(1, Ordering::AcqRel);
        };
        if std::thread::Builder::new().name("client".into()).spawn(talk).is_err() {
            shared.connections.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn turn_away(stream: TcpStream, shared: &Shared) {
    let error = ApiError::new(503, format!("{MOST_CONNECTIONS} connections are open already"));
    if let Ok(mut connection) = Connection::new(stream, 0) {
        let _ = connection.answer(503, "application/json", &error.body(), false, false);
    }
    shared.metrics.answered("other", 503, Duration::ZERO);
}

/// An answer that is not a stream.
struct Page {
    status: u16,
    kind: &'static str,
    body: String,
}

impl Page {
    fn json(body: impl ToString) -> Self {
        Self { status: 200, kind: "application/json", body: body.to_string() }
    }
}

impl From<ApiError> for Page {
    fn from(error: ApiError) -> Self {
        Self { status: error.status, kind: "application/json", body: error.body() }
    }
}

/// How a request went.
enum Answered {
    Page(Page),
    /// The stream, or what of it the client wanted, was sent.
    Streamed,
    Gone,
}

impl Shared {
    /// All requests of one client.
    fn talk(&self, stream: TcpStream) {
        let Ok(mut connection) = Connection::new(stream, self.options.body_bytes) else { return };
        loop {
            let request = match connection.request(&|head| self.admits(head)) {
                Ok(request) => request,
                Err(NoRequest::Gone) => return,
                Err(NoRequest::Refused(Refused { status, message })) => {
                    self.metrics.answered("other", status, Duration::ZERO);
                    let body = ApiError::new(status, message).body();
                    let _ = connection.answer(status, "application/json", &body, false, false);
                    return connection.linger();
                }
            };
            let began = Instant::now();
            let (path, answered) = self.route(&request, &mut connection);
            let (status, goes_on) = match answered {
                Answered::Gone => (499, false),
                Answered::Streamed => (200, false),
                Answered::Page(Page { status, kind, body }) => {
                    let is_head = request.method == "HEAD";
                    let sent = connection.answer(status, kind, &body, request.keeps_alive, is_head);
                    (status, sent.is_ok() && request.keeps_alive)
                }
            };
            self.metrics.answered(path, status, began.elapsed());
            if !goes_on {
                return;
            }
        }
    }

    fn route(&self, request: &HttpRequest, connection: &mut Connection) -> (&'static str, Answered) {
        let paths = ["/health", "/metrics", "/v1/models", "/v1/completions", "/v1/chat/completions"];
        let name = request.path.strip_prefix("/v1/models/").map(percent_decoded);
        let is_path = |path: &&str| *path == request.path || (name.is_some() && *path == "/v1/models");
        let Some(path) = paths.into_iter().find(is_path) else {
            let error =
                ApiError::new(404, format!("no `{}` here; there are {}", request.path, paths.join(", ")));
            return ("other", Answered::Page(error.into()));
        };
        let method = if path.ends_with("completions") { "POST" } else { "GET" };
        let is_head = method == "GET" && request.method == "HEAD";
        if request.method != method && !is_head {
            let error = ApiError::new(405, format!("{path} takes {method}, not {}", request.method));
            return (path, Answered::Page(error.into()));
        }
        let answered = match path {
            "/health" => Answered::Page(Page::json(json!({"status": "ok"}))),
            "/metrics" => {
                let kind = "text/plain; version=0.0.4";
                Answered::Page(Page { status: 200, kind, body: self.metrics.text() })
            }
            "/v1/models" => Answered::Page(match name {
                None => Page::json(self.models()),
                Some(name) if self.options.model_names.contains(&name) => Page::json(self.model(&name)),
                Some(name) => self.no_model(&name).into(),
            }),
            _ => {
                let asked = match path {
                    "/v1/completions" => Asked::completion(&request.body),
                    _ => Asked::chat(&request.body),
                };
                asked
                    .and_then(|asked| self.complete(&asked, connection))
                    .unwrap_or_else(|error| Answered::Page(error.into()))
            }
        };
        (path, answered)
    }

    /// Whether a request may be made: with the key, or without one only by programs of this machine. A web page that is
    /// open in a browser here is none: it says where it is from, and one whose name was made to point to this machine
    /// says that name.
    fn admits(&self, head: &Head) -> Result<(), Refused> {
        let refused = |status: u16, message: &str| Err(Refused { status, message: message.to_owned() });
        let Some(key) = &self.options.api_key else {
            let host = head
                .host
                .as_deref()
                .is_none_or(|host| self.options.hosts.iter().any(|own| is_host(host, own)));
            return match head.origin.is_none() && host {
                true => Ok(()),
                false => refused(403, "web pages and other names of this machine need a key (--api-key)"),
            };
        };
        if head.path == "/health" {
            return Ok(());
        }
        // Compares all of the key, so that the time says nothing of it.
        let given = head.authorization.as_deref().and_then(|value| value.strip_prefix("Bearer "));
        let given = given.unwrap_or_default().trim().as_bytes();
        let differences = key.bytes().zip(given).fold(0, |sum, (a, b)| sum | (a ^ b));
        match differences == 0 && key.len() == given.len() {
            true => Ok(()),
            false => refused(401, "a key is needed: `Authorization: Bearer KEY`"),
        }
    }

    fn models(&self) -> serde_json::Value {
        let models: Vec<_> = self.options.model_names.iter().map(|name| self.model(name)).collect();
        json!({"object": "list", "data": models})
    }

    fn model(&self, name: &str) -> serde_json::Value {
        let capacity = self.front.capacity;
        json!({"id": name, "object": "model", "created": 0, "owned_by": "llm-foundry", "max_model_len": capacity})
    }

    fn no_model(&self, name: &str) -> ApiError {
        let names = self.options.model_names.join(", ");
        let message = format!("no model `{name}` here; there is {names}");
        ApiError { status: 404, message, param: Some("model".into()) }
    }

    /// Everything from the request to its answer.
    fn complete(&self, asked: &Asked, connection: &mut Connection) -> Result<Answered, ApiError> {
        if !self.options.model_names.contains(&asked.common.model) {
            return Err(self.no_model(&asked.common.model));
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let requests = self.requests(asked, number)?;
        let prompts: Vec<Vec<u32>> = requests.iter().map(|request| request.tokens.clone()).collect();
        let (updates, news) = mpsc::channel();
        let abandoned = Arc::new(AtomicBool::new(false));
        let job = |(choice, request): (usize, Request)| Job {
            request,
            stops: asked.common.sampling.stop.clone(),
            is_continuation: !asked.is_chat,
            choice,
            updates: updates.clone(),
            abandoned: abandoned.clone(),
        };
        let jobs: Vec<Job> = requests.into_iter().enumerate().map(job).collect();
        drop(updates);
        self.queue.submit(jobs)?;
        self.metrics.prompt(prompts.iter().step_by(asked.common.n).map(Vec::len).sum());
        let texts = TokenTexts::new(&self.front.tokenizer);
        let reply = Reply::new(asked, &texts, prompts, number);
        let answered = match asked.common.is_stream {
            true => stream(reply, Updates::new(&news), connection),
            false => whole(reply, Updates::new(&news), connection),
        };
        // Whatever is still being computed has nobody to hear it.
        abandoned.store(true, Ordering::Relaxed);
        answered
    }

    /// What is to be computed for each choice.
    fn requests(&self, asked: &Asked, number: u64) -> Result<Vec<Request>, ApiError> {
        let (capacity, most) = (self.front.capacity, self.options.most_open);
        let texts = asked.prompts.len().saturating_mul(asked.common.n);
        if texts > most {
            let message =
                format!("{texts} texts in one request; this server takes {most} at once (--max-open)");
            return Err(ApiError::new(400, message));
        }
        let mut requests = Vec::new();
        let mut scores = 0;
        for prompt in &asked.prompts {
            let tokens = match prompt {
                Prompt::Tokens(tokens) if tokens.is_empty() => {
                    return Err(ApiError::of("prompt", "a list of no tokens"));
                }
                Prompt::Tokens(tokens) => tokens.clone(),
                Prompt::Question(question) => {
                    let wrong = |failure| ApiError::new(400, message_of(failure));
                    self.front.question_ids(question).map_err(wrong)?
                }
            };
            let sampling = self.sampling(asked, capacity.saturating_sub(tokens.len()).max(1))?;
            if tokens.len().saturating_add(sampling.max_new_tokens) > capacity {
                return Err(ApiError::new(
                    400,
                    format!(
                        "{} tokens of prompt and {} of answer are more than the {capacity} that this server has room \
                         for (--max-length)",
                        tokens.len(),
                        sampling.max_new_tokens
                    ),
                ));
            }
            if let Some(top) = asked.log_probs.filter(|_| asked.echo) {
                scores += tokens.len() * (1 + top) * asked.common.n;
            }
            if scores > MOST_SCORES {
                let message = format!(
                    "`echo` with `logprobs` of so many tokens: more than {MOST_SCORES} numbers in one answer; send fewer \
                     prompts at once"
                );
                return Err(ApiError::new(400, message));
            }
            for choice in 0..asked.common.n as u64 {
                let seed = match asked.common.has_seed {
                    true => sampling.seed.wrapping_add(choice),
                    false => fresh_seed(number, requests.len() as u64),
                };
                let mut request = self.front.request(tokens.clone(), Sampling { seed, ..sampling.clone() });
                request.log_probs = asked.log_probs;
                request.prompt_log_probs = asked.echo && asked.log_probs.is_some();
                requests.push(request);
            }
        }
        Ok(requests)
    }

    fn sampling(&self, asked: &Asked, room: usize) -> Result<Sampling, ApiError> {
        let model = self.front.generation_config.as_ref();
        let wanted = &asked.common.sampling;
        let mut sampling =
            sampling(wanted, model, room).map_err(|failure| ApiError::new(400, message_of(failure)))?;
        if wanted.max_new_tokens.is_none() {
            // The model's own wish gives way to a long prompt.
            sampling.max_new_tokens = sampling.max_new_tokens.min(room);
        }
        Ok(sampling)
    }
}

/// Different for every choice of every request, and from run to run.
fn fresh_seed(number: u64, choice: u64) -> u64 {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let time = time.map_or(0, |time| time.as_nanos() as u64);
    time ^ number.rotate_left(40) ^ choice.rotate_left(20)
}

fn message_of(failure: crate::failure::Failure) -> String {
    match failure {
        crate::failure::Failure::Input(message) | crate::failure::Failure::Run(message) => message,
        other => format!("{other:?}"),
    }
}

/// What a client waits for.
struct Updates<'a> {
    updates: &'a Receiver<Update>,
    /// When it was last looked whether the client is still there.
    looked: Instant,
}

impl<'a> Updates<'a> {
    fn new(updates: &'a Receiver<Update>) -> Self {
        Self { updates, looked: Instant::now() }
    }

    /// The next update; `None`: the client has left.
    fn next(&mut self, connection: &Connection) -> Result<Option<Update>, ApiError> {
        loop {
            // Also while updates come faster than that.
            if self.looked.elapsed() >= LOOK {
                if connection.is_gone() {
                    return Ok(None);
                }
                self.looked = Instant::now();
            }
            match self.updates.recv_timeout(LOOK) {
                Ok(update) => return Ok(Some(update)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(ApiError::new(500, "the answer broke off"));
                }
            }
        }
    }
}

fn whole(
    mut reply: Reply<'_>,
    mut updates: Updates<'_>,
    connection: &Connection,
) -> Result<Answered, ApiError> {
    loop {
        match updates.next(connection)? {
            None => return Ok(Answered::Gone),
            Some(Update::Failed(error)) => return Err(error),
            Some(Update::News(choice, news)) => {
                if reply.take(choice, &news) {
                    return Ok(Answered::Page(Page::json(reply.whole())));
                }
            }
        }
    }
}

fn stream(
    mut reply: Reply<'_>,
    mut updates: Updates<'_>,
    connection: &mut Connection,
) -> Result<Answered, ApiError> {
    // The first news decides whether there is a stream at all.
    let mut update = updates.next(connection)?;
    let mut begun = false;
    loop {
        let (choice, news) = match update {
            None => return Ok(Answered::Gone),
            Some(Update::Failed(error)) if !begun => return Err(error),
            Some(Update::Failed(error)) => {
                let _ = connection.event(&error.body());
                return Ok(Answered::Streamed);
            }
            Some(Update::News(choice, news)) => (choice, news),
        };
        let mut sent = Ok(());
        if !std::mem::replace(&mut begun, true) {
            sent = connection.begin_events();
            for opening in reply.openings() {
                sent = sent.and_then(|()| connection.event(&opening));
            }
        }
        let is_whole = reply.take(choice, &news);
        if let Some(chunk) = reply.news(choice, &news) {
            sent = sent.and_then(|()| connection.event(&chunk));
        }
        if is_whole {
            if let Some(closing) = reply.closing() {
                sent = sent.and_then(|()| connection.event(&closing));
            }
            let sent = sent.and_then(|()| connection.event("[DONE]"));
            return Ok(if sent.is_ok() { Answered::Streamed } else { Answered::Gone });
        }
        if sent.is_err() {
            return Ok(Answered::Gone);
        }
        update = updates.next(connection)?;
    }
}
