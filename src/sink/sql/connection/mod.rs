//! Sessions with database servers: I/O only, no SQL of its own.

mod copy;
mod string;
#[cfg(any(feature = "mssql", feature = "postgres"))]
mod tls;

use std::fmt::Debug;

use arrow::array::RecordBatch;
use async_trait::async_trait;

pub(super) use self::copy::{BoundColumn, CopyColumn, CopyPlan, CopyTarget, mismatch};
#[cfg(any(feature = "mssql", feature = "mysql"))]
pub(super) use self::string::form_parameters;
#[cfg(feature = "postgres")]
pub(super) use self::string::malformed;
pub(super) use self::string::{ConnectionString, TlsMode};
#[cfg(any(feature = "mssql", feature = "postgres"))]
pub(super) use self::tls::{SystemRoots, TlsSettings, tls_config};
use super::dialect::{Dialect, Row, Statement};
use crate::error::{Error, Kind, Result};

/// A server that can be connected to.
#[async_trait]
pub(super) trait Server: Debug + Send + Sync {
    /// The SQL that it understands.
    fn dialect(&self) -> &dyn Dialect;

    /// Opens a session. Kind `Target` if that fails.
    async fn connect(&self) -> Result<Box<dyn Connection>>;
}

/// What the server returned for one statement.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The rows of all parts of the statement.
    pub(super) rows: Vec<Row>,
    /// Rows changed by the last part that changed any.
    pub(super) changed: u64,
}

/// A session. Dropping it ends the session, and the server undoes an open transaction.
#[async_trait]
pub(super) trait Connection: Send {
    /// Runs a statement.
    async fn ask(&mut self, statement: &Statement) -> Result<Answer>;

    /// Runs statements in order, in as few round trips as the driver allows. Returns the first error; the statements after it have no effect.
    /// A transaction begins with the first statement or before it, and ends with the last one or after it.
    async fn run_all(&mut self, statements: &[Statement]) -> Result<Vec<Answer>> {
        let mut answers = Vec::with_capacity(statements.len());
        for statement in statements {
            answers.push(self.ask(statement).await?);
        }
        Ok(answers)
    }

    /// Runs a statement; returns the rows changed by the last part that changed any.
    async fn execute(&mut self, statement: &Statement) -> Result<u64> {
        Ok(self.ask(statement).await?.changed)
    }

    /// Runs a statement and returns its rows.
    async fn rows(&mut self, statement: &Statement) -> Result<Vec<Row>> {
        Ok(self.ask(statement).await?.rows)
    }

    /// Runs statements like [`Connection::run_all`], and prepares a copy into `target`.
    async fn prepare_copy(&mut self, statements: &[Statement], _target: &CopyTarget) -> Result<()> {
        self.run_all(statements).await.map(drop)
    }

    /// Sends all rows of `batch` by the server's bulk path; returns the bytes sent. A refusal by the server may come with the next call.
    async fn copy_in(&mut self, target: &CopyTarget, batch: &RecordBatch) -> Result<u64>;

    /// Whether the session can be used for something else: no error broke it, and no transaction is open.
    fn is_idle(&self) -> bool;

    /// Whether the server still has an idle session, as far as that is known without much effort.
    async fn is_alive(&mut self) -> bool;
}

/// The error for a server that cannot be reached, from the system's error. Kind `Target`.
pub(super) fn unreachable(error: &std::io::Error) -> Error {
    // The resolver's errors have no kind of their own; on Windows they have numbers.
    let is_unresolved = error.to_string().starts_with("failed to lookup address information")
        || cfg!(windows) && matches!(error.raw_os_error(), Some(11_001..=11_004));
    let unreachable = if is_unresolved {
        Error::new(Kind::Target, "Database host not found")
            .hint("check the host in the connection string, and whether this machine can resolve it")
    } else {
        Error::new(Kind::Target, "The database server cannot be reached")
    };
    unreachable.caused_by(error.to_string())
}
