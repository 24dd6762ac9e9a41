//! Statements that define or change what others use. A change that waits for a reader holds up all later readers, so it waits
//! briefly, lets them pass, and tries again; in the end it names who is in the way.

use std::time::Duration;

use super::connection::Connection;
use super::dialect::{Dialect, SqlTable};
use super::statement::Statement;
use crate::error::{Error, Kind, Result};

/// Some 45 seconds in all.
const ATTEMPTS: u32 = 18;
/// Between two attempts, for those who queued behind us.
const PAUSE: Duration = Duration::from_secs(1);
/// The attempt after which people are told.
const TOLD_AT: u32 = 2;

/// Runs statements about `table`. Where definitions belong to the transaction, all are taken back before each new attempt, and
/// after an error the transaction is as it was before them.
pub(super) async fn define(
    connection: &mut dyn Connection,
    dialect: &dyn Dialect,
    table: &SqlTable,
    statements: &[Statement],
) -> Result<()> {
    let together = if dialect.ddl_is_transactional() { statements.len().max(1) } else { 1 };
    for group in statements.chunks(together) {
        let mut attempt = 1;
        while let Err(error) = once(connection, dialect, group).await {
            if !dialect.is_lock_timeout(&error) || dialect.undo_definition().is_none() {
                return Err(error);
            }
            let sessions = holders(connection, dialect, table).await;
            if attempt == ATTEMPTS {
                return Err(waits(error, sessions));
            }
            if attempt == TOLD_AT {
                tracing::warn!(
                    table = %table.table,
                    sessions = sessions.unwrap_or_else(|| "unknown".to_owned()),
                    "A change of the table waits for other sessions that use it"
                );
            }
            attempt += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

async fn once(connection: &mut dyn Connection, dialect: &dyn Dialect, statements: &[Statement]) -> Result<()> {
    run(connection, &dialect.begin_definition()).await?;
    if let Err(error) = run(connection, statements).await {
        if let Some(undo) = dialect.undo_definition()
            && let Err(lost) = run(connection, &undo).await
        {
            tracing::debug!(error = %lost, "The session did not survive an error");
        }
        return Err(error);
    }
    run(connection, &dialect.end_definition()).await
}

async fn run(connection: &mut dyn Connection, statements: &[Statement]) -> Result<()> {
    for statement in statements {
        connection.execute(statement).await?;
    }
    Ok(())
}

async fn holders(connection: &mut dyn Connection, dialect: &dyn Dialect, table: &SqlTable) -> Option<String> {
    let rows = connection.rows(&dialect.lock_holders(table)?).await.ok()?;
    let sessions: Vec<String> = rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    (!sessions.is_empty()).then(|| sessions.join("; "))
}

fn waits(error: Error, sessions: Option<String>) -> Error {
    let cause = error.causes().join(": ");
    let waits = Error::new(Kind::Conflict, "A change of the table waited in vain for other sessions that use it")
        .hint("let them end their transactions, or end these sessions, then run again; until then the table gets no new data");
    let waits = match sessions {
        Some(sessions) => waits.with_field("sessions", sessions),
        None => waits,
    };
    if cause.is_empty() { waits } else { waits.caused_by(cause) }
}
