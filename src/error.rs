//! The error type of the crate: a kind, a message, named fields, a hint and a cause.
//!
//! The message states what failed, in the user's terms, and does not repeat its cause. Fields hold names, counts, sizes, ids and times. They
//! never hold a value of a row, a token, a signed query string or a password. Errors are printed by `cli` only.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// The result type of the library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A cause of any type.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// The kind of an error. It decides the exit code, and whether a call or a run is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// Wrong arguments or settings.
    Usage,
    /// The service rejected the credentials or the token.
    Auth,
    /// The account is disabled, not onboarded or under maintenance.
    Account,
    /// The service or the target does not have the namespace, table, job or object.
    NotFound,
    /// A job or object has expired on the service. Running the query again helps.
    Expired,
    /// The service has no data for the requested window.
    OutOfRange,
    /// The service requires a new snapshot before it serves increments again.
    SnapshotRequired,
    /// The service throttled requests for longer than the retry policy allows.
    Throttled,
    /// A network or server error that persisted through all retries.
    Unavailable,
    /// A job failed on the service, or the service rejected the query.
    Job,
    /// Damaged or invalid data.
    Data,
    /// A table schema that cannot be used, or a schema change that cannot be applied.
    Schema,
    /// The target cannot be used.
    Target,
    /// Another process changed the same table or file at the same time.
    Conflict,
    /// A local file or folder cannot be read or written.
    Io,
    /// Not supported by this build or version.
    Unsupported,
    /// The run was cancelled by the user or a signal.
    Cancelled,
    /// A memory or disk limit was reached.
    Resources,
    /// A defect in daplake.
    Bug,
}

impl Kind {
    /// Whether the same call may succeed if it is repeated later.
    pub fn is_transient(self) -> bool {
        use Kind::*;
        match self {
            Throttled | Unavailable | Conflict => true,
            Usage | Auth | Account | NotFound | Expired | OutOfRange | SnapshotRequired | Job | Data | Schema | Target | Io
            | Unsupported | Cancelled | Resources | Bug => false,
        }
    }

    /// Whether every table of the run would fail in the same way, so that the run should stop.
    pub fn is_fatal_for_run(self) -> bool {
        use Kind::*;
        match self {
            Usage | Auth | Account | Cancelled => true,
            NotFound | Expired | OutOfRange | SnapshotRequired | Throttled | Unavailable | Job | Data | Schema | Target
            | Conflict | Io | Unsupported | Resources | Bug => false,
        }
    }

    /// The stable name for reports and logs, in snake case.
    pub fn name(self) -> &'static str {
        use Kind::*;
        match self {
            Usage => "usage",
            Auth => "auth",
            Account => "account",
            NotFound => "not_found",
            Expired => "expired",
            OutOfRange => "out_of_range",
            SnapshotRequired => "snapshot_required",
            Throttled => "throttled",
            Unavailable => "unavailable",
            Job => "job",
            Data => "data",
            Schema => "schema",
            Target => "target",
            Conflict => "conflict",
            Io => "io",
            Unsupported => "unsupported",
            Cancelled => "cancelled",
            Resources => "resources",
            Bug => "bug",
        }
    }
}

/// An error: a kind, a message, named fields, a hint and a cause.
///
/// `Display` prints the message and the fields on one line; [`Error::causes`] and [`Error::hint_text`] have the rest. No part contains a value
/// of a row, a token, a signed query string or a password. The type is one pointer wide, so that results stay small.
///
/// ```
/// use daplake::{Error, Kind};
///
/// let error = Error::new(Kind::Io, "Cannot read the settings file")
///     .with_field("path", "/no/such/file")
///     .hint("run `daplake init`")
///     .caused_by(std::io::Error::from(std::io::ErrorKind::NotFound));
/// assert_eq!(error.to_string(), "Cannot read the settings file (path: /no/such/file)");
/// assert_eq!(error.get("path"), Some("/no/such/file"));
/// assert!(!error.kind().is_transient());
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    message: Cow<'static, str>,
    context: Vec<(&'static str, String)>,
    hint: Option<Cow<'static, str>>,
    source: Option<BoxError>,
}

impl Error {
    /// An error of `kind`. `message` is a sentence without a full stop.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), context: Vec::new(), hint: None, source: None }))
    }

    /// Adds a named field. If the field is set already, the first value is kept, since it was set nearer to the cause.
    #[must_use]
    pub fn with_field(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        if !self.0.context.iter().any(|(known, _)| *known == name) {
            self.0.context.push((name, value.to_string()));
        }
        self
    }

    /// Sets the hint (what to do next), unless there is one.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint.get_or_insert(hint.into());
        self
    }

    /// Replaces the hint, for a caller that knows a better one.
    #[must_use]
    pub fn hint_instead(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Sets the cause, which [`std::error::Error::source`] returns.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Replaces the kind, for a caller that knows more.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The message, without fields and cause.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The fields as names and values, in the order in which they were added.
    pub fn fields(&self) -> &[(&'static str, String)] {
        &self.0.context
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.context.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// The hint: what to do next.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The messages of all causes, outermost first.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next: Option<&(dyn StdError + 'static)> = StdError::source(self);
        while let Some(cause) = next {
            let text = match cause.downcast_ref::<Error>() {
                Some(error) => error.message().to_owned(),
                None => cause.to_string(),
            };
            // Many libraries repeat the text of their source.
            if !causes.last().is_some_and(|last: &String| last.contains(&text)) {
                causes.push(text);
            }
            next = cause.source();
        }
        causes
    }

    /// Returns the [`Error`] in the chain of causes of `error`, or else what `otherwise` makes of it. DataFusion, streams and I/O wrap errors
    /// that pass through them.
    pub fn recover(error: impl Into<BoxError>, otherwise: impl FnOnce(BoxError) -> Error) -> Error {
        let boxed: BoxError = match error.into().downcast::<Error>() {
            Ok(error) => return *error,
            Err(other) => other,
        };
        let mut next: Option<&(dyn StdError + 'static)> = Some(boxed.as_ref());
        while let Some(cause) = next {
            if let Some(error) = cause.downcast_ref::<Error>() {
                return error.copy();
            }
            if let Some(shared) = cause.downcast_ref::<std::sync::Arc<Error>>() {
                return shared.copy();
            }
            // The source of an I/O error is that of its payload, which would skip the payload itself.
            let payload = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            next = payload.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| cause.source());
        }
        otherwise(boxed)
    }

    /// A copy whose causes are reduced to their text.
    pub(crate) fn copy(&self) -> Error {
        let mut copy = Error::new(self.kind(), self.0.message.clone());
        copy.0.context = self.0.context.clone();
        copy.0.hint = self.0.hint.clone();
        let causes = self.causes();
        if !causes.is_empty() {
            copy.0.source = Some(causes.join(": ").into());
        }
        copy
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        let mut separator = " (";
        for (name, value) in &self.0.context {
            write!(f, "{separator}{name}: {value}")?;
            separator = ", ";
        }
        if separator == ", " { f.write_str(")") } else { Ok(()) }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)?;
        for cause in self.causes() {
            write!(f, "; caused by: {cause}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Whether the error was caused by a full disk or an exceeded quota.
#[cfg_attr(not(feature = "lake"), expect(dead_code, reason = "used by the lake feature only"))]
pub(crate) fn is_disk_full(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        let found = cause.downcast_ref::<std::io::Error>();
        if found
            .is_some_and(|error| matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded))
        {
            return true;
        }
        // The source of an I/O error is that of its payload, which would skip the payload itself.
        let payload = found.and_then(std::io::Error::get_ref);
        next = payload.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| cause.source());
    }
    false
}

/// Converts the errors of other crates to [`Error`].
pub trait ResultExt<T> {
    /// Makes the error the cause of a new one with this kind and message. If it is or contains an [`Error`], that one is returned unchanged.
    fn context(self, kind: Kind, message: impl Into<Cow<'static, str>>) -> Result<T>;
}

impl<T, E: Into<BoxError>> ResultExt<T> for std::result::Result<T, E> {
    fn context(self, kind: Kind, message: impl Into<Cow<'static, str>>) -> Result<T> {
        self.map_err(|error| Error::recover(error, |source| Error::new(kind, message).caused_by(source)))
    }
}

/// Adds fields and hints to the error of a result.
pub trait ErrorContext<T> {
    /// See [`Error::with_field`].
    fn with_field(self, name: &'static str, value: impl fmt::Display) -> Result<T>;
    /// See [`Error::hint`].
    fn hint(self, hint: impl Into<Cow<'static, str>>) -> Result<T>;
}

impl<T> ErrorContext<T> for Result<T> {
    fn with_field(self, name: &'static str, value: impl fmt::Display) -> Result<T> {
        self.map_err(|error| error.with_field(name, value))
    }

    fn hint(self, hint: impl Into<Cow<'static, str>>) -> Result<T> {
        self.map_err(|error| error.hint(hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_field_and_hint_win() {
        let error = Error::new(Kind::Data, "A row cannot be read")
            .with_field("table", "a")
            .hint("near")
            .with_field("table", "b")
            .hint("far");
        assert_eq!(error.get("table"), Some("a"));
        assert_eq!(error.hint_text(), Some("near"));
        assert_eq!(error.to_string(), "A row cannot be read (table: a)");
    }

    #[test]
    fn an_error_is_found_inside_a_foreign_wrapper() {
        let inner = Error::new(Kind::SnapshotRequired, "Too old").with_field("since", "x");
        let wrapped = std::io::Error::other(inner);
        let found = Error::recover(wrapped, |_| Error::new(Kind::Bug, "lost"));
        assert_eq!(found.kind(), Kind::SnapshotRequired);
        assert_eq!(found.get("since"), Some("x"));
    }
}
