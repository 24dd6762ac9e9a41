//! Headings of groups of options in help texts, in the order in which `--help` shows them.

#[cfg(feature = "lake")]
pub(in crate::cli) const TARGET: &str = "Target";

#[cfg(feature = "lake")]
pub(in crate::cli) const TABLES: &str = "Tables";

#[cfg(feature = "lake")]
pub(in crate::cli) const COLUMNS: &str = "Columns and privacy";

#[cfg(feature = "lake")]
pub(in crate::cli) const LAKE: &str = "Lake tables";

#[cfg(feature = "lake")]
pub(in crate::cli) const CATALOG: &str = "Catalog";

#[cfg(feature = "lake")]
pub(in crate::cli) const DATABASES: &str = "Databases";

#[cfg(feature = "lake")]
pub(in crate::cli) const DOWNLOAD: &str = "Download";

#[cfg(feature = "lake")]
pub(in crate::cli) const SCHEDULE: &str = "Schedule";

#[cfg(feature = "lake")]
pub(in crate::cli) const NOTIFICATIONS: &str = "Notifications";

#[cfg(feature = "lake")]
pub(in crate::cli) const LIMITS: &str = "Limits";

#[cfg(feature = "cluster")]
pub(in crate::cli) const CLUSTER: &str = "Cluster";

#[cfg(feature = "lake")]
pub(in crate::cli) const OUTPUT: &str = "Output";

pub(in crate::cli) const EXTRAS: &str = "Options that the official client does not have";

pub(in crate::cli) const GLOBAL: &str = "Global options (before or after the command)";
