//! Downloads against a small server on loopback that answers as the hub does.

use super::*;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server has and how it behaves.
#[derive(Clone, Default)]
pub(super) struct Hub {
    pub(super) files: HashMap<String, Vec<u8>>,
    /// Files that answer with a redirect to another address of this server, as large files do.
    pub(super) redirected: Vec<String>,
    /// Requests without this token are answered 401.
    pub(super) token: Option<String>,
    /// Bodies are cut after so many bytes, once for each file.
    pub(super) drop_after: Option<usize>,
    /// Ranges other than the first byte are ignored, as broken proxies do.
    pub(super) ignores_ranges: bool,
    pub(super) sha: Option<String>,
}

pub(super) struct Server {
    pub(super) endpoint: String,
    pub(super) requests: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    pub(super) fn with(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect();
        Self { files, ..Self::default() }
    }

    fn complete() -> Self {
        Self::with(&[
            ("config.json", "{\"a\": 1}"),
            ("tokenizer.json", "{}"),
            ("model.safetensors", "weights weights"),
        ])
    }

    pub(super) fn start(self) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        let address = endpoint.clone();
        std::thread::spawn(move || {
            let mut dropped = Vec::new();
            for stream in listener.incoming().flatten() {
                // A client that goes away in the middle is part of the tests.
                let _ = self.answer(stream, &address, &log, &mut dropped);
            }
        });
        Server { endpoint, requests }
    }

    fn answer(
        &self,
        mut stream: TcpStream,
        address: &str,
        log: &Mutex<Vec<String>>,
        dropped: &mut Vec<String>,
    ) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut head = String::new();
        while reader.read_line(&mut head)? > 2 {}
        let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
        let header = |name: &str| {
            head.lines()
                .find_map(|l| l.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)))
                .map(|(_, v)| v.trim())
        };
        let range = header("range").map(str::to_owned);
        let authorised =
            self.token.as_ref().is_none_or(|t| header("authorization") == Some(&format!("Bearer {t}")));
        log.lock().expect("not poisoned").push(format!("{path} {}", range.as_deref().unwrap_or("-")));
        let close = "connection: close\r\n";
        if !authorised && !path.starts_with("/cdn/") {
            return write!(stream, "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n{close}\r\n");
        }
        let sha = self.sha.as_deref().unwrap_or(COMMIT);
        if ["models", "datasets"]
            .iter()
            .any(|kind| path.starts_with(&format!("/api/{kind}/org/name/revision/")))
        {
            let siblings: Vec<_> = self.files.keys().map(|f| serde_json::json!({ "rfilename": f })).collect();
            let body = serde_json::json!({ "siblings": siblings, "sha": sha }).to_string();
            return write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{close}\r\n{body}", body.len());
        }
        let resolved = path.split_once("/resolve/").and_then(|(_, rest)| rest.split_once('/'));
        let name = resolved.map_or_else(|| path.rsplit('/').next().unwrap_or_default(), |(_, file)| file);
        let Some(body) = self.files.get(name) else {
            return write!(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n{close}\r\n");
        };
        let etag = name.replace('/', "-");
        let about = format!("etag: \"etag-of-{etag}\"\r\nx-repo-commit: {sha}\r\n{close}");
        if self.redirected.iter().any(|f| f == name) && !path.starts_with("/cdn/") {
            let to = format!("{address}/cdn/{name}");
            return write!(
                stream,
                "HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n{about}\r\n"
            );
        }
        let (first, last) = self.range(range.as_deref(), body.len());
        if first >= body.len() {
            return write!(stream, "HTTP/1.1 416 Range Not Satisfiable\r\ncontent-length: 0\r\n{about}\r\n");
        }
        let part = &body[first..=last];
        write!(stream, "HTTP/1.1 206 Partial Content\r\ncontent-length: {}\r\n", part.len())?;
        write!(stream, "content-range: bytes {first}-{last}/{}\r\n{about}\r\n", body.len())?;
        let cut = self.drop_after.filter(|n| part.len() > *n && !dropped.contains(&name.to_owned()));
        if cut.is_some() {
            dropped.push(name.to_owned());
        }
        stream.write_all(&part[..cut.unwrap_or(part.len())])
    }

    fn range(&self, range: Option<&str>, len: usize) -> (usize, usize) {
        let (first, last) =
            range.and_then(|r| r.strip_prefix("bytes=")?.split_once('-')).unwrap_or(("0", ""));
        let last = last.parse().unwrap_or(len - 1).min(len - 1);
        let first = first.parse().unwrap_or(0);
        if self.ignores_ranges && last > 0 { (0, len - 1) } else { (first, last) }
    }
}

pub(super) struct Client {
    pub(super) settings: HubSettings,
    _dir: tempfile::TempDir,
}

impl Client {
    pub(super) fn new(endpoint: &str, vars: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let home = dir.path().display().to_string();
        let settings = HubSettings::from_env(|name| match name {
            "HF_HOME" => Some(home.clone()),
            "HF_ENDPOINT" => Some(endpoint.to_owned()),
            _ => vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()),
        });
        Self { settings, _dir: dir }
    }

    fn fetch(&self, need: Need) -> Result<PathBuf, HubError> {
        fetch(&self.settings, "org/name", "main", need, true)
    }

    fn refusal(&self, need: Need) -> String {
        self.fetch(need).expect_err("refused").to_string()
    }
}

fn read(dir: &std::path::Path, file: &str) -> String {
    std::fs::read_to_string(dir.join(file)).expect("downloaded")
}

#[test]
fn a_model_is_downloaded_once_into_the_layout_of_huggingface_hub() {
    let server = Hub { redirected: vec!["model.safetensors".into()], ..Hub::complete() }.start();
    let client = Client::new(&server.endpoint, &[]);
    let dir = client.fetch(Need::Everything).expect("downloaded");
    assert!(dir.ends_with(format!("hub/models--org--name/snapshots/{COMMIT}")), "{}", dir.display());
    assert_eq!(read(&dir, "model.safetensors"), "weights weights");
    let repository = client.settings.repository("org/name");
    assert_eq!(read(&repository, "refs/main"), COMMIT);
    assert_eq!(read(&repository, "blobs/etag-of-config.json"), "{\"a\": 1}");
    assert_eq!(std::fs::read_dir(repository.join("refs")).expect("there").count(), 1);
    let asked = server.requests.lock().expect("not poisoned").len();
    assert_eq!(client.fetch(Need::Everything).expect("from the cache"), dir);
    assert_eq!(server.requests.lock().expect("not poisoned").len(), asked, "the network was used again");
}

#[test]
fn a_plan_needs_no_weights() {
    let server = Hub::complete().start();
    let client = Client::new(&server.endpoint, &[]);
    let dir = client.fetch(Need::Description).expect("downloaded");
    assert!(dir.join("tokenizer.json").exists());
    assert!(!dir.join("model.safetensors").exists());
}

#[test]
fn shards_come_from_the_index() {
    let index = r#"{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}"#;
    let files = [
        ("config.json", "{}"),
        ("tokenizer.json", "{}"),
        ("model.safetensors.index.json", index),
        ("m-1.safetensors", "one"),
        ("m-2.safetensors", "two"),
        ("pytorch_model.bin", "code"),
    ];
    let client = Client::new(&Hub::with(&files).start().endpoint, &[]);
    let dir = client.fetch(Need::Everything).expect("downloaded");
    assert_eq!((read(&dir, "m-1.safetensors"), read(&dir, "m-2.safetensors")), ("one".into(), "two".into()));
    assert!(!dir.join("pytorch_model.bin").exists());
}

#[test]
fn an_index_cannot_lead_outside() {
    let index = r#"{"weight_map": {"a": "../../../evil.safetensors"}}"#;
    let files = [("config.json", "{}"), ("tokenizer.json", "{}"), ("model.safetensors.index.json", index)];
    let said = Client::new(&Hub::with(&files).start().endpoint, &[]).refusal(Need::Everything);
    assert!(said.contains("makes no sense"), "{said}");
}

#[test]
fn a_dropped_connection_is_told_and_then_continued() {
    let server = Hub { drop_after: Some(6), ..Hub::complete() }.start();
    let client = Client::new(&server.endpoint, &[]);
    let mut refusals = Vec::new();
    let dir = loop {
        match client.fetch(Need::Everything) {
            Ok(dir) => break dir,
            Err(error) => refusals.push(error.to_string()),
        }
        assert!(refusals.len() < 5, "{refusals:?}");
    };
    assert!(refusals.iter().all(|r| r.contains("run the command again to continue")), "{refusals:?}");
    assert!(refusals.len() >= 2, "config and weights are longer than what comes through: {refusals:?}");
    assert_eq!(read(&dir, "model.safetensors"), "weights weights");
    let requests = server.requests.lock().expect("not poisoned");
    assert!(requests.iter().any(|r| r.ends_with("model.safetensors bytes=6-")), "{requests:?}");
}

#[test]
fn a_server_that_ignores_ranges_does_not_spoil_a_file() {
    let server = Hub { drop_after: Some(6), ignores_ranges: true, ..Hub::complete() }.start();
    let client = Client::new(&server.endpoint, &[]);
    let mut refusals = Vec::new();
    let dir = loop {
        match client.fetch(Need::Everything) {
            Ok(dir) => break dir,
            Err(error) => refusals.push(error.to_string()),
        }
        assert!(refusals.len() < 8, "{refusals:?}");
    };
    assert_eq!(read(&dir, "model.safetensors"), "weights weights");
    assert!(refusals.iter().any(|r| r.contains("thrown away")), "{refusals:?}");
}

#[test]
fn a_complete_part_that_was_never_renamed_is_used_or_replaced() {
    let server = Hub::complete().start();
    let client = Client::new(&server.endpoint, &[]);
    let blobs = client.settings.repository("org/name").join("blobs");
    std::fs::create_dir_all(&blobs).expect("made");
    // hf-hub replaces the extension of the blob's name: `etag-of-config.json` becomes `etag-of-config.part`.
    std::fs::write(blobs.join("etag-of-config.part"), "{\"a\": 1}").expect("written");
    let dir = client.fetch(Need::Description).expect("downloaded");
    assert_eq!(read(&dir, "config.json"), "{\"a\": 1}");
}

#[test]
fn refusals_say_what_to_do() {
    let private = Hub { token: Some("secret".into()), ..Hub::complete() };
    let server = private.start();
    let said = Client::new(&server.endpoint, &[]).refusal(Need::Everything);
    assert!(said.contains("401") && said.contains("set HF_TOKEN"), "{said}");
    let said = Client::new(&server.endpoint, &[("HF_TOKEN", "hf_abc")]).refusal(Need::Everything);
    assert!(said.contains("the token in HF_TOKEN has no access") && !said.contains("hf_abc"), "{said}");
    let client = Client::new(&server.endpoint, &[("HF_TOKEN", "secret")]);
    assert!(client.fetch(Need::Everything).is_ok());

    let said = fetch(&client.settings, "org/other", "main", Need::Everything, true)
        .expect_err("unknown")
        .to_string();
    assert!(said.contains("knows no such model"), "{said}");

    let pickle =
        Hub::with(&[("config.json", "{}"), ("tokenizer.json", "{}"), ("pytorch_model.bin", "x")]).start();
    let said = Client::new(&pickle.endpoint, &[]).refusal(Need::Everything);
    assert!(said.contains("pickle") && said.contains("convert it once"), "{said}");

    let gguf = Hub::with(&[("m-Q4_K_M.gguf", "x")]).start();
    let said = Client::new(&gguf.endpoint, &[]).refusal(Need::Everything);
    assert!(said.contains("m-Q4_K_M.gguf"), "{said}");

    let odd = Hub { sha: Some("../../x".into()), ..Hub::complete() }.start();
    let said = Client::new(&odd.endpoint, &[]).refusal(Need::Everything);
    assert!(said.contains("makes no sense"), "{said}");

    let said = Client::new("http://127.0.0.1:1", &[]).refusal(Need::Everything);
    assert!(said.contains("http://127.0.0.1:1 failed"), "{said}");
}

#[test]
fn offline_uses_the_cache_only() {
    let server = Hub::complete().start();
    let mut client = Client::new(&server.endpoint, &[("HF_HUB_OFFLINE", "1")]);
    let said = client.refusal(Need::Everything);
    assert!(said.contains("the model is not in the cache") && said.contains("HF_HUB_OFFLINE"), "{said}");
    assert!(server.requests.lock().expect("not poisoned").is_empty());

    client.settings.offline = false;
    client.fetch(Need::Description).expect("downloaded");
    client.settings.offline = true;
    let said = client.refusal(Need::Everything);
    assert!(said.contains("model.safetensors not in the cache"), "{said}");
    let dir = client.fetch(Need::Description).expect("cached");
    std::fs::remove_file(dir.join("tokenizer.json")).expect("removed");
    assert!(client.fetch(Need::Description).is_ok(), "a plan makes do without a tokenizer offline");
}
