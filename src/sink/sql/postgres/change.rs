//! The change from the existing table to the wanted one. Columns are dropped only if the user asks for it, and never those that the
//! user added. A type change that would alter a value is not made: the column becomes `text`, which holds all values.

use super::kept_rows::{drop_soft_deletes, guard};
use super::names::{
    EQUAL, add_foreign_key, add_primary_key, alter, comment_on, define, id_of_value, literal, quote, table_name,
};
use super::types::{MAX_LOOKUP, SqlType};
use crate::error::Result;
use crate::sink::sql::dialect::{
    Change, ChangeRules, Fit, LiveColumn, NO_SOFT_DELETES, SqlColumn, SqlTable, Statement, foreign_required_column,
    has_other_key, new_column_note, removed_column_note,
};
use crate::sink::{LoadKind, SystemColumn};

/// See [`Ddl::change_table`](crate::sink::sql::dialect::Ddl::change_table).
pub(super) fn change_table(table: &SqlTable, live: &[LiveColumn], rules: ChangeRules<'_>) -> Result<Change> {
    let mut change = Change::default();
    let has_other_key = has_other_key(table, live, rules.kind)?;
    if has_other_key && live.iter().any(|column| column.key) {
        change.statements.push(drop_primary_key(table));
        change.drops_key = true;
    }
    for column in &table.columns {
        match live.iter().find(|live| live.name == column.name) {
            None => add_column(table, column, rules.kind, &mut change),
            Some(live) => alter_column(table, column, live, rules, &mut change),
        }
    }
    for removed in live.iter().filter(|live| !table.columns.iter().any(|column| column.name == live.name)) {
        remove_column(table, removed, rules, &mut change)?;
    }
    if has_other_key {
        change.statements.push(add_primary_key(table));
        change.notes.push("the primary key has other columns".to_owned());
    }
    if let (Some(before), Some(comment)) = (rules.before, &table.comment)
        && before.comment.as_ref() != Some(comment)
    {
        let name = table_name(&table.table);
        change.statements.push(Statement::new(format!("COMMENT ON TABLE {name} IS {}", literal(comment))));
    }
    Ok(change)
}

/// See [`Ddl::settle`](crate::sink::sql::dialect::Ddl::settle).
pub(super) fn settle(column: &SqlColumn, live: &LiveColumn) -> SqlColumn {
    let mut column = column.clone();
    if let (Some((wanted, _)), Some(lookup)) = (&mut column.lookup, &live.lookup) {
        // Values stay in their lookup table, also if the column had another name.
        wanted.clone_from(lookup);
        column.convert = Some(id_of_value(lookup));
        return column;
    }
    if let Some(lookup) = live.lookup.as_ref().filter(|_| column.lookup.is_none() && is_textual(&column)) {
        // Users join by the ids of a lookup table; they are kept when the kind of enumeration changes.
        column.convert = Some(id_of_value(lookup));
        column.lookup = Some((lookup.clone(), String::new()));
        column.longest = Some(MAX_LOOKUP);
        column.enumeration = None;
        column.sql_type.clone_from(&live.sql_type);
        return column;
    }
    let lost_lookup = column.lookup.is_some() && live.lookup.is_none();
    let live_type = SqlType::parse(&live.sql_type);
    if lost_lookup || live_type.is_any_text() && column.sql_type != live.sql_type {
        let is_array = live_type.item().is_some();
        column.convert =
            Some(if is_array { "{}::text[]".to_owned() } else { text_of("{}", &SqlType::parse(&column.stage_type)) });
        column.lookup = None;
        column.longest = None;
        column.enumeration = None;
        column.sql_type = if is_array { "text[]" } else { "text" }.to_owned();
    }
    column
}

/// A value as text: a timestamp as the service writes it (`2026-01-02T03:04:05.6Z`), all others as the server does.
fn text_of(value: &str, sql_type: &SqlType) -> String {
    match sql_type {
        SqlType::Timestamp => format!(
            "(pg_catalog.rtrim(pg_catalog.rtrim(pg_catalog.to_char({value}, 'YYYY-MM-DD\"T\"HH24:MI:SS.US'), '0'), '.') \
             OPERATOR(pg_catalog.||) 'Z')"
        ),
        _ => format!("{value}::text"),
    }
}

fn is_textual(column: &SqlColumn) -> bool {
    column.enumeration.is_some() || SqlType::parse(&column.sql_type).is_string()
}

/// A column that the schema no longer has, or never had.
fn remove_column(table: &SqlTable, removed: &LiveColumn, rules: ChangeRules<'_>, change: &mut Change) -> Result<()> {
    if rules.before.is_some() && rules.column_before(&removed.name).is_none() {
        // A column that the user added stays as it is.
        return if removed.not_null && !removed.has_default { Err(foreign_required_column(&removed.name)) } else { Ok(()) };
    }
    if rules.column_before(&removed.name).is_some_and(|before| before.system.is_some()) {
        change.statements.extend(drop_soft_deletes(table));
        change.notes.push(NO_SOFT_DELETES.to_owned());
        return Ok(());
    }
    let name = quote(&removed.name);
    if rules.drop_removed && rules.before.is_some() && !removed.key {
        change.statements.push(alter(table, &format!("DROP COLUMN {name}")));
        change.columns.push(removed.name.clone());
        change.notes.push(removed_column_note(&removed.name, true));
    } else if rules.before.is_some() || removed.not_null && !removed.has_default {
        if removed.not_null && !removed.key {
            change.statements.push(alter(table, &format!("ALTER COLUMN {name} DROP NOT NULL")));
        }
        // Readers would take a default for a value of the service.
        if removed.has_default {
            change.statements.push(alter(table, &format!("ALTER COLUMN {name} DROP DEFAULT")));
        }
        change.notes.push(removed_column_note(&removed.name, false));
    }
    Ok(())
}

fn drop_primary_key(table: &SqlTable) -> Statement {
    // Its name may be anything.
    let name = format!("{}::pg_catalog.regclass", literal(&table_name(&table.table)));
    Statement::new(format!(
        "DO $do$ DECLARE k name; BEGIN SELECT conname INTO k FROM pg_catalog.pg_constraint WHERE conrelid = {name} \
         AND contype = 'p'; EXECUTE pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I', {name}, k); END $do$"
    ))
}

fn add_column(table: &SqlTable, column: &SqlColumn, kind: LoadKind, change: &mut Change) {
    // Old rows have no value for it.
    let required = column.required && (kind == LoadKind::Replace || column.default.is_some());
    change.statements.push(alter(table, &format!("ADD COLUMN {}", define(column, required))));
    change.statements.extend(add_foreign_key(table, column));
    change.statements.extend(comment_on(table, column));
    if column.system == Some(SystemColumn::Deleted) {
        change.statements.extend(guard(table));
    }
    change.notes.push(new_column_note(column, required));
}

fn alter_column(table: &SqlTable, column: &SqlColumn, live: &LiveColumn, rules: ChangeRules<'_>, change: &mut Change) {
    let name = quote(&column.name);
    let before = rules.column_before(&column.name);
    let is_new_wish = before.is_some_and(|before| before.sql_type != column.sql_type || before.lookup != column.lookup);
    let retypes = retype(table, column, live, is_new_wish, rules.kind);
    let is_retyped = !retypes.is_empty();
    if is_retyped && live.has_default {
        change.statements.push(alter(table, &format!("ALTER COLUMN {name} DROP DEFAULT")));
    }
    if is_retyped {
        change.columns.push(column.name.clone());
    }
    change.statements.extend(retypes);
    let default = match before {
        Some(before) if before.default != column.default => Some(column.default.as_ref()),
        _ if is_retyped && live.has_default => Some(column.default.as_ref()),
        _ => None,
    };
    match default {
        Some(Some(default)) if is_retyped || settle(column, live).sql_type == column.sql_type => {
            change.statements.push(alter(table, &format!("ALTER COLUMN {name} SET DEFAULT {default}")));
        }
        Some(None) if live.has_default => {
            change.statements.push(alter(table, &format!("ALTER COLUMN {name} DROP DEFAULT")));
        }
        _ => {}
    }
    if live.not_null && !column.required && !column.key {
        change.statements.push(alter(table, &format!("ALTER COLUMN {name} DROP NOT NULL")));
        change.notes.push(format!("`{}` may be null", column.name));
    }
    if !live.not_null && column.required && !column.key && before.is_some_and(|before| !before.required) {
        // If old rows have no value, it stays as it is.
        let tighten = alter(table, &format!("ALTER COLUMN {name} SET NOT NULL")).text;
        change
            .statements
            .push(Statement::new(format!("DO $do$ BEGIN {tighten}; EXCEPTION WHEN not_null_violation THEN NULL; END $do$")));
    }
    if column.comment.is_some() && column.comment != live.comment {
        change.statements.extend(comment_on(table, column));
    }
}

/// How a column gets another type, if it does. `is_new_wish`: the stored schema wanted another type.
fn retype(table: &SqlTable, column: &SqlColumn, live: &LiveColumn, is_new_wish: bool, kind: LoadKind) -> Vec<Statement> {
    let name = quote(&column.name);
    let (from, to) = (SqlType::parse(&live.sql_type), SqlType::parse(&column.sql_type));
    let text = text_of(&name, &from);
    let set_type = |to: &SqlType, value: &str| alter(table, &format!("ALTER COLUMN {name} SET DATA TYPE {to} USING {value}"));
    // Columns that keep their type, or become text: see `settle`.
    match (&live.lookup, &column.lookup) {
        (Some(_), Some(_)) => return Vec::new(),
        (Some(_), None) if is_textual(column) => return Vec::new(),
        (Some(lookup), None) => return values_of_lookup(table, column, lookup),
        (None, Some(_)) if from == SqlType::Text => return Vec::new(),
        (None, Some(_)) => return vec![set_type(&SqlType::Text, &text)],
        (None, None) => {}
    }
    match from.fit(&to) {
        Fit::Same | Fit::Holds => Vec::new(),
        Fit::Wider => vec![set_type(&to, &format!("{}::{to}", if to.is_string() { &text } else { &name }))],
        // The table is empty by now.
        Fit::Other if kind == LoadKind::Replace => vec![set_type(&to, "NULL")],
        // Text that was kept for a reason is not tried again in every run.
        Fit::Other if from.is_any_text() && !is_new_wish => Vec::new(),
        Fit::Other => {
            let target = table_name(&table.table);
            // JSON is the same however it is written; of other types, each value must keep its text form.
            let check = if to == SqlType::Jsonb {
                String::new()
            } else {
                let back = text_of(&format!("{text}::{to}"), &to);
                format!(
                    "IF EXISTS (SELECT FROM {target} WHERE {back} IS DISTINCT FROM {text}) THEN RAISE data_exception; END IF; "
                )
            };
            let change = set_type(&to, &format!("{text}::{to}")).text;
            let otherwise = if from == SqlType::Text { "NULL".to_owned() } else { set_type(&SqlType::Text, &text).text };
            vec![Statement::new(format!(
                "DO $do$ BEGIN {check}{change}; EXCEPTION WHEN data_exception OR cannot_coerce THEN {otherwise}; END $do$"
            ))]
        }
    }
}

/// From ids of a lookup table to a type that has none: the values as text.
fn values_of_lookup(table: &SqlTable, column: &SqlColumn, lookup: &str) -> Vec<Statement> {
    let (name, target) = (quote(&column.name), table_name(&table.table));
    let relation = literal(&target);
    let attribute = literal(&column.name);
    vec![
        Statement::new(format!(
            "DO $do$ DECLARE k name; BEGIN SELECT f.conname INTO k FROM pg_catalog.pg_constraint f \
             JOIN pg_catalog.pg_attribute a ON a.attrelid = f.conrelid AND f.conkey = ARRAY[a.attnum] \
             WHERE f.conrelid = {relation}::pg_catalog.regclass AND f.contype = 'f' AND a.attname = {attribute}; \
             IF k IS NOT NULL THEN EXECUTE pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I', {relation}, k); END IF; END $do$"
        )),
        alter(table, &format!("ALTER COLUMN {name} SET DATA TYPE text USING {name}::text")),
        Statement::new(format!(
            "UPDATE {target} AS t SET {name} = l.\"value\" FROM {lookup} AS l WHERE l.\"id\"::text {EQUAL} t.{name}"
        )),
    ]
}
