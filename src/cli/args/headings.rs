//! Headings of groups of options in help texts.

pub(in crate::cli) const GLOBAL: &str = "Global options (before or after the command)";

pub(in crate::cli) const EXTRAS: &str = "Options beyond those of the official client";

#[cfg(feature = "lake")]
pub(in crate::cli) const TABLES: &str = "Options for single tables";

#[cfg(feature = "cluster")]
pub(in crate::cli) const CLUSTER: &str = "Options for a cluster";
