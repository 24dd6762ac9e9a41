//! The sync state: `table_sync` and `database_version`, as the official client lays them out.

use super::names::Names;
use super::statement::Statement;
use crate::model::TableRef;

/// Begins the column `source_namespace` in rows of `table_sync` about tables with system columns. The official client would drop these
/// columns; it finds no table of that namespace, and reports the table as not initialised.
pub(in crate::sink::sql) const OWN_NAMESPACE: &str = "daplake:";

/// Statements about the sync state.
pub(in crate::sink::sql) trait MetaTables: Names {
    /// Creates the sync state where it is missing.
    fn create_meta(&self) -> Vec<Statement>;

    /// Asks which objects have the names of the sync state: rows of table, column (null: it has none), and 1 if it is a table.
    fn meta_columns(&self) -> Statement;

    /// The namespace of the data table, from the column `source_namespace` of `table_sync`; see [`OWN_NAMESPACE`].
    fn table_namespace(&self) -> String {
        format!("REPLACE({}, '{OWN_NAMESPACE}', '')", self.quote("source_namespace"))
    }

    /// A condition on the columns `source_namespace` and `source_table` of `table_sync`: the data table exists.
    fn entry_exists(&self) -> String;

    /// Makes `version` the only row of `database_version`.
    fn set_version(&self, version: i64) -> Vec<Statement> {
        let (table, column) = (self.meta_table("database_version"), self.quote("version"));
        vec![
            Statement::new(format!("DELETE FROM {table}")),
            Statement::new(format!("INSERT INTO {table} ({column}) VALUES ({version})")),
        ]
    }

    /// Asks for tables that versions of the official client before 1.0 left: rows of one name each, for [`MetaTables::migrate`].
    fn legacy_tables(&self) -> Statement;

    /// Converts the layout that [`MetaTables::legacy_tables`] found to version 1. Where schema statements do not roll back, these can
    /// be repeated.
    fn migrate(&self, legacy: &[String]) -> Vec<Statement>;

    /// Creates the table of [`MetaTables::exact_bookmarks`], where one is needed.
    fn create_exact_bookmarks(&self) -> Option<Statement> {
        None
    }

    /// Asks for bookmarks that `table_sync` cannot hold exactly: rows of its `id` and of microseconds since the epoch.
    fn exact_bookmarks(&self) -> Option<Statement> {
        None
    }

    /// Stores the exact bookmark of a table, where `table_sync` cannot hold it.
    fn store_exact_bookmark(&self, _table: &TableRef, _micros: i64) -> Option<Statement> {
        None
    }
}
