//! The state of one load.

use std::collections::HashMap;
use std::sync::Arc;

use super::definition;
use super::findings::Findings;
use crate::error::Result;
use crate::sink::sql::connection::Connection;
use crate::sink::sql::database::Database;
use crate::sink::sql::dialect::{Dependent, SqlTable, Statement};
use crate::sink::{LoadKind, LoadPlan, LoadSummary, WriteError};

/// The hint for changes that the rows of a table rule out, where a new snapshot keeps these rows.
pub(super) const KEPT_ROWS_HINT: &str =
    "load the table into another database, or remove this one with dropdb and load it again: --resnapshot keeps its old rows";

/// Ids of the values of one lookup table.
pub(super) type Ids = HashMap<String, i32>;

/// One load of one table.
///
/// A new table receives its rows directly. All other rows go through a staging table of the session, so that readers of the table are not
/// disturbed before the commit.
pub(in crate::sink::sql) struct SqlLoad {
    pub(super) database: Arc<Database>,
    pub(super) session: Box<dyn Connection>,
    pub(super) plan: LoadPlan,
    /// The wanted table; from the schema change on, the table as it is.
    pub(super) table: SqlTable,
    pub(super) state: State,
    /// The staging table exists. A load without rows needs none.
    pub(super) has_stage: bool,
    /// Names and values of the enumeration types at the beginning of the load.
    pub(super) enumerations: Vec<(String, String)>,
    /// The session holds the table's lock.
    pub(super) holds_lock: bool,
    /// This load created the table, and no rollback removes it.
    pub(super) created_table: bool,
    /// Old rows stay in the table when a new snapshot is loaded.
    pub(super) keeps_rows: bool,
    /// The table exists and its columns follow [`OnSchemaChange`](crate::sink::OnSchemaChange).
    pub(super) is_frozen: bool,
    /// Names of enumeration types that this transaction created; no other session sees them yet.
    pub(super) created_enumerations: Vec<String>,
    /// NaN and infinities that became null.
    pub(super) non_finite: u64,
    pub(super) loaded: LoadSummary,
    /// Values of the rows that exceed the schema, by column.
    pub(super) findings: Vec<Findings>,
    /// Recreated materialized views that get their rows before the commit, each before those that use it.
    pub(super) to_populate: Vec<Dependent>,
    /// Statements of the user ran in the session.
    pub(super) ran_statements_of_user: bool,
    /// Ids of lookup tables, by column.
    pub(super) ids: HashMap<String, Ids>,
}

/// How far a load has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No changes were given yet.
    Planned,
    /// The table has another bookmark than the plan expects; the changes are ignored.
    Superseded,
    /// This load created the table, and the rows are in it.
    Direct,
    /// The changes, if there are any, are in the staging table.
    Staged {
        /// All old rows are removed already.
        is_cleared: bool,
    },
}

impl SqlLoad {
    /// How the load changes rows: as planned, except for a snapshot in a table that keeps old rows.
    pub(super) fn row_kind(&self) -> LoadKind {
        if self.keeps_rows { LoadKind::Merge } else { self.plan.kind }
    }

    /// Names of the key columns in the batches.
    pub(super) fn keys(&self) -> Vec<String> {
        self.table.keys().map(|column| column.source.clone()).collect()
    }

    /// Runs statements, in order.
    pub(super) async fn run(&mut self, statements: &[Statement]) -> Result<()> {
        definition::run(self.session.as_mut(), statements).await
    }

    /// Runs schema statements about objects that others may use; see [`definition`].
    pub(super) async fn define(&mut self, statements: &[Statement]) -> Result<()> {
        definition::define(self.session.as_mut(), self.database.dialect(), &self.table, statements).await
    }

    /// Makes the caller load the changes again through the staging table, because the rows do not fit the table that this
    /// load created and cannot change under them.
    pub(super) fn restart_staged(&self) -> WriteError {
        self.database.stage_from_now_on(&self.plan.table);
        WriteError::Restart
    }
}
