//! Statements that create and change tables, types and lookup tables.

use serde_json::Value;

use super::names::Names;
use super::statement::Statement;
use super::table::{Change, ChangeRules, LiveColumn, SqlColumn, SqlTable};
use crate::error::Result;
use crate::model::{Namespace, TableRef};
use crate::schema::{Column, ColumnType, TS, TableSchema};
use crate::sink::{KeptRows, LoadKind, SystemColumn, reserved_name};

/// A system column, described like a column of the service.
pub(in crate::sink::sql) fn system_column(system: SystemColumn) -> Column {
    let (column_type, required, default) = match system {
        SystemColumn::Deleted => (ColumnType::Boolean, true, Some(Value::Bool(false))),
        SystemColumn::Current => (ColumnType::Boolean, true, Some(Value::Bool(true))),
        SystemColumn::ValidFrom | SystemColumn::Ts => (ColumnType::Timestamp, true, None),
        SystemColumn::ValidTo => (ColumnType::Timestamp, false, None),
        SystemColumn::Action => (ColumnType::Text { max_length: Some(1) }, true, None),
    };
    Column {
        name: system.name().to_owned(),
        column_type,
        required,
        description: Some(system.comment().to_owned()),
        oversizeable: false,
        default,
    }
}

/// The definition of tables and their changes.
pub(in crate::sink::sql) trait Ddl: Names {
    /// The table for a schema. Kind `Schema` for names that the server cannot hold.
    fn table_of(&self, schema: &TableSchema) -> Result<SqlTable>;

    /// The table for a schema that keeps rows as `kept` says. Its system columns follow the key columns. Kind `Schema` as for
    /// [`Ddl::table_of`], and for a column of the service that has the name of a system column.
    fn table_keeping(&self, schema: &TableSchema, kept: KeptRows) -> Result<SqlTable> {
        let system = kept.columns();
        if system.is_empty() {
            return self.table_of(schema);
        }
        let is_taken = |column: &&Column| system.iter().any(|system| system.name().eq_ignore_ascii_case(&column.name));
        if let Some(column) = schema.columns().find(is_taken) {
            return Err(reserved_name(&schema.table, &column.name, &kept.describe()));
        }
        let mut schema = schema.clone();
        schema.value.splice(0..0, system.iter().copied().map(system_column));
        let mut table = self.table_of(&schema)?;
        table.kept = kept;
        for column in &mut table.columns {
            column.system = system.iter().copied().find(|system| system.name() == column.name);
            match column.system {
                Some(SystemColumn::Deleted) => column.convert = Some(self.boolean(false).to_owned()),
                Some(SystemColumn::Current) => column.convert = Some(self.boolean(true).to_owned()),
                Some(SystemColumn::ValidTo) => column.convert = Some(format!("CAST(NULL AS {})", column.sql_type)),
                Some(SystemColumn::ValidFrom) => column.source = TS.to_owned(),
                Some(SystemColumn::Action | SystemColumn::Ts) | None => {}
            }
        }
        Ok(table)
    }

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
