//! From the table that is there to the one that is wanted. A column goes only if it was ours and that is asked for; what somebody
//! else added stays as it is.

use super::dialect::{LOOKUP, alter, define, keys, literal, object_id, primary_key, quote, refer, table_name};
use crate::error::{Error, Kind, Result};
use crate::sink::LoadKind;
use crate::sink::sql::dialect::{Change, ChangeRules, LiveColumn, SqlColumn, SqlTable};
use crate::sink::sql::statement::Statement;

/// Type of an empty column on its way from one type to another that the server does not convert to at once.
const PASSING: &str = "varchar(100)";

/// See [`super::dialect::MssqlDialect`].
pub(super) fn change_table(table: &SqlTable, live: &[LiveColumn], rules: ChangeRules<'_>) -> Result<Change> {
    let mut change = Change::default();
    let rekeyed = is_rekeyed(table, live, rules.kind)?;
    let mut columns = Change::default();
    let mut alters_key = false;
    for column in &table.columns {
        match live.iter().find(|live| live.name == column.name) {
            None => add(table, column, rules.kind, &mut columns),
            Some(live) => alters_key |= alter_column(table, column, live, rules, &mut columns)? && live.key,
        }
    }
    for gone in live.iter().filter(|live| !table.columns.iter().any(|column| column.name == live.name)) {
        leave(table, gone, rules, &mut columns);
    }
    // Columns of a key are not altered under it.
    let anew = rekeyed || alters_key;
    if anew && live.iter().any(|column| column.key) {
        change.statements.push(Statement::new(drop_key(table)));
    }
    change.statements.extend(columns.statements);
    change.notes.extend(columns.notes);
    if anew {
        change.statements.push(primary_key(table));
    }
    if rekeyed {
        change.notes.push("the primary key has other columns".to_owned());
    }
    Ok(change)
}

fn is_rekeyed(table: &SqlTable, live: &[LiveColumn], kind: LoadKind) -> Result<bool> {
    let mut wanted: Vec<&str> = keys(table).map(|column| column.name.as_str()).collect();
    let mut found: Vec<&str> = live.iter().filter(|column| column.key).map(|column| column.name.as_str()).collect();
    wanted.sort_unstable();
    found.sort_unstable();
    if wanted == found {
        return Ok(false);
    }
    if kind == LoadKind::Merge {
        return Err(Error::new(Kind::Schema, "The table's primary key in the database is not that of the service")
            .with("key", wanted.join(", "))
            .hint("load the table anew, with --resnapshot, or dropdb and initdb"));
    }
    Ok(true)
}

/// Drops a constraint whose name may be anything. `found` selects it as `x`.
fn drop_constraint(table: &SqlTable, found: &str) -> String {
    let action = literal(&format!("ALTER TABLE {} DROP CONSTRAINT ", table_name(&table.table)));
    format!(
        "DECLARE @name nvarchar(128), @text nvarchar(max); SELECT @name = MAX(x.name) FROM {found}; \
         IF @name IS NOT NULL BEGIN SET @text = {action} + QUOTENAME(@name); EXEC (@text); END"
    )
}

/// Drops the default of a column, if it has one.
pub(super) fn drop_default(table: &SqlTable, column: &str) -> String {
    let found = format!(
        "sys.default_constraints AS x INNER JOIN sys.columns AS c ON c.object_id = x.parent_object_id \
         AND c.column_id = x.parent_column_id WHERE x.parent_object_id = {} AND c.name = {}",
        object_id(&table_name(&table.table)),
        literal(column)
    );
    drop_constraint(table, &found)
}

fn drop_key(table: &SqlTable) -> String {
    let found =
        format!("sys.key_constraints AS x WHERE x.type = 'PK' AND x.parent_object_id = {}", object_id(&table_name(&table.table)));
    drop_constraint(table, &found)
}

/// Drops the foreign key of a column to a lookup table.
fn drop_reference(table: &SqlTable, column: &str) -> String {
    let found = format!(
        "sys.foreign_keys AS x INNER JOIN sys.foreign_key_columns AS f ON f.constraint_object_id = x.object_id \
         INNER JOIN sys.columns AS c ON c.object_id = f.parent_object_id AND c.column_id = f.parent_column_id \
         WHERE x.parent_object_id = {} AND c.name = {}",
        object_id(&table_name(&table.table)),
        literal(column)
    );
    drop_constraint(table, &found)
}

fn add(table: &SqlTable, column: &SqlColumn, kind: LoadKind, change: &mut Change) {
    // Rows that are there have no value for it.
    let required = column.key || column.required && (kind == LoadKind::Replace || column.default.is_some());
    change.statements.push(alter(table, &format!("ADD {}", define(column, required))));
    change.statements.extend(refer(table, column));
    change.notes.push(match required || !column.required {
        true => format!("`{}` is new", column.name),
        false => format!("`{}` is new; it may be null, as older rows have no value for it", column.name),
    });
}

/// A column that is gone upstream, if it was ours as far as the stored schema tells.
fn leave(table: &SqlTable, gone: &LiveColumn, rules: ChangeRules<'_>, change: &mut Change) {
    if rules.before.is_some_and(|before| !before.columns.iter().any(|column| column.name == gone.name)) {
        return;
    }
    let name = quote(&gone.name);
    if rules.drop_removed && rules.before.is_some() && !gone.key {
        if gone.has_default {
            change.statements.push(Statement::new(drop_default(table, &gone.name)));
        }
        if gone.sql_type == LOOKUP {
            change.statements.push(Statement::new(drop_reference(table, &gone.name)));
        }
        change.statements.push(alter(table, &format!("DROP COLUMN {name}")));
        change.notes.push(format!("`{}` is gone upstream, and dropped", gone.name));
    } else if gone.not_null && !gone.has_default {
        change.statements.push(alter(table, &format!("ALTER COLUMN {name} {} NULL", spelled(&gone.sql_type))));
        change.notes.push(format!("`{}` is gone upstream; it is kept, without new values", gone.name));
    }
}

/// As the server wants it.
fn spelled(live: &str) -> &str {
    if live == LOOKUP { "int" } else { live }
}

/// Whether the column itself is altered.
fn alter_column(
    table: &SqlTable,
    column: &SqlColumn,
    live: &LiveColumn,
    rules: ChangeRules<'_>,
    change: &mut Change,
) -> Result<bool> {
    let name = quote(&column.name);
    let relaxed = live.not_null && !column.required && !column.key;
    let not_null = column.key || live.not_null && column.required;
    let null = if not_null { "NOT NULL" } else { "NULL" };
    let to = |sql_type: &str, null: &str| alter(table, &format!("ALTER COLUMN {name} {sql_type} {null}"));
    let wanted = column.sql_type.as_str();
    let fit = fit(&live.sql_type, wanted, column.lookup.is_some());
    let retyped = !matches!(fit, Fit::Same | Fit::Holds);
    let known = rules.before.and_then(|before| before.columns.iter().find(|before| before.name == column.name));
    let redefaulted = known.is_some_and(|before| before.default != column.default);
    // A default that the schema did not have is somebody's own; if it is in the way, the server names it.
    let is_foreign = known.is_some_and(|before| before.default.is_none());
    let drops_default = live.has_default && !is_foreign && (retyped || redefaulted);
    if drops_default {
        change.statements.push(Statement::new(drop_default(table, &column.name)));
    }
    match fit {
        Fit::Same | Fit::Holds => {
            if relaxed {
                change.statements.push(to(spelled(&live.sql_type), "NULL"));
            }
        }
        Fit::Wider => change.statements.push(to(wanted, null)),
        Fit::Words => {
            // The numbers become texts, and then the words they stand for.
            change.statements.push(Statement::new(drop_reference(table, &column.name)));
            change.statements.push(to(wanted, null));
            let table_name = table_name(&table.table);
            let lookup = super::dialect::table_name(&crate::model::TableRef::new(
                table.table.namespace.as_str(),
                format!("{}__{}", table.table.table, column.source),
            ));
            change.statements.push(Statement::new(format!(
                "UPDATE t SET {name} = l.[value] FROM {table_name} AS t INNER JOIN {lookup} AS l \
                 ON t.{name} = CAST(l.[id] AS varchar(11))"
            )));
        }
        // There are no rows any more.
        Fit::Other if rules.kind == LoadKind::Replace => {
            if live.sql_type == LOOKUP {
                change.statements.push(Statement::new(drop_reference(table, &column.name)));
            }
            if spelled(&live.sql_type) != wanted {
                change.statements.push(to(PASSING, "NULL"));
                if wanted.starts_with("binary(") {
                    change.statements.push(to("int", "NULL"));
                }
                change.statements.push(to(wanted, null));
            }
            change.statements.extend(refer(table, column));
        }
        Fit::Other => {
            return Err(Error::new(Kind::Schema, "A column has a type that its values do not fit any more")
                .with("column", &column.name)
                .with("from", &live.sql_type)
                .with("to", if column.lookup.is_some() { LOOKUP } else { wanted })
                .hint("load the table anew, with --resnapshot, or dropdb and initdb"));
        }
    }
    if let Some(default) = column.default.as_ref().filter(|_| drops_default || redefaulted && !live.has_default) {
        change.statements.push(alter(table, &format!("ADD {default} FOR {name}")));
    }
    if redefaulted && (!is_foreign || !live.has_default) {
        change.notes.push(format!("`{}` has another default", column.name));
    }
    if retyped {
        let from = if live.sql_type == LOOKUP { "an enumeration" } else { live.sql_type.as_str() };
        let to = if column.lookup.is_some() { "an enumeration" } else { wanted };
        change.notes.push(format!("`{}` is {to} instead of {from}", column.name));
    }
    if relaxed {
        change.notes.push(format!("`{}` may be null", column.name));
    }
    Ok(retyped || relaxed)
}

#[derive(Debug, PartialEq, Eq)]
enum Fit {
    /// Nothing to do.
    Same,
    /// Narrower than what is there, which stays: to narrow it would cut values.
    Holds,
    /// Every value fits, converted.
    Wider,
    /// An enumeration becomes a text.
    Words,
    Other,
}

/// A type and its numbers: `decimal(12,4)` is `decimal` with 12 and 4, `varchar(max)` has the largest.
fn parts(sql_type: &str) -> (&str, Vec<u64>) {
    match sql_type.split_once('(') {
        Some((base, numbers)) => {
            let numbers = numbers.trim_end_matches(')').split(',');
            (base, numbers.filter_map(|n| if n == "max" { Some(u64::MAX) } else { n.trim().parse().ok() }).collect())
        }
        None => (sql_type, Vec::new()),
    }
}

fn fit(from: &str, to: &str, to_lookup: bool) -> Fit {
    if to_lookup {
        return if from == LOOKUP { Fit::Same } else { Fit::Other };
    }
    let ((a, m), (b, n)) = (parts(from), parts(to));
    let room = |least: u64| n.first().is_some_and(|n| *n >= least);
    if from == LOOKUP {
        // The words have up to 256 bytes.
        return if b == "varchar" && room(256) { Fit::Words } else { Fit::Other };
    }
    if from == to {
        return Fit::Same;
    }
    let whole = |base: &str| ["tinyint", "smallint", "int", "bigint"].iter().position(|known| *known == base);
    match (a, b) {
        _ if let (Some(x), Some(y)) = (whole(a), whole(b)) => {
            if x < y {
                Fit::Wider
            } else {
                Fit::Holds
            }
        }
        ("tinyint" | "smallint", "real" | "float") | ("int", "float") | ("real", "float") => Fit::Wider,
        ("float", "real") => Fit::Holds,
        _ if let (Some(x), "decimal", [precision, scale]) = (whole(a), b, &n[..]) => {
            if precision.saturating_sub(*scale) >= [3, 5, 10, 19][x] { Fit::Wider } else { Fit::Other }
        }
        ("decimal", "decimal") => match (&m[..], &n[..]) {
            ([p, s], [q, t]) if t <= s && q.saturating_sub(*t) <= p.saturating_sub(*s) => Fit::Holds,
            ([p, s], [q, t]) if t >= s && q.saturating_sub(*t) >= p.saturating_sub(*s) => Fit::Wider,
            _ => Fit::Other,
        },
        ("varchar" | "char", "varchar" | "char") => match (m.first(), n.first()) {
            (Some(x), Some(y)) if a == "varchar" && x >= y => Fit::Holds,
            (Some(x), Some(y)) if b == "varchar" && x <= y || x < y => Fit::Wider,
            _ => Fit::Holds,
        },
        // Somebody's own choice; a character there is at most four bytes here.
        ("nvarchar" | "nchar", "varchar") => match (m.first(), n.first()) {
            (Some(x), Some(y)) if x.saturating_mul(4) >= *y => Fit::Holds,
            _ => Fit::Wider,
        },
        ("tinyint" | "smallint" | "int" | "bigint" | "date", "varchar") if room(20) => Fit::Wider,
        ("datetime2" | "time", "varchar") if room(40) => Fit::Wider,
        ("decimal", "varchar") if room(41) => Fit::Wider,
        ("date", "datetime2") => Fit::Wider,
        _ => Fit::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_widened_and_never_narrowed() {
        for (from, to, expected) in [
            ("varchar(1020)", "varchar(2000)", Fit::Wider),
            ("varchar(255)", "varchar(max)", Fit::Wider),
            ("varchar(max)", "varchar(1020)", Fit::Holds),
            ("char(3)", "varchar(40)", Fit::Wider),
            ("nvarchar(max)", "varchar(max)", Fit::Holds),
            ("nvarchar(10)", "varchar(max)", Fit::Wider),
            ("int", "bigint", Fit::Wider),
            ("bigint", "int", Fit::Holds),
            ("real", "float", Fit::Wider),
            ("decimal(5,2)", "decimal(12,4)", Fit::Wider),
            ("decimal(12,4)", "decimal(5,2)", Fit::Holds),
            ("decimal(5,2)", "decimal(5,4)", Fit::Other),
            ("bigint", "decimal(20,0)", Fit::Wider),
            ("bigint", "varchar(max)", Fit::Wider),
            // The server would write few digits, or other words than JSON has.
            ("float", "varchar(max)", Fit::Other),
            ("bit", "varchar(max)", Fit::Other),
            ("binary(16)", "varchar(max)", Fit::Other),
            ("varchar(max)", "bigint", Fit::Other),
            ("bigint", "float", Fit::Other),
            (LOOKUP, "varchar(max)", Fit::Words),
            (LOOKUP, "varchar(40)", Fit::Other),
            (LOOKUP, "int", Fit::Other),
        ] {
            assert_eq!(fit(from, to, false), expected, "{from} to {to}");
        }
        assert_eq!(fit(LOOKUP, "int", true), Fit::Same);
        assert_eq!(fit("int", "int", true), Fit::Other);
    }
}
