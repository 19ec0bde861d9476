//! Generation and scoring over a cache in blocks, against recomputation without one.

use crate::fixture::{FAMILIES, Golden, backend};
use foundry_kernels::{Backend, CpuBackend, Dtype};
use foundry_models::inference::{Continuations, Event, Finish, Request, RequestId, Score};
use foundry_models::sampling::greedy;
use foundry_models::{Batch, Decoder, Inference, InferenceOptions, ModelError, Sampling, Tuning};
use std::collections::HashMap;
use std::ops::ControlFlow;

fn inference(decoder: &Decoder, backend: &CpuBackend, options: InferenceOptions) -> Inference {
    Inference::allocate(backend, decoder.config(), decoder.compute(), options)
}

/// Room for one sequence of so many tokens.
fn one(max_sequence: usize) -> InferenceOptions {
    InferenceOptions { max_sequence, cache_tokens: max_sequence, ..InferenceOptions::default() }
}

fn request(tokens: &[u32], sampling: &Sampling) -> Request {
    Request::new(tokens.to_vec(), sampling.clone(), Vec::new())
}

fn go_on(_: u32) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A frozen decoder of a family for rows of up to `max_tokens` tokens.
fn frozen(golden: &Golden, backend: &CpuBackend, max_tokens: usize) -> Decoder {
    let (_, config) = foundry_models::decoder_config(&golden.files.config).unwrap();
    let mut decoder =
        Decoder::allocate(backend, &config, &Tuning::Frozen, Dtype::F32, max_tokens, false).unwrap();
    decoder.load(backend, golden.files.weights().unwrap().as_ref()).unwrap();
    decoder
}

#[test]
fn greedy_generation_equals_recomputation() {
    let backend = backend();
    for family in FAMILIES {
        let golden = Golden::open(family);
        let mut decoder = golden.decoder(&backend, &Tuning::Adapted(golden.adapter()), Dtype::F32);
        let mut sequence = golden.tokens[..10].to_vec();
        let sampling = Sampling { max_new_tokens: 30, ..Sampling::default() };
        let mut engine = inference(&decoder, &backend, one(64));
        let found =
            engine.generate(&mut decoder, &backend, request(&sequence, &sampling), &mut go_on).unwrap();
        assert_eq!(found.finish, Finish::Length);
        for token in &found.tokens {
            let logits = decoder.last_logits(&backend, &sequence, &[sequence.len() as u32]).unwrap();
            assert_eq!(greedy(&logits), *token, "{family} after {}", sequence.len());
            sequence.push(*token);
        }
    }
}

/// What each request generates when it has the machine for itself.
fn alone(decoder: &mut Decoder, backend: &CpuBackend, requests: &[Request]) -> Vec<Vec<u32>> {
    let run = |request: &Request| {
        let mut engine = inference(decoder, backend, one(128));
        engine.generate(decoder, backend, request.clone(), &mut go_on).unwrap().tokens
    };
    requests.iter().map(run).collect()
}

/// What requests generate that arrive in `order`, one every `apart` steps.
fn together(
    decoder: &mut Decoder,
    backend: &CpuBackend,
    options: InferenceOptions,
    requests: &[Request],
    order: &[usize],
    apart: usize,
) -> Vec<Vec<u32>> {
    let mut engine = inference(decoder, backend, options);
    let mut found = vec![Vec::new(); requests.len()];
    let mut open: HashMap<RequestId, usize> = HashMap::new();
    let (mut arrivals, mut events, mut step) = (order.iter(), Vec::new(), 0);
    loop {
        while step >= apart * (order.len() - arrivals.len()) {
            let Some(&index) = arrivals.next() else { break };
            open.insert(engine.submit(requests[index].clone()).unwrap(), index);
        }
        let computed = engine.step(decoder, backend, &mut events).unwrap();
        assert!(computed <= decoder.max_tokens());
        for Event { id, token, finish, .. } in events.drain(..) {
            found[open[&id]].extend(token);
            if finish.is_some() {
                open.remove(&id);
            }
        }
        step += 1;
        if open.is_empty() && arrivals.len() == 0 {
            assert_eq!(engine.free_tokens(), engine.options().cache_tokens, "every block was given back");
            return found;
        }
    }
}

/// Requests that share beginnings, greedy and drawn, of lengths that fit no block size.
fn mixed_requests(golden: &Golden) -> Vec<Request> {
    let drawn = |seed: u64| Sampling {
        do_sample: true,
        top_k: 20,
        top_p: 0.95,
        min_p: Some(0.01),
        temperature: 1.3,
        repetition_penalty: 1.1,
        max_new_tokens: 12,
        seed,
    };
    let tokens = |start: usize, end: usize| &golden.tokens[start..end];
    let greedy = |max_new_tokens: usize| Sampling { max_new_tokens, ..Sampling::default() };
    let mut requests = vec![
        request(tokens(0, 33), &greedy(9)),
        request(tokens(0, 33), &drawn(1)),
        request(tokens(0, 33), &drawn(2)),
        request(tokens(0, 40), &greedy(20)),
        request(tokens(5, 6), &greedy(30)),
        request(tokens(20, 70), &drawn(3)),
        request(&[tokens(0, 20), tokens(50, 61)].concat(), &greedy(5)),
        request(tokens(0, 32), &greedy(0)),
        request(tokens(10, 28), &greedy(1)),
    ];
    requests[3].eos_token_ids = vec![3, 7];
    requests
}

#[test]
fn requests_do_not_see_each_other() {
    let backend = backend();
    for family in ["llama", "mistral"] {
        let golden = Golden::open(family);
        let requests = mixed_requests(&golden);
        let expected = alone(&mut frozen(&golden, &backend, 96), &backend, &requests);
        let forwards: Vec<usize> = (0..requests.len()).collect();
        let backwards: Vec<usize> = (0..requests.len()).rev().collect();
        for (block_tokens, cache_tokens, max_tokens, max_running, apart) in [
            (16, 1000, 96, 64, 0),
            (1, 1000, 40, 64, 0),
            (5, 1000, 7, 64, 1),
            (64, 1000, 96, 3, 2),
            // So small that requests have to give way to others.
            (4, 100, 24, 64, 0),
            (3, 90, 16, 5, 1),
        ] {
            let mut decoder = frozen(&golden, &backend, max_tokens);
            let options = InferenceOptions { max_sequence: 90, cache_tokens, block_tokens, max_running };
            for order in [&forwards, &backwards] {
                let found = together(&mut decoder, &backend, options, &requests, order, apart);
                assert_eq!(found, expected, "{family}, {options:?}, rows of {max_tokens}, {order:?}");
            }
        }
    }
}

#[test]
fn a_common_beginning_is_computed_once() {
    let backend = backend();
    let golden = Golden::open("llama");
    let mut decoder = frozen(&golden, &backend, 96);
    let mut engine = inference(&decoder, &backend, InferenceOptions { cache_tokens: 200, ..one(100) });
    let sampling = Sampling { max_new_tokens: 1, ..Sampling::default() };
    for end in [32, 33, 40] {
        engine.submit(request(&golden.tokens[..end], &sampling)).unwrap();
    }
    // In one row: 32 tokens, then what each has of its own, and at least its last.
    assert_eq!(engine.step(&mut decoder, &backend, &mut Vec::new()).unwrap(), 32 + 1 + 8);
    engine.submit(request(&golden.tokens[..50], &sampling)).unwrap();
    assert_eq!(engine.step(&mut decoder, &backend, &mut Vec::new()).unwrap(), 50 - 32, "in a later one");
    assert_eq!(engine.step(&mut decoder, &backend, &mut Vec::new()).unwrap(), 0, "nothing is open");
    engine.forget();
    engine.submit(request(&golden.tokens[..50], &sampling)).unwrap();
    assert_eq!(engine.step(&mut decoder, &backend, &mut Vec::new()).unwrap(), 50, "other weights");
}

#[test]
fn a_conversation_reuses_what_it_has_in_common() {
    let backend = backend();
    let golden = Golden::open("llama");
    let mut decoder = frozen(&golden, &backend, 96);
    let sampling = Sampling { max_new_tokens: 5, ..Sampling::default() };
    let mut used = inference(&decoder, &backend, one(64));
    let first: Vec<u32> = golden.tokens[..20].to_vec();
    used.generate(&mut decoder, &backend, request(&first, &sampling), &mut go_on).unwrap();
    let mut second = first[..18].to_vec();
    second.extend(&golden.tokens[60..70]);
    let mut run = |engine: &mut Inference| {
        engine.generate(&mut decoder, &backend, request(&second, &sampling), &mut go_on).unwrap()
    };
    let again = run(&mut used);
    assert_eq!(again, run(&mut inference(&frozen(&golden, &backend, 1), &backend, one(64))));
    assert_eq!(again, run(&mut used), "a prompt that is in the cache already");
}

#[test]
fn generation_ends_for_each_of_its_reasons() {
    let backend = backend();
    let golden = Golden::open("llama");
    let mut decoder = frozen(&golden, &backend, 96);
    let prompt = &golden.tokens[..10];
    let sampling = Sampling { max_new_tokens: 8, ..Sampling::default() };
    let mut run = |capacity: usize, eos: &[u32], on_token: &mut dyn FnMut(u32) -> ControlFlow<()>| {
        let request = Request { eos_token_ids: eos.to_vec(), ..request(prompt, &sampling) };
        inference(&decoder, &backend, one(capacity)).generate(&mut decoder, &backend, request, on_token)
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
fn a_cancelled_request_gives_its_room_back() {
    let backend = backend();
    let golden = Golden::open("llama");
    let mut decoder = frozen(&golden, &backend, 96);
    let mut engine = inference(&decoder, &backend, InferenceOptions { max_running: 1, ..one(64) });
    let ids = [0, 5].map(|start| {
        engine.submit(request(&golden.tokens[start..start + 30], &Sampling::default())).unwrap()
    });
    let mut events = Vec::new();
    engine.step(&mut decoder, &backend, &mut events).unwrap();
    assert_eq!(engine.open_requests(), (1, 1));
    assert!(ids.map(|id| engine.cancel(id)) == [true, true]);
    assert!(!engine.cancel(ids[0]), "it is gone");
    assert_eq!((engine.open_requests(), engine.free_tokens()), ((0, 0), engine.options().cache_tokens));
    assert_eq!(engine.step(&mut decoder, &backend, &mut events).unwrap(), 0);
}

#[test]
fn sampling_is_repeatable_and_penalties_see_the_prompt() {
    let backend = backend();
    let golden = Golden::open("llama");
    let mut decoder = frozen(&golden, &backend, 96);
    let mut run = |sampling: Sampling| {
        let mut engine = inference(&decoder, &backend, one(64));
        let request = request(&golden.tokens[..10], &sampling);
        engine.generate(&mut decoder, &backend, request, &mut go_on).unwrap().tokens
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
    let mut engine = inference(&decoder, &backend, one(64));
    let sampling = Sampling { max_new_tokens: 8, ..Sampling::default() };
    // Token 0 is the damaged row of the embedding.
    let error = engine.generate(&mut decoder, &backend, request(&[0, 5], &sampling), &mut go_on).unwrap_err();
    assert!(matches!(error, ModelError::LogitsNotFinite { .. }), "{error}");
    assert_eq!((engine.open_requests(), engine.free_tokens()), ((0, 0), engine.options().cache_tokens));
    let sound = Continuations { prefix: vec![4, 5], endings: vec![vec![6]] };
    let broken = Continuations { prefix: vec![4, 5], endings: vec![vec![6], vec![0, 6]] };
    let error = engine.score(&mut decoder, &backend, &[sound, broken]).unwrap_err();
    assert!(matches!(error, ModelError::ScoreNotFinite { group: 1, ending: 1 }), "{error}");
    assert_eq!(engine.free_tokens(), engine.options().cache_tokens);
}

/// Scores of whole sequences, each computed by itself.
fn recomputed(decoder: &mut Decoder, backend: &CpuBackend, groups: &[Continuations]) -> Vec<Vec<Score>> {
    let mut score = |prefix: &[u32], ending: &[u32]| {
        let tokens = [prefix, ending].concat();
        let labels: Vec<i32> =
            prefix.iter().map(|_| -100).chain(ending.iter().map(|token| *token as i32)).collect();
        let batch = Batch { tokens: &tokens, seq_lens: &[tokens.len() as u32], labels: &labels };
        let mut rows = Vec::new();
        decoder.forward_loss(backend, &batch, Some(&mut rows)).unwrap();
        Score {
            log_prob: rows.iter().map(|row| f64::from(row.log_prob)).sum(),
            is_greedy: rows.iter().all(|row| row.is_greedy),
        }
    };
    let of = |group: &Continuations| group.endings.iter().map(|e| score(&group.prefix, e)).collect();
    groups.iter().map(of).collect()
}

#[test]
fn scores_are_those_of_whole_sequences() {
    let backend = backend();
    let golden = Golden::open("llama");
    let tokens = |start: usize, end: usize| golden.tokens[start..end].to_vec();
    let likeliest = {
        let mut decoder = frozen(&golden, &backend, 96);
        greedy(&decoder.last_logits(&backend, &tokens(0, 37), &[37]).unwrap())
    };
    let group = |prefix: Vec<u32>, endings: Vec<Vec<u32>>| Continuations { prefix, endings };
    let groups = [
        group(tokens(0, 37), vec![vec![likeliest], vec![(likeliest + 1) % 50], vec![3]]),
        group(tokens(0, 37), vec![tokens(40, 44), vec![likeliest, 4], tokens(50, 51), tokens(40, 60)]),
        group(tokens(0, 32), vec![tokens(32, 35), tokens(33, 36)]),
        // Nothing but an ending: as perplexities are measured.
        group(tokens(7, 8), vec![tokens(8, 70)]),
        group(tokens(0, 35), vec![tokens(35, 41), tokens(1, 30), tokens(2, 31)]),
    ];
    let expected = recomputed(&mut frozen(&golden, &backend, 96), &backend, &groups);
    assert!(expected[0][0].is_greedy && !expected[0][1].is_greedy);
    for (block_tokens, cache_tokens, max_tokens) in [
        (16, 2000, 96),
        (1, 2000, 64),
        (7, 2000, 9),
        (16, 2000, 5),
        (64, 500, 96),
        (4, 140, 48),
        (16, 80, 30),
    ] {
        let mut decoder = frozen(&golden, &backend, max_tokens);
        let options = InferenceOptions { max_sequence: 80, cache_tokens, block_tokens, max_running: 8 };
        let mut engine = inference(&decoder, &backend, options);
        for run in ["first", "second"] {
            let found = engine.score(&mut decoder, &backend, &groups).unwrap();
            for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                let name = format!("{options:?}, rows of {max_tokens}, {run} run");
                // Sums of up to 62 logarithms near -4, each within 1e-5 of its logits' size.
                assert!((found.log_prob - expected.log_prob).abs() < 1e-3, "{name}: {found:?} {expected:?}");
                assert_eq!(found.is_greedy, expected.is_greedy, "{name}");
            }
            assert_eq!(engine.free_tokens(), engine.options().cache_tokens);
        }
    }
}

/// In parts, after others, at the side of others, or preempted: every token of the prompt is told of once.
#[test]
fn scores_of_prompt_and_answer_are_those_of_the_logits() {
    let backend = backend();
    let golden = Golden::open("llama");
    let prompt = &golden.tokens[..40];
    let sampling = Sampling { max_new_tokens: 6, repetition_penalty: 1.3, ..Sampling::default() };
    for (max_tokens, cache_tokens) in [(96, 500), (7, 500), (96, 80)] {
        let mut decoder = frozen(&golden, &backend, max_tokens);
        let options = InferenceOptions { max_sequence: 64, cache_tokens, block_tokens: 4, max_running: 4 };
        let mut engine = inference(&decoder, &backend, options);
        let plain = request(prompt, &sampling);
        engine.submit(plain.clone()).unwrap();
        engine.submit(plain.clone()).unwrap();
        let mut scored = Vec::new();
        for max_new_tokens in [6, 0] {
            let sampling = Sampling { max_new_tokens, ..sampling.clone() };
            let request = Request { sampling, log_probs: Some(3), prompt_log_probs: true, ..plain.clone() };
            scored.push((engine.submit(request).unwrap(), Vec::new(), Vec::new()));
        }
        let mut events = Vec::new();
        while engine.step(&mut decoder, &backend, &mut events).unwrap() > 0 {
            for event in events.drain(..) {
                let Some((_, tokens, scores)) = scored.iter_mut().find(|(id, ..)| *id == event.id) else {
                    continue;
                };
                tokens.extend(event.token);
                scores.extend(event.scores);
            }
        }
        let whole = [prompt, &scored[0].1].concat();
        assert_eq!((whole.len(), scored[0].2.len(), scored[1].2.len()), (46, 45, 39));
        let mut reference = frozen(&golden, &backend, 96);
        let logits = reference.logits(&backend, &whole, &[46]).unwrap();
        let vocab = decoder.config().vocab_size;
        for (at, score) in scored[0].2.iter().enumerate() {
            let row = &logits[at * vocab..(at + 1) * vocab];
            let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
            let log_prob = |token: u32| f64::from(row[token as usize]) - sum.ln();
            assert_eq!(score.token, whole[at + 1]);
            // f32 logits of size about 1.
            assert!((f64::from(score.log_prob) - log_prob(score.token)).abs() < 1e-4, "{at}: {score:?}");
            assert_eq!((score.top.len(), score.top[0].0), (3, greedy(row)));
            assert!(score.top.iter().all(|(token, p)| (f64::from(*p) - log_prob(*token)).abs() < 1e-4));
        }
        assert_eq!(scored[1].2.len(), 39);
        let same = scored[0].2.iter().zip(&scored[1].2);
        assert!(same.into_iter().all(|(a, b)| (a.log_prob - b.log_prob).abs() < 1e-4));
    }
}

#[test]
fn the_end_of_a_text_has_a_score_too() {
    let (backend, golden) = (backend(), Golden::open("llama"));
    let mut decoder = frozen(&golden, &backend, 96);
    let prompt = &golden.tokens[..8];
    let logits = decoder.last_logits(&backend, prompt, &[8]).unwrap();
    let end = greedy(&logits);
    let mut engine = inference(&decoder, &backend, one(64));
    let plain = request(prompt, &Sampling { max_new_tokens: 4, ..Sampling::default() });
    engine.submit(Request { eos_token_ids: vec![end], log_probs: Some(1), ..plain }).unwrap();
    let mut events = Vec::new();
    engine.step(&mut decoder, &backend, &mut events).unwrap();
    let event = &events[0];
    assert_eq!((event.token, event.finish), (None, Some(Finish::EndOfSequence)));
    assert_eq!((event.scores.len(), event.scores[0].token, event.scores[0].top[0].0), (1, end, end));
}

#[test]
fn scores_are_told_pass_by_pass() {
    let (backend, golden) = (backend(), Golden::open("llama"));
    let mut decoder = frozen(&golden, &backend, 24);
    let mut engine = inference(&decoder, &backend, one(64));
    let group = |from: usize| Continuations {
        prefix: golden.tokens[from..from + 10].to_vec(),
        endings: vec![vec![1]],
    };
    let groups: Vec<Continuations> = (0..12).map(group).collect();
    let mut told = Vec::new();
    let scores = engine.score_and_tell(&mut decoder, &backend, &groups, &mut |done| told.push(done)).unwrap();
    assert!(told.len() > 3 && told.is_sorted() && told.last() == Some(&12), "{told:?}");
    assert_eq!(scores, engine.score(&mut decoder, &backend, &groups).unwrap());
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let backend = backend();
    let golden = Golden::open("llama");
    let mut decoder = frozen(&golden, &backend, 96);
    let mut engine = inference(&decoder, &backend, one(10));
    let mut score = |prefix: &[u32], ending: &[u32]| {
        let group = Continuations { prefix: prefix.to_vec(), endings: vec![ending.to_vec()] };
        engine.score(&mut decoder, &backend, &[group])
    };
    assert!(matches!(score(&[], &[1]), Err(ModelError::Row(_))));
    assert!(matches!(score(&[1], &[]), Err(ModelError::Row(_))));
    assert!(matches!(score(&[1], &[2, 70_000]), Err(ModelError::TokenOutOfRange { token: 70_000, .. })));
    assert!(score(&[1; 8], &[1; 3]).is_ok(), "the last token is only predicted");
    let error = score(&[1; 8], &[1; 4]).unwrap_err();
    assert!(matches!(error, ModelError::CacheFull { tokens: 11, capacity: 10 }), "{error}");
}
