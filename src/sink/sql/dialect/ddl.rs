//! Statements that create and change tables, types and lookup tables.

use super::names::Names;
use super::statement::Statement;
use super::table::{Change, ChangeRules, LiveColumn, SqlColumn, SqlTable};
use crate::error::Result;
use crate::model::{Namespace, TableRef};
use crate::schema::TableSchema;
use crate::sink::LoadKind;

/// The definition of tables and their changes.
pub(in crate::sink::sql) trait Ddl: Names {
    /// The table for a schema. Kind `Schema` for names that the server cannot hold.
    fn table_of(&self, schema: &TableSchema) -> Result<SqlTable>;

    /// Creates the schema for the tables of a namespace where it is missing.
    fn create_namespace(&self, namespace: &Namespace) -> Vec<Statement>;

    /// Creates the lookup tables of a table where they are missing.
    fn create_lookups(&self, table: &SqlTable) -> Vec<Statement>;

    /// Creates the table. The primary key may be left to [`Ddl::add_key`].
    fn create_table(&self, table: &SqlTable) -> Vec<Statement>;

    /// Creates the primary key and whatever else is created once the rows are in; empty if [`Ddl::create_table`] did.
    fn add_key(&self, table: &SqlTable) -> Vec<Statement>;

    /// Whether the server stores tables in the order of their primary keys.
    fn stores_in_key_order(&self) -> bool {
        false
    }

    /// Drops the table, if it exists.
    fn drop_table(&self, table: &TableRef) -> Statement;

    /// Renames a column.
    fn rename_column(&self, table: &TableRef, from: &str, to: &str) -> Statement {
        let (table, from, to) = (self.table_name(table), self.quote(from), self.quote(to));
        Statement::new(format!("ALTER TABLE {table} RENAME COLUMN {from} TO {to}"))
    }

    /// The change from the existing columns to the wanted ones. Kind `Schema` for a change that a merge cannot make.
    fn change_table(&self, table: &SqlTable, live: &[LiveColumn], rules: ChangeRules<'_>) -> Result<Change>;

    /// The column as rows must be written into the existing one, where its type is not changed because that would alter values. A load
    /// of `kind` Replace has no values to alter.
    fn settle(&self, column: &SqlColumn, live: &LiveColumn, kind: LoadKind) -> SqlColumn;

    /// Lets a column be null. `live`: the existing column, if the table is not new.
    fn relax(&self, table: &SqlTable, column: &SqlColumn, live: Option<&LiveColumn>) -> Statement;

    /// The column with a type that holds strings of any length.
    fn unbounded(&self, column: &SqlColumn) -> SqlColumn;

    /// Gives an existing column the type of `column`, from a narrower string type or an enumeration. `live`: the existing column, if
    /// the table is not new.
    fn retype(&self, table: &SqlTable, column: &SqlColumn, live: Option<&LiveColumn>) -> Statement;
}

/// Enumerations, where the server has them.
pub(in crate::sink::sql) trait Enumerations {
    /// Whether an enumeration can hold a value.
    fn can_be_enum_value(&self, value: &str) -> bool;

    /// Creates missing enumeration types, inside the transaction. `live`: names and values of the existing ones.
    fn create_enumerations(&self, _table: &SqlTable, _live: &[(String, String)]) -> Vec<Statement> {
        Vec::new()
    }

    /// Adds missing values to existing enumeration types, each outside a transaction, with a sentence for the report.
    fn widen_enumerations(&self, _table: &SqlTable, _live: &[(String, String)]) -> Vec<(Statement, String)> {
        Vec::new()
    }

    /// Adds values to the enumeration of a column; `column` lists them already. `live`: the existing column.
    fn add_enum_values(
        &self,
        table: &SqlTable,
        column: &SqlColumn,
        values: &[String],
        live: Option<&LiveColumn>,
    ) -> Vec<Statement>;

    /// Like [`Enumerations::add_enum_values`] for an enumeration that this transaction created: its new values can be used at once.
    fn recreate_enumeration(&self, _table: &SqlTable, _column: &SqlColumn) -> Vec<Statement> {
        Vec::new()
    }
}
