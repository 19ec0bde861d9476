//! Masks of conversations: which text is learned, with and without generation tags.

use std::path::Path;

use foundry_formats::Tokenizer;
use serde_json::{Value, json};

use crate::chat::{builtin, without_generation_tags};
use crate::spec::{MultiTurn, TrainOn};
use crate::{DataError, DataSpec, Dataset, IGNORED, load};

fn tokenizer() -> Tokenizer {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/fixtures/tiny_tokenizer");
    Tokenizer::from_dir(&dir).expect("the fixture")
}

fn load_rows(
    rows: &[Value],
    template: &str,
    change: impl FnOnce(&mut DataSpec),
) -> Result<Dataset, DataError> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("rows.jsonl");
    std::fs::write(&path, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).expect("written");
    let mut spec = DataSpec {
        files: vec![path],
        max_length: None,
        chat_template: Some(template.to_owned()),
        ..DataSpec::default()
    };
    change(&mut spec);
    load(&spec, &tokenizer())
}

/// The learned text of each row; stretches that others part are joined by `|`.
fn learned(dataset: &Dataset) -> Vec<String> {
    let tokenizer = tokenizer();
    let text = |tokens: &[u32]| tokenizer.decode(tokens, false).expect("text");
    let row = |row: &crate::PackedRow| {
        let mut parts: Vec<Vec<u32>> = Vec::new();
        let mut inside = false;
        for (&token, &label) in row.tokens.iter().zip(&row.labels) {
            if label != IGNORED {
                if !inside {
                    parts.push(Vec::new());
                }
                parts.last_mut().expect("begun").push(token);
            }
            inside = label != IGNORED;
        }
        parts.iter().map(|part| text(part)).collect::<Vec<_>>().join("|")
    };
    dataset.rows.iter().map(row).collect()
}

fn turns(list: &[(&str, &str)]) -> Value {
    let messages: Vec<Value> =
        list.iter().map(|(role, content)| json!({"role": role, "content": content})).collect();
    json!({ "messages": messages })
}

fn talk() -> Value {
    turns(&[("system", "s t"), ("user", "hi"), ("assistant", "one"), ("user", "go"), ("assistant", "two")])
}

/// Chat templates whose special tokens the tiny tokenizer has; the others' ends are no special tokens for it.
const KNOWN_ENDS: [&str; 3] = ["chatml", "hermes", "smollm2"];

#[test]
fn any_template_is_masked_as_its_tags_would() {
    for name in KNOWN_ENDS {
        let tagged = builtin::find(name).expect("it is there");
        let plain = without_generation_tags(tagged);
        for train_on in [TrainOn::All, TrainOn::Last, TrainOn::Roles(vec!["user".into(), "assistant".into()])]
        {
            let with = |template: &str| {
                let set = |spec: &mut DataSpec| spec.train_on = Some(train_on.clone());
                learned(&load_rows(&[talk()], template, set).expect("a mask"))
            };
            let (tags, prefixes) = (with(tagged), with(&plain));
            // Found by rendering, a turn ends where the next begins: with the line break that the tags leave out.
            let ends =
                prefixes.iter().map(|text| text.replace("<|im_end|>\n", "<|im_end|>")).collect::<Vec<_>>();
            let tags: Vec<String> =
                tags.iter().map(|text| text.replace("<|im_end|>\n", "<|im_end|>")).collect();
            assert_eq!(ends, tags, "{name}, {train_on:?}");
            assert!(prefixes[0].contains("two<|im_end|>"), "{name}: the end of the turn is learned");
        }
    }
}

#[test]
fn turns_are_chosen_by_role_and_by_message() {
    let chatml = builtin::find("chatml").expect("it is there");
    let with = |row: Value, train_on: Option<TrainOn>| {
        learned(&load_rows(&[row], chatml, |spec| spec.train_on = train_on).expect("a mask")).join("\n")
    };
    assert_eq!(with(talk(), Some(TrainOn::All)), "one<|im_end|>|two<|im_end|>");
    assert_eq!(with(talk(), Some(TrainOn::Last)), "two<|im_end|>");
    let users = Some(TrainOn::Roles(vec!["user".into()]));
    assert_eq!(with(talk(), users), "hi<|im_end|>\n|go<|im_end|>\n");
    let mut marked = talk();
    marked["messages"][2]["weight"] = json!(0);
    marked["messages"][3]["train"] = json!(true);
    assert_eq!(with(marked.clone(), Some(TrainOn::All)), "go<|im_end|>\n|two<|im_end|>");
    // Without a mask everything is learned but what the message says; its header belongs to it.
    let rest = with(marked, None);
    assert!(rest.contains("hi<|im_end|>\n|<|im_start|>user\ngo") && !rest.contains("one"), "{rest}");
}

#[test]
fn marks_of_messages_are_checked() {
    let chatml = builtin::find("chatml").expect("it is there");
    let problem = |key: &str, value: Value| {
        let mut row = talk();
        row["messages"][4][key] = value;
        load_rows(&[row], chatml, |_| {}).expect_err("refused").to_string()
    };
    assert!(
        problem("train", json!("yes")).contains("`messages`[4] `train` must be true or false, found a text")
    );
    assert!(
        problem("weight", json!(0.5)).contains("`weight` must be 0 (not learned) or 1 (learned), found 0.5")
    );
    let mut row = talk();
    row["messages"][2] = json!({"role": "assistant", "content": "x", "train": true, "weight": 0});
    assert!(
        load_rows(&[row], chatml, |_| {}).expect_err("refused").to_string().contains("contradict each other")
    );
    let text = json!({"text": "a"});
    let error = load_rows(std::slice::from_ref(&text), chatml, |spec| spec.train_on = Some(TrainOn::Last))
        .expect_err("refused");
    assert_eq!(
        error.to_string(),
        "`train_on` needs conversations (`messages`), but the data is text; leave it out"
    );
    let error = load_rows(&[text], chatml, |spec| spec.multi_turn = MultiTurn::Split).expect_err("refused");
    assert!(error.to_string().starts_with("`multi_turn` needs conversations"));
}

#[test]
fn thinking_templates_are_split_refused_or_warned_about() {
    let qwen3 = builtin::find("qwen3").expect("it is there");
    let thought = turns(&[
        ("user", "hi"),
        ("assistant", "<think>\nhm\n</think>\n\none"),
        ("user", "go"),
        ("assistant", "<think>\nso\n</think>\n\ntwo"),
    ]);
    let with = |template: &str, multi_turn: MultiTurn| {
        load_rows(std::slice::from_ref(&thought), template, |spec| {
            (spec.multi_turn, spec.assistant_only_loss) = (multi_turn, true);
        })
    };
    let whole = with(qwen3, MultiTurn::Whole).expect("its tags say where");
    assert_eq!(learned(&whole), ["one<|im_end|>|<think>\nso\n</think>\n\ntwo<|im_end|>"]);
    assert_eq!(whole.report.rewritten, 1);
    assert!(whole.report.warnings().iter().any(|w| w.contains("`multi_turn: split` or `auto`")));
    for multi_turn in [MultiTurn::Split, MultiTurn::Auto] {
        let split = with(qwen3, multi_turn).expect("a row for each turn");
        assert_eq!(
            learned(&split),
            ["<think>\nhm\n</think>\n\none<|im_end|>", "<think>\nso\n</think>\n\ntwo<|im_end|>"]
        );
        assert_eq!((split.report.examples, split.report.split, split.report.rewritten), (2, 1, 0));
    }
    let error = with(qwen3, MultiTurn::Refuse).expect_err("refused").to_string();
    assert!(
        error.contains("rows.jsonl:1: the chat template renders message 1 differently once later"),
        "{error}"
    );
    // Without tags a mask over the whole would be a guess.
    let plain = without_generation_tags(qwen3);
    let error = with(&plain, MultiTurn::Whole).expect_err("refused").to_string();
    assert!(
        error.contains("cannot tell the learned tokens of message 1") && error.contains("multi_turn: auto"),
        "{error}"
    );
    assert_eq!(with(&plain, MultiTurn::Auto).expect("split").rows.len(), 2);
    // Conversations of a template that keeps to itself stay whole.
    let chatml = builtin::find("chatml").expect("it is there");
    for multi_turn in [MultiTurn::Auto, MultiTurn::Refuse] {
        assert_eq!(with(chatml, multi_turn).expect("whole").rows.len(), 1);
    }
    assert_eq!(with(chatml, MultiTurn::Split).expect("split").rows.len(), 2);
}

/// `<|endoftext|>` stands behind the last turn only, and the mask must neither fail on it nor give it to other turns.
#[test]
fn a_token_behind_the_last_turn_belongs_to_it() {
    let closing = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                   {% if add_generation_prompt %}<|im_start|>assistant\n{% else %}{{ eos_token }}{% endif %}";
    let eos = tokenizer().eos_token().expect("an end").to_owned();
    let data = load_rows(&[talk()], closing, |spec| spec.assistant_only_loss = true).expect("a mask");
    assert_eq!(learned(&data), [format!("one<|im_end|>\n|two<|im_end|>\n{eos}")]);
}

#[test]
fn a_turn_without_a_prompt_begins_with_its_content() {
    // No generation prompt at all: what two contents have in common is the header.
    let bare = "{% for m in messages %}[{{ m.role }}] {{ m.content }}<|im_end|>{% endfor %}";
    let data = load_rows(&[talk()], bare, |spec| spec.assistant_only_loss = true).expect("a mask");
    let said = learned(&data);
    assert!(said[0].ends_with("two<|im_end|>") && !said[0].contains("[assistant"), "{said:?}");
    // The prompt begins the turn otherwise than the template does.
    let other = bare.to_owned() + "{% if add_generation_prompt %}[assistant] <think>{% endif %}";
    let error = load_rows(&[talk()], &other, |spec| spec.assistant_only_loss = true).expect_err("refused");
    assert!(error.to_string().contains("generation prompt is not how it begins this turn"), "{error}");
    let split =
        load_rows(&[talk()], &other, |spec| spec.multi_turn = MultiTurn::Split).expect("common prefixes");
    assert_eq!((split.rows.len(), split.report.prompt_not_prefix), (2, 2));
}

#[test]
fn two_settings_that_say_what_is_learned_are_refused() {
    let row = json!({"instruction": "a", "output": "b"});
    let error = load_rows(&[row], builtin::find("chatml").expect("it is there"), |spec| {
        spec.train_on = Some(TrainOn::All);
        spec.completion_only_loss = Some(true);
    });
    assert!(matches!(error, Err(DataError::LearnedTwice)), "{error:?}");
}

#[test]
fn blanks_that_offsets_leave_out_are_learned_with_their_turn_and_masked_with_it() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/fixtures/tiny_tokenizer");
    let read = |name: &str| std::fs::read(dir.join(name)).expect("the fixture");
    let mut json: Value = serde_json::from_slice(&read("tokenizer.json")).expect("JSON");
    let byte_level =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    json["post_processor"] = byte_level;
    // Nothing of our own cuts this one: the ranges are the crate's, and trimmed.
    json["added_tokens"][0]["single_word"] = json!(true);
    let made = tempfile::tempdir().expect("a directory");
    std::fs::write(made.path().join("tokenizer.json"), json.to_string()).expect("written");
    let mut config: Value = serde_json::from_slice(&read("tokenizer_config.json")).expect("JSON");
    // A stated `add_bos_token` would put a template in place of the post-processor.
    config.as_object_mut().expect("an object").retain(|key, _| key != "add_bos_token");
    std::fs::write(made.path().join("tokenizer_config.json"), config.to_string()).expect("written");
    let trimming = Tokenizer::from_dir(made.path()).expect("a tokenizer");
    let (tokens, offsets) = trimming.encode_with_offsets("a\n    return", false).expect("encoded");
    assert!(offsets.iter().any(|(start, end)| start == end), "{tokens:?} {offsets:?}");

    let said = "def f():\n    if x:\n        return 1";
    let path = made.path().join("rows.jsonl");
    let masked = |learn: Value| {
        let row = json!({"messages": [
            {"role": "user", "content": "write"}, {"role": "assistant", "content": said, "train": learn},
            {"role": "user", "content": "and"}, {"role": "assistant", "content": "yes"},
        ]});
        std::fs::write(&path, row.to_string()).expect("written");
        let spec = DataSpec {
            files: vec![path.clone()],
            max_length: None,
            chat_template: Some(without_generation_tags(builtin::find("chatml").expect("built in"))),
            assistant_only_loss: true,
            ..DataSpec::default()
        };
        load(&spec, &trimming).expect("loaded")
    };
    assert_eq!(learned(&masked(json!(true)))[0], format!("{said}<|im_end|>\n|yes<|im_end|>\n"));
    assert_eq!(learned(&masked(json!(false)))[0], "yes<|im_end|>\n");
}

#[test]
fn tags_that_leave_out_a_turn_or_its_end_are_told() {
    let template = |open: &str, end: &str| {
        format!(
            "{{% for m in messages %}}<|im_start|>{{{{ m.role }}}}\n{{% if m.role == 'assistant'{open} %}}\
             {{% generation %}}{{{{ m.content }}}}{end}{{% endif %}}{{% if m.role != 'assistant' or not (true{open}) %}}\
             {{{{ m.content }}}}<|im_end|>{{% endif %}}\n{{% endfor %}}"
        )
    };
    let row = turns(&[("user", "a"), ("assistant", "called"), ("user", "b"), ("assistant", "c")]);
    let counted = |open: &str, end: &str| {
        let learns = |spec: &mut DataSpec| spec.assistant_only_loss = true;
        let data = load_rows(std::slice::from_ref(&row), &template(open, end), learns).expect("loaded");
        let warns = data.report.warnings().iter().any(|warning| warning.contains("generation tags"));
        assert_eq!(warns, data.report.tags_leave_out > 0);
        (data.report.tags_leave_out, learned(&data)[0].clone())
    };
    let (ended, open) = ("<|im_end|>{% endgeneration %}", "{% endgeneration %}<|im_end|>");
    assert_eq!(counted("", ended), (0, "called<|im_end|>|c<|im_end|>".to_owned()));
    assert_eq!(counted("", open), (1, "called|c".to_owned()), "the end is outside");
    assert_eq!(
        counted(" and m.content != 'called'", ended),
        (1, "c<|im_end|>".to_owned()),
        "a turn is outside"
    );
}

#[test]
fn a_single_turn_is_found_although_the_prompt_does_not_begin_it() {
    // As DeepSeek-R1's kind: the prompt opens a thought, the turn has none.
    let template = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}\
                    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}";
    let learns = |spec: &mut DataSpec| spec.assistant_only_loss = true;
    let one = turns(&[("system", "s"), ("user", "a"), ("assistant", "b c")]);
    let data = load_rows(&[one], template, learns).expect("a mask");
    assert_eq!(learned(&data), ["b c<|im_end|>\n"]);
    assert_eq!(data.report.prompt_not_prefix, 1, "it is told");
    let two = turns(&[("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]);
    let last = |spec: &mut DataSpec| spec.train_on = Some(TrainOn::Last);
    let data = load_rows(std::slice::from_ref(&two), template, last).expect("a mask");
    assert_eq!(learned(&data), ["d<|im_end|>\n"]);
    let error = load_rows(&[two], template, learns).expect_err("two turns in one row").to_string();
    assert!(error.contains("message 1: the template's generation prompt is not how it begins"), "{error}");
}

#[test]
fn turns_without_a_special_end_are_taken_where_that_is_allowed() {
    let template = "{% for m in messages %}{{ m.role + ': ' + m.content + ' END\n' }}{% endfor %}\
                    {% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}";
    let learns = |allowed: bool| {
        move |spec: &mut DataSpec| (spec.assistant_only_loss, spec.allow_missing_eos) = (true, allowed)
    };
    let row = turns(&[("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]);
    for row in [row.clone(), turns(&[("user", "a"), ("assistant", "b")])] {
        let error = load_rows(&[row], template, learns(false)).expect_err("refused").to_string();
        assert!(error.contains("`allow_missing_eos: true` takes turns as they end"), "{error}");
    }
    let data = load_rows(&[row], template, learns(true)).expect("a mask");
    assert_eq!(learned(&data), [" b END\n| d END\n"]);
    assert_eq!(data.report.plain_ends, 1);
    assert!(data.report.warnings().iter().any(|warning| warning.contains("no special token")));
}
