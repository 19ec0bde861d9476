//! Object stores that speak S3: `s3://BUCKET/KEY`, patterns and directories. Requests are signed where there are keys
//! (the environment variables of Amazon's tools), else anonymous.

use super::http::{HttpProblem, attempts, get};
use super::sign::{Credentials, Request};
use crate::data_files::extension;
use glob::{MatchOptions, Pattern};
use std::time::{SystemTime, UNIX_EPOCH};
use ureq::Agent;

/// Most names of a listing, and most pages (stores give up to a thousand names on each).
const MOST_NAMES: usize = 100_000;
const MOST_PAGES: usize = 10_000;
/// Most bytes of a page of a listing.
const PAGE: u64 = 16 << 20;

/// Where objects are, and who asks.
#[derive(Clone)]
pub(super) struct Store {
    scheme: String,
    host: String,
    /// What stands before a key: `/`, or `/BUCKET/`.
    root: String,
    region: String,
    credentials: Option<Credentials>,
}

impl Store {
    /// The store of a bucket, as the environment describes it.
    pub(super) fn new(bucket: &str, get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let set = |name: &str| get(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let region = set("AWS_REGION").or_else(|| set("AWS_DEFAULT_REGION")).unwrap_or("us-east-1".into());
        let own = set("AWS_ENDPOINT_URL_S3").or_else(|| set("AWS_ENDPOINT_URL"));
        let (scheme, host, root) = match own {
            None if bucket.contains('.') => {
                // A certificate is for one level of names.
                ("https".to_owned(), format!("s3.{region}.amazonaws.com"), format!("/{bucket}/"))
            }
            None => ("https".to_owned(), format!("{bucket}.s3.{region}.amazonaws.com"), "/".to_owned()),
            // Stores other than Amazon's seldom have a name for each bucket.
            Some(endpoint) => {
                let parts = endpoint.trim_end_matches('/').split_once("://");
                let parts = parts.filter(|(scheme, _)| ["http", "https"].contains(scheme));
                let (scheme, rest) = parts.ok_or(format!("AWS_ENDPOINT_URL: `{endpoint}` is no address"))?;
                let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
                let path = if path.is_empty() { String::new() } else { format!("/{path}") };
                (scheme.to_owned(), host.to_owned(), format!("{path}/{bucket}/"))
            }
        };
        let keys = set("AWS_ACCESS_KEY_ID").zip(set("AWS_SECRET_ACCESS_KEY"));
        let credentials =
            keys.map(|(key, secret)| Credentials { key, secret, token: set("AWS_SESSION_TOKEN") });
        Ok(Self { scheme, host, root, region, credentials })
    }

    fn signed(&self, path: &str, query: Vec<(String, String)>) -> String {
        let Self { scheme, host, region, credentials, .. } = self;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Request { scheme, host, region, path, query }.address(credentials.as_ref(), now)
    }

    /// The address of an object, signed now.
    pub(super) fn address(&self, key: &str) -> String {
        self.signed(&format!("{}{key}", self.root), Vec::new())
    }

    /// The keys that `wanted` stands for: itself, those that a pattern matches, or the data files right inside a
    /// directory (`…/`); sorted.
    pub(super) fn keys(&self, agent: &Agent, wanted: &str) -> Result<Vec<String>, HttpProblem> {
        let first_wild = wanted.find(['*', '?', '[']);
        if first_wild.is_none() && !wanted.ends_with('/') {
            return Ok(vec![wanted.to_owned()]);
        }
        let found = self.list(agent, &wanted[..first_wild.unwrap_or(wanted.len())])?;
        let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
        let pattern = Pattern::new(wanted).ok();
        let is_wanted = |key: &String| match (first_wild, &pattern) {
            (None, _) => extension(key).is_some() && !key[wanted.len()..].contains('/'),
            (Some(_), Some(pattern)) => pattern.matches_with(key, options),
            (Some(_), None) => key == wanted,
        };
        let mut keys: Vec<String> = found.into_iter().filter(is_wanted).collect();
        keys.sort();
        Ok(keys)
    }

    /// All keys that begin with `prefix` (ListObjectsV2).
    fn list(&self, agent: &Agent, prefix: &str) -> Result<Vec<String>, HttpProblem> {
        let mut keys = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            let mut query = vec![pair("list-type", "2"), pair("prefix", prefix)];
            query.extend(next.take().map(|token| ("continuation-token".to_owned(), token)));
            let path = if self.root == "/" { "/" } else { self.root.trim_end_matches('/') };
            let mut answer = attempts(|| get(agent, &self.signed(path, query.clone()), None, None))?;
            let status = answer.status().as_u16();
            if status != 200 {
                return Err(HttpProblem::Status(status));
            }
            let body = answer.body_mut().with_config().limit(PAGE).read_to_string();
            let page = body.map_err(|error| HttpProblem::Network(error.to_string()))?;
            keys.extend(elements(&page, "Key").map(unescaped).filter(|key| key.starts_with(prefix)));
            next = elements(&page, "NextContinuationToken").map(unescaped).next();
            if keys.len() > MOST_NAMES {
                break;
            }
            if next.is_none() {
                return Ok(keys);
            }
        }
        // A part of them would be other data than was asked for.
        Err(HttpProblem::TooManyNames { most: MOST_NAMES, prefix: prefix.to_owned() })
    }
}

/// The texts of all elements of a name, which hold nothing but text.
fn elements<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        let start = rest.find(&open)? + open.len();
        let end = start + rest[start..].find(&close)?;
        let text = &rest[start..end];
        rest = &rest[end + close.len()..];
        Some(text)
    })
}

/// XML's five names of characters; object stores write no others.
fn unescaped(text: &str) -> String {
    let names = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    names.iter().fold(text.to_owned(), |text, (name, character)| text.replace(name, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_are_read_to_the_letter() {
        let xml = "<R><Contents><Key>a&amp;lt;b</Key><Size>1</Size></Contents><Contents><Key>ü c</Key></Contents><Key>";
        let keys: Vec<String> = elements(xml, "Key").map(unescaped).collect();
        assert_eq!(keys, ["a&lt;b", "ü c"]);
        assert_eq!(elements(xml, "NextContinuationToken").next(), None);
    }

    #[test]
    fn stores_are_where_the_environment_says() {
        let address = |bucket: &str, vars: &[(&str, &str)]| {
            let get = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned());
            Store::new(bucket, get).map(|store| store.address("a b.jsonl"))
        };
        let plain = address("set", &[("AWS_REGION", "eu-west-1")]).expect("a store");
        assert_eq!(plain, "https://set.s3.eu-west-1.amazonaws.com/a%20b.jsonl");
        let dotted = address("my.set", &[]).expect("a store");
        assert_eq!(dotted, "https://s3.us-east-1.amazonaws.com/my.set/a%20b.jsonl");
        let own = address("set", &[("AWS_ENDPOINT_URL", "http://minio:9000/base/")]).expect("a store");
        assert_eq!(own, "http://minio:9000/base/set/a%20b.jsonl");
        assert!(address("set", &[("AWS_ENDPOINT_URL", "minio:9000")]).is_err());
    }
}
