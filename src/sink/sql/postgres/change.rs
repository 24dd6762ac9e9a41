//! From the table that is there to the one that is wanted. Columns are dropped only where the user asks for it, and never those
//! that somebody else added. A change of type that would alter a value is not made: the column becomes text, which holds all.

use super::dialect::{EQUAL, PostgresDialect, alter, comment_on, define, literal, quote, refer, table_name};
use crate::error::{Error, Kind, Result};
use crate::sink::LoadKind;
use crate::sink::sql::dialect::{Change, ChangeRules, Dialect, LiveColumn, SqlColumn, SqlTable};
use crate::sink::sql::statement::Statement;

/// See [`Dialect::change_table`].
pub(super) fn change_table(
    dialect: &PostgresDialect,
    table: &SqlTable,
    live: &[LiveColumn],
    rules: ChangeRules<'_>,
) -> Result<Change> {
    let mut change = Change::default();
    let rekeyed = check_key(table, live, rules.kind)?;
    if let Some(drop) = rekeyed.as_ref().and_then(Clone::clone) {
        change.statements.push(drop);
    }
    for column in &table.columns {
        let before = rules.before.and_then(|before| before.columns.iter().find(|old| old.name == column.name));
        match live.iter().find(|live| live.name == column.name) {
            None => add(table, column, rules.kind, &mut change),
            Some(live) => alter_column(table, column, live, before, rules.kind, &mut change),
        }
    }
    for gone in live.iter().filter(|live| !table.columns.iter().any(|column| column.name == live.name)) {
        leave(table, gone, rules, &mut change)?;
    }
    if rekeyed.is_some() {
        change.statements.extend(dialect.add_key(table));
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

/// See [`Dialect::settle`].
pub(super) fn settle(column: &SqlColumn, live: &LiveColumn) -> SqlColumn {
    let mut column = column.clone();
    if let (Some((wanted, _)), Some(lookup)) = (&mut column.lookup, &live.lookup) {
        // The words stay in the table where they are, if the column had another name.
        wanted.clone_from(lookup);
        column.convert = Some(through_lookup(lookup));
        return column;
    }
    if let Some(lookup) = live.lookup.as_ref().filter(|_| column.lookup.is_none() && is_textual(&column)) {
        // Ids of words are what users join by; they are kept when the kind of enumeration changes.
        column.convert = Some(through_lookup(lookup));
        column.lookup = Some((lookup.clone(), String::new()));
        column.longest = Some(super::types::MAX_LOOKUP);
        column.enumeration = None;
        column.sql_type.clone_from(&live.sql_type);
        return column;
    }
    let is_unlooked = column.lookup.is_some() && live.lookup.is_none();
    if is_unlooked || is_any_text(&live.sql_type) && column.sql_type != live.sql_type {
        let kept = if live.sql_type == "text[]" { "text[]" } else { "text" };
        column.convert = Some(if kept == "text" { text_of("{}", &column.stage_type) } else { format!("{{}}::{kept}") });
        column.lookup = None;
        column.longest = None;
        column.enumeration = None;
        column.sql_type = kept.to_owned();
    }
    column
}

/// A value as text: a timestamp as the service writes it, `2026-01-02T03:04:05.6Z`, all else as the server does.
fn text_of(value: &str, sql_type: &str) -> String {
    match sql_type {
        "timestamp without time zone" => format!(
            "(pg_catalog.rtrim(pg_catalog.rtrim(pg_catalog.to_char({value}, 'YYYY-MM-DD\"T\"HH24:MI:SS.US'), '0'), '.') \
             OPERATOR(pg_catalog.||) 'Z')"
        ),
        _ => format!("{value}::text"),
    }
}

fn is_any_text(sql_type: &str) -> bool {
    matches!(sql_type, "text" | "text[]")
}

/// From a word to its id.
pub(super) fn through_lookup(lookup: &str) -> String {
    format!("(SELECT l.\"id\" FROM {lookup} AS l WHERE l.\"value\" {EQUAL} {{}})")
}

fn is_textual(column: &SqlColumn) -> bool {
    column.enumeration.is_some() || matches!(parts(&column.sql_type).0, "text" | "character varying" | "character")
}

/// A column that the schema does not have any more, or never had.
fn leave(table: &SqlTable, gone: &LiveColumn, rules: ChangeRules<'_>, change: &mut Change) -> Result<()> {
    // What the user added stays exactly as it is, as far as the stored schema tells.
    if rules.before.is_some_and(|before| !before.columns.iter().any(|column| column.name == gone.name)) {
        // It has no value from us, so no row would pass it.
        return match gone.not_null && !gone.has_default {
            true => Err(Error::new(Kind::Target, "A column that is not of the service wants a value in every row")
                .with_field("column", &gone.name)
                .hint("give the column a default, or let it be null")),
            false => Ok(()),
        };
    }
    let name = quote(&gone.name);
    if rules.drop_removed && rules.before.is_some() && !gone.key {
        change.statements.push(alter(table, &format!("DROP COLUMN {name}")));
        change.notes.push(format!("`{}` is gone upstream, and dropped", gone.name));
    } else if rules.before.is_some() || gone.not_null && !gone.has_default {
        if gone.not_null && !gone.key {
            change.statements.push(alter(table, &format!("ALTER COLUMN {name} DROP NOT NULL")));
        }
        // A default would be taken for a value of the service.
        if gone.has_default {
            change.statements.push(alter(table, &format!("ALTER COLUMN {name} DROP DEFAULT")));
        }
        change.notes.push(format!("`{}` is gone upstream; it is kept, without new values", gone.name));
    }
    Ok(())
}

/// `Some` if the key has to be made anew; inside, how the old one goes if there is one.
fn check_key(table: &SqlTable, live: &[LiveColumn], kind: LoadKind) -> Result<Option<Option<Statement>>> {
    let mut wanted: Vec<&str> = table.columns.iter().filter(|column| column.key).map(|column| column.name.as_str()).collect();
    let mut found: Vec<&str> = live.iter().filter(|column| column.key).map(|column| column.name.as_str()).collect();
    wanted.sort_unstable();
    found.sort_unstable();
    if wanted == found {
        return Ok(None);
    }
    if kind == LoadKind::Merge {
        return Err(Error::new(Kind::Schema, "The table's primary key in the database is not that of the service")
            .with_field("key", wanted.join(", "))
            .hint("load the table anew, with --resnapshot, or dropdb and initdb"));
    }
    let drop = (!found.is_empty()).then(|| {
        // Its name may be anything.
        let name = table_regclass(table);
        Statement::new(format!(
            "DO $do$ DECLARE k name; BEGIN SELECT conname INTO k FROM pg_catalog.pg_constraint WHERE conrelid = {name} \
             AND contype = 'p'; EXECUTE pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I', {name}, k); END $do$"
        ))
    });
    Ok(Some(drop))
}

fn table_regclass(table: &SqlTable) -> String {
    format!("{}::pg_catalog.regclass", literal(&table_name(&table.table)))
}

fn add(table: &SqlTable, column: &SqlColumn, kind: LoadKind, change: &mut Change) {
    // Rows that are there have no value for it.
    let required = column.required && (kind == LoadKind::Replace || column.default.is_some());
    change.statements.push(alter(table, &format!("ADD COLUMN {}", define(column, required))));
    change.statements.extend(refer(table, column));
    change.statements.extend(comment_on(table, column));
    change.notes.push(match required || !column.required {
        true => format!("`{}` is new", column.name),
        false => format!("`{}` is new; it may be null, as older rows have no value for it", column.name),
    });
}

fn alter_column(
    table: &SqlTable,
    column: &SqlColumn,
    live: &LiveColumn,
    before: Option<&SqlColumn>,
    kind: LoadKind,
    change: &mut Change,
) {
    let name = quote(&column.name);
    let moved = before.is_some_and(|before| before.sql_type != column.sql_type || before.lookup != column.lookup);
    let retypes = retype(table, column, live, moved, kind);
    let is_retyped = !retypes.is_empty();
    if is_retyped && live.has_default {
        change.statements.push(alter(table, &format!("ALTER COLUMN {name} DROP DEFAULT")));
    }
    change.statements.extend(retypes);
    let settled = settle(column, live);
    let default = match before {
        Some(before) if before.default != column.default => Some(column.default.as_ref()),
        _ if is_retyped && live.has_default => Some(column.default.as_ref()),
        _ => None,
    };
    match default {
        Some(Some(default)) if settled.sql_type == column.sql_type || is_retyped => {
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
        // Old rows may have none; then it stays as it is.
        let tighten = alter(table, &format!("ALTER COLUMN {name} SET NOT NULL")).text;
        change
            .statements
            .push(Statement::new(format!("DO $do$ BEGIN {tighten}; EXCEPTION WHEN not_null_violation THEN NULL; END $do$")));
    }
    if column.comment.is_some() && column.comment != live.comment {
        change.statements.extend(comment_on(table, column));
    }
}

/// How the column gets its type, if it gets another one. `moved`: the schema wanted another type before.
fn retype(table: &SqlTable, column: &SqlColumn, live: &LiveColumn, moved: bool, kind: LoadKind) -> Vec<Statement> {
    let name = quote(&column.name);
    let (from, to) = (live.sql_type.as_str(), column.sql_type.as_str());
    let text = text_of(&name, from);
    let to_text = || alter(table, &format!("ALTER COLUMN {name} SET DATA TYPE text USING {text}"));
    // Kept as it is, or as text: see `settle`.
    match (&live.lookup, &column.lookup) {
        (Some(_), Some(_)) => return Vec::new(),
        (Some(_), None) if is_textual(column) => return Vec::new(),
        (Some(lookup), None) => return unlooked(table, column, lookup),
        (None, Some(_)) if from == "text" => return Vec::new(),
        (None, Some(_)) => return vec![to_text()],
        (None, None) => {}
    }
    match fit(from, to) {
        Fit::Same | Fit::Holds => Vec::new(),
        Fit::Wider => {
            let value = if matches!(parts(to).0, "text" | "character varying") { &text } else { &name };
            vec![alter(table, &format!("ALTER COLUMN {name} SET DATA TYPE {to} USING {value}::{to}"))]
        }
        // There are no rows any more.
        Fit::Other if kind == LoadKind::Replace => {
            vec![alter(table, &format!("ALTER COLUMN {name} SET DATA TYPE {to} USING NULL"))]
        }
        // Text that was kept for good reason before is not tried again at every run.
        Fit::Other if is_any_text(from) && !moved => Vec::new(),
        Fit::Other => {
            let target = table_name(&table.table);
            // JSON is the same however it is written; of all else each value has to be what it was.
            let unequal = match to == "jsonb" {
                true => String::new(),
                false => format!(
                    "IF EXISTS (SELECT FROM {target} WHERE {back} IS DISTINCT FROM {text}) THEN RAISE data_exception; END IF; ",
                    back = text_of(&format!("{text}::{to}"), to)
                ),
            };
            let change = alter(table, &format!("ALTER COLUMN {name} SET DATA TYPE {to} USING {text}::{to}")).text;
            let otherwise = if from == "text" { "NULL".to_owned() } else { to_text().text };
            vec![Statement::new(format!(
                "DO $do$ BEGIN {unequal}{change}; EXCEPTION WHEN data_exception OR cannot_coerce THEN {otherwise}; END $do$"
            ))]
        }
    }
}

/// From ids of a lookup table to a type that has none: to text by way of the words.
fn unlooked(table: &SqlTable, column: &SqlColumn, lookup: &str) -> Vec<Statement> {
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

enum Fit {
    /// Nothing to do.
    Same,
    /// Narrower than what is there, which stays: to narrow it would cut values.
    Holds,
    /// Every value fits, converted.
    Wider,
    Other,
}

/// A type and its numbers: `numeric(12,4)` is `numeric` with 12 and 4.
fn parts(sql_type: &str) -> (&str, Vec<u64>) {
    match sql_type.split_once('(') {
        Some((base, numbers)) if !sql_type.starts_with('"') => {
            (base, numbers.trim_end_matches(')').split(',').filter_map(|number| number.trim().parse().ok()).collect())
        }
        _ => (sql_type, Vec::new()),
    }
}

fn fit(from: &str, to: &str) -> Fit {
    if from == to {
        return Fit::Same;
    }
    if let (Some(from), Some(to)) = (from.strip_suffix("[]"), to.strip_suffix("[]")) {
        return fit(from, to);
    }
    if from.ends_with("[]") || to.ends_with("[]") {
        return if to == "text" || (from == "text" && to == "jsonb") { Fit::Wider } else { Fit::Other };
    }
    let is_enumeration = |sql_type: &str| sql_type.starts_with('"');
    let ((a, m), (b, n)) = (parts(from), parts(to));
    let number = |base: &str| ["smallint", "integer", "bigint"].iter().position(|known| *known == base);
    match (a, b) {
        _ if let (Some(x), Some(y)) = (number(a), number(b)) => {
            if x < y {
                Fit::Wider
            } else {
                Fit::Holds
            }
        }
        _ if number(a).is_some() && (b == "double precision" || b == "real" && a == "smallint") => match a {
            "bigint" => Fit::Other,
            _ => Fit::Wider,
        },
        _ if let (Some(x), "numeric", [precision, scale]) = (number(a), b, &n[..]) => {
            if precision.saturating_sub(*scale) >= [5, 10, 19][x] { Fit::Wider } else { Fit::Other }
        }
        ("real", "double precision") => Fit::Wider,
        ("double precision", "real") => Fit::Holds,
        ("numeric", "numeric") => match (&m[..], &n[..]) {
            ([], _) => Fit::Holds,
            ([p, s], [q, t]) if t <= s && q.saturating_sub(*t) <= p.saturating_sub(*s) => Fit::Holds,
            ([p, s], [q, t]) if t >= s && q.saturating_sub(*t) >= p.saturating_sub(*s) => Fit::Wider,
            _ => Fit::Other,
        },
        // Whatever there is has a text.
        (_, "text") => Fit::Wider,
        ("text", "character varying" | "character") => Fit::Holds,
        ("character varying", "character")
        | ("character", "character varying" | "character")
        | ("character varying", "character varying") => match (m.first(), n.first()) {
            (Some(x), Some(y)) if x >= y && a == "character varying" => Fit::Holds,
            (None, _) if a == "character varying" => Fit::Holds,
            (Some(x), Some(y)) if x <= y => Fit::Wider,
            (Some(_), Some(_)) => Fit::Holds,
            _ => Fit::Other,
        },
        // Whether the words fit, the attempt tells.
        _ if is_enumeration(from) || is_enumeration(to) => Fit::Other,
        ("uuid" | "inet" | "time without time zone", "character varying") if n.first().is_some_and(|n| *n >= 45) => Fit::Wider,
        ("date", "timestamp without time zone") => Fit::Wider,
        _ => Fit::Other,
    }
}
