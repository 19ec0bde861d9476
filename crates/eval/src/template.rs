//! A task's Jinja templates, rendered as Jinja2 does under lm_eval: undefined names are errors, the last line break is
//! kept, and there is one more filter, `regex_replace`.

mod jinja2;
mod methods;

use minijinja::value::{Serde, Value as Jinja, ValueKind};
use minijinja::{Environment, Error, ErrorKind};
use serde_json::Value;
use std::sync::LazyLock;

const NAME: &str = "template";

/// A compiled template.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    environment: Environment<'static>,
    /// The expression of a template that is nothing but `{{ expression }}`.
    expression: Option<String>,
}

impl Template {
    /// Compiles; the error is the engine's, with the line in the template.
    pub(crate) fn compile(source: &str) -> Result<Self, String> {
        let mut environment = ENVIRONMENT.clone();
        environment.add_template_owned(NAME, source.to_owned()).map_err(|error| words(&error))?;
        Ok(Self { environment, expression: lone_expression(source) })
    }

    /// The text for a document.
    pub(crate) fn render(&self, document: &Value) -> Result<String, String> {
        let template = self.environment.get_template(NAME).map_err(|error| words(&error))?;
        let text = template.render(Jinja::from(Serde(document)));
        text.map_err(|error| missing(&error, &template, document))
    }

    /// The list that a template prints, without the way over its text.
    pub(crate) fn list(&self, document: &Value) -> Option<Vec<Value>> {
        let source = self.expression.as_ref()?;
        let expression = self.environment.compile_expression(source).ok()?;
        let value = expression.eval(Jinja::from(Serde(document))).ok()?;
        if value.kind() != ValueKind::Seq {
            return None;
        }
        match serde_json::to_value(&value).ok()? {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }
}

fn lone_expression(source: &str) -> Option<String> {
    let inner = source.strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.trim_start_matches('-').trim_end_matches('-');
    let is_lone = !["{{", "}}", "{%", "%}", "{#"].iter().any(|mark| inner.contains(mark));
    is_lone.then(|| inner.to_owned())
}

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(jinja2::environment);

/// What is wrong with a template or its values.
fn words(error: &Error) -> String {
    let what = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    in_line(what, error)
}

/// What is wrong as a template is rendered: of an undefined name, which field it wants.
fn missing(error: &Error, template: &minijinja::Template<'_, '_>, document: &Value) -> String {
    let is_about_undefined = error.kind() == ErrorKind::UndefinedError
        || error.detail().is_some_and(|detail| detail.contains("undefined"));
    if !is_about_undefined {
        return words(error);
    }
    let names = template.undeclared_variables(true);
    let mut fields: Vec<String> = names.iter().filter_map(|path| absent(document, path)).collect();
    fields.sort();
    fields.dedup();
    // Those that the template itself asks after may be missing.
    fields.retain(|path| !template.source().contains(&format!("{path} is ")));
    let at = error.range().and_then(|range| template.source().get(range)).map(str::trim).unwrap_or_default();
    let what = match fields.iter().find(|path| *path == at) {
        Some(path) => format!("there is no field `{path}`"),
        None if fields.is_empty() && at.is_empty() => return words(error),
        None if fields.is_empty() => format!("`{at}` is undefined"),
        None => format!("there is no field `{}`", fields.join("`, or no `")),
    };
    in_line(what, error)
}

/// The part of a path such as `a.b` up to the first name that is not there. What comes after a text, a number or a list
/// is a method.
fn absent(document: &Value, path: &str) -> Option<String> {
    const METHODS: [&str; 4] = ["items", "keys", "values", "get"];
    let (mut value, mut end) = (document, 0);
    for key in path.split('.') {
        end += key.len();
        match value.as_object()?.get(key) {
            Some(inner) => value = inner,
            None if METHODS.contains(&key) || ENVIRONMENT.globals().any(|(name, _)| name == path) => {
                return None;
            }
            None => return Some(path[..end].to_owned()),
        }
        end += 1;
    }
    None
}

fn in_line(what: String, error: &Error) -> String {
    match error.line() {
        Some(line) if line > 1 => format!("{what} (line {line} of the template)"),
        _ => what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(source: &str, document: Value) -> String {
        Template::compile(source).unwrap().render(&document).unwrap()
    }

    #[test]
    fn text_is_jinja2s() {
        assert_eq!(render("Q: {{q.strip()}}\n", json!({"q": " a "})), "Q: a\n");
        assert_eq!(render("{{text.split(' ')[:-1]|join(' ')}}", json!({"text": "a b  c"})), "a b ");
        assert_eq!(render("{{l.index(k)}}", json!({"l": ["A", "B"], "k": "B"})), "1");
        assert_eq!(
            render("{{x}} {{y}} {{z}} {{n}}", json!({"x": 1, "y": 1e16, "z": true, "n": null})),
            "1 1e+16 True None"
        );
        assert_eq!(render("{{'a-b'|regex_replace('-(.)', '<\\\\1>')}}", json!({})), "a<b>");
        assert_eq!(render("{{'x'|int}} {{ '7'|int + 1 }}", json!({})), "0 8");
        // Jinja2's own answers under lm_eval's environment.
        let document =
            json!({"s": "it's A tEst, ok", "x": 2.5e-7, "y": 1e20, "d": {"b": 1, "a": "é<'"}, "l": [1, 2.0]});
        for (source, expected) in [
            ("{{s.title()}}", "It'S A Test, Ok"),
            ("{{s.swapcase()}}", "IT'S a TeST, OK"),
            ("{{s.zfill(18)}} {{'-7'.zfill(4)}}", "000it's A tEst, ok -007"),
            ("<{{s.center(18)}}> <{{'ab'.center(5, '.')}}>", "< it's A tEst, ok  > <..ab.>"),
            ("<{{'a'.ljust(3)}}> <{{'a'.rjust(3)}}>", "<a  > <  a>"),
            ("<{{'ab'|center(5)}}> {{s|wordcount}}", "<  ab > 5"),
            ("{{x|string}} {{[y, x]|join(' ')}} {{'abc'|join('-')}}", "2.5e-07 1e+20 2.5e-07 a-b-c"),
            ("{{[d, d]|join('+', attribute='b')}} {{[]|join}}", "1+1 "),
            ("{{'x'|float}} {{'1.50'|float}} {{3|float}} {{'y'|float(2.5)}}", "0.0 1.5 3.0 2.5"),
            ("{{s|e}} {{'<a & \"b\">'|escape}}", "it&#39;s A tEst, ok &lt;a &amp; &#34;b&#34;&gt;"),
            ("{{d|tojson}}", r#"{"a": "\u00e9\u003c\u0027", "b": 1}"#),
            ("{{[d.b, none, true, x]|tojson}}", "[1, null, true, 2.5e-07]"),
            ("{{[1, []]|tojson(indent=2)}}", "[\n  1,\n  []\n]"),
            ("{{'a b/é?'|urlencode}}", "a%20b/%C3%A9%3F"),
        ] {
            assert_eq!(render(source, document.clone()), expected, "{source}");
        }
        let chosen = "{{answer.split('####')[-1].strip() if answer is defined else target}}";
        assert_eq!(render(chosen, json!({"target": "t"})), "t");
        assert_eq!(render(chosen, json!({"answer": "a #### 5 "})), "5");
        // Jinja2 keeps lines of blocks: no trimming.
        assert_eq!(render("{% if true %}\na\n{% endif %}\n", json!({})), "\na\n\n");
    }

    #[test]
    fn lists_need_no_text() {
        let list = |source: &str, document| Template::compile(source).unwrap().list(&document);
        let document = json!({"c": {"text": ["it's", "\\n"]}, "s": "a"});
        assert_eq!(list("{{c.text}}", document.clone()), Some(vec![json!("it's"), json!("\\n")]));
        assert_eq!(list("{{[s, 'b']}}", document.clone()), Some(vec![json!("a"), json!("b")]));
        assert_eq!(list("{{s}}", document.clone()), None);
        assert_eq!(list("{{s}} {{s}}", document), None);
    }

    #[test]
    fn errors_say_where() {
        assert!(Template::compile("a\n{{ b").unwrap_err().contains("line 2 of the template"));
        let document = json!({"q": "x", "l": [1], "d": {"a": 1}});
        for (source, expected) in [
            ("{{nothing}}", "there is no field `nothing`"),
            ("{{q.strip() + other}}", "there is no field `other`"),
            ("a\n{{d.x}}", "there is no field `d.x` (line 2 of the template)"),
            ("{{other|upper}}", "there is no field `other`"),
            ("{{other.strip()}}", "there is no field `other`"),
            ("{{q if other is defined else others}}", "there is no field `others`"),
            ("{% for x in other %}{% endfor %}", "there is no field `other`"),
            ("{{l[3]}}", "`l[3]` is undefined"),
            ("{{[q, other]|join}}", "there is no field `other`"),
        ] {
            let said = Template::compile(source).unwrap().render(&document).unwrap_err();
            assert_eq!(said, expected, "{source}");
        }
        for wide in ["'a'.zfill(n)", "'a'.ljust(n)", "'a'.center(n)", "'a'|center(n)", "[1]|tojson(indent=n)"]
        {
            let template = Template::compile(&format!("{{{{{wide}}}}}")).unwrap();
            let said = template.render(&json!({"n": i64::MAX})).unwrap_err();
            assert!(said.contains("letters wide"), "{wide}: {said}");
        }
        let endless = "{% for i in range(9999) %}{% for j in range(9999) %}a{% endfor %}{% endfor %}";
        assert!(Template::compile(endless).unwrap().render(&json!({})).is_err());
    }
}
