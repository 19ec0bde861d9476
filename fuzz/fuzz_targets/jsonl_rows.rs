//! libFuzzer's entry; what it does is in `targets/jsonl_rows.rs`.
#![no_main]

#[path = "../targets/scratch.rs"]
mod scratch;
#[path = "../targets/jsonl_rows.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));
