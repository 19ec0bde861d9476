//! Files behind HTTP, in ranges: the first rows of a file of any size are there after its first megabytes.

use super::blocks::{BLOCK, Blocks};
use foundry_data::ReadAt;
use sha2::{Digest, Sha256};
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use ureq::Agent;
use ureq::http::Response;

/// Attempts of one request.
const ATTEMPTS: u32 = 5;
/// The wait after the first failed attempt; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Makes the address of a request: that of an object store is signed, and only for some time.
pub(super) type Address = Box<dyn Fn() -> String + Send + Sync>;

/// A file behind HTTP.
pub(super) struct HttpFile {
    agent: Agent,
    address: Address,
    /// For messages: without a signature.
    name: String,
    size: u64,
    /// What the server calls this version of the file.
    tag: Option<String>,
    blocks: Mutex<Blocks>,
}

impl std::fmt::Debug for HttpFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpFile").field("name", &self.name).field("size", &self.size).finish()
    }
}

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpProblem {
    #[error("the server answers {}", described(*.0))]
    Status(u16),
    #[error("{0}")]
    Network(String),
    #[error("the server does not say how long the file is; download it, and give its path")]
    NoSize,
    #[error(
        "the server does not send parts of files, and this one has {0} bytes; download it, and give its path"
    )]
    NoRanges(u64),
    #[error(
        "`{prefix}` stands for more than {most} names, or the store's list does not end; narrow the pattern, or give several"
    )]
    TooManyNames { most: usize, prefix: String },
    #[error("the cache {dir}: {source}")]
    Cache { dir: String, source: io::Error },
}

impl HttpProblem {
    /// The world's fault (exit code 1), not the input's (2).
    pub(super) fn is_of_the_world(&self) -> bool {
        match self {
            Self::Network(_) | Self::Cache { .. } => true,
            Self::Status(status) => *status >= 500,
            Self::NoSize | Self::NoRanges(_) | Self::TooManyNames { .. } => false,
        }
    }
}

/// A status and what to do about it.
fn described(status: u16) -> String {
    let advice = match status {
        401 | 403 => " (not allowed): check the credentials and the address",
        404 => " (not found): check the address",
        _ => "",
    };
    format!("{status}{advice}")
}

/// A client for files.
pub(super) fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_recv_body(Some(Duration::from_secs(300)))
        .user_agent(concat!("llm-foundry/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

impl HttpFile {
    /// Asks for the first byte of a file, which tells its size and its version; `cache` is where blocks are kept.
    pub(super) fn open(
        agent: Agent,
        name: &str,
        address: Address,
        cache: &Path,
    ) -> Result<Self, HttpProblem> {
        let answer = attempts(|| get(&agent, &address(), Some("bytes=0-0"), None))?;
        let status = answer.status().as_u16();
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let size = match status {
            206 => header("content-range").and_then(total).ok_or(HttpProblem::NoSize)?,
            // An empty file has no first byte.
            416 if header("content-range") == Some("bytes */0") => 0,
            200 => match header("content-length").and_then(|length| length.parse().ok()) {
                None => return Err(HttpProblem::NoSize),
                Some(length) if length > BLOCK => return Err(HttpProblem::NoRanges(length)),
                Some(length) => length,
            },
            other => return Err(HttpProblem::Status(other)),
        };
        let tag = tag(&answer);
        let version = match &tag {
            Some(tag) if tag.starts_with('"') => format!("{name}\n{size}\n{tag}"),
            // A time says nothing about which of the server's files it is, a signature in the address or not.
            Some(time) => format!("{}\n{size}\n{time}", address()),
            // Nothing tells whether what was kept is what the server has now.
            None => format!("{name}\n{}\n{:?}", std::process::id(), std::time::SystemTime::now()),
        };
        let key: String = Sha256::digest(version).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let opened = match &tag {
            Some(_) => Blocks::open(cache, &key, size),
            None => Blocks::of_this_run(cache, &key, size),
        };
        let blocks =
            opened.map_err(|source| HttpProblem::Cache { dir: cache.display().to_string(), source })?;
        let name = name.to_owned();
        Ok(Self { agent, address, name, size, tag, blocks: Mutex::new(blocks) })
    }

    /// The bytes from `start` to before `end`.
    fn fetch(&self, start: u64, end: u64) -> io::Result<Vec<u8>> {
        let range = format!("bytes={start}-{}", end - 1);
        let mut problem = None;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(FIRST_PAUSE * 2u32.pow(attempt - 1));
            }
            match self.part(&range, start, end) {
                Ok(bytes) => return Ok(bytes),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
                Err(error) => problem = Some(error),
            }
        }
        Err(problem.unwrap_or_else(|| io::Error::other("no attempt was made")))
    }

    /// Whether an answer with all of the file is of the version that was opened.
    fn is_same(&self, answer: &Response<ureq::Body>) -> bool {
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let size = header("content-length").and_then(|length| length.parse().ok());
        size == Some(self.size) && tag(answer) == self.tag
    }

    fn part(&self, range: &str, start: u64, end: u64) -> io::Result<Vec<u8>> {
        let changed = |what: &str| {
            let problem =
                format!("the file has changed on the server while it was read ({what}); start again");
            Err(io::Error::new(io::ErrorKind::InvalidData, problem))
        };
        let mut answer = get(&self.agent, &(self.address)(), Some(range), self.tag.as_deref())
            .map_err(|problem| io::Error::other(problem.to_string()))?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        match answer.status().as_u16() {
            206 if header("content-range").and_then(total) != Some(self.size) => return changed("its size"),
            206 => {}
            // The whole file, where that is one block; else a server that has another version of it.
            200 if (start, end) == (0, self.size) && self.is_same(&answer) => {}
            200 | 412 => return changed("its version"),
            416 => return changed("it is shorter"),
            status @ (401 | 403 | 404) => {
                let problem = format!("the server answers {}", described(status));
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
            }
            status => return Err(io::Error::other(format!("the server answers {status}"))),
        }
        let mut bytes = Vec::with_capacity((end - start) as usize);
        answer.body_mut().as_reader().take(end - start + 1).read_to_end(&mut bytes)?;
        match bytes.len() as u64 == end - start {
            true => Ok(bytes),
            false => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was cut")),
        }
    }
}

impl ReadAt for HttpFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if offset >= self.size || buffer.is_empty() {
            return Ok(0);
        }
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let number = offset / BLOCK;
        let block = blocks.block(number, |start, end| self.fetch(start, end))?;
        let from = &block[(offset - number * BLOCK) as usize..];
        let count = from.len().min(buffer.len());
        buffer[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }
}

/// What a server calls the version that it answers with.
fn tag(answer: &Response<ureq::Body>) -> Option<String> {
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    // A weak tag is no promise about bytes.
    let tag = header("etag").filter(|tag| !tag.starts_with("W/")).or(header("last-modified"));
    tag.map(str::to_owned)
}

/// One request.
pub(super) fn get(
    agent: &Agent,
    address: &str,
    range: Option<&str>,
    if_range: Option<&str>,
) -> Result<Response<ureq::Body>, HttpProblem> {
    let mut request = agent.get(address);
    // Bytes as they are stored: a range of what was compressed for the way means nothing.
    request = request.header("accept-encoding", "identity");
    if let Some(range) = range {
        request = request.header("range", range);
    }
    if let Some(tag) = if_range {
        request = request.header("if-range", tag);
    }
    request.call().map_err(|error| HttpProblem::Network(error.to_string()))
}

/// Repeats a request that the network or a busy server has failed.
pub(super) fn attempts(
    request: impl Fn() -> Result<Response<ureq::Body>, HttpProblem>,
) -> Result<Response<ureq::Body>, HttpProblem> {
    let mut answer = request();
    for attempt in 1..ATTEMPTS {
        let is_busy = match &answer {
            Ok(answer) => matches!(answer.status().as_u16(), 429 | 500..=599),
            Err(HttpProblem::Network(_)) => true,
            Err(_) => false,
        };
        if !is_busy {
            break;
        }
        std::thread::sleep(FIRST_PAUSE * 2u32.pow(attempt - 1));
        answer = request();
    }
    answer
}

/// SIZE of `bytes FIRST-LAST/SIZE`.
fn total(content_range: &str) -> Option<u64> {
    content_range.strip_prefix("bytes ")?.rsplit_once('/')?.1.parse().ok()
}
