//! The commands: what each does with its resolved settings.

#[cfg(feature = "lake")]
pub(in crate::cli) mod check;
#[cfg(feature = "cluster")]
pub(in crate::cli) mod cluster;
pub(in crate::cli) mod completions;
pub(in crate::cli) mod context;
#[cfg(feature = "sql")]
pub(in crate::cli) mod database;
#[cfg(feature = "demo")]
pub(in crate::cli) mod demo;
pub(in crate::cli) mod downloads;
pub(in crate::cli) mod drop_in;
#[cfg(feature = "lake")]
pub(in crate::cli) mod init;
#[cfg(feature = "lake")]
pub(in crate::cli) mod maintenance;
#[cfg(feature = "lake")]
pub(in crate::cli) mod query;
#[cfg(feature = "lake")]
pub(in crate::cli) mod schedule;
pub(in crate::cli) mod schema;
#[cfg(feature = "lake")]
pub(in crate::cli) mod status;
#[cfg(feature = "lake")]
pub(in crate::cli) mod sync;
