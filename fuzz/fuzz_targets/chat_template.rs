//! libFuzzer's entry; what it does is in `targets/chat_template.rs`.
#![no_main]

#[path = "../targets/scratch.rs"]
mod scratch;
#[path = "../targets/chat_template.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));
