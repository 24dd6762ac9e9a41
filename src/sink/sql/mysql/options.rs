//! What a connection string says. It connects to nothing.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::error::{Error, Kind, Result};
use crate::redact::Secret;

/// Where and how to connect.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: Option<Secret>,
    pub(super) database: String,
    pub(super) tls: TlsMode,
    /// Certificates to trust in place of the system's, as a file of PEM.
    pub(super) root_certificates: Option<PathBuf>,
    /// A Unix socket, in place of host and port.
    pub(super) socket: Option<String>,
}

/// The official client's words, which are those of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsMode {
    /// Never.
    Disable,
    /// Only if the server takes nothing else.
    Allow,
    /// If the server has it; whoever it is.
    Prefer,
    /// Or fail; whoever it is.
    Require,
    /// Or fail; a trusted authority vouches for the server.
    VerifyCa,
    /// Or fail; a trusted authority vouches for a server of this name.
    VerifyFull,
}

impl TlsMode {
    fn parse(word: &str) -> Result<Self> {
        Ok(match word {
            "disable" => TlsMode::Disable,
            "allow" => TlsMode::Allow,
            "prefer" => TlsMode::Prefer,
            "require" => TlsMode::Require,
            "verify-ca" => TlsMode::VerifyCa,
            "verify-full" => TlsMode::VerifyFull,
            _ => {
                return Err(Error::new(Kind::Usage, "The connection string has an unknown `ssl` mode")
                    .hint("use disable, allow, prefer, require, verify-ca or verify-full"));
            }
        })
    }
}

impl Options {
    /// Reads `mysql://user:password@host:port/database?ssl=mode`. Kind `Usage`.
    pub(super) fn from_url(url: &Url) -> Result<Self> {
        let refuse = |what: &'static str| {
            Error::new(Kind::Usage, what).hint("write it as mysql://user:password@host:port/database?ssl=require")
        };
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned());
        let user = decode(url.username()).map_err(|_| refuse("The connection string's user is not UTF-8"))?;
        if user.is_empty() {
            return Err(refuse("The connection string names no user"));
        }
        let password = url.password().map(decode).transpose();
        let password = password.map_err(|_| refuse("The connection string's password is not UTF-8"))?;
        // Further slashes are part of the name.
        let database = decode(url.path().trim_start_matches('/'));
        let database = database.map_err(|_| refuse("The connection string's database is not UTF-8"))?;
        if database.is_empty() {
            return Err(refuse("The connection string names no database"));
        }
        let host = url.host_str().filter(|host| !host.is_empty()).unwrap_or("localhost");
        let mut options = Self {
            host: host.trim_matches(['[', ']']).to_lowercase(),
            port: url.port().unwrap_or(3306),
            user,
            password: password.map(Secret::new),
            database,
            tls: TlsMode::Prefer,
            root_certificates: None,
            socket: None,
        };
        let mut seen = false;
        for (place, (name, value)) in url.query_pairs().enumerate() {
            match name.as_ref() {
                "ssl" | "sslmode" if seen => return Err(refuse("The connection string has two `ssl` modes")),
                "ssl" | "sslmode" => {
                    options.tls = TlsMode::parse(&value)?;
                    seen = true;
                }
                "sslrootcert" | "ssl-ca" => options.root_certificates = Some(PathBuf::from(value.as_ref())),
                "socket" | "unix_socket" => options.socket = Some(value.into_owned()),
                _ => crate::sink::sql::ignored(place),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Result<Options> {
        Options::from_url(&Url::parse(text).unwrap())
    }

    #[test]
    fn a_connection_string_is_read_as_documented() {
        let found = options("mysql://me%40x:p%2Fw@DB.example:3307/a%20b/c?ssl=verify-full&ssl-ca=/x/ca.pem").unwrap();
        assert_eq!((found.user.as_str(), found.host.as_str(), found.port), ("me@x", "db.example", 3307));
        assert_eq!(found.password.unwrap().reveal(), "p/w");
        assert_eq!((found.database.as_str(), found.tls), ("a b/c", TlsMode::VerifyFull));
        assert_eq!(found.root_certificates, Some(PathBuf::from("/x/ca.pem")));
        let found = options("mariadb://me@[::1]/x?socket=/run/mysqld/mysqld.sock").unwrap();
        assert_eq!((found.host.as_str(), found.port, found.tls), ("::1", 3306, TlsMode::Prefer));
        assert_eq!((found.socket.as_deref(), found.password.is_none()), (Some("/run/mysqld/mysqld.sock"), true));
        for wrong in
            ["mysql://h/x", "mysql://me@h", "mysql://me@h/", "mysql://me@h/x?ssl=yes", "mysql://me@h/x?ssl=require&ssl=require"]
        {
            let error = options(wrong).unwrap_err();
            assert!(error.kind() == Kind::Usage && error.hint_text().is_some(), "{wrong}");
        }
    }
}
