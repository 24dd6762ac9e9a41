//! Settings: the file, its schema, and one order of precedence over options and environment.

#[cfg(feature = "lake")]
pub(in crate::cli) mod memory;
pub(in crate::cli) mod resolve;
pub(in crate::cli) mod settings_file;
pub(in crate::cli) mod settings_schema;
