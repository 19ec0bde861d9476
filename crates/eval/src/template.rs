//! A task's Jinja templates, rendered as Jinja2 does under lm_eval: undefined names are errors, the last line break is
//! kept, and there is one more filter, `regex_replace`.

use crate::python::regex::Pattern;
use crate::python::text::{float_repr, is_space};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value as Jinja, ValueKind, from_args};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior};
use minijinja_contrib::pycompat;
use serde_json::Value;
use std::sync::LazyLock;

/// Work that one rendering may do, in minijinja's units.
const FUEL: u64 = 10_000_000;
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
        template.render(Jinja::from(Serde(document))).map_err(|error| words(&error))
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

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
    environment.set_syntax(syntax.expect("the default delimiters are valid"));
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(method);
    environment.add_filter("regex_replace", regex_replace);
    environment.add_filter("int", lenient_int);
    environment.set_formatter(|out, state, value| match float_of(value) {
        Some(x) => out.write_str(&float_repr(x)).map_err(Error::from),
        None => minijinja::escape_formatter(out, state, value),
    });
    environment
});

/// A number that is not whole by its type.
fn float_of(value: &Jinja) -> Option<f64> {
    let is_float = value.kind() == ValueKind::Number && !value.is_integer();
    is_float.then(|| f64::try_from(value.clone()).ok()).flatten()
}

/// `re.sub(pattern, repl, string, count=count)`.
fn regex_replace(text: &str, pattern: &str, repl: &str, count: Option<usize>) -> Result<String, Error> {
    let failed = |error: crate::python::regex::PatternError| {
        Error::new(ErrorKind::InvalidOperation, format!("regex_replace: {}", error.0))
    };
    let pattern = Pattern::new(pattern).map_err(failed)?;
    pattern.substitute(text, repl, count.unwrap_or(0)).map_err(failed)
}

/// Jinja2's answer to what is no number is the default, 0.
fn lenient_int(
    state: &State,
    value: &Jinja,
    default: Option<Jinja>,
    base: Option<u32>,
    kwargs: Kwargs,
) -> Result<Jinja, Error> {
    let default = default.unwrap_or_else(|| Jinja::from(0));
    minijinja::filters::int(state, value, Some(default.clone()), base, kwargs).or(Ok(default))
}

/// Python's methods that tasks call and `pycompat` lacks.
fn method(state: &mut State, value: &Jinja, method: &str, args: &[Jinja]) -> Result<Jinja, Error> {
    if let Some(text) = value.as_str() {
        match method {
            "removeprefix" => {
                let (prefix,): (&str,) = from_args(args)?;
                return Ok(text.strip_prefix(prefix).unwrap_or(text).into());
            }
            "removesuffix" => {
                let (suffix,): (&str,) = from_args(args)?;
                return Ok(text.strip_suffix(suffix).unwrap_or(text).into());
            }
            "partition" => {
                let (at,): (&str,) = from_args(args)?;
                let (before, after) = text.split_once(at).unwrap_or((text, ""));
                let middle = if text.contains(at) { at } else { "" };
                return Ok([before, middle, after].into_iter().map(Jinja::from).collect());
            }
            "index" => {
                let (wanted,): (&str,) = from_args(args)?;
                let at = text.find(wanted).map(|at| text[..at].chars().count());
                return at.map(Jinja::from).ok_or_else(|| invalid(format!("{wanted:?} is not in the text")));
            }
            "rsplit" if !args.is_empty() => {
                let (at, most): (&str, Option<usize>) = from_args(args)?;
                let mut parts: Vec<&str> = text.rsplitn(most.map_or(usize::MAX, |m| m + 1), at).collect();
                parts.reverse();
                return Ok(parts.into_iter().map(Jinja::from).collect());
            }
            // Python splits at more characters than `pycompat` does.
            "split" if args.is_empty() => {
                let parts: Vec<&str> = text.split(is_space).filter(|part| !part.is_empty()).collect();
                return Ok(parts.into_iter().map(Jinja::from).collect());
            }
            _ => {}
        }
    }
    if value.kind() == ValueKind::Seq && method == "index" {
        let (wanted,): (&Jinja,) = from_args(args)?;
        let position = value.try_iter()?.position(|item| item == *wanted);
        return position.map(Jinja::from).ok_or_else(|| invalid(format!("{wanted} is not in the list")));
    }
    pycompat::unknown_method_callback(state, value, method, args)
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

fn words(error: &Error) -> String {
    let what = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
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
        let missing = Template::compile("{{nothing}}").unwrap().render(&json!({})).unwrap_err();
        assert!(missing.contains("undefined"), "{missing}");
        let endless = "{% for i in range(9999) %}{% for j in range(9999) %}a{% endfor %}{% endfor %}";
        assert!(Template::compile(endless).unwrap().render(&json!({})).is_err());
    }
}
