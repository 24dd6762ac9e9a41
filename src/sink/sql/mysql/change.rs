//! The change from the existing table to the wanted one, in statements that run before the transaction and can be repeated. Columns are
//! dropped only if the user asks for it, and never those that the user added.

use super::kept_rows::{delete_marked, drop_flag, guard};
use super::names::{add_foreign_key, alter, define, id_of_value, literal, quote, quoted, table_name};
use super::types::{EXACT, Kind, MAX_LOOKUP, SqlType, can_be_enum_value};
use crate::error::Result;
use crate::sink::sql::dialect::{
    Change, ChangeRules, Fit as TypeFit, LiveColumn, NO_SOFT_DELETES, SqlColumn, SqlTable, Statement, foreign_required_column,
    has_other_key, incompatible_type, new_column_note, removed_column_note,
};
use crate::sink::{LoadKind, SystemColumn};

const NO_FRACTION: &str = "only whole seconds are kept";
const NO_VERSION: &str = "IPv4 addresses are stored as if they were IPv6";

/// See [`Ddl::change_table`](crate::sink::sql::dialect::Ddl::change_table).
pub(super) fn change_table(table: &SqlTable, live: &[LiveColumn], rules: ChangeRules<'_>) -> Result<Change> {
    let mut change = Change::default();
    let mut plan = Plan::default();
    let has_other_key = has_other_key(table, live, rules.kind)?;
    if has_other_key {
        // Several old rows may share one new key.
        change.statements.push(Statement::new(format!("DELETE FROM {}", table_name(&table.table))));
        if live.iter().any(|column| column.key) {
            plan.actions.push("DROP PRIMARY KEY".to_owned());
        }
        change.notes.push("the primary key has other columns".to_owned());
    }
    for column in &table.columns {
        match live.iter().find(|live| live.name == column.name) {
            None => add_column(table, column, rules.kind, &mut plan, &mut change),
            Some(live) => {
                alter_column(table, column, live, rules.kind, &mut plan, &mut change)?;
                plan.rewritten.extend(rewrite_times(table, column, live, rules));
            }
        }
    }
    for removed in live.iter().filter(|live| !table.columns.iter().any(|column| column.name == live.name)) {
        remove_column(table, removed, rules, &mut plan, &mut change)?;
    }
    if has_other_key {
        plan.actions.push(format!("ADD PRIMARY KEY ({})", quoted(table.primary_key())));
    }
    for loss in [NO_FRACTION, NO_VERSION] {
        let names: Vec<String> =
            plan.lossy.iter().filter(|(_, what)| *what == loss).map(|(name, _)| format!("`{name}`")).collect();
        if !names.is_empty() {
            let names = names.join(", ");
            change
                .warnings
                .push(format!("{names}: {loss}, as the official client created them; --resnapshot stores exact values"));
        }
    }
    if !plan.actions.is_empty() {
        change.statements.push(alter(table, &plan.actions.join(", ")));
    }
    change.statements.extend(plan.rewritten);
    for column in &table.columns {
        let existing = live.iter().find(|live| live.name == column.name);
        if column.lookup.is_some() && existing.is_none_or(|live| live.foreign_key.is_none()) {
            change.statements.extend(add_foreign_key(table, column));
        }
    }
    Ok(change)
}

/// The clauses of one `ALTER TABLE`, and the statements after it.
#[derive(Default)]
struct Plan<'c> {
    actions: Vec<String>,
    rewritten: Vec<Statement>,
    /// Columns that lose part of each value, and what they lose.
    lossy: Vec<(&'c str, &'static str)>,
}

/// Whether a new column can be required. Old rows have no value for it. The server would invent one, also for rows that are about to be
/// removed, but none for timestamps.
fn can_require(column: &SqlColumn, kind: LoadKind) -> bool {
    let is_filled = kind == LoadKind::Replace && !column.sql_type.starts_with("date");
    column.required && (is_filled || column.default.is_some() || column.key)
}

fn add_column(table: &SqlTable, column: &SqlColumn, kind: LoadKind, plan: &mut Plan<'_>, change: &mut Change) {
    let required = can_require(column, kind);
    plan.actions.push(format!("ADD COLUMN {}", define(column, &column.sql_type, required)));
    if column.system == Some(SystemColumn::Deleted) {
        plan.actions.extend(guard(table).map(|guard| format!("ADD {guard}")));
    }
    change.notes.push(new_column_note(column, required));
}

fn remove_column(
    table: &SqlTable,
    removed: &LiveColumn,
    rules: ChangeRules<'_>,
    plan: &mut Plan<'_>,
    change: &mut Change,
) -> Result<()> {
    // A column that the user added, according to the stored schema, is not changed.
    let was_known = rules.before.map(|_| rules.column_before(&removed.name).is_some());
    let needs_value = removed.not_null && !removed.has_default;
    if rules.column_before(&removed.name).is_some_and(|before| before.system.is_some()) {
        change.statements.push(delete_marked(table));
        plan.actions.extend(drop_flag(table));
        change.notes.push(NO_SOFT_DELETES.to_owned());
        return Ok(());
    }
    if rules.drop_removed && was_known == Some(true) {
        change.statements.extend(drop_foreign_key(table, removed));
        plan.actions.push(format!("DROP COLUMN {}", quote(&removed.name)));
        change.notes.push(removed_column_note(&removed.name, true));
    } else if was_known == Some(true) || was_known.is_none() && needs_value {
        if (removed.not_null || removed.has_default) && !removed.key {
            // Without its default, which readers would take for a value of the service.
            plan.actions.push(format!("MODIFY COLUMN {}", redefine(removed, &removed.sql_type, false)));
        }
        change.notes.push(removed_column_note(&removed.name, false));
    } else if was_known == Some(false) && needs_value {
        return Err(foreign_required_column(&removed.name));
    }
    Ok(())
}

fn alter_column<'c>(
    table: &SqlTable,
    column: &'c SqlColumn,
    live: &LiveColumn,
    kind: LoadKind,
    plan: &mut Plan<'c>,
    change: &mut Change,
) -> Result<()> {
    let mut wanted = None;
    match fit(column, live) {
        Fit::Same => {}
        Fit::Lossy(loss) if kind == LoadKind::Merge => plan.lossy.push((column.name.as_str(), loss)),
        Fit::Lossy(_) | Fit::Wider => wanted = Some(column.sql_type.clone()),
        Fit::Members(members) => wanted = Some(SqlType::enumeration(members).to_string()),
        Fit::ToLookup => {
            change.statements.extend(to_lookup(table, column, live));
            change.columns.push(column.name.clone());
            return Ok(());
        }
        Fit::Other if kind == LoadKind::Replace => {
            change.statements.extend(drop_foreign_key(table, live));
            change.columns.push(column.name.clone());
            // The old rows, which are about to be removed, have values that would not fit.
            plan.actions.push(format!("DROP COLUMN {}", quote(&column.name)));
            plan.actions.push(format!("ADD COLUMN {}", define(column, &column.sql_type, can_require(column, kind))));
            return Ok(());
        }
        // See `settle`.
        Fit::Other if keeps_type(column, live) => {}
        Fit::Other if !live.sql_type.contains("binary") && live.lookup.is_none() && column.lookup.is_none() => {
            wanted = Some(Kind::Longtext.to_string());
        }
        Fit::Other => return Err(incompatible_type(&column.name, &plain(&live.sql_type), &plain(&column.sql_type))),
    }
    if wanted.is_some() {
        change.columns.push(column.name.clone());
    }
    let relaxed = live.not_null && !column.required && !column.key;
    if relaxed {
        change.notes.push(format!("`{}` may be null", column.name));
    }
    let has_other_comment = column.comment.is_some() && column.comment != live.comment;
    if wanted.is_some() || relaxed || has_other_comment {
        let sql_type = wanted.unwrap_or_else(|| live.sql_type.clone());
        plan.actions.push(format!("MODIFY COLUMN {}", define(column, &sql_type, live.not_null && !relaxed)));
    }
    Ok(())
}

/// Brings timestamps and times of day that the server converts to text into the form of [`text_of`]. A run that was killed between the
/// two statements left a text column and the old schema, so that the next run repeats this one; it changes only values that are still
/// in the server's form.
fn rewrite_times(table: &SqlTable, column: &SqlColumn, live: &LiveColumn, rules: ChangeRules<'_>) -> Option<Statement> {
    let (live_type, wanted) = (SqlType::parse(&live.sql_type).kind, SqlType::parse(&column.sql_type).kind);
    let was = if live_type.is_text() {
        // Only in the run that changes the schema.
        let before = rules.column_before(&column.name).filter(|before| before.sql_type != column.sql_type)?;
        SqlType::parse(&before.sql_type).kind
    } else {
        live_type.clone()
    };
    let becomes_text = match fit(column, live) {
        Fit::Wider => wanted.is_text(),
        Fit::Other => column.lookup.is_none(),
        Fit::Same => live_type.is_text(),
        Fit::Lossy(_) | Fit::Members(_) | Fit::ToLookup => false,
    };
    let (whole, pattern, end) = match was {
        Kind::Datetime(_) => (19, "^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?$", "Z"),
        Kind::Time(_) => (8, "^[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?$", ""),
        _ => return None,
    };
    if !becomes_text || rules.kind == LoadKind::Replace {
        return None;
    }
    let (name, target) = (quote(&column.name), table_name(&table.table));
    let fraction = format!("SUBSTRING({name}, {})", whole + 1);
    Some(Statement::new(format!(
        "UPDATE {target} SET {name} = CONCAT(REPLACE(LEFT({name}, {whole}), ' ', 'T'), \
         IF({fraction} REGEXP '[1-9]', TRIM(TRAILING '0' FROM {fraction}), ''), '{end}') WHERE {name} REGEXP '{pattern}'"
    )))
}

/// A staged timestamp as the service writes it (`2026-01-02T03:04:05.6Z`), a time of day as `03:04:05.6`; the fraction has no trailing
/// zeros. `None`: the type is neither.
fn text_of(value: &str, sql_type: &str) -> Option<String> {
    let (whole, end) = match SqlType::parse(sql_type).kind {
        Kind::Datetime(_) => (format!("DATE_FORMAT({value}, '%Y-%m-%dT%H:%i:%s')"), "Z"),
        Kind::Time(_) => (format!("LEFT(CAST({value} AS CHAR), 8)"), ""),
        _ => return None,
    };
    let digits = format!("LPAD(MICROSECOND({value}), 6, '0')");
    Some(format!("CONCAT({whole}, IF(MICROSECOND({value}) = 0, '', CONCAT('.', TRIM(TRAILING '0' FROM {digits}))), '{end}')"))
}

/// Whether the existing column can hold the values although it has another type: strings hold everything, a lookup table every string.
fn keeps_type(column: &SqlColumn, live: &LiveColumn) -> bool {
    match live.lookup {
        Some(_) => is_textual(column),
        None => SqlType::parse(&live.sql_type).kind.is_text() && column.lookup.is_none(),
    }
}

fn is_textual(column: &SqlColumn) -> bool {
    column.enumeration.is_some() || SqlType::parse(&column.sql_type).kind.is_text()
}

/// See [`Ddl::settle`](crate::sink::sql::dialect::Ddl::settle).
pub(super) fn settle(column: &SqlColumn, live: &LiveColumn) -> SqlColumn {
    let mut column = column.clone();
    match &live.lookup {
        // Values stay in their lookup table, also if the column had another name.
        Some(lookup) if let Some((wanted, _)) = &mut column.lookup => {
            wanted.clone_from(lookup);
            column.convert = Some(id_of_value(lookup));
        }
        Some(lookup) if is_textual(&column) => {
            column.convert = Some(id_of_value(lookup));
            column.lookup = Some((lookup.clone(), String::new()));
            column.sql_type = Kind::Int.to_string();
            column.longest = None;
            column.enumeration = None;
        }
        None if column.lookup.is_none() && !is_textual(&column) && SqlType::parse(&live.sql_type).kind.is_text() => {
            if !column.key {
                column.convert = text_of("{}", &column.stage_type);
            }
            column.sql_type.clone_from(&live.sql_type);
        }
        _ => {}
    }
    column
}

/// Enum values become ids of the lookup table. An id gets a leading blank, so that a repeated run knows which values are done; the server
/// still reads it as a number.
fn to_lookup(table: &SqlTable, column: &SqlColumn, live: &LiveColumn) -> Vec<Statement> {
    let Some((lookup, _)) = &column.lookup else { return Vec::new() };
    let (name, target) = (quote(&column.name), table_name(&table.table));
    let required = live.not_null && column.required;
    let text = define(column, &format!("varchar({}) {EXACT}", MAX_LOOKUP + 16), required);
    vec![
        alter(table, &format!("MODIFY COLUMN {text}")),
        Statement::new(format!(
            "INSERT INTO {lookup} (`value`) SELECT DISTINCT t.{name} FROM {target} AS t LEFT JOIN {lookup} AS l \
             ON l.`value` = t.{name} WHERE t.{name} IS NOT NULL AND t.{name} NOT REGEXP '^ [0-9]+$' AND l.`id` IS NULL"
        )),
        Statement::new(format!(
            "UPDATE {target} AS t JOIN {lookup} AS l ON l.`value` = t.{name} SET t.{name} = CONCAT(' ', l.`id`)"
        )),
        alter(table, &format!("MODIFY COLUMN {}", define(column, "int", required))),
    ]
}

/// An existing column with another type or nullability; its comment stays.
fn redefine(live: &LiveColumn, sql_type: &str, required: bool) -> String {
    let mut text = format!("{} {sql_type}", quote(&live.name));
    if required {
        text.push_str(" NOT NULL");
    }
    if let Some(comment) = &live.comment {
        text.push_str(" COMMENT ");
        text.push_str(&literal(comment));
    }
    text
}

fn drop_foreign_key(table: &SqlTable, live: &LiveColumn) -> Option<Statement> {
    let constraint = quote(live.foreign_key.as_ref()?);
    Some(alter(table, &format!("DROP FOREIGN KEY {constraint}")))
}

/// A type without its character set.
pub(super) fn plain(sql_type: &str) -> String {
    SqlType::parse(sql_type).kind.to_string()
}

/// The values of an existing enumeration. `None`: the type is none.
pub(super) fn members(sql_type: &str) -> Option<Vec<String>> {
    if let Kind::Enum(members) = SqlType::parse(sql_type).kind { Some(members) } else { None }
}

/// The values of `live` and those that it lacks of `wanted`; `None`: it lacks none.
pub(super) fn united(live: &[String], wanted: &[String]) -> Option<Vec<String>> {
    let missing: Vec<&String> = wanted.iter().filter(|value| !live.contains(value) && can_be_enum_value(value)).collect();
    (!missing.is_empty()).then(|| live.iter().chain(missing).cloned().collect())
}

/// How an existing column relates to the wanted one.
enum Fit {
    /// It is the same or wider, and stays.
    Same,
    /// It loses part of each value; what, as a sentence.
    Lossy(&'static str),
    /// The wanted type holds every value after a conversion by the server.
    Wider,
    /// The enumeration needs these values.
    Members(Vec<String>),
    /// Enum values become ids of a lookup table.
    ToLookup,
    /// None of these is certain.
    Other,
}

fn fit(column: &SqlColumn, live: &LiveColumn) -> Fit {
    let (from, to) = (SqlType::parse(&live.sql_type).kind, SqlType::parse(&column.sql_type).kind);
    if column.lookup.is_some() {
        return match from {
            // A missing foreign key is added afterwards.
            Kind::Int => Fit::Same,
            Kind::Enum(_) => Fit::ToLookup,
            _ if from.is_text() => Fit::ToLookup,
            _ => Fit::Other,
        };
    }
    if live.foreign_key.is_some() {
        return Fit::Other;
    }
    if from == to {
        return Fit::Same;
    }
    let of = |fit| match fit {
        TypeFit::Same | TypeFit::Holds => Fit::Same,
        TypeFit::Wider => Fit::Wider,
        TypeFit::Other => Fit::Other,
    };
    match (&from, &to) {
        (Kind::Enum(live), Kind::Enum(wanted)) => united(live, wanted).map_or(Fit::Same, Fit::Members),
        _ if let (Some((from, _)), Some((to, _))) = (from.integer(), to.integer()) => of(TypeFit::of_ranks(from, to)),
        (Kind::Bigint, Kind::Double) => Fit::Other,
        (_, Kind::Double) if from.integer().is_some() => Fit::Wider,
        (_, Kind::Decimal(precision, scale)) if let Some((_, digits)) = from.integer() => {
            if precision.saturating_sub(*scale) >= digits { Fit::Wider } else { Fit::Other }
        }
        (Kind::Float, Kind::Double) => Fit::Wider,
        (Kind::Decimal(p, s), Kind::Decimal(q, t)) => of(TypeFit::of_decimals((*p, *s), (*q, *t))),
        // Strings hold enum values and JSON, which the server could refuse to convert.
        (_, Kind::Json | Kind::Enum(_)) if from.is_text() => Fit::Same,
        _ if let (Some(x), Some(y)) = (from.text_rank(), to.text_rank()) => {
            let is_char = matches!(from, Kind::Char(_));
            if x < y || is_char && x == y { Fit::Wider } else { Fit::Same }
        }
        (Kind::Binary(_) | Kind::Varbinary(_), _) if to.is_text() => Fit::Other,
        // Every other value has a text form.
        (_, Kind::Mediumtext | Kind::Longtext) => Fit::Wider,
        (Kind::Enum(_), _) if to.is_text() => Fit::Wider,
        (Kind::Time(_), Kind::Varchar(45..)) => Fit::Wider,
        (Kind::Datetime(0), Kind::Datetime(1..)) | (Kind::Time(0), Kind::Time(1..)) => Fit::Lossy(NO_FRACTION),
        (Kind::Datetime(_), Kind::Datetime(_)) | (Kind::Time(_), Kind::Time(_)) => Fit::Same,
        (Kind::Date, Kind::Datetime(_)) => Fit::Wider,
        (Kind::Binary(16), Kind::Varbinary(_)) => Fit::Lossy(NO_VERSION),
        (Kind::Binary(_), Kind::Varbinary(_)) => Fit::Wider,
        (Kind::Varbinary(from), Kind::Binary(to)) if from >= to => Fit::Same,
        _ => Fit::Other,
    }
}
