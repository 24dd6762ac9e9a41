//! What an error of the driver or the server tells: kind, sentence, hint. Never a value, which some sentences of the server quote.

use std::error::Error as _;

use tokio_postgres::error::DbError;

use crate::error::{Error, Kind};

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
    Error::new(Kind::Target, "The database server cannot be reached").caused_by(error).into()
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

/// What the server says, without values: its sentences of classes 22 (data) and 23 (constraints) quote them.
pub(super) fn refused(refusal: &DbError) -> Error {
    let state = refusal.code().code();
    let class = state.get(..2).unwrap_or_default();
    let (kind, message) = match class {
        "22" | "23" => (Kind::Data, "The database refuses a value"),
        "28" => (Kind::Target, "The database server does not let this user in"),
        "3D" => (Kind::Target, "The server has no such database"),
        "40" | "55" => (Kind::Conflict, "The database gave way to somebody else"),
        "42" => (Kind::Target, "The database refuses a statement"),
        "53" => (Kind::Resources, "The database server has no room"),
        _ if state == "57014" => (Kind::Target, "Somebody stopped a statement in the database"),
        "57" | "08" => (Kind::Target, "The database server ended the connection"),
        _ => (Kind::Target, "The database cannot do it"),
    };
    let mut error = Error::new(kind, message).with("sqlstate", state);
    if kind == Kind::Data {
        let names = [("relation", refusal.table()), ("column", refusal.column()), ("constraint", refusal.constraint())];
        return names.into_iter().fold(error, |error, (name, value)| match value {
            Some(value) => error.with(name, value),
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
        "3D" => error.hint("make the database first, or correct its name in the connection string"),
        "57" | "08" => error.hint(AGAIN),
        _ => error,
    };
    error.caused_by(text)
}
