//! Faults: what can go wrong, the names for the command line, the active ones, and damaged result files.

pub(crate) mod active;
pub(crate) mod catalogue;
pub(crate) mod damage;
pub(crate) mod fault;
