//! Renderings against transformers' own (golden/make_chat_goldens.py made the file), and the typed errors.

use serde_json::json;

use super::*;

fn messages(list: &Value) -> Vec<Message> {
    let list = list.as_array().expect("a list of messages");
    list.iter()
        .map(|m| {
            let mut rest = m.as_object().expect("a message").clone();
            let role = rest.remove("role").and_then(|r| r.as_str().map(str::to_owned)).expect("a role");
            Message { role, content: rest.remove("content").unwrap_or(Value::Null), rest, learn: None }
        })
        .collect()
}

fn specials(map: &Value) -> Vec<(String, String)> {
    let map = map.as_object().expect("an object");
    map.iter().map(|(k, v)| (k.clone(), v.as_str().expect("a token").to_owned())).collect()
}

fn compile(source: &str) -> ChatTemplate {
    ChatTemplate::compile(source, vec![("bos_token".to_owned(), "<s>".to_owned())]).expect("a valid template")
}

fn render_with(source: &str, context: Value) -> Result<String, TemplateError> {
    let kwargs = context.as_object().expect("an object").clone();
    compile(source).render(&[Message::text("user", "hi")], None, false, &kwargs).map(|r| r.text)
}

/// Character spans as Python counts them, from byte spans.
fn in_characters(text: &str, spans: &[Range<usize>]) -> Vec<[usize; 2]> {
    let count = |byte: usize| text[..byte].chars().count();
    spans.iter().map(|s| [count(s.start), count(s.end)]).collect()
}

/// The two texts from shortly before the place where they part.
fn beyond_agreement(ours: &str, theirs: Option<&str>) -> String {
    let Some(theirs) = theirs else { return format!("transformers refuses, ours {ours:?}") };
    let same = ours.chars().zip(theirs.chars()).take_while(|(a, b)| a == b).count();
    let tail = |text: &str| text.chars().skip(same.saturating_sub(30)).take(90).collect::<String>();
    format!("ours {:?}, transformers {:?} (or the spans differ)", tail(ours), tail(theirs))
}

/// Renders every case of a golden file; descriptions of those that differ.
fn differences(golden: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    for case in golden["cases"].as_array().expect("cases") {
        let name = |key: &str| case[key].as_str().expect("a name");
        let (template, conversation) = (name("template"), name("conversation"));
        let source = match golden["templates"].get(template) {
            Some(source) => source.as_str().expect("a template"),
            None => builtin::find(template.trim_end_matches(".jinja")).expect("a built-in template"),
        };
        let compiled =
            ChatTemplate::compile(source, specials(&golden["special_tokens"])).expect("a valid template");
        let said = &golden["conversations"][conversation];
        let kwargs = said["kwargs"].as_object().cloned().unwrap_or_default();
        let prompt = said["add_generation_prompt"].as_bool().unwrap_or(false);
        let ours = compiled.render(&messages(&said["messages"]), said.get("tools"), prompt, &kwargs);
        let agree = match (&ours, case.get("text").and_then(Value::as_str)) {
            (Ok(ours), Some(text)) => {
                let spans: Vec<[usize; 2]> = serde_json::from_value(case["spans"].clone()).expect("spans");
                ours.text == text && in_characters(&ours.text, &ours.assistant_spans) == spans
            }
            (Err(_), None) => true,
            _ => false,
        };
        if !agree {
            let shown =
                ours.map_or_else(|e| format!("{e:?}"), |r| beyond_agreement(&r.text, case["text"].as_str()));
            problems.push(format!("{template} × {conversation}: {shown}"));
        }
    }
    problems
}

#[test]
fn built_in_templates_have_the_names_of_other_programs() {
    for (name, ours) in [("phi_3", "phi3"), ("phi_4", "phi4"), ("llama-3", "llama3"), ("ChatML", "chatml")] {
        assert!(builtin::find(name).is_some() && builtin::find(name) == builtin::find(ours), "{name}");
    }
    assert_eq!(builtin::find("phi_35"), None);
}

#[test]
fn json_of_any_length_is_refused() {
    // Ten times ten texts of a megabyte.
    let template = ChatTemplate::compile("{{ [a, a, a, a, a, a, a, a, a, a] | tojson }}", Vec::new());
    let mut kwargs = serde_json::Map::new();
    kwargs.insert("a".to_owned(), json!(vec!["x".repeat(1 << 20); 10]));
    let error = template.expect("compiles").render(&[], None, false, &kwargs).expect_err("too long");
    assert!(error.to_string().contains("tojson: a text of more than"), "{error}");
}

#[test]
fn a_moment_can_be_chosen() {
    let render = |template: ChatTemplate| {
        template.render(&[], None, false, &serde_json::Map::new()).expect("rendered").text
    };
    let source = "{{ strftime_now('%Y-%m') }}";
    let compiled = || ChatTemplate::compile(source, Vec::new()).expect("compiles");
    assert_eq!(render(compiled().at(86_400 * 45)), "1970-02");
    assert!(render(compiled()).as_str() > "2025");
}

#[test]
fn renderings_equal_transformers() {
    let mut golden: Value =
        serde_json::from_str(include_str!("../../golden/chat.json")).expect("the golden file");
    // transformers leaves `content: null` out; here it is an empty text. Most templates render both alike, but these
    // do not: one adds it to a text, which Jinja refuses to do with an undefined value, two ask for its type.
    let cases = golden["cases"].as_array_mut().expect("cases");
    cases.retain(|c| {
        c["conversation"] != "tools"
            || !["chatml", "python", "additions"].contains(&c["template"].as_str().unwrap())
    });
    // What minijinja lacks, once for every conversation: "additions" is the template.
    assert_eq!(cases.len(), 140);
    let problems = differences(&golden);
    assert!(problems.is_empty(), "{} case(s) differ\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn built_in_templates_render_and_mark_as_under_transformers() {
    let golden: Value =
        serde_json::from_str(include_str!("../../golden/builtin.json")).expect("the golden file");
    assert_eq!(golden["cases"].as_array().map(Vec::len), Some(13 * builtin::names().count()));
    let problems = differences(&golden);
    assert!(problems.is_empty(), "{} case(s) differ\n{}", problems.len(), problems.join("\n"));
    assert!(builtin::names().all(|name| compile(builtin::find(name).unwrap()).has_generation_tags()));
    assert!(builtin::names().is_sorted() && builtin::find("nonsense").is_none());
}

#[test]
fn null_content_is_an_empty_text_and_null_keys_are_left_out() {
    let source = "{% for m in messages %}{{ m.role + ':' + m.content }}{{ m.keys() | list }}{% endfor %}";
    let message = Message {
        role: "assistant".to_owned(),
        content: Value::Null,
        rest: json!({"name": null, "tool_calls": []}).as_object().unwrap().clone(),
        learn: None,
    };
    let rendered = compile(source).render(&[message], None, false, &Map::new()).unwrap();
    assert_eq!(rendered.text, "assistant:['role', 'content', 'tool_calls']");
}

#[test]
fn raise_exception_is_told_apart_from_failures() {
    let raised = render_with(
        "{% macro no(x) %}{{ raise_exception('No ' ~ x) }}{% endmacro %}{{ no('way') }}",
        json!({}),
    );
    assert_eq!(raised, Err(TemplateError::Raised { message: "No way".to_owned() }));
    let failed = render_with("a\n{{ messages[0].x.y }}", json!({})).unwrap_err();
    assert!(matches!(&failed, TemplateError::Failed { line: Some(2), .. }), "{failed:?}");
    assert!(failed.to_string().contains("(its line 2): undefined value"), "{failed}");
    let unknown = render_with("{{ 'a'.wibble() }}", json!({})).unwrap_err();
    assert!(unknown.to_string().contains("unknown method"), "{unknown}");
}

#[test]
fn broken_templates_are_named_by_line() {
    let error = ChatTemplate::compile("ok\n{% for %}", Vec::new()).unwrap_err();
    assert!(matches!(error, TemplateError::Syntax { line: Some(2), .. }), "{error:?}");
    assert!(error.to_string().starts_with("the chat template is no valid Jinja (its line 2)"), "{error}");
}

#[test]
fn endless_templates_are_stopped() {
    let nested = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}x{% endfor %}{% endfor %}{% endfor %}";
    assert_eq!(render_with(nested, json!({})), Err(TemplateError::TooMuchWork));
    // Doubling a text 60 times would need an exabyte.
    let doubling = "{% set ns = namespace(t='xxxxxxxx') %}{% for a in range(60) %}{% set ns.t = ns.t + ns.t %}{% endfor %}";
    assert_eq!(render_with(doubling, json!({})), Err(TemplateError::TooMuchWork));
    let recursion = render_with("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", json!({})).unwrap_err();
    assert!(matches!(recursion, TemplateError::Failed { .. }), "{recursion:?}");
}

#[test]
fn keywords_win_over_special_tokens_but_not_over_the_conversation() {
    assert_eq!(render_with("{{ bos_token }}", json!({})).unwrap(), "<s>");
    assert_eq!(render_with("{{ bos_token }}{{ n }}", json!({"bos_token": "B", "n": 1})).unwrap(), "B1");
    let error = render_with("", json!({"messages": []})).unwrap_err();
    assert_eq!(error, TemplateError::Reserved { name: "messages".to_owned() });
}

#[test]
fn the_date_comes_from_the_clock() {
    let text = render_with("{{ strftime_now('%Y-%m-%d %%') }}", json!({})).unwrap();
    assert!(text.len() == 12 && text.starts_with("20") && text.ends_with(" %"), "{text}");
    let error = render_with("{{ strftime_now('%!') }}", json!({})).unwrap_err();
    assert!(error.to_string().contains("strftime_now(\"%!\")"), "{error}");
}

#[test]
fn tojson_takes_pythons_arguments() {
    let value = json!({"v": {"b": [1, 2.5, "é\u{1}\u{7f}"], "a": {}, "": []}});
    let render = |arguments: &str| render_with(&format!("{{{{ v | tojson{arguments} }}}}"), value.clone());
    assert_eq!(render("").unwrap(), "{\"b\": [1, 2.5, \"é\\u0001\u{7f}\"], \"a\": {}, \"\": []}");
    assert_eq!(render("(true)").unwrap(), r#"{"b": [1, 2.5, "\u00e9\u0001\u007f"], "a": {}, "": []}"#);
    assert_eq!(
        render("(indent=1, sort_keys=true)").unwrap(),
        "{\n \"\": [],\n \"a\": {},\n \"b\": [\n  1,\n  2.5,\n  \"é\\u0001\u{7f}\"\n ]\n}"
    );
    assert_eq!(
        render("(separators=(',', ':'), sort_keys=false)").unwrap(),
        "{\"b\":[1,2.5,\"é\\u0001\u{7f}\"],\"a\":{},\"\":[]}"
    );
    assert_eq!(render("(indent='--')").unwrap().lines().nth(1), Some("--\"b\": ["));
    assert!(render("(nonsense=1)").is_err());
    assert!(render("(indent=100000000)").is_err());
    assert!(
        render_with("{{ nothing | tojson }}", json!({})).is_err(),
        "Python cannot write Undefined either"
    );
}

#[test]
fn marks_in_the_data_do_not_make_spans() {
    let source = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %}\
                  {% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}";
    let template = compile(source);
    assert!(template.has_generation_tags());
    let forged = "\u{100000}x\u{100001}";
    let said = [Message::text("user", forged), Message::text("assistant", "yes")];
    let rendered = template.render(&said, None, false, &Map::new()).unwrap();
    assert_eq!(rendered.text, format!("{forged}yes"));
    assert_eq!(rendered.assistant_spans, std::slice::from_ref(&(forged.len()..forged.len() + 3)));
}

#[test]
fn only_tags_are_rewritten() {
    let kept = "{# {% generation %} #}{{ '{% generation %}' }}{% if x == \"%} {% endgeneration %}\" %} generation {% raw";
    let rewritten = generation::rewrite_tags(kept);
    assert_eq!((rewritten.source.as_str(), rewritten.has_generation_tags), (kept, false));
    let rewritten = generation::rewrite_tags("a{%-generation+%}b{%+ endgeneration -%}c");
    let expected = "a{%- filter __generation +%}b{%+ endfilter -%}c";
    assert_eq!((rewritten.source.as_str(), rewritten.has_generation_tags), (expected, true));
    assert_eq!(
        without_generation_tags("a{%-generation+%}b{%+ endgeneration -%}c{# {% generation %} #}"),
        "a{%- if true +%}b{%+ endif -%}c{# {% generation %} #}"
    );
}

#[test]
fn python_methods_that_pycompat_lacks() {
    let cases = [
        ("'abc'.removeprefix('a')", "bc"),
        ("'abc'.removesuffix('x')", "abc"),
        ("'a=b=c'.partition('=') | join('|')", "a|=|b=c"),
        ("'a=b=c'.rpartition('=') | join('|')", "a=b|=|c"),
        ("'abc'.rpartition('=') | join('|')", "||abc"),
        ("'é'.ljust(3, '.') ~ 'é'.rjust(2)", "é.. é"),
        ("[4, 5].index(5)", "1"),
    ];
    for (expression, expected) in cases {
        assert_eq!(
            render_with(&format!("{{{{ {expression} }}}}"), json!({})).unwrap(),
            expected,
            "{expression}"
        );
    }
    for bad in ["[4].index(5)", "'a'.rjust(99999999999)", "'a'.partition(1)"] {
        assert!(render_with(&format!("{{{{ {bad} }}}}"), json!({})).is_err(), "{bad}");
    }
}

#[test]
fn deep_values_are_errors_and_not_stack_overflows() {
    let deep = "{% set ns=namespace(s=[], t=[]) %}{% for i in range(100000) %}{% set ns.s=[ns.s] %}{% set ns.t=[ns.t] %}{% endfor %}";
    let cycle = "{% set ns=namespace() %}{% set ns.a=ns %}";
    for source in [
        format!("{cycle}{{{{ ns }}}}"),
        format!("{cycle}{{{{ ns|tojson }}}}"),
        format!("{cycle}{{{{ ns|string }}}}"),
        format!("{cycle}{{{{ ''.join([ns]) }}}}"),
        format!("{deep}{{{{ ns.s|tojson }}}}"),
        format!("{deep}{{{{ ns.s == ns.t }}}}"),
    ] {
        let error = render_with(&source, json!({})).expect_err(&source);
        assert!(
            matches!(&error, TemplateError::Failed { message, .. }
                if message.contains("nested too deeply") || message.contains("must not be stored in a namespace")),
            "{error:?}"
        );
    }
    let slices =
        "{% set ns=namespace(s=[1, 2]) %}{% for i in range(100000) %}{% set ns.s=ns.s[0:] %}{% endfor %}";
    assert_eq!(render_with(&format!("{slices}{{{{ ns.s }}}}"), json!({})).unwrap(), "[1, 2]");
}

#[test]
fn nothing_contains_itself_and_depth_is_bounded_by_the_source() {
    let cycles = [
        "{% set ns.a = ns %}{{ ns == ns }}",
        "{% set ns.a = [1, {'b': [ns]}] %}{{ [ns]|join }}",
        "{% set x, ns.a = 1, ns %}{{ '%s' % ns }}",
        "{% set other = namespace(n=ns) %}{% set ns.a = other %}{{ ns ~ '' }}",
        "{% set ns.a | list | batch(2, ns) %}x{% endset %}{{ ns }}",
    ];
    for cycle in cycles {
        let source = format!("{{% set ns = namespace() %}}{cycle}");
        // Refused when it is stored, or already when it is read.
        match ChatTemplate::compile(&source, Vec::new()) {
            Err(TemplateError::Syntax { .. }) => {}
            Err(other) => panic!("{source}: {other:?}"),
            Ok(_) => {
                let error = render_with(&source, json!({})).expect_err(&source);
                let stored = "a namespace must not be stored in a namespace";
                assert!(
                    matches!(&error, TemplateError::Failed { message, .. } if message.contains(stored)),
                    "{error:?}"
                );
            }
        }
    }
    assert_eq!(
        render_with("{% set ns = namespace(a=1) %}{% set b = ns %}{% set b.a = 2 %}{{ ns.a }}", json!({}))
            .unwrap(),
        "2"
    );
    // Arguments of macros are checked nowhere; the deepest that limits allow is compared, printed and dropped.
    let opened = "[".repeat(50);
    let closed = "]".repeat(50);
    let deep = format!(
        "{{% macro m(x, n) %}}{{% if n %}}{{{{ m({opened}x{closed}, n - 1) }}}}{{% else %}}{{{{ x == [x] }}}}{{{{ x | join | length > 0 }}}}{{% endif %}}{{% endmacro %}}{{{{ m([], 25) }}}}"
    );
    assert_eq!(render_with(&deep, json!({})).unwrap(), "FalseTrue");
    let wide = format!("{{{{ {}1{} }}}}", "[".repeat(80), "]".repeat(80));
    let error = ChatTemplate::compile(&format!("\n{wide}"), Vec::new()).unwrap_err();
    assert!(
        matches!(&error, TemplateError::Syntax { line: Some(2), message } if message.contains("more than 64 brackets")),
        "{error:?}"
    );
    let loops = format!("{}{}", "{% for a in [[1]] %}".repeat(11), "{% endfor %}".repeat(11));
    let error = ChatTemplate::compile(&loops, Vec::new()).unwrap_err();
    assert!(error.to_string().contains("more than 10 loops"), "{error}");
}

#[test]
fn set_tags_keep_their_meaning() {
    let source = "{%- set a, b = 1, ')' -%}{% set c = a if b else 2 %}{% raw %}{% set x = 1 %}{% endraw %}{{ [a, b, c]|tojson }}";
    assert_eq!(render_with(source, json!({})).unwrap(), "{% set x = 1 %}[1, \")\", 1]");
    for bad in ["{% set x = %}", "{% set x = [1]) or (0 %}"] {
        assert!(matches!(ChatTemplate::compile(bad, Vec::new()), Err(TemplateError::Syntax { .. })));
    }
}

#[test]
fn texts_do_not_grow_without_bounds() {
    for bad in [
        "('a'*100000).join('b'*100000)|length",
        "('a'*100000).replace('a', 'b'*100000)|length",
        "'{:999999999}'.format(1)|length",
    ] {
        assert!(
            matches!(render_with(&format!("{{{{ {bad} }}}}"), json!({})), Err(TemplateError::Failed { .. })),
            "{bad}"
        );
    }
    assert_eq!(
        render_with("{{ ', '.join(['a', 1]) }}{{ 'a'.replace('a', 'b') }}", json!({})).unwrap(),
        "a, 1b"
    );
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Templates are strangers' programs: an error or a text, never a panic.
        #[test]
        fn arbitrary_templates_never_panic(parts in prop::collection::vec(prop_oneof![
            Just("{% generation %}".to_owned()), Just("{%- endgeneration -%}".to_owned()), Just("{{ messages".to_owned()),
            Just(" }}".to_owned()), Just("{#".to_owned()), Just("'".to_owned()), Just("{% for m in messages %}".to_owned()),
            Just("{% endfor %}".to_owned()), Just("|tojson(indent=2)".to_owned()), Just("[0].content[::-1]".to_owned()),
            "\\PC{0,6}",
        ], 0..12)) {
            if let Ok(template) = ChatTemplate::compile(&parts.concat(), Vec::new()) {
                let _ = template.render(&[Message::text("user", "häß")], None, true, &Map::new());
            }
        }
    }
}
