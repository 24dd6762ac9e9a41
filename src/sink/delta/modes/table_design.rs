//! The schema that a table gets from a load: key, system columns and the columns of the service, evolved from the present ones.

use crate::error::{Error, Kind, Result};
use crate::schema::{ColumnType, Deletes, Followed, PartitionBy, PartitionUnit, lake_schema};
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::partition_column::can_partition_by;
use crate::sink::delta::log::schema_evolution::{apply_case_changes, check_key, check_names, evolve, map_columns};
use crate::sink::delta::log::system_columns::{SystemColumn, TableLayout};
use crate::sink::delta::log::table_state::TableState;
use crate::sink::{LoadKind, LoadPlan, NEW_TARGET_HINT, reload_hint, reserved_name};

/// The column of log tables with the time of the event.
const LOG_TIME: &str = "timestamp";

/// The schema that a table gets from a load. Columns that turn out to have nulls are relaxed when the load commits.
#[derive(Debug, Default)]
pub(crate) struct TableDesign {
    /// Columns, the partition column included.
    pub(crate) columns: Vec<LakeColumn>,
    /// Schema changes, one sentence each.
    pub(crate) changes: Vec<String>,
    /// Whether all existing files must be rewritten.
    pub(crate) rewrites: bool,
    /// Whether soft-deleted rows are removed, because the table no longer has soft deletes.
    pub(crate) purges_soft_deletes: bool,
    /// Whether columns are mapped.
    pub(crate) is_mapped: bool,
    /// The highest column id in use.
    pub(crate) max_column_id: i64,
    /// Columns that are dropped or hashed, and warnings about them.
    pub(crate) column_choice: Followed,
}

/// The partitions of a new table by default: log tables are partitioned by the day of the event.
pub(crate) fn default_partition(plan: &LoadPlan) -> Option<PartitionBy> {
    let column = plan.schema.columns().find(|column| column.name == LOG_TIME && column.column_type == ColumnType::Timestamp)?;
    plan.table.is_log().then(|| PartitionBy { unit: PartitionUnit::Day, column: column.name.clone() })
}

impl TableDesign {
    /// The design of a table with the state `state` and the layout `present` after a load. Kind `Schema` for a change that is not
    /// possible.
    pub(crate) fn new(
        state: Option<&TableState>,
        plan: &LoadPlan,
        keys: &[String],
        present: Option<&TableLayout>,
        layout: &TableLayout,
    ) -> Result<Self> {
        let wanted = wanted_columns(state, plan, keys, layout)?;
        let column_choice = Followed { record: plan.layout.columns.clone(), notes: Vec::new() };
        let mut design = match state {
            None => Self { columns: wanted, column_choice, ..Self::default() },
            Some(state) => Self::evolved(state, plan, keys, &wanted, present, layout)?,
        };
        check_names(&design.columns)?;
        let (is_mapped, max_column_id) = state.map_or((false, 0), TableState::mapping);
        (design.is_mapped, design.max_column_id) = map_columns(&mut design.columns, is_mapped, max_column_id);
        Ok(design)
    }

    fn evolved(
        state: &TableState,
        plan: &LoadPlan,
        keys: &[String],
        wanted: &[LakeColumn],
        present: Option<&TableLayout>,
        layout: &TableLayout,
    ) -> Result<Self> {
        let keeps_rows = !state.files.is_empty() && layout.keeps_rows();
        let kind = if plan.kind == LoadKind::Merge || keeps_rows { LoadKind::Merge } else { LoadKind::Replace };
        // If a new snapshot keeps old rows, a re-snapshot does not help.
        let stays = plan.table.is_log() || keeps_rows;
        let hinted = |hint: &'static str| move |error: Error| if stays { error.hint_instead(hint) } else { error };
        check_key(&state.key, keys, kind).map_err(hinted(NEW_TARGET_HINT))?;
        let mut old = state.columns.clone();
        let renamed = apply_case_changes(&mut old, wanted);
        let mut column_choice = Followed { record: plan.layout.columns.clone(), notes: Vec::new() };
        match kind {
            // No old row stays, so dropped columns need not stay as nulls.
            LoadKind::Replace => old.retain(|column| !column_choice.record.dropped.contains(&column.name)),
            LoadKind::Merge => {
                let has = |name: &str| old.iter().any(|column| column.name == name);
                let arrives = |name: &str| plan.schema.columns().any(|column| column.name == name);
                let record = state.column_record().renamed(&renamed.names);
                column_choice = record.follow(&plan.layout.columns, has, arrives).map_err(hinted(reload_hint(stays)))?;
            }
        }
        let deletes_before = present.map_or(Deletes::Remove, |present| present.deletes);
        let purges_soft_deletes = deletes_before == Deletes::Mark && layout.deletes == Deletes::Remove;
        old.retain(|column| !purges_soft_deletes || SystemColumn::of(column) != Some(SystemColumn::Deleted));
        let mut evolved = evolve(&old, wanted, kind).map_err(hinted(NEW_TARGET_HINT))?;
        evolved.changes.splice(0..0, renamed.changes);
        if purges_soft_deletes {
            evolved.changes.push("soft-deleted rows are removed, and the column `_deleted` with them".into());
        }
        // A replacement of all rows may make a nullable column a key.
        evolved.columns.iter_mut().filter(|column| keys.contains(&column.name)).for_each(|column| column.nullable = false);
        Ok(Self {
            columns: evolved.columns,
            changes: evolved.changes,
            // Readers would see nulls in `_deleted` of files without that column.
            rewrites: evolved.rewrites || renamed.rewrites || deletes_before != layout.deletes,
            purges_soft_deletes,
            column_choice,
            ..Self::default()
        })
    }
}

/// Checks that a new table can be partitioned by a column.
fn check_partition_source(columns: &[LakeColumn], by: &PartitionBy) -> Result<()> {
    let refusal = match columns.iter().find(|column| column.name == by.column) {
        None => Error::new(Kind::Schema, "The table does not have the column of --partition-by"),
        Some(column) if !can_partition_by(column) => Error::new(Kind::Schema, "The table cannot be partitioned by this column")
            .with_field("type", column.kind.describe()),
        Some(_) => return Ok(()),
    };
    Err(refusal.with_field("column", &by.column))
}

/// The columns of the service with the system columns of the layout behind the key.
fn wanted_columns(
    state: Option<&TableState>,
    plan: &LoadPlan,
    keys: &[String],
    layout: &TableLayout,
) -> Result<Vec<LakeColumn>> {
    let mut wanted = LakeColumn::from_fields(lake_schema(&plan.schema, plan.nested).fields())?;
    wanted.iter_mut().filter(|column| keys.contains(&column.name)).for_each(|column| column.nullable = false);
    let system = layout.columns();
    let is_taken = |column: &&LakeColumn| system.iter().any(|system| system.name.eq_ignore_ascii_case(&column.name));
    if let Some(column) = wanted.iter().find(is_taken) {
        return Err(reserved_name(&plan.table, &column.name, &layout.describe()));
    }
    if let (None, Some(by)) = (state, &layout.partition_by) {
        check_partition_source(&wanted, by).map_err(|error| {
            error.hint(format!(
                "use a timestamp or date column that is not hashed; `daplake schema --namespace {} --table {}` lists the columns",
                plan.table.namespace, plan.table.table
            ))
        })?;
    }
    wanted.splice(keys.len()..keys.len(), system);
    Ok(wanted)
}
