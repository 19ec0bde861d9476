//! Uploads against a small server on loopback that answers as the hub does.

use super::*;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the server does and has seen.
#[derive(Default)]
struct Hub {
    address: String,
    /// Large files are sent in parts of this many bytes.
    part: Option<usize>,
    /// Objects that are there already.
    known: Vec<String>,
    /// The first so many requests whose path contains this text are answered with this status.
    failures: HashMap<&'static str, (u16, u32)>,
    /// Requests: method, path, whether the token came along.
    requests: Vec<(String, String, bool)>,
    /// Bodies of storage, by path, in the order of their parts.
    stored: BTreeMap<String, Vec<u8>>,
    /// Lines of commits.
    commits: Vec<Vec<Value>>,
    created: Vec<Value>,
    /// Whether the repository is.
    private: bool,
    completed: Vec<Value>,
}

const TOKEN: &str = "hf_secret";

/// A running server.
struct Server(Arc<Mutex<Hub>>);

impl Server {
    fn start(mut hub: Hub) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        hub.address = format!("http://{}", listener.local_addr().expect("bound"));
        let hub = Arc::new(Mutex::new(hub));
        let shared = Arc::clone(&hub);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(&mut shared.lock().expect("not poisoned"), stream);
            }
        });
        Self(hub)
    }

    fn settings(&self, token: Option<&str>) -> HubSettings {
        let endpoint = self.0.lock().expect("not poisoned").address.clone();
        HubSettings::from_env(|name| match name {
            "HF_ENDPOINT" => Some(endpoint.clone()),
            "HF_TOKEN" => token.map(str::to_owned),
            "HF_HOME" => Some("/nowhere".into()),
            _ => None,
        })
    }

    fn push(&self, target: &Target, files: &[Upload]) -> Result<String, PushError> {
        let settings = self.settings(Some(TOKEN));
        let uploader = Uploader::new(&settings, &|_| {})?.with_first_pause(Duration::from_millis(1));
        uploader.push(target, files)
    }

    fn see<T>(&self, look: impl FnOnce(&Hub) -> T) -> T {
        look(&self.0.lock().expect("not poisoned"))
    }
}

fn answer(hub: &mut Hub, mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    while reader.read_line(&mut head)? > 2 {}
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("/").to_owned());
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        let mut values =
            lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
        values.next().map(str::to_owned)
    };
    let length = header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let with_token = header("authorization") == Some(format!("Bearer {TOKEN}"));
    hub.requests.push((method.clone(), path.clone(), with_token));
    let failing = hub.failures.iter_mut().find(|(part, (_, left))| path.contains(**part) && *left > 0);
    let (status, reply, extra) = match failing {
        Some((_, (status, left))) => {
            *left -= 1;
            (*status, json!({ "error": "try later" }), String::new())
        }
        None if path.starts_with("/api/") && !with_token => {
            (401, json!({ "error": "Invalid token" }), String::new())
        }
        None => route(hub, &method, &path, &body),
    };
    let reply = reply.to_string();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{extra}connection: close\r\n\r\n{reply}",
        reply.len()
    )
}

fn route(hub: &mut Hub, method: &str, path: &str, body: &[u8]) -> (u16, Value, String) {
    let none = String::new();
    let read = || serde_json::from_slice::<Value>(body).expect("JSON");
    if path == "/api/whoami-v2" {
        return (200, json!({ "name": "me" }), none);
    }
    if path == "/api/repos/create" {
        hub.created.push(read());
        let status = if hub.created.len() == 1 { 200 } else { 409 };
        return (status, json!({ "error": "You already created this model repo" }), none);
    }
    if method == "GET" && path.starts_with("/api/models/") {
        return (200, json!({ "private": hub.private }), none);
    }
    if path.contains("/branch/") {
        return (409, json!({ "error": "Reference already exists" }), none);
    }
    if path.contains("/preupload/") {
        let wish = read();
        let mode = |file: &Value| if file["size"].as_u64() > Some(20) { "lfs" } else { "regular" };
        let files = wish["files"].as_array().expect("a list").iter();
        let files: Vec<Value> = files
            .map(|file| json!({ "path": file["path"], "uploadMode": mode(file), "shouldIgnore": false }))
            .collect();
        return (200, json!({ "files": files }), none);
    }
    if path.ends_with("/info/lfs/objects/batch") {
        let wish = read();
        let objects =
            wish["objects"].as_array().expect("a list").iter().map(|o| object(hub, o)).collect::<Vec<_>>();
        return (200, json!({ "transfer": "basic", "objects": objects }), none);
    }
    if path.contains("/storage/") && method == "PUT" {
        hub.stored.entry(path.to_owned()).or_default().extend_from_slice(body);
        return (200, Value::Null, format!("etag: \"etag{}\"\r\n", hub.stored.len()));
    }
    if path.ends_with("/complete") || path.ends_with("/verify") {
        hub.completed.push(read());
        return (200, Value::Null, none);
    }
    if path.contains("/commit/") {
        let text = String::from_utf8(body.to_vec()).expect("UTF-8");
        hub.commits.push(text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect());
        let url = format!("{}/org/name/commit/abc", hub.address);
        return (200, json!({ "commitUrl": url, "commitOid": "abc" }), none);
    }
    (404, json!({ "error": "not found" }), none)
}

fn object(hub: &Hub, wish: &Value) -> Value {
    let (oid, size) = (wish["oid"].as_str().expect("an oid"), wish["size"].as_u64().expect("a size"));
    let verify = json!({ "href": format!("{}/{oid}/verify", hub.address) });
    let at = |name: String| format!("{}/storage/{oid}/{name}", hub.address);
    if hub.known.iter().any(|known| known == oid) {
        return json!({ "oid": oid, "size": size });
    }
    let upload = match hub.part {
        None => json!({ "href": at("whole".into()) }),
        Some(part) => {
            let mut header = json!({ "chunk_size": part.to_string() });
            for number in 1..=size.div_ceil(part as u64) {
                header[format!("{number:05}")] = at(format!("{number:05}")).into();
            }
            json!({ "href": format!("{}/{oid}/complete", hub.address), "header": header })
        }
    };
    json!({ "oid": oid, "size": size, "actions": { "upload": upload, "verify": verify } })
}

fn target() -> Target {
    let (repo, revision, message) = ("org/name".into(), "main".into(), "Hello".into());
    Target { repo, revision, private: false, message }
}

const WEIGHTS: &[u8] = b"these are the weights of the model, more than twenty bytes";

/// A small file, an empty one and a large one.
fn files(dir: &Path) -> Vec<Upload> {
    let contents: [(&str, &[u8]); 3] =
        [("README.md", b"# Card\n"), ("empty.txt", b""), ("model.safetensors", WEIGHTS)];
    contents
        .map(|(name, bytes)| {
            let path = dir.join(name);
            std::fs::write(&path, bytes).expect("written");
            Upload { path, name: name.into(), bytes: bytes.len() as u64 }
        })
        .to_vec()
}

fn oid() -> String {
    Sha256::digest(WEIGHTS).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_directory_becomes_one_commit() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(Hub::default());
    let url = server.push(&target(), &files(dir.path())).expect("pushed");
    assert!(url.ends_with("/org/name/commit/abc"), "{url}");
    server.see(|hub| {
        assert_eq!(hub.created, [json!({ "name": "name", "organization": "org", "type": "model" })]);
        assert_eq!(hub.stored[&format!("/storage/{}/whole", oid())], WEIGHTS);
        assert_eq!(hub.completed, [json!({ "oid": oid(), "size": WEIGHTS.len() })], "verified");
        let [commit] = hub.commits.as_slice() else { panic!("{:?}", hub.commits) };
        let file = |path: &str, content: &str| {
            json!({ "key": "file", "value": { "path": path, "encoding": "base64", "content": content } })
        };
        let large = json!({ "path": "model.safetensors", "algo": "sha256", "oid": oid(), "size": WEIGHTS.len() });
        let expected = [
            json!({ "key": "header", "value": { "summary": "Hello", "description": "" } }),
            file("README.md", "IyBDYXJkCg=="),
            file("empty.txt", ""),
            json!({ "key": "lfsFile", "value": large }),
        ];
        assert_eq!(commit.as_slice(), expected);
        for (method, path, with_token) in &hub.requests {
            // Storage is another host: the token must not reach it.
            assert_eq!(*with_token, !path.starts_with("/storage/"), "{method} {path}");
        }
    });
    // Once more: the repository is there.
    server.push(&target(), &files(dir.path())).expect("pushed again");
}

#[test]
fn large_files_go_in_parts() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(Hub { part: Some(25), ..Hub::default() });
    server.push(&target(), &files(dir.path())).expect("pushed");
    server.see(|hub| {
        let parts: Vec<&[u8]> = hub.stored.values().map(Vec::as_slice).collect();
        assert_eq!(parts, WEIGHTS.chunks(25).collect::<Vec<_>>());
        let etags = (1..=3).map(|n| json!({ "partNumber": n, "etag": format!("\"etag{n}\"") }));
        assert_eq!(hub.completed[0], json!({ "oid": oid(), "parts": etags.collect::<Vec<_>>() }));
    });
}

#[test]
fn what_is_there_is_not_sent_again_and_names_and_branches_are_made() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(Hub { known: vec![oid()], ..Hub::default() });
    let target = Target { repo: "name".into(), revision: "a/b c".into(), private: true, ..target() };
    server.push(&target, &files(dir.path())).expect("pushed");
    server.see(|hub| {
        assert!(hub.stored.is_empty());
        assert_eq!(hub.created[0]["organization"], "me");
        assert_eq!(hub.created[0]["visibility"], "private");
        let paths: Vec<&str> = hub.requests.iter().map(|(_, path, _)| path.as_str()).collect();
        assert!(paths.contains(&"/api/models/me/name/branch/a%2Fb%20c"), "{paths:?}");
        assert!(paths.contains(&"/api/models/me/name/commit/a%2Fb%20c"), "{paths:?}");
    });
}

#[test]
fn what_is_to_be_private_is_not_sent_where_everybody_reads() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let there = || vec![json!({})];
    let server = Server::start(Hub { created: there(), ..Hub::default() });
    let target = Target { private: true, ..target() };
    let error = server.push(&target, &files(dir.path())).expect_err("public");
    assert!(error.to_string().contains("everybody can read it") && !error.is_of_the_world(), "{error}");
    server.see(|hub| assert!(hub.commits.is_empty() && hub.stored.is_empty()));
    let server = Server::start(Hub { created: there(), private: true, ..Hub::default() });
    server.push(&target, &files(dir.path())).expect("pushed");
}

#[test]
fn passing_troubles_are_tried_again_but_a_commit_is_not() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let failures = HashMap::from([("/storage/", (503, 3)), ("/preupload/", (429, 1)), ("/create", (500, 4))]);
    let server = Server::start(Hub { failures, ..Hub::default() });
    server.push(&target(), &files(dir.path())).expect("pushed in the end");
    server.see(|hub| {
        let count = |part: &str| hub.requests.iter().filter(|(_, path, _)| path.contains(part)).count();
        assert_eq!((count("/storage/"), count("/preupload/"), count("/create")), (4, 2, 5));
        assert_eq!(hub.stored.values().next().expect("stored"), WEIGHTS, "each attempt sends the whole");
    });
    for (part, attempts) in [("/commit/", 1), ("/preupload/", 5)] {
        let server = Server::start(Hub { failures: HashMap::from([(part, (503, 99))]), ..Hub::default() });
        let error = server.push(&target(), &files(dir.path())).expect_err("it never works");
        assert!(error.is_of_the_world() && error.to_string().contains("503: try later"), "{error}");
        let count = server.see(|hub| hub.requests.iter().filter(|(_, path, _)| path.contains(part)).count());
        assert_eq!(count, attempts, "{part}");
        assert!(server.see(|hub| hub.commits.is_empty()));
    }
}

#[test]
fn refusals_say_what_to_do() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(Hub::default());
    let say = |_: String| {};
    let refusal = |settings: &HubSettings| match Uploader::new(settings, &say) {
        Err(error) => error,
        Ok(uploader) => uploader
            .with_first_pause(Duration::ZERO)
            .push(&target(), &files(dir.path()))
            .expect_err("refused"),
    };
    let error = refusal(&server.settings(None));
    assert!(!error.is_of_the_world() && error.to_string().contains("set HF_TOKEN"), "{error}");
    let error = refusal(&server.settings(Some("hf_wrong")));
    assert!(!error.is_of_the_world(), "{error}");
    let said = error.to_string();
    assert!(
        said.contains("401: Invalid token") && said.contains("may write") && !said.contains("hf_wrong"),
        "{said}"
    );
    let offline = HubSettings { offline: true, ..server.settings(Some(TOKEN)) };
    assert!(refusal(&offline).to_string().contains("HF_HUB_OFFLINE"));
    let nowhere = HubSettings { endpoint: "http://127.0.0.1:1".into(), ..server.settings(Some(TOKEN)) };
    let error = refusal(&nowhere);
    assert!(error.is_of_the_world() && error.to_string().contains("make the repository"), "{error}");

    let absent = [Upload { path: dir.path().join("absent"), name: "absent".into(), bytes: 1 }];
    let error = server.push(&target(), &absent).expect_err("no file");
    assert!(!error.is_of_the_world() && error.to_string().contains("absent"), "{error}");
    let text = "/commit/";
    let server = Server::start(Hub { failures: HashMap::from([(text, (400, 1))]), ..Hub::default() });
    let error = server.push(&target(), &files(dir.path())).expect_err("refused");
    assert!(!error.is_of_the_world() && error.to_string().contains("refuses to make the commit"), "{error}");
}

#[test]
fn answers_that_make_no_sense_are_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    // Parts of no size, and another number of parts than the file has: bytes would be lost.
    let server = Server::start(Hub { part: Some(25), ..Hub::default() });
    let settings = server.settings(Some(TOKEN));
    let uploader = Uploader::new(&settings, &|_| {}).expect("made").with_first_pause(Duration::ZERO);
    let file = &files(dir.path())[2];
    for (header, word) in [
        (json!({ "chunk_size": 0 }), "parts of no size"),
        (json!({ "chunk_size": "25", "00001": "http://127.0.0.1:1/" }), "another number of parts"),
        (json!({ "chunk_size": "x" }), "parts of no size"),
    ] {
        let actions = json!({ "upload": { "href": "http://127.0.0.1:1/", "header": header } });
        let error = uploader.send_object(file, &oid(), &actions).expect_err("refused").to_string();
        assert!(error.contains(word), "{error}");
    }
    let error =
        uploader.send_object(file, &oid(), &json!({ "upload": {} })).expect_err("refused").to_string();
    assert!(error.contains("no address"), "{error}");
}

#[test]
fn a_mirror_is_asked_instead_of_the_hub() {
    let server = Server::start(Hub::default());
    let settings = server.settings(Some(TOKEN));
    let uploader = Uploader::new(&settings, &|_| {}).expect("made");
    let own = uploader.own_address("https://huggingface.co/api/complete");
    assert_eq!(own, format!("{}/api/complete", settings.endpoint));
    let other = "https://huggingface.co.evil.example/x";
    assert_eq!(uploader.own_address(other), other);
}
