//! What a connection string says.

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
    /// `None`: the default database of the login.
    pub(super) database: Option<String>,
    pub(super) tls: TlsMode,
    /// Certificates to trust besides the system's, as a file of PEM or DER.
    pub(super) root_certificates: Option<PathBuf>,
    /// The name that the server's certificate is for, if not the host's.
    pub(super) certificate_name: Option<String>,
}

/// When TLS is used and whom it trusts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsMode {
    /// Never, unless the server insists.
    Disable,
    /// If the server has it; whoever it is.
    Prefer,
    /// Or fail; whoever it is.
    Require,
    /// Or fail; a trusted authority vouches for a server of this name.
    Verify,
}

impl TlsMode {
    fn parse(word: &str) -> Result<Self> {
        Ok(match word {
            // The protocol lets the server insist, which is what `allow` asks for.
            "disable" | "allow" => TlsMode::Disable,
            "prefer" => TlsMode::Prefer,
            "require" => TlsMode::Require,
            // The driver cannot leave out the name, so the weaker word is kept by the stronger promise.
            "verify-ca" | "verify-full" => TlsMode::Verify,
            _ => {
                return Err(Error::new(Kind::Usage, "The connection string has an unknown `ssl` mode")
                    .hint("use disable, allow, prefer, require, verify-ca or verify-full"));
            }
        })
    }
}

impl Options {
    /// Reads `mssql://user:password@host:port/database?ssl=mode`.
    pub(super) fn from_url(url: &Url) -> Result<Self> {
        let refuse = |what: &'static str| {
            Error::new(Kind::Usage, what).hint("write it as mssql://user:password@host:port/database?ssl=verify-full")
        };
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned());
        let user = decode(url.username()).map_err(|_| refuse("The connection string's user is not UTF-8"))?;
        if user.is_empty() {
            return Err(refuse("The connection string names no user"));
        }
        let password = url.password().map(decode).transpose();
        let password = password.map_err(|_| refuse("The connection string's password is not UTF-8"))?;
        // Further slashes are kept, as in the official client.
        let database = decode(url.path().trim_start_matches('/'));
        let database = database.map_err(|_| refuse("The connection string's database is not UTF-8"))?;
        let mut options = Self {
            host: url.host_str().unwrap_or("localhost").trim_matches(['[', ']']).to_lowercase(),
            port: url.port().unwrap_or(1433),
            database: (!database.is_empty()).then_some(database),
            user,
            password: password.map(Secret::new),
            // What the official client does, whatever its `ssl` says.
            tls: TlsMode::Require,
            root_certificates: None,
            certificate_name: None,
        };
        let mut seen = false;
        for (place, (name, value)) in url.query_pairs().enumerate() {
            match name.to_ascii_lowercase().as_str() {
                "ssl" | "sslmode" if seen => return Err(refuse("The connection string has two `ssl` modes")),
                "ssl" | "sslmode" => {
                    options.tls = TlsMode::parse(&value)?;
                    seen = true;
                }
                "sslrootcert" => options.root_certificates = Some(PathBuf::from(value.as_ref())),
                "hostnameincertificate" => options.certificate_name = Some(value.into_owned()),
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
        let found = options("mssql://me%40x:p%2Fw@DB.example:11433/a%20b/c?ssl=verify-full&hostNameInCertificate=x").unwrap();
        assert_eq!((found.user.as_str(), found.host.as_str(), found.port), ("me@x", "db.example", 11433));
        assert_eq!(found.password.unwrap().reveal(), "p/w");
        assert_eq!((found.database.as_deref(), found.tls), (Some("a b/c"), TlsMode::Verify));
        assert_eq!(found.certificate_name.as_deref(), Some("x"));
        let found = options("sqlserver://me@[::1]").unwrap();
        assert_eq!((found.host.as_str(), found.port, found.tls), ("::1", 1433, TlsMode::Require));
        assert!(found.password.is_none() && found.database.is_none());
        for (word, mode) in [
            ("disable", TlsMode::Disable),
            ("allow", TlsMode::Disable),
            ("prefer", TlsMode::Prefer),
            ("require", TlsMode::Require),
            ("verify-ca", TlsMode::Verify),
        ] {
            assert_eq!(options(&format!("mssql://me@h/x?ssl={word}")).unwrap().tls, mode);
        }
        for wrong in ["mssql://h/x", "mssql://me@h/x?ssl=yes", "mssql://me@h/x?ssl=require&ssl=require"] {
            let error = options(wrong).unwrap_err();
            assert!(error.kind() == Kind::Usage && error.hint_text().is_some(), "{wrong}");
        }
    }
}
