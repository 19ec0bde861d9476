//! The short way against the crate: every kind of tokenizer it takes, texts made to find differences.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::tokenizer::{Tokenizer, byte_level, parse};

/// The tiny tokenizer, changed.
fn tiny(change: impl FnOnce(&mut Value)) -> tokenizers::Tokenizer {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny_tokenizer/tokenizer.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    parse(json.to_string().as_bytes(), &path).unwrap()
}

fn split(pattern: &str) -> Value {
    json!({ "type": "Sequence", "pretokenizers": [
        { "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false },
        byte_level(false),
    ] })
}

fn byte_level(use_regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex })
}

/// A token that is found before or after normalising.
fn added(id: u32, content: &str, normalized: bool) -> Value {
    json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": normalized, "special": !normalized })
}

/// Tokenizers of every kind that has a short way.
fn kinds() -> Vec<(&'static str, tokenizers::Tokenizer)> {
    let digits = json!({ "type": "Digits", "individual_digits": true });
    let template = crate::tokenizer::special::template(Some(("<|im_start|>".into(), 1)), None);
    let more = |json: &mut Value| {
        let tokens = json["added_tokens"].as_array_mut().unwrap();
        // One is the beginning of another, one is found in what the others leave.
        tokens.extend([added(768, "<|", false), added(769, "<|x", false), added(770, "it's <", true)]);
    };
    vec![
        ("gpt2", tiny(|json| json["pre_tokenizer"] = byte_level(true))),
        (
            "digits",
            tiny(|json| {
                json["pre_tokenizer"] =
                    json!({ "type": "Sequence", "pretokenizers": [digits, byte_level(true)] });
                json["post_processor"] = template;
                more(json);
            }),
        ),
        (
            "llama3",
            tiny(|json| {
                json["pre_tokenizer"] = split(byte_level::LLAMA3);
                json["model"]["ignore_merges"] = json!(true);
                more(json);
            }),
        ),
        (
            "qwen2",
            tiny(|json| {
                json["pre_tokenizer"] = split(byte_level::QWEN2);
                json["normalizer"] = json!({ "type": "NFC" });
            }),
        ),
        (
            "without some bytes",
            tiny(|json| {
                json["pre_tokenizer"] = byte_level(true);
                let vocab = json["model"]["vocab"].as_object_mut().unwrap();
                for byte in [0xe4u8, b'z', b'\t'] {
                    vocab.shift_remove(&alphabet()[usize::from(byte)].to_string());
                }
                let gone = |merge: &Value| merge.to_string().contains(['z', alphabet()[9], alphabet()[0xe4]]);
                json["model"]["merges"].as_array_mut().unwrap().retain(|merge| !gone(merge));
            }),
        ),
        (
            "byte fallback",
            tiny(|json| {
                json["pre_tokenizer"] = byte_level(true);
                json["model"]["byte_fallback"] = json!(true);
                // The letter of a tab has two bytes, that of `z` one.
                let vocab = json["model"]["vocab"].as_object_mut().unwrap();
                for (id, token) in ["<0xC4>", "<0x89>", "<0x7A>"].into_iter().enumerate() {
                    vocab.insert(token.to_owned(), json!(800 + id));
                }
                vocab.retain(|token, _| !token.contains(['z', alphabet()[9]]) || token.starts_with("<0x"));
                let gone = |merge: &Value| merge.to_string().contains(['z', alphabet()[9]]);
                json["model"]["merges"].as_array_mut().unwrap().retain(|merge| !gone(merge));
            }),
        ),
    ]
}

/// Texts of what the patterns tell apart.
fn texts() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "a",
        "Word",
        "'s",
        "'LL",
        "'Re",
        "'ſ",
        "'",
        "it's <",
        "<|im_start|>",
        "<|im_end|>",
        "<|",
        "<|x",
        "<|x|",
        " ",
        "  ",
        "\t",
        "\n",
        "\r\n",
        "\n\n",
        "\u{a0}",
        "\u{3000}",
        "\u{85}",
        "\u{1c}",
        "\u{200b}",
        "1",
        "23",
        "4567",
        "²",
        "Ⅷ",
        "٣",
        "!",
        "...",
        "—",
        "…\n",
        "é",
        "e\u{301}",
        "ß",
        "ſ",
        "中文",
        "한국",
        "\u{1100}\u{1161}",
        "हि",
        "🙂",
        "👩‍👧",
        "z",
        "ä",
        "\u{0}",
        "\u{10ffff}",
        "_",
        "\\",
        "/",
        "the",
        " of",
        "ing",
    ]);
    prop_oneof![
        4 => prop::collection::vec(pieces, 0..24).prop_map(|pieces| pieces.concat()),
        1 => prop::collection::vec(any::<char>(), 0..12).prop_map(|chars| chars.into_iter().collect()),
        1 => ("[ a-c]{0,4}", 0..600usize).prop_map(|(text, n)| text + &"xyz".repeat(n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ids_and_ranges_are_the_crates(texts in prop::collection::vec(texts(), 1..4), special in any::<bool>()) {
        thread_local! {
            static KINDS: Vec<(&'static str, tokenizers::Tokenizer, Direct)> = kinds()
                .into_iter()
                .map(|(name, inner)| {
                    let direct = Direct::of(&inner).unwrap_or_else(|| panic!("{name} has no short way"));
                    (name, inner, direct)
                })
                .collect();
        }
        KINDS.with(|kinds| {
            for (name, inner, direct) in kinds {
                for text in &texts {
                    let expected = inner.encode(text.as_str(), special).unwrap();
                    let Some(found) = direct.encode(inner, text, special, false) else {
                        prop_assert_eq!(*name, "qwen2", "only NFC needs the crate");
                        continue;
                    };
                    prop_assert_eq!(&found.ids, expected.get_ids(), "{}: {:?}", name, text);
                    // A second time from the cache, with ranges.
                    let Some(found) = direct.encode(inner, text, special, true) else {
                        prop_assert!(["without some bytes", "byte fallback"].contains(name), "{}: {:?}", name, text);
                        continue;
                    };
                    prop_assert_eq!(&found.ids, expected.get_ids(), "{}: {:?}", name, text);
                    prop_assert_eq!(found.offsets.as_deref(), Some(expected.get_offsets()), "{}: {:?}", name, text);
                }
            }
            Ok(())
        })?;
    }
}

#[test]
fn what_looks_beyond_a_word_is_left_to_the_crate() {
    let gpt2 = || byte_level(true);
    type Change = Box<dyn FnOnce(&mut Value)>;
    let refused: [(&str, Change); 6] = [
        ("prefix space", Box::new(|json| json["pre_tokenizer"]["add_prefix_space"] = json!(true))),
        ("another pattern", Box::new(|json| json["pre_tokenizer"] = split(r"\w+|\W+"))),
        ("lower case", Box::new(|json| json["normalizer"] = json!({ "type": "Lowercase" }))),
        ("strips", Box::new(|json| json["added_tokens"][0]["lstrip"] = json!(true))),
        ("single words", Box::new(|json| json["added_tokens"][0]["single_word"] = json!(true))),
        ("draws", Box::new(|json| json["model"]["dropout"] = json!(0.5))),
    ];
    for (name, change) in refused {
        let inner = tiny(|json| {
            json["pre_tokenizer"] = gpt2();
            change(json);
        });
        assert!(Direct::of(&inner).is_none(), "{name}");
    }
}

#[test]
fn a_template_around_the_text_is_kept_in_order() {
    let template = crate::tokenizer::special::template(Some(("a".into(), 5)), Some(("b".into(), 6)));
    assert_eq!(around(&template), Some([vec![5], vec![6]]));
    let both = json!({ "type": "Sequence", "processors": [{ "type": "ByteLevel" }, template] });
    assert_eq!(around(&both), Some([vec![5], vec![6]]));
    assert_eq!(around(&json!({ "type": "BertProcessing" })), None);
    let twice = json!({ "type": "TemplateProcessing", "special_tokens": {},
        "single": [{ "Sequence": { "id": "A" } }, { "Sequence": { "id": "A" } }] });
    assert_eq!(around(&twice), None);
}

#[test]
fn added_tokens_and_another_end_are_seen_after_the_first_text() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny_tokenizer");
    let mut tokenizer = Tokenizer::from_dir(&dir).unwrap();
    assert!(tokenizer.encode("a<new>b", false).unwrap().len() > 3);
    assert!(tokenizer.direct.get().is_some_and(Option::is_some), "the tiny tokenizer has a short way");
    let ids = tokenizer.add_tokens(&["<new>".to_owned()], true).unwrap();
    assert_eq!(tokenizer.encode("a<new>b", false).unwrap()[1], ids[0]);
}

#[test]
fn a_run_of_blanks_is_encoded_or_refused_but_never_changes_what_follows() {
    let text = format!("a{}b c", " ".repeat(1_000_001));
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny_tokenizer");
    let tokenizer = Tokenizer::from_dir(&dir).unwrap();
    let ids = tokenizer.encode(&text, false).unwrap();
    let end = tokenizer.encode(" b c", false).unwrap();
    assert!(ids.ends_with(&end));
    let slow = Tokenizer { direct: std::sync::OnceLock::from(None), ..tokenizer };
    let error = slow.encode(&text, false).unwrap_err().to_string();
    assert!(error.contains("900000 or more white-space characters in a row"), "{error}");
    assert!(slow.encode(&text[200_000..], false).unwrap().ends_with(&end));
}

#[test]
fn one_word_has_the_limit_of_a_text_and_a_text_of_words_has_none() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny_tokenizer");
    let tokenizer = Tokenizer::from_dir(&dir).unwrap();
    let most = crate::tokenizer::LONGEST_TEXT;
    let word = "a".repeat(most + 1);
    for error in [tokenizer.encode(&word, false).err(), tokenizer.encode_with_offsets(&word, false).err()] {
        assert!(
            matches!(error, Some(crate::FormatError::TextTooLong { bytes, .. }) if bytes == most + 1),
            "{error:?}"
        );
    }
    let words = "ab ".repeat(most / 3 + 1);
    assert!(tokenizer.encode(&words, false).is_ok_and(|ids| ids.len() > most / 3));
}
