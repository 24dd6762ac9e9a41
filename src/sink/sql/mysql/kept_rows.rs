//! Tables with soft deletes and histories: the statements in place of those that remove and replace rows, and the guard against programs
//! that drop the system columns.

use super::names::{STAGE, cut_name, full_name, literal, quote, table_name};
use super::types::{Kind, SqlType};
use crate::schema::{Deletes, TableMode};
use crate::sink::sql::dialect::{SqlTable, Statement};
use crate::sink::{KeptRows, SystemColumn};

fn system(column: SystemColumn) -> String {
    quote(column.name())
}

/// The row of the table, `t`, has the key of the staged one, `s`.
fn same_key(table: &SqlTable) -> String {
    let same = table.keys().map(|column| format!("t.{name} = s.{name}", name = quote(&column.name)));
    same.collect::<Vec<_>>().join(" AND ")
}

/// The constraint of the guard. The server's message about a column that cannot be dropped names it.
fn guard_name(table: &SqlTable) -> String {
    quote(&cut_name(&format!("only_daplake_loads_{}", full_name(&table.table))))
}

/// Keeps other programs from dropping the system columns: a constraint that is always met uses them and the key. For an `ALTER TABLE`
/// or `CREATE TABLE`.
pub(super) fn guard(table: &SqlTable) -> Option<String> {
    let system: Vec<String> = table.columns.iter().filter_map(|column| Some(quote(column.system?.name()))).collect();
    if system.is_empty() {
        return None;
    }
    let key = table.keys().next().map(|column| quote(&column.name));
    let conditions: Vec<String> =
        key.iter().chain(&system).map(|name| format!("{name} IS NULL OR {name} IS NOT NULL")).collect();
    Some(format!("CONSTRAINT {} CHECK ({})", guard_name(table), conditions.join(" OR ")))
}

/// Removes the rows that soft deletes have kept. The column is dropped with [`drop_flag`].
pub(super) fn delete_marked(table: &SqlTable) -> Statement {
    Statement::new(format!("DELETE FROM {} WHERE {}", table_name(&table.table), system(SystemColumn::Deleted)))
}

/// Drops the column of soft deletes, as actions of an `ALTER TABLE`.
pub(super) fn drop_flag(table: &SqlTable) -> [String; 2] {
    [format!("DROP CONSTRAINT {}", guard_name(table)), format!("DROP COLUMN {}", system(SystemColumn::Deleted))]
}

/// See [`MergeStatements::delete`](crate::sink::sql::dialect::MergeStatements::delete).
pub(super) fn delete(table: &SqlTable) -> Statement {
    // From the staging table to the table, never the other way.
    let staged = format!("{STAGE} AS s STRAIGHT_JOIN {} AS t ON {}", table_name(&table.table), same_key(table));
    match table.kept {
        KeptRows { mode: TableMode::History, .. } => {
            let (from, current) = (system(SystemColumn::ValidFrom), system(SystemColumn::Current));
            Statement::new(format!(
                "UPDATE {staged} SET {} WHERE s.`_action` = 'D' AND t.{current} = 1 AND t.{from} <= s.{from}",
                close(&format!("s.{from}"))
            ))
        }
        KeptRows { deletes: Deletes::Mark, .. } => {
            let flag = system(SystemColumn::Deleted);
            Statement::new(format!("UPDATE {staged} SET t.{flag} = 1 WHERE s.`_action` = 'D' AND t.{flag} = 0"))
        }
        _ => Statement::new(format!("DELETE t FROM {staged} WHERE s.`_action` = 'D'")),
    }
}

/// See [`MergeStatements::delete_missing`](crate::sink::sql::dialect::MergeStatements::delete_missing).
pub(super) fn delete_missing(table: &SqlTable, as_of: &str) -> Statement {
    let (name, same) = (table_name(&table.table), same_key(table));
    let (from, current, flag) = (system(SystemColumn::ValidFrom), system(SystemColumn::Current), system(SystemColumn::Deleted));
    let as_of = literal(as_of);
    let (set, which) = match table.kept.mode {
        TableMode::History => (close(&as_of), format!("t.{current} = 1 AND t.{from} <= {as_of}")),
        _ => (format!("t.{flag} = 1"), format!("t.{flag} = 0")),
    };
    Statement::new(format!(
        "UPDATE {name} AS t LEFT JOIN {STAGE} AS s ON {same} SET {set} WHERE {which} AND s.`_action` IS NULL"
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
    let latest_end = as_of.map_or_else(|| format!("s.{from}"), literal);
    vec![
        Statement::new(format!(
            "UPDATE {STAGE} AS s SET s.`_action` = 'N' WHERE s.`_action` = 'U' AND EXISTS (SELECT 1 FROM {name} AS t WHERE {same} \
             AND (t.{current} = 1 AND (s.{from} < t.{from} OR ({values})) OR t.{current} = 0 AND t.{to} > {latest_end}))",
            values = same_values(table),
        )),
        Statement::new(format!(
            "UPDATE {STAGE} AS s STRAIGHT_JOIN {name} AS t ON {same} SET {} \
             WHERE s.`_action` = 'U' AND t.{current} = 1 AND t.{from} < s.{from}",
            close(&format!("s.{from}")),
        )),
    ]
}

/// Closes a version at a time.
fn close(time: &str) -> String {
    format!("t.{} = {time}, t.{} = 0", system(SystemColumn::ValidTo), system(SystemColumn::Current))
}

/// The row of the table, `t`, has the values of the staged one, `s`, in all columns of the schema. Strings are compared by their bytes, whatever
/// the collation.
fn same_values(table: &SqlTable) -> String {
    let values = table.columns.iter().filter(|column| !column.key && column.system.is_none());
    let same = values.map(|column| {
        let (is, staged) = (format!("t.{}", quote(&column.name)), format!("s.{}", quote(&column.name)));
        let staged = column.convert.as_ref().map_or(staged.clone(), |convert| convert.replace("{}", &staged));
        let kind = SqlType::parse(&column.sql_type).kind;
        if column.lookup.is_none() && (kind.is_text() || matches!(kind, Kind::Enum(_))) {
            let bytes = |text: &str| format!("CAST(CONVERT({text} USING utf8mb4) AS BINARY)");
            format!("{} <=> {}", bytes(&is), bytes(&staged))
        } else {
            format!("{is} <=> {staged}")
        }
    });
    std::iter::once("1 = 1".to_owned()).chain(same).collect::<Vec<_>>().join(" AND ")
}
