//! The difference of two versions of a table schema, as a value.

use super::{ColumnType, TableSchema};

/// One change from an older to a newer schema. `path` is `column` or `column.member`.
#[derive(Debug, Clone, PartialEq)]
pub enum SchemaChange {
    /// A column or nested member that was not there.
    Added {
        /// Where.
        path: String,
        /// Listed in `required` from the start.
        required: bool,
    },
    /// Gone upstream; targets keep it with nulls unless told otherwise.
    Removed {
        /// Where.
        path: String,
    },
    /// No longer in `required`.
    Relaxed {
        /// Where.
        path: String,
    },
    /// Now in `required`.
    Tightened {
        /// Where.
        path: String,
    },
    /// Every old value fits the new type (int32 to int64, longer text, more enum members, larger decimal, enum to text).
    Widened {
        /// Where.
        path: String,
        /// Before.
        from: ColumnType,
        /// After.
        to: ColumnType,
    },
    /// Old values may not fit the new type.
    Incompatible {
        /// Where.
        path: String,
        /// Before.
        from: ColumnType,
        /// After.
        to: ColumnType,
    },
    /// Other key columns than before.
    KeyChanged {
        /// Before.
        from: Vec<String>,
        /// After.
        to: Vec<String>,
    },
    /// Only texts for people.
    DescriptionChanged {
        /// Where; empty for the table itself.
        path: String,
    },
}

/// All changes from `old` to `new`, in column order.
pub fn changes_between(_old: &TableSchema, _new: &TableSchema) -> Vec<SchemaChange> {
    unimplemented!()
}
