//! A file for what is only read from files, and the tokenizer of the tests.
#![allow(dead_code, reason = "not every target needs all of it")]

use std::path::Path;
use std::sync::OnceLock;

use foundry_formats::Tokenizer;

/// Calls `read` with the path of a file of this name and content.
pub(crate) fn with_file(name: &str, content: &[u8], read: impl FnOnce(&Path)) {
    thread_local! {
        static ROOM: tempfile::TempDir = tempfile::tempdir().expect("a temporary directory");
    }
    ROOM.with(|room| {
        let path = room.path().join(name);
        std::fs::write(&path, content).expect("written");
        read(&path);
    });
}

/// 768 tokens, ChatML's special tokens among them.
pub(crate) fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    const FILES: [(&str, &[u8]); 2] = [
        (
            "tokenizer.json",
            include_bytes!("../../crates/formats/tests/fixtures/tiny_tokenizer/tokenizer.json"),
        ),
        (
            "tokenizer_config.json",
            include_bytes!("../../crates/formats/tests/fixtures/tiny_tokenizer/tokenizer_config.json"),
        ),
    ];
    TOKENIZER.get_or_init(|| {
        let room = tempfile::tempdir().expect("a temporary directory");
        for (name, content) in FILES {
            std::fs::write(room.path().join(name), content).expect("written");
        }
        Tokenizer::from_dir(room.path()).expect("the fixture is sound")
    })
}
