//! Evaluation engine behind a three-method model trait.
