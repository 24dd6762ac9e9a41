//! The contract of all targets, and what they report about their tables.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};

use async_trait::async_trait;

use super::load::{Layout, Load, LoadPlan};
use crate::error::{Error, Kind, Result};
use crate::model::{Bookmark, Namespace, TableRef, Timestamp};
use crate::redact::SafeUrl;
use crate::schema::{ColumnRecord, TableMode, TableSchema};

/// A place where tables are kept: a lake folder or a database.
///
/// All methods may be called concurrently for different tables. Of two loads of one table the first commit wins; the other fails with kind
/// `Conflict`.
///
/// A sink that keeps bookmarks in memory; [`Load`] has an example of its load:
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::{Arc, Mutex};
///
/// use async_trait::async_trait;
/// use daplake::sink::{CommittedState, Load, LoadPlan, Sink, TableStatus};
/// use daplake::{Namespace, Result, SafeUrl, TableRef};
///
/// #[derive(Debug)]
/// struct Memory {
///     location: SafeUrl,
///     tables: Arc<Mutex<BTreeMap<TableRef, CommittedState>>>,
/// }
///
/// #[async_trait]
/// impl Sink for Memory {
///     fn location(&self) -> &SafeUrl {
///         &self.location
///     }
///     async fn check(&self) -> Result<()> {
///         Ok(())
///     }
///     async fn committed(&self, table: &TableRef) -> Result<Option<CommittedState>> {
///         Ok(self.tables.lock().unwrap().get(table).cloned())
///     }
///     async fn list(&self, namespace: Option<&Namespace>) -> Result<Vec<TableRef>> {
///         let tables = self.tables.lock().unwrap();
///         Ok(tables.keys().filter(|table| namespace.is_none_or(|name| table.namespace == *name)).cloned().collect())
///     }
///     async fn status(&self, table: &TableRef) -> Result<Option<TableStatus>> {
///         Ok(self.committed(table).await?.map(|state| TableStatus::new(table.clone(), state.bookmark)))
///     }
///     async fn begin(&self, plan: LoadPlan) -> Result<Box<dyn Load>> {
///         # let _ = plan;
///         // A `Load` of `plan.table`, which shares `self.tables`.
///         # unimplemented!()
///     }
/// }
/// ```
#[async_trait]
pub trait Sink: Debug + Send + Sync {
    /// Location of the target, without secrets.
    fn location(&self) -> &SafeUrl;

    /// Checks the connection by the cheapest part of a real load, so that a wrong password or a read-only folder fails before a job starts.
    /// Leaves nothing behind.
    ///
    /// # Errors
    /// Kind `Target`.
    async fn check(&self) -> Result<()>;

    /// Checks the rights for loads of these namespaces, such as creating schemas and tables. Leaves nothing behind.
    async fn check_rights(&self, _namespaces: &[Namespace]) -> Result<()> {
        Ok(())
    }

    /// State of `table` after its last commit. `None`: never loaded.
    ///
    /// # Errors
    /// Kind `Target` if another program's data are in the place of the table.
    async fn committed(&self, table: &TableRef) -> Result<Option<CommittedState>>;

    /// As [`Sink::committed`], but changes nothing: what an interrupted run or another client left in the place of the table stays as it is.
    ///
    /// # Errors
    /// Those of [`Sink::committed`].
    #[doc(hidden)]
    async fn inspect(&self, table: &TableRef) -> Result<Option<CommittedState>> {
        self.committed(table).await
    }

    /// All tables of one namespace or of all, sorted.
    async fn list(&self, namespace: Option<&Namespace>) -> Result<Vec<TableRef>>;

    /// Figures of one table for `status`.
    async fn status(&self, table: &TableRef) -> Result<Option<TableStatus>>;

    /// Abilities of the target beyond this contract.
    #[doc(hidden)]
    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities::default()
    }

    /// Whether a load that failed with `error` may succeed when its changes are read and loaded again, because another transaction won. The
    /// caller has made sure that the bookmark of the table is unchanged.
    fn is_retryable(&self, _error: &Error) -> bool {
        false
    }

    /// Checks that a table can be kept as the user chose, before a job starts.
    ///
    /// # Errors
    /// Kind `Unsupported` if no table of this target can, `Schema` if the existing table cannot.
    #[doc(hidden)]
    async fn validate_layout(&self, _table: &TableRef, wanted: &Layout) -> Result<()> {
        wanted.require_default()
    }

    /// Checks a load as [`Sink::begin`] does, as far as that changes nothing. An existing table is taken as it is, whatever bookmark the plan
    /// expects.
    ///
    /// # Errors
    /// Those of [`Sink::begin`], except for kind `Conflict`.
    async fn check_plan(&self, _plan: LoadPlan) -> Result<()> {
        Ok(())
    }

    /// Checks whether loads can write to what the target has under the names of tables. Changes nothing.
    ///
    /// # Errors
    /// Kind `Target` if the target cannot be asked.
    #[doc(hidden)]
    async fn check_tables(&self, _tables: &[TableRef]) -> Result<TableProblems> {
        Ok(TableProblems::default())
    }

    /// The changes that a load of `plan` would make to the columns of the existing table, one sentence each. Empty if there is no table.
    /// Changes of descriptions and defaults do not count.
    ///
    /// # Errors
    /// Kind `Schema` for a change that is not possible.
    #[doc(hidden)]
    async fn schema_changes(&self, _plan: &LoadPlan) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Opens a load.
    async fn begin(&self, plan: LoadPlan) -> Result<Box<dyn Load>>;
}

/// What [`Sink::check_tables`] found.
#[derive(Debug, Default)]
pub struct TableProblems {
    /// Errors that loads would fail with.
    pub failures: Vec<Error>,
    /// Errors that only later loads may fail with, such as those with a schema change.
    pub warnings: Vec<Error>,
}

/// Abilities of a target beyond the contract of [`Sink`].
#[derive(Clone, Copy, Default)]
pub struct Capabilities<'a> {
    /// Loads of tables with one integer key column check unique keys while they write ([`super::WriteError::DuplicateKey`]), so that change sets
    /// that promise unique keys need no deduplication.
    pub checks_unique_keys: bool,
    /// The first load of a table in the mode `current` takes changes with duplicate keys, whatever the key, and keeps the latest change.
    pub deduplicates_first_load: bool,
    /// Rows are stored in the order of their keys, so that a load is fastest if they arrive in that order.
    pub stores_in_key_order: bool,
    /// Features of lake tables.
    pub lake: Option<&'a dyn LakeFeatures>,
}

/// Features of lake tables.
#[async_trait]
pub trait LakeFeatures: Send + Sync {
    /// The last loads of a table, at most `limit`, oldest first.
    async fn load_history(&self, table: &TableRef, limit: usize) -> Result<Vec<LoadRecord>>;

    /// Bytes of all files of a table, including its log and the files of older versions.
    async fn stored_bytes(&self, table: &TableRef) -> Result<u64>;

    /// Completes the Iceberg metadata of a table whose last run did not; see [`CommittedState::has_iceberg_view`].
    async fn publish_iceberg(&self, _table: &TableRef) -> Result<()> {
        Ok(())
    }

    /// Whether catalogs can list the tables: programs read them by their location alone.
    fn suits_catalogs(&self) -> bool {
        false
    }

    /// A table as catalogs list it. `None` if it does not exist.
    async fn catalog_entry(&self, _table: &TableRef) -> Result<Option<CatalogEntry>> {
        Ok(None)
    }

    /// Writes the file of views over all tables. Called once after a run that changed a table.
    async fn write_views(&self) -> Result<()>;
}

/// A table as catalogs list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogEntry {
    /// The table.
    pub table: TableRef,
    /// The URL of its folder, which ends with a slash.
    pub location: String,
    /// The description.
    pub description: Option<String>,
    /// The columns, in order.
    pub columns: Vec<CatalogColumn>,
}

impl CatalogEntry {
    /// Identifies the content of the entry.
    pub fn fingerprint(&self) -> String {
        let mut hash = std::hash::DefaultHasher::new();
        format!("{self:?}").hash(&mut hash);
        format!("{:016x}", hash.finish())
    }
}

/// A column as catalogs list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogColumn {
    /// The name.
    pub name: String,
    /// The type as Hive writes it, such as `array<struct<id:bigint>>`.
    pub hive_type: String,
    /// The description.
    pub description: Option<String>,
}

/// State of a table after its last commit.
#[derive(Debug, Clone, PartialEq)]
pub struct CommittedState {
    /// The bookmark.
    pub bookmark: Bookmark,
    /// Dropped and hashed columns.
    pub columns: ColumnRecord,
    /// Names of the columns that come from the service. `None`: unknown.
    #[doc(hidden)]
    pub known_columns: Option<Vec<String>>,
    /// Which rows are kept.
    #[doc(hidden)]
    pub mode: TableMode,
    /// Whether old rows stay when a new snapshot is loaded.
    #[doc(hidden)]
    pub keeps_rows: bool,
    /// Changes of rows by other programs since the last load, if they are a reason to refuse an increment.
    #[doc(hidden)]
    pub foreign_changes: Option<ForeignChanges>,
    /// Whether the table has an Iceberg view, which may show an older version.
    #[doc(hidden)]
    pub has_iceberg_view: bool,
    /// The [`CatalogEntry::fingerprint`] of the table, if catalogs can list it.
    #[doc(hidden)]
    pub catalog_fingerprint: Option<String>,
}

impl CommittedState {
    /// The state of a table whose rows a new snapshot replaces.
    pub fn new(bookmark: Bookmark, columns: ColumnRecord) -> Self {
        Self {
            bookmark,
            columns,
            known_columns: None,
            mode: TableMode::Current,
            keeps_rows: false,
            foreign_changes: None,
            has_iceberg_view: false,
            catalog_fingerprint: None,
        }
    }

    /// Checks that rows with another choice of columns can be added, as far as it is known before the load sees the table. `schema` is the
    /// service's schema after the choice.
    ///
    /// # Errors
    /// Kind `Schema` if they cannot.
    pub(crate) fn check_columns(&self, next: &ColumnRecord, schema: &TableSchema) -> Result<()> {
        // A column of a newer schema may be new to the table.
        let is_known = schema.version == self.bookmark.schema_version;
        let has = |column: &str| {
            let is = |name: &String| name == column;
            self.columns.hashed.iter().any(is) || (is_known && !self.columns.dropped.iter().any(is))
        };
        let comes = |column: &str| schema.columns().any(|known| known.name == column);
        let keeps_rows = self.keeps_rows || schema.table.is_log();
        self.columns.follow(next, has, comes).map(|_| ()).map_err(|error| error.hint_instead(reload_hint(keeps_rows)))
    }
}

/// The hint for changes that the old rows of a table rule out, where a new snapshot keeps these rows.
pub(crate) const NEW_TARGET_HINT: &str =
    "load the table into a new --target: this one keeps its old rows even with --resnapshot";

/// The hint for column rules that the rows of the table rule out.
pub(crate) fn reload_hint(keeps_rows: bool) -> &'static str {
    if keeps_rows {
        "keep the column rules as they were, or load the table into a new --target: this one keeps its old rows even with --resnapshot"
    } else {
        "keep the column rules as they were, or reload the table with --resnapshot"
    }
}

/// Changes of a table's rows by other programs since its last load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForeignChanges {
    /// Version of the last load. `None`: the log no longer reaches back to it, so nothing is certain.
    pub since: Option<u64>,
    /// Version and operation of each commit that changed rows, oldest first.
    pub commits: Vec<(u64, Option<String>)>,
}

impl ForeignChanges {
    /// Maximum number of commits that a message lists.
    const LISTED: usize = 5;

    /// One sentence for people.
    pub fn described(&self) -> String {
        match self.since {
            Some(version) => format!("Another program changed rows since version {version}"),
            None => "The log no longer reaches back to the last load: another program may have changed rows".to_owned(),
        }
    }

    /// The commits, such as `3 (RESTORE), 4 (WRITE)`.
    pub fn commits_described(&self) -> String {
        let listed = self.commits.iter().take(Self::LISTED).map(|(version, operation)| match operation {
            Some(operation) => format!("{version} ({})", operation.escape_debug()),
            None => version.to_string(),
        });
        let more = self.commits.len().saturating_sub(Self::LISTED);
        let more = (more > 0).then(|| format!("{more} more"));
        listed.chain(more).collect::<Vec<_>>().join(", ")
    }

    /// The error that refuses an increment, of kind `Target`.
    pub fn refusal(&self, table: &TableRef) -> Error {
        let error = Error::new(Kind::Target, self.described()).with_field("table", table);
        let error = if self.commits.is_empty() { error } else { error.with_field("commits", self.commits_described()) };
        error.hint("reload the table with --resnapshot; to keep what the other program did, add --foreign-changes warn once")
    }
}

/// A table after one earlier load.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadRecord {
    /// Data as of.
    pub at: Timestamp,
    /// Id of the run.
    pub run_id: Option<String>,
    /// Rows, if known.
    pub rows: Option<u64>,
    /// Bytes of data files, if known.
    pub bytes: Option<u64>,
    /// Upserts in the change set.
    pub upserted: u64,
    /// Rows that deletes removed.
    pub deleted: u64,
}

/// Figures of one table.
#[derive(Debug, Clone, PartialEq)]
pub struct TableStatus {
    /// The table.
    pub table: TableRef,
    /// The bookmark.
    pub bookmark: Bookmark,
    /// Rows, if known without a scan.
    pub rows: Option<u64>,
    /// Number of data files, for lake tables.
    pub files: Option<u64>,
    /// Bytes of data files, or of the table and its indexes in a database.
    pub bytes: Option<u64>,
    /// Time of the last commit, by the target's clock.
    pub last_commit: Option<Timestamp>,
    /// Version of the target's log.
    pub version: Option<i64>,
    /// Versions and features of the Delta protocol.
    pub protocol: Option<String>,
    /// Table mode and treatment of deletes, for people.
    pub kept_as: Option<String>,
    /// Requirements of readers of the Delta log; `None` for targets that are read in another way.
    #[doc(hidden)]
    pub reader: Option<ReaderRequirement>,
    /// The description of the table.
    pub description: Option<String>,
    /// The columns, in order; empty if the target does not know them.
    #[doc(hidden)]
    pub columns: Vec<ColumnStatus>,
}

impl TableStatus {
    /// The status of a table of which only the bookmark is known.
    pub fn new(table: TableRef, bookmark: Bookmark) -> Self {
        Self {
            table,
            bookmark,
            rows: None,
            files: None,
            bytes: None,
            last_commit: None,
            version: None,
            protocol: None,
            kept_as: None,
            reader: None,
            description: None,
            columns: Vec::new(),
        }
    }
}

/// Requirements of a program that reads a Delta table.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct ReaderRequirement {
    /// The lowest reader version of the protocol.
    pub version: i64,
    /// The table features, sorted.
    pub features: Vec<String>,
}

/// A column as the target has it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ColumnStatus {
    /// The name.
    pub name: String,
    /// The type, for people.
    #[serde(rename = "type")]
    pub column_type: String,
    /// Whether it belongs to the key.
    pub is_key: bool,
    /// Whether nulls are allowed.
    pub nullable: bool,
    /// The description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}
