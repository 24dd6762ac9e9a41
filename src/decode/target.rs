//! Maps the column names of a file to columns of the table: `meta.ts`, `key.id`, `value.name`, or `value.settings.is_public` for a member of an
//! object that is spread over several columns.

use super::column::{self, Object};
use super::rows::Rows;
use crate::error::Result;
use crate::schema::Column;

/// The destination of a column of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// None: the column is not in the schema.
    Ignore,
    /// The commit time.
    Ts,
    /// The operation.
    Action,
    /// A key column, and the path of a member inside it.
    Key(usize, Box<[usize]>),
    /// A value column, and the path of a member inside it.
    Value(usize, Box<[usize]>),
}

impl Target {
    pub(super) fn of(name: &str, rows: &Rows) -> Self {
        let target = match name.split_once('.') {
            Some(("meta", "ts")) => Some(Target::Ts),
            Some(("meta", "action")) => Some(Target::Action),
            Some(("key", rest)) => path_of(&rows.key, rest).map(|(number, leaf)| Target::Key(number, leaf)),
            Some(("value", rest)) => path_of(&rows.value, rest).map(|(number, leaf)| Target::Value(number, leaf)),
            _ => None,
        };
        target.unwrap_or(Target::Ignore)
    }

    /// The names of the group and the column, for errors.
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

/// Whether a column of a file belongs to the group `value`, known or not.
pub(super) fn is_value(name: &str) -> bool {
    name == "value" || name.starts_with("value.")
}

/// Fails unless a file has the commit time, all key columns, and the columns that the options require. Notes the other value columns that
/// it lacks.
pub(super) fn check(targets: &[Target], rows: &mut Rows) -> Result<()> {
    if !targets.contains(&Target::Ts) {
        return Err(rows.broken("The column of commit times is missing").with_field("column", "meta.ts"));
    }
    if rows.options().needs_action && !targets.contains(&Target::Action) {
        return Err(rows.broken("An increment has no column of actions").with_field("column", "meta.action"));
    }
    for (number, key) in rows.table().key.iter().enumerate() {
        if !targets.iter().any(|target| matches!(target, Target::Key(found, _) if *found == number)) {
            return Err(rows.broken("A key column is missing").with_field("column", format!("key.{}", key.name)));
        }
    }
    // A file without any value column can hold deletes only.
    if targets.iter().any(|target| matches!(target, Target::Value(..))) {
        let is_present =
            |number: usize| targets.iter().any(|target| matches!(target, Target::Value(found, _) if *found == number));
        let absent = rows.table().value.iter().enumerate().filter(|(number, _)| !is_present(*number));
        let absent: Vec<&Column> = absent.map(|(_, column)| column).collect();
        if let Some(required) = absent.iter().find(|column| column.required && rows.options().needs_required) {
            return Err(rows.broken("A required column is missing").with_field("column", format!("value.{}", required.name)));
        }
        rows.tally.absent_columns = absent.into_iter().map(|column| column.name.clone()).collect();
    }
    Ok(())
}

/// The number of the column, and the member numbers from there to the leaf. A column whose own name has dots takes precedence.
fn path_of(object: &Object, name: &str) -> Option<(usize, Box<[usize]>)> {
    if let Some(number) = object.names.find(name.as_bytes()) {
        return Some((number, Box::default()));
    }
    name.match_indices('.').find_map(|(dot, _)| {
        let number = object.names.find(&name.as_bytes()[..dot])?;
        let column::Column::Struct(column) = object.columns.get(number)? else { return None };
        let (member, rest) = path_of(&column.object, &name[dot + 1..])?;
        Some((number, std::iter::once(member).chain(rest).collect()))
    })
}
