//! Rows that are no examples, or not those that they look like.

use super::*;
use crate::spec::{Decontamination, OnError};

#[test]
fn values_of_another_kind_are_named_and_shapes_listed_once() {
    let skipped = |rows: &str| {
        let files = Files::new(&[("a.jsonl", rows)]);
        let mut spec = files.spec();
        spec.on_error = OnError::Skip;
        load(&spec, &tiny()).unwrap().report.problems
    };
    let problems = skipped("{\"text\": \"a\"}\n{\"text\": null}\n{\"text\": 5}\n");
    assert!(
        problems[0].contains("a.jsonl:2: not a text row: `text` must be a text, found null"),
        "{problems:?}"
    );
    assert!(problems[1].contains("found a number"), "{problems:?}");
    // Before any row is known to be sound.
    let problems = skipped("{\"text\": 5}\n{\"messages\": null}\n{\"text\": \"a\"}\n");
    assert!(problems[0].contains("`text` must be a text, found a number"), "{problems:?}");
    let first = Files::new(&[("a.jsonl", "{\"text\": 5}\n")]).error(&tiny(), |_| {});
    assert!(
        first.starts_with("a.jsonl:1: no supported shape has the keys `text` (`text` is a number);"),
        "{first}"
    );
    let all = Files::new(&[("a.jsonl", "{\"a\": 1}\n{\"b\": 1}\n")]);
    let text = all.error(&tiny(), |s| s.on_error = OnError::Skip);
    assert_eq!(text.matches("optional `input`").count(), 1, "{text}");
}

#[test]
fn preference_pairs_are_learned_only_where_columns_say_what_of_them() {
    let row = json!({"conversations": [{"from": "human", "value": "a"}], "chosen": "b", "rejected": "c"});
    let files = Files::new(&[("a.jsonl", &lines(&[row]))]);
    let text = files.error(&tiny(), |s| s.on_error = OnError::Skip);
    assert!(text.starts_with("a.jsonl:1: these are preference pairs (`chosen`, `rejected`)"), "{text}");
    assert!(text.contains("`format: sharegpt`"), "{text}");
    let mut spec = files.spec();
    spec.format = FormatHint::ShareGpt;
    assert_eq!(load(&spec, &tiny()).unwrap().report.examples, 1, "who says so gets it");
    let pair = Files::new(&[("a.jsonl", &lines(&[json!({"prompt": "a", "chosen": "b", "rejected": "c"})]))]);
    assert!(pair.error(&tiny(), |_| {}).contains("not for fine-tuning on examples; to learn"));
    let mut spec = pair.spec();
    let mut source = spec.all_sources().remove(0);
    source.columns = [("completion".to_owned(), "chosen".to_owned())].into();
    (spec.files, spec.sources) = (Vec::new(), vec![source]);
    assert_eq!(load(&spec, &tiny()).unwrap().report.format, Some(Shape::PromptCompletionText));
}

#[test]
fn empty_answers_are_learned_as_in_trl_but_told_and_left_out_on_demand() {
    let question = |answer: Value| json!({"messages": [{"role": "user", "content": "a"}, answer]});
    let call = json!({"role": "assistant", "content": null, "tool_calls": [{"name": "count"}]});
    let rows = [
        chat(&[("user", "a"), ("assistant", "b")]),
        question(json!({"role": "assistant", "content": ""})),
        question(json!({"role": "assistant", "content": null})),
        question(json!({"role": "assistant", "content": " \n"})),
        question(json!({"role": "assistant", "content": "", "train": false})),
        question(call),
    ];
    let files = Files::new(&[("a.jsonl", &lines(&rows))]);
    let mut spec = files.spec();
    let report = load(&spec, &tiny()).unwrap().report;
    assert_eq!((report.examples, report.empty_answers, report.null_content), (6, 3, 1), "{report:?}");
    let warnings = report.warnings().join("\n");
    assert!(warnings.contains("3 example(s) have an empty answer"), "{warnings}");
    assert!(warnings.contains("1 conversation(s) have a message with `content: null`"), "{warnings}");
    spec.filter.drop_empty_answers = true;
    let report = load(&spec, &tiny()).unwrap().report;
    assert_eq!((report.examples, report.filtered, report.empty_answers), (3, 3, 0), "{report:?}");
    let rows =
        lines(&[json!({"instruction": "a", "output": ""}), json!({"instruction": "a", "output": "b"})]);
    let alpaca = Files::new(&[("a.jsonl", &rows)]);
    assert_eq!(load(&alpaca.spec(), &tiny()).unwrap().report.empty_answers, 1);
    let rows = lines(&[json!({"prompt": "a", "completion": " "}), json!({"prompt": "a", "completion": "b"})]);
    let pairs = Files::new(&[("a.jsonl", &rows)]);
    assert_eq!(load(&pairs.spec(), &tiny()).unwrap().report.empty_answers, 1);
}

#[test]
fn evaluation_rows_that_cannot_be_read_are_told_and_dropped_examples_counted() {
    let words = "one two three four five six seven";
    let data = Files::new(&[
        ("a.jsonl", &lines(&[json!({"text": words}), json!({"text": "something else"})])),
        ("eval.jsonl", &format!("{{broken\n{}", lines(&[json!({"question": words})]))),
    ]);
    let mut spec = data.spec();
    let eval = spec.files.pop().unwrap();
    let files = vec![DataFile::local(eval)];
    spec.decontaminate = Some(Decontamination { files, ngram: 5, drop: true });
    assert!(load(&spec, &tiny()).unwrap_err().to_string().contains("eval.jsonl:1: broken JSON"));
    spec.on_error = OnError::Skip;
    let report = load(&spec, &tiny()).unwrap().report;
    assert_eq!((report.contaminated, report.examples, report.evaluation_skipped), (Some(1), 1, 1));
    let warnings = report.warnings().join("\n");
    assert!(warnings.contains("and were left out (`decontaminate.drop`)"), "{warnings}");
    assert!(warnings.contains("eval.jsonl:1: broken JSON"), "{warnings}");
    assert!(report.to_string().contains(", 1 shared with the evaluation data"), "{report}");
}
