//! Addresses that carry a signature in their query: AWS Signature Version 4 ("Authenticating Requests: Using Query
//! Parameters"), as every store that speaks S3 checks it.

use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// How long a signature holds, in seconds: each request has one of its own.
const HOLDS: u64 = 3600;

/// Who asks.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) key: String,
    pub(super) secret: String,
    /// Of temporary keys.
    pub(super) token: Option<String>,
}

/// An object or a listing.
pub(super) struct Request<'a> {
    /// `https` or `http`.
    pub(super) scheme: &'a str,
    pub(super) host: &'a str,
    pub(super) region: &'a str,
    /// From `/` on, as it is.
    pub(super) path: &'a str,
    /// Names and values, as they are.
    pub(super) query: Vec<(String, String)>,
}

impl Request<'_> {
    /// The address, signed where there are credentials; `now` in seconds since 1970.
    pub(super) fn address(mut self, credentials: Option<&Credentials>, now: u64) -> String {
        let path = quoted(self.path, true);
        let Some(Credentials { key, secret, token }) = credentials else {
            let query = self.query_text();
            let mark = if query.is_empty() { "" } else { "?" };
            return format!("{}://{}{path}{mark}{query}", self.scheme, self.host);
        };
        let (day, moment) = stamps(now);
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let mut add = |name: &str, value: String| self.query.push((format!("X-Amz-{name}"), value));
        add("Algorithm", "AWS4-HMAC-SHA256".into());
        add("Credential", format!("{key}/{scope}"));
        add("Date", moment.clone());
        add("Expires", HOLDS.to_string());
        add("SignedHeaders", "host".into());
        if let Some(token) = token {
            add("Security-Token", token.clone());
        }
        let query = self.query_text();
        let canonical = format!("GET\n{path}\n{query}\nhost:{}\n\nhost\nUNSIGNED-PAYLOAD", self.host);
        let hashed = hex(&Sha256::digest(canonical));
        let to_sign = format!("AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashed}");
        let mut signing = hmac(format!("AWS4{secret}").as_bytes(), day.as_bytes());
        for part in [self.region, "s3", "aws4_request"] {
            signing = hmac(&signing, part.as_bytes());
        }
        let signature = hex(&hmac(&signing, to_sign.as_bytes()));
        format!("{}://{}{path}?{query}&X-Amz-Signature={signature}", self.scheme, self.host)
    }

    /// Names and values, quoted and sorted.
    fn query_text(&self) -> String {
        let mut pairs: Vec<String> = self
            .query
            .iter()
            .map(|(name, value)| format!("{}={}", quoted(name, false), quoted(value, false)))
            .collect();
        pairs.sort();
        pairs.join("&")
    }
}

/// RFC 3986: all but unreserved characters as `%XX`; of a path, `/` stays.
fn quoted(text: &str, is_path: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b'/' if is_path => out.push('/'),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// RFC 2104 over SHA-256, whose blocks have 64 bytes.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    match key.len() {
        0..=64 => block[..key.len()].copy_from_slice(key),
        _ => block[..32].copy_from_slice(&Sha256::digest(key)),
    }
    let padded = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `YYYYMMDD` and `YYYYMMDDTHHMMSSZ` (Hinnant, "chrono-Compatible Low-Level Date Algorithms": `civil_from_days`).
fn stamps(now: u64) -> (String, String) {
    let days = now / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let date = format!("{year:04}{month:02}{day:02}");
    let second = now % 86_400;
    let moment = format!("{date}T{:02}{:02}{:02}Z", second / 3600, second / 60 % 60, second % 60);
    (date, moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(stamps(0).1, "19700101T000000Z");
        assert_eq!(stamps(1_369_353_600).1, "20130524T000000Z");
        assert_eq!(stamps(951_782_399).1, "20000228T235959Z");
        assert_eq!(stamps(951_782_400).0, "20000229");
        assert_eq!(stamps(4_102_444_799).1, "20991231T235959Z");
    }

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        let found = hmac(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(hex(&found), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let found = hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(hex(&found), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }

    #[test]
    fn signatures_are_those_of_other_programs() {
        let credentials = Credentials {
            key: "AKIAIOSFODNN7EXAMPLE".into(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            token: None,
        };
        let request = |path, query| Request {
            scheme: "https",
            host: "examplebucket.s3.amazonaws.com",
            region: "us-east-1",
            path,
            query,
        };
        // By Python's hmac and hashlib; the same script gives the signature of Amazon's documentation (aeeed9bb… for a
        // signature that holds a day).
        let signed = request("/test.txt", Vec::new()).address(Some(&credentials), 1_369_353_600);
        assert!(signed.ends_with(SIGNATURE_OF_AN_OBJECT), "{signed}");
        assert!(
            signed.starts_with("https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm="),
            "{signed}"
        );
        let query = vec![("list-type".to_owned(), "2".to_owned()), ("prefix".to_owned(), "a b/ü".to_owned())];
        let own = Credentials { token: Some("a+b/c=".into()), ..credentials };
        let signed = request("/my dir/", query.clone()).address(Some(&own), 1_369_353_600);
        assert!(signed.ends_with(SIGNATURE_OF_A_LISTING), "{signed}");
        let plain = request("/my dir/", query).address(None, 0);
        assert_eq!(
            plain,
            "https://examplebucket.s3.amazonaws.com/my%20dir/?list-type=2&prefix=a%20b%2F%C3%BC"
        );
    }

    const SIGNATURE_OF_AN_OBJECT: &str =
        "X-Amz-Signature=b6853c82ee714d27db80198e4344d53703faf33b6bcce8dbc96a96879a857a22";
    const SIGNATURE_OF_A_LISTING: &str =
        "X-Amz-Signature=b484b867e4e0fda9dd5ed8194a2aaccd0780ef00acbd24fc0c97eaf2266d774d";
}
