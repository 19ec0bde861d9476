//! A server on loopback for tests: keeps what it was asked, and answers as it is told.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) authorization: String,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }
}

type Answer = dyn Fn(&Request) -> (u16, Value) + Send + Sync;

/// A running server.
pub(crate) struct Loopback {
    pub(crate) address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Loopback {
    /// Answers each request with the status and JSON that `answer` gives.
    pub(crate) fn start(answer: impl Fn(&Request) -> (u16, Value) + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), answer)
    }

    /// As [`Loopback::start`], on a port that was known before.
    pub(crate) fn on(
        listener: TcpListener,
        answer: impl Fn(&Request) -> (u16, Value) + Send + Sync + 'static,
    ) -> Self {
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let (kept, answer): (_, Arc<Answer>) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &kept, &*answer));
            }
        });
        Self { address, requests }
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Waits until `holds` is true of the requests.
    #[track_caller]
    pub(crate) fn wait_for(&self, holds: impl Fn(&[Request]) -> bool) {
        let began = Instant::now();
        while !holds(&self.requests()) {
            assert!(began.elapsed() < Duration::from_secs(20), "{:#?}", self.requests());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn serve(stream: TcpStream, kept: &Mutex<Vec<Request>>, answer: &Answer) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = read(&mut reader) {
        kept.lock().unwrap().push(request.clone());
        let (status, value) = answer(&request);
        let text = if value.is_null() { String::new() } else { value.to_string() };
        let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n", text.len());
        if (&stream).write_all(format!("{head}{text}").as_bytes()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let (mut length, mut authorization, mut is_chunked) = (0, String::new(), false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => authorization = value.to_owned(),
            "transfer-encoding" => is_chunked = value == "chunked",
            _ => {}
        }
    }
    assert!(!is_chunked, "bodies come with their length");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, authorization, body: String::from_utf8(body).ok()? })
}

/// A pace that does not make tests wait.
pub(crate) fn quick() -> crate::Pace {
    let between = Duration::from_millis(2);
    crate::Pace { between, first_pause: between, patience: Duration::from_secs(5) }
}

/// An empty answer.
pub(crate) fn nothing() -> Value {
    json!({})
}
