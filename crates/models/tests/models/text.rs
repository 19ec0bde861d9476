//! Texts as their tokens come: whole characters, and nothing of a stop string.

use foundry_formats::Tokenizer;
use foundry_models::inference::TextStream;
use std::path::Path;

/// Bytes for what it has not learnt, so that one character needs several tokens.
fn tokenizer() -> Tokenizer {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/fixtures/tiny_tokenizer");
    Tokenizer::from_dir(&dir).unwrap()
}

/// The pieces that are shown while the tokens of `text` come, with what is shown at the end, and whether it stopped.
fn shown(tokenizer: &Tokenizer, text: &str, stops: &[&str]) -> (Vec<String>, bool) {
    let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
    let mut stream = TextStream::new(tokenizer, &stops);
    let mut pieces = Vec::new();
    for id in tokenizer.encode(text, false).unwrap() {
        pieces.push(stream.push(id).unwrap().to_owned());
        if stream.is_stopped() {
            break;
        }
    }
    pieces.push(stream.finish().unwrap().to_owned());
    assert_eq!(pieces.concat(), stream.text());
    let stopped = stream.is_stopped();
    (pieces, stopped)
}

const TEXT: &str = "The café says 你好 🙂🙃 – and the naïve cat, 👩‍👩‍👧 too.\n\tEnd";

#[test]
fn no_piece_has_half_a_character() {
    let tokenizer = tokenizer();
    let ids = tokenizer.encode(TEXT, false).unwrap();
    assert!(ids.len() > 40, "several tokens for some characters: {}", ids.len());
    let (pieces, stopped) = shown(&tokenizer, TEXT, &[]);
    assert_eq!(pieces.concat(), tokenizer.decode(&ids, true).unwrap());
    assert!(pieces.iter().all(|piece| !piece.contains('\u{FFFD}')), "{pieces:?}");
    assert!(!stopped);
    assert!(pieces.iter().filter(|piece| !piece.is_empty()).count() > 10, "it does not all come at the end");
}

#[test]
fn a_character_that_never_ends_is_told_at_the_end() {
    let tokenizer = tokenizer();
    let mut ids = tokenizer.encode("ok 🙂", false).unwrap();
    ids.pop();
    let mut stream = TextStream::new(&tokenizer, &[]);
    let before: String = ids.iter().map(|id| stream.push(*id).unwrap().to_owned()).collect();
    assert!(!before.contains('\u{FFFD}'), "{before:?}");
    stream.finish().unwrap();
    assert_eq!(stream.text(), tokenizer.decode(&ids, true).unwrap());
}

/// Every substring as a stop string: the borders of tokens lie anywhere in it.
#[test]
fn stop_strings_end_the_text_wherever_tokens_begin() {
    let tokenizer = tokenizer();
    let all: Vec<(usize, char)> = TEXT.char_indices().collect();
    for start in 0..all.len() {
        for end in start + 1..all.len().min(start + 7) {
            let stop = &TEXT[all[start].0..all[end].0];
            let (pieces, stopped) = shown(&tokenizer, TEXT, &["never", stop]);
            assert!(stopped, "{stop:?}");
            let expected = &TEXT[..TEXT.find(stop).unwrap()];
            assert_eq!(pieces.concat(), expected, "{stop:?}");
        }
    }
}

#[test]
fn the_beginning_of_a_stop_string_waits_and_is_shown_when_it_was_none() {
    let tokenizer = tokenizer();
    let (pieces, stopped) = shown(&tokenizer, "ends with a cat", &["cats", "a cat sat"]);
    assert_eq!((pieces.concat().as_str(), stopped), ("ends with a cat", false));
    assert!(pieces.last().unwrap().contains("a cat"), "{pieces:?}");
}
