//! Room on the disk, looked at before anything is computed.

use crate::console::bytes;
use crate::failure::{Failure, Outcome};
use std::path::{Path, PathBuf};

/// Tokenizer, configurations, model card.
pub(crate) const SMALL_FILES: u64 = 8_000_000;

/// The nearest directory above `path` that exists, and the bytes that this user may still write there; `None` where the
/// system does not tell.
pub(crate) fn free(path: &Path) -> Option<(PathBuf, u64)> {
    let absolute = std::path::absolute(path).ok()?;
    let there = absolute.ancestors().find(|path| path.is_dir())?;
    Some((there.to_owned(), fs4::available_space(there).ok()?))
}

/// Refuses what does not fit. `what`: for example "the merged model".
pub(crate) fn check(what: &str, needed: u64, path: &Path) -> Outcome {
    let Some((place, free)) = free(path).filter(|(_, free)| *free < needed) else { return Ok(()) };
    Err(Failure::Input(format!(
        "not enough disk space: {what} needs {}, and {} are free in {}\n  free some, or choose another place with -o",
        bytes(needed),
        bytes(free),
        place.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_both_figures() {
        let room = tempfile::tempdir().expect("a temporary directory");
        let path = room.path().join("not/there/yet");
        let (place, free) = free(&path).expect("the system tells");
        assert!(place == room.path() && free > 0, "{place:?} {free}");
        check("a small thing", 1, &path).expect("fits");
        let Err(Failure::Input(message)) = check("the model", u64::MAX, &path) else { panic!("accepted") };
        assert!(message.contains("the model needs") && message.contains("are free in"), "{message}");
    }
}
