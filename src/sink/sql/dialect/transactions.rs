//! Transactions, locks, and errors that a repeated load can get past.

use super::statement::{Row, Statement};
use crate::error::Error;

/// How a server runs transactions.
pub(in crate::sink::sql) trait Transactions {
    /// Begins a transaction.
    fn begin(&self) -> Statement {
        Statement::new("BEGIN")
    }

    /// Commits it.
    fn commit(&self) -> Statement {
        Statement::new("COMMIT")
    }

    /// Rolls it back; no error where none is open.
    fn rollback(&self) -> Statement {
        Statement::new("ROLLBACK")
    }

    /// Whether a rollback undoes schema statements. If not, each of them commits what was before it, so they come before the
    /// transaction and can be repeated.
    fn ddl_is_transactional(&self) -> bool;

    /// Waits for the lock `name`, which ends with the transaction or by [`Transactions::unlock`].
    fn lock(&self, name: &str) -> Statement;

    /// Whether the answer to [`Transactions::lock`] says that the lock is held. Always, where a refusal is an error.
    fn is_lock_held(&self, _answer: &[Row]) -> bool {
        true
    }

    /// Takes the lock if it is free: one row, `t`, `f`, `1` or `0`.
    fn try_lock(&self, name: &str) -> Statement;

    /// Releases a lock that belongs to the session. `None`: it ends with the transaction.
    fn unlock(&self, _name: &str) -> Option<Statement> {
        None
    }

    /// Limits the waits of the schema statements that follow: one that waits for a reader blocks all later readers.
    fn begin_definition(&self) -> Vec<Statement> {
        Vec::new()
    }

    /// Removes that limit; what the statements did stays.
    fn end_definition(&self) -> Vec<Statement> {
        Vec::new()
    }

    /// Undoes the schema statements after an error, so that the session can continue. `None`: that is impossible.
    fn undo_definition(&self) -> Option<Vec<Statement>> {
        None
    }

    /// Whether a statement of the user that begins with this keyword, in capitals, may run in a transaction without ending it.
    fn keeps_transaction(&self, keyword: &str) -> bool;

    /// Marks a place in the transaction before a statement of the user.
    fn mark(&self) -> Statement {
        Statement::new("SAVEPOINT daplake_user")
    }

    /// Fails if the transaction has ended since [`Transactions::mark`].
    fn check_mark(&self) -> Statement {
        Statement::new("RELEASE SAVEPOINT daplake_user")
    }

    /// Whether a statement was given up because another session holds a lock.
    fn is_lock_timeout(&self, error: &Error) -> bool;

    /// Whether the server undid the transaction in favour of another one, so that a repeated load may succeed.
    fn is_transient(&self, error: &Error) -> bool;

    /// Whether the server refused a repeated key.
    fn is_duplicate(&self, error: &Error) -> bool;
}
