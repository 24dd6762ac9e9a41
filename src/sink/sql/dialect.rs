//! The seam to the languages: pure text, no I/O. What a table is called, how it is made, changed, staged and merged.

use std::fmt::Debug;

use super::statement::{Row, Statement};
use crate::error::{Error, Result};
use crate::model::{Namespace, TableRef};
use crate::schema::TableSchema;
use crate::sink::LoadKind;

/// A column of a table as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SqlColumn {
    /// Name in the database, unquoted.
    pub(super) name: String,
    /// Name in the record batches.
    pub(super) source: String,
    /// Type as the server spells it, with enumeration types quoted and qualified.
    pub(super) sql_type: String,
    /// The type by which it is staged: that of the column, or a text that is converted when it is merged.
    pub(super) stage_type: String,
    /// From the staging table's column to the table's, if they differ; `{}` stands for the former.
    pub(super) convert: Option<String>,
    /// The bulk path takes the column's own type, so that rows can be copied straight into the table.
    pub(super) direct: bool,
    /// Part of the primary key.
    pub(super) key: bool,
    /// May not be null.
    pub(super) required: bool,
    /// Default as an SQL expression.
    pub(super) default: Option<String>,
    /// Text for people.
    pub(super) comment: Option<String>,
    /// The enumeration it needs.
    pub(super) enumeration: Option<Enumeration>,
    /// The quoted lookup table it refers to, and the name of the foreign key.
    pub(super) lookup: Option<(String, String)>,
}

/// A named enumeration type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Enumeration {
    /// Name in the database, unquoted, without its schema.
    pub(super) name: String,
    /// Words it has to have.
    pub(super) members: Vec<String>,
}

/// A column as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LiveColumn {
    /// Name.
    pub(super) name: String,
    /// Type, spelled like [`SqlColumn::sql_type`].
    pub(super) sql_type: String,
    /// May not be null.
    pub(super) not_null: bool,
    /// Part of the primary key.
    pub(super) key: bool,
    /// Has a default.
    pub(super) has_default: bool,
    /// Text for people.
    pub(super) comment: Option<String>,
}

/// A table as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SqlTable {
    /// Which.
    pub(super) table: TableRef,
    /// Its columns, key first.
    pub(super) columns: Vec<SqlColumn>,
    /// Text for people.
    pub(super) comment: Option<String>,
}

impl SqlTable {
    /// Whether rows have to be converted on their way, so that they cannot be copied straight into the table.
    pub(super) fn needs_stage(&self) -> bool {
        !self.columns.iter().all(|column| column.direct)
    }
}

/// How a table that exists becomes the one that is wanted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// To be run in order.
    pub(super) statements: Vec<Statement>,
    /// What changes, one sentence each.
    pub(super) notes: Vec<String>,
}

/// Text only. Names that go in are unquoted, names in the texts that come out are quoted.
pub(super) trait Dialect: Debug + Send + Sync {
    /// A name in quotes.
    fn quote(&self, name: &str) -> String;

    /// The quoted name of a table.
    fn table_name(&self, table: &TableRef) -> String;

    /// The quoted name of a table of our own book-keeping: `table_sync` or `database_version`.
    fn meta_table(&self, name: &str) -> String;

    /// The placeholder of the n-th parameter, from 1.
    fn placeholder(&self, number: usize) -> String;

    /// An expression for the parameter `placeholder` as a moment, and the format of the parameter.
    fn moment(&self, placeholder: &str) -> String;

    /// An expression for the microseconds since the epoch of the moment `expression`.
    fn micros_of(&self, expression: &str) -> String;

    /// An expression that is true if the table exists.
    fn exists(&self, table: &TableRef) -> String;

    /// Asks whether the book-keeping exists: one row, `t` or `f`.
    fn has_meta(&self) -> Statement;

    /// Makes the book-keeping; does nothing where it is.
    fn create_meta(&self) -> Statement;

    /// Names of tables that very old versions of the official client left; a row means that a migration is due.
    fn ancient_tables(&self) -> Statement;

    /// Makes room for the tables of a namespace; does nothing where it is.
    fn create_namespace(&self, namespace: &Namespace) -> Statement;

    /// Waits for the lock of `name` until the end of the transaction.
    fn lock(&self, name: &str) -> Statement;

    /// Takes the lock if it is free: one row, `t` or `f`.
    fn try_lock(&self, name: &str) -> Statement;

    /// Whether the server refused a repeated key.
    fn is_duplicate(&self, error: &Error) -> bool;

    /// Begins a transaction.
    fn begin(&self) -> Statement {
        Statement::new("BEGIN")
    }

    /// Makes it last.
    fn commit(&self) -> Statement {
        Statement::new("COMMIT")
    }

    /// Undoes it.
    fn rollback(&self) -> Statement {
        Statement::new("ROLLBACK")
    }

    /// The table for a schema.
    fn table_of(&self, schema: &TableSchema) -> Result<SqlTable>;

    /// Asks for the columns of a table in order; see [`Dialect::read_live`].
    fn live_columns(&self, table: &TableRef) -> Statement;

    /// Reads a row of [`Dialect::live_columns`].
    fn read_live(&self, row: &Row) -> Option<LiveColumn>;

    /// Asks for the words of the enumerations of a namespace: rows of name and word.
    fn live_enumerations(&self, namespace: &Namespace) -> Statement;

    /// Makes missing enumerations (to be run in the transaction).
    fn create_enumerations(&self, table: &SqlTable, live: &[(String, String)]) -> Vec<Statement>;

    /// Adds missing words to enumerations that exist (each to be run outside a transaction), with what to say about it.
    fn widen_enumerations(&self, table: &SqlTable, live: &[(String, String)]) -> Vec<(Statement, String)>;

    /// Makes the lookup tables of a table; does nothing where they are.
    fn create_lookups(&self, table: &SqlTable) -> Vec<Statement>;

    /// Makes the table without its primary key, which is added when the rows are in.
    fn create_table(&self, table: &SqlTable) -> Vec<Statement>;

    /// The primary key.
    fn add_key(&self, table: &SqlTable) -> Statement;

    /// From the live columns to the wanted ones. `ours` are names of columns that an earlier version of the table's schema had.
    /// Kind `Schema` for what a merge cannot follow; with [`LoadKind::Replace`] the rows are gone when it runs.
    fn change_table(&self, table: &SqlTable, live: &[LiveColumn], ours: &[String], kind: LoadKind) -> Result<Change>;

    /// Lets a column be null.
    fn relax(&self, table: &SqlTable, column: &SqlColumn) -> Statement;

    /// Makes the staging table of the session.
    fn create_stage(&self, table: &SqlTable) -> Statement;

    /// The quoted name of the staging table.
    fn stage(&self) -> String;

    /// Type of a text in a staging table.
    fn text_type(&self) -> String;

    /// Refuses repeated keys in the staging table, by a unique index.
    fn unique_stage(&self, table: &SqlTable) -> Statement;

    /// Tells the planner about the staging table.
    fn analyze_stage(&self) -> Statement;

    /// Adds words that are staged but not in the lookup tables.
    fn fill_lookups(&self, table: &SqlTable) -> Vec<Statement>;

    /// All rows of the table go.
    fn clear(&self, table: &SqlTable) -> Statement;

    /// Staged upserts into the table, in place of rows with the same key.
    fn upsert(&self, table: &SqlTable) -> Statement;

    /// Staged upserts into a table that is empty.
    fn insert(&self, table: &SqlTable) -> Statement;

    /// Rows whose keys are staged as deletes go.
    fn delete(&self, table: &SqlTable) -> Statement;

    /// The table goes.
    fn drop_table(&self, table: &TableRef) -> Statement;
}
