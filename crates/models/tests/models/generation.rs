//! Generation with a key/value cache against recomputation without one.

use crate::fixture::{FAMILIES, Golden, backend, relative_error};
use foundry_kernels::{Backend, Dtype};
use foundry_models::generate::{Finish, generate};
use foundry_models::sampling::greedy;
use foundry_models::{Decoder, KvCache, ModelError, Sampling, Tuning};
use std::ops::ControlFlow;

fn cache(backend: &dyn Backend, decoder: &Decoder, capacity: usize) -> KvCache {
    KvCache::allocate(backend, decoder.config(), decoder.compute(), capacity)
}

fn go_on(_: u32) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn the_cache_gives_what_recomputation_gives() {
    let backend = backend();
    for family in FAMILIES {
        let golden = Golden::open(family);
        let tuning = Tuning::Adapted(golden.adapter());
        let mut decoder = golden.decoder(&backend, &tuning, Dtype::F32);
        let mut cache = cache(&backend, &decoder, 64);
        let sequence = &golden.tokens[..40];
        let expected = decoder.logits(&backend, sequence, &[40]).unwrap();
        let vocab = decoder.config().vocab_size;
        let mut logits = Vec::new();
        let mut end = 0;
        // A prompt, single tokens, and a prompt continued in two pieces.
        for piece in [17, 1, 1, 1, 12, 8] {
            decoder.extend(&backend, &mut cache, &sequence[end..end + piece], &mut logits).unwrap();
            end += piece;
            let error = relative_error(&logits, &expected[(end - 1) * vocab..end * vocab]);
            // The same sums in tiles of another shape.
            assert!(error < 1e-5, "{family}: after {end} tokens: {error}");
        }
        assert_eq!(cache.len(), 40);
    }
}

#[test]
fn greedy_generation_equals_recomputation() {
    let backend = backend();
    for family in ["llama3_rope", "mistral"] {
        let golden = Golden::open(family);
        let mut decoder = golden.decoder(&backend, &Tuning::Frozen, Dtype::F32);
        let mut sequence = golden.tokens[..10].to_vec();
        let mut cache = cache(&backend, &decoder, 64);
        let sampling = Sampling { max_new_tokens: 30, ..Sampling::default() };
        let found =
            generate(&mut decoder, &backend, &mut cache, &sequence, &sampling, &[], &mut go_on).unwrap();
        assert_eq!(found.finish, Finish::Length);
        for token in &found.tokens {
            let logits = decoder.last_logits(&backend, &sequence, &[sequence.len() as u32]).unwrap();
            assert_eq!(greedy(&logits), *token, "{family} after {}", sequence.len());
            sequence.push(*token);
        }
    }
}

#[test]
fn a_prompt_longer_than_the_buffers_is_fed_in_parts() {
    let backend = backend();
    let golden = Golden::open("mistral");
    let mut whole = golden.decoder(&backend, &Tuning::Frozen, Dtype::F32);
    let (_, config) = foundry_models::decoder_config(&golden.files.config).unwrap();
    let mut short = Decoder::allocate(&backend, &config, &Tuning::Frozen, Dtype::F32, 16, false).unwrap();
    short.load(&backend, golden.files.weights().unwrap().as_ref()).unwrap();
    let prompt = &golden.tokens[..50];
    let mut logits = Vec::new();
    let mut cache = cache(&backend, &short, 60);
    short.extend(&backend, &mut cache, prompt, &mut logits).unwrap();
    let expected = whole.last_logits(&backend, prompt, &[50]).unwrap();
    assert!(relative_error(&logits, &expected) < 1e-5);
}

#[test]
fn a_conversation_reuses_what_it_has_in_common() {
    let backend = backend();
    let golden = Golden::open("llama");
    let mut decoder = golden.decoder(&backend, &Tuning::Frozen, Dtype::F32);
    let sampling = Sampling { max_new_tokens: 5, ..Sampling::default() };
    let mut used = cache(&backend, &decoder, 64);
    let first: Vec<u32> = golden.tokens[..20].to_vec();
    generate(&mut decoder, &backend, &mut used, &first, &sampling, &[], &mut go_on).unwrap();
    let mut second = first[..15].to_vec();
    second.extend(&golden.tokens[60..70]);
    let again = generate(&mut decoder, &backend, &mut used, &second, &sampling, &[], &mut go_on).unwrap();
    let mut fresh = cache(&backend, &decoder, 64);
    let clean = generate(&mut decoder, &backend, &mut fresh, &second, &sampling, &[], &mut go_on).unwrap();
    assert_eq!(again, clean);
    let same = generate(&mut decoder, &backend, &mut used, &second, &sampling, &[], &mut go_on).unwrap();
    assert_eq!(same, clean, "a prompt that is in the cache already");
}

#[test]
fn generation_ends_for_each_of_its_reasons() {
    let backend = backend();
    let golden = Golden::open("llama");
    let mut decoder = golden.decoder(&backend, &Tuning::Frozen, Dtype::F32);
    let prompt = &golden.tokens[..10];
    let sampling = Sampling { max_new_tokens: 8, ..Sampling::default() };
    let mut run = |capacity: usize, eos: &[u32], on_token: &mut dyn FnMut(u32) -> ControlFlow<()>| {
        let mut cache = cache(&backend, &decoder, capacity);
        generate(&mut decoder, &backend, &mut cache, prompt, &sampling, eos, on_token)
    };
    let all = run(64, &[], &mut go_on).unwrap();
    assert_eq!((all.tokens.len(), all.finish), (8, Finish::Length));
    let first = |token: u32| all.tokens.iter().position(|t| *t == token).unwrap();
    let (a, b) = (all.tokens[3], all.tokens[5]);
    let ended = run(64, &[a, b], &mut go_on).unwrap();
    let end = first(a).min(first(b));
    assert_eq!(
        (ended.tokens.as_slice(), ended.finish),
        (&all.tokens[..end], Finish::EndOfSequence),
        "any of several"
    );
    let mut heard = 0;
    let stopped = run(64, &[], &mut |_| {
        heard += 1;
        if heard == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(stopped.unwrap().finish, Finish::Stopped);
    let full = run(12, &[], &mut go_on).unwrap();
    assert_eq!(
        (full.tokens.as_slice(), full.finish),
        (&all.tokens[..3], Finish::Length),
        "the cache holds 12"
    );
    let error = run(9, &[], &mut go_on).unwrap_err();
    assert!(matches!(error, ModelError::CacheFull { tokens: 10, capacity: 9 }), "{error}");
}

#[test]
fn sampling_is_repeatable_and_penalties_see_the_prompt() {
    let backend = backend();
    let golden = Golden::open("llama");
    let mut decoder = golden.decoder(&backend, &Tuning::Frozen, Dtype::F32);
    let mut run = |sampling: Sampling| {
        let mut cache = cache(&backend, &decoder, 64);
        generate(&mut decoder, &backend, &mut cache, &golden.tokens[..10], &sampling, &[], &mut go_on)
            .unwrap()
            .tokens
    };
    let drawn = Sampling { do_sample: true, max_new_tokens: 20, seed: 5, ..Sampling::default() };
    assert_eq!(run(drawn.clone()), run(drawn.clone()));
    assert_ne!(run(drawn.clone()), run(Sampling { seed: 6, ..drawn }));
    let penalised = Sampling { repetition_penalty: 1e6, max_new_tokens: 20, ..Sampling::default() };
    let tokens = run(penalised);
    let mut seen: Vec<u32> = golden.tokens[..10].iter().chain(&tokens).copied().collect();
    seen.sort_unstable();
    let before = seen.len();
    seen.dedup();
    let prompt_repeats = 10 - {
        let mut p = golden.tokens[..10].to_vec();
        p.sort_unstable();
        p.dedup();
        p.len()
    };
    assert_eq!(before - seen.len(), prompt_repeats, "an extreme penalty forbids repetition: {tokens:?}");
}

#[test]
fn a_model_without_numbers_gives_an_error_and_no_token() {
    let backend = backend();
    let golden = Golden::open("llama");
    let mut decoder = golden.decoder(&backend, &Tuning::Full, Dtype::F32);
    backend.upload(&[f32::NAN], &mut decoder.parameters_mut()[0].value, 7);
    decoder.after_update(&backend);
    let mut cache = cache(&backend, &decoder, 64);
    let sampling = Sampling { max_new_tokens: 8, ..Sampling::default() };
    // Token 0 is the damaged row of the embedding.
    let error =
        generate(&mut decoder, &backend, &mut cache, &[0, 5], &sampling, &[], &mut go_on).unwrap_err();
    assert!(matches!(error, ModelError::LogitsNotFinite), "{error}");
}
