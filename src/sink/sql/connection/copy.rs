//! Where rows are copied, prepared once per load.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::buffer::NullBuffer;

use crate::error::{Error, ErrorContext, Kind, Result};
use crate::sink::sql::encoding::key_of;

/// A table or staging table that rows are copied into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sink::sql) struct CopyTarget {
    /// Quoted name of the table.
    pub(in crate::sink::sql) table: String,
    /// Its columns.
    pub(in crate::sink::sql) columns: Vec<CopyColumn>,
    /// Names of the key columns in the record batch.
    pub(in crate::sink::sql) keys: Vec<String>,
}

/// A column of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sink::sql) struct CopyColumn {
    /// Quoted name.
    pub(in crate::sink::sql) name: String,
    /// Name in the record batch.
    pub(in crate::sink::sql) source: String,
    /// Type as the server spells it.
    pub(in crate::sink::sql) sql_type: String,
}

impl CopyTarget {
    /// The error for a value that cannot be stored. It names the column (as in the record batch) and the key, not the value.
    pub(in crate::sink::sql) fn refuse(&self, batch: &RecordBatch, row: usize, column: &str, reason: &'static str) -> Error {
        Error::new(Kind::Data, "A value does not fit its column in the database")
            .with_field("column", column)
            .with_field("key", key_of(batch, &self.keys, row))
            .with_field("reason", reason)
            .hint("the table was not changed; report the value to the service's support")
    }
}

/// A target with the format of each column, which follows from its type.
#[derive(Debug)]
pub(in crate::sink::sql) struct CopyPlan<F> {
    pub(in crate::sink::sql) target: CopyTarget,
    formats: Vec<F>,
}

/// A column of a record batch, ready to be encoded.
#[derive(Debug)]
pub(in crate::sink::sql) struct BoundColumn<C> {
    nulls: Option<NullBuffer>,
    pub(in crate::sink::sql) cells: C,
}

impl<C> BoundColumn<C> {
    /// The cells of an array.
    pub(in crate::sink::sql) fn new(array: &ArrayRef, cells: C) -> Self {
        Self { nulls: array.logical_nulls(), cells }
    }

    /// Whether the value of a row is null.
    pub(in crate::sink::sql) fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }
}

impl<F> CopyPlan<F> {
    /// Reads the types of the columns. `format` gives the format for a type, as the server spells it.
    pub(in crate::sink::sql) fn new(target: &CopyTarget, format: impl Fn(&str) -> F) -> Self {
        let formats = target.columns.iter().map(|column| format(&column.sql_type)).collect();
        Self { target: target.clone(), formats }
    }

    /// The columns of a batch in the order of the copy. `cells` prepares an array for a format. Kind `Bug` if the batch does not fit.
    pub(in crate::sink::sql) fn bind<C>(
        &self,
        batch: &RecordBatch,
        cells: impl Fn(&F, &ArrayRef) -> Result<C>,
    ) -> Result<Vec<BoundColumn<C>>> {
        let columns = self.target.columns.iter().zip(&self.formats).map(|(column, format)| {
            let array = batch.column_by_name(&column.source);
            let array = array.ok_or_else(|| mismatch().with_field("column", &column.source))?;
            let cells = cells(format, array).with_field("column", &column.source)?;
            Ok(BoundColumn::new(array, cells))
        });
        columns.collect()
    }
}

/// The error for a record batch that does not have the schema of its table. Kind `Bug`.
pub(in crate::sink::sql) fn mismatch() -> Error {
    Error::new(Kind::Bug, "The rows do not have the schema of their table")
}
