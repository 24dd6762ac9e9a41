//! The commands: what each does with its resolved settings.

#[cfg(feature = "cluster")]
pub(in crate::cli) mod cluster;
pub(in crate::cli) mod completions;
#[cfg(feature = "sql")]
pub(in crate::cli) mod database;
#[cfg(feature = "demo")]
pub(in crate::cli) mod demo;
pub(in crate::cli) mod downloads;
pub(in crate::cli) mod erd;
#[cfg(feature = "lake")]
pub(in crate::cli) mod init_and_check;
#[cfg(feature = "lake")]
pub(in crate::cli) mod maintenance;
#[cfg(feature = "lake")]
#[cfg(feature = "prompt")]
pub(in crate::cli) mod prompt;
#[cfg(feature = "lake")]
pub(in crate::cli) mod query;
#[cfg(feature = "lake")]
pub(in crate::cli) mod sql_completion;
#[cfg(feature = "lake")]
pub(in crate::cli) mod sync;
