//! Each shape's conversion, and what is said about rows that do not fit.

use serde_json::json;

use super::*;

fn convert(shape: Shape, row: Value) -> Result<Example, String> {
    let Value::Object(fields) = row else { panic!("rows are objects") };
    let place = Place::new(&std::path::Path::new("a.jsonl").into(), 7);
    from_row(fields, shape, "text", &place).map_err(|e| e.to_string())
}

fn problem(shape: Shape, row: Value) -> String {
    convert(shape, row).expect_err("the row does not fit")
}

#[test]
fn alpaca_joins_instruction_and_input_with_a_newline() {
    let row = json!({"instruction": "Add.", "input": "1 2", "output": "3"});
    let expected = Example::PromptCompletionMessages {
        prompt: vec![Message::text("user", "Add.\n1 2")],
        completion: vec![Message::text("assistant", "3")],
        extras: ChatExtras::default(),
    };
    assert_eq!(convert(Shape::Alpaca, row), Ok(expected));
    for empty in [json!(""), json!(null)] {
        let row = json!({"instruction": "Hi.", "input": empty, "output": "Ho."});
        let Ok(Example::PromptCompletionMessages { prompt, .. }) = convert(Shape::Alpaca, row) else {
            panic!()
        };
        assert_eq!(prompt, [Message::text("user", "Hi.")]);
    }
}

#[test]
fn alpaca_takes_system_and_history() {
    let row = json!({"instruction": "c", "output": "d", "system": "s", "history": [["a", "b"]]});
    let Ok(Example::PromptCompletionMessages { prompt, .. }) = convert(Shape::Alpaca, row) else { panic!() };
    let roles: Vec<(&str, &str)> =
        prompt.iter().map(|m| (m.role.as_str(), m.content.as_str().unwrap())).collect();
    assert_eq!(roles, [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")]);
    let bad = json!({"instruction": "c", "output": "d", "history": [["a"]]});
    assert!(problem(Shape::Alpaca, bad).contains("`history`[0] must be a pair"));
    assert!(
        problem(Shape::Alpaca, json!({"instruction": "c", "output": "d", "history": 1}))
            .contains("list of pairs")
    );
}

#[test]
fn sharegpt_roles_are_translated() {
    let row = json!({"system": "Be kind.", "conversations": [
        {"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "weight": 1}, {"from": "observation", "value": "c"}]});
    let Ok(Example::Messages { messages, .. }) = convert(Shape::ShareGpt, row) else { panic!() };
    let roles: Vec<&str> = messages.iter().map(|m| m.role.as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool"]);
    assert_eq!(messages.iter().map(|m| m.learn).collect::<Vec<_>>(), [None, None, Some(true), None]);
    assert!(messages[2].rest.is_empty(), "the template does not see it");
    let unknown = json!({"conversations": [{"from": "narrator", "value": "a"}]});
    assert!(problem(Shape::ShareGpt, unknown).contains("`from` is \"narrator\"; known are human"));
    assert!(problem(Shape::ShareGpt, json!({"conversations": [{"value": "a"}]})).contains("has no `from`"));
    assert!(problem(Shape::ShareGpt, json!({"conversations": [{"from": "gpt"}]})).contains("has no `value`"));
    assert!(problem(Shape::ShareGpt, json!({"conversations": [3]})).contains("found a number"));
}

#[test]
fn messages_keep_other_keys_and_tools() {
    let tool = json!({"type": "function", "function": {"name": "add"}});
    let row = json!({"messages": [{"content": null, "role": "assistant", "tool_calls": [1]}], "tools": [tool.clone()],
                     "chat_template_kwargs": {"enable_thinking": false}});
    let Ok(Example::Messages { messages, extras }) = convert(Shape::Messages, row) else { panic!() };
    assert_eq!((&messages[0].content, &messages[0].rest["tool_calls"]), (&Value::Null, &json!([1])));
    assert_eq!(extras.tools, Some(json!([tool.clone()])));
    assert_eq!(extras.chat_template_kwargs["enable_thinking"], false);
    // Tools as JSON text, and the three ways of having none.
    let as_text =
        json!({"messages": [{"role": "user", "content": "x"}], "tools": json!([tool.clone()]).to_string()});
    let Ok(Example::Messages { extras, .. }) = convert(Shape::Messages, as_text) else { panic!() };
    assert_eq!(extras.tools, Some(json!([tool])));
    for none in [json!(null), json!([]), json!("")] {
        let row = json!({"messages": [{"role": "user", "content": "x"}], "tools": none});
        let Ok(Example::Messages { extras, .. }) = convert(Shape::Messages, row) else { panic!() };
        assert_eq!(extras.tools, None);
    }
}

#[test]
fn bad_rows_say_what_is_wrong_and_where() {
    let text = problem(Shape::Messages, json!({"messages": [{"role": "user", "content": 5}], "id": 1}));
    assert_eq!(
        text,
        "a.jsonl:7: not a messages row: `messages`[0] content must be a text or a list of parts, found a number; \
         the row has the keys `messages`, `id`"
    );
    assert!(problem(Shape::Messages, json!({"messages": []})).contains("`messages` is an empty list"));
    assert!(
        problem(Shape::Messages, json!({"messages": "x"}))
            .contains("must be a list of messages, found a text")
    );
    assert!(problem(Shape::Messages, json!({"messages": [{"content": "x"}]})).contains("has no `role`"));
    assert!(problem(Shape::Messages, json!({"messages": [{"role": 1}]})).contains("`role` must be a text"));
    assert!(problem(Shape::Messages, json!({"messages": [true]})).contains("found a truth value"));
    assert!(problem(Shape::Messages, json!({})).contains("`conversations` is missing"));
    let user = json!([{"role": "user", "content": "x"}]);
    assert!(
        problem(Shape::Messages, json!({"messages": user, "tools": "{"})).contains("a text that is no JSON")
    );
    assert!(
        problem(Shape::Messages, json!({"messages": user, "tools": 3})).contains("`tools` must be a list")
    );
    assert!(
        problem(Shape::Messages, json!({"messages": user, "chat_template_kwargs": 3}))
            .contains("must be an object")
    );
    assert!(problem(Shape::Text, json!({"text": null})).contains("`text` must be a text, found null"));
    assert!(problem(Shape::PromptCompletionText, json!({"prompt": "a"})).contains("`completion` is missing"));
    assert!(
        problem(Shape::PromptCompletionMessages, json!({"prompt": user, "completion": "b"}))
            .contains("found a text")
    );
}
