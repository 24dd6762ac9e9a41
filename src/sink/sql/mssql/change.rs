//! The change from the existing table to the wanted one. Columns are dropped only if the user asks for it, and never those that the
//! user added.

use super::kept_rows::{drop_soft_deletes, guard};
use super::names::{
    add_foreign_key, add_primary_key, alter, define, drop_default, drop_foreign_key, drop_primary_key, quote, table_name,
};
use super::types::SqlType;
use crate::error::Result;
use crate::sink::sql::dialect::{
    Change, ChangeRules, Fit, LiveColumn, NO_SOFT_DELETES, SqlColumn, SqlTable, Statement, foreign_required_column,
    has_other_key, incompatible_type, new_column_note, removed_column_note,
};
use crate::sink::{LoadKind, SystemColumn};

/// Intermediate type of an empty column between two types that the server does not convert directly.
const INTERMEDIATE: &str = "varchar(100)";
const ANY_TEXT: &str = "varchar(max)";

/// See [`Ddl::change_table`](crate::sink::sql::dialect::Ddl::change_table).
pub(super) fn change_table(table: &SqlTable, live: &[LiveColumn], rules: ChangeRules<'_>) -> Result<Change> {
    let mut change = Change::default();
    let has_other_key = has_other_key(table, live, rules.kind)?;
    let mut columns = Change::default();
    let mut alters_key = false;
    for column in &table.columns {
        match live.iter().find(|live| live.name == column.name) {
            None => add_column(table, column, rules.kind, &mut columns),
            Some(live) => alters_key |= alter_column(table, column, live, rules, &mut columns)? && live.key,
        }
    }
    for removed in live.iter().filter(|live| !table.columns.iter().any(|column| column.name == live.name)) {
        remove_column(table, removed, rules, &mut columns)?;
    }
    // Columns of a primary key cannot be altered.
    let recreates_key = has_other_key || alters_key;
    if recreates_key && live.iter().any(|column| column.key) {
        change.statements.push(drop_primary_key(table));
    }
    change.statements.extend(columns.statements);
    change.notes.extend(columns.notes);
    change.columns = columns.columns;
    if recreates_key {
        change.statements.push(add_primary_key(table));
    }
    if has_other_key {
        change.notes.push("the primary key has other columns".to_owned());
    }
    Ok(change)
}

fn add_column(table: &SqlTable, column: &SqlColumn, kind: LoadKind, change: &mut Change) {
    // Old rows have no value for it.
    let required = column.key || column.required && (kind == LoadKind::Replace || column.default.is_some());
    change.statements.push(alter(table, &format!("ADD {}", define(column, required))));
    change.statements.extend(add_foreign_key(table, column));
    if column.system == Some(SystemColumn::Deleted) {
        change.statements.extend(guard(table));
    }
    change.notes.push(new_column_note(column, required));
}

/// A column that the schema no longer has, or never had.
fn remove_column(table: &SqlTable, removed: &LiveColumn, rules: ChangeRules<'_>, change: &mut Change) -> Result<()> {
    let is_stored = rules.before.is_some();
    let needs_value = removed.not_null && !removed.has_default;
    if is_stored && rules.column_before(&removed.name).is_none() {
        // A column that the user added stays as it is.
        return if needs_value { Err(foreign_required_column(&removed.name)) } else { Ok(()) };
    }
    if rules.column_before(&removed.name).is_some_and(|before| before.system.is_some()) {
        change.statements.extend(drop_soft_deletes(table));
        change.notes.push(NO_SOFT_DELETES.to_owned());
        return Ok(());
    }
    let name = quote(&removed.name);
    // Readers would take a default for a value of the service.
    if is_stored && removed.has_default {
        change.statements.push(Statement::new(drop_default(table, &removed.name)));
    }
    if rules.drop_removed && is_stored && !removed.key {
        if removed.lookup.is_some() {
            change.statements.push(drop_foreign_key(table, &removed.name));
        }
        change.statements.push(alter(table, &format!("DROP COLUMN {name}")));
        change.notes.push(removed_column_note(&removed.name, true));
    } else if is_stored || needs_value {
        if removed.not_null && !removed.key {
            change.statements.push(alter(table, &format!("ALTER COLUMN {name} {} NULL", removed.sql_type)));
        }
        change.notes.push(removed_column_note(&removed.name, false));
    }
    Ok(())
}

/// Returns whether the column itself is altered.
fn alter_column(
    table: &SqlTable,
    column: &SqlColumn,
    live: &LiveColumn,
    rules: ChangeRules<'_>,
    change: &mut Change,
) -> Result<bool> {
    let name = quote(&column.name);
    let before = rules.column_before(&column.name);
    let relaxed = live.not_null && !column.required && !column.key;
    let not_null = column.key || live.not_null && column.required;
    // Without `NULL` or `NOT NULL` the column may be null. Babelfish accepts neither word behind a type.
    let null = if not_null { " NOT NULL" } else { "" };
    let set_type = |sql_type: &str, null: &str| alter(table, &format!("ALTER COLUMN {name} {sql_type}{null}"));
    let retype = retype(column, live, rules.kind)?;
    let is_retyped = retype != Retype::Keep;
    if is_retyped {
        change.columns.push(column.name.clone());
    }
    let is_redefaulted = before.is_some_and(|before| before.default != column.default);
    // A default that the stored schema does not have belongs to the user; if it blocks the change, the server names it.
    let is_foreign_default = before.is_some_and(|before| before.default.is_none());
    let drops_default = live.has_default && !is_foreign_default && (is_retyped || is_redefaulted);
    if drops_default {
        change.statements.push(Statement::new(drop_default(table, &column.name)));
    }
    match retype {
        Retype::Keep if relaxed => change.statements.push(set_type(&live.sql_type, " NULL")),
        Retype::Keep => {}
        Retype::Convert | Retype::Text => {
            let sql_type = if retype == Retype::Text { ANY_TEXT } else { &column.sql_type };
            change.statements.push(set_type(sql_type, null));
            if SqlType::parse(sql_type).is_string() && rules.kind == LoadKind::Merge {
                change.statements.extend(rewrite_times(table, &name, &live.sql_type));
            }
        }
        Retype::Empty => {
            if live.lookup.is_some() {
                change.statements.push(drop_foreign_key(table, &column.name));
            }
            if live.sql_type != column.sql_type {
                change.statements.push(set_type(INTERMEDIATE, " NULL"));
                if matches!(SqlType::parse(&column.sql_type), SqlType::Binary(_)) {
                    change.statements.push(set_type("int", ""));
                }
                change.statements.push(set_type(&column.sql_type, null));
            }
            change.statements.extend(add_foreign_key(table, column));
        }
    }
    let fits_default =
        matches!(retype, Retype::Convert | Retype::Empty) || settle(column, live, rules.kind).sql_type == column.sql_type;
    let adds_default = drops_default || is_redefaulted && !live.has_default;
    if let Some(default) = column.default.as_ref().filter(|_| adds_default && fits_default) {
        change.statements.push(alter(table, &format!("ADD {default} FOR {name}")));
    }
    if relaxed {
        change.notes.push(format!("`{}` may be null", column.name));
    }
    if !live.not_null && column.required && !column.key && !is_retyped && before.is_some_and(|before| !before.required) {
        // The server refuses NOT NULL for a column that an index, a statistic or a view uses, and the refusal ends the transaction.
        change.notes.push(format!("`{}` is required now; in the database it may still be null", column.name));
    }
    Ok(is_retyped || relaxed)
}

/// Brings timestamps and times of day that the server has just converted to text into the form of [`text_of`].
fn rewrite_times(table: &SqlTable, name: &str, sql_type: &str) -> Option<Statement> {
    let sql_type = SqlType::parse(sql_type);
    let base = if let SqlType::Datetime2(_) = sql_type { SqlType::Datetime2(None) } else { sql_type };
    let text = text_of(&format!("CAST({name} AS {base})"), &base)?;
    Some(Statement::new(format!("UPDATE {} SET {name} = {text} WHERE {name} IS NOT NULL", table_name(&table.table))))
}

/// A timestamp as the service writes it (`2026-01-02T03:04:05.6Z`), a time of day as `03:04:05.6`; the fraction has no trailing zeros.
/// `None`: the type is neither.
fn text_of(value: &str, sql_type: &SqlType) -> Option<String> {
    let (whole, end) = match sql_type {
        SqlType::Time => (format!("CONVERT(varchar(8), {value}, 108)"), ""),
        other if other.is_time() => (format!("CONVERT(varchar(19), {value}, 126)"), " + 'Z'"),
        _ => return None,
    };
    let digits = format!("RIGHT('00000' + CAST(DATEPART(microsecond, {value}) AS varchar(6)), 6)");
    Some(format!(
        "{whole} + CASE DATEPART(microsecond, {value}) WHEN 0 THEN '' \
         ELSE '.' + REPLACE(RTRIM(REPLACE({digits}, '0', ' ')), ' ', '0') END{end}"
    ))
}

/// How a column gets its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retype {
    /// It has the type, or keeps another one that holds old and new values; see [`settle`].
    Keep,
    /// The server converts every value.
    Convert,
    /// It becomes text of any length.
    Text,
    /// The table is empty, so that any type is possible.
    Empty,
}

fn retype(column: &SqlColumn, live: &LiveColumn, kind: LoadKind) -> Result<Retype> {
    let (from, to) = (SqlType::parse(&live.sql_type), SqlType::parse(&column.sql_type));
    let has_lookup = live.lookup.is_some() || column.lookup.is_some();
    let fit = if has_lookup { Fit::Other } else { from.fit(&to) };
    let refuse = || {
        let from = if live.lookup.is_some() { "enumeration" } else { &live.sql_type };
        let to = if column.lookup.is_some() { "enumeration" } else { &column.sql_type };
        Err(incompatible_type(&column.name, from, to))
    };
    match fit {
        Fit::Same | Fit::Holds => Ok(Retype::Keep),
        _ if live.lookup.is_some() && column.lookup.is_some() => Ok(Retype::Keep),
        Fit::Wider => Ok(Retype::Convert),
        Fit::Other if kind == LoadKind::Replace => Ok(Retype::Empty),
        Fit::Other if column.key => refuse(),
        // Users join by the ids of a lookup table.
        Fit::Other if live.lookup.is_some() => {
            if is_textual(column) {
                Ok(Retype::Keep)
            } else {
                refuse()
            }
        }
        // UUIDs and addresses are bytes, which have no text form here.
        Fit::Other if matches!(to, SqlType::Binary(_)) => refuse(),
        Fit::Other if from.is_string() => Ok(Retype::Keep),
        Fit::Other if from.has_text_form() && !(from.is_time() && to.is_time()) => Ok(Retype::Text),
        Fit::Other => refuse(),
    }
}

/// A string in the schema that is no enum value.
fn is_textual(column: &SqlColumn) -> bool {
    column.lookup.is_none() && SqlType::parse(&column.sql_type).is_string()
}

/// See [`Ddl::settle`](crate::sink::sql::dialect::Ddl::settle).
pub(super) fn settle(column: &SqlColumn, live: &LiveColumn, kind: LoadKind) -> SqlColumn {
    let mut column = column.clone();
    if kind == LoadKind::Replace && retype(&column, live, kind).is_ok_and(|retype| retype == Retype::Empty) {
        return column;
    }
    if let (Some((wanted, _)), Some(lookup)) = (&mut column.lookup, &live.lookup) {
        // Values stay in their lookup table, also if the column had another name.
        wanted.clone_from(lookup);
        return column;
    }
    if let Some(lookup) = live.lookup.as_ref().filter(|_| is_textual(&column)) {
        column.lookup = Some((lookup.clone(), String::new()));
        column.longest = None;
        column.sql_type.clone_from(&live.sql_type);
        return column;
    }
    if live.lookup.is_some() || column.key || !SqlType::parse(&live.sql_type).is_string() {
        return column;
    }
    if column.lookup.is_none() && !is_textual(&column) {
        let sql_type = SqlType::parse(&column.sql_type);
        column.convert = Some(match sql_type {
            SqlType::Bit => "CASE {} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END".to_owned(),
            // All digits.
            SqlType::Real | SqlType::Float => "CONVERT(varchar(50), {}, 3)".to_owned(),
            SqlType::Date => "CONVERT(varchar(10), {}, 23)".to_owned(),
            _ => text_of(if sql_type == SqlType::Time { "CAST({} AS time)" } else { "{}" }, &sql_type)
                .unwrap_or_else(|| format!("CAST({{}} AS {ANY_TEXT})")),
        });
    }
    column.lookup = None;
    column.enumeration = None;
    if live.sql_type == ANY_TEXT {
        column.longest = None;
    }
    column.sql_type.clone_from(&live.sql_type);
    column
}
