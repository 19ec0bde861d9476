//! Whole loads: settings and files that do not fit each other, counts of the report, held-out splits.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::*;
use crate::dataset::PackedRow;
use crate::shape::Shape;
use crate::source::DataFile;
use crate::spec::{FormatHint, PackingStrategy, Source};

const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}\
                      {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// The tiny tokenizer of the formats crate after changes to its two files.
fn tokenizer_with(change: impl FnOnce(&mut Map<String, Value>, &mut Map<String, Value>)) -> Tokenizer {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/fixtures/tiny_tokenizer");
    let read = |name: &str| -> Map<String, Value> {
        serde_json::from_str(&std::fs::read_to_string(fixture.join(name)).unwrap()).unwrap()
    };
    let (mut tokenizer, mut config) = (read("tokenizer.json"), read("tokenizer_config.json"));
    change(&mut tokenizer, &mut config);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), serde_json::to_vec(&tokenizer).unwrap()).unwrap();
    std::fs::write(dir.path().join("tokenizer_config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
    Tokenizer::from_dir(dir.path()).unwrap()
}

fn tiny() -> Tokenizer {
    tokenizer_with(|_, _| {})
}

/// Files in a directory that lives as long as the value.
struct Files {
    dir: tempfile::TempDir,
    names: Vec<&'static str>,
}

impl Files {
    fn new(files: &[(&'static str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Self { dir, names: files.iter().map(|(name, _)| *name).collect() }
    }

    fn spec(&self) -> DataSpec {
        let files = self.names.iter().map(|name| self.dir.path().join(name)).collect();
        DataSpec { files, ..DataSpec::default() }
    }

    /// The error of loading, without the directory's name.
    fn error(&self, tokenizer: &Tokenizer, change: impl FnOnce(&mut DataSpec)) -> String {
        let mut spec = self.spec();
        change(&mut spec);
        let error = load(&spec, tokenizer).expect_err("the data is wrong");
        error.to_string().replace(&format!("{}/", self.dir.path().display()), "")
    }
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

fn chat(turns: &[(&str, &str)]) -> Value {
    let messages: Vec<Value> =
        turns.iter().map(|(role, text)| json!({"role": role, "content": text})).collect();
    json!({ "messages": messages })
}

#[test]
fn settings_are_checked_before_any_file_is_read() {
    let nothing = DataSpec::default();
    assert!(matches!(load(&nothing, &tiny()), Err(DataError::NoFiles)));
    let nowhere = DataSpec { files: vec![PathBuf::from("nowhere.jsonl")], ..DataSpec::default() };
    let zero = DataSpec { max_length: Some(0), ..nowhere.clone() };
    assert!(matches!(load(&zero, &tiny()), Err(DataError::ZeroLength)));
    let endless = DataSpec { max_length: None, packing: true, ..nowhere.clone() };
    assert!(matches!(load(&endless, &tiny()), Err(DataError::PackingWithoutLength)));
    assert!(matches!(load(&nowhere, &tiny()), Err(DataError::Io { .. })));
}

#[test]
fn shapes_that_cannot_be_told_are_refused() {
    let unknown = Files::new(&[("a.jsonl", "\n{\"question\": \"a\", \"answer\": \"b\"}\n")]);
    let text = unknown.error(&tiny(), |_| {});
    assert!(
        text.starts_with("a.jsonl:2: no supported shape has the keys `question`, `answer`; supported are:"),
        "{text}"
    );
    assert!(text.contains("instruction + output"), "{text}");
    let chosen = Files::new(&[("a.jsonl", "{\"chosen\": [], \"rejected\": []}\n")]);
    assert!(chosen.error(&tiny(), |_| {}).contains("preference pairs"));

    let both = Files::new(&[("a.jsonl", &lines(&[json!({"instruction": "a", "output": "b", "text": "c"})]))]);
    assert_eq!(
        both.error(&tiny(), |_| {}),
        "a.jsonl:1: the keys `instruction`, `output`, `text` fit several shapes (alpaca, text); say which with `format: \
         alpaca | text`"
    );
    let mut spec = both.spec();
    spec.format = FormatHint::Text;
    let dataset = load(&spec, &tiny()).unwrap();
    assert_eq!(dataset.report.format, Some(Shape::Text));
    assert_eq!(dataset.report.unused_keys.iter().collect::<Vec<_>>(), ["instruction", "output"]);
}

#[test]
fn a_data_set_has_one_shape() {
    let mixed = Files::new(&[("a.jsonl", "{\"text\": \"a\"}\n{\"prompt\": \"a\", \"completion\": \"b\"}\n")]);
    let text = mixed.error(&tiny(), |_| {});
    assert!(
        text.starts_with("a.jsonl:2: this row has the shape prompt_completion, the rows before it text;"),
        "{text}"
    );
    let files = Files::new(&[("a.txt", "words"), ("b.json", "[{\"prompt\": \"a\", \"completion\": \"b\"}]")]);
    assert!(files.error(&tiny(), |_| {}).starts_with("b.json:1: this row has the shape"));
    let demanded = Files::new(&[("a.txt", "words")]);
    let text = demanded.error(&tiny(), |s| s.format = FormatHint::Messages);
    assert!(text.starts_with("a.txt:1: not a messages row: a .txt file holds plain text"), "{text}");
    // A later row with further keys keeps the shape of the first.
    let more = Files::new(&[(
        "a.jsonl",
        "{\"text\": \"a\"}\n{\"text\": \"b\", \"prompt\": \"c\", \"completion\": \"d\"}\n",
    )]);
    assert_eq!(load(&more.spec(), &tiny()).unwrap().report.examples, 2);
}

#[test]
fn data_without_anything_to_learn_is_refused() {
    let empty = Files::new(&[("a.jsonl", "\n\n"), ("b.json", "[]")]);
    assert_eq!(
        empty.error(&tiny(), |_| {}),
        "the data set is empty: no example in a.jsonl, b.json; check the files"
    );
    let long_prompt =
        Files::new(&[("a.jsonl", &lines(&[json!({"prompt": "a b c d e f g h", "completion": "i"})]))]);
    let text = long_prompt.error(&tiny(), |s| s.max_length = Some(4));
    assert!(
        text.starts_with(
            "none of the 1 example(s) has a token to learn from (0 without tokens, 1 with every"
        ),
        "{text}"
    );
    let packed = long_prompt.error(&tiny(), |s| (s.max_length, s.packing) = (Some(4), true));
    assert_eq!(packed, text, "packed rows without labels are refused as well");
    let no_tokens = Files::new(&[("a.jsonl", "{\"text\": \"\"}\n")]);
    assert!(no_tokens.error(&tiny(), |s| s.append_eos = false).contains("(1 without tokens, 0 with every"));
}

#[test]
fn loss_settings_must_fit_the_data() {
    let texts = Files::new(&[("a.jsonl", "{\"text\": \"a\"}\n")]);
    let text = texts.error(&tiny(), |s| s.completion_only_loss = Some(true));
    assert!(text.starts_with(
        "`completion_only_loss: true` needs prompt/completion or Alpaca data, but the data is text"
    ));
    let text = texts.error(&tiny(), |s| s.assistant_only_loss = true);
    assert!(
        text.starts_with("`assistant_only_loss: true` needs conversations, but the data is text"),
        "{text}"
    );
    let no_assistant = Files::new(&[(
        "a.jsonl",
        &lines(&[chat(&[("user", "a"), ("assistant", "b")]), chat(&[("user", "a")])]),
    )]);
    let text = no_assistant.error(&tiny(), |s| s.assistant_only_loss = true);
    assert!(
        text.starts_with(
            "a.jsonl:2: no token of this conversation is to be learned: it has no assistant turn"
        ),
        "{text}"
    );
}

#[test]
fn conversations_need_a_good_template() {
    let chats = Files::new(&[("a.jsonl", &lines(&[chat(&[("user", "a"), ("assistant", "b")])]))]);
    let bare = tokenizer_with(|_, config| {
        config.remove("chat_template");
    });
    let text = chats.error(&bare, |_| {});
    assert!(
        text.starts_with("the data is messages but the tokenizer has no chat template; set `chat_template`"),
        "{text}"
    );
    let text = chats.error(&bare, |s| s.chat_template = Some("{% if %}".to_owned()));
    assert!(text.starts_with("the chat template is no valid Jinja (its line 1)"), "{text}");
    let raising = "{{ raise_exception('not ' ~ messages[0].content) }}".to_owned();
    let text = chats.error(&bare, |s| s.chat_template = Some(raising));
    assert!(text.starts_with("a.jsonl:1: the chat template refuses this conversation: not a;"), "{text}");
    let text = chats.error(&tiny(), |s| {
        s.chat_template_kwargs.insert("tools".to_owned(), Value::Null);
    });
    assert!(text.contains("`chat_template_kwargs` must not set `tools`"), "{text}");
}

#[test]
fn masks_that_prefixes_cannot_tell_are_refused() {
    let chats = Files::new(&[(
        "a.jsonl",
        &lines(&[chat(&[("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")])]),
    )]);
    let error = |template: &str| {
        chats.error(&tiny(), |s| (s.assistant_only_loss, s.chat_template) = (true, Some(template.to_owned())))
    };
    // Only the last answer is shown whole.
    let shortening = "{% for m in messages %}{{ '<|im_start|>' + (m.content if loop.last or m.role == 'user' else '.') \
                      + '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>' }}{% endif %}";
    let text = error(shortening);
    assert!(
        text.starts_with("a.jsonl:1: cannot tell the learned tokens of message 1: the template renders it"),
        "{text}"
    );
    assert!(
        text.contains("use `multi_turn: auto`")
            && text.ends_with("a template with {% generation %} tags, or no mask"),
        "{text}"
    );
    let thinking = CHATML.replace("'<|im_start|>assistant\n'", "'<|im_start|>assistant\n<think>'");
    assert!(error(&thinking).contains("the template's generation prompt is not how it begins this turn"));
    let endless = CHATML.replace("'<|im_end|>\n'", "'\n'");
    assert!(error(&endless).contains("the template does not end this turn with a special token"));
    assert!(
        chats
            .error(&tiny(), |s| {
                let raising =
                    "{% if messages | length < 4 %}{{ raise_exception('short') }}{% endif %}x".to_owned();
                (s.assistant_only_loss, s.chat_template) = (true, Some(raising));
            })
            .contains("refuses this conversation: short")
    );
}

#[test]
fn eos_is_appended_once_and_must_exist() {
    let texts = Files::new(&[("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"a<|im_end|>\"}\n")]);
    let dataset = load(&texts.spec(), &tiny()).unwrap();
    assert_eq!(dataset.rows[0], dataset.rows[1]);
    assert_eq!((dataset.rows[0].tokens.last(), dataset.rows[0].labels.last()), (Some(&2), Some(&2)));
    let without = tokenizer_with(|_, config| {
        config.remove("eos_token");
    });
    assert!(
        texts
            .error(&without, |_| {})
            .starts_with("the tokenizer has no EOS token to end texts with; set `eos_token`")
    );
    let open = DataSpec { append_eos: false, files: texts.spec().files, ..DataSpec::default() };
    let dataset = load(&open, &without).err();
    // "a" alone is one token and trains nothing, but the second row has its EOS written out: no error.
    assert!(dataset.is_none());
}

#[test]
fn failures_of_the_tokenizer_name_the_row() {
    let words = tokenizer_with(|tokenizer, _| {
        tokenizer.insert("added_tokens".to_owned(), json!([]));
        tokenizer.insert("pre_tokenizer".to_owned(), json!({"type": "Whitespace"}));
        tokenizer.insert("decoder".to_owned(), Value::Null);
        tokenizer.insert("post_processor".to_owned(), Value::Null);
        let vocabulary = json!({"type": "WordLevel", "vocab": {"<|im_end|>": 0, "known": 1, "words": 2}, "unk_token": "?"});
        tokenizer.insert("model".to_owned(), vocabulary);
    });
    let texts = Files::new(&[("a.jsonl", "{\"text\": \"known words\"}\n{\"text\": \"strange\"}\n")]);
    let text = texts.error(&words, |s| s.append_eos = false);
    assert!(text.starts_with("a.jsonl:2: "), "{text}");
}

/// The tiny tokenizer with a BOS before every text.
fn with_bos() -> Tokenizer {
    tokenizer_with(|tokenizer, config| {
        config.insert("add_bos_token".to_owned(), json!(true));
        let bos = json!({"SpecialToken": {"id": "<|im_start|>", "type_id": 0}});
        let single = json!([bos, {"Sequence": {"id": "A", "type_id": 0}}]);
        let special = json!({"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}});
        let pair = json!([{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}]);
        let processor =
            json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special});
        tokenizer.insert("post_processor".to_owned(), processor);
    })
}

#[test]
fn a_second_bos_is_counted_and_templates_add_none() {
    let texts = Files::new(&[("a.jsonl", "{\"text\": \"a b\"}\n{\"text\": \"<|im_start|>a b\"}\n")]);
    let dataset = load(&texts.spec(), &with_bos()).unwrap();
    assert_eq!(dataset.rows[0].tokens[0], 1, "the tokenizer's own BOS");
    assert_eq!(dataset.rows[1].tokens[..2], [1, 1]);
    assert_eq!(dataset.report.double_bos, 1);
    assert!(dataset.report.warnings()[0].contains("begin with two BOS tokens"));
    let chats = Files::new(&[("a.jsonl", &lines(&[chat(&[("user", "a"), ("assistant", "b")])]))]);
    let dataset = load(&chats.spec(), &with_bos()).unwrap();
    assert_eq!(dataset.report.double_bos, 0, "rendered text is tokenised without adding special tokens");
}

#[test]
fn the_report_counts_what_happened() {
    let long = "x ".repeat(40);
    let rows = lines(&[
        json!({"prompt": "Q", "completion": " A B", "id": 1}),
        json!({"prompt": "Q", "completion": long}),
        json!({"prompt": long, "completion": "A"}),
    ]);
    let files =
        Files::new(&[("a.jsonl", &rows), ("b.jsonl", "\n{\"prompt\": \"w\", \"completion\": \"xyz\"}\n")]);
    let mut spec = files.spec();
    spec.max_length = Some(20);
    let Dataset { rows, report } = load(&spec, &tiny()).unwrap();
    assert_eq!(report.format, Some(Shape::PromptCompletionText));
    assert_eq!(report.files.iter().map(|f| f.examples).collect::<Vec<_>>(), [3, 1]);
    assert_eq!((report.examples, report.blank, report.rows, report.sequences), (4, 1, 3, 3));
    assert_eq!((report.truncated, report.dropped_unlabelled, report.dropped_empty), (2, 1, 0));
    assert_eq!((report.eos_trained, report.longest_row), (2, 20));
    assert_eq!(report.tokens, rows.iter().map(|r| r.tokens.len()).sum::<usize>());
    assert_eq!(report.labelled_tokens, rows.iter().map(PackedRow::labelled).sum::<usize>());
    assert!((report.eos_trained_percent() - 200.0 / 3.0).abs() < 1e-9);
    let text = report.to_string();
    assert!(text.contains("format prompt_completion: 4 example(s) in 2 file(s)"), "{text}");
    assert!(text.contains("end of sequence trained in 66.7 % of the examples\nduplicates 0"), "{text}");
    assert!(text.contains("\nkeys not used: id\n"), "{text}");
    // Two examples are long and two short, the one of 82 tokens is cut at 20.
    assert!(text.contains("half at most 5, 90 % at most 82, 99 % at most 82, the longest 82"), "{text}");
    assert_eq!(report.lengths.examples(), 4);
    assert_eq!(report.files.iter().map(|f| f.tokens).collect::<Vec<_>>(), [45, 5]);
    assert!(text.contains("warning: 1 example(s) have no label left"), "{text}");
    // Packed, the example without labels stays, as in TRL.
    spec.packing = true;
    let packed = load(&spec, &tiny()).unwrap().report;
    assert_eq!((packed.sequences, packed.kept_unlabelled, packed.dropped_unlabelled), (4, 1, 0));
    // Split, nothing is truncated.
    spec.packing_strategy = PackingStrategy::BfdSplit;
    let split = load(&spec, &tiny()).unwrap().report;
    assert_eq!((split.truncated, split.truncated_tokens), (0, 0));
    assert!(split.tokens > packed.tokens);
}

#[test]
fn examples_that_repeat_are_counted_and_warned_about() {
    let same = json!({"prompt": "Q", "completion": "A"});
    let rows = lines(&[same.clone(), json!({"prompt": "Q", "completion": "B"}), same.clone(), same]);
    let report = load(&Files::new(&[("a.jsonl", &rows)]).spec(), &tiny()).unwrap().report;
    assert_eq!((report.duplicates, report.compared), (2, 4));
    assert!(report.warnings().iter().any(|w| w.starts_with("2 of 4 example(s) repeat an earlier one")));
    assert!(report.to_string().contains("duplicates 2 (50.0 % of all)"));
}

#[test]
fn null_content_and_prompts_that_are_no_prefix_are_counted() {
    let null =
        json!({"messages": [{"role": "user", "content": null}, {"role": "assistant", "content": "b"}]});
    let files = Files::new(&[("a.jsonl", &lines(&[null]))]);
    assert_eq!(load(&files.spec(), &tiny()).unwrap().report.null_content, 1);
    // "the" is one token of the whole but no token boundary of the prompt "th".
    let tokenizer = tiny();
    let (prompt, completion) = ("in th", "e end of it");
    assert_ne!(
        tokenizer.encode(prompt, true).unwrap(),
        tokenizer.encode("in the end", true).unwrap()[..tokenizer.encode(prompt, true).unwrap().len()]
    );
    let files = Files::new(&[("a.jsonl", &lines(&[json!({"prompt": prompt, "completion": completion})]))]);
    let report = load(&files.spec(), &tokenizer).unwrap().report;
    assert_eq!(report.prompt_not_prefix, 1);
    assert!(report.warnings()[0].contains("are no prefix of prompt + completion"));
}

#[test]
fn a_row_without_eos_is_warned_about() {
    let files = Files::new(&[("a.jsonl", "{\"text\": \"many words but no end of them\"}\n")]);
    let mut spec = files.spec();
    spec.append_eos = false;
    let report = load(&spec, &tiny()).unwrap().report;
    assert!(report.warnings()[0].starts_with("no example trains an end-of-sequence token"));
    // An id from generation_config.json counts as an end, too.
    spec.eos_token_ids = tiny().encode(" them", true).unwrap();
    assert_eq!(load(&spec, &tiny()).unwrap().report.eos_trained, 1);
}

#[test]
fn a_holdout_is_datasets_train_test_split() {
    let rows: Vec<Value> = (0..10).map(|i| json!({"text": format!("{i} {i} {i}")})).collect();
    let files = Files::new(&[("a.jsonl", &lines(&rows))]);
    let whole = load(&files.spec(), &tiny()).unwrap();
    let order = |part: &Dataset| -> Vec<usize> {
        part.rows.iter().map(|row| whole.rows.iter().position(|w| w == row).unwrap()).collect()
    };
    // Dataset.from_dict({"i": list(range(10))}).train_test_split(test_size=0.25 and 4, seed=42) of datasets 5.2.
    let (train, test) =
        load_with_holdout(&files.spec(), &files.spec(), &tiny(), Holdout::Fraction(0.25)).unwrap();
    assert_eq!((order(&train), order(&test)), (vec![7, 3, 2, 4, 9, 1, 8], vec![5, 6, 0]));
    assert_eq!((train.report.examples, test.report.examples), (7, 3));
    let (train, test) =
        load_with_holdout(&files.spec(), &files.spec(), &tiny(), Holdout::Examples(4)).unwrap();
    assert_eq!((train.rows.len(), order(&test)), (6, vec![5, 6, 0, 7]));
    for bad in
        [Holdout::Examples(0), Holdout::Examples(10), Holdout::Fraction(1.0), Holdout::Fraction(f64::NAN)]
    {
        let error = load_with_holdout(&files.spec(), &files.spec(), &tiny(), bad).unwrap_err();
        assert!(matches!(error, DataError::BadHoldout { examples: 10, .. }), "{bad}");
    }
}

#[test]
fn text_files_are_documents_paragraphs_or_lines() {
    let files = Files::new(&[
        ("a.txt", "one two\nthree four\n\nfive six\n"),
        ("b.jsonl", "{\"body\": \"seven eight\"}\n"),
    ]);
    let count = |by| {
        let spec = DataSpec { sample_by: by, text_field: "body".to_owned(), ..files.spec() };
        load(&spec, &tiny()).unwrap().report.examples
    };
    use crate::spec::SampleBy;
    assert_eq!([SampleBy::Document, SampleBy::Paragraph, SampleBy::Line].map(count), [2, 3, 4]);
}

#[test]
fn sharegpt_and_messages_give_the_same_rows() {
    let turns = [("human", "a"), ("gpt", "b")].map(|(from, value)| json!({"from": from, "value": value}));
    let sharegpt = Files::new(&[("a.json", &json!([{"conversations": turns}]).to_string())]);
    let messages = Files::new(&[("a.jsonl", &lines(&[chat(&[("user", "a"), ("assistant", "b")])]))]);
    let (ours, theirs) = (load(&sharegpt.spec(), &tiny()).unwrap(), load(&messages.spec(), &tiny()).unwrap());
    assert_eq!(ours.rows, theirs.rows);
    assert_eq!((ours.report.format, theirs.report.format), (Some(Shape::ShareGpt), Some(Shape::Messages)));
}

#[test]
fn a_rows_own_template_variables_win() {
    let mut row = chat(&[("user", "a"), ("assistant", "b")]);
    row["chat_template_kwargs"] = json!({"mark": "<|im_end|>"});
    let files = Files::new(&[("a.jsonl", &lines(&[row]))]);
    let mut spec = files.spec();
    spec.chat_template = Some("a b {{ mark }}".to_owned());
    spec.chat_template_kwargs.insert("mark".to_owned(), json!("c"));
    let rows = load(&spec, &tiny()).unwrap().rows;
    assert_eq!(rows[0].tokens.last(), Some(&2));
}

#[test]
fn what_was_left_out_is_a_warning() {
    let rows = format!("{}{}", lines(&[json!({"text": "a b"})]), "{\"messages\": []}\n".repeat(9));
    let files = Files::new(&[("a.jsonl", &rows)]);
    let spec = DataSpec { on_error: crate::OnError::Skip, ..files.spec() };
    let report = load(&spec, &tiny()).unwrap().report;
    let said = report.warnings().join("\n");
    assert!(said.contains("9 row(s) (90.0 %) could not be used and were left out"), "{said}");
    assert!(said.contains("a.jsonl:2"), "{said}");
}

#[test]
fn a_split_conversation_is_on_one_side_of_a_holdout() {
    let talk = |i: usize| {
        chat(&[("user", "a"), ("assistant", "b"), ("user", &format!("number {i}")), ("assistant", "c")])
    };
    let rows: Vec<Value> = (0..20).map(talk).collect();
    let files = Files::new(&[("a.jsonl", &lines(&rows))]);
    let spec = DataSpec { multi_turn: crate::MultiTurn::Split, ..files.spec() };
    let (train, eval) = load_with_holdout(&spec, &spec, &tiny(), Holdout::Examples(5)).unwrap();
    assert_eq!((train.rows.len(), eval.rows.len()), (30, 10), "pairs of rows");
    // Each conversation's second row is the only one with its number.
    let longest = |part: &Dataset| part.rows.iter().filter(|row| row.tokens.len() > 20).count();
    assert_eq!((longest(&train), longest(&eval)), (15, 5));
    let packed = DataSpec { packing: true, ..spec.clone() };
    let (train, eval) = load_with_holdout(&packed, &spec, &tiny(), Holdout::Examples(5)).unwrap();
    assert_eq!(eval.rows.len(), 10, "evaluation rows are not packed where that is not asked for");
    assert!(train.rows.len() < 30);
}

#[test]
fn a_source_that_never_ends_is_found_among_others() {
    let texts: Vec<Value> = (0..12).map(|i| json!({"text": format!("{i} b")})).collect();
    let chats: Vec<Value> = (0..12).map(|i| chat(&[("user", "a"), ("assistant", &format!("{i}"))])).collect();
    let files = Files::new(&[("texts.jsonl", &lines(&texts)), ("chats.jsonl", &lines(&chats))]);
    let source = |name: &str| crate::Source {
        files: vec![crate::DataFile::local(files.dir.path().join(name))],
        ..crate::Source::default()
    };
    let endless = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}";
    for (template, found) in [(CHATML, None), (endless, Some("chats.jsonl"))] {
        let spec = DataSpec {
            sources: vec![source("texts.jsonl"), source("chats.jsonl")],
            chat_template: Some(template.to_owned()),
            ..DataSpec::default()
        };
        let report = load(&spec, &tiny()).unwrap().report;
        assert_eq!((report.sources[0].learned, report.sources[0].eos_trained), (12, 12));
        let name = report.never_ends().map(|s| s.first.file_name().unwrap().to_string_lossy().into_owned());
        assert_eq!(name.as_deref(), found);
    }
}

#[test]
fn chosen_turns_of_a_conversation_in_two_parts_are_learned_before_the_cut_too() {
    let turn = |role: &str, text: &str| json!({"role": role, "content": text});
    let row = json!({"prompt": [turn("user", "a"), turn("assistant", "b"), turn("user", "c")],
                     "completion": [turn("assistant", "d")]});
    let files = Files::new(&[("a.jsonl", &lines(&[row]))]);
    let labelled = |train_on: Option<crate::TrainOn>| {
        let spec = DataSpec { train_on, chat_template: Some(CHATML.to_owned()), ..files.spec() };
        load(&spec, &tiny()).unwrap().report.labelled_tokens
    };
    assert!(labelled(Some(crate::TrainOn::All)) > labelled(Some(crate::TrainOn::Last)), "both answers");
    let spec = DataSpec { multi_turn: crate::MultiTurn::Auto, ..files.spec() };
    let said = load(&spec, &tiny()).unwrap_err().to_string();
    assert!(
        said.contains("`multi_turn` needs conversations (`messages`), but the data is prompt_completion"),
        "{said}"
    );
}

#[test]
fn data_of_which_nothing_is_left_says_why() {
    let rows: Vec<Value> = (0..3).map(|i| json!({"text": format!("{i} b")})).collect();
    let files = Files::new(&[("a.jsonl", &lines(&rows))]);
    let said = files.error(&tiny(), |spec| spec.filter.min_chars = Some(100));
    assert!(
        said.starts_with("no example is left: 0 row(s) cannot be used, 3 left out by `filter`"),
        "{said}"
    );
    let files = Files::new(&[("a.jsonl", "{\"messages\": []}\n")]);
    let said = files.error(&tiny(), |spec| spec.on_error = crate::OnError::Skip);
    assert!(said.contains("1 row(s) cannot be used") && said.contains("a.jsonl:1"), "{said}");
}

#[test]
fn cells_hold_lists_of_messages_by_the_name_that_columns_give_them() {
    let load_with = |files: &Files, columns: &[(&str, &str)]| {
        let mut spec = files.spec();
        let files = std::mem::take(&mut spec.files).into_iter().map(DataFile::local).collect();
        let columns = columns.iter().map(|(name, column)| ((*name).to_owned(), (*column).to_owned()));
        spec.sources = vec![Source { files, columns: columns.collect(), ..Source::default() }];
        spec.chat_template = Some(CHATML.to_owned());
        load(&spec, &tiny()).unwrap()
    };
    let question = r#""[{""role"":""user"",""content"":""hi""}]""#;
    let answer = r#""[{""role"":""assistant"",""content"":""hello""}]""#;
    let files = Files::new(&[("a.csv", &format!("q,a\n{question},{answer}\n"))]);
    let data = load_with(&files, &[("prompt", "q"), ("completion", "a")]);
    assert_eq!(data.report.format, Some(Shape::PromptCompletionMessages));
    let text = tiny().decode(&data.rows[0].tokens, false).unwrap();
    assert_eq!(text, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n");
    // The other way round: what is called `text` is a text, whatever it looks like.
    let files = Files::new(&[("a.csv", &format!("prompt,b\n{question},c\n"))]);
    assert_eq!(load_with(&files, &[("text", "prompt")]).report.format, Some(Shape::Text));
}

#[path = "bad_rows_tests.rs"]
mod bad_rows;
