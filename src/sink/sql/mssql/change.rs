//! From the table that is there to the one that is wanted. A column goes only if it was ours and that is asked for; what somebody
//! else added stays as it is.

use super::dialect::{alter, define, keys, literal, object_id, primary_key, quote, refer, table_name};
use crate::error::{Error, Kind, Result};
use crate::sink::LoadKind;
use crate::sink::sql::dialect::{Change, ChangeRules, LiveColumn, SqlColumn, SqlTable};
use crate::sink::sql::statement::Statement;

/// Type of an empty column on its way from one type to another that the server does not convert to at once.
const PASSING: &str = "varchar(100)";
const ANY_TEXT: &str = "varchar(max)";

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
        leave(table, gone, rules, &mut columns)?;
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
            .with_field("key", wanted.join(", "))
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
    let found = format!(
        "sys.key_constraints AS x WHERE x.type = 'PK' AND x.parent_object_id = {}",
        object_id(&table_name(&table.table))
    );
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
fn leave(table: &SqlTable, gone: &LiveColumn, rules: ChangeRules<'_>, change: &mut Change) -> Result<()> {
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
    let known = rules.before.is_some();
    // A default would be taken for a value of the service.
    if known && gone.has_default {
        change.statements.push(Statement::new(drop_default(table, &gone.name)));
    }
    if rules.drop_removed && known && !gone.key {
        if gone.lookup.is_some() {
            change.statements.push(Statement::new(drop_reference(table, &gone.name)));
        }
        change.statements.push(alter(table, &format!("DROP COLUMN {name}")));
        change.notes.push(format!("`{}` is gone upstream, and dropped", gone.name));
    } else if known || gone.not_null && !gone.has_default {
        if gone.not_null && !gone.key {
            change.statements.push(alter(table, &format!("ALTER COLUMN {name} {} NULL", gone.sql_type)));
        }
        change.notes.push(format!("`{}` is gone upstream; it is kept, without new values", gone.name));
    }
    Ok(())
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
    let before = rules.before.and_then(|before| before.columns.iter().find(|before| before.name == column.name));
    let relaxed = live.not_null && !column.required && !column.key;
    let not_null = column.key || live.not_null && column.required;
    // Without `NULL` or `NOT NULL` the server lets the column be null; Babelfish takes neither with a type.
    let null = if not_null { " NOT NULL" } else { "" };
    let to = |sql_type: &str, null: &str| alter(table, &format!("ALTER COLUMN {name} {sql_type}{null}"));
    let way = way(column, live, rules.kind)?;
    let retyped = !matches!(way, Way::Stay);
    let redefaulted = before.is_some_and(|before| before.default != column.default);
    // A default that the schema did not have is somebody's own; if it is in the way, the server names it.
    let is_foreign = before.is_some_and(|before| before.default.is_none());
    let drops_default = live.has_default && !is_foreign && (retyped || redefaulted);
    if drops_default {
        change.statements.push(Statement::new(drop_default(table, &column.name)));
    }
    match way {
        Way::Stay if relaxed => change.statements.push(to(&live.sql_type, " NULL")),
        Way::Stay => {}
        Way::Wider | Way::Text => {
            let sql_type = if way == Way::Text { ANY_TEXT } else { &column.sql_type };
            change.statements.push(to(sql_type, null));
            if is_text(sql_type) && rules.kind == LoadKind::Merge {
                change.statements.extend(rewrite_times(table, &name, &live.sql_type));
            }
        }
        Way::Anew => {
            if live.lookup.is_some() {
                change.statements.push(Statement::new(drop_reference(table, &column.name)));
            }
            if live.sql_type != column.sql_type {
                change.statements.push(to(PASSING, " NULL"));
                if column.sql_type.starts_with("binary(") {
                    change.statements.push(to("int", ""));
                }
                change.statements.push(to(&column.sql_type, null));
            }
            change.statements.extend(refer(table, column));
        }
    }
    let fits_default = matches!(way, Way::Wider | Way::Anew) || settle(column, live, rules.kind).sql_type == column.sql_type;
    let adds_default = drops_default || redefaulted && !live.has_default;
    if let Some(default) = column.default.as_ref().filter(|_| adds_default && fits_default) {
        change.statements.push(alter(table, &format!("ADD {default} FOR {name}")));
    }
    if relaxed {
        change.notes.push(format!("`{}` may be null", column.name));
    }
    if !live.not_null && column.required && !column.key && !retyped && before.is_some_and(|before| !before.required) {
        // The server refuses NOT NULL for a column that an index, a statistic or a view uses, and the refusal ends the transaction.
        change.notes.push(format!("`{}` is required now; in the database it may still be null", column.name));
    }
    Ok(retyped || relaxed)
}

/// Timestamps and times of day that the server has just converted to text, in the one form of [`text_of`].
fn rewrite_times(table: &SqlTable, name: &str, sql_type: &str) -> Option<Statement> {
    let base = parts(sql_type).0;
    let text = text_of(&format!("CAST({name} AS {base})"), base)?;
    Some(Statement::new(format!("UPDATE {} SET {name} = {text} WHERE {name} IS NOT NULL", table_name(&table.table))))
}

/// A timestamp as the service writes it, `2026-01-02T03:04:05.6Z`, and a time of day as `03:04:05.6`, without zeros at the end of the
/// fraction. `None`: the type is neither.
fn text_of(value: &str, base: &str) -> Option<String> {
    let (whole, end) = match base {
        "datetime2" | "datetime" | "smalldatetime" => (format!("CONVERT(varchar(19), {value}, 126)"), " + 'Z'"),
        "time" => (format!("CONVERT(varchar(8), {value}, 108)"), ""),
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
enum Way {
    /// It has it, or keeps another one that holds old values and new; see [`settle`].
    Stay,
    /// Every value fits, converted.
    Wider,
    /// It becomes a text of any length.
    Text,
    /// There are no rows any more.
    Anew,
}

fn way(column: &SqlColumn, live: &LiveColumn, kind: LoadKind) -> Result<Way> {
    let same = live.lookup.is_some() == column.lookup.is_some();
    let fit = if same && live.lookup.is_none() { fit(&live.sql_type, &column.sql_type) } else { Fit::Other };
    let refuse = || {
        Err(Error::new(Kind::Schema, "A column has a type that its values do not fit any more")
            .with_field("column", &column.name)
            .with_field("from", if live.lookup.is_some() { "enumeration" } else { &live.sql_type })
            .with_field("to", if column.lookup.is_some() { "enumeration" } else { &column.sql_type })
            .hint("load the table anew, with --resnapshot, or dropdb and initdb"))
    };
    // What the server writes as text as the service does, or `rewrite_times` brings into its form.
    let is_written = matches!(
        parts(&live.sql_type).0,
        "tinyint" | "smallint" | "int" | "bigint" | "decimal" | "date" | "datetime2" | "datetime" | "smalldatetime" | "time"
    );
    let from_text = is_text(&live.sql_type);
    match fit {
        Fit::Same | Fit::Holds => Ok(Way::Stay),
        _ if live.lookup.is_some() && column.lookup.is_some() => Ok(Way::Stay),
        Fit::Wider => Ok(Way::Wider),
        Fit::Other if kind == LoadKind::Replace => Ok(Way::Anew),
        Fit::Other if column.key => refuse(),
        // Ids of words are what users join by.
        Fit::Other if live.lookup.is_some() => {
            if is_textual(column) {
                Ok(Way::Stay)
            } else {
                refuse()
            }
        }
        // Its bytes would have to be put into words.
        Fit::Other if column.sql_type.starts_with("binary(") => refuse(),
        Fit::Other if from_text => Ok(Way::Stay),
        Fit::Other if is_written => Ok(Way::Text),
        Fit::Other => refuse(),
    }
}

fn is_text(sql_type: &str) -> bool {
    matches!(parts(sql_type).0, "varchar" | "char" | "nvarchar" | "nchar")
}

/// A text in the schema; words of an enumeration are of another kind.
fn is_textual(column: &SqlColumn) -> bool {
    column.lookup.is_none() && is_text(&column.sql_type)
}

/// See [`crate::sink::sql::dialect::Dialect::settle`].
pub(super) fn settle(column: &SqlColumn, live: &LiveColumn, kind: LoadKind) -> SqlColumn {
    let mut column = column.clone();
    if kind == LoadKind::Replace && way(&column, live, kind).is_ok_and(|way| way == Way::Anew) {
        return column;
    }
    if let (Some((wanted, _)), Some(lookup)) = (&mut column.lookup, &live.lookup) {
        // The words stay in the table where they are, if the column had another name.
        wanted.clone_from(lookup);
        return column;
    }
    if let Some(lookup) = live.lookup.as_ref().filter(|_| is_textual(&column)) {
        column.lookup = Some((lookup.clone(), String::new()));
        column.longest = None;
        column.sql_type.clone_from(&live.sql_type);
        return column;
    }
    if live.lookup.is_some() || column.key || !is_text(&live.sql_type) {
        return column;
    }
    if column.lookup.is_none() && !is_textual(&column) {
        column.convert = Some(match parts(&column.sql_type).0 {
            "bit" => "CASE {} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END".to_owned(),
            // All digits.
            "real" | "float" => "CONVERT(varchar(50), {}, 3)".to_owned(),
            "date" => "CONVERT(varchar(10), {}, 23)".to_owned(),
            base => text_of(if base == "time" { "CAST({} AS time)" } else { "{}" }, base)
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

#[derive(Debug, PartialEq, Eq)]
enum Fit {
    /// Nothing to do.
    Same,
    /// Narrower than what is there, which stays: to narrow it would cut values.
    Holds,
    /// Every value fits, converted.
    Wider,
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

fn fit(from: &str, to: &str) -> Fit {
    if from == to {
        return Fit::Same;
    }
    let ((a, m), (b, n)) = (parts(from), parts(to));
    let room = |least: u64| n.first().is_some_and(|n| *n >= least);
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
        ] {
            assert_eq!(fit(from, to), expected, "{from} to {to}");
        }
    }
}
