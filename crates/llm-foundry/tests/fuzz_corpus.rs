//! The fuzz targets over their corpus and over mutations of it, as ordinary tests.
//!
//! Mutations are drawn from a fixed seed: a failure comes again, and is named by the seed file and the mutation.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[path = "../../../fuzz/targets/scratch.rs"]
mod scratch;

/// A module and a test for each target: its file, and how many mutations of each seed are tried.
macro_rules! targets {
    ($($name:ident: $path:literal, $mutations:literal;)*) => {$(
        #[path = $path]
        mod $name;

        #[test]
        fn $name() {
            run(stringify!($name), $mutations, $name::run);
        }
    )*};
}

targets! {
    jsonl_rows: "../../../fuzz/targets/jsonl_rows.rs", 100;
    chat_template: "../../../fuzz/targets/chat_template.rs", 300;
    safetensors: "../../../fuzz/targets/safetensors.rs", 400;
    gguf: "../../../fuzz/targets/gguf.rs", 400;
    adapter_config: "../../../fuzz/targets/adapter_config.rs", 200;
    adapter_weights: "../../../fuzz/targets/adapter_weights.rs", 200;
    token_files: "../../../fuzz/targets/token_files.rs", 400;
    manifest: "../../../fuzz/targets/manifest.rs", 300;
}

/// Runs a target on each seed and on `mutations` changed copies of it.
fn run(name: &str, mutations: usize, target: impl Fn(&[u8])) {
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "no seeds for {name}");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (path, seed) in &seeds {
        check(path, "as it is", seed, &target);
        for round in 0..mutations {
            let other = &seeds[random.below(seeds.len())].1;
            let input = mutated(seed, other, &mut random);
            check(path, &format!("mutation {round}"), &input, &target);
        }
    }
}

fn check(path: &Path, what: &str, input: &[u8], target: &impl Fn(&[u8])) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        panic!("{} ({what}) fails; the input: {:?}", path.display(), String::from_utf8_lossy(input));
    }
}

fn seeds(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&dir).expect("a corpus").map(|entry| entry.expect("listed").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("read"))).collect()
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit` (0 where there is none).
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Pieces that mean something in one of the formats.
const WORDS: [&[u8]; 20] = [
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b"null",
    b"-1",
    b"1e999",
    b"18446744073709551615",
    b"\n",
    b"\\u0000",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"{%",
    b"%}",
    b"{{",
    b"}}",
    b"|",
    b"'",
    b" in ",
];

/// One to four changes of a byte, a run, a word, or a splice with another seed.
fn mutated(seed: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut input = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let end = (at + 1 + random.below(16)).min(input.len());
        match random.below(7) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = random.next() as u8,
            2 => drop(input.drain(at.min(end)..end)),
            3 => input.truncate(at),
            4 => drop(input.splice(at..at, WORDS[random.below(WORDS.len())].iter().copied())),
            5 => {
                let run = input[at.min(end)..end].to_vec();
                drop(input.splice(at..at, run));
            }
            _ => {
                input.truncate(at);
                input.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
        }
    }
    input
}
