//! libFuzzer's entry; what it does is in `targets/adapter_weights.rs`.
#![no_main]

#[path = "../targets/scratch.rs"]
mod scratch;
#[path = "../targets/adapter_weights.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));
