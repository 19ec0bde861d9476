//! What is swept: overrides that stand for several values, in Hydra's syntax.
//!
//! `key=a,b,c`, `key=choice(a,b,c)` and `key=range(start,stop[,step])` (without `stop`, from 0) are several values; a
//! comma inside brackets, braces or quotes belongs to one value, so `[q_proj,v_proj]` is one list.

/// A key and the values that it takes in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    /// With its sign, as `+data.max_length`.
    pub(super) key: String,
    /// Values as they are written in an override.
    pub(super) values: Vec<String>,
}

impl Axis {
    /// The key without its sign.
    pub(super) fn name(&self) -> &str {
        self.key.trim_start_matches('+')
    }
}

/// No sweep has more runs, and no range more values.
const MOST: usize = 1000;

/// Hydra's sweeps that are not understood here.
const FOREIGN: [&str; 5] = ["interval", "glob", "shuffle", "sort", "tag"];

/// Parts the overrides into those that are the same in every run, and axes.
pub(super) fn axes(overrides: &[String]) -> Result<(Vec<String>, Vec<Axis>), String> {
    let (mut fixed, mut axes) = (Vec::new(), Vec::new());
    for text in overrides {
        let Some((key, value)) = text.split_once('=').filter(|_| !text.starts_with('~')) else {
            fixed.push(text.clone());
            continue;
        };
        match values(value).map_err(|why| format!("{text}: {why}"))? {
            None => fixed.push(text.clone()),
            Some(values) => axes.push(Axis { key: key.to_owned(), values }),
        }
    }
    if let Some(twice) =
        axes.iter().enumerate().find(|(i, axis)| axes[..*i].iter().any(|a| a.name() == axis.name()))
    {
        return Err(format!("{} is swept twice", twice.1.name()));
    }
    Ok((fixed, axes))
}

/// Every combination of values, the last axis changing fastest: one value for each axis.
pub(super) fn combinations(axes: &[Axis]) -> Result<Vec<Vec<String>>, String> {
    let count = axes.iter().try_fold(1usize, |n, axis| n.checked_mul(axis.values.len()));
    if count.is_none_or(|count| count > MOST) {
        return Err(format!("that is more than {MOST} runs"));
    }
    let mut combinations = vec![Vec::new()];
    for axis in axes {
        let longer = |so_far: &Vec<String>| {
            let so_far = so_far.clone();
            axis.values.iter().map(move |value| [so_far.as_slice(), std::slice::from_ref(value)].concat())
        };
        combinations = combinations.iter().flat_map(longer).collect();
    }
    Ok(combinations)
}

/// The values that a text stands for; `None`: it is one value.
fn values(text: &str) -> Result<Option<Vec<String>>, String> {
    let text = text.trim();
    if let Some((name, inside)) = call(text) {
        return match name {
            "range" => range(inside).map(Some),
            "choice" => list(inside).map(Some),
            name if FOREIGN.contains(&name) => {
                Err(format!("{name}(…) is not understood here; write the values with commas, or range(…)"))
            }
            _ => Ok(None),
        };
    }
    let parts = split(text);
    if parts.len() < 2 { Ok(None) } else { list(text).map(Some) }
}

/// `name(inside)`, where the bracket closes at the very end.
fn call(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = text.split_once('(')?;
    let inside = rest.strip_suffix(')')?;
    (!name.is_empty() && name.chars().all(|c| c.is_ascii_alphabetic()) && split(text).len() == 1)
        .then_some((name, inside))
}

fn list(text: &str) -> Result<Vec<String>, String> {
    let values: Vec<String> = split(text).into_iter().map(|value| value.trim().to_owned()).collect();
    if values.iter().any(String::is_empty) {
        return Err("a value between commas is empty (write '' for an empty text)".into());
    }
    match values.iter().enumerate().find(|(i, value)| values[..*i].contains(value)) {
        Some((_, twice)) => Err(format!("{twice} is there twice")),
        None => Ok(values),
    }
}

/// Parts between commas that are in no bracket and no quotes.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quote, mut escaped) = (Vec::new(), 0, 0usize, None, false);
    for (i, c) in text.char_indices() {
        match (quote, c) {
            _ if std::mem::take(&mut escaped) => {}
            (Some('"'), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{' | '(') => depth += 1,
            (None, ']' | '}' | ')') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// `start, stop[, step]` or `stop`; `stop` itself is left out, as in Python and Hydra.
fn range(inside: &str) -> Result<Vec<String>, String> {
    let texts: Vec<&str> = inside.split(',').map(str::trim).collect();
    let numbers: Option<Vec<f64>> = texts.iter().map(|text| text.parse().ok()).collect();
    let numbers = numbers.filter(|numbers| numbers.iter().all(|n| n.is_finite()));
    let (start, stop, step) = match numbers.as_deref() {
        Some([stop]) => (0.0, *stop, 1.0),
        Some([start, stop]) => (*start, *stop, 1.0),
        Some([start, stop, step]) => (*start, *stop, *step),
        _ => {
            return Err("write range(start,stop), range(start,stop,step) or range(stop), with numbers".into());
        }
    };
    let count = ((stop - start) / step - 1e-9).ceil();
    if step == 0.0 || count < 1.0 {
        return Err(
            "the range is empty: `stop` itself is left out, and `step` leads from `start` to `stop`".into()
        );
    }
    if count > MOST as f64 {
        return Err(format!("the range has more than {MOST} values"));
    }
    let is_whole = texts.iter().all(|text| text.parse::<i64>().is_ok());
    // Twelve digits: 0.1 + 2 · 0.1 is 0.3 for a person.
    let rounded = |x: f64| format!("{x:.11e}").parse::<f64>().unwrap_or(x);
    let value = |i: usize| rounded(start + i as f64 * step);
    let write = |x: f64| match (is_whole, x.abs()) {
        (true, _) => format!("{x:.0}"),
        (false, size) if size != 0.0 && !(1e-3..1e6).contains(&size) => format!("{x:e}"),
        (false, _) => format!("{x:?}"),
    };
    Ok((0..count as usize).map(|i| write(value(i))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swept(text: &str) -> Option<Vec<String>> {
        values(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn lists_choices_and_ranges_are_several_values() {
        for (text, expected) in [
            ("1e-4,2e-4", &["1e-4", "2e-4"][..]),
            ("choice(linear, cosine)", &["linear", "cosine"]),
            ("range(1,4)", &["1", "2", "3"]),
            ("range(3)", &["0", "1", "2"]),
            ("range(8,0,-4)", &["8", "4"]),
            ("range(0.1,0.4,0.1)", &["0.1", "0.2", "0.3"]),
            ("range(1e-4,4e-4,1e-4)", &["1e-4", "2e-4", "3e-4"]),
            ("[q_proj,v_proj],all-linear", &["[q_proj,v_proj]", "all-linear"]),
            ("'a,b',\"c\\\",d\"", &["'a,b'", "\"c\\\",d\""]),
            ("{a: 1, b: 2},null", &["{a: 1, b: 2}", "null"]),
        ] {
            assert_eq!(
                swept(text).as_deref(),
                Some(&expected.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..]),
                "{text}"
            );
        }
        for text in ["[q_proj,v_proj]", "1e-4", "'a,b'", "", ".*\\.(q|v)_proj", "f(a,b)", "{a: 1, b: 2}"] {
            assert_eq!(swept(text), None, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for (text, word) in [
            ("1,,2", "empty"),
            ("1,2,1", "twice"),
            ("range(4,1)", "empty"),
            ("range(1,2,0)", "empty"),
            ("range(a,b)", "numbers"),
            ("range(1,2,3,4)", "numbers"),
            ("range(0,1e9)", "1000"),
            ("glob(*)", "glob"),
        ] {
            let error = values(text).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn every_combination_comes_once_and_the_last_axis_changes_fastest() {
        let overrides = ["a.x=1,2", "b.y=3", "~c", "+d.z=choice(5,6)"].map(str::to_owned);
        let (fixed, axes) = axes(&overrides).expect("fine");
        assert_eq!(fixed, ["b.y=3", "~c"]);
        assert_eq!(axes.iter().map(|a| a.key.as_str()).collect::<Vec<_>>(), ["a.x", "+d.z"]);
        let found = combinations(&axes).expect("few");
        assert_eq!(found, [["1", "5"], ["1", "6"], ["2", "5"], ["2", "6"]]);
        let wide = vec![Axis { key: "a".into(), values: vec!["1".into(); 40] }; 3];
        assert!(combinations(&wide).expect_err("many").contains("1000"));
        assert!(super::axes(&["a=1,2".into(), "a=3,4".into()]).expect_err("twice").contains("twice"));
    }
}
