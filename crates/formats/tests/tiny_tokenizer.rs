//! The tiny byte-level tokenizer of the tests: ids equal to transformers', side files, saving.

mod fixture;

use fixture::{check_lines, fixture, json_fixture};
use foundry_formats::{FormatError, Tokenizer};

fn tiny() -> Tokenizer {
    Tokenizer::from_dir(&fixture("tiny_tokenizer")).unwrap()
}

#[test]
fn ids_equal_transformers() {
    let tokenizer = tiny();
    let golden = json_fixture("tiny_tokenizer/golden_ids.json");
    assert_eq!(tokenizer.vocab_size() as u64, golden["vocab_size"].as_u64().unwrap());
    for row in golden["rows"].as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        let expected: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(text, true).unwrap(), expected, "{text:?}");
        assert_eq!(tokenizer.decode(&expected, false).unwrap(), text);
    }
    check_lines(&tokenizer, "tiny_tokenizer/line_ids.txt", false);
}

#[test]
fn offsets_are_byte_ranges_of_the_text() {
    let tokenizer = tiny();
    for line in fixture::mixed_lines(200) {
        let (ids, offsets) = tokenizer.encode_with_offsets(&line, false).unwrap();
        assert_eq!(ids, tokenizer.encode(&line, false).unwrap());
        assert_eq!(ids.len(), offsets.len());
        for &(from, to) in &offsets {
            assert!(line.get(from..to).is_some(), "{from}..{to} of {line:?}");
        }
        let covered = offsets.iter().map(|o| o.1).max().unwrap_or(0);
        assert_eq!(covered, line.len(), "every byte of {line:?} belongs to a token");
    }
}

#[test]
fn special_tokens_have_their_roles() {
    let mut tokenizer = tiny();
    assert_eq!(tokenizer.bos_token(), Some("<|im_start|>"));
    assert_eq!(tokenizer.eos_token(), Some("<|im_end|>"));
    assert_eq!(
        (tokenizer.pad_token(), tokenizer.unk_token()),
        (Some("<|endoftext|>"), Some("<|endoftext|>"))
    );
    assert_eq!(tokenizer.eos_token_id(), Some(2));
    assert_eq!(tokenizer.id_to_token(2).as_deref(), Some("<|im_end|>"));
    assert_eq!(tokenizer.decode(&[1, 2], true).unwrap(), "");
    assert!(tokenizer.special_tokens().contains(&("eos_token".into(), "<|im_end|>".into())));
    assert!(tokenizer.chat_template().unwrap().contains("<|im_end|>"));
    assert!(!tokenizer.adds_bos());
    assert!(tokenizer.missing_byte_atoms().is_empty());
    tokenizer.set_eos_token("<|endoftext|>").unwrap();
    assert_eq!(tokenizer.eos_token_id(), Some(0));
    let error = tokenizer.set_eos_token("<|nothing|>").unwrap_err();
    assert!(matches!(error, FormatError::UnknownToken { .. }), "{error}");
    assert!(error.to_string().contains("<|nothing|>"), "{error}");
}

#[test]
fn saving_copies_files_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    tiny().save(dir.path()).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let original = std::fs::read(fixture("tiny_tokenizer").join(name)).unwrap();
        assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), original, "{name}");
    }
    assert!(!dir.path().join("chat_template.jinja").exists(), "the template is in tokenizer_config.json");
}

#[test]
fn changes_survive_saving() {
    let dir = tempfile::tempdir().unwrap();
    let mut tokenizer = tiny();
    tokenizer.set_chat_template("{{ messages[0].content }}".to_owned());
    tokenizer.set_eos_token("<|endoftext|>").unwrap();
    tokenizer.save(dir.path()).unwrap();
    let read = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(read.chat_template(), Some("{{ messages[0].content }}"));
    assert_eq!(read.eos_token(), Some("<|endoftext|>"));
    let config = std::fs::read_to_string(dir.path().join("tokenizer_config.json")).unwrap();
    assert!(!config.contains("chat_template"), "the old template must not stay behind: {config}");
}

/// A directory with the tiny tokenizer.json and this tokenizer_config.json.
fn with_config(config: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("tiny_tokenizer/tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    std::fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
    dir
}

#[test]
fn bos_and_eos_are_added_where_the_config_says_so() {
    let dir = with_config(
        r#"{"bos_token": {"content": "<|im_start|>"}, "eos_token": "<|im_end|>", "add_bos_token": true, "add_eos_token": true}"#,
    );
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let plain = tokenizer.encode("Who are you?", false).unwrap();
    let full = tokenizer.encode("Who are you?", true).unwrap();
    assert_eq!(full, [&[1], &plain[..], &[2]].concat());
    assert!(tokenizer.adds_bos());
}

#[test]
fn templates_come_from_any_of_the_known_places() {
    let named = with_config(
        r#"{"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]}"#,
    );
    assert_eq!(Tokenizer::from_dir(named.path()).unwrap().chat_template(), Some("D"));
    let by_name = with_config(r#"{"chat_template": {"default": "O", "rag": "R"}}"#);
    assert_eq!(Tokenizer::from_dir(by_name.path()).unwrap().chat_template(), Some("O"));
    std::fs::write(by_name.path().join("chat_template.jinja"), "J").unwrap();
    assert_eq!(Tokenizer::from_dir(by_name.path()).unwrap().chat_template(), Some("J"), "the file wins");
    assert_eq!(Tokenizer::from_dir(with_config("{}").path()).unwrap().chat_template(), None);
}

#[test]
fn listed_tokens_that_tokenizer_json_lacks_are_added_at_their_ids() {
    let dir = with_config(
        r#"{"added_tokens_decoder": {"768": {"content": "<tool>", "lstrip": false, "rstrip": false, "normalized": false,
            "single_word": false, "special": true}}, "pad_token": "<pad>"}"#,
    );
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(tokenizer.encode("<tool>", false).unwrap(), [768]);
    assert_eq!(tokenizer.token_to_id("<pad>"), Some(769), "a role's token that is nowhere gets the next id");
    assert_eq!(tokenizer.vocab_size(), 770);
    let wrong = with_config(
        r#"{"added_tokens_decoder": {"900": {"content": "<tool>", "lstrip": false, "rstrip": false,
        "normalized": false, "single_word": false, "special": true}}}"#,
    );
    let error = Tokenizer::from_dir(wrong.path()).unwrap_err();
    assert!(error.to_string().contains("listed with id 900, but would get 768"), "{error}");
}

#[test]
fn roles_may_come_from_special_tokens_map() {
    let dir = with_config("{}");
    std::fs::write(dir.path().join("special_tokens_map.json"), r#"{"eos_token": "<|im_end|>"}"#).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(tokenizer.eos_token(), Some("<|im_end|>"));
    let out = tempfile::tempdir().unwrap();
    tokenizer.save(out.path()).unwrap();
    assert_eq!(Tokenizer::from_dir(out.path()).unwrap().eos_token(), Some("<|im_end|>"));
}

#[test]
fn truncation_in_tokenizer_json_is_switched_off() {
    let text = std::fs::read_to_string(fixture("tiny_tokenizer/tokenizer.json")).unwrap();
    let text = text.replacen(
        "\"truncation\": null",
        r#""truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}"#,
        1,
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    std::fs::write(&path, text).unwrap();
    assert!(Tokenizer::from_file(&path).unwrap().encode("one two three four five", false).unwrap().len() > 2);
}

#[test]
fn what_is_missing_or_broken_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let error = Tokenizer::from_dir(dir.path()).unwrap_err();
    assert!(matches!(error, FormatError::NotFound { .. }), "{error}");
    std::fs::write(dir.path().join("tokenizer.model"), "x").unwrap();
    let error = Tokenizer::from_dir(dir.path()).unwrap_err();
    assert!(error.to_string().contains("SentencePiece"), "{error}");
    std::fs::write(dir.path().join("tokenizer.json"), "{\"version\": \"1.0\"}").unwrap();
    let error = Tokenizer::from_dir(dir.path()).unwrap_err();
    assert!(matches!(error, FormatError::InvalidTokenizer { .. }), "{error}");
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
    let broken = with_config("{\"eos_token\": ");
    let error = Tokenizer::from_dir(broken.path()).unwrap_err();
    assert!(matches!(error, FormatError::InvalidJson { .. }), "{error}");
}

#[test]
fn special_tokens_without_a_role_are_matched_whole() {
    let dir = with_config(
        r#"{"extra_special_tokens": {"image_token": "<image>"}, "additional_special_tokens": ["<a>"]}"#,
    );
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(tokenizer.encode("<a><image>", false).unwrap(), [768, 769]);
    assert_eq!(tokenizer.decode(&[768, 769], true).unwrap(), "", "they are special");
}

#[test]
fn a_text_that_the_model_cannot_express_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    let words = r#"{"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "?"}}"#;
    std::fs::write(&path, words).unwrap();
    let tokenizer = Tokenizer::from_file(&path).unwrap();
    assert_eq!(tokenizer.encode("a", false).unwrap(), [0]);
    for error in
        [tokenizer.encode("b", false).unwrap_err(), tokenizer.encode_with_offsets("b", false).unwrap_err()]
    {
        assert!(matches!(error, FormatError::Tokenization { .. }), "{error}");
        assert!(error.to_string().contains("cannot encode this text"), "{error}");
    }
}

#[test]
fn a_tokenizer_is_shared_between_threads() {
    let tokenizer = tiny();
    let expected = tokenizer.encode("What is the capital of France?", false).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                assert_eq!(tokenizer.encode("What is the capital of France?", false).unwrap(), expected)
            });
        }
    });
}

#[test]
fn added_tokens_are_matched_whole_and_saved() {
    let mut tokenizer = tiny();
    let (size, texts) = (tokenizer.vocab_size() as u32, ["<|tool|>", "foobarbaz"].map(str::to_owned));
    assert_eq!(tokenizer.add_tokens(&texts[..1], true).unwrap(), [size]);
    assert_eq!(tokenizer.add_tokens(&texts[1..], false).unwrap(), [size + 1]);
    assert_eq!(tokenizer.add_tokens(&texts, true).unwrap(), [size, size + 1], "known tokens keep their ids");
    assert_eq!(tokenizer.vocab_size() as u32, size + 2);
    tokenizer.set_eos_token("<|tool|>").unwrap();
    let dir = tempfile::tempdir().unwrap();
    tokenizer.save(dir.path()).unwrap();
    let again = Tokenizer::from_dir(dir.path()).unwrap();
    for tokenizer in [&tokenizer, &again] {
        let ids = tokenizer.encode("a<|tool|>b foobarbazc", false).unwrap();
        assert!(ids.contains(&size) && ids.contains(&(size + 1)), "{ids:?}");
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), "a<|tool|>b foobarbazc");
        assert_eq!(tokenizer.decode(&[size], true).unwrap(), "");
        assert_eq!(tokenizer.eos_token_id(), Some(size));
    }
    let error = tokenizer.add_tokens(&[String::new()], false).unwrap_err();
    assert!(error.to_string().contains("empty"), "{error}");
}
