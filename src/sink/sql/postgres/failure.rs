//! What an error of the driver or the server tells: kind, sentence, hint. Never a value, which some sentences of the server quote.

use std::error::Error as _;

use tokio_postgres::error::DbError;

use super::dialect::quote;
use crate::error::{Error, Kind};
use crate::sink::sql::connection::unreachable;

/// A session that could not be opened.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) error: Error,
    /// It was TLS that failed.
    pub(super) tls: bool,
}

impl From<Error> for Greeting {
    fn from(error: Error) -> Self {
        Self { error, tls: false }
    }
}

/// From an error before the session stood.
pub(super) fn greeting(error: tokio_postgres::Error) -> Greeting {
    if let Some(refusal) = error.as_db_error() {
        return refused(refusal).into();
    }
    // The driver has no kinds, but sentences of its own.
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    if cause.contains("does not support TLS") {
        return Error::new(Kind::Target, "The database server has no TLS")
            .hint("set up TLS there, or allow a connection without with ssl=prefer")
            .into();
    }
    if cause.contains("password missing") {
        return Error::new(Kind::Target, "The database server wants a password, and there is none")
            .hint("put it into the connection string, PGPASSWORD or the file of passwords")
            .into();
    }
    if is_tls(&error) {
        let error = Error::new(Kind::Target, "The database server's TLS could not be trusted or agreed on")
            .hint("name the authority with sslrootcert=..., or choose ssl=require to trust any certificate")
            .caused_by(error);
        return Greeting { error, tls: true };
    }
    match error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>()) {
        Some(cause) => unreachable(cause).into(),
        None => Error::new(Kind::Target, "The database server cannot be reached").caused_by(error).into(),
    }
}

/// Whether there is an error of TLS at the bottom.
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

/// From an error of a connection that is gone.
pub(super) fn lost(cause: &tokio_postgres::Error) -> Error {
    let mut text = cause.to_string();
    if let Some(below) = cause.source() {
        text = format!("{text}: {below}");
    }
    Error::new(Kind::Target, "The connection to the database was lost").hint(AGAIN).caused_by(text)
}

/// From an error that is neither the server's nor the line's.
pub(super) fn nonsense(error: tokio_postgres::Error) -> Error {
    Error::new(Kind::Target, "The database server answers what was not asked")
        .hint("check that it is PostgreSQL")
        .caused_by(error)
}

const AGAIN: &str = "run it again: the database undoes what was not committed";

/// Who speaks to which database, for hints.
#[derive(Debug, Clone)]
pub(super) struct Who {
    pub(super) user: String,
    pub(super) database: String,
}

/// Adds to a refusal for want of a right what gives that right.
pub(super) fn with_grant(error: Error, statement: &str, who: &Who) -> Error {
    if error.get("sqlstate") != Some("42501") {
        return error;
    }
    let cause = error.causes().join(": ");
    let hint = format!("run as the owner or a superuser: {}", grant(statement, &cause, who));
    error.hint(hint)
}

/// The statements that give the right to run `statement`. What the server says names the kind of object, unless it speaks another
/// language; then it is told from the statement.
fn grant(statement: &str, cause: &str, who: &Who) -> String {
    let (user, database) = (quote(&who.user), quote(&who.database));
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

/// The first name of the form `"schema"."name"` in a statement, in its quotes.
fn first_relation(statement: &str) -> Option<&str> {
    let middle = statement.find("\".\"")?;
    let start = statement[..middle].rfind('"')?;
    let end = middle + 3 + statement[middle + 3..].find('"')?;
    statement.get(start..=end)
}

/// What the server says, without values: its sentences of classes 22 (data) and 23 (constraints) quote them.
pub(super) fn refused(refusal: &DbError) -> Error {
    let state = refusal.code().code();
    let class = state.get(..2).unwrap_or_default();
    let (kind, message) = match class {
        "22" | "23" => (Kind::Data, "The database refuses a value"),
        "28" => (Kind::Target, "The database server does not let this user in"),
        "3D" => (Kind::Target, "The server has no such database"),
        "40" | "55" => (Kind::Conflict, "The database gave way to somebody else"),
        _ if state == "25006" => (Kind::Target, "The database is read-only"),
        _ if state == "42501" => (Kind::Target, "The database role lacks a right"),
        "42" => (Kind::Target, "The database refuses a statement"),
        "53" => (Kind::Resources, "The database server has no room"),
        _ if state == "57014" => (Kind::Target, "Somebody stopped a statement in the database"),
        "57" | "08" => (Kind::Target, "The database server ended the connection"),
        _ => (Kind::Target, "The database cannot do it"),
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
    // What depends on a column that is to change, by name.
    if let Some(detail) = refusal.detail().filter(|_| state == "0A000" || state == "2BP01") {
        text = format!("{text}: {detail}");
        error = error.hint("drop what depends on it, run again, and make it anew");
    }
    error = match class {
        "25" if state == "25006" => error.hint(
            "if it is a replica, connect to the primary server; else look for default_transaction_read_only of the role, the \
             database or the server",
        ),
        "3D" => error.hint("make the database first, or correct its name in the connection string"),
        "57" | "08" => error.hint(AGAIN),
        _ => error,
    };
    error.caused_by(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_is_named_with_what_gives_it() {
        let who = Who { user: "etl".into(), database: "my db".into() };
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
            assert_eq!(grant(statement, cause, &who), expected, "{statement}");
        }
    }
}
