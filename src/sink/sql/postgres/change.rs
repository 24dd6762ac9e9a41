//! From the table that is there to the one that is wanted. Columns are never dropped: not those that are gone upstream, and
//! not those that somebody else added.

use super::dialect::{PostgresDialect, alter, comment_on, define, quote, refer};
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
    let kind = rules.kind;
    let rekeyed = check_key(table, live, kind)?;
    if let Some(drop) = rekeyed.as_ref().and_then(Clone::clone) {
        change.statements.push(drop);
    }
    for column in &table.columns {
        match live.iter().find(|live| live.name == column.name) {
            None => add(table, column, kind, &mut change),
            Some(live) => alter_column(table, column, live, kind, &mut change)?,
        }
    }
    for gone in live.iter().filter(|live| !table.columns.iter().any(|column| column.name == live.name)) {
        // What the user added stays exactly as it is, as far as the stored schema tells.
        if rules.before.is_some_and(|before| !before.columns.iter().any(|column| column.name == gone.name)) {
            continue;
        }
        if rules.drop_removed && rules.before.is_some() && !gone.key {
            change.statements.push(alter(table, &format!("DROP COLUMN {}", quote(&gone.name))));
            change.notes.push(format!("`{}` is gone upstream, and dropped", gone.name));
            continue;
        }
        if gone.not_null && !gone.has_default {
            change.statements.push(alter(table, &format!("ALTER COLUMN {} DROP NOT NULL", quote(&gone.name))));
            change.notes.push(format!("`{}` is gone upstream; it is kept, without new values", gone.name));
        }
    }
    if rekeyed.is_some() {
        change.statements.extend(dialect.add_key(table));
        change.notes.push("the primary key has other columns".to_owned());
    }
    Ok(change)
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
            .with("key", wanted.join(", "))
            .hint("load the table anew, with --resnapshot, or dropdb and initdb"));
    }
    let drop = (!found.is_empty()).then(|| {
        // Its name may be anything.
        let name = table_regclass(table);
        Statement::new(format!(
            "DO $do$ DECLARE k name; BEGIN SELECT conname INTO k FROM pg_catalog.pg_constraint WHERE conrelid = {name} \
             AND contype = 'p'; EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', {name}, k); END $do$"
        ))
    });
    Ok(Some(drop))
}

fn table_regclass(table: &SqlTable) -> String {
    format!("{}::regclass", super::dialect::literal(&PostgresDialect.table_name(&table.table)))
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

fn alter_column(table: &SqlTable, column: &SqlColumn, live: &LiveColumn, kind: LoadKind, change: &mut Change) -> Result<()> {
    let name = quote(&column.name);
    let wanted = &column.sql_type;
    match fit(&live.sql_type, wanted) {
        Fit::Same | Fit::Holds => {}
        Fit::Wider => {
            if live.has_default {
                change.statements.push(alter(table, &format!("ALTER COLUMN {name} DROP DEFAULT")));
            }
            let cast = format!("ALTER COLUMN {name} SET DATA TYPE {wanted} USING {name}::{}", through(&live.sql_type, wanted));
            change.statements.push(alter(table, &cast));
            if let (true, Some(default)) = (live.has_default, &column.default) {
                change.statements.push(alter(table, &format!("ALTER COLUMN {name} SET DEFAULT {default}")));
            }
            change.notes.push(format!("`{}` is {} instead of {}", column.name, plain(wanted), plain(&live.sql_type)));
        }
        Fit::Other if kind == LoadKind::Replace => {
            if live.has_default {
                change.statements.push(alter(table, &format!("ALTER COLUMN {name} DROP DEFAULT")));
            }
            // There are no rows any more.
            change.statements.push(alter(table, &format!("ALTER COLUMN {name} SET DATA TYPE {wanted} USING NULL")));
            change.statements.extend(refer(table, column));
            change.notes.push(format!("`{}` is {} instead of {}", column.name, plain(wanted), plain(&live.sql_type)));
        }
        Fit::Other => {
            return Err(Error::new(Kind::Schema, "A column has a type that its values do not fit any more")
                .with("column", &column.name)
                .with("from", plain(&live.sql_type))
                .with("to", plain(wanted))
                .hint("load the table anew, with --resnapshot, or dropdb and initdb"));
        }
    }
    if live.not_null && !column.required && !column.key {
        change.statements.push(alter(table, &format!("ALTER COLUMN {name} DROP NOT NULL")));
        change.notes.push(format!("`{}` may be null", column.name));
    }
    if column.comment.is_some() && column.comment != live.comment {
        change.statements.extend(comment_on(table, column));
    }
    Ok(())
}

/// A cast from enumeration to enumeration goes through text.
fn through(from: &str, to: &str) -> String {
    if from.starts_with('"') && to.starts_with('"') {
        let text = if to.ends_with("[]") { "text[]" } else { "text" };
        return format!("{text}::{to}");
    }
    to.to_owned()
}

fn plain(sql_type: &str) -> String {
    sql_type.replace('"', "")
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
    let is_text = |base: &str| matches!(base, "text" | "character varying" | "character");
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
        // As the official client does; a word that is none stops it.
        _ if is_text(a) && is_enumeration(to) => Fit::Wider,
        _ if is_enumeration(from) && is_enumeration(to) => Fit::Wider,
        _ if is_enumeration(from) && b == "character varying" => Fit::Wider,
        ("uuid" | "inet" | "time without time zone", "character varying") if n.first().is_some_and(|n| *n >= 45) => Fit::Wider,
        ("date", "timestamp without time zone") => Fit::Wider,
        _ => Fit::Other,
    }
}
