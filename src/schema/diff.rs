//! The changes between two versions of a table schema. Each target decides how to apply them.

use super::{Column, ColumnType, ELEMENT, TableSchema};

/// A change from an older to a newer schema. `path` is `column` or `column.member`.
#[derive(Debug, Clone, PartialEq)]
pub enum SchemaChange {
    /// A new column or nested member.
    Added {
        /// The column or member.
        path: String,
        /// Whether it is listed in `required`.
        required: bool,
    },
    /// A column or member that the service removed. Targets keep it, with nulls in new rows.
    Removed {
        /// The column or member.
        path: String,
    },
    /// A column that is no longer listed in `required`.
    Relaxed {
        /// The column or member.
        path: String,
    },
    /// A column that is now listed in `required`.
    Tightened {
        /// The column or member.
        path: String,
    },
    /// A type change to which every old value can be converted without loss: int32 to int64, longer text, more enum values, larger
    /// decimal, enum to text.
    Widened {
        /// The column or member.
        path: String,
        /// The old value.
        from: ColumnType,
        /// The new value.
        to: ColumnType,
    },
    /// A type change to which some old values cannot be converted. This includes a removed enum value, which targets that
    /// store enums as text can ignore.
    Incompatible {
        /// The column or member.
        path: String,
        /// The old value.
        from: ColumnType,
        /// The new value.
        to: ColumnType,
    },
    /// A change of the key columns.
    KeyChanged {
        /// The old value.
        from: Vec<String>,
        /// The new value.
        to: Vec<String>,
    },
    /// A change of the description only.
    DescriptionChanged {
        /// The column or member; empty for the table itself.
        path: String,
    },
}

/// All changes from `old` to `new`: those of the key and the table first, then in the column order of `new`, removals last. Paths inside
/// nested columns are `column.member`, or `column.element` for the items of a list. Column order and defaults are ignored.
pub fn changes_between(old: &TableSchema, new: &TableSchema) -> Vec<SchemaChange> {
    let mut changes = Vec::new();
    let (from, to) = (names(&old.key), names(&new.key));
    if from != to {
        changes.push(SchemaChange::KeyChanged { from, to });
    }
    if old.description != new.description {
        changes.push(SchemaChange::DescriptionChanged { path: String::new() });
    }
    compare_columns("", &old.columns().collect::<Vec<_>>(), &new.columns().collect::<Vec<_>>(), &mut changes);
    changes
}

fn names(columns: &[Column]) -> Vec<String> {
    columns.iter().map(|column| column.name.clone()).collect()
}

fn compare_columns(prefix: &str, old: &[&Column], new: &[&Column], changes: &mut Vec<SchemaChange>) {
    for column in new {
        let path = format!("{prefix}{}", column.name);
        match old.iter().find(|before| before.name == column.name) {
            None => changes.push(SchemaChange::Added { path, required: column.required }),
            Some(before) => compare_column(path, before, column, changes),
        }
    }
    for column in old {
        if !new.iter().any(|after| after.name == column.name) {
            changes.push(SchemaChange::Removed { path: format!("{prefix}{}", column.name) });
        }
    }
}

fn compare_column(path: String, old: &Column, new: &Column, changes: &mut Vec<SchemaChange>) {
    let before = changes.len();
    compare_types(&path, &old.column_type, &new.column_type, changes);
    // The placeholder may be longer than the declared length, so the column may have to be widened for it.
    let grown = changes.len() == before && new.oversizeable && !old.oversizeable;
    if grown && matches!(old.column_type, ColumnType::Text { max_length: Some(_) }) {
        let (from, to) = (old.column_type.clone(), new.column_type.clone());
        changes.push(SchemaChange::Widened { path: path.clone(), from, to });
    }
    match (old.required, new.required) {
        (true, false) => changes.push(SchemaChange::Relaxed { path: path.clone() }),
        (false, true) => changes.push(SchemaChange::Tightened { path: path.clone() }),
        _ => {}
    }
    if old.description != new.description {
        changes.push(SchemaChange::DescriptionChanged { path });
    }
}

fn compare_types(path: &str, old: &ColumnType, new: &ColumnType, changes: &mut Vec<SchemaChange>) {
    match (old, new) {
        (ColumnType::Struct(old), ColumnType::Struct(new)) => {
            let (old, new): (Vec<&Column>, Vec<&Column>) = (old.iter().collect(), new.iter().collect());
            compare_columns(&format!("{path}."), &old, &new, changes);
        }
        (ColumnType::List(old), ColumnType::List(new)) => compare_types(&format!("{path}.{ELEMENT}"), old, new, changes),
        (old, new) => {
            let (path, from, to) = (path.to_owned(), old.clone(), new.clone());
            match fit(old, new) {
                Fit::Same => {}
                Fit::Wider => changes.push(SchemaChange::Widened { path, from, to }),
                Fit::Other => changes.push(SchemaChange::Incompatible { path, from, to }),
            }
        }
    }
}

enum Fit {
    Same,
    Wider,
    Other,
}

/// Whether every value of `old` is also a value of `new`, with the same text.
fn fit(old: &ColumnType, new: &ColumnType) -> Fit {
    use ColumnType::*;
    let wider = match (old, new) {
        (old, new) if old == new => return Fit::Same,
        (Enum { members: a, open: x }, Enum { members: b, open: y }) => {
            let kept = a.iter().all(|member| b.contains(member));
            // The order of enum values is not stable on the service.
            if kept && a.len() == b.len() && x == y {
                return Fit::Same;
            }
            *y || (kept && !*x)
        }
        (Int16, Int32 | Int64 | Float32 | Float64) | (Int32, Int64 | Float64) | (Float32, Float64) => true,
        (Int16, Decimal { precision, scale }) => digits_before_point(*precision, *scale) >= 5,
        (Int32, Decimal { precision, scale }) => digits_before_point(*precision, *scale) >= 10,
        (Int64, Decimal { precision, scale }) => digits_before_point(*precision, *scale) >= 19,
        (Decimal { precision: p, scale: s }, Decimal { precision: q, scale: t }) => {
            t >= s && digits_before_point(*q, *t) >= digits_before_point(*p, *s)
        }
        (Text { max_length: a }, Text { max_length: b }) => holds(*b, *a),
        (Enum { members, open }, Text { max_length }) => {
            let longest = members.iter().map(|member| member.chars().count() as u64).max();
            holds(*max_length, if *open { None } else { longest })
        }
        (Uuid, Text { max_length }) => holds(*max_length, Some(UUID_LENGTH)),
        (Ip { .. }, Text { max_length }) => holds(*max_length, Some(IP_LENGTH)),
        (Time, Text { max_length }) => holds(*max_length, Some(TIME_LENGTH)),
        (Json, Text { max_length }) => max_length.is_none(),
        (Ip { v4: a, v6: b }, Ip { v4: c, v6: d }) => (*c || !*a) && (*d || !*b),
        _ => false,
    };
    if wider { Fit::Wider } else { Fit::Other }
}

const UUID_LENGTH: u64 = 36;
/// The length of the longest IPv6 address, which has an IPv4 suffix.
const IP_LENGTH: u64 = 45;
/// `hh:mm:ss.ffffff+hh:mm`.
const TIME_LENGTH: u64 = 21;

fn digits_before_point(precision: u8, scale: i8) -> i32 {
    i32::from(precision) - i32::from(scale)
}

/// Whether texts of the old maximum length fit the new one; `None` is unbounded.
fn holds(bound: Option<u64>, longest: Option<u64>) -> bool {
    match (bound, longest) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(bound), Some(longest)) => bound >= longest,
    }
}
