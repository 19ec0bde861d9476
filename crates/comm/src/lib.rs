//! Collectives between ranks behind one small trait.
