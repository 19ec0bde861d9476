//! What lm_eval takes from Python itself: random numbers, literals, `repr`, regular expressions, string methods.

pub(crate) mod json;
pub(crate) mod literal;
pub(crate) mod random;
pub(crate) mod regex;
pub(crate) mod text;
