//! How many rows a stream has, kept from one run to the next: counting them reads everything.

use crate::cache_dir::cache_dir;
use crate::config::DataSection;
use crate::corpus::Stream;
use crate::failure::Outcome;
use crate::output_dir::write_whole;
use crate::stream_facts::{hex, stream_facts};
use foundry_data::PackedRow;
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// Where the count of a stream is kept.
pub(crate) struct RowCount {
    path: PathBuf,
}

impl RowCount {
    /// The place for a stream, by all that decides over its rows.
    pub(crate) fn of(data: &DataSection, seed: u64, stream: &Stream, first: &[PackedRow]) -> Outcome<Self> {
        let mut hash = Sha256::new();
        // Another version may make other rows of the same data.
        hash.update(env!("CARGO_PKG_VERSION"));
        for (key, value) in stream_facts(data, stream, first)? {
            hash.update(format!("{key}={value}\n"));
        }
        hash.update(format!("{seed} {} {:?}", stream.spec.order_seed, data.on_error));
        let name = format!("{}.txt", hex(&hash.finalize()));
        Ok(Self { path: cache_dir(&|variable| std::env::var(variable).ok()).join("rows").join(name) })
    }

    /// The count, if it is known.
    pub(crate) fn read(&self) -> Option<u64> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        text.trim().parse().ok().filter(|rows| *rows > 0)
    }

    /// Keeps it. Where that cannot be done, the next run counts again.
    pub(crate) fn write(&self, rows: u64) {
        let Some(dir) = self.path.parent() else { return };
        if std::fs::create_dir_all(dir).is_ok() {
            let _ = write_whole(&self.path, &format!("{rows}\n"));
        }
    }
}
