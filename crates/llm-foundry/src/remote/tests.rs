//! Files of a web server and of an object store on loopback.

use super::*;
use foundry_data::{DataSpec, load};
use foundry_formats::Tokenizer;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;

/// What a server has, and how it behaves.
#[derive(Clone, Default)]
struct Web {
    files: HashMap<String, Vec<u8>>,
    tag: Option<&'static str>,
    /// Answers 200 with all of a file.
    no_ranges: bool,
    /// So many answers are cut after half of the body.
    cuts: usize,
    /// Requests without a signature are refused.
    signed_only: bool,
    /// Lists have a thousand more names on the next page.
    endless: bool,
}

struct Server {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
    web: Arc<Mutex<Web>>,
}

impl Web {
    fn with(files: &[(&str, Vec<u8>)]) -> Self {
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
        Self { files, tag: Some("\"v1\""), ..Self::default() }
    }

    fn start(self) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let (requests, web) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(self)));
        let server = Server { address, requests: requests.clone(), web: web.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away in the middle is part of the tests.
                let _ = answer(&web, &requests, stream);
            }
        });
        server
    }
}

fn answer(web: &Mutex<Web>, log: &Mutex<Vec<String>>, mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    while reader.read_line(&mut head)? > 2 {}
    let address = head.split(' ').nth(1).unwrap_or("/").to_owned();
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    };
    let range = header("range");
    log.lock().expect("not poisoned").push(format!("{address} {}", range.as_deref().unwrap_or("-")));
    let mut web = web.lock().expect("not poisoned");
    let (path, query) = address.split_once('?').unwrap_or((&address, ""));
    let close = "connection: close\r\n";
    if web.signed_only && !query.contains("X-Amz-Signature=") {
        return write!(stream, "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n{close}\r\n");
    }
    if query.contains("list-type=2") {
        let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap_or_default();
        let prefix = format!("{}/{}", path.trim_end_matches('/'), prefix.replace("%2F", "/"));
        let bucket = format!("{}/", path.trim_end_matches('/'));
        let keys = web.files.keys().filter(|key| key.starts_with(&prefix));
        let mut items: String =
            keys.map(|key| format!("<Contents><Key>{}</Key></Contents>", &key[bucket.len()..])).collect();
        if web.endless {
            items.extend((0..1000).map(|i| format!("<Contents><Key>set/{i}.txt</Key></Contents>")));
            items.push_str("<NextContinuationToken>more</NextContinuationToken>");
        }
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult \
             xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><MaxKeys>1000</MaxKeys>{items}</ListBucketResult>"
        );
        return write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{close}\r\n{body}", body.len());
    }
    let Some(body) = web.files.get(path).cloned() else {
        return write!(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n{close}\r\n");
    };
    let tag = web.tag.map_or_else(String::new, |tag| format!("etag: {tag}\r\n"));
    let is_same = header("if-range").is_none_or(|wanted| Some(wanted.as_str()) == web.tag);
    let parts = range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let (first, last) = parts.map_or((0, body.len() - 1), |(first, last)| {
        (first.parse().unwrap_or(0), last.parse().unwrap_or(usize::MAX).min(body.len() - 1))
    });
    if web.no_ranges || parts.is_none() || !is_same {
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{tag}{close}\r\n", body.len())?;
        return stream.write_all(&body);
    }
    let part = &body[first..=last];
    write!(stream, "HTTP/1.1 206 Partial Content\r\ncontent-length: {}\r\n", part.len())?;
    write!(stream, "content-range: bytes {first}-{last}/{}\r\n{tag}{close}\r\n", body.len())?;
    let cut = web.cuts > 0 && part.len() > 1;
    web.cuts -= usize::from(cut);
    stream.write_all(&part[..if cut { part.len() / 2 } else { part.len() }])
}

fn rows(count: usize) -> Vec<u8> {
    (0..count).flat_map(|i| format!("{{\"text\": \"row {i} of them\"}}\n").into_bytes()).collect()
}

struct Room {
    cache: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        Self { cache: tempfile::tempdir().expect("a temporary directory") }
    }

    fn find(&self, address: &str, vars: &[(&str, &str)]) -> Outcome<Vec<DataFile>> {
        let cache = self.cache.path().display().to_string();
        find("data.train", address, |name| match name {
            "FOUNDRY_CACHE" => Some(cache.clone()),
            _ => vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()),
        })
    }

    fn refusal(&self, address: &str, vars: &[(&str, &str)]) -> String {
        match self.find(address, vars) {
            Err(Failure::Input(message) | Failure::Run(message)) => message,
            other => panic!("{other:?}"),
        }
    }
}

/// Examples of a data set of these files.
fn examples(files: Vec<DataFile>) -> Result<usize, String> {
    let tokenizer =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/fixtures/tiny_tokenizer");
    let tokenizer = Tokenizer::from_dir(&tokenizer).expect("the fixture is sound");
    let source = foundry_data::Source { files, ..foundry_data::Source::default() };
    let spec = DataSpec { sources: vec![source], dataset_num_proc: Some(1), ..DataSpec::default() };
    load(&spec, &tokenizer).map(|data| data.report.examples).map_err(|error| error.to_string())
}

#[test]
fn a_file_is_read_in_parts_that_are_kept() {
    let server = Web { cuts: 2, ..Web::with(&[("/d/a.jsonl", rows(500))]) }.start();
    let room = Room::new();
    let address = format!("{}/d/a.jsonl?token=secret", server.address);
    assert_eq!(
        examples(room.find(&address, &[]).expect("there")),
        Ok(500),
        "cut answers are asked for again"
    );
    let asked = || server.requests.lock().expect("not poisoned").clone();
    let before = asked();
    assert!(before.iter().all(|request| request.contains("bytes=")), "{before:?}");
    let files = room.find(&address, &[]).expect("there");
    assert!(!files[0].path().to_string_lossy().contains("secret"), "{:?}", files[0].path());
    assert_eq!(examples(files), Ok(500));
    assert_eq!(asked().len(), before.len() + 1, "only the size and the version are asked for again");
    // Another version is another file.
    let files = room.find(&address, &[]).expect("there");
    let web = &server.web;
    web.lock().expect("not poisoned").tag = Some("\"v2\"");
    web.lock().expect("not poisoned").files.insert("/d/a.jsonl".into(), rows(20));
    assert_eq!(examples(files), Ok(500), "what is in the cache is of the first version");
    assert_eq!(examples(room.find(&address, &[]).expect("there")), Ok(20));
}

#[test]
fn a_file_that_changes_while_it_is_read_is_an_error() {
    let server = Web::with(&[("/a.jsonl", rows(50))]).start();
    let room = Room::new();
    let files = room.find(&format!("{}/a.jsonl", server.address), &[]).expect("there");
    server.web.lock().expect("not poisoned").tag = Some("\"v2\"");
    server.web.lock().expect("not poisoned").files.insert("/a.jsonl".into(), rows(40));
    let said = examples(files).expect_err("changed");
    assert!(said.contains("/a.jsonl: the file has changed on the server while it was read"), "{said}");
}

#[test]
fn a_file_without_a_version_is_never_read_from_an_earlier_run() {
    let (two, one) = ("{\"text\": \"a\"}\n{\"text\": \"b\"}\n", "{\"text\": \"a and this much\"}\n");
    assert_eq!(two.len(), one.len());
    let server = Web { tag: None, ..Web::with(&[("/a.jsonl", two.into())]) }.start();
    let room = Room::new();
    let address = format!("{}/a.jsonl", server.address);
    assert_eq!(examples(room.find(&address, &[]).expect("there")), Ok(2));
    server.web.lock().expect("not poisoned").files.insert("/a.jsonl".into(), one.into());
    assert_eq!(examples(room.find(&address, &[]).expect("there")), Ok(1));
}

#[test]
fn a_list_without_an_end_is_an_error_and_no_part_of_the_data() {
    let server = Web { endless: true, ..Web::with(&[("/bucket/set/b.jsonl", rows(20))]) }.start();
    let said = Room::new().refusal("s3://bucket/set/*.jsonl", &[("AWS_ENDPOINT_URL", &server.address)]);
    assert!(said.contains("`set/` stands for more than 100000 names"), "{said}");
}

#[test]
fn servers_that_cannot_do_it_are_told() {
    let room = Room::new();
    let server = Web {
        no_ranges: true,
        ..Web::with(&[("/small.jsonl", rows(50)), ("/large.txt", vec![b'a'; 5 << 20])])
    };
    let server = server.start();
    let at = |name: &str| format!("{}/{name}", server.address);
    assert_eq!(examples(room.find(&at("small.jsonl"), &[]).expect("one block")), Ok(50));
    assert!(room.refusal(&at("large.txt"), &[]).contains("does not send parts of files"));
    let said = room.refusal(&at("none.jsonl"), &[]);
    assert!(said.contains("none.jsonl: the server answers 404 (not found): check the address"), "{said}");
    assert!(room.refusal(&at("*.jsonl"), &[]).contains("no list of its files"));
    let said = room.refusal("https://me:pass@127.0.0.1/x.jsonl", &[]);
    assert!(said.contains("ends up in logs"), "{said}");
    assert!(room.refusal("s3://bucket", &[]).contains("s3://BUCKET/KEY"));
    assert!(room.refusal("s3://b/k", &[("AWS_ENDPOINT_URL", "nowhere")]).contains("`nowhere` is no address"));
}

#[test]
fn an_object_store_is_asked_with_signatures() {
    let files = [
        ("/bucket/set/b.jsonl", rows(20)),
        ("/bucket/set/a.jsonl", rows(10)),
        ("/bucket/set/deep/c.jsonl", rows(5)),
        ("/bucket/set/readme.md", b"x".to_vec()),
    ];
    let server = Web { signed_only: true, ..Web::with(&files) }.start();
    let room = Room::new();
    let own = [("AWS_ENDPOINT_URL", server.address.as_str())];
    assert!(room.refusal("s3://bucket/set/a.jsonl", &own).contains("403 (not allowed)"));
    let keys = [own[0], ("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "very-secret")];
    let names = |address: &str| -> Vec<String> {
        let files = room.find(address, &keys).expect("there");
        files.iter().map(|file| file.path().display().to_string()).collect()
    };
    assert_eq!(names("s3://bucket/set/a.jsonl"), ["s3://bucket/set/a.jsonl"]);
    assert_eq!(names("s3://bucket/set/*.jsonl"), ["s3://bucket/set/a.jsonl", "s3://bucket/set/b.jsonl"]);
    assert_eq!(names("s3://bucket/set/"), ["s3://bucket/set/a.jsonl", "s3://bucket/set/b.jsonl"]);
    assert_eq!(names("s3://bucket/**/c.jsonl"), ["s3://bucket/set/deep/c.jsonl"]);
    assert_eq!(examples(room.find("s3://bucket/set/*.jsonl", &keys).expect("there")), Ok(30));
    assert!(room.refusal("s3://bucket/other/", &keys).contains("nothing of this name"));
    let log = server.requests.lock().expect("not poisoned").join("\n");
    assert!(log.contains("X-Amz-Signature=") && !log.contains("very-secret"));
}
