//! The context of one load in all table modes: the plan, the state of the table and its new design.

use std::sync::Arc;

use arrow::datatypes::DataType;

use crate::error::{Error, ErrorContext, Kind, Result};
use crate::model::Bookmark;
use crate::reduce::ChangeSet;
use crate::schema::{Deletes, TableMode};
use crate::sink::delta::log::active_file::ActiveFile;
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::foreign_changes::foreign_changes;
use crate::sink::delta::log::properties;
use crate::sink::delta::log::schema_evolution::is_convertible;
use crate::sink::delta::log::system_columns::{SystemColumn, TableLayout};
use crate::sink::delta::log::table_log::TableLog;
use crate::sink::delta::log::table_state::TableState;
use crate::sink::delta::merge::change_feed;
use crate::sink::delta::merge::file_rewrite::ExistingFiles;
use crate::sink::delta::merge::key_probe::{DeletionVectorRule, LookupOptions, MergeProbe};
use crate::sink::delta::merge::unique_keys::UniqueKeyCheck;
use crate::sink::delta::modes::change_batches::ChangeBatches;
use crate::sink::delta::modes::table_design::{TableDesign, default_partition};
use crate::sink::delta::options::{ChangeDataFeed, DeletionVectors, DeltaOptions, IcebergView, OnForeignChanges};
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::delta::write::partitioned_writer::TableWriter;
use crate::sink::delta::write::uncommitted_files::UncommittedFiles;
use crate::sink::{LoadKind, LoadPlan};

/// With [`DeletionVectors::Auto`], a table gets its first deletion vector only in a file of at least this part of the target size.
const FIRST_VECTOR_SHARE: u64 = 32;
/// With [`DeletionVectors::Auto`], only files of at least this part of the target size get deletion vectors.
const VECTOR_SHARE: u64 = 256;
/// Maximum share of deleted rows in a file, in percent: readers decode all rows, deleted or not.
const MAX_DELETED_PERCENT: u64 = 20;

/// The context of one load in all table modes.
///
/// If the plan expected another bookmark than the table has, the load is stale: it writes nothing, and its commit decides, because
/// only then it is known whether the same result was committed already.
#[derive(Debug)]
pub(crate) struct LoadContext {
    pub(crate) options: DeltaOptions,
    pub(crate) log: TableLog,
    pub(crate) plan: LoadPlan,
    /// State of the table; `None` if it does not exist.
    pub(crate) state: Option<TableState>,
    /// Names of the key columns.
    pub(crate) keys: Vec<String>,
    pub(crate) design: TableDesign,
    pub(crate) layout: TableLayout,
    pub(crate) uncommitted: UncommittedFiles,
}

impl LoadContext {
    /// Reads the state of the table and designs its schema. Kind `Target` if the folder holds something that daplake did not
    /// create or if other programs changed rows, `Schema` for a change that is not possible.
    pub(crate) async fn begin(options: DeltaOptions, log: TableLog, plan: LoadPlan) -> Result<Self> {
        let state = log.state().await?;
        Self::with_state(options, log, plan, state).await
    }

    /// As [`LoadContext::begin`], with the state of the table.
    pub(crate) async fn with_state(
        options: DeltaOptions,
        log: TableLog,
        plan: LoadPlan,
        state: Option<TableState>,
    ) -> Result<Self> {
        let keys: Vec<String> = plan.schema.key_names().into_iter().map(str::to_owned).collect();
        let uncommitted = UncommittedFiles::new(log.store(), log.folder.clone());
        let (design, layout) = (TableDesign::default(), TableLayout::default());
        let mut context = Self { options, log, plan, state, keys, design, layout, uncommitted };
        if !context.is_stale() {
            context.plan_table().await?;
        }
        if context.writes_change_feed() {
            context.plan_change_feed()?;
        }
        Ok(context)
    }

    /// The changes that a load would make to the columns of the existing table, one sentence each.
    pub(crate) async fn schema_changes(log: &TableLog, plan: &LoadPlan) -> Result<Vec<String>> {
        let Some(state) = log.state().await? else { return Ok(Vec::new()) };
        let keys: Vec<String> = plan.schema.key_names().into_iter().map(str::to_owned).collect();
        Ok(design(Some(&state), plan, &keys)?.1.changes)
    }

    async fn plan_table(&mut self) -> Result<()> {
        let table = &self.plan.table;
        let mut foreign = None;
        if let Some(state) = &self.state {
            state.check_writable(table)?;
            // A snapshot does not depend on existing rows.
            if !self.plan.is_snapshot {
                foreign = foreign_changes(&self.log, state).await?;
            }
        }
        (self.layout, self.design) = design(self.state.as_ref(), &self.plan, &self.keys).with_field("table", table)?;
        if let Some(foreign) = foreign {
            if self.options.on_foreign_changes == OnForeignChanges::Fail {
                return Err(foreign.refusal(table));
            }
            let commits = foreign.commits_described();
            let commits = if commits.is_empty() { commits } else { format!(" (commits {commits})") };
            let warning = format!("{}{commits}; the table may differ from the service", foreign.described());
            self.design.column_choice.notes.push(warning);
        }
        Ok(())
    }

    fn plan_change_feed(&mut self) -> Result<()> {
        self.relax_columns_for_feed();
        let is_supported = self.layout.mode == TableMode::Current && self.layout.deletes == Deletes::Remove;
        if !is_supported || self.design.purges_soft_deletes {
            return Err(Error::new(Kind::Unsupported, "A change data feed requires the mode `current` without soft deletes")
                .with_field("table", &self.plan.table)
                .hint("sync this table with --change-data-feed off"));
        }
        change_feed::check_names(&self.design.columns).with_field("table", &self.plan.table)
    }

    /// Whether the commit writes a change data feed.
    pub(crate) fn writes_change_feed(&self) -> bool {
        match self.options.change_data_feed {
            ChangeDataFeed::Unchanged => self.property(properties::CHANGE_DATA_FEED) == Some("true"),
            ChangeDataFeed::On => true,
            ChangeDataFeed::Off => false,
        }
    }

    /// Whether the table has an Iceberg view after the commit.
    pub(crate) fn has_iceberg_view(&self) -> bool {
        match self.options.iceberg {
            IcebergView::Unchanged => self.state.as_ref().is_some_and(TableState::has_iceberg_view),
            IcebergView::On => true,
            IcebergView::Off => false,
        }
    }

    /// The bookmark of the table.
    pub(crate) fn bookmark(&self) -> Option<Bookmark> {
        self.state.as_ref().map(|state| state.bookmark)
    }

    /// Whether the table has another bookmark than the plan expected.
    pub(crate) fn is_stale(&self) -> bool {
        self.bookmark() != self.plan.expected
    }

    /// Whether existing rows stay in the table when a snapshot is loaded.
    pub(crate) fn keeps_rows(&self) -> bool {
        !self.files().is_empty() && self.layout.keeps_rows()
    }

    /// The data files of the table.
    pub(crate) fn files(&self) -> &[Arc<ActiveFile>] {
        self.state.as_ref().map_or(&[], |state| &state.files)
    }

    /// The columns of the table before the load.
    pub(crate) fn old_columns(&self) -> &[LakeColumn] {
        self.state.as_ref().map_or(&[], |state| &state.columns)
    }

    /// The format of new files, for `writers` concurrent writers.
    pub(crate) fn format(&self, writers: usize) -> Arc<FileFormat> {
        Arc::new(FileFormat::new(&self.options, &self.log, &self.design.columns, &self.keys, writers))
    }

    /// The format of new files, for `writers` concurrent writers that get one partition after the other.
    pub(crate) fn format_for_ordered_rows(&self, writers: usize) -> Arc<FileFormat> {
        Arc::new(FileFormat::for_ordered_rows(&self.options, &self.log, &self.design.columns, &self.keys, writers))
    }

    /// A writer of new files.
    pub(crate) fn writer(&self, format: &Arc<FileFormat>) -> TableWriter {
        TableWriter::new(Arc::clone(format), self.uncommitted.registry())
    }

    /// The key columns.
    pub(crate) fn key_columns(&self) -> Vec<LakeColumn> {
        LakeColumn::named(&self.design.columns, &self.keys)
    }

    /// Types of the key columns in data files.
    pub(crate) fn key_types(&self) -> Vec<DataType> {
        LakeColumn::file_types(&self.key_columns())
    }

    /// A system column of the table. Kind `Target` if another program removed it.
    pub(crate) fn system_column(&self, column: SystemColumn) -> Result<LakeColumn> {
        column.find(&self.design.columns).cloned().ok_or_else(|| missing_column(column))
    }

    /// A probe of the existing files.
    pub(crate) fn probe(&self, options: LookupOptions) -> MergeProbe {
        MergeProbe::new(self.log.store(), self.files(), self.key_columns(), options, &self.options.engine)
    }

    /// The existing files, for actions on them.
    pub(crate) fn existing_files<'a>(&'a self, format: &'a Arc<FileFormat>) -> ExistingFiles<'a> {
        ExistingFiles {
            files: self.files(),
            format,
            engine: &self.options.engine,
            registry: self.uncommitted.registry(),
            target_file_bytes: self.options.target_file_bytes,
        }
    }

    /// The batches of a change set. A repeated key is an error, unless the change set was deduplicated.
    pub(crate) fn batches(&self, changes: ChangeSet) -> Result<ChangeBatches> {
        let unique = self.unique_keys(&changes)?;
        Ok(ChangeBatches::new(changes, unique, self.options.engine.partitions()))
    }

    /// The check that a change set needs while it is written; `None` if it was deduplicated.
    pub(crate) fn unique_keys(&self, changes: &ChangeSet) -> Result<Option<UniqueKeyCheck>> {
        if changes.reduced {
            return Ok(None);
        }
        Ok(Some(UniqueKeyCheck::new(&self.key_types(), &self.options.engine)?))
    }

    /// A property of the table.
    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        self.state.as_ref()?.property(name)
    }

    /// Whether the table may get no more deletion vectors: by the options of this load, or of an earlier one if they leave it open.
    pub(crate) fn forbids_deletion_vectors(&self) -> bool {
        match self.options.deletion_vectors {
            DeletionVectors::On => false,
            DeletionVectors::Auto => {
                self.property(properties::DELETION_VECTORS) == Some("false")
                    || self.property(properties::NO_DELETION_VECTORS).is_some()
            }
            DeletionVectors::Off => true,
        }
    }

    /// Which files get deletion vectors; `None` if the table may not have any.
    pub(crate) fn deletion_vector_rule(&self) -> Option<DeletionVectorRule> {
        if self.forbids_deletion_vectors() {
            return None;
        }
        let target = self.options.target_file_bytes;
        let min_file_bytes = match (self.options.deletion_vectors, self.property(properties::DELETION_VECTORS)) {
            (DeletionVectors::On, _) => 0,
            // The table already requires readers that support deletion vectors.
            (_, Some("true")) => target / VECTOR_SHARE,
            _ => target / FIRST_VECTOR_SHARE,
        };
        Some(DeletionVectorRule { min_file_bytes, max_deleted_percent: MAX_DELETED_PERCENT })
    }

    /// Whether a replacement writes each old row as a delete to the change data feed. Without that, some readers take the rows of a
    /// removed file's deletion vector for the deleted ones. Rows with another key cannot be written.
    pub(crate) fn feeds_old_rows(&self) -> bool {
        let Some(state) = &self.state else { return false };
        let replaces = self.plan.kind == LoadKind::Replace && !self.layout.keeps_rows();
        let has_key = |key: &LakeColumn| {
            let old = state.columns.iter().find(|old| old.physical == key.physical && state.key.contains(&old.name));
            old.is_some_and(|old| is_convertible(&old.kind, &key.kind))
        };
        replaces && state.files.iter().any(|file| file.deletion_vector.is_some()) && self.key_columns().iter().all(has_key)
    }

    /// Makes columns nullable that old rows cannot fill, if these rows are written to the change data feed.
    fn relax_columns_for_feed(&mut self) {
        if !self.feeds_old_rows() {
            return;
        }
        let old = self.state.as_ref().map_or(&[][..], |state| &state.columns);
        let fits = |column: &LakeColumn| {
            old.iter().any(|old| old.physical == column.physical && is_convertible(&old.kind, &column.kind))
        };
        for column in self.design.columns.iter_mut().filter(|column| !self.keys.contains(&column.name)) {
            if !column.nullable && !fits(column) {
                column.nullable = true;
                self.design.changes.push(format!("`{}` became nullable", column.name));
            }
        }
    }
}

/// The position of a system column in the files of a format. Kind `Target` if another program removed the column.
pub(crate) fn position_of(column: SystemColumn, format: &FileFormat) -> Result<usize> {
    column.position(&format.columns).ok_or_else(|| missing_column(column))
}

fn missing_column(column: SystemColumn) -> Error {
    Error::new(Kind::Target, "The table lacks a column that its mode requires").with_field("column", column.name())
}

/// Layout and design of the table after a load.
fn design(state: Option<&TableState>, plan: &LoadPlan, keys: &[String]) -> Result<(TableLayout, TableDesign)> {
    let present = state.map(|state| TableLayout::from_properties(&state.configuration));
    let layout = TableLayout::resolve(present.as_ref(), &plan.layout, default_partition(plan))?;
    let design = TableDesign::new(state, plan, keys, present.as_ref(), &layout)?;
    Ok((layout, design))
}
