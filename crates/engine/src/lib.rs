//! The training loop: steps, optimisers, schedules, objectives, callbacks, checkpoints.
