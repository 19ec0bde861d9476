//! `doctor`, `completions`, `man`.

use crate::support::{Room, Said};
use serde_json::Value;

#[test]
fn doctor_tells_what_the_kernels_use_and_asks_no_server_when_offline() {
    let room = Room::new();
    let said = room.foundry(&["doctor"]).expect_done();
    for word in ["kernels", "threads", "GFLOP/s", "memory", "hub cache", "not built", "not asked"] {
        assert!(said.out.contains(word), "no `{word}` in:\n{}", said.out);
    }
    let said = room.foundry(&["doctor", "--json", "--isa", "portable", "--threads", "1"]).expect_done();
    let found: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(found["processor"]["kernels"], "portable");
    assert_eq!(found["processor"]["threads"], 1);
    assert_eq!(found["processor"]["dtype"], "float32");
    assert!(found["processor"]["gflops"]["float32"].as_f64().expect("a speed") > 0.0);
    assert_eq!(found["hub"]["reachable"], "not_asked");
    assert_eq!(found["gpu"]["built"], false);
    assert!(found["room"]["memory_available"].as_u64().expect("memory") > 0);
    assert_eq!(room.names(), Vec::<String>::new(), "it writes nothing");
    room.foundry(&["doctor", "--isa", "sse2"]).expect_refusal(&["sse2", "portable"]);
}

#[test]
#[cfg_attr(not(feature = "hub"), ignore = "asks a server")]
fn doctor_tells_whether_the_hub_answers_and_never_the_token() {
    let room = Room::new();
    // A port that nobody listens on: it was free a moment ago.
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let ask = |endpoint: String| {
        let mut command = room.command(&["doctor", "--json"]);
        command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", endpoint).env("HF_TOKEN", "hf_secret");
        command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
        let said = Said::from(command.output().expect("it starts")).expect_done();
        assert!(!said.out.contains("hf_secret"), "{}", said.out);
        serde_json::from_str::<Value>(&said.out).expect("JSON")
    };
    let found = ask(format!("http://127.0.0.1:{port}"));
    assert_eq!(found["hub"]["reachable"], "no", "{found}");
    assert!(found["advice"].to_string().contains("HF_HUB_OFFLINE"), "{found}");

    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let server = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().expect("a visitor");
        let mut asked = [0; 4096];
        let length = stream.read(&mut asked).expect("a question");
        let body = r#"{"name": "someone"}"#;
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).expect("answered");
        String::from_utf8_lossy(&asked[..length]).into_owned()
    });
    let found = ask(endpoint);
    assert_eq!(found["hub"]["reachable"], "yes", "{found}");
    assert_eq!(found["hub"]["user"], "someone", "{found}");
    let asked = server.join().expect("the server ends");
    assert!(asked.starts_with("GET /api/whoami-v2 ") && asked.contains("Bearer hf_secret"), "{asked}");
}

#[test]
fn shells_get_completions_and_man_gets_pages() {
    let room = Room::new();
    for (shell, word) in
        [("bash", "complete -F"), ("zsh", "#compdef llm-foundry"), ("fish", "complete -c llm-foundry")]
    {
        let said = room.foundry(&["completions", shell]).expect_done();
        assert!(said.out.contains(word) && said.out.contains("max-new-tokens"), "{shell}:\n{}", said.out);
    }
    room.foundry(&["completions", "tcsh"]).expect_refusal(&["tcsh", "bash"]);
    let said = room.foundry(&["man"]).expect_done();
    assert!(said.out.contains(".TH llm-foundry 1") && said.out.contains("Exit codes"), "{}", said.out);
    room.foundry(&["man", "-o", "share/man1"]).expect_done();
    let page = room.read("share/man1/llm-foundry-train.1");
    assert!(page.contains("resume") && page.contains("Examples"), "{page}");
    assert!(room.path("share/man1/llm-foundry-data-preview.1").is_file());
    room.write("file", "");
    room.foundry(&["man", "-o", "file"]).expect_refusal(&["file"]);
}
