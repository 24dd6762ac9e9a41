//! Parsers for the values of options: choices, sizes, durations, times, limits of calls.

pub(in crate::cli) mod bytes;
pub(in crate::cli) mod choices;
pub(in crate::cli) mod duration;
#[cfg(feature = "lake")]
pub(in crate::cli) mod memory;
pub(in crate::cli) mod moment;
pub(in crate::cli) mod pacing;
