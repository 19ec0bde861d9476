//! Identities of runs: eight letters and digits, as Weights & Biases' own client draws them.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::SystemTime;

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// A new identity: the standard library's hashing keys are the system's random numbers.
pub(crate) fn fresh() -> String {
    let mut hasher = RandomState::new().build_hasher();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    hasher.write_u128(now.as_nanos());
    let mut number = hasher.finish();
    let mut letter = || {
        let index = number % 36;
        number /= 36;
        ALPHABET[index as usize] as char
    };
    (0..8).map(|_| letter()).collect()
}

#[cfg(test)]
mod tests {
    use super::fresh;

    #[test]
    fn identities_differ() {
        let ids: std::collections::BTreeSet<String> = (0..100).map(|_| fresh()).collect();
        assert_eq!(ids.len(), 100);
        assert!(ids.iter().all(|id| id.len() == 8 && id.bytes().all(|b| b.is_ascii_alphanumeric())));
    }
}
