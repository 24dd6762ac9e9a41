//! Errors of the driver and the server as [`Error`]s. Some messages of the server quote values, which an error never shows.

use std::error::Error as _;

use tokio_postgres::error::DbError;

use super::names::quote;
use crate::error::{Error, Kind};
use crate::sink::sql::connection::unreachable;

/// A session that could not be opened.
#[derive(Debug)]
pub(super) struct ConnectFailure {
    pub(super) error: Error,
    /// TLS failed.
    pub(super) tls: bool,
}

impl From<Error> for ConnectFailure {
    fn from(error: Error) -> Self {
        Self { error, tls: false }
    }
}

/// An error while a session was being opened.
pub(super) fn connecting(error: tokio_postgres::Error) -> ConnectFailure {
    if let Some(refusal) = error.as_db_error() {
        return refused(refusal).into();
    }
    // The driver's errors have messages but no kinds.
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    if cause.contains("does not support TLS") {
        return Error::new(Kind::Target, "The database server does not offer TLS")
            .hint("set up TLS on the server, or allow connections without it with ssl=prefer")
            .into();
    }
    if cause.contains("password missing") {
        return Error::new(Kind::Target, "The database server requires a password, but none was given")
            .hint("add it to the connection string, set PGPASSWORD, or use a password file")
            .into();
    }
    if is_tls(&error) {
        let error = Error::new(Kind::Target, "The TLS connection to the database server failed")
            .hint("name a trusted authority with sslrootcert=FILE, or use ssl=require to accept any certificate")
            .caused_by(error);
        return ConnectFailure { error, tls: true };
    }
    match error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>()) {
        Some(cause) => unreachable(cause).into(),
        None => Error::new(Kind::Target, "The database server cannot be reached").caused_by(error).into(),
    }
}

/// Whether the cause is an error of TLS.
fn is_tls(error: &tokio_postgres::Error) -> bool {
    let mut next = error.source();
    while let Some(cause) = next {
        let payload = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if cause.is::<rustls::Error>() || payload.is_some_and(|payload| payload.is::<rustls::Error>()) {
            return true;
        }
        next = cause.source();
    }
    false
}

/// An error of a lost connection.
pub(super) fn lost(cause: &tokio_postgres::Error) -> Error {
    let mut text = cause.to_string();
    if let Some(below) = cause.source() {
        text = format!("{text}: {below}");
    }
    Error::new(Kind::Target, "The connection to the database was lost").hint(AGAIN).caused_by(text)
}

/// An error that is neither the server's nor the connection's.
pub(super) fn unexpected(error: tokio_postgres::Error) -> Error {
    Error::new(Kind::Target, "The database server sent an unexpected answer")
        .hint("check that it is PostgreSQL")
        .caused_by(error)
}

const AGAIN: &str = "run again; the database rolls back what was not committed";

/// The user and database of a session, for hints.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) user: String,
    pub(super) database: String,
}

/// `lock_not_available`: the wait for a lock reached the limit of the session.
const LOCK_TIMEOUT: &str = "55P03";
/// Serialization failure, deadlock, lock timeout.
const TRANSIENT: [&str; 3] = ["40001", "40P01", LOCK_TIMEOUT];
/// `unique_violation`.
const DUPLICATE: &str = "23505";

/// See [`Transactions::is_lock_timeout`](crate::sink::sql::dialect::Transactions::is_lock_timeout).
pub(super) fn is_lock_timeout(error: &Error) -> bool {
    error.get("sqlstate") == Some(LOCK_TIMEOUT)
}

/// See [`Transactions::is_transient`](crate::sink::sql::dialect::Transactions::is_transient).
pub(super) fn is_transient(error: &Error) -> bool {
    error.get("sqlstate").is_some_and(|state| TRANSIENT.contains(&state))
}

/// See [`Transactions::is_duplicate`](crate::sink::sql::dialect::Transactions::is_duplicate).
pub(super) fn is_duplicate(error: &Error) -> bool {
    error.get("sqlstate") == Some(DUPLICATE)
}

/// Adds to the error about a missing privilege the statement that grants it.
pub(super) fn with_grant(error: Error, statement: &str, identity: &Identity) -> Error {
    if error.get("sqlstate") != Some("42501") {
        return error;
    }
    let cause = error.causes().join(": ");
    let hint = format!("run as the owner or a superuser: {}", grant(statement, &cause, identity));
    error.hint(hint)
}

/// The statements that grant what `statement` needs. The server's message names the kind of object, unless it is in another language; then
/// the statement decides.
fn grant(statement: &str, cause: &str, identity: &Identity) -> String {
    let (user, database) = (quote(&identity.user), quote(&identity.database));
    let relation = first_relation(statement);
    let schema = relation.and_then(|relation| Some(relation.split_once("\".\"")?.0)).map(|schema| format!("{schema}\""));
    let in_schema = |schema: &str| {
        format!(
            "GRANT USAGE, CREATE ON SCHEMA {schema} TO {user}; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {user}"
        )
    };
    let text = statement.trim_start();
    if text.contains("CREATE SCHEMA") || cause.contains("for database") {
        return format!("GRANT CREATE ON DATABASE {database} TO {user}");
    }
    if text.starts_with("CREATE TEMPORARY") || cause.contains("temporary tables") {
        return format!("GRANT TEMPORARY ON DATABASE {database} TO {user}");
    }
    let changes = ["ALTER ", "DROP ", "COMMENT "].iter().any(|word| text.starts_with(word)) || text.contains("ALTER TABLE");
    match (relation, schema) {
        (Some(relation), _) if cause.contains("owner of") || changes && !cause.contains("for schema") => {
            let kind = if text.starts_with("ALTER TYPE") { "TYPE" } else { "TABLE" };
            format!("ALTER {kind} {relation} OWNER TO {user}")
        }
        (_, Some(schema)) => in_schema(&schema),
        _ => format!("GRANT CREATE, TEMPORARY ON DATABASE {database} TO {user}"),
    }
}

/// The first name of the form `"schema"."name"` in a statement, with its quotes.
fn first_relation(statement: &str) -> Option<&str> {
    let middle = statement.find("\".\"")?;
    let start = statement[..middle].rfind('"')?;
    let end = middle + 3 + statement[middle + 3..].find('"')?;
    statement.get(start..=end)
}

/// An error of the server. Its messages of classes 22 (data) and 23 (constraints) quote values and are left out.
pub(super) fn refused(refusal: &DbError) -> Error {
    let state = refusal.code().code();
    let class = state.get(..2).unwrap_or_default();
    let (kind, message) = match class {
        "22" | "23" => (Kind::Data, "The database refused a value"),
        "28" => (Kind::Target, "The database server refused the login"),
        "3D" => (Kind::Target, "The database does not exist on the server"),
        "40" | "55" => (Kind::Conflict, "The database rolled the load back in favour of another transaction"),
        _ if state == "25006" => (Kind::Target, "The database is read-only"),
        _ if state == "42501" => (Kind::Target, "The database role lacks a privilege"),
        "42" => (Kind::Target, "The database refused a statement"),
        "53" => (Kind::Resources, "The database server is out of space or connections"),
        _ if state == "57014" => (Kind::Target, "A statement was cancelled in the database"),
        "57" | "08" => (Kind::Target, "The database server ended the connection"),
        _ => (Kind::Target, "The database reported an error"),
    };
    let mut error = Error::new(kind, message).with_field("sqlstate", state);
    if kind == Kind::Data {
        let names = [("relation", refusal.table()), ("column", refusal.column()), ("constraint", refusal.constraint())];
        return names.into_iter().fold(error, |error, (name, value)| match value {
            Some(value) => error.with_field(name, value),
            None => error,
        });
    }
    let mut text = refusal.message().to_owned();
    // The dependent object of a column that is to change, by name.
    if let Some(detail) = refusal.detail().filter(|_| state == "0A000" || state == "2BP01") {
        text = format!("{text}: {detail}");
        error = error.hint("drop the dependent object, run again, and recreate it");
    }
    error = match class {
        "25" if state == "25006" => error.hint(
            "if it is a replica, connect to the primary; otherwise check default_transaction_read_only of the role, the \
             database and the server",
        ),
        "3D" => error.hint("create the database, or correct its name in the connection string"),
        "54" if state == "54011" => {
            error.hint("leave columns out with --drop-column, or list those that you need with --column")
        }
        "57" | "08" => error.hint(AGAIN),
        _ => error,
    };
    error.caused_by(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_privilege_is_named_with_its_grant() {
        let identity = Identity { user: "etl".into(), database: "my db".into() };
        for (statement, cause, expected) in [
            ("DO $do$ BEGIN CREATE SCHEMA \"canvas\"; END $do$", "", "GRANT CREATE ON DATABASE \"my db\" TO \"etl\""),
            ("CREATE TEMPORARY TABLE \"daplake_stage\" ()", "", "GRANT TEMPORARY ON DATABASE \"my db\" TO \"etl\""),
            (
                "CREATE TABLE \"canvas\".\"users\" (\"id\" bigint)",
                "permission denied for schema canvas",
                "GRANT USAGE, CREATE ON SCHEMA \"canvas\" TO \"etl\"; \
                 GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA \"canvas\" TO \"etl\"",
            ),
            (
                "ALTER TABLE \"canvas\".\"users\" ADD COLUMN \"x\" text",
                "must be owner of table users",
                "ALTER TABLE \"canvas\".\"users\" OWNER TO \"etl\"",
            ),
            (
                "ALTER TYPE \"canvas\".\"t__c\" ADD VALUE 'x'",
                "muss Eigentümer sein",
                "ALTER TYPE \"canvas\".\"t__c\" OWNER TO \"etl\"",
            ),
            (
                "SELECT 1 FROM \"instructure_dap\".\"table_sync\"",
                "permission denied for table table_sync",
                "GRANT USAGE, CREATE ON SCHEMA \"instructure_dap\" TO \"etl\"; \
                 GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA \"instructure_dap\" TO \"etl\"",
            ),
        ] {
            assert_eq!(grant(statement, cause, &identity), expected, "{statement}");
        }
    }
}
