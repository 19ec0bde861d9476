//! The moment that chat templates tell (`strftime_now`): one for all shards of a job, whenever each is made.

use std::path::Path;

use super::manifest::{Manifest, stem};
use super::set::TokenSet;

/// Whether a template tells the time.
pub(super) fn asks(template: Option<&str>) -> bool {
    template.is_some_and(|template| template.contains("strftime_now"))
}

/// The moment that other shards of the same job, or an earlier attempt at this one, have told.
pub(super) fn told(dir: &Path, job: &Manifest) -> Option<i64> {
    let found = TokenSet::manifests(dir).ok()??;
    found.into_keys().find_map(|(shard, shards)| {
        let stem = stem(shard, shards);
        let names = [format!("{stem}.json"), format!("{stem}.partial.json")];
        let manifests = names.iter().filter_map(|name| Manifest::read(&dir.join(name)).ok());
        manifests
            .filter(|other| other.inputs == job.inputs && other.shards == job.shards)
            .find_map(|m| m.rendered_at)
    })
}

/// The beginning of this day, in seconds since 1970: shards that are begun on one day agree without knowing of each
/// other, and templates tell hardly more than the day.
pub(super) fn today() -> i64 {
    let now = jiff::Zoned::now();
    now.start_of_day().unwrap_or(now).timestamp().as_second()
}

/// Reads a moment: a day (`2026-12-01`: its beginning, local time), a time with its zone (`2026-12-01T10:00:00Z`), or
/// seconds since 1970.
///
/// # Errors
/// What can be given, where this is none of it.
pub fn parse_moment(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(seconds);
    }
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Ok(moment.as_second());
    }
    let day = text.parse::<jiff::civil::Date>().ok();
    let begins = day.and_then(|day| day.to_zoned(jiff::tz::TimeZone::system()).ok());
    begins
        .map(|moment| moment.timestamp().as_second())
        .ok_or_else(|| "give a day (2026-12-01), a time with its zone, or seconds since 1970".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_times_and_seconds() {
        assert_eq!(parse_moment("1700000000"), Ok(1_700_000_000));
        assert_eq!(parse_moment("2023-11-14T22:13:20Z"), Ok(1_700_000_000));
        let day = parse_moment("2023-11-14").expect("a day");
        // Some hour of that day, whatever the zone.
        assert!((1_699_833_600..1_700_100_000).contains(&day), "{day}");
        assert!(parse_moment("yesterday").is_err());
    }
}
