//! Numbers as people read them.

/// `1.2 GB` and the like, in powers of 1000.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{n} B"),
        _ if value < 10.0 => format!("{value:.2} {}", UNITS[unit]),
        _ if value < 100.0 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// `2 h 05 min`, `3 min 20 s`, `12 s`.
pub(crate) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".into();
    }
    let s = seconds.round() as u64;
    match (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60) {
        (0, 0, 0, _) if seconds < 9.95 => format!("{seconds:.1} s"),
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s:02} s"),
        (0, h, m, _) => format!("{h} h {m:02} min"),
        (d, h, _, _) => format!("{d} d {h:02} h"),
    }
}

/// `1,234,567`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            ["0 B", "999 B", "1.00 kB", "12.3 kB", "269 MB", "1.00 GB"].map(str::to_owned),
            [bytes(0), bytes(999), bytes(1000), bytes(12_345), bytes(269_060_552), bytes(999_900_000)]
        );
        assert_eq!(
            ["2.5 s", "42 s", "1 min 05 s", "2 h 05 min", "1 d 01 h", "?"].map(str::to_owned),
            [
                duration(2.5),
                duration(42.0),
                duration(65.0),
                duration(7500.0),
                duration(90_000.0),
                duration(f64::NAN)
            ]
        );
        assert_eq!(
            [thousands(0), thousands(999), thousands(1000), thousands(1234567)],
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
