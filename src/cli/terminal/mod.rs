//! Output for people: tables, marked lines, progress, errors and reports.

pub(in crate::cli) mod console;
pub(in crate::cli) mod output;
pub(in crate::cli) mod progress;
#[cfg(feature = "lake")]
pub(in crate::cli) mod prompt;
pub(in crate::cli) mod report;
