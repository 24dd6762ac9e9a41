//! Privileges on existing tables.

use super::names::Names;
use super::statement::{Row, Statement};
use crate::error::Error;
use crate::model::TableRef;

/// What a server can say about the privileges of the user.
pub(in crate::sink::sql) trait Privileges: Names {
    /// Asks for the privileges on tables, which exist, in a number of statements that does not depend on the number of tables; see
    /// [`Privileges::missing_privileges`].
    fn table_privileges(&self, tables: &[TableRef]) -> Vec<Statement>;

    /// Reads the answers to [`Privileges::table_privileges`]: pairs of the index of a table and a privilege that loads use and the user
    /// lacks. `ALTER` and `OWNER` are needed only to change the schema of a table.
    fn missing_privileges(&self, _tables: &[TableRef], answers: &[Vec<Row>]) -> Vec<(usize, String)> {
        answers.iter().flatten().filter_map(indexed).collect()
    }

    /// Whether the server refused a statement because the user lacks a privilege on a table.
    fn is_denied(&self, _error: &Error) -> bool {
        false
    }

    /// A statement that fails without the privilege and changes nothing, if the answers may be incomplete.
    fn privilege_probe(&self, _table: &TableRef, _privilege: &str) -> Option<Statement> {
        None
    }

    /// Asks for the user of the session, quoted for `GRANT`: one row.
    fn grantee(&self) -> Statement;
}

/// A row of an index and a text.
pub(in crate::sink::sql) fn indexed(row: &Row) -> Option<(usize, String)> {
    let [Some(index), Some(text)] = &row[..] else { return None };
    Some((index.parse().ok()?, text.clone()))
}
