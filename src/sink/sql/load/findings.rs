//! Values in the rows of a load that exceed the schema, by column.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, RecordBatch};

use crate::model::{TableRef, counted};
use crate::sink::sql::dialect::{Dialect, SqlColumn, SqlTable};
use crate::sink::sql::encoding;

/// Values of one column that exceed the schema.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// A null where a value is required.
    pub(super) has_null: bool,
    /// A string that is too long for the column.
    pub(super) has_long: bool,
    /// Enum values that the schema lists or that were found.
    pub(super) known: HashSet<String>,
    /// Enum values that were found and may be missing in the database.
    pub(super) new_values: Vec<String>,
    /// An enum value that no enumeration can hold.
    pub(super) has_impossible_value: bool,
    /// Strings with the character NUL.
    nul: u64,
    /// JSON values with half of a surrogate pair.
    half_pairs: u64,
    /// Subnormal numbers that became zero.
    pub(super) subnormal: u64,
}

impl Findings {
    /// Nothing found yet.
    pub(super) fn of(column: &SqlColumn) -> Self {
        let known = column.enumeration.iter().flat_map(|enumeration| enumeration.members.iter().cloned()).collect();
        Self { known, ..Self::default() }
    }

    /// Values that were changed for the database, one sentence each.
    pub(super) fn warnings(&self, column: &str) -> impl Iterator<Item = String> {
        [
            (self.nul, "replaced NUL by U+2400 in", "string"),
            (self.half_pairs, "replaced lone surrogates by U+FFFD in", "value"),
            (self.subnormal, "stored 0 for", "subnormal number"),
        ]
        .into_iter()
        .filter(|(count, ..)| *count > 0)
        .map(move |(count, done, noun)| format!("`{column}`: {done} {}", counted(count, noun)))
    }
}

fn is_too_long(dialect: &dyn Dialect, column: &SqlColumn, array: &ArrayRef) -> bool {
    column.longest.is_some_and(|longest| encoding::has_longer(array, longest))
        || dialect.most_bytes(column).is_some_and(|most| encoding::has_more_bytes(array, most))
}

/// Adds what a batch of upserts holds beyond the schema. Returns whether the table must change for it.
pub(super) fn inspect(dialect: &dyn Dialect, table: &SqlTable, findings: &mut [Findings], upserts: &RecordBatch) -> bool {
    let mut needs_change = false;
    for (column, findings) in table.columns.iter().zip(findings) {
        let Some(array) = upserts.column_by_name(&column.source) else { continue };
        if column.required && !column.key && !findings.has_null && array.null_count() > 0 {
            findings.has_null = true;
            needs_change = true;
        }
        if !findings.has_long && is_too_long(dialect, column, array) {
            findings.has_long = true;
            needs_change = true;
        }
        if column.enumeration.is_some() && !findings.has_impossible_value {
            needs_change |= inspect_enum(dialect, table, column, findings, upserts);
        }
        let is_json = dialect.is_json(&column.sql_type);
        if !dialect.holds_nul() {
            findings.nul += encoding::count_nul(array);
            if is_json {
                findings.nul += encoding::count_json(array, encoding::has_nul);
            }
        }
        if is_json {
            findings.half_pairs += encoding::count_json(array, encoding::has_half_pair);
        }
    }
    needs_change
}

fn inspect_enum(
    dialect: &dyn Dialect,
    table: &SqlTable,
    column: &SqlColumn,
    findings: &mut Findings,
    upserts: &RecordBatch,
) -> bool {
    let Some(array) = upserts.column_by_name(&column.source) else { return false };
    let unknown = encoding::unknown_values(array, &findings.known);
    let is_new = !unknown.is_empty();
    for (value, row) in unknown {
        // Lookup tables hold strings.
        if column.lookup.is_some() || dialect.can_be_enum_value(&value) {
            findings.known.insert(value.clone());
            findings.new_values.push(value);
        } else {
            findings.has_impossible_value = true;
            warn(&table.table, column, upserts, table, row);
            break;
        }
    }
    is_new
}

fn warn(name: &TableRef, column: &SqlColumn, upserts: &RecordBatch, table: &SqlTable, row: usize) {
    let keys: Vec<String> = table.keys().map(|column| column.source.clone()).collect();
    let key = encoding::key_of(upserts, &keys, row);
    tracing::warn!(table = %name, column = column.name, key, "An enum value cannot be a value of the database's enumeration type");
}
