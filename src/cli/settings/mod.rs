//! Settings: the file, its schema, and one order of precedence over options and environment.

pub(in crate::cli) mod environment;
pub(in crate::cli) mod paths;
pub(in crate::cli) mod resolve;
pub(in crate::cli) mod settings_file;
pub(in crate::cli) mod settings_schema;
