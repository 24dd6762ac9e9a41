//! From the URL of a target to its sink.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::redact::SafeUrl;
use crate::sink::Sink;
use crate::sink::delta::{DeltaOptions, DeltaSink};
#[cfg(feature = "sql")]
use crate::sink::sql::{SqlOptions, SqlSink};
use crate::stage::Engine;

/// A place where tables are kept, parsed but not touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A folder of Delta tables.
    Folder(PathBuf),
    /// A database, by its connection string.
    Database(SafeUrl),
}

impl std::str::FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let hint = "give a folder, such as --target ./lake, or postgresql://user:password@host:port/database";
        let refuse =
            |what: &str| Err(Error::new(Kind::Unsupported, format!("This version does not keep tables in {what}")).hint(hint));
        if text.is_empty() {
            return Err(Error::new(Kind::Usage, "The target is empty").hint(hint));
        }
        let Some((scheme, _)) = text.split_once("://") else { return Ok(Target::Folder(PathBuf::from(text))) };
        match scheme {
            "file" => url::Url::parse(text).ok().and_then(|url| url.to_file_path().ok()).map(Target::Folder).ok_or_else(|| {
                Error::new(Kind::Usage, "The file:// target is not an absolute path").hint("write it as file:///srv/lake")
            }),
            "s3" | "s3a" | "az" | "abfs" | "abfss" | "gs" => refuse("object stores"),
            #[cfg(feature = "sql")]
            scheme if crate::sink::sql::knows_scheme(scheme) => match parse_database(text) {
                Ok(url) => Ok(Target::Database(SafeUrl::new(url))),
                // The parser's own message may quote the password.
                Err(_) => Err(Error::new(Kind::Usage, "The connection string cannot be read").hint(format!(
                    "write it as {scheme}://user:password@host:port/database, with %40 for @, %2F for /, %23 for #"
                ))),
            },
            "postgresql" | "postgres" | "mysql" | "mariadb" | "mssql" | "sqlserver" => {
                Err(Error::new(Kind::Unsupported, "This build has no such target").with("scheme", scheme))
            }
            _ => Err(Error::new(Kind::Usage, "Unknown kind of target").with("scheme", scheme)),
        }
    }
}

/// A URL. For PostgreSQL a user without a host, which a URL cannot have, goes where the other parts may be as well: behind the `?`.
#[cfg(feature = "sql")]
fn parse_database(text: &str) -> Result<url::Url, url::ParseError> {
    let moved = || {
        let (scheme, rest) = text.split_once("://")?;
        let (user, rest) = rest.split_once("@/")?;
        let (database, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (user, password) = user.split_once(':').map_or((user, None), |(user, password)| (user, Some(password)));
        let password = password.map(|password| format!("&password={password}")).unwrap_or_default();
        url::Url::parse(&format!("{scheme}:///{database}?user={user}{password}&{query}")).ok()
    };
    match url::Url::parse(text) {
        Err(url::ParseError::EmptyHost) if text.starts_with("postgres") => moved().ok_or(url::ParseError::EmptyHost),
        other => other,
    }
}

impl Target {
    /// The same with what the user has told the database's own programs, where the connection string leaves it out.
    pub fn completed(self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        match self {
            #[cfg(feature = "sql")]
            Target::Database(url) => Ok(Target::Database(SafeUrl::new(SqlSink::complete(url.reveal(), variable)?))),
            other => Ok(other),
        }
    }
}

/// Opens the sink of a target with the defaults of its kind. Touches nothing yet.
pub fn open_sink(target: &Target, engine: &Engine) -> Result<Arc<dyn Sink>> {
    open_sink_with(target, engine, SqlOptions::default())
}

/// As [`open_sink`], with choices for databases.
pub fn open_sink_with(target: &Target, engine: &Engine, options: SqlOptions) -> Result<Arc<dyn Sink>> {
    match target {
        Target::Folder(_) => Ok(open_target(target, engine)?),
        #[cfg(feature = "sql")]
        Target::Database(url) => Ok(Arc::new(SqlSink::open(url.reveal(), options)?)),
        #[cfg(not(feature = "sql"))]
        Target::Database(_) => Err(Error::new(Kind::Unsupported, "This build knows no databases")),
    }
}

/// Opens a target that has to be a folder of Delta tables. Touches nothing yet.
pub fn open_target(target: &Target, engine: &Engine) -> Result<Arc<DeltaSink>> {
    open_target_with(target, DeltaOptions::new(engine.clone()))
}

/// As [`open_target`], with options.
pub fn open_target_with(target: &Target, options: DeltaOptions) -> Result<Arc<DeltaSink>> {
    match target {
        Target::Folder(path) => Ok(Arc::new(DeltaSink::at_path(path, options)?)),
        Target::Database(_) => {
            Err(Error::new(Kind::Unsupported, "Only folders of Delta tables can be queried here")
                .hint("ask the database itself"))
        }
    }
}
