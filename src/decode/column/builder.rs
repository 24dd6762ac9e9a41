//! The interface of a column under construction, so that nested columns can be written without naming the type of their members.

use arrow::array::ArrayRef;

use super::super::fault::Read;
use super::super::json::Cursor;
use super::tally::{Cell, Tally};
use crate::error::Result;
use crate::schema::ColumnType;

/// A column under construction. Rows are filled in ascending order; rows that were skipped are null.
pub(in crate::decode) trait Builder: Sized {
    /// An empty column. `path` is the prefix of the names of nested members and ends with a dot.
    fn new(column_type: &ColumnType, path: &str) -> Self;

    /// Makes room for `rows` rows in total.
    fn reserve(&mut self, rows: usize);

    /// Reads the JSON value at the cursor, which is not null. Returns `false` if the value still counts as null.
    fn json(&mut self, cursor: &mut Cursor<'_>, row: usize, tally: &mut Tally) -> Read<bool>;

    /// Reads a cell that holds the member at `path`; an empty path is the column itself. Returns `false` if the value counts as null.
    fn leaf(&mut self, path: &[usize], cell: Cell<'_>, row: usize, tally: &mut Tally) -> Read<bool>;

    /// Whether the row has a value.
    fn is_set(&self, row: usize) -> bool;

    /// Makes the row null. It must be the last one.
    fn unset(&mut self, row: usize);

    /// Removes `row` and all later rows, including one that a fault left half written.
    fn truncate(&mut self, row: usize);

    /// The first `rows` rows as an array. The column is empty afterwards.
    fn finish(&mut self, rows: usize) -> Result<ArrayRef>;
}
