//! What a connection string says. It reads no environment: [`complete`] puts into the string what its caller knows of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

use super::passfile;
use crate::error::{Error, Kind, Result};
use crate::redact::Secret;

/// For all of the greeting, unless the connection string says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Where servers put their sockets: as Debian and Red Hat build them, and as they come.
const SOCKET_FOLDERS: [&str; 3] = ["/var/run/postgresql", "/run/postgresql", "/tmp"];

/// Where and how to connect.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// A name or address, or the folder of a socket. `None`: the server of this machine.
    host: Option<String>,
    pub(super) port: u16,
    pub(super) user: String,
    password: Option<Secret>,
    passfile: Option<PathBuf>,
    pub(super) database: String,
    pub(super) tls: TlsMode,
    /// Certificates to trust in place of the system's, as a file of PEM.
    pub(super) root_certificates: Option<PathBuf>,
    /// The certificate that we show, and its key, as files of PEM.
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) application_name: String,
    /// `None`: for ever.
    pub(super) connect_timeout: Option<Duration>,
}

/// The modes of the server's own client library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsMode {
    /// Never.
    Disable,
    /// Only if the server takes nothing else.
    Allow,
    /// If the server has it; whoever it is.
    Prefer,
    /// Or fail; whoever it is, unless certificates to trust are named.
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

fn refuse(what: &'static str) -> Error {
    Error::new(Kind::Usage, what).hint("write it as postgresql://user:password@host:port/database?ssl=require")
}

fn decode(text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(|text| text.into_owned()).map_err(|_| refuse("A part of the connection string is not UTF-8"))
}

/// The items of the query, decoded. A `+` stays one, as in the server's own client library.
fn items(url: &Url) -> Result<Vec<(String, String)>> {
    let mut items: Vec<(String, String)> = Vec::new();
    for item in url.query().unwrap_or_default().split('&').filter(|item| !item.is_empty()) {
        let Some((name, value)) = item.split_once('=') else {
            return Err(refuse("The connection string has an item without `=` after the `?`"));
        };
        let (name, value) = (decode(name)?, decode(value)?);
        if items.iter().any(|(known, _)| *known == name) {
            return Err(refuse("The connection string has an item twice after the `?`"));
        }
        items.push((name, value));
    }
    Ok(items)
}

impl Options {
    /// Reads `postgresql://user:password@host:port/database?ssl=mode`. Kind `Usage`.
    pub(super) fn from_url(url: &Url) -> Result<Self> {
        let part = |text: &str| if text.is_empty() { Ok(None) } else { decode(text).map(Some) };
        let mut user = part(url.username())?;
        let mut password = part(url.password().unwrap_or_default())?;
        let mut host = part(url.host_str().unwrap_or_default().trim_matches(['[', ']']))?;
        let mut port = url.port();
        // Further slashes are kept, as in the official client.
        let mut database = part(url.path().trim_start_matches('/'))?;
        let mut tls = None;
        let mut connect_timeout = Some(CONNECT_TIMEOUT);
        let mut application_name = "daplake".to_owned();
        let [mut passfile, mut root_certificates, mut certificate, mut key] = [const { None::<PathBuf> }; 4];
        for (place, (name, value)) in items(url)?.into_iter().enumerate() {
            let given = Some(value).filter(|value| !value.is_empty());
            let path = || given.as_deref().map(PathBuf::from);
            match name.as_str() {
                "ssl" | "sslmode" if tls.is_some() => return Err(refuse("The connection string has two `ssl` modes")),
                "ssl" | "sslmode" => tls = Some(TlsMode::parse(given.as_deref().unwrap_or_default())?),
                "user" => user = given.or(user),
                "password" => password = given.or(password),
                "host" => host = given.or(host),
                "dbname" => database = given.or(database),
                "port" => match given.as_deref().map(str::parse) {
                    None => {}
                    Some(Ok(number)) => port = Some(number),
                    Some(Err(_)) => return Err(refuse("The port of the connection string is no number")),
                },
                "passfile" => passfile = path(),
                // Newer versions of the server's own client library call the system's certificates so.
                "sslrootcert" => root_certificates = path().filter(|path| path != Path::new("system")),
                "sslcert" => certificate = path(),
                "sslkey" => key = path(),
                "application_name" => application_name = given.unwrap_or(application_name),
                "connect_timeout" => match given.as_deref().map(str::parse::<i64>) {
                    None => {}
                    // At least two seconds, and nothing means for ever, as documented there.
                    Some(Ok(seconds)) => {
                        let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
                        connect_timeout = seconds.map(|seconds| Duration::from_secs(seconds.max(2)));
                    }
                    Some(Err(_)) => return Err(refuse("The `connect_timeout` of the connection string is no number")),
                },
                _ => crate::sink::sql::ignored(place),
            }
        }
        let user = user.ok_or_else(|| refuse("The connection string names no user"))?;
        Ok(Self {
            host: host.map(|host| if host.starts_with('/') { host } else { host.to_lowercase() }),
            port: port.unwrap_or(5432),
            database: database.unwrap_or_else(|| user.clone()),
            user,
            password: password.map(Secret::new),
            passfile,
            tls: tls.unwrap_or(TlsMode::Prefer),
            root_certificates,
            certificate,
            key,
            application_name,
            connect_timeout,
        })
    }

    /// A name, an address, or the folder of a socket. Without any it is the first of the usual folders that has a socket, else
    /// this machine by its name.
    pub(super) fn host(&self) -> String {
        let socket = format!(".s.PGSQL.{}", self.port);
        let here = || SOCKET_FOLDERS.into_iter().find(|folder| Path::new(folder).join(&socket).exists());
        self.host.clone().unwrap_or_else(|| here().unwrap_or("localhost").to_owned())
    }

    /// That of the connection string, else that of the file of passwords, where there is one.
    pub(super) fn password(&self) -> Option<Secret> {
        let from_file = || {
            let host = self.host();
            let host = if SOCKET_FOLDERS.contains(&host.as_str()) { "localhost" } else { &host };
            passfile::read(self.passfile.as_deref()?, [host, &self.port.to_string(), &self.database, &self.user])
        };
        self.password.clone().or_else(from_file)
    }
}

/// Puts into a connection string what it leaves out, by the variables and files that the server's own client library reads.
/// `variable` gives the value of one that is set.
pub(in crate::sink::sql) fn complete(url: &Url, variable: &dyn Fn(&str) -> Option<String>) -> Result<Url> {
    let given = items(url)?;
    let has = |name: &str| given.iter().any(|(known, _)| known == name);
    // In the folder of the user's settings.
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
    // The two of the folder belong together.
    let ours = variable("PGSSLCERT").is_some() || variable("PGSSLKEY").is_some() || has("sslcert") || has("sslkey");
    let own = |name: &str| if ours { None } else { file(name) };
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_is_left_out_comes_from_the_variables_and_what_is_there_stays() {
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
