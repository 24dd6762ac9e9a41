//! Errors of the driver and the server as [`Error`]s. Messages of the server about data quote values, which an error never shows.

use crate::error::{Error, Kind};

/// Number of the messages that the dialect raises.
const RAISED: u32 = 50_000;
/// The message if the server does not grant a lock, for example because the session is the victim of a deadlock.
pub(super) const LOCK_REFUSED: &str = "The lock of the table was refused";
/// Beginning of the message about a string that loses characters; column, `|` and key follow.
pub(super) const LOST_CHARACTERS_PREFIX: &str = "daplake: lost characters: ";

/// An error of the driver.
pub(super) fn from_driver(error: tiberius::error::Error) -> Error {
    match error {
        tiberius::error::Error::Server(error) => server_error(error.code(), error.message()),
        tiberius::error::Error::Io { message, .. } => lost(message),
        tiberius::error::Error::Tls(message) => {
            // The rest is advice for the programmer.
            untrusted(message.split(" To connect anyway").next().unwrap_or_default().to_owned())
        }
        tiberius::error::Error::BulkInput(_) => {
            // Its message contains lengths only.
            Error::new(Kind::Data, "A value does not fit its column in the database").caused_by(error.to_string())
        }
        other => Error::new(Kind::Target, "The database server sent an unexpected answer")
            .hint("check that it is SQL Server, and that it offers TLS unless you use ssl=disable")
            .caused_by(other.to_string()),
    }
}

pub(super) fn lost(cause: String) -> Error {
    Error::new(Kind::Target, "The connection to the database was lost")
        .hint("the table was not changed; run the command again")
        .caused_by(cause)
}

pub(super) fn untrusted(cause: String) -> Error {
    Error::new(Kind::Target, "The TLS connection to the database server failed")
        .hint(
            "name a trusted authority with sslrootcert=FILE, the certificate's name with hostNameInCertificate=NAME, or use \
             ssl=require to accept any certificate",
        )
        .caused_by(cause)
}

/// No more locks, deadlock, lock timeout, and conflicts of transactions that read snapshots.
const TRANSIENT: [u32; 5] = [1204, 1205, LOCK_TIMEOUT, 3960, 3961];
/// The wait for a lock reached the limit of the session.
const LOCK_TIMEOUT: u32 = 1222;
/// Repeated keys: while an index is made, in a unique index, in a constraint.
const DUPLICATES: [u32; 3] = [1505, 2601, 2627];

fn number_of(error: &Error) -> Option<u32> {
    error.get("number")?.parse().ok()
}

/// See [`Transactions::is_lock_timeout`](crate::sink::sql::dialect::Transactions::is_lock_timeout).
pub(super) fn is_lock_timeout(error: &Error) -> bool {
    number_of(error) == Some(LOCK_TIMEOUT)
}

/// See [`Transactions::is_transient`](crate::sink::sql::dialect::Transactions::is_transient). Any error ends the transaction here, so that
/// also a lock timeout needs another load.
pub(super) fn is_transient(error: &Error) -> bool {
    let is_refusal = error.kind() == Kind::Conflict && number_of(error) == Some(RAISED);
    is_refusal || number_of(error).is_some_and(|number| TRANSIENT.contains(&number))
}

/// See [`Transactions::is_duplicate`](crate::sink::sql::dialect::Transactions::is_duplicate).
pub(super) fn is_duplicate(error: &Error) -> bool {
    number_of(error).is_some_and(|number| DUPLICATES.contains(&number))
}

/// Numbers of the server's messages that quote values.
const ABOUT_VALUES: &[u32] = &[
    206, 210, 220, 232, 235, 237, 241, 242, 244, 245, 248, 257, 260, 293, 295, 402, 409, 515, 517, 529, 535, 547, 1505, 1508,
    1946, 2601, 2627, 2628, 3602, 3606, 3607, 4815, 4819, 4863, 4864, 4867, 4879, 7339, 8114, 8115, 8134, 8152, 8169, 9803,
    9807, 9819, 9833,
];

fn server_error(number: u32, text: &str) -> Error {
    if number == RAISED && text == LOCK_REFUSED {
        return Error::new(Kind::Conflict, "The database server did not grant a lock")
            .with_field("number", number)
            .hint("another run may hold it; run again when it has ended");
    }
    if number == RAISED
        && let Some(rest) = text.strip_prefix(LOST_CHARACTERS_PREFIX)
    {
        let (column, key) = rest.split_once('|').unwrap_or((rest, ""));
        return Error::new(Kind::Data, "A string has characters that the database's collation cannot hold")
            .with_field("column", column)
            .with_field("key", key)
            .hint("use a database whose collation ends with _UTF8; the table was not changed");
    }
    let (kind, message) = match number {
        _ if ABOUT_VALUES.contains(&number) => (Kind::Data, "The database refused a value"),
        18_450..=18_490 | 4060 | 4064 | 916 | 40_615 => (Kind::Target, "The database server refused the login"),
        978 | 3906 | 3908 => (Kind::Target, "The database is read-only"),
        _ if TRANSIENT.contains(&number) => {
            (Kind::Conflict, "The database rolled the load back in favour of another transaction")
        }
        701 | 802 | 1101 | 1105 | 3967 | 8645 | 9002 | 40_544 | 40_552 => {
            (Kind::Resources, "The database server is out of space or memory")
        }
        229 | 230 | 262 | 297 | 300 | 2760 | 15_247 => (Kind::Target, "The database user lacks a privilege"),
        _ => (Kind::Target, "The database refused a statement"),
    };
    let mut error = Error::new(kind, message).with_field("number", number);
    if kind != Kind::Data {
        if matches!(number, 978 | 3906 | 3908) {
            error = error
                .hint("if it is a secondary replica, connect to the primary; otherwise check whether the database is set to READ_ONLY");
        }
        if number == 2705 {
            error = error.hint(
                "the database's collation treats two column names as equal: leave one column out with --drop-column, or rename yours",
            );
        }
        if matches!(number, 4922 | 5074 | 3725 | 3726) {
            error = error.hint("drop the dependent object, run again, and recreate it");
        }
        return error.caused_by(text.to_owned());
    }
    let names: &[&'static str] = match number {
        515 => &["column", "relation"],
        2601 => &["relation", "constraint"],
        2627 => &["constraint", "relation"],
        2628 => &["relation", "column"],
        547 => &["constraint"],
        1946 => &["constraint"],
        _ => &[],
    };
    let quote = if number == 547 { '"' } else { '\'' };
    // Names come first; values would be the third item or later.
    for (name, value) in names.iter().zip(text.split(quote).skip(1).step_by(2)) {
        error = error.with_field(name, value);
    }
    if matches!(number, 2601 | 2627) {
        error = error.hint(
            "the database's collation treats two keys or enum values as equal: use a collation that is case- and \
             accent-sensitive, such as Latin1_General_100_BIN2_UTF8",
        );
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_things_and_no_values() {
        let error = server_error(
            2627,
            "Violation of PRIMARY KEY constraint 'pk_canvas_t'. Cannot insert duplicate key in object 'canvas.t'. The duplicate \
             key value is ('secret').",
        );
        assert_eq!(
            (error.kind(), error.get("constraint"), error.get("relation")),
            (Kind::Data, Some("pk_canvas_t"), Some("canvas.t"))
        );
        let cut = server_error(
            2628,
            "String or binary data would be truncated in table 'db.canvas.t', column 'name'. Truncated value: 'secret'.",
        );
        assert_eq!((cut.get("relation"), cut.get("column")), (Some("db.canvas.t"), Some("name")));
        let null = server_error(
            515,
            "Cannot insert the value NULL into column 'c', table 'db.canvas.t'; column does not allow nulls.",
        );
        assert_eq!((null.get("column"), null.get("relation")), (Some("c"), Some("db.canvas.t")));
        let number = server_error(245, "Conversion failed when converting the nvarchar value 'secret' to data type int.");
        for error in [error, cut, null, number] {
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
        let blocked = server_error(5074, "The object 'seen' is dependent on column 'c'.");
        assert!(format!("{blocked:?}").contains("seen") && blocked.hint_text().is_some());
        let lost = server_error(RAISED, "daplake: lost characters: name|id=5");
        assert_eq!((lost.kind(), lost.get("column"), lost.get("key")), (Kind::Data, Some("name"), Some("id=5")));
        assert_eq!(server_error(18_456, "Login failed for user 'x'.").kind(), Kind::Target);
        for (number, text) in [(1205, "deadlock"), (RAISED, LOCK_REFUSED)] {
            let error = server_error(number, text);
            assert!(error.kind() == Kind::Conflict && is_transient(&error), "{error:?}");
        }
    }
}
