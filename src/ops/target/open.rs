//! Targets and their sinks.

use std::path::PathBuf;
use std::sync::Arc;

use super::address::{Address, FILE};
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::redact::SafeUrl;
use crate::schema::LakeFormat;
use crate::sink::delta::{DeltaOptions, DeltaSink};
use crate::sink::parquet_folder::ParquetSink;
#[cfg(feature = "sql")]
use crate::sink::sql::{SqlOptions, SqlSink};
use crate::sink::{Lake, LakeFormats, Sink, detect_formats};
use crate::store::{Place, StoreOptions, explained};

/// A parsed target. Nothing was accessed yet.
///
/// ```
/// use std::path::PathBuf;
///
/// use daplake::ops::Target;
///
/// // Also `s3://bucket/prefix`, `az://container/prefix`, `gs://bucket/prefix`, or the connection string of a database.
/// let lake: Target = "./lake".parse()?;
/// assert_eq!(lake, Target::Folder(PathBuf::from("./lake")));
/// let folders = Target::Parquet(Box::new(lake));
/// # Ok::<(), daplake::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A folder of lake tables.
    Folder(PathBuf),
    /// Lake tables in an object store, by URL.
    #[doc(hidden)]
    Store(SafeUrl, StoreOptions),
    /// A folder or an object store with plain Parquet folders.
    Parquet(Box<Target>),
    /// A database, by its connection string.
    Database(SafeUrl),
}

impl Target {
    /// Detects the format of the lake tables at the target. An empty target gets the format `wanted`, or Delta.
    ///
    /// # Errors
    /// Kind `Usage` if the target has tables in another format than `wanted`, `Target` if it cannot be read or has both.
    pub(crate) async fn recognised(self, wanted: Option<LakeFormat>) -> Result<Self> {
        if !matches!(self, Target::Folder(_) | Target::Store(..)) {
            return self.in_format(wanted.unwrap_or_default());
        }
        let place = place(&self)?;
        let LakeFormats { delta, parquet } = detect_formats(&place).await.map_err(explained)?;
        let format = match (delta, parquet, wanted) {
            (false, false, wanted) => wanted.unwrap_or_default(),
            (true, true, Some(wanted)) => wanted,
            (true, true, None) => {
                return Err(Error::new(Kind::Target, "The target has Delta tables and folders of Parquet files")
                    .with_field("target", place.location())
                    .hint("choose one with --format delta or --format parquet"));
            }
            (_, true, Some(LakeFormat::Delta)) => {
                return Err(Error::new(Kind::Usage, "The target has folders of Parquet files, but --format is delta")
                    .with_field("target", place.location())
                    .hint("leave --format out, or use another --target"));
            }
            (true, _, Some(LakeFormat::Parquet)) => {
                return Err(Error::new(Kind::Usage, "The target has Delta tables, but --format is parquet")
                    .with_field("target", place.location())
                    .hint("leave --format out, or use another --target"));
            }
            (_, true, _) => LakeFormat::Parquet,
            (true, ..) => LakeFormat::Delta,
        };
        self.in_format(format)
    }

    /// Sets the format of lake tables.
    ///
    /// # Errors
    /// Kind `Usage` for a database.
    pub(crate) fn in_format(self, format: LakeFormat) -> Result<Self> {
        match (format, self) {
            (LakeFormat::Delta, target) => Ok(target),
            (LakeFormat::Parquet, target @ (Target::Folder(_) | Target::Store(..))) => Ok(Target::Parquet(Box::new(target))),
            (LakeFormat::Parquet, _) => Err(Error::new(Kind::Usage, "Only folders and object stores support --format parquet")
                .hint("leave --format out, or use another --target")),
        }
    }

    /// Sets the options of an object store; other targets ignore them.
    #[must_use]
    pub(crate) fn with_store_options(self, options: StoreOptions) -> Self {
        match self {
            Target::Store(url, _) => Target::Store(url, options),
            other => other,
        }
    }
}

impl std::str::FromStr for Target {
    type Err = Error;

    /// Parses an [`Address`]. Errors contain no part of `text`. The caller replaces `~` by the home folder.
    fn from_str(text: &str) -> Result<Self> {
        match Address::parse(text)? {
            Address::Folder(path) if path.starts_with('~') => {
                Err(Error::new(Kind::Usage, "Cannot find the home folder").hint("write the folder's full path"))
            }
            Address::Folder(path) => Ok(Target::Folder(PathBuf::from(path))),
            Address::File(text) => {
                let folder = url::Url::parse(text).ok().and_then(|url| url.to_file_path().ok());
                folder.map(Target::Folder).ok_or_else(|| {
                    Error::new(Kind::Usage, "The file:// target is not an absolute path").hint(format!("write it as {FILE}"))
                })
            }
            Address::Store(text) => match url::Url::parse(text) {
                Ok(url) => Ok(Target::Store(SafeUrl::new(url), StoreOptions::default())),
                Err(_) => Err(Error::new(Kind::Usage, "The URL of the target is invalid")
                    .hint("write it as s3://bucket/prefix, az://container/prefix or gs://bucket/prefix")),
            },
            Address::Database(text) => database(text),
        }
    }
}

#[cfg(not(feature = "sql"))]
fn database(_: &str) -> Result<Target> {
    Err(Error::new(Kind::Unsupported, "This build does not support databases"))
}

#[cfg(feature = "sql")]
fn database(text: &str) -> Result<Target> {
    match parse_database(text) {
        Ok(url) if crate::sink::sql::knows_scheme(url.scheme()) => Ok(Target::Database(SafeUrl::new(url))),
        Ok(url) => Err(Error::new(Kind::Unsupported, "This build does not support this kind of target").with_field("scheme", url.scheme())),
        // The message of the parser may contain the password.
        Err(_) => Err(Error::new(Kind::Usage, "The connection string is invalid").hint(
            "write it as scheme://user:password@host:port/database, with %40 for @, %2F for /, %3A for :, %23 for # in the password",
        )),
    }
}

/// Parses a connection string. PostgreSQL allows a user without a host, which a URL cannot have: the user becomes a parameter.
#[cfg(feature = "sql")]
fn parse_database(text: &str) -> Result<url::Url, url::ParseError> {
    let moved = || {
        let (scheme, rest) = text.split_once("://")?;
        let (user, rest) = rest.split_once("@/")?;
        let (database, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (user, password) = user.split_once(':').map_or((user, None), |(user, password)| (user, Some(password)));
        // An `&` would end the parameter.
        let item = |name: &str, value: &str| format!("{name}={}&", value.replace('&', "%26"));
        let password = password.map(|password| item("password", password)).unwrap_or_default();
        url::Url::parse(&format!("{scheme}:///{database}?{}{password}{query}", item("user", user))).ok()
    };
    match url::Url::parse(text) {
        Err(url::ParseError::EmptyHost) if text.to_ascii_lowercase().starts_with("postgres") => {
            moved().ok_or(url::ParseError::EmptyHost)
        }
        other => other,
    }
}

impl Target {
    /// Adds the settings of the database's own tools that the connection string does not contain, such as `PGUSER`.
    #[cfg_attr(not(feature = "sql"), expect(unused_variables, reason = "without databases there is nothing to complete"))]
    pub fn completed(self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        match self {
            #[cfg(feature = "sql")]
            Target::Database(url) => Ok(Target::Database(SafeUrl::new(SqlSink::complete(url.reveal(), variable)?))),
            other => Ok(other),
        }
    }
}

/// Opens a target with default options, for [`sync`](crate::ops::sync()) and [`status`](crate::ops::status()). Accesses nothing yet.
///
/// # Errors
/// Kind `Usage` if the connection string of a database is invalid, `Unsupported` if this build does not support this kind of target,
/// `Target` if the settings of an object store are incomplete.
///
/// ```
/// use daplake::ops::{Target, open_sink};
/// use daplake::{Engine, EngineOptions};
///
/// # fn main() -> daplake::Result<()> {
/// let engine = Engine::new(EngineOptions::default())?;
/// let sink = open_sink(&"./lake".parse::<Target>()?, &engine)?;
/// assert!(sink.location().to_string().ends_with("/lake/"));
/// // `sink.check().await?` reports a wrong password or a read-only folder before a job starts.
/// # Ok(())
/// # }
/// ```
pub fn open_sink(target: &Target, engine: &Engine) -> Result<Arc<dyn Sink>> {
    match target {
        Target::Folder(_) | Target::Store(..) | Target::Parquet(_) => Ok(open_lake(target, engine)?.sink()),
        #[cfg(feature = "sql")]
        Target::Database(_) => open_sink_with(target, engine, SqlOptions::default()),
        #[cfg(not(feature = "sql"))]
        Target::Database(_) => Err(Error::new(Kind::Unsupported, "This build does not support databases")),
    }
}

/// As [`open_sink`], with options for databases.
#[cfg(feature = "sql")]
pub fn open_sink_with(target: &Target, engine: &Engine, options: SqlOptions) -> Result<Arc<dyn Sink>> {
    match target {
        Target::Database(url) => Ok(Arc::new(SqlSink::open(url.reveal(), options)?)),
        _ => open_sink(target, engine),
    }
}

/// Opens a target with lake tables with default options, for queries and maintenance. Accesses nothing yet.
///
/// # Errors
/// Kind `Unsupported` for a database, `Target` if the settings of an object store are incomplete.
///
/// ```
/// use daplake::ops::{Target, open_lake};
/// use daplake::{Engine, EngineOptions};
///
/// # fn main() -> daplake::Result<()> {
/// let engine = Engine::new(EngineOptions::default())?;
/// let lake = open_lake(&"./lake".parse::<Target>()?, &engine)?;
/// assert!(lake.sink().location().to_string().ends_with("/lake/"));
/// # Ok(())
/// # }
/// ```
pub fn open_lake(target: &Target, engine: &Engine) -> Result<Lake> {
    open_lake_with(target, DeltaOptions::new(engine.clone()))
}

/// As [`open_lake`], with options.
pub fn open_lake_with(target: &Target, options: DeltaOptions) -> Result<Lake> {
    Ok(match target {
        Target::Parquet(inner) => Lake::parquet(ParquetSink::new(place(inner)?, options)?),
        target => Lake::delta(DeltaSink::new(place(target)?, options)),
    })
}

fn place(target: &Target) -> Result<Place> {
    match target {
        Target::Folder(path) => Place::local(path),
        Target::Store(url, options) => Place::open(url.reveal(), options),
        Target::Parquet(inner) => place(inner),
        Target::Database(_) => {
            Err(Error::new(Kind::Unsupported, "This command works on lake tables, but the target is a database"))
        }
    }
}
