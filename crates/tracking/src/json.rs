//! Numbers as JSON texts, those that JSON does not have included: trackers read `NaN` as Python writes it.

/// `value` as Python's `json` writes it.
pub(crate) fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else if value.fract() == 0.0 && value.abs() < 1e15 {
        // A counter is a counter: 7, not 7.0.
        format!("{value:.0}")
    } else {
        serde_json::Value::from(value).to_string()
    }
}

/// An object of names and JSON texts.
pub(crate) fn object<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let entries: Vec<String> =
        entries.map(|(name, json)| format!("{}: {json}", serde_json::Value::from(name))).collect();
    format!("{{{}}}", entries.join(", "))
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_pythons() {
        let written = [0.1, 7.0, -0.5, 1e-7, 1e20, f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(number);
        assert_eq!(written, ["0.1", "7", "-0.5", "1e-7", "1e+20", "NaN", "Infinity", "-Infinity"]);
    }
}
