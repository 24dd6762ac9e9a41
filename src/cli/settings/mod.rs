//! Settings: the file, its schema, the template of `init`, and the order of precedence over options and environment.

pub(in crate::cli) mod credential_command;
pub(in crate::cli) mod environment;
pub(in crate::cli) mod file;
pub(in crate::cli) mod paths;
pub(in crate::cli) mod resolve;
pub(in crate::cli) mod schema;
#[cfg(feature = "lake")]
pub(in crate::cli) mod template;
