//! How the program ends when it does not end well.
//!
//! Exit codes: 0 all done; 1 the run failed (disk, network, numbers); 2 wrong input (configuration, data, model,
//! command line), nothing was written; 101 a bug of ours; 130 interrupted, and where to resume.

use crate::config::{ConfigError, Problems};
use foundry_data::DataError;
use foundry_formats::FormatError;
use foundry_models::ModelError;
use std::fmt;
use std::path::Path;

/// Why a command stopped.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The configuration is wrong; shown as snippets.
    Config(Box<Problems>),
    /// Something the user gave is wrong: what, where, and what to do.
    Input(String),
    /// The world is: no space, no network.
    Run(String),
    /// The user said stop; how to go on.
    Interrupted(String),
    /// The reader of our output went away: not worth a word.
    BrokenPipe,
}

/// What commands return.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// Wrong input, in the error's own words.
    pub(crate) fn input(error: impl fmt::Display) -> Self {
        Failure::Input(error.to_string())
    }

    /// A failed run, in the error's own words.
    pub(crate) fn run(error: impl fmt::Display) -> Self {
        Failure::Run(error.to_string())
    }

    /// A file that cannot be read or written: missing or forbidden is the user's, all else the world's.
    pub(crate) fn io(what: &str, path: &Path, error: &std::io::Error) -> Self {
        let message = format!("cannot {what} {}: {error}", path.display());
        if is_users(error.kind()) { Failure::Input(message) } else { Failure::Run(message) }
    }

    /// An error about files: those of the operating system may be the world's, all others are about what is in them.
    pub(crate) fn of_format(error: FormatError) -> Self {
        match &error {
            FormatError::Io { source, .. } if !is_users(source.kind()) => Failure::run(error),
            _ => Failure::input(error),
        }
    }

    /// As [`Failure::of_format`].
    pub(crate) fn of_data(error: DataError) -> Self {
        match error {
            DataError::TokenFile(error) => Failure::of_format(*error),
            DataError::Io { ref source, .. } if !is_users(source.kind()) => Failure::run(error),
            error => Failure::input(error),
        }
    }

    /// As [`Failure::of_format`].
    pub(crate) fn of_model(error: ModelError) -> Self {
        match error {
            ModelError::Format(error) => Failure::of_format(error),
            ModelError::Io { ref source, .. } if !is_users(source.kind()) => Failure::run(error),
            error => Failure::input(error),
        }
    }

    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Config(_) | Failure::Input(_) => 2,
            Failure::Run(_) => 1,
            Failure::Interrupted(_) => 130,
            Failure::BrokenPipe => 0,
        }
    }

    /// Tells the user, on standard error.
    pub(crate) fn report(&self) {
        match self {
            Failure::Config(problems) => {
                let colour = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
                crate::console::tell!("{}", problems.render(colour));
            }
            Failure::Input(message) | Failure::Run(message) => {
                crate::console::tell!("\u{1b}[1;31merror\u{1b}[0m: {message}");
            }
            Failure::Interrupted(message) => {
                crate::console::tell!("\u{1b}[1;33minterrupted\u{1b}[0m: {message}")
            }
            Failure::BrokenPipe => {}
        }
    }
}

/// Missing or forbidden is the user's to mend.
fn is_users(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind::{
        InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem,
    };
    matches!(
        kind,
        NotFound | PermissionDenied | ReadOnlyFilesystem | IsADirectory | NotADirectory | InvalidInput
    )
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Wrong(problems) => Failure::Config(problems),
            ConfigError::Unreadable(name, error) => {
                let near = crate::model_source::neighbour(Path::new(&name));
                let help = match (error.kind(), near) {
                    (std::io::ErrorKind::NotFound, Some(near)) => format!("; did you mean {near}?"),
                    (std::io::ErrorKind::NotFound, None) => "\n  `llm-foundry init` writes one".into(),
                    _ => String::new(),
                };
                Failure::Input(format!("cannot read the configuration {name}: {error}{help}"))
            }
        }
    }
}

/// Errors of standard output: a closed pipe is how `head` says that it has seen enough.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::BrokenPipe,
            _ => Failure::Run(error.to_string()),
        }
    }
}

/// Turns a panic into a short message: a panic that reaches a user is a bug, and should say so.
pub(crate) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        if foundry_formats::panic_is_guarded() {
            return; // it becomes an error with a place and a remedy
        }
        let what = info
            .payload()
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| info.payload().downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".into());
        let place = info.location().map_or_else(String::new, |l| format!(" ({}:{})", l.file(), l.line()));
        crate::console::tell!("llm-foundry: this is a bug: {what}{place}");
        crate::console::tell!(
            "Please report it with the command and the configuration; version {}.",
            env!("CARGO_PKG_VERSION")
        );
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|v| v != "0") {
            crate::console::tell!("{}", std::backtrace::Backtrace::force_capture());
        }
    }));
}
