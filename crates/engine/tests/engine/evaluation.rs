//! A decoder behind the evaluation trait: its answers against log-probabilities computed from its logits.

use foundry_engine::DecoderLanguageModel;
use foundry_eval::{
    Documents, Drawing, EvalError, GenerateRequest, LanguageModel, Library, RunOptions, ScoreRequest,
    TaskSpec, evaluate_task,
};
use foundry_formats::{HfConfig, Tokenizer};
use foundry_kernels::{Backend, CpuBackend, Dtype, Isa};
use foundry_models::{Decoder, Tuning, decoder_config};
use serde_json::{Value, json};

const WORDS: usize = 20;

/// Words `w0`, `w1`, … and the end of text.
fn tokenizer() -> Tokenizer {
    let dir = tempfile::tempdir().unwrap();
    let mut vocab: serde_json::Map<_, _> = (0..WORDS - 1).map(|i| (format!("w{i}"), json!(i))).collect();
    vocab.insert("<end>".into(), json!(WORDS - 1));
    let end = json!({"id": WORDS - 1, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
                     "normalized": false, "special": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [end], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"}
    });
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(dir.path().join("tokenizer_config.json"), json!({"eos_token": "<end>"}).to_string())
        .unwrap();
    Tokenizer::from_dir(dir.path()).unwrap()
}

fn decoder(backend: &CpuBackend, max_tokens: usize) -> Decoder {
    tuned(backend, max_tokens, &Tuning::Frozen)
}

fn tuned(backend: &CpuBackend, max_tokens: usize, tuning: &Tuning) -> Decoder {
    let config = HfConfig::from_json(json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": WORDS, "hidden_size": 16,
        "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": false
    }));
    let (_, config) = decoder_config(&config).unwrap();
    let mut decoder = Decoder::allocate(backend, &config, tuning, Dtype::F32, max_tokens, false).unwrap();
    decoder.init_random(backend, 5, 0.5);
    decoder
}

/// Log-probability of each token after the first, and whether it was the likeliest, from the logits.
fn by_logits(decoder: &mut Decoder, backend: &CpuBackend, tokens: &[u32]) -> Vec<(f64, bool)> {
    let logits = decoder.logits(backend, tokens, &[tokens.len() as u32]).unwrap();
    let rows = logits.chunks(WORDS).zip(&tokens[1..]);
    rows.map(|(row, &next)| {
        let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        let best = (0..WORDS).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        (f64::from(row[next as usize]) - sum.ln(), best == next as usize)
    })
    .collect()
}

#[test]
fn log_likelihoods_are_those_of_the_logits_however_requests_share_rows() {
    let backend = CpuBackend::new(1, Isa::detect());
    let tokenizer = tokenizer();
    let request = |tokens: &[u32], scored| ScoreRequest { tokens: tokens.to_vec(), scored };
    let mut requests = vec![
        request(&[3, 4, 5, 6, 7], 2),
        request(&[1, 2], 1),
        request(&[9, 8, 7, 6, 5, 4, 3, 2], 7),
        request(&[11, 12, 13], 1),
    ];
    let mut reference = decoder(&backend, 64);
    // A request whose continuation is what the model would say itself.
    let logits = reference.logits(&backend, &[2, 3], &[2]).unwrap();
    let likeliest =
        (0..WORDS).rev().max_by(|&a, &b| logits[WORDS + a].total_cmp(&logits[WORDS + b])).unwrap();
    requests.push(request(&[2, 3, likeliest as u32], 1));
    for max_tokens in [8, 12, 64] {
        let mut decoder = decoder(&backend, max_tokens);
        let mut model = DecoderLanguageModel::new(&mut decoder, &backend, &tokenizer, vec![]);
        let answers = model.log_likelihood(&requests).unwrap();
        assert_eq!(answers.len(), requests.len());
        for (answer, request) in answers.iter().zip(&requests) {
            let all = by_logits(&mut reference, &backend, &request.tokens);
            let scored = &all[all.len() - request.scored..];
            let expected: f64 = scored.iter().map(|(log_prob, _)| log_prob).sum();
            // f32 logits of size about 1, up to seven of them summed.
            assert!((answer.log_prob - expected).abs() < 1e-4, "{max_tokens}: {answer:?} {expected}");
            assert_eq!(answer.is_greedy, scored.iter().all(|(_, greedy)| *greedy), "{request:?}");
        }
        assert!(answers.last().unwrap().is_greedy);
    }
}

#[test]
fn a_request_longer_than_the_model_is_the_models_error() {
    let backend = CpuBackend::new(1, Isa::detect());
    let (tokenizer, mut decoder) = (tokenizer(), decoder(&backend, 4));
    let mut model = DecoderLanguageModel::new(&mut decoder, &backend, &tokenizer, vec![]);
    // The last token is only predicted.
    assert!(model.log_likelihood(&[ScoreRequest { tokens: vec![1; 65], scored: 1 }]).is_ok());
    let error = model.log_likelihood(&[ScoreRequest { tokens: vec![1; 66], scored: 1 }]).unwrap_err();
    assert!(matches!(error, EvalError::Model(_)), "{error}");
    assert!(error.to_string().contains("at most 64"), "{error}");
}

#[test]
fn a_request_must_score_some_tokens_but_not_the_first() {
    let backend = CpuBackend::new(1, Isa::detect());
    let (tokenizer, mut decoder) = (tokenizer(), decoder(&backend, 16));
    let mut model = DecoderLanguageModel::new(&mut decoder, &backend, &tokenizer, vec![]);
    let sound = ScoreRequest { tokens: vec![1, 2, 3], scored: 2 };
    for scored in [0, 3, 4] {
        let wrong = ScoreRequest { scored, ..sound.clone() };
        let error = model.log_likelihood(&[sound.clone(), wrong]).unwrap_err();
        assert!(matches!(error, EvalError::Model(_)), "{error}");
        assert!(error.to_string().contains(&format!("the last {scored} of 3 tokens")), "{error}");
    }
    assert_eq!(model.log_likelihood(&[sound]).unwrap().len(), 1);
}

#[test]
fn tasks_run_on_a_decoder() {
    let backend = CpuBackend::new(1, Isa::detect());
    let (tokenizer, mut reference, mut decoder) = (tokenizer(), decoder(&backend, 64), decoder(&backend, 16));
    let mut model = DecoderLanguageModel::new(&mut decoder, &backend, &tokenizer, vec![]);
    let conventions = model.conventions().expect("the end of text stands in for BOS");
    assert_eq!((conventions.max_length, conventions.prefix_token), (64, WORDS as u32 - 1));

    let after = |decoder: &mut Decoder, word: u32| by_logits(decoder, &backend, &[5, 6, word])[1].0;
    let better = if after(&mut reference, 7) > after(&mut reference, 8) { 0 } else { 1 };
    let rows = [better, 1 - better, better]
        .map(|gold| json!({"query": "w5 w6", "choices": ["w7", "w8"], "gold": gold}));
    let choice = "task: words\ndataset_path: d\ntest_split: test\noutput_type: multiple_choice\ndoc_to_text: query\n\
                  doc_to_choice: choices\ndoc_to_target: gold\n";
    let mut run = |yaml: &str, rows: Vec<Value>| {
        evaluate_task(&task(yaml), &mut model, &conventions, &mut Rows(rows), &RunOptions::default()).unwrap()
    };
    assert_eq!(run(choice, rows.to_vec()).metrics[0].value, 2.0 / 3.0);

    let text: Vec<u32> = (0..10).map(|i| i * 7 % 19).collect();
    let words = text.iter().map(|i| format!("w{i}")).collect::<Vec<_>>().join(" ");
    let rolling = "task: text\ndataset_path: d\ntest_split: test\noutput_type: loglikelihood_rolling\n\
                   doc_to_target: text\n";
    let result = run(rolling, vec![json!({"text": words})]);
    let tokens = [&[WORDS as u32 - 1], text.as_slice()].concat();
    let total: f64 = by_logits(&mut reference, &backend, &tokens).iter().map(|(log_prob, _)| log_prob).sum();
    // Ten words; f32 logits of size about 1, ten of them summed.
    assert!((result.metrics[0].value.ln() + total / 10.0).abs() < 1e-4, "{result:?}");
}

#[test]
fn scores_that_are_not_finite_are_told_with_their_document() {
    let backend = CpuBackend::new(1, Isa::detect());
    let (tokenizer, mut decoder) = (tokenizer(), tuned(&backend, 16, &Tuning::Full));
    // The embedding of w3, which only the third document has.
    backend.upload(&[f32::NAN], &mut decoder.parameters_mut()[0].value, 3 * 16);
    decoder.after_update(&backend);
    let mut model = DecoderLanguageModel::new(&mut decoder, &backend, &tokenizer, vec![]);
    let conventions = model.conventions().expect("the end of text stands in for BOS");
    let rows =
        ["w9 w8", "w1 w2", "w5 w3", "w4 w6"].map(|query| json!({"query": query, "choices": ["w7 w8", "w8"]}));
    let same = "dataset_path: d\ntest_split: test\n";
    for kind in [
        "output_type: multiple_choice\ndoc_to_text: query\ndoc_to_choice: choices\ndoc_to_target: 0\n",
        "output_type: loglikelihood\ndoc_to_text: query\ndoc_to_target: ' w7'\n",
        "output_type: loglikelihood_rolling\ndoc_to_target: '{{query}} w5'\n",
        "doc_to_text: query\ndoc_to_target: w7\nrepeats: 2\ngeneration_kwargs: {max_gen_toks: 2}\n",
    ] {
        let task = task(&format!("task: words\n{same}{kind}"));
        let mut rows = Rows(rows.to_vec());
        let error =
            evaluate_task(&task, &mut model, &conventions, &mut rows, &RunOptions::default()).unwrap_err();
        let is_told = matches!(&error, EvalError::NotANumber { task, index: 2 } if task == "words");
        assert!(is_told, "{kind}: {error}");
    }
}

/// A task from the text of its file.
fn task(yaml: &str) -> TaskSpec {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("task.yaml");
    std::fs::write(&file, yaml).unwrap();
    Library::default().select(&[file.display().to_string()]).unwrap().tasks.remove(0)
}

struct Rows(Vec<Value>);

impl Documents for Rows {
    fn split(&mut self, _: &TaskSpec, _: &str) -> Result<Vec<Value>, String> {
        Ok(self.0.clone())
    }
}

#[test]
fn generation_is_greedy_and_ends_before_the_stop_string() {
    let backend = CpuBackend::new(1, Isa::detect());
    let (tokenizer, mut reference, mut decoder) = (tokenizer(), decoder(&backend, 64), decoder(&backend, 32));
    let mut expected = vec![4u32, 2];
    for _ in 0..6 {
        let logits = reference.last_logits(&backend, &expected, &[expected.len() as u32]).unwrap();
        let best = (0..WORDS).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        expected.push(best as u32);
    }
    let word = |i: usize| format!("w{}", expected[2 + i]);
    let mut model = DecoderLanguageModel::new(&mut decoder, &backend, &tokenizer, vec![]);
    let request = |until: Vec<String>| GenerateRequest {
        tokens: vec![4, 2],
        until,
        max_new_tokens: 6,
        drawing: Drawing::GREEDY,
    };
    // The second new word, or the first if they are the same: the text ends before its first occurrence.
    let stop = word(1);
    let answers = model.generate_until(&[request(vec![]), request(vec![stop.clone()])]).unwrap();
    let whole = (0..6).map(word).collect::<Vec<_>>().join(" ");
    assert_eq!(answers[0], whole);
    assert_eq!(answers[1], whole[..whole.find(&stop).unwrap()]);
    model.eos_token_ids = vec![expected[2]];
    assert_eq!(model.generate_until(&[request(vec![])]).unwrap(), [""]);
}

/// A prompt of two words after which the model would say `word`.
fn prompt_before(decoder: &mut Decoder, backend: &CpuBackend, word: u32) -> [u32; 2] {
    let all = (0..WORDS as u32 - 1).flat_map(|a| (0..WORDS as u32 - 1).map(move |b| [a, b]));
    let says = |prompt: &[u32; 2]| {
        let logits = decoder.last_logits(backend, prompt, &[2]).unwrap();
        (0..WORDS).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])) == Some(word as usize)
    };
    all.into_iter().find(says).expect("a word of twenty after one of 361 prompts")
}

#[test]
fn a_stop_string_that_is_a_special_token_stops() {
    let backend = CpuBackend::new(1, Isa::detect());
    let (tokenizer, mut decoder) = (tokenizer(), decoder(&backend, 32));
    let prompt = prompt_before(&mut decoder, &backend, WORDS as u32 - 1);
    // No end of sequence: only the stop string ends it.
    let mut model = DecoderLanguageModel::new(&mut decoder, &backend, &tokenizer, vec![]);
    let request = |until: &[&str]| GenerateRequest {
        tokens: prompt.to_vec(),
        until: until.iter().map(|stop| (*stop).to_owned()).collect(),
        max_new_tokens: 6,
        drawing: Drawing::GREEDY,
    };
    let answers = model.generate_until(&[request(&["<end>"]), request(&["w99"])]).unwrap();
    assert_eq!(answers[0], "");
    assert!(!answers[1].is_empty(), "it goes on after the token, which is not shown");
}

#[test]
fn the_models_own_settings_hold_where_a_request_has_none() {
    let backend = CpuBackend::new(1, Isa::detect());
    let (tokenizer, mut decoder) = (tokenizer(), decoder(&backend, 32));
    let mut model = DecoderLanguageModel::new(&mut decoder, &backend, &tokenizer, vec![]);
    let request =
        GenerateRequest { tokens: vec![4, 2], until: vec![], max_new_tokens: 12, drawing: Drawing::GREEDY };
    model.sampling.repetition_penalty = 50.0;
    let answer = model.generate_until(std::slice::from_ref(&request)).unwrap().remove(0);
    let words: Vec<&str> = answer.split(' ').collect();
    let mut once = words.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), words.len(), "no word twice under such a penalty: {answer}");
    let drawing = Drawing { do_sample: true, temperature: Some(0.001), ..Drawing::GREEDY };
    let drawn = model.generate_until(&[GenerateRequest { drawing, ..request }]).unwrap();
    assert_eq!(drawn[0], answer, "drawn almost without chance");
}

#[test]
fn many_requests_are_answered_in_their_order_and_counted() {
    let backend = CpuBackend::new(1, Isa::detect());
    let (tokenizer, mut decoder) = (tokenizer(), decoder(&backend, 32));
    let requests: Vec<GenerateRequest> = (0..200u32)
        .map(|i| GenerateRequest {
            tokens: vec![i * 7 % 19, i * 5 % 19],
            until: vec![],
            max_new_tokens: 1 + i as usize % 4,
            drawing: Drawing::GREEDY,
        })
        .collect();
    let scored: Vec<ScoreRequest> =
        (0..60u32).map(|i| ScoreRequest { tokens: vec![i % 3, 4, i % 19], scored: 1 }).collect();
    let mut told = Vec::new();
    let mut progress = |done: usize, all: usize| told.push((done, all));
    let mut model = DecoderLanguageModel::new(&mut decoder, &backend, &tokenizer, vec![]);
    model.progress = Some(&mut progress);
    let answers = model.generate_until(&requests).unwrap();
    let scores = model.log_likelihood(&scored).unwrap();
    let (texts, likelihoods): (Vec<_>, Vec<_>) = told.into_iter().partition(|(_, all)| *all == 200);
    assert!(texts.len() > 4 && texts.is_sorted() && texts.last() == Some(&(200, 200)), "{texts:?}");
    assert!(likelihoods.is_sorted() && likelihoods.last() == Some(&(60, 60)), "{likelihoods:?}");
    let mut model = DecoderLanguageModel::new(&mut decoder, &backend, &tokenizer, vec![]);
    for (answer, request) in answers.iter().zip(&requests).step_by(17) {
        assert_eq!(*answer, model.generate_until(std::slice::from_ref(request)).unwrap()[0], "{request:?}");
    }
    for (score, request) in scores.iter().zip(&scored) {
        let alone = model.log_likelihood(std::slice::from_ref(request)).unwrap()[0];
        assert!((score.log_prob - alone.log_prob).abs() < 1e-5, "{request:?}");
    }
}

#[test]
fn a_cache_is_as_large_as_there_is_memory_for() {
    let backend = CpuBackend::new(1, Isa::detect());
    let (tokenizer, mut decoder) = (tokenizer(), decoder(&backend, 32));
    let mut model = DecoderLanguageModel::new(&mut decoder, &backend, &tokenizer, vec![]);
    let request = ScoreRequest { tokens: vec![1; 40], scored: 1 };
    let free = model.log_likelihood(std::slice::from_ref(&request)).unwrap();
    // 64 tokens' keys and values of 8 numbers each, and a rotation of 8 numbers for each of 39 (40) positions.
    model.memory = Some(64 * 2 * 8 * 4 + 40 * 8 * 4);
    assert_eq!(
        model.log_likelihood(std::slice::from_ref(&request)).unwrap(),
        free,
        "with no room for others"
    );
    model.memory = Some(2000);
    let error = model.log_likelihood(&[request]).unwrap_err().to_string();
    assert!(error.contains("39 tokens") && error.contains("2000 are available"), "{error}");
}
