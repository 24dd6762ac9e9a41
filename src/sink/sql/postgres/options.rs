//! PostgreSQL's connection strings. [`complete`] adds what the environment provides, as libpq does; nothing here reads the environment
//! itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

use super::passfile;
use crate::error::Result;
use crate::redact::Secret;
use crate::sink::sql::connection::{ConnectionString, TlsMode, TlsSettings, malformed};

/// The time to open a session, unless the connection string gives another.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Where servers put their Unix sockets: on Debian, on Red Hat, and by default.
const SOCKET_FOLDERS: [&str; 3] = ["/var/run/postgresql", "/run/postgresql", "/tmp"];

/// Where and how to connect.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// A name, an address, or the folder of a Unix socket. `None`: this machine.
    host: Option<String>,
    pub(super) port: u16,
    pub(super) user: String,
    password: Option<Secret>,
    passfile: Option<PathBuf>,
    pub(super) database: String,
    pub(super) tls: TlsMode,
    /// PEM file of authorities to trust in place of the system's.
    pub(super) root_certificates: Option<PathBuf>,
    /// PEM files of the client certificate and its key.
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) application_name: String,
    /// `None`: no limit.
    pub(super) connect_timeout: Option<Duration>,
}

const EXAMPLE: &str = "postgresql://user:password@host:port/database?ssl=require";

/// The parameters after the `?`, decoded. A `+` stays a `+`, as in libpq.
fn parameters(url: &Url) -> Result<Vec<(String, String)>> {
    let decode = |text: &str| match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(malformed("A parameter of the connection string is not UTF-8", EXAMPLE)),
    };
    let mut parameters: Vec<(String, String)> = Vec::new();
    for item in url.query().unwrap_or_default().split('&').filter(|item| !item.is_empty()) {
        let Some((name, value)) = item.split_once('=') else {
            return Err(malformed("A parameter of the connection string has no `=`", EXAMPLE));
        };
        let (name, value) = (decode(name)?, decode(value)?);
        if parameters.iter().any(|(known, _)| *known == name) {
            return Err(malformed("The connection string has a parameter twice", EXAMPLE));
        }
        parameters.push((name, value));
    }
    Ok(parameters)
}

impl Options {
    /// Reads `postgresql://user:password@host:port/database?ssl=mode`. Kind `Usage`.
    pub(super) fn from_url(url: &Url) -> Result<Self> {
        let mut given = ConnectionString::new(url, parameters(url)?, EXAMPLE)?;
        let tls = given.take_tls_mode()?;
        let [user, password, host, database] = ["user", "password", "host", "dbname"].map(|name| filled(given.take(&[name])));
        let [passfile, root_certificates, certificate, key] =
            ["passfile", "sslrootcert", "sslcert", "sslkey"].map(|name| filled(given.take(&[name])).map(PathBuf::from));
        let port = match filled(given.take(&["port"])).map(|port| port.parse()) {
            None => given.port,
            Some(Ok(port)) => Some(port),
            Some(Err(_)) => return Err(given.error("The port of the connection string is not a number")),
        };
        let connect_timeout = match filled(given.take(&["connect_timeout"])).map(|seconds| seconds.parse::<i64>()) {
            None => Some(CONNECT_TIMEOUT),
            // As in libpq: at least two seconds, and no limit for zero and less.
            Some(Ok(seconds)) => {
                let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
                seconds.map(|seconds| Duration::from_secs(seconds.max(2)))
            }
            Some(Err(_)) => return Err(given.error("The `connect_timeout` of the connection string is not a number")),
        };
        let application_name = filled(given.take(&["application_name"])).unwrap_or_else(|| "daplake".to_owned());
        given.user = user.or(given.user);
        let user = given.take_user()?;
        given.warn_about_unknown();
        let host = host.or(given.host);
        Ok(Self {
            host: host.map(|host| if host.starts_with('/') { host } else { host.to_lowercase() }),
            port: port.unwrap_or(5432),
            database: database.or(given.database).unwrap_or_else(|| user.clone()),
            user,
            password: password.map(Secret::new).or(given.password),
            passfile,
            tls: tls.unwrap_or(TlsMode::Prefer),
            // Newer versions of libpq name the system's authorities so.
            root_certificates: root_certificates.filter(|path| path != Path::new("system")),
            certificate,
            key,
            application_name,
            connect_timeout,
        })
    }

    /// Options of the TLS layer.
    pub(super) fn tls_settings(&self) -> TlsSettings<'_> {
        let mode = match self.tls {
            // As in libpq: an authority that is named is used.
            TlsMode::Require if self.root_certificates.is_some() => TlsMode::VerifyCa,
            mode => mode,
        };
        TlsSettings {
            mode,
            root_certificates: self.root_certificates.as_deref(),
            certificate: self.certificate.as_deref(),
            key: self.key.as_deref(),
        }
    }

    /// A name, an address, or the folder of a Unix socket. By default the first usual folder that has a socket, else `localhost`.
    pub(super) fn host(&self) -> String {
        let socket = format!(".s.PGSQL.{}", self.port);
        let local = || SOCKET_FOLDERS.into_iter().find(|folder| Path::new(folder).join(&socket).exists());
        self.host.clone().unwrap_or_else(|| local().unwrap_or("localhost").to_owned())
    }

    /// The password of the connection string, else that of the password file.
    pub(super) fn password(&self) -> Option<Secret> {
        let from_file = || {
            let host = self.host();
            let host = if SOCKET_FOLDERS.contains(&host.as_str()) { "localhost" } else { &host };
            passfile::read(self.passfile.as_deref()?, [host, &self.port.to_string(), &self.database, &self.user])
        };
        self.password.clone().or_else(from_file)
    }
}

/// Completes a connection string from the variables and files that libpq reads. `variable` returns the value of a variable that is
/// set.
pub(in crate::sink::sql) fn complete(url: &Url, variable: &dyn Fn(&str) -> Option<String>) -> Result<Url> {
    let given = parameters(url)?;
    let has = |name: &str| given.iter().any(|(known, _)| known == name);
    // In the user's home folder.
    let file = |name: &str| {
        let path = Path::new(&variable("HOME").or_else(|| variable("USERPROFILE"))?).join(name);
        path.is_file().then(|| path.to_string_lossy().into_owned())
    };
    let mut missing: Vec<(&str, String)> = Vec::new();
    let mut add = |name: &'static str, is_given: bool, value: Option<String>| {
        missing.extend(value.filter(|_| !is_given && !has(name)).map(|value| (name, value)));
    };
    let user = || variable("PGUSER").or_else(|| variable("USER")).or_else(|| variable("USERNAME"));
    add("user", !url.username().is_empty(), user());
    add("password", url.password().is_some(), variable("PGPASSWORD"));
    add("host", url.host_str().is_some_and(|host| !host.is_empty()), variable("PGHOST"));
    add("port", url.port().is_some(), variable("PGPORT"));
    add("dbname", !url.path().trim_start_matches('/').is_empty(), variable("PGDATABASE"));
    add("sslmode", has("ssl"), variable("PGSSLMODE"));
    add("sslrootcert", false, variable("PGSSLROOTCERT").or_else(|| file(".postgresql/root.crt")));
    // Certificate and key of the home folder belong together.
    let is_chosen = variable("PGSSLCERT").is_some() || variable("PGSSLKEY").is_some() || has("sslcert") || has("sslkey");
    let own = |name: &str| if is_chosen { None } else { file(name) };
    add("sslcert", false, variable("PGSSLCERT").or_else(|| own(".postgresql/postgresql.crt")));
    add("sslkey", false, variable("PGSSLKEY").or_else(|| own(".postgresql/postgresql.key")));
    add("passfile", false, variable("PGPASSFILE").or_else(|| file(".pgpass")));
    add("application_name", false, variable("PGAPPNAME"));
    add("connect_timeout", false, variable("PGCONNECT_TIMEOUT"));
    let mut items: Vec<String> = url.query().filter(|query| !query.is_empty()).map(str::to_owned).into_iter().collect();
    items.extend(missing.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC))));
    let mut url = url.clone();
    url.set_query((!items.is_empty()).then(|| items.join("&")).as_deref());
    Ok(url)
}

/// An empty value means that the parameter is not given.
fn filled(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.is_empty())
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
        let found = options("postgresql://me%40x:p%2Fw@DB.example:6543/a%20b/c?ssl=verify-full").unwrap();
        assert_eq!((found.user.as_str(), found.host().as_str(), found.port), ("me@x", "db.example", 6543));
        assert_eq!(found.password().unwrap().reveal(), "p/w");
        assert_eq!((found.database.as_str(), found.tls), ("a b/c", TlsMode::VerifyFull));
        let found = options("postgresql://me@[::1]/x").unwrap();
        assert_eq!((found.host().as_str(), found.port, found.tls), ("::1", 5432, TlsMode::Prefer));
        assert!(found.password().is_none());
        let found =
            options("postgresql://%2FVar%2Frun/x?user=me&password=a+b%26c&sslrootcert=system&connect_timeout=1").unwrap();
        assert_eq!((found.host().as_str(), found.user.as_str()), ("/Var/run", "me"));
        assert_eq!(found.password().unwrap().reveal(), "a+b&c");
        assert_eq!((found.root_certificates, found.connect_timeout), (None, Some(Duration::from_secs(2))));
        assert_eq!(options("postgresql://me@h/x?connect_timeout=0").unwrap().connect_timeout, None);
        for wrong in [
            "postgresql://h/x",
            "postgresql://me@h/x?ssl=yes",
            "postgresql://me@h/x?ssl=",
            "postgresql://me@h/x?ssl=require&ssl=require",
            "postgresql://me@h/x?ssl=require&sslmode=require",
            "postgresql://me@h/x?host=a&host=b",
            "postgresql://me@h/x?ssl",
            "postgresql://me@h/x?port=many",
            "postgresql://me@h/x?user=%ff",
        ] {
            let error = options(wrong).unwrap_err();
            assert!(error.kind() == Kind::Usage && error.hint_text().is_some(), "{wrong}");
        }
    }

    #[test]
    fn missing_parts_are_taken_from_the_environment() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(".pgpass"), "db.example:*:sales:*:from%file\n").unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(home.path().join(".pgpass"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let variable = |name: &str| {
            Some(match name {
                "HOME" => home.path().to_string_lossy().into_owned(),
                "PGHOST" => "db.example".to_owned(),
                "PGUSER" => "pg user".to_owned(),
                "PGDATABASE" => "sales".to_owned(),
                "PGSSLMODE" => "verify-ca".to_owned(),
                "PGSSLROOTCERT" => "/etc/own ca.crt".to_owned(),
                "PGPORT" => "6000".to_owned(),
                _ => return None,
            })
        };
        let completed = |text: &str| Options::from_url(&complete(&Url::parse(text).unwrap(), &variable).unwrap()).unwrap();
        let found = completed("postgresql://");
        assert_eq!((found.host().as_str(), found.port, found.user.as_str()), ("db.example", 6000, "pg user"));
        assert_eq!((found.database.as_str(), found.tls), ("sales", TlsMode::VerifyCa));
        assert_eq!(found.root_certificates.as_deref(), Some(Path::new("/etc/own ca.crt")));
        assert_eq!(found.password().unwrap().reveal(), "from%file");
        let found = completed("postgresql://me:pw@other:1/x?ssl=disable&sslrootcert=system");
        assert_eq!((found.host().as_str(), found.port, found.user.as_str()), ("other", 1, "me"));
        assert_eq!((found.database.as_str(), found.tls), ("x", TlsMode::Disable));
        assert_eq!((found.root_certificates.clone(), found.password().unwrap().reveal()), (None, "pw"));
    }
}
