//! The parts that connection strings of all databases share: user, password, host, port, database, parameters, TLS mode.

use percent_encoding::percent_decode_str;
use url::Url;

use crate::error::{Error, Kind, Result};
use crate::redact::Secret;

/// When a connection uses TLS and which certificates it accepts: the modes of PostgreSQL's client library, which the official client
/// uses for all databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sink::sql) enum TlsMode {
    /// No TLS.
    Disable,
    /// TLS only if the server accepts nothing else; any certificate.
    Allow,
    /// TLS if the server offers it; any certificate.
    Prefer,
    /// TLS or no connection; any certificate.
    Require,
    /// TLS or no connection; a certificate that a trusted authority signed, for any name.
    VerifyCa,
    /// TLS or no connection; a certificate that a trusted authority signed, for the server's name.
    VerifyFull,
}

impl TlsMode {
    fn parse(name: &str) -> Result<Self> {
        Ok(match name {
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

    /// Whether the server's certificate is verified.
    pub(in crate::sink::sql) fn verifies(self) -> bool {
        matches!(self, TlsMode::VerifyCa | TlsMode::VerifyFull)
    }
}

/// The parts of a connection string. Each database takes the parameters that it knows; the rest are reported.
#[derive(Debug)]
pub(in crate::sink::sql) struct ConnectionString {
    pub(in crate::sink::sql) user: Option<String>,
    pub(in crate::sink::sql) password: Option<Secret>,
    /// In lower case, without the brackets of an IPv6 address.
    pub(in crate::sink::sql) host: Option<String>,
    pub(in crate::sink::sql) port: Option<u16>,
    pub(in crate::sink::sql) database: Option<String>,
    /// `None` for a parameter that was taken.
    parameters: Vec<Option<(String, String)>>,
    example: &'static str,
}

impl ConnectionString {
    /// Reads `scheme://user:password@host:port/database`; `parameters` are those after the `?`, decoded, and `example` is shown in
    /// hints. Kind `Usage` where a part is not UTF-8.
    pub(in crate::sink::sql) fn new(url: &Url, parameters: Vec<(String, String)>, example: &'static str) -> Result<Self> {
        let part = |text: &str, error: &'static str| match percent_decode_str(text).decode_utf8() {
            Ok(text) => Ok((!text.is_empty()).then(|| text.into_owned())),
            Err(_) => Err(malformed(error, example)),
        };
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let host = part(host, "The connection string's host is not UTF-8")?;
        Ok(Self {
            user: part(url.username(), "The connection string's user is not UTF-8")?,
            password: part(url.password().unwrap_or_default(), "The connection string's password is not UTF-8")?
                .map(Secret::new),
            host: host.map(|host| if host.starts_with('/') { host } else { host.to_lowercase() }),
            port: url.port(),
            // Further slashes belong to the name, as in the official client.
            database: part(url.path().trim_start_matches('/'), "The connection string's database is not UTF-8")?,
            parameters: parameters.into_iter().map(Some).collect(),
            example,
        })
    }

    /// The error for a connection string that cannot be used. Kind `Usage`.
    pub(in crate::sink::sql) fn error(&self, sentence: &'static str) -> Error {
        malformed(sentence, self.example)
    }

    /// Takes the last parameter that has one of these names.
    pub(in crate::sink::sql) fn take(&mut self, names: &[&str]) -> Option<String> {
        let known =
            self.parameters.iter_mut().filter(|item| item.as_ref().is_some_and(|(name, _)| names.contains(&name.as_str())));
        known.filter_map(Option::take).last().map(|(_, value)| value)
    }

    /// Takes the TLS mode. Kind `Usage` if it is unknown or given twice.
    pub(in crate::sink::sql) fn take_tls_mode(&mut self) -> Result<Option<TlsMode>> {
        const NAMES: [&str; 2] = ["ssl", "sslmode"];
        let given = self.parameters.iter().flatten().filter(|(name, _)| NAMES.contains(&name.as_str())).count();
        if given > 1 {
            return Err(self.error("The connection string has two `ssl` modes"));
        }
        self.take(&NAMES).as_deref().map(TlsMode::parse).transpose()
    }

    /// Takes the user. Kind `Usage` if there is none.
    pub(in crate::sink::sql) fn take_user(&mut self) -> Result<String> {
        self.user.take().ok_or_else(|| self.error("The connection string names no user"))
    }

    /// Warns about parameters that nothing took. They are not named: one may be part of a password that contains an `&`.
    pub(in crate::sink::sql) fn warn_about_unknown(&self) {
        for (index, _) in self.parameters.iter().enumerate().filter(|(_, item)| item.is_some()) {
            tracing::warn!(parameter = index + 1, "Ignoring an unknown parameter of the connection string");
        }
    }
}

/// The parameters after the `?`, as forms encode them. Names are in lower case.
pub(in crate::sink::sql) fn form_parameters(url: &Url) -> Vec<(String, String)> {
    url.query_pairs().map(|(name, value)| (name.to_ascii_lowercase(), value.into_owned())).collect()
}

/// The error for a connection string that cannot be used. Kind `Usage`.
pub(in crate::sink::sql) fn malformed(sentence: &'static str, example: &str) -> Error {
    Error::new(Kind::Usage, sentence).hint(format!("write it as {example}"))
}
