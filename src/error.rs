//! The one error type: a kind that someone can act on, a sentence, context, a hint. It does not print itself; `cli` does.
//!
//! The message says what failed in the user's words and never repeats its source. Context is names, counts, sizes, ids and
//! times; never a cell value, a token, a signed query string or a password.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// What the library returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A source of any type.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// A situation that someone can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// Wrong arguments or settings.
    Usage,
    /// The service refused the credentials or the token.
    Auth,
    /// The account is disabled, not onboarded, under maintenance, or this kind of request is forbidden to it.
    Account,
    /// A namespace, table, job or object that the service (or the target) does not know.
    NotFound,
    /// A job or object has ended its life on the service; asking the query anew helps.
    Expired,
    /// The service holds nothing for the asked window.
    OutOfRange,
    /// The service wants a new snapshot before increments go on.
    SnapshotRequired,
    /// Too many requests, for longer than we were willing to wait.
    Throttled,
    /// Network trouble or a server fault that outlasted the retries.
    Unavailable,
    /// The service reports that a job failed.
    Job,
    /// Bytes or rows that are not what they should be.
    Data,
    /// A table schema that cannot be used, or a change of it that cannot be followed.
    Schema,
    /// The place where tables are kept cannot be used.
    Target,
    /// Another writer got in between.
    Conflict,
    /// A local file or directory.
    Io,
    /// Asked for something this build or this version does not do.
    Unsupported,
    /// The user (or a signal) stopped the run.
    Cancelled,
    /// Memory or disk limit reached.
    Resources,
    /// A defect in daplake.
    Bug,
}

impl Kind {
    /// Whether the same call may succeed a little later.
    pub fn is_transient(self) -> bool {
        use Kind::*;
        match self {
            Throttled | Unavailable | Conflict => true,
            Usage | Auth | Account | NotFound | Expired | OutOfRange | SnapshotRequired | Job | Data | Schema | Target | Io
            | Unsupported | Cancelled | Resources | Bug => false,
        }
    }

    /// Whether other tables of the same run would fail alike, so that the run should stop.
    pub fn is_fatal_for_run(self) -> bool {
        use Kind::*;
        match self {
            Usage | Auth | Account | Cancelled => true,
            NotFound | Expired | OutOfRange | SnapshotRequired | Throttled | Unavailable | Job | Data | Schema | Target
            | Conflict | Io | Unsupported | Resources | Bug => false,
        }
    }

    /// A stable lower-case name for reports and logs.
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

/// What went wrong. One pointer wide.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    message: Cow<'static, str>,
    context: Vec<(&'static str, String)>,
    hint: Option<Cow<'static, str>>,
    source: Option<BoxError>,
}

impl Error {
    /// An error of `kind` with a sentence in the user's words, no full stop.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), context: Vec::new(), hint: None, source: None }))
    }

    /// Adds a name and its value; the first value given for a name stays.
    #[must_use]
    pub fn with_field(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        if !self.0.context.iter().any(|(known, _)| *known == name) {
            self.0.context.push((name, value.to_string()));
        }
        self
    }

    /// Sets what to do next, if nothing was set nearer to the cause.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint.get_or_insert(hint.into());
        self
    }

    /// Sets what to do next in place of what was set before, for a caller that knows the way better.
    #[must_use]
    pub fn hint_instead(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Sets the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Gives it another kind, for a caller that knows better.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Names and values, in the order they were added.
    pub fn fields(&self) -> &[(&'static str, String)] {
        &self.0.context
    }

    /// The value of one context name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.context.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// What to do next.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The messages of the sources, outermost first.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next: Option<&(dyn StdError + 'static)> = StdError::source(self);
        while let Some(cause) = next {
            let text = match cause.downcast_ref::<Error>() {
                Some(ours) => ours.message().to_owned(),
                None => cause.to_string(),
            };
            // Many libraries repeat their source in their own text; say it once.
            if !causes.last().is_some_and(|last: &String| last.contains(&text)) {
                causes.push(text);
            }
            next = cause.source();
        }
        causes
    }

    /// Finds one of ours in the chain below a foreign error (DataFusion and streams wrap errors).
    pub fn recover(error: impl Into<BoxError>, otherwise: impl FnOnce(BoxError) -> Error) -> Error {
        let boxed: BoxError = match error.into().downcast::<Error>() {
            Ok(ours) => return *ours,
            Err(other) => other,
        };
        let mut next: Option<&(dyn StdError + 'static)> = Some(boxed.as_ref());
        while let Some(cause) = next {
            if let Some(ours) = cause.downcast_ref::<Error>() {
                return ours.copy();
            }
            if let Some(shared) = cause.downcast_ref::<std::sync::Arc<Error>>() {
                return shared.copy();
            }
            // An I/O error shows its payload by another door; its `source` is the payload's own.
            let payload = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            next = payload.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| cause.source());
        }
        otherwise(boxed)
    }

    /// The same without the sources' types (their texts stay).
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

/// Whether a full disk is at the bottom of it.
#[cfg_attr(not(feature = "lake"), expect(dead_code, reason = "only the engine of lakes asks"))]
pub(crate) fn is_disk_full(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        let found = cause.downcast_ref::<std::io::Error>();
        if found
            .is_some_and(|error| matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded))
        {
            return true;
        }
        // An I/O error shows its payload by another door.
        let payload = found.and_then(std::io::Error::get_ref);
        next = payload.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| cause.source());
    }
    false
}

/// Turns foreign results into ours and adds context on the way up.
pub trait ResultExt<T> {
    /// Wraps a foreign error as the cause of a new one. One of ours keeps its kind, message, context and hint.
    fn context(self, kind: Kind, message: impl Into<Cow<'static, str>>) -> Result<T>;
}

impl<T, E: Into<BoxError>> ResultExt<T> for std::result::Result<T, E> {
    fn context(self, kind: Kind, message: impl Into<Cow<'static, str>>) -> Result<T> {
        self.map_err(|error| Error::recover(error, |source| Error::new(kind, message).caused_by(source)))
    }
}

/// Adds context to one of our own errors on the way up.
pub trait ErrorContext<T> {
    /// Adds a name and its value.
    fn with_field(self, name: &'static str, value: impl fmt::Display) -> Result<T>;
    /// Adds what to do next.
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
    fn the_nearest_context_and_hint_win() {
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
    fn ours_is_found_below_a_foreign_wrapper() {
        let ours = Error::new(Kind::SnapshotRequired, "Too old").with_field("since", "x");
        let wrapped = std::io::Error::other(ours);
        let found = Error::recover(wrapped, |_| Error::new(Kind::Bug, "lost"));
        assert_eq!(found.kind(), Kind::SnapshotRequired);
        assert_eq!(found.get("since"), Some("x"));
    }
}
