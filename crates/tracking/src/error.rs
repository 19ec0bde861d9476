//! What can go wrong with a tracker.

use std::io;
use std::path::{Path, PathBuf};

/// Why a tracker cannot begin or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrackingError {
    /// The file system refused.
    #[error("{}: cannot {action} ({source}); check disk space and permissions", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },

    /// A file that should go on is not what it was.
    #[error("{}: {what}, so it cannot be continued; move it away, or start a new run", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },

    /// The address of a server is none.
    #[error("the address `{address}` of the server cannot be used: {what}")]
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        what: String,
    },

    /// The system starts no thread.
    #[error("cannot start a thread ({0})")]
    Thread(io::Error),
}

impl TrackingError {
    /// For `map_err`: what was tried with which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }
}
