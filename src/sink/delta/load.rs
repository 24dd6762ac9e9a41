//! One load of one Delta table: data files are written as the changes arrive, and one commit makes all of them visible.

use std::collections::HashMap;
use std::time::Duration;

use deltalake::kernel::Action;

use crate::error::{Error, ErrorContext, Kind, Result};
use crate::model::Bookmark;
use crate::reduce::ChangeSet;
use crate::schema::TableMode;
use crate::sink::delta::distributed::coordinator;
use crate::sink::delta::log::file_actions::FileChanges;
use crate::sink::delta::log::table_log::{CommitFailure, TableLog};
use crate::sink::delta::log::table_state::TableState;
use crate::sink::delta::maintenance::vacuum;
use crate::sink::delta::modes::commit_plan::CommitPlan;
use crate::sink::delta::modes::context::LoadContext;
use crate::sink::delta::modes::local_executor::LocalExecutor;
use crate::sink::delta::modes::{append_log, scd2, upsert};
use crate::sink::delta::options::{DeltaOptions, IcebergView};
use crate::sink::{Executor, LoadKind, LoadPlan, LoadSummary, WriteError};
use crate::store::explained;

/// One load of one Delta table.
#[derive(Debug)]
pub(crate) struct DeltaLoad {
    context: LoadContext,
    written: Option<FileChanges>,
}

/// The result of a commit.
pub(crate) struct Committed {
    pub(crate) loaded: LoadSummary,
    /// Number of small files in the partition that has most of them.
    pub(crate) small_files: usize,
    /// What has to be done with the Iceberg view.
    pub(crate) iceberg: ViewChange,
    /// Retention of the vacuum that follows, if one is due.
    pub(crate) vacuum_after: Option<Duration>,
}

/// What a commit does to the Iceberg view of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ViewChange {
    None,
    Publish,
    Withdraw,
}

impl DeltaLoad {
    /// Starts a load; see [`LoadContext::begin`].
    pub(crate) async fn begin(options: DeltaOptions, log: TableLog, plan: LoadPlan) -> Result<Self> {
        Ok(Self { context: LoadContext::begin(options, log, plan).await?, written: None })
    }

    /// Writes the changes; see [`Load::write`](crate::sink::Load::write).
    pub(crate) async fn write(&mut self, changes: ChangeSet) -> Result<(), WriteError> {
        let load = &self.context;
        if self.written.is_some() {
            return Err(Error::new(Kind::Bug, "A load was given changes twice").into());
        }
        if changes.keys != load.keys {
            let message = "The key of the changes differs from that of the table";
            return Err(Error::new(Kind::Bug, message).with_field("table", &load.plan.table).into());
        }
        let written = if load.is_stale() {
            FileChanges::default()
        } else {
            match load.layout.mode {
                TableMode::Current => upsert::run(load, &mut LocalExecutor::new(load, changes)).await,
                TableMode::Changes => append_log::append(load, changes).await,
                TableMode::History => scd2::apply(load, changes).await,
            }
            .map_err(|error| error.map(|error| explained(error).with_field("table", &load.plan.table)))?
        };
        self.written = Some(written);
        Ok(())
    }

    /// See [`Load::can_distribute`](crate::sink::Load::can_distribute).
    pub(crate) fn can_distribute(&self) -> bool {
        self.written.is_none() && !self.context.is_stale() && coordinator::can_distribute(&self.context)
    }

    /// See [`Load::write_distributed`](crate::sink::Load::write_distributed).
    pub(crate) async fn write_distributed(&mut self, executor: &dyn Executor) -> Result<()> {
        let load = &self.context;
        let written = coordinator::write(load, executor).await.map_err(WriteError::into_error);
        self.written = Some(written.map_err(explained).with_field("table", &load.plan.table)?);
        Ok(())
    }

    /// Whether the table has another bookmark than the plan expected.
    pub(crate) fn is_superseded(&self) -> bool {
        self.context.is_stale()
    }

    /// Commits what was written; see [`Load::commit`](crate::sink::Load::commit).
    pub(crate) async fn commit(mut self: Box<Self>, reached: Bookmark) -> Result<Committed> {
        let Some(written) = self.written.take() else {
            return Err(Error::new(Kind::Bug, "A load was committed before it was given changes"));
        };
        let load = &self.context;
        // If the caller expected this bookmark and replaces the table, it wants the rows again.
        let is_reload = load.plan.kind == LoadKind::Replace && load.plan.expected == Some(reached);
        if load.bookmark() == Some(reached) && !is_reload {
            load.uncommitted.remove().await;
            let rows = load.state.as_ref().and_then(TableState::rows);
            return Ok(Committed {
                loaded: LoadSummary { rows, repeated: true, ..LoadSummary::default() },
                small_files: 0,
                iceberg: ViewChange::None,
                vacuum_after: None,
            });
        }
        if load.is_stale() {
            load.uncommitted.remove().await;
            return Err(conflict(load));
        }
        // A snapshot may be older than the table, because the service returns the newest one that it has. Then rows and bookmark go
        // back together, and the next increment brings the changes since.
        if let Some(present) = load.bookmark()
            && reached.at < present.at
            && !load.plan.is_snapshot
        {
            load.uncommitted.remove().await;
            return Err(Error::new(Kind::Conflict, "The result is older than the table")
                .with_field("table", &load.plan.table)
                .with_field("held", present.at)
                .with_field("reached", reached.at)
                .hint("run the command again; it continues from the table's new state"));
        }

        let plan = CommitPlan { load, written: &written, reached };
        let (columns, schema_changes) = plan.columns();
        if load.state.is_some()
            && let Err(error) = load.plan.layout.on_schema_change.check(&load.plan.table, &schema_changes)
        {
            load.uncommitted.remove().await;
            return Err(error);
        }
        let mut actions = plan.schema_actions(&columns)?;
        actions.extend(written.actions(load.files(), chrono::Utc::now().timestamp_millis())?);
        let vacuum = due_vacuum(load).await;
        let vacuum_after = vacuum.as_ref().and(load.options.vacuum_after);
        actions.extend(vacuum);
        let loaded = LoadSummary {
            upserted: written.upserted,
            deleted: written.deleted,
            rows: written.rows_after(load.files()),
            bytes_written: written.bytes_written(),
            schema_changes,
            warnings: load.design.column_choice.notes.clone(),
            ..LoadSummary::default()
        };
        let (operation, info) = (plan.operation(), plan.info(&loaded));

        // From here on the commit may be made even if this future is dropped, so the files must stay.
        let names = load.uncommitted.release();
        match load.log.commit(load.state.as_ref(), actions, Some(reached), operation, info).await {
            Ok(version) => {
                tracing::debug!(table = %load.plan.table, version, "Committed");
                Ok(Committed { loaded, small_files: small_files(load, &written), iceberg: view_change(load), vacuum_after })
            }
            Err(CommitFailure::Conflict) => {
                load.uncommitted.reclaim(names);
                load.uncommitted.remove().await;
                Err(conflict(load))
            }
            Err(CommitFailure::Refused(error)) => {
                load.uncommitted.reclaim(names);
                load.uncommitted.remove().await;
                Err(error)
            }
            Err(CommitFailure::Unknown(error)) => Err(explained(error)),
        }
    }

    /// Removes the files of the load.
    pub(crate) async fn abort(self: Box<Self>) -> Result<()> {
        self.context.uncommitted.remove().await;
        Ok(())
    }
}

/// Number of small files after the commit, in the partition that has most of them. Files of different partitions cannot be merged.
fn small_files(load: &LoadContext, written: &FileChanges) -> usize {
    let limit = load.options.small_file_bytes();
    let mut counts: HashMap<Option<&str>, usize> = HashMap::new();
    for (_, partition) in written.files_after(load.files()).filter(|(bytes, _)| *bytes < limit) {
        *counts.entry(partition).or_default() += 1;
    }
    counts.into_values().max().unwrap_or(0)
}

/// The action that records the vacuum of this load; `None` if none is due. A new table has nothing to remove.
async fn due_vacuum(load: &LoadContext) -> Option<Action> {
    let (retention, state) = (load.options.vacuum_after?, load.state.as_ref()?);
    match vacuum::record_if_due(&load.log, state, retention).await {
        Ok(record) => record,
        Err(error) => {
            tracing::warn!(table = %load.plan.table, %error, "Cannot read when the table was vacuumed; it is not vacuumed now");
            None
        }
    }
}

fn view_change(load: &LoadContext) -> ViewChange {
    match load.options.iceberg {
        IcebergView::Off => ViewChange::Withdraw,
        _ if load.has_iceberg_view() => ViewChange::Publish,
        _ => ViewChange::None,
    }
}

fn conflict(load: &LoadContext) -> Error {
    Error::new(Kind::Conflict, "Another run committed first")
        .with_field("table", &load.plan.table)
        .hint("run the command again; it continues from the table's new state")
}
