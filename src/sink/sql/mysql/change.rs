//! From the table that is there to the one that is wanted, before the transaction and in statements that can be repeated.
//! Columns go only where the rules say so, and then only those that were ours.

use super::dialect::{alter, define, key_list, literal, quote, refer};
use super::types::{EXACT, LONG_TEXT, MAX_WORD, can_be_member, enumeration, through_lookup};
use crate::error::{Error, Kind, Result};
use crate::sink::LoadKind;
use crate::sink::sql::dialect::{Change, ChangeRules, LiveColumn, SqlColumn, SqlTable};
use crate::sink::sql::statement::Statement;

/// See [`Dialect::change_table`](crate::sink::sql::dialect::Dialect::change_table).
pub(super) fn change_table(table: &SqlTable, live: &[LiveColumn], rules: ChangeRules<'_>) -> Result<Change> {
    let mut change = Change::default();
    let mut actions = Vec::new();
    let mut coarse = Vec::new();
    let mut rewritten = Vec::new();
    if is_rekeyed(table, live, rules.kind)? {
        // Old rows may have one new key for several of them.
        change.statements.push(Statement::new(format!("DELETE FROM {}", super::dialect::table_name(&table.table))));
        if live.iter().any(|column| column.key) {
            actions.push("DROP PRIMARY KEY".to_owned());
        }
        change.notes.push("the primary key has other columns".to_owned());
    }
    for column in &table.columns {
        match live.iter().find(|live| live.name == column.name) {
            None => add(column, rules.kind, &mut actions, &mut change),
            Some(live) => {
                alter_column(table, column, live, rules.kind, &mut actions, &mut coarse, &mut change)?;
                rewritten.extend(rewrite_times(table, column, live, rules));
            }
        }
    }
    for gone in live.iter().filter(|live| !table.columns.iter().any(|column| column.name == live.name)) {
        // What the user added stays exactly as it is, as far as the stored schema tells.
        let was_ours = rules.before.map(|before| before.columns.iter().any(|column| column.name == gone.name));
        if rules.drop_removed && was_ours == Some(true) {
            change.statements.extend(unrefer(table, gone));
            actions.push(format!("DROP COLUMN {}", quote(&gone.name)));
            change.notes.push(format!("`{}` is gone upstream, and is removed", gone.name));
        } else if was_ours == Some(true) && (gone.not_null || gone.has_default) && !gone.key
            || was_ours.is_none() && gone.not_null && !gone.has_default
        {
            // Without its default, which would be taken for a value of the service.
            actions.push(format!("MODIFY COLUMN {}", redefine(gone, &own_type(&gone.sql_type), false)));
            change.notes.push(format!("`{}` is gone upstream; it is kept, without new values", gone.name));
        } else if was_ours == Some(false) && gone.not_null && !gone.has_default {
            return Err(Error::new(Kind::Target, "A column that is not of the service wants a value in every row")
                .with_field("column", &gone.name)
                .hint("give the column a default, or let it be null"));
        }
    }
    if change.statements.iter().any(|statement| statement.text.starts_with("DELETE")) {
        actions.push(format!("ADD PRIMARY KEY ({})", key_list(table)));
    }
    for loss in [NO_FRACTION, ONE_KIND] {
        let names: Vec<String> = coarse.iter().filter(|(_, what)| *what == loss).map(|(name, _)| format!("`{name}`")).collect();
        if !names.is_empty() {
            let names = names.join(", ");
            change.warnings.push(format!("{names}: {loss}, as the official client made them; load the table anew to keep all"));
        }
    }
    if !actions.is_empty() {
        change.statements.push(alter(table, &actions.join(", ")));
    }
    change.statements.extend(rewritten);
    for column in &table.columns {
        let is = live.iter().find(|live| live.name == column.name);
        if column.lookup.is_some() && is.is_none_or(|live| reference(&live.sql_type).is_none()) {
            change.statements.extend(refer(table, column));
        }
    }
    Ok(change)
}

fn is_rekeyed(table: &SqlTable, live: &[LiveColumn], kind: LoadKind) -> Result<bool> {
    let mut wanted: Vec<&str> = table.columns.iter().filter(|column| column.key).map(|column| column.name.as_str()).collect();
    let mut found: Vec<&str> = live.iter().filter(|column| column.key).map(|column| column.name.as_str()).collect();
    wanted.sort_unstable();
    found.sort_unstable();
    if wanted != found && kind == LoadKind::Merge {
        return Err(Error::new(Kind::Schema, "The table's primary key in the database is not that of the service")
            .with_field("key", wanted.join(", "))
            .hint("load the table anew, with --resnapshot, or dropdb and initdb"));
    }
    Ok(wanted != found)
}

/// Whether a new column can be required. Rows that are there have no value for it; the server would make one up, for rows that are
/// about to go as well, and has none for moments.
fn may_require(column: &SqlColumn, kind: LoadKind) -> bool {
    let has_filler = kind == LoadKind::Replace && !column.sql_type.starts_with("date");
    column.required && (has_filler || column.default.is_some() || column.key)
}

fn add(column: &SqlColumn, kind: LoadKind, actions: &mut Vec<String>, change: &mut Change) {
    let required = may_require(column, kind);
    actions.push(format!("ADD COLUMN {}", define(column, &column.sql_type, required)));
    change.notes.push(match required || !column.required {
        true => format!("`{}` is new", column.name),
        false => format!("`{}` is new; it may be null, as older rows have no value for it", column.name),
    });
}

/// Columns that lose something, and what.
type Coarse<'c> = Vec<(&'c str, &'static str)>;

fn alter_column<'c>(
    table: &SqlTable,
    column: &'c SqlColumn,
    live: &LiveColumn,
    kind: LoadKind,
    actions: &mut Vec<String>,
    coarse: &mut Coarse<'c>,
    change: &mut Change,
) -> Result<()> {
    let kept = own_type(&live.sql_type);
    let mut wanted = None;
    match fit(column, &live.sql_type) {
        Fit::Same => {}
        Fit::Coarse(loss) if kind == LoadKind::Merge => coarse.push((column.name.as_str(), loss)),
        Fit::Coarse(_) | Fit::Wider => wanted = Some(column.sql_type.clone()),
        Fit::Words(members) => wanted = Some(enumeration(&members)),
        Fit::ToLookup => {
            change.statements.extend(to_lookup(table, column, live));
            return Ok(());
        }
        Fit::Other if kind == LoadKind::Replace => {
            change.statements.extend(unrefer(table, live));
            // The values of the old rows, which are about to go, would not fit.
            actions.push(format!("DROP COLUMN {}", quote(&column.name)));
            actions.push(format!("ADD COLUMN {}", define(column, &column.sql_type, may_require(column, kind))));
            return Ok(());
        }
        // See `settle`.
        Fit::Other if is_kept(column, live) => {}
        Fit::Other if !kept.contains("binary") && live.lookup.is_none() && column.lookup.is_none() => {
            wanted = Some(LONG_TEXT.to_owned());
        }
        Fit::Other => {
            return Err(Error::new(Kind::Schema, "A column has a type that its values do not fit any more")
                .with_field("column", &column.name)
                .with_field("from", plain(&kept))
                .with_field("to", plain(&column.sql_type))
                .hint("load the table anew, with --resnapshot, or dropdb and initdb"));
        }
    }
    let relaxed = live.not_null && !column.required && !column.key;
    if relaxed {
        change.notes.push(format!("`{}` may be null", column.name));
    }
    let is_told_anew = column.comment.is_some() && column.comment != live.comment;
    if wanted.is_some() || relaxed || is_told_anew {
        let sql_type = wanted.unwrap_or(kept);
        actions.push(format!("MODIFY COLUMN {}", define(column, &sql_type, live.not_null && !relaxed)));
    }
    Ok(())
}

/// Timestamps and times of day that the server converts to text, in the one form of [`text_of`]. A run that was killed between the two
/// left a text whose stored schema is still the old one, so that the statement is repeated then; it changes what it finds in the
/// server's form alone.
fn rewrite_times(table: &SqlTable, column: &SqlColumn, live: &LiveColumn, rules: ChangeRules<'_>) -> Option<Statement> {
    let before = rules.before.and_then(|before| before.columns.iter().find(|before| before.name == column.name));
    let was = match is_text_type(&live.sql_type) {
        // Only in the run that changes the schema.
        true => plain(&before.filter(|before| before.sql_type != column.sql_type)?.sql_type),
        false => plain(&live.sql_type),
    };
    let becomes_text = match fit(column, &live.sql_type) {
        Fit::Wider => is_text_type(&column.sql_type),
        Fit::Other => column.lookup.is_none(),
        Fit::Same => is_text_type(&live.sql_type),
        Fit::Coarse(_) | Fit::Words(_) | Fit::ToLookup => false,
    };
    let (whole, pattern, end) = match parts(&was).0 {
        "datetime" => (19, "^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?$", "Z"),
        "time" => (8, "^[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?$", ""),
        _ => return None,
    };
    if !becomes_text || rules.kind == LoadKind::Replace {
        return None;
    }
    let (name, target) = (quote(&column.name), super::dialect::table_name(&table.table));
    let fraction = format!("SUBSTRING({name}, {})", whole + 1);
    Some(Statement::new(format!(
        "UPDATE {target} SET {name} = CONCAT(REPLACE(LEFT({name}, {whole}), ' ', 'T'), \
         IF({fraction} REGEXP '[1-9]', TRIM(TRAILING '0' FROM {fraction}), ''), '{end}') WHERE {name} REGEXP '{pattern}'"
    )))
}

/// A staged timestamp as the service writes it, `2026-01-02T03:04:05.6Z`, and a time of day as `03:04:05.6`, without zeros at the end of
/// the fraction. `None`: the type is neither.
fn text_of(value: &str, sql_type: &str) -> Option<String> {
    let (whole, end) = match parts(&plain(sql_type)).0 {
        "datetime" => (format!("DATE_FORMAT({value}, '%Y-%m-%dT%H:%i:%s')"), "Z"),
        "time" => (format!("LEFT(CAST({value} AS CHAR), 8)"), ""),
        _ => return None,
    };
    let digits = format!("LPAD(MICROSECOND({value}), 6, '0')");
    Some(format!("CONCAT({whole}, IF(MICROSECOND({value}) = 0, '', CONCAT('.', TRIM(TRAILING '0' FROM {digits}))), '{end}')"))
}

/// Whether the live column takes the values although it has another type: texts take all of them, a lookup table all words.
fn is_kept(column: &SqlColumn, live: &LiveColumn) -> bool {
    match live.lookup {
        Some(_) => is_textual(column),
        None => is_text_type(&live.sql_type) && column.lookup.is_none(),
    }
}

fn is_textual(column: &SqlColumn) -> bool {
    column.enumeration.is_some() || is_text_type(&column.sql_type)
}

fn is_text_type(sql_type: &str) -> bool {
    let own = plain(sql_type);
    text_rank(parts(&own).0, &parts(&own).1).is_some()
}

/// See [`Dialect::settle`](crate::sink::sql::dialect::Dialect::settle).
pub(super) fn settle(column: &SqlColumn, live: &LiveColumn) -> SqlColumn {
    let mut column = column.clone();
    let is_text = is_text_type(&live.sql_type);
    match &live.lookup {
        // The words stay in the table where they are, if the column had another name.
        Some(lookup) if let Some((wanted, _)) = &mut column.lookup => {
            wanted.clone_from(lookup);
            column.convert = Some(through_lookup(lookup));
        }
        Some(lookup) if is_textual(&column) => {
            column.convert = Some(through_lookup(lookup));
            column.lookup = Some((lookup.clone(), String::new()));
            column.sql_type = "int".to_owned();
            column.longest = None;
            column.enumeration = None;
        }
        None if is_text && column.lookup.is_none() && !is_textual(&column) => {
            if !column.key {
                column.convert = text_of("{}", &column.stage_type);
            }
            column.sql_type = own_type(&live.sql_type);
        }
        _ => {}
    }
    column
}

/// Words become numbers of the lookup table. A number is marked by a blank before it, so that a second run knows what the first
/// has done; the server reads it all the same.
fn to_lookup(table: &SqlTable, column: &SqlColumn, live: &LiveColumn) -> Vec<Statement> {
    let Some((lookup, _)) = &column.lookup else { return Vec::new() };
    let (name, target) = (quote(&column.name), super::dialect::table_name(&table.table));
    let required = live.not_null && column.required;
    let text = define(column, &format!("varchar({}) {EXACT}", MAX_WORD + 16), required);
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

/// A live column with another type or nullability; its comment stays.
pub(super) fn redefine(live: &LiveColumn, sql_type: &str, required: bool) -> String {
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

fn unrefer(table: &SqlTable, live: &LiveColumn) -> Option<Statement> {
    let constraint = reference(&live.sql_type)?;
    Some(alter(table, &format!("DROP FOREIGN KEY {constraint}")))
}

/// The quoted foreign key of a live type; see [`live_type`](super::dialect::live_type).
fn reference(sql_type: &str) -> Option<&str> {
    sql_type.split_once(" REFERENCES ").map(|(_, constraint)| constraint)
}

/// A live type as it can be written into a definition.
pub(super) fn own_type(sql_type: &str) -> String {
    sql_type.split(" REFERENCES ").next().unwrap_or(sql_type).to_owned()
}

/// A type without character set and the like, for people and for comparison.
pub(super) fn plain(sql_type: &str) -> String {
    let own = own_type(sql_type);
    let end = [" CHARACTER SET ", " /*"].iter().filter_map(|mark| own.find(mark)).min().unwrap_or(own.len());
    own[..end].to_owned()
}

/// Members of an enumeration type. `None`: it is none.
pub(super) fn members(sql_type: &str) -> Option<Vec<String>> {
    let own = plain(sql_type);
    let list = own.strip_prefix("enum(")?.strip_suffix(')')?;
    let mut members = Vec::new();
    let mut chars = list.chars().peekable();
    while chars.next_if_eq(&'\'').is_some() {
        let mut member = String::new();
        loop {
            match chars.next()? {
                '\'' if chars.next_if_eq(&'\'').is_none() => break,
                // The catalogue does not escape; what we write does.
                '\\' if chars.next_if_eq(&'\\').is_some() => member.push('\\'),
                other => member.push(other),
            }
        }
        members.push(member);
        chars.next_if_eq(&',');
    }
    Some(members)
}

/// The members of `live` and what it lacks of `wanted`; `None`: nothing.
pub(super) fn united(live: &[String], wanted: &[String]) -> Option<Vec<String>> {
    let missing: Vec<&String> = wanted.iter().filter(|word| !live.contains(word) && can_be_member(word)).collect();
    (!missing.is_empty()).then(|| live.iter().chain(missing).cloned().collect())
}

const NO_FRACTION: &str = "only whole seconds are kept";
const ONE_KIND: &str = "addresses of version 4 are kept as if they were of version 6";

enum Fit {
    /// Nothing to do: it is the same, or wider, and stays.
    Same,
    /// It loses something of each value, in these words.
    Coarse(&'static str),
    /// Every value fits, converted.
    Wider,
    /// An enumeration that needs these members.
    Words(Vec<String>),
    /// Words become numbers.
    ToLookup,
    Other,
}

/// A type and its numbers: `decimal(12,4)` is `decimal` with 12 and 4.
fn parts(sql_type: &str) -> (&str, Vec<u64>) {
    match sql_type.split_once('(') {
        Some((base, numbers)) => {
            (base, numbers.trim_end_matches(')').split(',').filter_map(|number| number.trim().parse().ok()).collect())
        }
        None => (sql_type, Vec::new()),
    }
}

/// Bytes or characters that a type of texts takes, as a rank.
fn text_rank(base: &str, numbers: &[u64]) -> Option<u64> {
    Some(match base {
        "char" | "varchar" => *numbers.first()?,
        "tinytext" => 63,
        "text" => 16_383,
        "mediumtext" => 1 << 22,
        "longtext" => 1 << 30,
        _ => return None,
    })
}

fn fit(column: &SqlColumn, live: &str) -> Fit {
    let is_reference = reference(live).is_some();
    let (from, to) = (plain(live), plain(&column.sql_type));
    let live_members = members(live);
    if column.lookup.is_some() {
        return match from.as_str() {
            // Without the foreign key: it comes after.
            "int" => Fit::Same,
            _ if live_members.is_some() || text_rank(parts(&from).0, &parts(&from).1).is_some() => Fit::ToLookup,
            _ => Fit::Other,
        };
    }
    if is_reference {
        return Fit::Other;
    }
    if let (Some(live), Some(wanted)) = (&live_members, members(&column.sql_type)) {
        return united(live, &wanted).map_or(Fit::Same, Fit::Words);
    }
    if from == to {
        return Fit::Same;
    }
    let ((a, m), (b, n)) = (parts(&from), parts(&to));
    let number = |base: &str| ["tinyint", "smallint", "int", "bigint"].iter().position(|known| *known == base);
    let (rank_a, rank_b) = (text_rank(a, &m), text_rank(b, &n));
    match (a, b) {
        _ if let (Some(x), Some(y)) = (number(a), number(b)) => {
            if x < y {
                Fit::Wider
            } else {
                Fit::Same
            }
        }
        _ if let (Some(x), "double") = (number(a), b) => {
            if x < 3 {
                Fit::Wider
            } else {
                Fit::Other
            }
        }
        _ if let (Some(x), "decimal", [precision, scale]) = (number(a), b, &n[..]) => {
            if precision.saturating_sub(*scale) >= [3, 5, 10, 19][x] { Fit::Wider } else { Fit::Other }
        }
        ("float", "double") => Fit::Wider,
        ("decimal", "decimal") => match (&m[..], &n[..]) {
            ([p, s], [q, t]) if t <= s && q.saturating_sub(*t) <= p.saturating_sub(*s) => Fit::Same,
            ([p, s], [q, t]) if t >= s && q.saturating_sub(*t) >= p.saturating_sub(*s) => Fit::Wider,
            _ => Fit::Other,
        },
        // Texts take words and JSON, which the server would refuse to tell apart now.
        _ if let (Some(_), true) = (rank_a, b == "json" || members(&column.sql_type).is_some()) => Fit::Same,
        _ if let (Some(x), Some(y)) = (rank_a, rank_b) => {
            if x >= y && a != "char" {
                Fit::Same
            } else if x <= y {
                Fit::Wider
            } else {
                Fit::Same
            }
        }
        // Bytes are not texts.
        ("binary" | "varbinary", _) if rank_b.is_some() => Fit::Other,
        // Whatever else there is has a text.
        (_, "mediumtext" | "longtext") => Fit::Wider,
        _ if live_members.is_some() && rank_b.is_some() => Fit::Wider,
        ("time", "varchar") if n.first().is_some_and(|n| *n >= 45) => Fit::Wider,
        ("datetime", "datetime") => match (m.first(), n.first()) {
            (None, Some(_)) => Fit::Coarse(NO_FRACTION),
            _ => Fit::Same,
        },
        ("time", "time") => match (m.first(), n.first()) {
            (None, Some(_)) => Fit::Coarse(NO_FRACTION),
            _ => Fit::Same,
        },
        ("date", "datetime") => Fit::Wider,
        ("binary", "varbinary") if m == [16] => Fit::Coarse(ONE_KIND),
        ("binary", "varbinary") => Fit::Wider,
        ("varbinary", "binary") if m >= n => Fit::Same,
        _ => Fit::Other,
    }
}
