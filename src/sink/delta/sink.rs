//! [`DeltaSink`]: the sink of Delta tables and its operations outside of loads.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::catalog::{MemorySchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt, stream};
use url::Url;

use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::model::{Bookmark, Namespace, TableRef};
use crate::redact::SafeUrl;
use crate::reduce::ChangeSet;
use crate::schema::{ColumnRecord, Nested};
use crate::sink::delta::iceberg;
use crate::sink::delta::load::{DeltaLoad, ViewChange};
use crate::sink::delta::log::foreign_changes::foreign_changes;
use crate::sink::delta::log::protocol;
use crate::sink::delta::log::system_columns::{SystemColumn, TableLayout};
use crate::sink::delta::log::table_log::TableLog;
use crate::sink::delta::log::table_state::TableState;
use crate::sink::delta::maintenance::catalog_entry;
use crate::sink::delta::maintenance::commit_history::{self, Commit};
use crate::sink::delta::maintenance::optimize::{self, Optimized, Scope};
use crate::sink::delta::maintenance::time_travel::{self, At};
use crate::sink::delta::maintenance::vacuum::{self, Vacuumed};
use crate::sink::delta::maintenance::verify::{self, Differences};
use crate::sink::delta::maintenance::views;
use crate::sink::delta::modes::context::LoadContext;
use crate::sink::delta::options::{DeltaOptions, OnForeignChanges};
use crate::sink::{
    Capabilities, CatalogEntry, CommittedState, Executor, LakeFeatures, Layout, Load, LoadPlan, LoadRecord, LoadSummary, Sink,
    TableProblems, TableStatus, WriteError,
};
use crate::store::{Place, StoreOptions, explained};

/// Tables that are checked at the same time.
const TABLES_AT_ONCE: usize = 16;

/// Delta tables in a local folder or an object store.
///
/// Loads of the same table may run concurrently, in this process or others: the first commit wins, the other load fails with kind
/// `Conflict`. A load that is aborted or dropped removes its files. A killed process leaves files that no commit names and no reader
/// sees.
#[derive(Debug, Clone)]
pub struct DeltaSink {
    pub(crate) place: Place,
    pub(crate) options: DeltaOptions,
}

impl DeltaSink {
    /// Tables at a target. Reads and writes nothing.
    pub fn new(place: Place, options: DeltaOptions) -> Self {
        Self { place, options }
    }

    /// Tables below a local folder, which need not exist yet. Reads and writes nothing.
    pub fn at_path(root: &Path, options: DeltaOptions) -> Result<Self> {
        Ok(Self::new(Place::local(root)?, options))
    }

    /// Tables below a URL that [`Place::open`] accepts. Reads and writes nothing.
    pub fn open(location: &Url, store: &StoreOptions, options: DeltaOptions) -> Result<Self> {
        Ok(Self::new(Place::open(location, store)?, options))
    }

    /// The log of a table.
    pub(crate) fn log(&self, table: &TableRef) -> Result<TableLog> {
        Ok(TableLog::new(&self.place, table)?.for_parquet_folder(self.options.is_parquet_folder))
    }

    /// Checks that a load can write to the table, if it exists. Kind `Target` if daplake did not create it or if other programs changed it.
    pub(crate) async fn check_table(&self, table: &TableRef) -> Result<()> {
        let log = self.log(table)?;
        let Some(state) = log.state().await.map_err(explained)? else { return Ok(()) };
        state.check_writable(table)?;
        if self.options.on_foreign_changes == OnForeignChanges::Fail
            && let Some(foreign) = foreign_changes(&log, &state).await.map_err(explained)?
        {
            return Err(foreign.refusal(table));
        }
        Ok(())
    }

    /// Compacts the files of a table, with one commit per group of files. Kind `NotFound` if the table does not exist, `Conflict` if
    /// other commits removed files meanwhile; groups that were committed stay.
    pub async fn optimize(&self, table: &TableRef, scope: Scope) -> Result<Optimized> {
        optimize::optimize(&self.options, &self.log(table)?, scope).await
    }

    /// The files that [`Self::vacuum`] would remove now.
    pub async fn vacuum_preview(&self, table: &TableRef, retention: Duration) -> Result<Vacuumed> {
        vacuum::preview(&self.log(table)?, retention).await
    }

    /// Removes the files of a table that were replaced, or left by a killed run, longer than `retention` ago. Versions that are
    /// older can no longer be read. Kind `Usage` if `retention` is below [`MIN_RETENTION`](crate::sink::delta::MIN_RETENTION), `NotFound` if
    /// the table does not exist. Files that cannot be removed are not in the result; a warning is logged for each.
    pub async fn vacuum(&self, table: &TableRef, retention: Duration) -> Result<Vacuumed> {
        vacuum::vacuum(&self.log(table)?, retention).await
    }

    /// The newest commits of a table, at most `limit`, newest first; fewer if the log starts later. Kind `NotFound` if the table does
    /// not exist.
    pub async fn history(&self, table: &TableRef, limit: usize) -> Result<Vec<Commit>> {
        commit_history::history(&self.log(table)?, limit).await
    }

    /// How the table stores nested columns. Kind `NotFound` if the table does not exist.
    pub async fn nested(&self, table: &TableRef) -> Result<Nested> {
        Ok(self.log(table)?.existing_state().await?.nested())
    }

    /// Which columns of the table are dropped or hashed. Kind `NotFound` if the table does not exist.
    pub async fn columns(&self, table: &TableRef) -> Result<ColumnRecord> {
        Ok(self.log(table)?.existing_state().await?.column_record())
    }

    /// Compares the rows of a table with those of `fresh`, a whole and deduplicated snapshot. Rows are compared as multisets: a row
    /// that the table has twice is surplus once. Keys in `changed`, which changed between the two, are ignored, and so are columns
    /// that only one side has. Counts all differences and names at most `limit` keys. Kind `NotFound` if the table does not exist,
    /// `Unsupported` for a log of changes.
    pub async fn differences(
        &self,
        table: &TableRef,
        fresh: ChangeSet,
        changed: Option<ChangeSet>,
        limit: usize,
    ) -> Result<Differences> {
        verify::differences(&self.log(table)?, &self.options.engine, fresh, changed, limit).await
    }

    /// An earlier version of the table, for a query. Kind `NotFound` if the table or the version does not exist.
    pub async fn provider_at(&self, table: &TableRef, at: At) -> Result<Arc<dyn TableProvider>> {
        time_travel::provider_at(&self.log(table)?, at).await
    }

    /// The current version of the table, for a query. Kind `NotFound` if the table does not exist.
    pub async fn provider(&self, table: &TableRef) -> Result<Arc<dyn TableProvider>> {
        time_travel::provider(&self.log(table)?).await
    }

    /// Registers the object store of the target with a session, which can then read data files.
    pub fn prepare(&self, session: &SessionContext) {
        if self.place.folder().is_none() {
            let (url, store) = self.place.by_url();
            session.register_object_store(url, store);
        }
    }

    /// Registers the tables of one namespace or of all as `namespace.table`. Returns their names.
    pub async fn register(&self, session: &SessionContext, namespace: Option<&Namespace>) -> Result<Vec<TableRef>> {
        self.prepare(session);
        let tables = self.list(namespace).await?;
        let defaults = session.state().config_options().catalog.default_catalog.clone();
        let catalog = session.catalog(&defaults).ok_or_else(|| Error::new(Kind::Bug, "The session has no catalog"))?;
        let namespaces: BTreeSet<&str> = tables.iter().map(|table| table.namespace.as_str()).collect();
        for namespace in namespaces {
            if catalog.schema(namespace).is_none() {
                let schema = Arc::new(MemorySchemaProvider::new());
                catalog.register_schema(namespace, schema).context(Kind::Bug, "A namespace cannot be registered")?;
            }
        }
        for table in &tables {
            let provider = self.provider(table).await?;
            let name = TableReference::partial(table.namespace.as_str(), table.table.as_str());
            session
                .register_table(name, provider)
                .context(Kind::Bug, "A table cannot be registered")
                .with_field("table", table)?;
        }
        Ok(tables)
    }
}

/// Checks tables, several at the same time. Returns the errors.
pub(crate) async fn check_each<F>(tables: &[TableRef], check: impl Fn(TableRef) -> F) -> Vec<Error>
where
    F: Future<Output = Result<()>>,
{
    let checks = stream::iter(tables.iter().cloned()).map(|table| {
        let checked = check(table.clone());
        async move { checked.await.with_field("table", table).err() }
    });
    checks.buffered(TABLES_AT_ONCE).filter_map(std::future::ready).collect().await
}

/// Names of the columns that are not system columns.
fn own_columns(state: &TableState) -> Vec<String> {
    let own = state.columns.iter().filter(|column| SystemColumn::of(column).is_none());
    own.map(|column| column.name.clone()).collect()
}

#[async_trait]
impl Sink for DeltaSink {
    fn location(&self) -> &SafeUrl {
        self.place.location()
    }

    async fn check(&self) -> Result<()> {
        self.place.check().await
    }

    async fn committed(&self, table: &TableRef) -> Result<Option<CommittedState>> {
        let log = self.log(table)?;
        let Some(state) = log.state().await.map_err(explained)? else { return Ok(None) };
        let layout = TableLayout::from_properties(&state.configuration);
        let foreign_changes = match self.options.on_foreign_changes {
            OnForeignChanges::Fail => foreign_changes(&log, &state).await.map_err(explained)?,
            OnForeignChanges::Warn => None,
        };
        Ok(Some(CommittedState {
            mode: layout.mode,
            keeps_rows: layout.keeps_rows() && !state.files.is_empty(),
            foreign_changes,
            has_iceberg_view: state.has_iceberg_view(),
            catalog_fingerprint: self.suits_catalogs().then(|| catalog_entry::entry_of(&log, &state).fingerprint()),
            known_columns: Some(own_columns(&state)),
            ..CommittedState::new(state.bookmark, state.column_record())
        }))
    }

    /// Skips folders without a Delta log and tables that daplake did not create.
    async fn list(&self, namespace: Option<&Namespace>) -> Result<Vec<TableRef>> {
        let root = self.place.root();
        let namespaces = match namespace {
            Some(namespace) => vec![namespace.as_str().to_owned()],
            None => self.place.folders_in(root).await?,
        };
        let mut candidates = Vec::new();
        for namespace in namespaces {
            if !TableRef::new(namespace.as_str(), "x").is_path_safe() {
                continue;
            }
            for name in self.place.folders_in(&root.clone().join(namespace.as_str())).await? {
                let table = TableRef::new(namespace.as_str(), name.as_str());
                if table.is_path_safe() {
                    candidates.push((self.log(&table)?, table));
                }
            }
        }
        let checks = stream::iter(candidates).map(|(log, table)| async move {
            // A table with a broken log is listed, and reported when it is read; it must not hide all the others.
            log.is_ours().await.unwrap_or(true).then_some(table)
        });
        let checked = checks.buffer_unordered(TABLES_AT_ONCE);
        let mut tables: Vec<TableRef> = checked.filter_map(std::future::ready).collect().await;
        tables.sort();
        Ok(tables)
    }

    async fn status(&self, table: &TableRef) -> Result<Option<TableStatus>> {
        let log = self.log(table)?;
        let Some(state) = log.state().await.map_err(explained)? else { return Ok(None) };
        Ok(Some(TableStatus {
            table: table.clone(),
            bookmark: state.bookmark,
            rows: state.rows(),
            files: Some(state.files.len() as u64),
            bytes: Some(state.files.iter().map(|file| file.size).sum()),
            last_commit: log.committed_at(state.version).await,
            version: i64::try_from(state.version).ok(),
            protocol: Some(protocol::describe(&state.protocol)),
            kept_as: Some(TableLayout::from_properties(&state.configuration).describe()),
            reader: Some(protocol::reader_requirement(&state.protocol)),
            description: state.metadata["description"].as_str().map(str::to_owned),
            columns: state.columns.iter().map(|column| column.status(state.key.contains(&column.name))).collect(),
        }))
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities { checks_unique_keys: true, deduplicates_first_load: true, lake: Some(self), ..Capabilities::default() }
    }

    /// A commit that lost against a compaction, for example.
    fn is_retryable(&self, error: &Error) -> bool {
        error.kind() == Kind::Conflict
    }

    async fn validate_layout(&self, table: &TableRef, wanted: &Layout) -> Result<()> {
        if !wanted.is_chosen() {
            return Ok(());
        }
        let state = self.log(table)?.state().await.map_err(explained)?;
        let present = state.map(|state| TableLayout::from_properties(&state.configuration));
        TableLayout::resolve(present.as_ref(), wanted, None).map(|_| ())
    }

    async fn check_plan(&self, mut plan: LoadPlan) -> Result<()> {
        let log = self.log(&plan.table)?;
        let state = log.state().await.map_err(explained)?;
        if let Some(state) = &state {
            plan.expected = Some(state.bookmark);
            plan.nested = state.nested();
        }
        let table = plan.table.clone();
        let planned = LoadContext::with_state(self.options.clone(), log, plan, state).await;
        planned.map(drop).map_err(explained).with_field("table", table)
    }

    async fn check_tables(&self, tables: &[TableRef]) -> Result<TableProblems> {
        let failures = check_each(tables, |table| async move { self.check_table(&table).await }).await;
        Ok(TableProblems { failures, warnings: Vec::new() })
    }

    async fn schema_changes(&self, plan: &LoadPlan) -> Result<Vec<String>> {
        let log = self.log(&plan.table)?;
        LoadContext::schema_changes(&log, plan).await.map_err(explained).with_field("table", &plan.table)
    }

    async fn begin(&self, plan: LoadPlan) -> Result<Box<dyn Load>> {
        let log = self.log(&plan.table)?;
        let table = plan.table.clone();
        let begun = DeltaLoad::begin(self.options.clone(), log.clone(), plan).await;
        let load = Box::new(begun.map_err(explained).with_field("table", table)?);
        Ok(Box::new(MaintainedLoad { load, log, options: self.options.clone() }))
    }
}

#[async_trait]
impl LakeFeatures for DeltaSink {
    async fn load_history(&self, table: &TableRef, limit: usize) -> Result<Vec<LoadRecord>> {
        commit_history::past_loads(&self.log(table)?, limit).await.map_err(explained)
    }

    async fn stored_bytes(&self, table: &TableRef) -> Result<u64> {
        let store = self.log(table)?.store();
        let sizes = store.list(None).try_fold(0, |sum, object| std::future::ready(Ok(sum + object.size)));
        sizes.await.context(Kind::Target, "The files of the table cannot be listed").map_err(explained)
    }

    async fn write_views(&self) -> Result<()> {
        views::write_delta_views(&self.place, &self.list(None).await?).await
    }

    async fn publish_iceberg(&self, table: &TableRef) -> Result<()> {
        iceberg::publish(&self.log(table)?).await.map_err(explained)
    }

    fn suits_catalogs(&self) -> bool {
        !self.options.is_parquet_folder
    }

    async fn catalog_entry(&self, table: &TableRef) -> Result<Option<CatalogEntry>> {
        catalog_entry::catalog_entry(&self.log(table)?).await.map_err(explained)
    }
}

/// A load that maintains the table after its commit: it compacts small files if there are too many, completes the Iceberg view, and removes
/// old files if that is due. The load succeeds whether or not this does.
struct MaintainedLoad {
    load: Box<DeltaLoad>,
    log: TableLog,
    options: DeltaOptions,
}

#[async_trait]
impl Load for MaintainedLoad {
    async fn write(&mut self, changes: ChangeSet) -> Result<(), WriteError> {
        self.load.write(changes).await
    }

    fn can_distribute(&self) -> bool {
        self.load.can_distribute()
    }

    async fn write_distributed(&mut self, executor: &dyn Executor) -> Result<()> {
        self.load.write_distributed(executor).await
    }

    fn is_superseded(&self) -> bool {
        self.load.is_superseded()
    }

    async fn commit(self: Box<Self>, reached: Bookmark) -> Result<LoadSummary> {
        let Self { load, log, options } = *self;
        let mut committed = load.commit(reached).await?;
        if options.compact_after > 0 && committed.small_files >= options.compact_after as usize {
            let table = &log.table;
            match optimize::compact_small_files(&options, &log).await {
                Ok(done) => {
                    tracing::debug!(table = %table, removed = done.files_removed, added = done.files_added, "Compacted small files")
                }
                // The other run compacts the files when they are too many again.
                Err(error) if error.kind() == Kind::Conflict => {
                    tracing::debug!(table = %table, error = %error, "Another run changed the table before its small files were compacted")
                }
                // The load is committed whether or not this succeeds.
                Err(error) => {
                    tracing::warn!(table = %table, error = %error, "Could not compact small files; the load succeeded")
                }
            }
        }
        let changed = match committed.iceberg {
            ViewChange::None => Ok(()),
            ViewChange::Publish => iceberg::publish(&log).await,
            ViewChange::Withdraw => iceberg::withdraw(&log).await,
        };
        if let Err(error) = changed {
            tracing::warn!(table = %log.table, %error, "Could not write the Iceberg metadata; the load succeeded");
            let note = match error.kind() {
                Kind::Unsupported => error.message().to_owned(),
                _ => "the Iceberg metadata could not be written; the next run writes it".to_owned(),
            };
            committed.loaded.warnings.push(note);
        }
        if let Some(retention) = committed.vacuum_after {
            match vacuum::vacuum(&log, retention).await {
                Ok(done) => {
                    tracing::debug!(table = %log.table, files = done.files.len(), bytes = done.bytes, "Removed old files")
                }
                Err(error) => {
                    tracing::warn!(table = %log.table, %error, "Could not remove old files; the load succeeded");
                    let note = "old files could not be removed; a later run tries again, or `daplake vacuum`";
                    committed.loaded.warnings.push(note.to_owned());
                }
            }
        }
        Ok(committed.loaded)
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.load.abort().await
    }
}
