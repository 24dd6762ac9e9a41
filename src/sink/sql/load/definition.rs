//! Schema statements about objects that others may use. A change that waits for a reader blocks all later readers, so it waits only briefly,
//! lets them pass, and tries again. The final error names the blocking sessions.

use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::sink::sql::connection::Connection;
use crate::sink::sql::dialect::{Dialect, SqlTable, Statement};

/// About 45 seconds in all.
const ATTEMPTS: u32 = 18;
/// Between two attempts, for the sessions that queued behind the change.
const PAUSE: Duration = Duration::from_secs(1);
/// The attempt after which a warning is logged.
const WARNING_ATTEMPT: u32 = 2;

/// Runs statements about `table`. Where schema statements belong to the transaction, all of them are undone before each new attempt, and
/// after an error the transaction is as it was before them.
pub(in crate::sink::sql) async fn define(
    connection: &mut dyn Connection,
    dialect: &dyn Dialect,
    table: &SqlTable,
    statements: &[Statement],
) -> Result<()> {
    let together = if dialect.ddl_is_transactional() { statements.len().max(1) } else { 1 };
    for group in statements.chunks(together) {
        let mut attempts = Attempts::default();
        while let Err(error) = define_once(connection, dialect, group).await {
            attempts.wait_after(error, connection, dialect, table).await?;
        }
    }
    Ok(())
}

/// Attempts at a schema change that undoes itself after an error.
#[derive(Default)]
pub(super) struct Attempts {
    failed: u32,
}

impl Attempts {
    /// Waits until the next attempt. Returns `error` if it is not about locks of other sessions, and names those sessions if this was the
    /// last attempt.
    pub(super) async fn wait_after(
        &mut self,
        error: Error,
        connection: &mut dyn Connection,
        dialect: &dyn Dialect,
        table: &SqlTable,
    ) -> Result<()> {
        if !dialect.is_lock_timeout(&error) || dialect.undo_definition().is_none() {
            return Err(error);
        }
        self.failed += 1;
        let sessions = lock_holders(connection, dialect, table).await;
        if self.failed == ATTEMPTS {
            return Err(blocked(error, sessions));
        }
        if self.failed == WARNING_ATTEMPT {
            tracing::warn!(
                table = %table.table,
                sessions = sessions.unwrap_or_else(|| "unknown".to_owned()),
                "A schema change waits for other sessions that use the table"
            );
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}

async fn define_once(connection: &mut dyn Connection, dialect: &dyn Dialect, statements: &[Statement]) -> Result<()> {
    let statements = [&dialect.begin_definition(), statements, &dialect.end_definition()].concat();
    if let Err(error) = run(connection, &statements).await {
        undo(connection, dialect).await;
        return Err(error);
    }
    Ok(())
}

/// Undoes the schema statements since the beginning of a definition.
pub(super) async fn undo(connection: &mut dyn Connection, dialect: &dyn Dialect) {
    if let Some(undo) = dialect.undo_definition()
        && let Err(lost) = run(connection, &undo).await
    {
        tracing::debug!(error = %lost, "The session did not survive an error");
    }
}

pub(super) async fn run(connection: &mut dyn Connection, statements: &[Statement]) -> Result<()> {
    connection.run_all(statements).await.map(drop)
}

async fn lock_holders(connection: &mut dyn Connection, dialect: &dyn Dialect, table: &SqlTable) -> Option<String> {
    let rows = connection.rows(&dialect.lock_holders(table)?).await.ok()?;
    let sessions: Vec<String> = rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    (!sessions.is_empty()).then(|| sessions.join("; "))
}

fn blocked(error: Error, sessions: Option<String>) -> Error {
    let cause = error.causes().join(": ");
    let mut blocked = Error::new(Kind::Conflict, "A schema change was blocked by other sessions that use the table")
        .hint("end their transactions or the sessions, then run again; until then the table gets no new data");
    if let Some(sessions) = sessions {
        blocked = blocked.with_field("sessions", sessions);
    }
    if cause.is_empty() { blocked } else { blocked.caused_by(cause) }
}
