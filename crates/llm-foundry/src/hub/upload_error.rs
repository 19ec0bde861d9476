//! Why an upload fails. Each says what to do.

use std::path::PathBuf;

/// Why nothing was pushed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PushError {
    #[error("HF_HUB_OFFLINE forbids the network; unset it to push")]
    Offline,
    #[error(
        "no token for {endpoint}: set HF_TOKEN to an access token that may write (the site has them under Settings, Access \
         Tokens), or write it into the file that HF_TOKEN_PATH names"
    )]
    NoToken { endpoint: String },
    #[error(
        "{endpoint} does not let this token {what} ({status}: {said}); check that the token may write, and that the \
         repository's name begins with your user name or an organisation of yours"
    )]
    Unauthorized { what: String, endpoint: String, status: u16, said: String },
    #[error(
        "{repo} is there already and everybody can read it; make it private on the hub's site, name another repository, or \
         leave out --private"
    )]
    Public { repo: String },
    #[error("the hub refuses to {what} ({status}: {said}); nothing was committed")]
    Refused { what: String, status: u16, said: String },
    #[error(
        "cannot {what}: no answer from {endpoint} ({cause}); nothing was committed: run the command again, files that \
             are there already are not sent twice"
    )]
    Network { what: String, endpoint: String, cause: String },
    #[error("cannot {what}: the hub's answer makes no sense: {why}; nothing was committed")]
    Nonsense { what: String, why: String },
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
}

impl PushError {
    /// The world's fault (exit code 1), not the input's (2).
    pub(crate) fn is_of_the_world(&self) -> bool {
        match self {
            PushError::Network { .. } | PushError::Nonsense { .. } => true,
            PushError::Refused { status, .. } => *status >= 429,
            PushError::File { .. } | PushError::Offline | PushError::NoToken { .. } => false,
            PushError::Unauthorized { .. } | PushError::Public { .. } => false,
        }
    }

    /// Fills in what was being done.
    pub(super) fn while_doing(self, doing: &str) -> Self {
        match self {
            PushError::Network { endpoint, cause, .. } => {
                PushError::Network { what: doing.to_owned(), endpoint, cause }
            }
            other => other,
        }
    }
}
