//! Queries to the catalogue.

use super::names::Names;
use super::statement::{Row, Statement};
use super::table::{LiveColumn, SqlTable};
use crate::error::Error;
use crate::model::{Namespace, TableRef};

/// Queries about the existing objects of a server.
pub(in crate::sink::sql) trait Introspection: Names {
    /// Asks for the columns of a table in order; see [`Introspection::read_live`].
    fn live_columns(&self, table: &TableRef) -> Statement;

    /// Reads a row of [`Introspection::live_columns`].
    fn read_live(&self, row: &Row) -> Option<LiveColumn>;

    /// Asks for the values of the enumeration types of a namespace: rows of name and value. `None`: the server has no such types.
    fn live_enumerations(&self, _namespace: &Namespace) -> Option<Statement> {
        None
    }

    /// Asks which objects have the names of tables: rows of the index of the table and the kind of the object (`table`, `view`, `sequence`).
    fn occupants(&self, tables: &[TableRef]) -> Statement;

    /// Asks for the bytes of a table with its indexes: one row, or none if the server does not say.
    fn table_bytes(&self, table: &TableRef) -> Statement;

    /// Asks for the types that have the names of the table's enumerations: rows of name, kind (`enum` or another), and a table that
    /// uses the type and is not `table`, or null. `None`: the server has no such types.
    fn occupied_types(&self, _table: &SqlTable) -> Option<Statement> {
        None
    }

    /// Asks for the database's character set and collation; see [`Introspection::judge_charset`].
    fn charset(&self) -> Statement;

    /// Reads the answer to [`Introspection::charset`]; a sentence if text may be lost or refused.
    fn judge_charset(&self, row: &Row) -> Option<String>;

    /// Asks which sessions hold locks on a table or its lookup tables: rows of one sentence each. `None`: the server cannot say.
    fn lock_holders(&self, _table: &SqlTable) -> Option<Statement> {
        None
    }

    /// Asks for the views that use columns of a table: rows of kind, quoted name, column. `None`: the error is not about a dependent
    /// object.
    fn dependent_views(&self, _table: &TableRef, _error: &Error) -> Option<Statement> {
        None
    }

    /// Asks for ids and values of a lookup table.
    fn lookup_values(&self, lookup: &str) -> Statement {
        Statement::new(format!("SELECT {}, {} FROM {lookup}", self.quote("id"), self.text("value")))
    }
}
