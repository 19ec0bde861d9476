//! A checkpoint's manifest: what does not describe the directory is damage, never a panic.

use foundry_engine::checkpoint;

use crate::scratch;

/// The input is the manifest of a directory that holds nothing else.
pub(crate) fn run(data: &[u8]) {
    scratch::with_file("manifest.json", data, |path| {
        let dir = path.parent().expect("it lies in a directory");
        let _ = checkpoint::verify(dir);
        let _ = checkpoint::open(dir);
    });
}
