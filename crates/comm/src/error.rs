//! What can go wrong between ranks.

/// A collective that could not be finished.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommError {
    /// Another rank ended (an error, a panic) while this one waited for it.
    #[error(
        "rank {rank} of {world_size} waited for another rank that has ended; \
         look for the first error among the other ranks, it is the cause"
    )]
    RankLeft {
        /// The rank that waited.
        rank: usize,
        /// Ranks at the start.
        world_size: usize,
    },

    /// Ranks entered one collective with different lengths: they no longer run the same program.
    #[error(
        "rank {rank} brought {own} numbers to a sum and rank {other_rank} brought {other}; \
         all ranks must run the same configuration on the same model"
    )]
    LengthMismatch {
        /// The rank that noticed.
        rank: usize,
        /// Its length.
        own: usize,
        /// The rank that differs.
        other_rank: usize,
        /// The length there.
        other: usize,
    },

    /// Ranks entered one collective with numbers of different precision: they no longer run the same program.
    #[error(
        "rank {rank} brought {own} numbers to a sum and rank {other_rank} brought {other}; \
         all ranks must make the same calls in the same order (run the same version and configuration)"
    )]
    PrecisionMismatch {
        /// The rank that noticed.
        rank: usize,
        /// Its precision.
        own: &'static str,
        /// The rank that differs.
        other_rank: usize,
        /// The precision there.
        other: &'static str,
    },
}
