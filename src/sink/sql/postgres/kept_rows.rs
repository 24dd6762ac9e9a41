//! Tables with soft deletes and histories: the statements in place of those that remove and replace rows, and the guard against programs
//! that drop the system columns.

use super::names::{EQUAL, STAGE, alter, quote, table_name};
use crate::schema::{Deletes, TableMode};
use crate::sink::sql::dialect::{SqlTable, Statement};
use crate::sink::{KeptRows, SystemColumn};

/// The policy of the guard. The server's message about a column that cannot be dropped names it.
const GUARD: &str = "loaded by daplake: no other client may change this table";

fn system(column: SystemColumn) -> String {
    quote(column.name())
}

/// The row of the table, `t`, has the key of the staged one, `s`.
fn same_key(table: &SqlTable) -> String {
    let same = table.keys().map(|column| {
        let staged = format!("s.{}", quote(&column.name));
        let staged = column.convert.as_ref().map_or(staged.clone(), |convert| convert.replace("{}", &staged));
        format!("t.{} {EQUAL} {staged}", quote(&column.name))
    });
    same.collect::<Vec<_>>().join(" AND ")
}

/// Keeps other programs from dropping the system columns: a policy depends on them. It has no effect unless the user
/// enables row-level security, and hides no row then.
pub(super) fn guard(table: &SqlTable) -> Option<Statement> {
    let conditions: Vec<String> = table
        .columns
        .iter()
        .filter_map(|column| column.system)
        .map(|column| format!("{c} IS NULL OR {c} IS NOT NULL", c = system(column)))
        .collect();
    if conditions.is_empty() {
        return None;
    }
    Some(Statement::new(format!(
        "CREATE POLICY {} ON {} AS RESTRICTIVE USING ({})",
        quote(GUARD),
        table_name(&table.table),
        conditions.join(" OR ")
    )))
}

/// Removes what soft deletes have added to a table.
pub(super) fn drop_soft_deletes(table: &SqlTable) -> Vec<Statement> {
    let (name, flag) = (table_name(&table.table), system(SystemColumn::Deleted));
    vec![
        Statement::new(format!("DROP POLICY IF EXISTS {} ON {name}", quote(GUARD))),
        Statement::new(format!("DELETE FROM {name} WHERE {flag}")),
        alter(table, &format!("DROP COLUMN {flag}")),
    ]
}

/// See [`MergeStatements::delete`](crate::sink::sql::dialect::MergeStatements::delete).
pub(super) fn delete(table: &SqlTable) -> Statement {
    let (name, same) = (table_name(&table.table), same_key(table));
    let staged = format!("{STAGE} AS s WHERE s.\"_action\" {EQUAL} 'D' AND {same}");
    match table.kept {
        KeptRows { mode: TableMode::History, .. } => {
            let from = system(SystemColumn::ValidFrom);
            let close = close(&format!("s.{from}"));
            Statement::new(format!(
                "UPDATE {name} AS t SET {close} FROM {staged} AND t.{} AND t.{from} <= s.{from}",
                system(SystemColumn::Current)
            ))
        }
        KeptRows { deletes: Deletes::Mark, .. } => {
            let flag = system(SystemColumn::Deleted);
            Statement::new(format!("UPDATE {name} AS t SET {flag} = true FROM {staged} AND NOT t.{flag}"))
        }
        _ => Statement::new(format!("DELETE FROM {name} AS t USING {staged}")),
    }
}

/// See [`MergeStatements::delete_missing`](crate::sink::sql::dialect::MergeStatements::delete_missing).
pub(super) fn delete_missing(table: &SqlTable, as_of: &str) -> Statement {
    let (name, same) = (table_name(&table.table), same_key(table));
    let (from, current, flag) = (system(SystemColumn::ValidFrom), system(SystemColumn::Current), system(SystemColumn::Deleted));
    let as_of = timestamp(as_of);
    let (set, which) = match table.kept.mode {
        TableMode::History => (close(&as_of), format!("t.{current} AND t.{from} <= {as_of}")),
        _ => (format!("{flag} = true"), format!("NOT t.{flag}")),
    };
    Statement::new(format!("UPDATE {name} AS t SET {set} WHERE {which} AND NOT EXISTS (SELECT FROM {STAGE} AS s WHERE {same})"))
}

/// See [`MergeStatements::replace_versions`](crate::sink::sql::dialect::MergeStatements::replace_versions).
pub(super) fn replace_versions(table: &SqlTable, as_of: Option<&str>) -> Vec<Statement> {
    if table.kept.mode != TableMode::History {
        return Vec::new();
    }
    let (name, same) = (table_name(&table.table), same_key(table));
    let (from, to) = (system(SystemColumn::ValidFrom), system(SystemColumn::ValidTo));
    let current = system(SystemColumn::Current);
    let latest_end = as_of.map_or_else(|| format!("s.{from}"), timestamp);
    vec![
        Statement::new(format!(
            "UPDATE {STAGE} AS s SET \"_action\" = 'N' WHERE s.\"_action\" {EQUAL} 'U' AND EXISTS (SELECT FROM {name} AS t WHERE {same} \
             AND (t.{current} AND (s.{from} < t.{from} OR ({values})) OR NOT t.{current} AND t.{to} > {latest_end}))",
            values = same_values(table),
        )),
        Statement::new(format!(
            "UPDATE {name} AS t SET {} FROM {STAGE} AS s WHERE s.\"_action\" {EQUAL} 'U' AND {same} AND t.{current} AND t.{from} < s.{from}",
            close(&format!("s.{from}")),
        )),
    ]
}

/// Closes a version at a time.
fn close(time: &str) -> String {
    format!("{} = {time}, {} = false", system(SystemColumn::ValidTo), system(SystemColumn::Current))
}

fn timestamp(time: &str) -> String {
    format!("TIMESTAMP '{time}'")
}

/// The row of the table, `t`, has the values of the staged one, `s`, in all columns of the schema.
fn same_values(table: &SqlTable) -> String {
    let values = table.columns.iter().filter(|column| !column.key && column.system.is_none());
    let same = values.map(|column| {
        let staged = format!("s.{}", quote(&column.name));
        let staged = match &column.convert {
            Some(convert) => convert.replace("{}", &staged),
            None if column.stage_type == column.sql_type => staged,
            None => format!("CAST({staged} AS {})", column.sql_type),
        };
        format!("t.{} IS NOT DISTINCT FROM {staged}", quote(&column.name))
    });
    std::iter::once("true".to_owned()).chain(same).collect::<Vec<_>>().join(" AND ")
}
