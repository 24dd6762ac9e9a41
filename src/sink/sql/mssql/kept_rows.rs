//! Tables with soft deletes and histories: the statements in place of those that remove and replace rows, and the guard against programs
//! that drop the system columns.

use super::names::{STAGE, alter, cut_name, drop_default, quote, table_name};
use super::staged::{lookups, same_key, staged};
use super::types::SqlType;
use crate::schema::{Deletes, TableMode};
use crate::sink::sql::dialect::{SqlTable, Statement};
use crate::sink::{KeptRows, SystemColumn};

fn system(column: SystemColumn) -> String {
    quote(column.name())
}

/// The constraint of the guard. The server's message about a column that cannot be dropped names it.
fn guard_name(table: &SqlTable) -> String {
    quote(&cut_name(&format!("only_daplake_loads_{}", table.table.table)))
}

/// Keeps other programs from dropping the system columns: a constraint that is always met uses them.
pub(super) fn guard(table: &SqlTable) -> Option<Statement> {
    let system = table.columns.iter().filter_map(|column| column.system);
    let conditions: Vec<String> =
        system.map(|column| format!("{name} IS NULL OR {name} IS NOT NULL", name = quote(column.name()))).collect();
    if conditions.is_empty() {
        return None;
    }
    Some(alter(table, &format!("ADD CONSTRAINT {} CHECK ({})", guard_name(table), conditions.join(" OR "))))
}

/// Removes what soft deletes have added to a table.
pub(super) fn drop_soft_deletes(table: &SqlTable) -> Vec<Statement> {
    let flag = system(SystemColumn::Deleted);
    vec![
        Statement::new(format!("DELETE FROM {} WHERE {flag} = 1", table_name(&table.table))),
        alter(table, &format!("DROP CONSTRAINT {}", guard_name(table))),
        Statement::new(drop_default(table, SystemColumn::Deleted.name())),
        alter(table, &format!("DROP COLUMN {flag}")),
    ]
}

/// See [`MergeStatements::delete`](crate::sink::sql::dialect::MergeStatements::delete).
pub(super) fn delete(table: &SqlTable) -> Statement {
    let (name, same, of_key) = (table_name(&table.table), same_key(table), lookups(table, |column| column.key));
    let staged = format!("FROM {STAGE} AS s{of_key} INNER JOIN {name} AS t ON {same} WHERE s.[_action] = N'D'");
    match table.kept {
        KeptRows { mode: TableMode::History, .. } => {
            let (from, current) = (system(SystemColumn::ValidFrom), system(SystemColumn::Current));
            let close = close(&format!("s.{from}"));
            Statement::new(format!(
                "UPDATE t SET {close} {staged} AND t.{current} = 1 AND t.{from} <= s.{from}; SELECT @@ROWCOUNT"
            ))
        }
        KeptRows { deletes: Deletes::Mark, .. } => {
            let flag = system(SystemColumn::Deleted);
            Statement::new(format!("UPDATE t SET {flag} = 1 {staged} AND t.{flag} = 0; SELECT @@ROWCOUNT"))
        }
        _ => Statement::new(format!("DELETE t {staged}; SELECT @@ROWCOUNT")),
    }
}

/// See [`MergeStatements::delete_missing`](crate::sink::sql::dialect::MergeStatements::delete_missing).
pub(super) fn delete_missing(table: &SqlTable, as_of: &str) -> Statement {
    let (name, same, of_key) = (table_name(&table.table), same_key(table), lookups(table, |column| column.key));
    let (from, current, flag) = (system(SystemColumn::ValidFrom), system(SystemColumn::Current), system(SystemColumn::Deleted));
    let as_of = timestamp(as_of);
    let (set, which) = match table.kept.mode {
        TableMode::History => (close(&as_of), format!("t.{current} = 1 AND t.{from} <= {as_of}")),
        _ => (format!("{flag} = 1"), format!("t.{flag} = 0")),
    };
    Statement::new(format!(
        "UPDATE t SET {set} FROM {name} AS t WHERE {which} \
         AND NOT EXISTS (SELECT 1 FROM {STAGE} AS s{of_key} WHERE {same}); SELECT @@ROWCOUNT"
    ))
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
    let (of_key, all) = (lookups(table, |column| column.key), lookups(table, |_| true));
    vec![
        Statement::new(format!(
            "UPDATE s SET [_action] = N'N' FROM {STAGE} AS s WHERE s.[_action] = N'U' AND EXISTS (SELECT 1 FROM {name} AS t{all} WHERE {same} \
             AND (t.{current} = 1 AND (s.{from} < t.{from} OR ({values})) OR t.{current} = 0 AND t.{to} > {latest_end}))",
            values = same_values(table),
        )),
        Statement::new(format!(
            "UPDATE t SET {} FROM {STAGE} AS s{of_key} INNER JOIN {name} AS t ON {same} \
             WHERE s.[_action] = N'U' AND t.{current} = 1 AND t.{from} < s.{from}",
            close(&format!("s.{from}")),
        )),
    ]
}

/// Closes a version at a time.
fn close(time: &str) -> String {
    format!("{} = {time}, {} = 0", system(SystemColumn::ValidTo), system(SystemColumn::Current))
}

fn timestamp(time: &str) -> String {
    format!("CAST(N'{time}' AS datetime2(6))")
}

/// The row of the table, `t`, has the values of the staged one, `s`, in all columns of the schema. Strings are compared by their bytes, whatever
/// the collation.
fn same_values(table: &SqlTable) -> String {
    let values = table.columns.iter().filter(|column| !column.key && column.system.is_none());
    let same = values.map(|column| {
        let (is, staged) = (format!("t.{}", quote(&column.name)), staged(table, column));
        let is_string = column.lookup.is_none() && SqlType::parse(&column.sql_type).is_string();
        let bytes = |text: &str| format!("CAST(CAST({text} AS nvarchar(max)) + N'.' AS varbinary(max))");
        let equal = if is_string { format!("{} = {}", bytes(&is), bytes(&staged)) } else { format!("{is} = {staged}") };
        format!("({equal} OR {is} IS NULL AND {staged} IS NULL)")
    });
    std::iter::once("1 = 1".to_owned()).chain(same).collect::<Vec<_>>().join(" AND ")
}
