//! HTTP/1.1 on a blocking socket, as far as an API needs it: requests with a bounded head and body and a deadline,
//! answers of known length, and event streams that end with the connection.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Most bytes of a request line and its headers.
const HEAD_BYTES: usize = 16 << 10;
/// Most headers.
const HEADERS: usize = 64;
/// How long a request may take to arrive once it has begun.
const ARRIVAL: Duration = Duration::from_secs(30);
/// How long a connection may be idle between requests.
const IDLE: Duration = Duration::from_secs(60);
/// How long a client may take to accept bytes.
const ACCEPTANCE: Duration = Duration::from_secs(30);

/// A request.
#[derive(Debug)]
pub(super) struct HttpRequest {
    pub(super) method: String,
    /// Without what follows a `?`.
    pub(super) path: String,
    pub(super) body: Vec<u8>,
    /// The client wants to send more after the answer.
    pub(super) keeps_alive: bool,
}

/// A request that is answered with a refusal, after which the connection is closed.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) message: String,
}

/// Why there is no request.
#[derive(Debug)]
pub(super) enum NoRequest {
    /// The client has gone, or says nothing.
    Gone,
    Refused(Refused),
}

/// One client.
pub(super) struct Connection {
    stream: TcpStream,
    /// Bytes read and not used.
    read: Vec<u8>,
    body_bytes: usize,
}

/// Method, path and what matters of the headers.
pub(super) struct Head {
    method: String,
    pub(super) path: String,
    pub(super) authorization: Option<String>,
    /// The name under which the client knows the server.
    pub(super) host: Option<String>,
    /// The web page that asks.
    pub(super) origin: Option<String>,
    length: usize,
    keeps_alive: bool,
    expects_continue: bool,
}

fn refused(status: u16, message: impl Into<String>) -> NoRequest {
    NoRequest::Refused(Refused { status, message: message.into() })
}

impl Connection {
    /// `body_bytes`: most bytes of a request's body.
    pub(super) fn new(stream: TcpStream, body_bytes: usize) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(ACCEPTANCE))?;
        Ok(Self { stream, read: Vec::new(), body_bytes })
    }

    /// Waits for the next request. `admits` sees its head before the body is read.
    pub(super) fn request(
        &mut self,
        admits: &dyn Fn(&Head) -> Result<(), Refused>,
    ) -> Result<HttpRequest, NoRequest> {
        if self.read.is_empty() {
            self.more(Instant::now() + IDLE).map_err(|_| NoRequest::Gone)?;
        }
        let deadline = Instant::now() + ARRIVAL;
        let (head, head_bytes) = loop {
            if let Some(found) = head(&self.read)? {
                break found;
            }
            if self.read.len() > HEAD_BYTES {
                return Err(refused(431, format!("headers of more than {HEAD_BYTES} bytes")));
            }
            self.more(deadline)?;
        };
        admits(&head).map_err(NoRequest::Refused)?;
        if head.length > self.body_bytes {
            let (length, most) = (head.length, self.body_bytes);
            return Err(refused(
                413,
                format!("a body of {length} bytes; at most {most} are taken (--max-body)"),
            ));
        }
        if head.expects_continue {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n").map_err(|_| NoRequest::Gone)?;
        }
        self.read.drain(..head_bytes);
        while self.read.len() < head.length {
            self.more(deadline)?;
        }
        let rest = self.read.split_off(head.length);
        let body = std::mem::replace(&mut self.read, rest);
        let Head { method, path, keeps_alive, .. } = head;
        Ok(HttpRequest { method, path, body, keeps_alive })
    }

    /// Reads what comes next.
    fn more(&mut self, deadline: Instant) -> Result<(), NoRequest> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left)).map_err(|_| NoRequest::Gone)?;
        let mut bytes = [0; 8 << 10];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(NoRequest::Gone),
            Ok(count) => {
                self.read.extend_from_slice(&bytes[..count]);
                match Instant::now() > deadline {
                    true => Err(refused(408, "the request took too long to arrive")),
                    false => Ok(()),
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(refused(408, "the request took too long to arrive"))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(_) => Err(NoRequest::Gone),
        }
    }

    /// The whole answer at once; to `HEAD` only what comes before its body.
    pub(super) fn answer(
        &mut self,
        status: u16,
        kind: &str,
        body: &str,
        keeps_alive: bool,
        is_head: bool,
    ) -> io::Result<()> {
        let connection = if keeps_alive { "keep-alive" } else { "close" };
        let retry = if status == 429 { "Retry-After: 1\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{retry}Connection: {connection}\r\n\r\n",
            reason(status),
            body.len()
        );
        let body = if is_head { "" } else { body };
        self.write(&[head.as_bytes(), body.as_bytes()].concat())
    }

    /// Begins a stream of events, which ends with the connection.
    pub(super) fn begin_events(&mut self) -> io::Result<()> {
        self.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nConnection: close\r\n\r\n",
        )
    }

    /// One event.
    pub(super) fn event(&mut self, data: &str) -> io::Result<()> {
        self.write(format!("data: {data}\n\n").as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// The client has closed the connection. A client that only stops sending counts as gone too.
    pub(super) fn is_gone(&self) -> bool {
        let Ok(()) = self.stream.set_nonblocking(true) else { return true };
        let seen = self.stream.peek(&mut [0]);
        let is_gone = match seen {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        self.stream.set_nonblocking(false).is_err() || is_gone
    }

    /// Takes what the client still sends for a moment, so that it can read the refusal before the connection breaks.
    pub(super) fn linger(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        let deadline = Instant::now() + Duration::from_millis(500);
        let mut taken = 0;
        while taken < self.body_bytes && Instant::now() < deadline && self.more(deadline).is_ok() {
            taken += self.read.len();
            self.read.clear();
        }
    }
}

/// The head of a request and its length, once it is whole.
fn head(bytes: &[u8]) -> Result<Option<(Head, usize)>, NoRequest> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(refused(431, format!("more than {HEADERS} headers")));
        }
        Err(error) => return Err(refused(400, format!("not HTTP/1.1: {error}"))),
    };
    let is_new = request.version == Some(1);
    let mut head = Head {
        method: request.method.unwrap_or_default().to_owned(),
        path: request.path.unwrap_or_default().split('?').next().unwrap_or_default().to_owned(),
        authorization: None,
        host: None,
        origin: None,
        length: 0,
        keeps_alive: is_new,
        expects_continue: false,
    };
    let mut lengths = Vec::new();
    for header in request.headers.iter() {
        let value = std::str::from_utf8(header.value).map(str::trim).unwrap_or_default();
        match header.name.to_ascii_lowercase().as_str() {
            "content-length" => match value.bytes().all(|b| b.is_ascii_digit()).then(|| value.parse()) {
                Some(Ok(length)) => lengths.push(length),
                _ => return Err(refused(400, "Content-Length is not a number")),
            },
            "transfer-encoding" => {
                return Err(refused(411, "send the body with a Content-Length, not in chunks"));
            }
            "authorization" => head.authorization = Some(value.to_owned()),
            "host" => head.host = Some(value.to_owned()),
            "origin" => head.origin = Some(value.to_owned()),
            "connection" => {
                let has = |word: &str| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word));
                head.keeps_alive = (is_new || has("keep-alive")) && !has("close");
            }
            "expect" => head.expects_continue = value.eq_ignore_ascii_case("100-continue"),
            _ => {}
        }
    }
    lengths.dedup();
    match lengths[..] {
        [] => {}
        [length] => head.length = length,
        _ => return Err(refused(400, "several lengths of one body")),
    }
    Ok(Some((head, length)))
}

/// What a status is called.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Option<(Head, usize)>, u16> {
        head(text.as_bytes()).map_err(|error| match error {
            NoRequest::Refused(Refused { status, .. }) => status,
            NoRequest::Gone => 0,
        })
    }

    #[test]
    fn heads_are_read_when_they_are_whole() {
        let text = "POST /v1/x?a=b HTTP/1.1\r\nContent-Length: 12\r\nauthorization: Bearer k\r\n\r\n";
        let (head, length) = parsed(text).unwrap().unwrap();
        assert_eq!((head.method.as_str(), head.path.as_str(), head.length), ("POST", "/v1/x", 12));
        assert_eq!(
            (head.authorization.as_deref(), head.keeps_alive, length),
            (Some("Bearer k"), true, text.len())
        );
        assert!(parsed(&text[..40]).unwrap().is_none());
        let keeps =
            |more: &str| parsed(&format!("GET / HTTP/1.{more}\r\n\r\n")).unwrap().unwrap().0.keeps_alive;
        assert!(!keeps("0") && !keeps("1\r\nConnection: close") && keeps("0\r\nConnection: Keep-Alive"));
    }

    #[test]
    fn ambiguous_or_broken_heads_are_refused() {
        let status =
            |headers: &str| parsed(&format!("POST / HTTP/1.1\r\n{headers}\r\n\r\n")).map(|_| ()).unwrap_err();
        assert_eq!(status("Content-Length: 1\r\nContent-Length: 2"), 400);
        assert_eq!(status("Content-Length: -1"), 400);
        assert_eq!(status("Content-Length: +1"), 400);
        assert_eq!(status("Content-Length: 99999999999999999999999"), 400);
        assert_eq!(status("Transfer-Encoding: chunked"), 411);
        assert_eq!(parsed("\u{1}\u{2}\r\n\r\n").map(|_| ()).unwrap_err(), 400);
        let many: String = (0..80).map(|i| format!("X-{i}: 1\r\n")).collect();
        assert_eq!(status(&many), 431);
    }
}
