//! The Delta log of a table: its state, protocol, columns and statistics, and the actions of a commit. Reads and writes no rows.

pub(crate) mod active_file;
pub(crate) mod columns;
mod damage;
pub(crate) mod file_actions;
pub(crate) mod file_names;
pub(crate) mod foreign_changes;
pub(crate) mod partition_column;
pub(crate) mod properties;
pub(crate) mod protocol;
pub(crate) mod schema_evolution;
pub(crate) mod statistics;
pub(crate) mod system_columns;
pub(crate) mod table_log;
pub(crate) mod table_state;
