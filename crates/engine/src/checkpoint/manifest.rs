//! `manifest.json`: what a checkpoint consists of.

use super::{Damage, OPTIMIZER, STATE, VALUES};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path};

/// Name of the manifest.
pub const MANIFEST: &str = "manifest.json";

/// Version of the checkpoint format that this program writes and reads.
pub(crate) const FORMAT: u32 = 2;

/// Size and contents of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Length.
    pub bytes: u64,
    /// SHA-256 of the contents, lower-case hexadecimal.
    pub sha256: String,
}

/// Every file of a checkpoint but the manifest itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the format.
    pub format: u32,
    /// Finished steps.
    pub step: u64,
    /// The files, by path relative to the checkpoint, with `/` between parts.
    pub files: BTreeMap<String, FileRecord>,
}

/// Size and SHA-256 of a file.
pub(crate) fn record(path: &Path) -> io::Result<FileRecord> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut bytes = 0;
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => {
                bytes += read as u64;
                hash.update(&piece[..read]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(FileRecord { bytes, sha256 })
}

/// The longest manifest and the longest state that are read: far above what this program writes, far below what would
/// hurt.
const MANIFEST_LIMIT: u64 = 64 << 20;
pub(super) const STATE_LIMIT: u64 = 1 << 30;

/// Reads a file that must not be longer than `limit`: whose it is is not known.
pub(super) fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// Reads the manifest of the checkpoint in `dir` and compares every file with it: first all sizes, then all contents.
pub fn verify(dir: &Path) -> Result<Manifest, Damage> {
    compared(dir, |_| true)
}

/// As [`verify`], for whoever uses the model or adapter alone: files that only a resumed run reads may be damaged or
/// missing, and are not read.
pub fn verify_model(dir: &Path) -> Result<Manifest, Damage> {
    compared(dir, |name| ![OPTIMIZER, VALUES, STATE].contains(&name))
}

fn compared(dir: &Path, counts: impl Fn(&str) -> bool) -> Result<Manifest, Damage> {
    let text = match read_bounded(&dir.join(MANIFEST), MANIFEST_LIMIT) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Damage::NoManifest),
        Err(error) => return Err(unreadable(MANIFEST, &error)),
    };
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| unreadable(MANIFEST, &error))?;
    if manifest.format != FORMAT {
        let reason = format!("format {}, this program reads format {FORMAT}", manifest.format);
        return Err(Damage::Unreadable { file: MANIFEST.into(), reason });
    }
    for (name, expected) in manifest.files.iter().filter(|(name, _)| counts(name)) {
        // A manifest may come from a stranger: it must not make us read outside its directory.
        if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
            let reason = format!("it names the file {name:?} outside of the checkpoint");
            return Err(Damage::Unreadable { file: MANIFEST.into(), reason });
        }
        let found = match std::fs::metadata(dir.join(name)) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(_) => return Err(Damage::Missing { file: name.clone() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Damage::Missing { file: name.clone() });
            }
            Err(error) => return Err(unreadable(name, &error)),
        };
        if found != expected.bytes {
            return Err(Damage::Size { file: name.clone(), expected: expected.bytes, found });
        }
    }
    for (name, expected) in manifest.files.iter().filter(|(name, _)| counts(name)) {
        let found = record(&dir.join(name)).map_err(|error| unreadable(name, &error))?;
        if found != *expected {
            return Err(Damage::Contents { file: name.clone() });
        }
    }
    Ok(manifest)
}

fn unreadable(file: &str, reason: &dyn std::fmt::Display) -> Damage {
    Damage::Unreadable { file: file.into(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_beyond_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_bounded(&path, 5).unwrap(), b"12345");
        let error = read_bounded(&path, 4).unwrap_err().to_string();
        assert!(error.contains("longer than 4 bytes"), "{error}");
    }
}
