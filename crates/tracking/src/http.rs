//! Requests to servers, with JSON both ways.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::time::Duration;
use ureq::Agent;

/// Longest time of one request.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Of an error's page only the beginning is worth showing.
const SHOWN: usize = 300;

/// Why a server did not take something.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum HttpError {
    /// It answered, and said no.
    #[error("the server answered {0}: {1}")]
    Refused(u16, String),
    /// It could not be reached, or said something that is no answer.
    #[error("{0}")]
    Unreachable(String),
}

impl HttpError {
    /// Asking again cannot help: wrong key, no such project, malformed request.
    pub(crate) fn is_final(&self) -> bool {
        let is_no = |status: u16| (400..500).contains(&status) && ![408, 409, 425, 429].contains(&status);
        matches!(self, Self::Refused(status, _) if is_no(*status))
    }
}

/// How a client proves who it is.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// It does not.
    #[default]
    None,
    /// User and password.
    Basic(String, String),
    /// A token.
    Bearer(String),
}

/// Without secrets: settings may end up in messages.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic(..) => "Basic(…)",
            Self::Bearer(_) => "Bearer(…)",
        })
    }
}

/// A client of one server.
pub(crate) struct HttpClient {
    agent: Agent,
    base: String,
    authorization: Option<String>,
}

impl HttpClient {
    /// `base` has no slash at its end.
    pub(crate) fn new(base: &str, credentials: &Credentials) -> Self {
        let agent = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .user_agent(concat!("llm-foundry/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        let authorization = match credentials {
            Credentials::None => None,
            Credentials::Basic(user, password) => {
                Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
            }
            Credentials::Bearer(token) => Some(format!("Bearer {token}")),
        };
        Self { agent, base: base.trim_end_matches('/').to_owned(), authorization }
    }

    /// The address that paths are added to.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Asks for `path`.
    pub(crate) fn get(&self, path: &str) -> Result<Value, HttpError> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        answer(request.call())
    }

    /// Sends `body` to `path`.
    pub(crate) fn post(&self, path: &str, body: &str) -> Result<Value, HttpError> {
        let request =
            self.agent.post(format!("{}{path}", self.base)).header("Content-Type", "application/json");
        let request = match &self.authorization {
            Some(authorization) => request.header("Authorization", authorization),
            None => request,
        };
        answer(request.send(body))
    }

    /// Puts a file where a server said that it belongs: a whole address, which needs no further proof.
    pub(crate) fn put(&self, url: &str, content: &[u8]) -> Result<Value, HttpError> {
        answer(self.agent.put(url).send(content))
    }
}

fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value, HttpError> {
    let mut response = result.map_err(|error| HttpError::Unreachable(error.to_string()))?;
    let text =
        response.body_mut().read_to_string().map_err(|error| HttpError::Unreachable(error.to_string()))?;
    let status = response.status().as_u16();
    if !(200..300).contains(&status) {
        let shown: String = text.chars().take(SHOWN).collect();
        return Err(HttpError::Refused(status, shown.trim().to_owned()));
    }
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    // What storage answers to a file is XML or nothing: no matter.
    Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// What is wrong with the address of a server, in words; `None`: nothing.
pub fn wrong_address(address: &str) -> Option<String> {
    let Ok(uri) = address.parse::<ureq::http::Uri>() else { return Some("it is no address".into()) };
    match uri.scheme_str() {
        Some("https") if !cfg!(feature = "tls") => {
            return Some("this program was built without https:// (feature `tls`)".into());
        }
        Some("http" | "https") => {}
        Some(other) => return Some(format!("it begins with {other}://, not with http:// or https://")),
        None => return Some("it does not begin with http:// or https://".into()),
    }
    uri.host().is_none_or(str::is_empty).then(|| "it names no server".into())
}

/// An address without the user that may stand before its host, and that user: name and password.
pub fn apart(address: &str) -> (String, Option<(String, String)>) {
    let (scheme, rest) = address.split_once("://").map_or(("", address), |(scheme, rest)| (scheme, rest));
    let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let Some((user, _)) = host.rsplit_once('@') else { return (address.to_owned(), None) };
    let bare = &rest[user.len() + 1..];
    let bare = if scheme.is_empty() { bare.to_owned() } else { format!("{scheme}://{bare}") };
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    (bare, Some((decoded(name), decoded(password))))
}

/// Undoes [`encoded`]; what is not encoded stays as it is.
fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|two| first == b'%' && two.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An address without the name and password that may stand before the host: for people to read.
pub(crate) fn shown(address: &str) -> String {
    apart(address).0
}

/// A part of an address: all but letters, digits and a few signs is percent-encoded.
pub(crate) fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => (byte as char).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_judged() {
        assert_eq!(wrong_address("https://api.wandb.ai").is_none(), cfg!(feature = "tls"));
        for good in ["http://localhost:5000", "http://[::1]:80/path"] {
            assert_eq!(wrong_address(good), None, "{good}");
        }
        for bad in ["localhost:5000", "ftp://x", "http://", "not an address", "", "/mlruns", "file:///mlruns"]
        {
            assert!(wrong_address(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!(
            "{:?}",
            [Credentials::Basic("api".into(), "s3cret".into()), Credentials::Bearer("s3cret".into())]
        );
        assert!(!shown.contains("s3cret"), "{shown}");
        assert_eq!(super::shown("http://me:s3cret@host:80/a@b"), "http://host:80/a@b");
        assert_eq!(super::shown("https://host/x"), "https://host/x");
    }

    #[test]
    fn users_are_taken_out_of_addresses() {
        let user = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        for (address, bare, expected) in [
            ("http://host:80/a@b", "http://host:80/a@b", None),
            ("http://me:p%40ss%@host:80/x", "http://host:80/x", user("me", "p@ss%")),
            ("https://me@host", "https://host", user("me", "")),
            ("http://a:b@c@host?x=@", "http://host?x=@", user("a", "b@c")),
            ("me:secret@host", "host", user("me", "secret")),
        ] {
            assert_eq!(apart(address), (bare.to_owned(), expected), "{address}");
        }
    }
}
