//! The Delta log of a table: its state, its protocol, its columns, and names of its files.

pub(in crate::sink::delta) mod columns;
pub(in crate::sink::delta) mod file_names;
pub(in crate::sink::delta) mod foreign_changes;
pub(in crate::sink::delta) mod protocol;
pub(in crate::sink::delta) mod schema_evolution;
pub(in crate::sink::delta) mod statistics;
pub(in crate::sink::delta) mod system_columns;
pub(in crate::sink::delta) mod table_log;
