//! Names and literals of SQL Server, and the statements that several files need.

use crate::model::TableRef;
use crate::sink::sql::dialect::{SqlColumn, SqlTable, Statement};

/// The staging table.
pub(super) const STAGE: &str = "[#daplake_stage]";
/// Characters of a name.
pub(super) const NAME_CHARS: usize = 128;

/// A name in brackets, which no setting of the session changes and which the driver's bulk path needs.
pub(super) fn quote(name: &str) -> String {
    format!("[{}]", name.replace(']', "]]"))
}

/// A string literal.
pub(super) fn literal(text: &str) -> String {
    format!("N'{}'", text.replace('\'', "''"))
}

/// A name of at most the server's length, which counts units of UTF-16.
pub(super) fn cut_name(name: &str) -> String {
    let mut units = 0;
    name.chars()
        .take_while(|character| {
            units += character.len_utf16();
            units <= NAME_CHARS
        })
        .collect()
}

/// The qualified name of a table.
pub(super) fn table_name(table: &TableRef) -> String {
    format!("{}.{}", quote(table.namespace.as_str()), quote(&cut_name(&table.table)))
}

/// The catalogue's number of a table, null if there is none. It is looked up by name, so that it does not wait for tables that other
/// sessions are creating.
pub(super) fn object_id(quoted: &str) -> String {
    format!("OBJECT_ID({}, N'U')", literal(quoted))
}

/// The quoted names of columns, separated by commas.
pub(super) fn quoted<'c>(columns: impl Iterator<Item = &'c SqlColumn>) -> String {
    columns.map(|column| quote(&column.name)).collect::<Vec<_>>().join(", ")
}

/// `ALTER TABLE` of one column or constraint.
pub(super) fn alter(table: &SqlTable, action: &str) -> Statement {
    Statement::new(format!("ALTER TABLE {} {action}", table_name(&table.table)))
}

/// Name, type and constraints of a new column.
pub(super) fn define(column: &SqlColumn, required: bool) -> String {
    let default = column.default.as_ref().map_or(String::new(), |default| format!("{default} "));
    let null = if required { "NOT NULL" } else { "NULL" };
    format!("{} {} {default}{null}", quote(&column.name), column.sql_type)
}

/// The foreign key of a column to its lookup table.
pub(super) fn add_foreign_key(table: &SqlTable, column: &SqlColumn) -> Option<Statement> {
    let (lookup, constraint) = column.lookup.as_ref()?;
    let (name, constraint) = (quote(&column.name), quote(constraint));
    Some(alter(table, &format!("ADD CONSTRAINT {constraint} FOREIGN KEY ({name}) REFERENCES {lookup} ([id])")))
}

/// The primary key.
pub(super) fn add_primary_key(table: &SqlTable) -> Statement {
    let name = quote(&cut_name(&format!("pk_{}_{}", table.table.namespace, table.table.table)));
    alter(table, &format!("ADD CONSTRAINT {name} PRIMARY KEY ({})", quoted(table.primary_key())))
}

/// Drops a constraint whose name may be anything. `found`: a `FROM` clause that selects it as `x`.
fn drop_constraint(table: &SqlTable, found: &str) -> String {
    let action = literal(&format!("ALTER TABLE {} DROP CONSTRAINT ", table_name(&table.table)));
    format!(
        "DECLARE @name nvarchar(128), @text nvarchar(max); SELECT @name = MAX(x.name) FROM {found}; \
         IF @name IS NOT NULL BEGIN SET @text = {action} + QUOTENAME(@name); EXEC (@text); END"
    )
}

/// Drops the default of a column, if it has one.
pub(super) fn drop_default(table: &SqlTable, column: &str) -> String {
    let found = format!(
        "sys.default_constraints AS x INNER JOIN sys.columns AS c ON c.object_id = x.parent_object_id \
         AND c.column_id = x.parent_column_id WHERE x.parent_object_id = {} AND c.name = {}",
        object_id(&table_name(&table.table)),
        literal(column)
    );
    drop_constraint(table, &found)
}

/// Drops the primary key.
pub(super) fn drop_primary_key(table: &SqlTable) -> Statement {
    let found = format!(
        "sys.key_constraints AS x WHERE x.type = 'PK' AND x.parent_object_id = {}",
        object_id(&table_name(&table.table))
    );
    Statement::new(drop_constraint(table, &found))
}

/// Drops the foreign key of a column to its lookup table.
pub(super) fn drop_foreign_key(table: &SqlTable, column: &str) -> Statement {
    let found = format!(
        "sys.foreign_keys AS x INNER JOIN sys.foreign_key_columns AS f ON f.constraint_object_id = x.object_id \
         INNER JOIN sys.columns AS c ON c.object_id = f.parent_object_id AND c.column_id = f.parent_column_id \
         WHERE x.parent_object_id = {} AND c.name = {}",
        object_id(&table_name(&table.table)),
        literal(column)
    );
    Statement::new(drop_constraint(table, &found))
}
