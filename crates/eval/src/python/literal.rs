//! `ast.literal_eval`, for what templates print: texts, numbers, lists, tuples, dicts, `True`, `False`, `None`.

use serde_json::{Map, Number, Value};

/// How deep literals may be nested.
const DEEPEST: usize = 64;

/// The value of a Python literal; tuples become lists. `None`: it is none.
pub(crate) fn literal_eval(text: &str) -> Option<Value> {
    let mut parser = Parser { rest: text.trim() };
    let value = parser.value(0)?;
    parser.space();
    parser.rest.is_empty().then_some(value)
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, word: &str) -> bool {
        match self.rest.strip_prefix(word) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > DEEPEST {
            return None;
        }
        self.space();
        match self.rest.chars().next()? {
            '[' => self.items(']', depth).map(Value::Array),
            '(' => self.items(')', depth).map(Value::Array),
            '{' => self.fields(depth),
            '\'' | '"' => self.texts(),
            _ => self.word(),
        }
    }

    fn items(&mut self, end: char, depth: usize) -> Option<Vec<Value>> {
        self.rest = &self.rest[1..];
        let mut items = Vec::new();
        loop {
            self.space();
            if self.rest.starts_with(end) {
                self.rest = &self.rest[1..];
                return Some(items);
            }
            items.push(self.value(depth + 1)?);
            self.space();
            if !self.take(",") && !self.rest.starts_with(end) {
                return None;
            }
        }
    }

    fn fields(&mut self, depth: usize) -> Option<Value> {
        self.rest = &self.rest[1..];
        let mut fields = Map::new();
        loop {
            self.space();
            if self.take("}") {
                return Some(Value::Object(fields));
            }
            let key = match self.value(depth + 1)? {
                Value::String(key) => key,
                other => super::text::repr(&other),
            };
            self.space();
            if !self.take(":") {
                return None;
            }
            fields.insert(key, self.value(depth + 1)?);
            self.space();
            if !self.take(",") && !self.rest.starts_with('}') {
                return None;
            }
        }
    }

    /// One quoted text or several side by side.
    fn texts(&mut self) -> Option<Value> {
        let mut text = String::new();
        while self.rest.starts_with(['\'', '"']) {
            self.text(&mut text)?;
            self.space();
        }
        Some(Value::String(text))
    }

    fn text(&mut self, out: &mut String) -> Option<()> {
        let quote = self.rest.chars().next()?;
        let mut chars = self.rest[1..].chars();
        loop {
            match chars.next()? {
                c if c == quote => break,
                '\n' => return None,
                '\\' => escape(&mut chars, out)?,
                c => out.push(c),
            }
        }
        self.rest = chars.as_str();
        Some(())
    }

    fn word(&mut self) -> Option<Value> {
        let end = self.rest.find([',', ']', ')', '}', ':', ' ', '\n']).unwrap_or(self.rest.len());
        let word = &self.rest[..end];
        self.rest = &self.rest[end..];
        match word {
            "True" => return Some(true.into()),
            "False" => return Some(false.into()),
            "None" => return Some(Value::Null),
            _ => {}
        }
        let digits = word.trim_start_matches(['-', '+']);
        if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return None;
        }
        if let Ok(whole) = word.parse::<i64>() {
            // Python refuses 007.
            return (digits.len() == 1 || !digits.starts_with('0')).then(|| whole.into());
        }
        Number::from_f64(word.parse().ok()?).map(Value::Number)
    }
}

fn escape(chars: &mut std::str::Chars<'_>, out: &mut String) -> Option<()> {
    let c = match chars.next()? {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        '0' => '\0',
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'v' => '\x0b',
        '\n' => return Some(()),
        'x' => code(chars, 2)?,
        'u' => code(chars, 4)?,
        'U' => code(chars, 8)?,
        c @ ('\\' | '\'' | '"') => c,
        // Python keeps an escape that it does not know.
        other => {
            out.push('\\');
            other
        }
    };
    out.push(c);
    Some(())
}

fn code(chars: &mut std::str::Chars<'_>, digits: usize) -> Option<char> {
    let text: String = chars.by_ref().take(digits).collect();
    char::from_u32(u32::from_str_radix(&text, 16).ok()?).filter(|_| text.len() == digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::text::repr;
    use serde_json::json;

    #[test]
    fn what_python_prints_is_read_again() {
        let value = json!(["it's", "a\"b'c", "\n\\é\u{7f}", 1, -2.5, true, null, [], {"k": [1]}, ""]);
        assert_eq!(literal_eval(&repr(&value)), Some(value));
        assert_eq!(literal_eval(" ('a', 'b' 'c',) "), Some(json!(["a", "bc"])));
        assert_eq!(literal_eval("[\"\\x41\\u00e9\\q\"]"), Some(json!(["Aé\\q"])));
    }

    #[test]
    fn what_is_no_literal_is_none() {
        for text in ["", "[", "['a' 1]", "abc", "[a]", "1 2", "'a", "{'a' 1}", "007", "__import__('os')"] {
            assert_eq!(literal_eval(text), None, "{text}");
        }
        assert_eq!(literal_eval(&"[".repeat(100_000)), None);
    }
}
