//! Connection strings of SQL Server.

use std::path::PathBuf;

use url::Url;

use crate::error::Result;
use crate::redact::Secret;
use crate::sink::sql::connection::{ConnectionString, TlsMode, TlsSettings, form_parameters};

const EXAMPLE: &str = "mssql://user:password@host:port/database?ssl=verify-full";

/// Where and how to connect.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: Option<Secret>,
    /// `None`: the default database of the login.
    pub(super) database: Option<String>,
    pub(super) tls: TlsMode,
    /// PEM or DER file of authorities to trust in addition to the system's.
    pub(super) root_certificates: Option<PathBuf>,
    /// The name in the server's certificate, if it is not the host's.
    pub(super) certificate_name: Option<String>,
    /// TLS before the first message of the protocol (TDS 8.0), as servers with strict encryption require.
    pub(super) is_strict: bool,
}

impl Options {
    /// Reads `mssql://user:password@host:port/database?ssl=mode`. Kind `Usage`.
    pub(super) fn from_url(url: &Url) -> Result<Self> {
        let mut given = ConnectionString::new(url, form_parameters(url), EXAMPLE)?;
        let user = given.take_user()?;
        // The official client uses TLS and accepts any certificate, whatever its `ssl` says.
        let tls = given.take_tls_mode()?;
        let is_strict = match given.take(&["encrypt"]).map(|value| value.to_ascii_lowercase()).as_deref() {
            None => false,
            Some("strict") if tls.is_none_or(TlsMode::verifies) => true,
            Some("strict") => return Err(given.error("`encrypt=strict` always verifies the certificate; leave `ssl` out")),
            Some(_) => return Err(given.error("`encrypt` can only be `strict`; for other modes use `ssl`")),
        };
        let tls = tls.unwrap_or(if is_strict { TlsMode::VerifyFull } else { TlsMode::Require });
        let root_certificates = given.take(&["sslrootcert"]).map(PathBuf::from);
        let certificate_name = given.take(&["hostnameincertificate"]);
        given.warn_about_unknown();
        Ok(Self {
            host: given.host.unwrap_or_else(|| "localhost".to_owned()),
            port: given.port.unwrap_or(1433),
            database: given.database,
            user,
            password: given.password,
            tls,
            root_certificates,
            certificate_name,
            is_strict,
        })
    }

    /// Options of the TLS layer.
    pub(super) fn tls_settings(&self) -> TlsSettings<'_> {
        TlsSettings { mode: self.tls, root_certificates: self.root_certificates.as_deref(), certificate: None, key: None }
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
        let found = options("mssql://me%40x:p%2Fw@DB.example:11433/a%20b/c?ssl=verify-full&hostNameInCertificate=x").unwrap();
        assert_eq!((found.user.as_str(), found.host.as_str(), found.port), ("me@x", "db.example", 11433));
        assert_eq!(found.password.unwrap().reveal(), "p/w");
        assert_eq!((found.database.as_deref(), found.tls), (Some("a b/c"), TlsMode::VerifyFull));
        assert_eq!(found.certificate_name.as_deref(), Some("x"));
        let found = options("sqlserver://me@[::1]").unwrap();
        assert_eq!((found.host.as_str(), found.port, found.tls), ("::1", 1433, TlsMode::Require));
        assert!(found.password.is_none() && found.database.is_none());
        let found = options("mssql://me@h/x?encrypt=Strict").unwrap();
        assert!(found.is_strict && found.tls == TlsMode::VerifyFull);
        assert!(options("mssql://me@h/x?encrypt=strict&ssl=verify-ca").unwrap().is_strict);
        for wrong in [
            "mssql://me@h/x?encrypt=true",
            "mssql://me@h/x?encrypt=strict&ssl=require",
            "mssql://h/x",
            "mssql://me@h/x?ssl=yes",
            "mssql://me@h/x?ssl=require&ssl=require",
        ] {
            let error = options(wrong).unwrap_err();
            assert!(error.kind() == Kind::Usage && error.hint_text().is_some(), "{wrong}");
        }
    }
}
