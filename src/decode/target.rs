//! Which column a name of a table file stands for: `meta.ts`, `key.id`, `value.name`, or a leaf of an object that is spread over
//! several columns, `value.settings.is_public`. It reads no values.

use super::column::{Column, Object};
use super::rows::Rows;
use crate::error::Result;

/// Where a column of a file goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Nowhere: the schema does not know it.
    Ignore,
    /// Commit time.
    Ts,
    /// Upsert or delete.
    Action,
    /// A key column, and the way to a leaf inside it.
    Key(usize, Box<[usize]>),
    /// A value column, and the way to a leaf inside it.
    Value(usize, Box<[usize]>),
}

impl Target {
    pub(super) fn of(name: &str, rows: &Rows) -> Self {
        let target = match name.split_once('.') {
            Some(("meta", "ts")) => Some(Target::Ts),
            Some(("meta", "action")) => Some(Target::Action),
            Some(("key", rest)) => way(&rows.key, rest).map(|(number, leaf)| Target::Key(number, leaf)),
            Some(("value", rest)) => way(&rows.value, rest).map(|(number, leaf)| Target::Value(number, leaf)),
            _ => None,
        };
        target.unwrap_or(Target::Ignore)
    }

    /// Name of the group and of the column, for faults.
    pub(super) fn label<'r>(&self, rows: &'r Rows) -> (&'static str, &'r str) {
        match self {
            Target::Ignore => ("", ""),
            Target::Ts => ("meta", "ts"),
            Target::Action => ("meta", "action"),
            Target::Key(number, _) => ("key", rows.key.label(*number)),
            Target::Value(number, _) => ("value", rows.value.label(*number)),
        }
    }
}

/// Whether a name of a file is one of the group of values, known or not.
pub(super) fn is_value(name: &str) -> bool {
    name == "value" || name.starts_with("value.")
}

/// Whether the columns of a file suffice: commit times and all key columns.
pub(super) fn check(targets: &[Target], rows: &Rows) -> Result<()> {
    if !targets.contains(&Target::Ts) {
        return Err(rows.broken("The result lacks the column of commit times").with_field("column", "meta.ts"));
    }
    for (number, key) in rows.table().key.iter().enumerate() {
        if !targets.iter().any(|target| matches!(target, Target::Key(found, _) if *found == number)) {
            return Err(rows.broken("The result lacks a key column").with_field("column", format!("key.{}", key.name)));
        }
    }
    Ok(())
}

/// Number of the column and the numbers of members from there to the leaf. A name with dots of its own comes before a way.
fn way(object: &Object, name: &str) -> Option<(usize, Box<[usize]>)> {
    if let Some(number) = object.names.find(name.as_bytes()) {
        return Some((number, Box::default()));
    }
    name.match_indices('.').find_map(|(dot, _)| {
        let number = object.names.find(&name.as_bytes()[..dot])?;
        let Column::Struct(column) = object.columns.get(number)? else { return None };
        let (member, rest) = way(&column.object, &name[dot + 1..])?;
        Some((number, std::iter::once(member).chain(rest).collect()))
    })
}
