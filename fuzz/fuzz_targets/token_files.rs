//! libFuzzer's entry; what it does is in `targets/token_files.rs`.
#![no_main]

#[path = "../targets/scratch.rs"]
mod scratch;
#[path = "../targets/token_files.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));
