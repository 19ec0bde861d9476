//! What can be wrong with checkpoints.

use super::Difference;
use crate::error::BoxedError;
use foundry_formats::FormatError;
use std::path::PathBuf;

/// A checkpoint that could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The system refused something while writing; earlier checkpoints are unchanged.
    #[error(
        "{}: cannot {action} ({source}); earlier checkpoints are unchanged: free disk space or correct the \
         permissions, then go on with --resume", path.display()
    )]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },

    /// The model's or the optimiser's file could not be read.
    #[error(transparent)]
    Format(#[from] FormatError),

    /// The thread that finishes checkpoints in the background could not be started.
    #[error("{}: no thread to write it with ({source}); earlier checkpoints are unchanged", path.display())]
    Thread {
        /// The checkpoint's directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// The model could not be saved.
    #[error("{}: the model cannot be saved there: {source}; earlier checkpoints are unchanged", path.display())]
    Model {
        /// Where.
        path: PathBuf,
        /// Why.
        source: BoxedError,
    },

    /// The numbers that a resume needs could not be written.
    #[error("{0}; earlier checkpoints are unchanged: go on from them with --resume")]
    State(#[source] FormatError),

    /// The system refused something while reading.
    #[error("{}: cannot {action} ({source}); check that the path exists and its permissions", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },

    /// A checkpoint does not hold what was written.
    #[error("{}: {damage}; delete this directory, or go on from an earlier checkpoint", path.display())]
    Damaged {
        /// The checkpoint's directory.
        path: PathBuf,
        /// What is wrong.
        damage: Damage,
    },

    /// Checkpoints of an earlier run are in the way of a new one.
    #[error(
        "{}: holds checkpoints of an earlier run (up to step {step}); go on with it (--resume), choose another \
         output_dir, or delete them", output_dir.display()
    )]
    Occupied {
        /// The output directory.
        output_dir: PathBuf,
        /// The latest checkpoint's step.
        step: u64,
    },
}

/// How a checkpoint is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// No manifest: the directory was never finished, or the file was deleted.
    #[error("manifest.json is missing")]
    NoManifest,
    /// The manifest or the state is not what this program writes.
    #[error("{file} cannot be read: {reason}")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
    /// A file is missing.
    #[error("{file} is missing")]
    Missing {
        /// The file.
        file: String,
    },
    /// A file has another length.
    #[error("{file} has {found} bytes, {expected} were written")]
    Size {
        /// The file.
        file: String,
        /// As written.
        expected: u64,
        /// As found.
        found: u64,
    },
    /// A file has other contents.
    #[error("{file} has changed since it was written (SHA-256 differs)")]
    Contents {
        /// The file.
        file: String,
    },
    /// The directory was renamed, or the manifest belongs to another one.
    #[error("the directory is named after step {directory}, its manifest after step {manifest}")]
    Step {
        /// Step in the directory's name.
        directory: u64,
        /// Step in the manifest.
        manifest: u64,
    },
}

/// A sound checkpoint that this run cannot go on from.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// It was written under other settings.
    #[error(
        "{}: was written under other settings, so that going on would be neither run: {}; restore the settings, or \
         start a new run in another output_dir", path.display(), lines(differences)
    )]
    OtherRun {
        /// The checkpoint's directory.
        path: PathBuf,
        /// What differs.
        differences: Vec<Difference>,
    },

    /// The data has no such place as the checkpoint keeps.
    #[error("{}: {source}", path.display())]
    Data {
        /// The checkpoint's directory.
        path: PathBuf,
        /// What does not fit.
        source: Box<foundry_data::DataError>,
    },

    /// The run ends before it.
    #[error(
        "{}: the checkpoint is at step {step}, beyond the run's {total_steps} steps; raise max_steps (or \
         num_train_epochs) or start anew", path.display()
    )]
    Beyond {
        /// The checkpoint's directory.
        path: PathBuf,
        /// Its step.
        step: u64,
        /// Steps of the run that was to go on.
        total_steps: u64,
    },

    /// It holds the model only.
    #[error(
        "{}: was written with save_only_model: true, so the optimiser's state is missing and the run cannot go on from \
         it; start anew from its model (lora.adapter or model.name_or_path)", path.display()
    )]
    ModelOnly {
        /// The checkpoint's directory.
        path: PathBuf,
    },

    /// Its tensors are not those of this model and optimiser.
    #[error("{}: {problem}; the model or its tuning differs from that of the checkpoint", path.display())]
    OtherTensors {
        /// The file.
        path: PathBuf,
        /// Which tensor, and how it differs.
        problem: String,
    },
}

fn lines(differences: &[Difference]) -> String {
    differences.iter().map(Difference::to_string).collect::<Vec<_>>().join("; ")
}
