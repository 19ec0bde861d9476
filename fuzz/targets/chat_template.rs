//! Chat templates are programs of strangers: a text, or an error.

use foundry_data::Message;
use foundry_data::chat::ChatTemplate;
use serde_json::{Map, Value, json};

/// The input is the template; the conversation is always the same.
pub(crate) fn run(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let special = vec![("bos_token".to_owned(), "<s>".to_owned())];
    let Ok(template) = ChatTemplate::compile(source, special) else { return };
    let mut call = Message::text("assistant", "");
    call.content = Value::Null;
    call.rest.insert(
        "tool_calls".to_owned(),
        json!([{"id": "a1", "type": "function", "function": {"name": "f", "arguments": {"x": [1, 2.5, "ü"]}}}]),
    );
    let conversation = [
        Message::text("system", "be <kind>"),
        Message::text("user", "hello\n{{ x }}"),
        call,
        Message::text("tool", "42"),
        Message::text("assistant", "<think>\nhm\n</think>\n\nyes"),
    ];
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    for messages in [&conversation[..], &conversation[1..2]] {
        if let Ok(rendered) = template.render(messages, Some(&tools), true, &Map::new()) {
            for span in rendered.assistant_spans {
                assert!(rendered.text.get(span).is_some(), "a span lies between characters of the text");
            }
        }
    }
}
