//! Chat templates of others against transformers.
//!
//! FOUNDRY_CHAT_GOLDENS names a file that `golden/make_chat_goldens.py OUT --templates DIR` wrote, for example over the
//! templates that TRL ships.
//!
//! Run it with `cargo test -p foundry-data --test parity_chat_templates -- --ignored --nocapture`.

use foundry_data::Message;
use foundry_data::chat::ChatTemplate;
use serde_json::{Map, Value};

#[test]
#[ignore = "needs FOUNDRY_CHAT_GOLDENS"]
fn renderings_of_other_templates_equal_transformers() {
    let path =
        std::env::var("FOUNDRY_CHAT_GOLDENS").expect("set FOUNDRY_CHAT_GOLDENS, see the top of this file");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("read")).expect("JSON");
    let special: Vec<(String, String)> =
        serde_json::from_value::<std::collections::BTreeMap<String, String>>(
            golden["special_tokens"].clone(),
        )
        .expect("special tokens")
        .into_iter()
        .collect();
    let cases = golden["cases"].as_array().expect("cases");
    let mut different = 0;
    for case in cases {
        let (template, conversation) = (&case["template"], &case["conversation"]);
        let source = golden["templates"][template.as_str().expect("a name")].as_str().expect("a template");
        let said = &golden["conversations"][conversation.as_str().expect("a name")];
        let compiled = match ChatTemplate::compile(source, special.clone()) {
            Ok(compiled) => compiled,
            Err(error) => panic!("{template}: {error}"),
        };
        let kwargs = said["kwargs"].as_object().cloned().unwrap_or_default();
        let prompt = said["add_generation_prompt"].as_bool().unwrap_or(false);
        let ours = compiled.render(&messages(&said["messages"]), said.get("tools"), prompt, &kwargs);
        let agree = match (&ours, case["text"].as_str()) {
            (Ok(ours), Some(theirs)) => {
                let in_characters = |at: usize| ours.text[..at].chars().count();
                let spans: Vec<[usize; 2]> = ours
                    .assistant_spans
                    .iter()
                    .map(|span| [in_characters(span.start), in_characters(span.end)])
                    .collect();
                ours.text == theirs && serde_json::to_value(spans).ok().as_ref() == Some(&case["spans"])
            }
            (Err(_), None) => true,
            _ => false,
        };
        if !agree {
            different += 1;
            println!("{template} × {conversation}: ours {ours:?}\n   transformers {case}");
        }
    }
    println!("{different} of {} cases differ", cases.len());
    // `content: null`, which transformers leaves out, is an empty text here.
    assert!(different * 50 <= cases.len(), "{different} of {} cases differ", cases.len());
}

fn messages(list: &Value) -> Vec<Message> {
    let message = |m: &Value| {
        let mut rest: Map<String, Value> = m.as_object().expect("a message").clone();
        let role = rest.remove("role").and_then(|r| r.as_str().map(str::to_owned)).expect("a role");
        Message { role, content: rest.remove("content").unwrap_or(Value::Null), rest, learn: None }
    };
    list.as_array().expect("messages").iter().map(message).collect()
}
