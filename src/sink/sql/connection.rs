//! The seam to the drivers: I/O that knows no SQL of its own.

use std::fmt::Debug;

use arrow::array::RecordBatch;
use async_trait::async_trait;

use super::dialect::Dialect;
use super::statement::{Row, Statement};
use super::values;
use crate::error::{Error, Kind, Result};

/// A server that can be connected to.
#[async_trait]
pub(super) trait Server: Debug + Send + Sync {
    /// The text it understands.
    fn dialect(&self) -> &dyn Dialect;

    /// A new session. Kind `Target` when it cannot be had.
    async fn connect(&self) -> Result<Box<dyn Connection>>;
}

/// One session. Dropping it ends the session, and the server undoes an open transaction.
#[async_trait]
pub(super) trait Connection: Send {
    /// Runs it; rows of the last statement that changed any.
    async fn execute(&mut self, statement: &Statement) -> Result<u64>;

    /// Runs it and takes its rows.
    async fn rows(&mut self, statement: &Statement) -> Result<Vec<Row>>;

    /// Sends all rows of `batch` by the server's bulk path; bytes sent. A refusal by the server may come with the next call.
    async fn copy_in(&mut self, into: &CopyInto, batch: &RecordBatch) -> Result<u64>;

    /// Whether it can be used for something else: no error broke it and no transaction is open.
    fn is_idle(&self) -> bool;

    /// Whether the server still holds an idle session, as far as can be told without asking it.
    async fn is_alive(&mut self) -> bool;
}

/// Why there is no connection to the server, by the system's error.
pub(super) fn unreachable(error: &std::io::Error) -> Error {
    // The resolver has no error kind of its own; on Windows it has numbers.
    let is_unresolved = error.to_string().starts_with("failed to lookup address information")
        || cfg!(windows) && matches!(error.raw_os_error(), Some(11_001..=11_004));
    let found = match is_unresolved {
        true => Error::new(Kind::Target, "Database host not found")
            .hint("check the host in the connection string, and whether this machine can resolve it"),
        false => Error::new(Kind::Target, "The database server cannot be reached"),
    };
    found.caused_by(error.to_string())
}

/// Where a copy goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CopyInto {
    /// Quoted name of the table.
    pub(super) table: String,
    /// Its columns.
    pub(super) columns: Vec<CopyColumn>,
    /// Names of the key columns in the record batch.
    pub(super) keys: Vec<String>,
}

/// A column of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CopyColumn {
    /// Quoted name.
    pub(super) name: String,
    /// Name in the record batch.
    pub(super) source: String,
    /// Type as the server spells it.
    pub(super) sql_type: String,
    /// Words that the type admits, where the connection is to check them.
    pub(super) members: Option<Vec<String>>,
}

impl CopyInto {
    /// The error for a value that cannot be stored: it names column (as in the record batch) and key, not the value.
    pub(super) fn refuse(&self, batch: &RecordBatch, row: usize, column: &str, reason: &'static str) -> Error {
        Error::new(Kind::Data, "A value does not fit its column in the database")
            .with_field("column", column)
            .with_field("key", values::key_words(batch, &self.keys, row))
            .with_field("reason", reason)
            .hint("the table was not changed; report the value to the service's support")
    }
}
