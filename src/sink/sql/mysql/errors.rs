//! Errors of the driver and the server as [`Error`]s. Some messages of the server quote values, which an error never shows.

use mysql_async::{DriverError, IoError};

use super::names::quote;
use crate::error::{Error, Kind};
use crate::sink::sql::connection::unreachable;

/// Codes that say that the bulk path is disabled.
pub(super) const BULK_DISABLED: [&str; 3] = ["1148", "3948", "4166"];

/// A row has changed since the transaction read it, lock timeouts, deadlocks, and conflicts that a cluster detects at the commit.
const TRANSIENT: [u16; 6] = [1020, LOCK_TIMEOUT, 1213, 3058, 3101, 3572];
/// The wait for a lock reached the limit of the session.
const LOCK_TIMEOUT: u16 = 1205;
/// A repeated key.
const DUPLICATE: u16 = 1062;

fn code_of(error: &Error) -> Option<u16> {
    error.get("code")?.parse().ok()
}

/// See [`Transactions::is_lock_timeout`](crate::sink::sql::dialect::Transactions::is_lock_timeout).
pub(super) fn is_lock_timeout(error: &Error) -> bool {
    code_of(error) == Some(LOCK_TIMEOUT)
}

/// See [`Transactions::is_transient`](crate::sink::sql::dialect::Transactions::is_transient).
pub(super) fn is_transient(error: &Error) -> bool {
    code_of(error).is_some_and(|code| TRANSIENT.contains(&code))
}

/// See [`Transactions::is_duplicate`](crate::sink::sql::dialect::Transactions::is_duplicate).
pub(super) fn is_duplicate(error: &Error) -> bool {
    code_of(error) == Some(DUPLICATE)
}

/// An error of the driver.
pub(super) fn from_driver(error: mysql_async::Error) -> Error {
    match error {
        mysql_async::Error::Server(error) => server(error.code, &error.state, &error.message),
        mysql_async::Error::Io(IoError::Tls(error)) => untrusted().caused_by(error),
        mysql_async::Error::Io(IoError::Io(error)) if is_tls(&error) => untrusted().caused_by(error),
        mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer) => {
            Error::new(Kind::Target, "The database server does not offer TLS")
                .hint("set up TLS on the server, or allow connections without it with ssl=prefer")
        }
        mysql_async::Error::Driver(DriverError::PacketTooLarge) => {
            Error::new(Kind::Data, "A row is larger than the database server accepts in one message")
                .hint("raise max_allowed_packet on the server")
        }
        // Other errors of the driver may contain packets, and so values.
        mysql_async::Error::Driver(_) => lost(),
        mysql_async::Error::Io(IoError::Io(error)) if is_before_session(&error) => unreachable(&error),
        mysql_async::Error::Io(error) => lost().caused_by(error),
        other => Error::new(Kind::Target, "The database server cannot be used").caused_by(other),
    }
}

const READ_ONLY: &str = "The database is read-only";

fn untrusted() -> Error {
    Error::new(Kind::Target, "The TLS connection to the database server failed")
        .hint("name a trusted authority with sslrootcert=FILE, or use ssl=require to accept any certificate")
}

/// Whether the connection could not be opened. A host name that does not resolve has no kind of its own.
fn is_before_session(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    let kinds = [
        ErrorKind::ConnectionRefused,
        ErrorKind::HostUnreachable,
        ErrorKind::NetworkUnreachable,
        ErrorKind::AddrNotAvailable,
        ErrorKind::NotFound,
        ErrorKind::PermissionDenied,
    ];
    kinds.contains(&error.kind())
        || error.to_string().starts_with("failed to lookup address information")
        || cfg!(windows) && matches!(error.raw_os_error(), Some(11_001..=11_004))
}

/// Whether the cause is TLS, not the network.
pub(super) fn is_tls(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

/// The hint for a table that exceeds the server's limits for columns and rows.
const WIDE: &str =
    "the server's tables hold fewer columns: leave some out with --drop-column, or list those that you need with --column";

/// The statement that grants what loads need, from the server's message about a user without privileges on a database.
fn grant(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("for user ")?;
    let (user, database) = rest.split_once(" to database '")?;
    let database = database.strip_suffix('\'')?;
    Some(format!(
        "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES, CREATE TEMPORARY TABLES ON {}.* TO {user}",
        quote(database)
    ))
}

fn lost() -> Error {
    Error::new(Kind::Target, "The connection to the database was lost").hint("the table was not changed; run the command again")
}

/// An error or a warning of the server.
pub(super) fn server(code: u16, state: &str, message: &str) -> Error {
    let (kind, sentence) = match code {
        1044 => (Kind::Target, "The database user lacks privileges on the database"),
        1045 | 1251 | 1698 | 1862 | 3118 | 4151 => (Kind::Target, "The database server refused the login"),
        1290 if message.contains("read-only") || message.contains("read_only") => (Kind::Target, READ_ONLY),
        1792 | 1836 => (Kind::Target, READ_ONLY),
        _ if TRANSIENT.contains(&code) => {
            (Kind::Conflict, "The database rolled the load back in favour of another transaction")
        }
        1053 | 1077 | 1079 | 1080 | 1152 | 1158..=1161 | 1184 | 1317 | 1927 | 4031 => {
            (Kind::Target, "The database server ended the connection")
        }
        1021 | 1037 | 1038 | 1040 | 1041 | 1114 | 1135 | 1153 | 1203 | 1206 | 1226 | 3636 => {
            (Kind::Resources, "The database server is out of space, memory or connections")
        }
        1048 | 1062 | 1263 | 1264 | 1265 | 1292 | 1364 | 1366 | 1406 | 1411 | 1441 | 1452 | 1586 | 3140 | 3144 | 3157
        | 3819 | 4025 => (Kind::Data, "The database refused a value"),
        _ if state.starts_with("22") || state.starts_with("23") => (Kind::Data, "The database refused a value"),
        _ if state.starts_with("08") => (Kind::Target, "The database server ended the connection"),
        _ => (Kind::Target, "The database refused a statement"),
    };
    let error = Error::new(kind, sentence).with_field("code", code).with_field("sqlstate", state);
    match kind {
        Kind::Data => {
            let error = match named(message, "column ") {
                Some(column) => error.with_field("column", column),
                None => error,
            };
            match (code, named(message, "for key ")) {
                (1062 | 1586, Some(key)) => error.with_field("constraint", key),
                // The upsert writes null into the key for it; see the dialect.
                (1048, _) => error.hint("two rows may have the same values in a unique index that you added: drop the index"),
                _ => error,
            }
        }
        _ => {
            let error = error.caused_by(message.to_owned());
            match code {
                // Foreign keys, indexes and generated columns that depend on a column, by name.
                1089 | 1170 | 1451 | 1553 | 1828..=1834 | 1846 | 3106 | 3780 | 3886 => {
                    error.hint("drop the dependent object, run again, and recreate it")
                }
                1290 | 1792 | 1836 if sentence == READ_ONLY => {
                    error.hint("if it is a replica, connect to the primary; otherwise check read_only on the server")
                }
                1044 => match grant(message) {
                    Some(grant) => error.hint(format!("run as an administrator: {grant}")),
                    None => error.hint("grant the user privileges on the database"),
                },
                1142 | 1143 | 1227 | 1370 => error.hint("grant the user the privilege"),
                1153 | 1301 | 3672 => error.hint("raise max_allowed_packet on the server"),
                1049 => error.hint("create the database with CREATE DATABASE"),
                1117 | 1118 => error.hint(WIDE),
                1005 if message.contains("errno: 185") => error.hint(WIDE),
                1665 => error.hint("set binlog_format on the server to ROW or MIXED"),
                _ => error,
            }
        }
    }
}

/// The name after the last `word`, because values come before it; the last part of a name with several parts.
fn named(message: &str, word: &str) -> Option<String> {
    let lower = message.to_ascii_lowercase();
    let rest = &message[lower.rfind(word)? + word.len()..];
    let quote = rest.chars().next().filter(|first| matches!(first, '\'' | '`'))?;
    if quote == '\'' {
        return rest[1..].split('\'').next().map(str::to_owned);
    }
    let end = rest.find(" at row").unwrap_or(rest.len());
    rest[..end].trim_matches('`').rsplit("`.`").next().map(str::to_owned)
}

/// The row number, counted from 1, at the end of a message.
pub(super) fn row_of(message: &str) -> Option<usize> {
    message.rsplit("at row ").next()?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_named_and_values_are_not() {
        for (code, message) in [
            (1406, "Data too long for column 'a' at row 5"),
            (1366, "Incorrect integer value: 'planted column 'b'' for column `db`.`t`.`a` at row 5"),
            (1048, "Column 'a' cannot be null"),
        ] {
            let error = server(code, "22001", message);
            assert_eq!((error.kind(), error.get("column")), (Kind::Data, Some("a")), "{error:?}");
            assert!(!format!("{error:?}").contains("planted"));
        }
        let error = server(1062, "23000", "Duplicate entry 'planted' for key 'PRIMARY'");
        assert_eq!((error.get("constraint"), error.get("code")), (Some("PRIMARY"), Some("1062")));
        assert!(!format!("{error:?}").contains("planted"));
        assert_eq!(row_of("Data too long for column 'a' at row 5"), Some(5));
        assert_eq!(row_of("Column 'a' cannot be null"), None);
        let denied = server(1044, "42000", "Access denied for user 'etl'@'%' to database 'my db'");
        let grant = denied.hint_text().unwrap();
        assert!(grant.contains("GRANT SELECT, INSERT") && grant.ends_with("ON `my db`.* TO 'etl'@'%'"), "{grant}");
        let blocked = server(1553, "HY000", "Cannot drop index 'x': needed in a foreign key constraint");
        assert!(blocked.hint_text().is_some() && format!("{blocked:?}").contains("'x'"));
        assert_eq!(server(1213, "40001", "Deadlock found").kind(), Kind::Conflict);
    }
}
