//! Whether Python's `json.loads` reads a text: `NaN`, `Infinity` and lone surrogates are fine, and no number is too
//! large.

/// Lists and objects in each other; Python gives up at about a thousand.
const DEEPEST: usize = 900;

/// Whether `json.loads(text)` succeeds.
pub(crate) fn is_json(text: &str) -> bool {
    let mut reader = Reader { rest: text.as_bytes() };
    reader.value(0).is_some() && {
        reader.space();
        reader.rest.is_empty()
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn take(&mut self, text: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(text.as_bytes())?;
        Some(())
    }

    /// The next mark after space.
    fn mark(&mut self, mark: &str) -> Option<()> {
        self.space();
        self.take(mark)
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        self.space();
        match self.rest.first()? {
            b'"' => self.text(),
            b'[' | b'{' if depth == DEEPEST => None,
            b'[' => self.items("[", "]", &|reader| reader.value(depth + 1)),
            b'{' => self.items("{", "}", &|reader| {
                reader.space();
                reader.text()?;
                reader.mark(":")?;
                reader.value(depth + 1)
            }),
            b'-' | b'0'..=b'9' => self.take("-Infinity").or_else(|| self.number()),
            _ => ["true", "false", "null", "NaN", "Infinity"].iter().find_map(|word| self.take(word)),
        }
    }

    fn items(&mut self, open: &str, close: &str, item: &dyn Fn(&mut Self) -> Option<()>) -> Option<()> {
        self.take(open)?;
        if self.mark(close).is_some() {
            return Some(());
        }
        loop {
            item(self)?;
            if self.mark(close).is_some() {
                return Some(());
            }
            self.mark(",")?;
        }
    }

    fn text(&mut self) -> Option<()> {
        self.take("\"")?;
        loop {
            let (first, rest) = self.rest.split_first()?;
            self.rest = rest;
            match first {
                b'"' => return Some(()),
                0..0x20 => return None,
                b'\\' => self.escape()?,
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        match first {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let (digits, rest) = self.rest.split_at_checked(4)?;
                self.rest = rest;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())
            }
            _ => None,
        }
    }

    fn digits(&mut self) -> Option<()> {
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.rest = &self.rest[count..];
        (count > 0).then_some(())
    }

    /// As far as it is a number; what follows is then wrong by itself.
    fn number(&mut self) -> Option<()> {
        let _ = self.take("-");
        self.take("0").or_else(|| self.digits())?;
        let before = self.rest;
        if self.take(".").and_then(|()| self.digits()).is_none() {
            self.rest = before;
        }
        let before = self.rest;
        let exponent = self.take("e").or_else(|| self.take("E")).and_then(|()| {
            let _ = self.take("+").or_else(|| self.take("-"));
            self.digits()
        });
        if exponent.is_none() {
            self.rest = before;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::is_json;

    #[test]
    fn what_python_reads_is_json() {
        // python: json.loads(text) of each
        for text in [
            "{}",
            " [ ] ",
            "{\"a\": [1, -2.5e+3, true, null]}",
            "NaN",
            "[-Infinity]",
            "\"\\ud800\\n\"",
            "1e999",
            "-0",
            "\"\u{e9}\u{7f}\"",
            "{\"a\":1,\"a\":2}",
        ] {
            assert!(is_json(text), "{text}");
        }
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "'a'",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "\"\t\"",
            "\"\\x\"",
            "\"\\u12\"",
            "tru",
            "[1] 2",
            "\u{feff}1",
            "\u{a0}1",
            "-",
            "[1 2]",
            "{\"a\" 1}",
        ] {
            assert!(!is_json(text), "{text}");
        }
        assert!(!is_json(&"[".repeat(100_000)));
        assert!(is_json(&format!("{}{}", "[".repeat(500), "]".repeat(500))));
    }
}
