//! Uploads to the hub: the calls that `huggingface_hub` 1.x makes for `upload_folder` (the crate `hf-hub` only
//! downloads).
//!
//! 1. `POST /api/repos/create` (409: it is there); for a branch `POST /api/models/REPO/branch/NAME`.
//! 2. `POST /api/models/REPO/preupload/REVISION` says for each file whether it belongs into git or into
//!    large-file storage.
//! 3. `POST /REPO.git/info/lfs/objects/batch` says where large files go; they are `PUT` there, whole or in parts.
//! 4. `POST /api/models/REPO/commit/REVISION` makes one commit of all files: nothing is visible before it.

use super::HubSettings;
use super::upload_error::PushError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::{Method, Response};
use ureq::{Agent, Body, SendBody};

/// A file to be uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upload {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its name in the repository.
    pub(crate) name: String,
    /// Its length.
    pub(crate) bytes: u64,
}

/// What is wanted of the repository.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// `org/name`, or `name` of the token's owner.
    pub(crate) repo: String,
    /// Branch; made if it is not there.
    pub(crate) revision: String,
    /// A repository that is made now is private.
    pub(crate) private: bool,
    /// Summary of the commit.
    pub(crate) message: String,
}

/// Attempts of one request.
const ATTEMPTS: u32 = 5;
/// The wait after the first failed attempt; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// A client with a token.
pub(crate) struct Uploader<'a> {
    agent: Agent,
    endpoint: &'a str,
    token: &'a str,
    first_pause: Duration,
    /// Told about each large file before it is sent.
    say: &'a dyn Fn(String),
}

/// Where the body of a request comes from; asked anew for each attempt.
enum Payload<'a> {
    Nothing,
    Bytes(&'a [u8]),
    /// A part of a file: start and length.
    Part(&'a Path, u64, u64),
}

impl<'a> Uploader<'a> {
    /// A client for the hub of these settings.
    pub(crate) fn new(settings: &'a HubSettings, say: &'a dyn Fn(String)) -> Result<Self, PushError> {
        let endpoint = settings.endpoint.as_str();
        if settings.offline {
            return Err(PushError::Offline);
        }
        let token =
            settings.token.as_deref().ok_or_else(|| PushError::NoToken { endpoint: endpoint.into() })?;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(Duration::from_secs(300)))
            .user_agent(concat!("llm-foundry/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Self { agent, endpoint, token, first_pause: FIRST_PAUSE, say })
    }

    /// The same with another wait between attempts.
    #[cfg(test)]
    pub(crate) fn with_first_pause(self, first_pause: Duration) -> Self {
        Self { first_pause, ..self }
    }

    /// Uploads the files as one commit and returns its address.
    pub(crate) fn push(&self, target: &Target, files: &[Upload]) -> Result<String, PushError> {
        let repo = self.full_name(&target.repo)?;
        self.create(&repo, target)?;
        let revision = quoted(&target.revision);
        if target.revision != "main" {
            let url = format!("{}/api/models/{repo}/branch/{revision}", self.endpoint);
            let answer = self.ask("make the branch", Method::POST, &url, &json!({}))?;
            self.accept("make the branch", answer, &[409])?;
        }
        let large = self.large_files(&repo, &revision, files)?;
        let mut hashes = Vec::new();
        for file in files {
            let is_large = large.contains(&file.name);
            hashes.push(if is_large { Some(sha256(&file.path)?) } else { None });
        }
        self.send_large(&repo, &target.revision, files, &hashes)?;
        self.commit(&repo, &revision, &target.message, files, &hashes)
    }

    /// `org/name`; the owner of the token where only a name was given.
    fn full_name(&self, repo: &str) -> Result<String, PushError> {
        if repo.contains('/') {
            return Ok(repo.to_owned());
        }
        let what = "ask who the token belongs to";
        let url = format!("{}/api/whoami-v2", self.endpoint);
        let answer = self.send(what, Method::GET, &url, &self.own_headers(None), &Payload::Nothing, true)?;
        let who = self.accept(what, answer, &[])?;
        let name = who["name"].as_str().ok_or_else(|| nonsense(what, "it names nobody"))?;
        Ok(format!("{name}/{repo}"))
    }

    fn create(&self, repo: &str, target: &Target) -> Result<(), PushError> {
        let what = "make the repository";
        let (organization, name) = repo.split_once('/').unwrap_or(("", repo));
        let mut wish = json!({ "name": name, "organization": organization, "type": "model" });
        if target.private {
            wish["visibility"] = "private".into();
        }
        let url = format!("{}/api/repos/create", self.endpoint);
        let answer = self.ask(what, Method::POST, &url, &wish)?;
        // Who may not make repositories may still write into one that is there.
        if matches!(answer.status().as_u16(), 401 | 403) {
            let url = format!("{}/api/models/{repo}", self.endpoint);
            let headers = self.own_headers(None);
            let there = self.send(what, Method::GET, &url, &headers, &Payload::Nothing, true)?;
            if there.status().is_success() {
                return Ok(());
            }
        }
        let was_there = answer.status().as_u16() == 409;
        self.accept(what, answer, &[409])?;
        if was_there && target.private { self.check_private(repo) } else { Ok(()) }
    }

    /// `--private` is a wish for repositories that are made; one that everybody can read is not written to then.
    fn check_private(&self, repo: &str) -> Result<(), PushError> {
        let what = "ask who may read the repository";
        let url = format!("{}/api/models/{repo}", self.endpoint);
        let answer = self.send(what, Method::GET, &url, &self.own_headers(None), &Payload::Nothing, true)?;
        let about = self.accept(what, answer, &[])?;
        match about["private"].as_bool() {
            Some(true) => Ok(()),
            _ => Err(PushError::Public { repo: repo.to_owned() }),
        }
    }

    /// Names of the files that belong into large-file storage.
    fn large_files(&self, repo: &str, revision: &str, files: &[Upload]) -> Result<Vec<String>, PushError> {
        let what = "ask where each file belongs";
        let url = format!("{}/api/models/{repo}/preupload/{revision}", self.endpoint);
        let mut large = Vec::new();
        for files in files.chunks(256) {
            let mut described = Vec::new();
            for file in files {
                let mut sample = Vec::new();
                let read = File::open(&file.path).and_then(|f| f.take(512).read_to_end(&mut sample));
                read.map_err(|source| PushError::File { path: file.path.clone(), source })?;
                let sample = BASE64.encode(sample);
                described.push(json!({ "path": file.name, "sample": sample, "size": file.bytes }));
            }
            let answer = self.ask(what, Method::POST, &url, &json!({ "files": described }))?;
            let modes = self.accept(what, answer, &[])?;
            for file in files {
                let mut answers = modes["files"].as_array().into_iter().flatten();
                let mode = answers.find(|answer| answer["path"] == file.name.as_str());
                match mode.and_then(|mode| mode["uploadMode"].as_str()) {
                    // An empty object cannot be stored there.
                    Some("lfs") if file.bytes > 0 => large.push(file.name.clone()),
                    Some("lfs" | "regular") => {}
                    _ => return Err(nonsense(what, &format!("it does not say for {}", file.name))),
                }
            }
        }
        Ok(large)
    }

    /// Sends the large files that the hub does not have yet.
    fn send_large(
        &self,
        repo: &str,
        revision: &str,
        files: &[Upload],
        hashes: &[Option<String>],
    ) -> Result<(), PushError> {
        let what = "ask where large files go";
        let large: Vec<(&Upload, &String)> =
            files.iter().zip(hashes).filter_map(|(file, hash)| Some((file, hash.as_ref()?))).collect();
        for large in large.chunks(256) {
            let objects: Vec<Value> =
                large.iter().map(|(file, oid)| json!({ "oid": oid, "size": file.bytes })).collect();
            let wish = json!({
                "operation": "upload",
                "transfers": ["basic", "multipart"],
                "objects": objects,
                "hash_algo": "sha256",
                "ref": { "name": revision },
            });
            let url = format!("{}/{repo}.git/info/lfs/objects/batch", self.endpoint);
            let body = wish.to_string();
            let headers = self.own_headers(Some("application/vnd.git-lfs+json"));
            let answer =
                self.send(what, Method::POST, &url, &headers, &Payload::Bytes(body.as_bytes()), true)?;
            let answer = self.accept(what, answer, &[])?;
            for (file, oid) in large {
                let mut objects = answer["objects"].as_array().into_iter().flatten();
                let object = objects.find(|object| object["oid"] == oid.as_str());
                let object = object.ok_or_else(|| nonsense(what, &format!("it leaves out {}", file.name)))?;
                if let Some(message) = object["error"]["message"].as_str() {
                    let (what, status) = (format!("upload {}", file.name), 422);
                    return Err(PushError::Refused { what, status, said: message.to_owned() });
                }
                self.send_object(file, oid, &object["actions"])?;
            }
        }
        Ok(())
    }

    /// One large file, as the hub's answer says; without an answer it is there already.
    fn send_object(&self, file: &Upload, oid: &str, actions: &Value) -> Result<(), PushError> {
        if actions.is_null() {
            return Ok(());
        }
        (self.say)(format!("uploading {} ({})", file.name, crate::console::bytes(file.bytes)));
        let what = format!("upload {}", file.name);
        let upload = &actions["upload"];
        let href = self.own_address(upload["href"].as_str().ok_or_else(|| nonsense(&what, "no address"))?);
        let header = &upload["header"];
        match &header["chunk_size"] {
            Value::Null => {
                let payload = Payload::Part(&file.path, 0, file.bytes);
                let answer = self.send(&what, Method::PUT, &href, &[], &payload, true)?;
                self.accept_any(&what, answer)?;
            }
            size => {
                let chunk = size.as_u64().or_else(|| size.as_str()?.parse().ok()).filter(|&size| size > 0);
                let chunk = chunk.ok_or_else(|| nonsense(&what, "parts of no size"))?;
                let parts = self.send_parts(&what, file, header, chunk)?;
                let done = json!({ "oid": oid, "parts": parts }).to_string();
                let headers = [lfs_accept(), lfs_type()];
                let answer =
                    self.send(&what, Method::POST, &href, &headers, &Payload::Bytes(done.as_bytes()), true)?;
                self.accept_any(&what, answer)?;
            }
        }
        if let Some(href) = actions["verify"]["href"].as_str() {
            let href = self.own_address(href);
            let body = json!({ "oid": oid, "size": file.bytes }).to_string();
            let own = href.starts_with(&format!("{}/", self.endpoint));
            let headers = if own { self.own_headers(Some("application/json")) } else { vec![json_type()] };
            let answer =
                self.send(&what, Method::POST, &href, &headers, &Payload::Bytes(body.as_bytes()), true)?;
            self.accept_any(&what, answer)?;
        }
        Ok(())
    }

    /// A file in parts: `header` holds their addresses under their numbers.
    fn send_parts(
        &self,
        what: &str,
        file: &Upload,
        header: &Value,
        chunk: u64,
    ) -> Result<Vec<Value>, PushError> {
        let mut addresses: Vec<(u64, &str)> = header
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(number, address)| Some((number.parse().ok()?, address.as_str()?)))
            .collect();
        addresses.sort();
        if addresses.len() as u64 != file.bytes.div_ceil(chunk) {
            return Err(nonsense(what, "another number of parts than the file has"));
        }
        let mut parts = Vec::new();
        for (index, (_, address)) in addresses.into_iter().enumerate() {
            let start = index as u64 * chunk;
            let payload = Payload::Part(&file.path, start, chunk.min(file.bytes - start));
            let answer = self.send(what, Method::PUT, address, &[], &payload, true)?;
            let etag = answer.headers().get("etag").and_then(|etag| etag.to_str().ok()).map(str::to_owned);
            self.accept_any(what, answer)?;
            let etag = etag.ok_or_else(|| nonsense(what, "a part without an etag"))?;
            parts.push(json!({ "partNumber": index + 1, "etag": etag }));
        }
        Ok(parts)
    }

    fn commit(
        &self,
        repo: &str,
        revision: &str,
        message: &str,
        files: &[Upload],
        hashes: &[Option<String>],
    ) -> Result<String, PushError> {
        let what = "make the commit";
        let header = json!({ "key": "header", "value": { "summary": message, "description": "" } });
        let mut lines = format!("{header}\n");
        for (file, hash) in files.iter().zip(hashes) {
            let line = match hash {
                Some(oid) => {
                    let value =
                        json!({ "path": file.name, "algo": "sha256", "oid": oid, "size": file.bytes });
                    json!({ "key": "lfsFile", "value": value })
                }
                None => {
                    let content = std::fs::read(&file.path)
                        .map_err(|source| PushError::File { path: file.path.clone(), source })?;
                    let content = BASE64.encode(content);
                    json!({ "key": "file", "value": { "path": file.name, "encoding": "base64", "content": content } })
                }
            };
            lines.push_str(&format!("{line}\n"));
        }
        let url = format!("{}/api/models/{repo}/commit/{revision}", self.endpoint);
        let headers = self.own_headers(Some("application/x-ndjson"));
        // Not tried again: a commit whose answer was lost would be made twice.
        let answer =
            self.send(what, Method::POST, &url, &headers, &Payload::Bytes(lines.as_bytes()), false)?;
        let answer = self.accept(what, answer, &[])?;
        let url = answer["commitUrl"].as_str().map(str::to_owned);
        Ok(url.unwrap_or_else(|| format!("{}/{repo}/tree/{revision}", self.endpoint)))
    }

    /// A JSON request to the hub itself, with the token.
    fn ask(&self, what: &str, method: Method, url: &str, wish: &Value) -> Result<Response<Body>, PushError> {
        let body = wish.to_string();
        let headers = self.own_headers(Some("application/json"));
        self.send(what, method, url, &headers, &Payload::Bytes(body.as_bytes()), true)
    }

    /// Sends a request; with `again`, also a second time and up to [`ATTEMPTS`] times where waiting may help.
    fn send(
        &self,
        what: &str,
        method: Method,
        url: &str,
        headers: &[(&'static str, String)],
        payload: &Payload<'_>,
        again: bool,
    ) -> Result<Response<Body>, PushError> {
        let mut pause = self.first_pause;
        for attempt in 1.. {
            let answer = self.attempt(method.clone(), url, headers, payload);
            let may_help = match &answer {
                Ok(answer) => matches!(answer.status().as_u16(), 408 | 429 | 500 | 502 | 503 | 504),
                Err(PushError::Network { .. }) => true,
                Err(_) => false,
            };
            if !may_help || !again || attempt == ATTEMPTS {
                return answer.map_err(|error| error.while_doing(what));
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
        unreachable!("the last attempt returns")
    }

    fn attempt(
        &self,
        method: Method,
        url: &str,
        headers: &[(&'static str, String)],
        payload: &Payload<'_>,
    ) -> Result<Response<Body>, PushError> {
        let network = |error: &dyn std::fmt::Display| PushError::Network {
            what: String::new(),
            endpoint: self.endpoint.to_owned(),
            cause: error.to_string(),
        };
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        match payload {
            Payload::Nothing => {
                let request = request.body(()).map_err(|e| network(&e))?;
                self.agent.run(request).map_err(|e| network(&e))
            }
            Payload::Bytes(bytes) => {
                let request = request.body(*bytes).map_err(|e| network(&e))?;
                self.agent.run(request).map_err(|e| network(&e))
            }
            Payload::Part(path, start, bytes) => {
                let file = |source| PushError::File { path: path.to_path_buf(), source };
                let mut from = File::open(path).map_err(file)?;
                from.seek(SeekFrom::Start(*start)).map_err(file)?;
                let mut part = from.take(*bytes);
                // Storage wants a length, not chunks.
                request = request.header("content-length", bytes.to_string());
                let request = request.body(SendBody::from_reader(&mut part)).map_err(|e| network(&e))?;
                self.agent.run(request).map_err(|e| network(&e))
            }
        }
    }

    /// The JSON of an answer that is a success, or (then null) one of `also`.
    fn accept(&self, what: &str, mut answer: Response<Body>, also: &[u16]) -> Result<Value, PushError> {
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        if also.contains(&status) {
            return Ok(Value::Null);
        }
        if answer.status().is_success() {
            return serde_json::from_str(&text).map_err(|_| nonsense(what, "it is not JSON"));
        }
        let said: Value = serde_json::from_str(&text).unwrap_or_default();
        let said = said["error"].as_str().map_or_else(|| text.chars().take(300).collect(), str::to_owned);
        let endpoint = self.endpoint.to_owned();
        Err(match status {
            401 | 403 => PushError::Unauthorized { what: what.to_owned(), endpoint, status, said },
            _ => PushError::Refused { what: what.to_owned(), status, said },
        })
    }

    /// A success, whatever it says.
    fn accept_any(&self, what: &str, answer: Response<Body>) -> Result<(), PushError> {
        if answer.status().is_success() { Ok(()) } else { self.accept(what, answer, &[]).map(|_| ()) }
    }

    /// Headers of requests to the hub itself: the token goes nowhere else.
    fn own_headers(&self, content_type: Option<&str>) -> Vec<(&'static str, String)> {
        let mut headers = vec![("authorization", format!("Bearer {}", self.token))];
        if let Some(content_type) = content_type {
            headers.push(("content-type", content_type.to_owned()));
            if content_type.contains("git-lfs") {
                headers.push(lfs_accept());
            }
        }
        headers
    }

    /// A mirror hands out addresses of the hub itself: they are asked of the mirror (as `fix_hf_endpoint_in_url` does).
    fn own_address(&self, href: &str) -> String {
        match href.strip_prefix(DEFAULT_ENDPOINT).filter(|rest| rest.starts_with('/')) {
            Some(rest) => format!("{}{rest}", self.endpoint),
            None => href.to_owned(),
        }
    }
}

fn lfs_accept() -> (&'static str, String) {
    ("accept", "application/vnd.git-lfs+json".into())
}

fn lfs_type() -> (&'static str, String) {
    ("content-type", "application/vnd.git-lfs+json".into())
}

fn json_type() -> (&'static str, String) {
    ("content-type", "application/json".into())
}

fn nonsense(what: &str, why: &str) -> PushError {
    PushError::Nonsense { what: what.to_owned(), why: why.to_owned() }
}

fn sha256(path: &Path) -> Result<String, PushError> {
    let failed = |source| PushError::File { path: path.to_path_buf(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => hash.update(&piece[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A part of a path in which only unreserved characters stay.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let mut quoted = String::new();
    for byte in text.bytes() {
        if is_plain(byte) { quoted.push(byte as char) } else { quoted.push_str(&format!("%{byte:02X}")) }
    }
    quoted
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;
