//! Deterministic pseudorandom values: keys, numbers and texts. Nothing here knows columns or tables.

pub(crate) mod keys;
pub(crate) mod random;
pub(crate) mod text;
pub(crate) mod vocabulary;
