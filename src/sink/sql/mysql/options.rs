//! Connection strings of MySQL and MariaDB.

use std::path::PathBuf;

use url::Url;

use crate::error::Result;
use crate::redact::Secret;
use crate::sink::sql::connection::{ConnectionString, TlsMode, form_parameters};

const EXAMPLE: &str = "mysql://user:password@host:port/database?ssl=require";

/// Where and how to connect.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: Option<Secret>,
    pub(super) database: String,
    pub(super) tls: TlsMode,
    /// PEM file of authorities to trust in place of the system's.
    pub(super) root_certificates: Option<PathBuf>,
    /// A Unix socket, in place of host and port.
    pub(super) socket: Option<String>,
}

impl Options {
    /// Reads `mysql://user:password@host:port/database?ssl=mode`. Kind `Usage`.
    pub(super) fn from_url(url: &Url) -> Result<Self> {
        let mut given = ConnectionString::new(url, form_parameters(url), EXAMPLE)?;
        let user = given.take_user()?;
        let database = given.database.take().ok_or_else(|| given.error("The connection string names no database"))?;
        let tls = given.take_tls_mode()?.unwrap_or(TlsMode::Prefer);
        let root_certificates = given.take(&["sslrootcert", "ssl-ca"]).map(PathBuf::from);
        let socket = given.take(&["socket", "unix_socket"]);
        given.warn_about_unknown();
        Ok(Self {
            host: given.host.unwrap_or_else(|| "localhost".to_owned()),
            port: given.port.unwrap_or(3306),
            user,
            password: given.password,
            database,
            tls,
            root_certificates,
            socket,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

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
