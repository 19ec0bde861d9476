//! What must hold of the engine as a whole; one program, so that it is linked once.

mod background;
mod best_model;
mod bigram;
mod checkpoints;
mod decoder;
mod evaluation;
mod optimizers;
mod ranks;
mod schedules;
mod training;
