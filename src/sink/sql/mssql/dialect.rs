//! SQL Server's SQL. It also suits Babelfish: no `MERGE`, one column per `ALTER TABLE`, no nulls without a type.
//!
//! Strings are staged as `nvarchar`. A collation may treat different strings as equal, so strings in keys and enum values are compared by
//! their bytes: the primary key then refuses two keys that the collation treats as equal, instead of merging them.

use super::errors::{LOCK_REFUSED, LOST_CHARACTERS_PREFIX};
use super::names::{
    NAME_CHARS, STAGE, add_foreign_key, add_primary_key, cut_name, define, drop_default, literal, object_id, quote, quoted,
    table_name,
};
use super::staged::{bytes_of, lookups, same_bytes, same_row, staged};
use super::types::{LOOKUP_BYTES, SqlType, is_staged_text};
use super::{change, errors, kept_rows, types};
use crate::error::{Error, Kind, Result};
use crate::model::{Namespace, TableRef};
use crate::schema::TableSchema;
use crate::sink::sql::dialect::{
    Change, ChangeRules, Ddl, DependentObjects, Enumerations, Introspection, LiveColumn, MergeStatements, MetaTables, Names,
    OWN_NAMESPACE, Privileges, Row, SqlColumn, SqlTable, Statement, Transactions, ValueLimits,
};
use crate::sink::{KeptRows, LoadKind};

/// Settings of a session: values are refused rather than cut, and any error undoes the transaction.
pub(super) const SESSION: &str = "SET ANSI_NULLS ON; SET ANSI_PADDING ON; SET ANSI_WARNINGS ON; SET QUOTED_IDENTIFIER ON; \
     SET CONCAT_NULL_YIELDS_NULL ON; SET IMPLICIT_TRANSACTIONS OFF; SET XACT_ABORT ON; SET NOCOUNT OFF; \
     SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCK_TIMEOUT -1; SET ROWCOUNT 0; SET TEXTSIZE 2147483647";
/// How many transactions a session has open.
pub(super) const TRANSACTIONS_OPEN: &str = "SELECT @@TRANCOUNT";
const COLLATION: &str = "CAST(DATABASEPROPERTYEX(DB_NAME(), N'Collation') AS nvarchar(128))";

/// The relation `w` of number and quoted name of tables.
fn wanted(tables: &[TableRef]) -> String {
    let row = |(number, table): (usize, &TableRef)| format!("({number}, {})", literal(&table_name(table)));
    format!("(VALUES {}) AS w(number, name)", tables.iter().enumerate().map(row).collect::<Vec<_>>().join(", "))
}

/// See [`Dialect`](crate::sink::sql::dialect::Dialect).
#[derive(Debug)]
pub(super) struct MssqlDialect;

/// Gives a column another type, or keeps its own (`None`). It stays as nullable as it is, or becomes nullable. The present definition comes
/// from the catalogue.
fn alter_as_found(table: &SqlTable, column: &SqlColumn, sql_type: Option<&str>, nullable: bool) -> Statement {
    let name = table_name(&table.table);
    let found_type = "t.name + CASE \
         WHEN t.name IN (N'char', N'varchar', N'binary', N'varbinary') THEN N'(' + CASE c.max_length WHEN -1 THEN N'max' \
         ELSE CAST(c.max_length AS nvarchar(11)) END + N')' \
         WHEN t.name IN (N'nchar', N'nvarchar') THEN N'(' + CASE c.max_length WHEN -1 THEN N'max' \
         ELSE CAST(c.max_length / 2 AS nvarchar(11)) END + N')' \
         WHEN t.name IN (N'decimal', N'numeric') THEN N'(' + CAST(c.precision AS nvarchar(11)) + N',' + CAST(c.scale AS nvarchar(11)) + N')' \
         WHEN t.name IN (N'datetime2', N'datetimeoffset', N'time') THEN N'(' + CAST(c.scale AS nvarchar(11)) + N')' \
         ELSE N'' END";
    let sql_type = sql_type.map_or_else(|| found_type.to_owned(), literal);
    let null = match nullable {
        true => "N' NULL'",
        // Without `NULL` or `NOT NULL` the column may be null.
        false => "CASE c.is_nullable WHEN 1 THEN N'' ELSE N' NOT NULL' END",
    };
    let action = literal(&format!("ALTER TABLE {name} ALTER COLUMN {} ", quote(&column.name)));
    Statement::new(format!(
        "DECLARE @text nvarchar(max); SELECT @text = {action} + {sql_type} + {null} FROM sys.columns AS c \
         INNER JOIN sys.types AS t ON t.user_type_id = c.user_type_id WHERE c.object_id = {} AND c.name = {}; EXEC (@text)",
        object_id(&name),
        literal(&column.name)
    ))
}

/// Refuses strings that would lose characters, which can happen if the database's collation is not UTF-8. The server writes `?` for what it
/// cannot store, so the statement compares each string with the result of a conversion and its reverse.
fn refuse_lost_characters(table: &SqlTable) -> Option<Statement> {
    let texts: Vec<&SqlColumn> = table.columns.iter().filter(|column| is_staged_text(column)).collect();
    if texts.is_empty() {
        return None;
    }
    let lost = |column: &SqlColumn| {
        let name = format!("s.{}", quote(&column.name));
        let kept = format!("CAST(CAST({name} AS varchar(max)) AS nvarchar(max))");
        format!("CAST({kept} + N'.' AS varbinary(max)) <> CAST({name} + N'.' AS varbinary(max))")
    };
    let any = texts.iter().map(|column| lost(column)).collect::<Vec<_>>().join(" OR ");
    let which: String = texts.iter().map(|column| format!(" WHEN {} THEN {}", lost(column), literal(&column.name))).collect();
    let mut separator = "";
    let key: String = table
        .keys()
        .map(|column| {
            let name = quote(&column.name);
            let value = match column.stage_type.starts_with("binary(") {
                true => format!("CONVERT(nvarchar(100), s.{name}, 2)"),
                false => format!("CAST(s.{name} AS nvarchar(100))"),
            };
            let label = literal(&format!("{separator}{}=", column.source));
            separator = ", ";
            format!(", {label}, {value}")
        })
        .collect();
    Some(Statement::new(format!(
        "DECLARE @column nvarchar(128), @key nvarchar(1000), @text nvarchar(2000); \
         IF {COLLATION} NOT LIKE N'%[_]UTF8' BEGIN \
         SELECT TOP 1 @column = CASE{which} END, @key = CONCAT(N''{key}) FROM {STAGE} AS s \
         WHERE s.[_action] = N'U' AND ({any}); \
         IF @column IS NOT NULL BEGIN SET @text = CONCAT({}, @column, N'|', @key); RAISERROR (N'%s', 16, 1, @text); END; END",
        literal(LOST_CHARACTERS_PREFIX)
    )))
}

/// Creates a lookup table, if it is missing.
fn create_lookup(table: &SqlTable, column: &SqlColumn) -> Option<Statement> {
    let (lookup, _) = column.lookup.as_ref()?;
    let name = cut_name(&format!("{}__{}", table.table.table, column.source));
    let key = cut_name(&format!("pk_{}_{name}", table.table.namespace));
    let unique = cut_name(&format!("uq_{name}"));
    Some(Statement::new(format!(
        "IF {} IS NULL CREATE TABLE {lookup} (\n[id] int IDENTITY(1,1) NOT NULL,\n[value] varchar({LOOKUP_BYTES}) NOT NULL,\n\
         CONSTRAINT {} PRIMARY KEY ([id]),\nCONSTRAINT {} UNIQUE ([value])\n)",
        object_id(lookup),
        quote(&key),
        quote(&unique)
    )))
}

/// Adds staged values that the lookup table lacks. Its unique constraint refuses two values that the collation treats as equal.
fn fill_lookup(column: &SqlColumn) -> Option<Statement> {
    let (lookup, _) = column.lookup.as_ref()?;
    let name = format!("s.{}", quote(&column.name));
    Some(Statement::new(format!(
        "INSERT INTO {lookup} ([value]) SELECT MIN({name}) FROM {STAGE} AS s WHERE s.[_action] = N'U' AND {name} IS NOT NULL \
         AND NOT EXISTS (SELECT 1 FROM {lookup} AS l WHERE {}) GROUP BY {}",
        same_bytes("l.[value]", &name, LOOKUP_BYTES),
        bytes_of(&name, LOOKUP_BYTES)
    )))
}

fn create_schema(name: &str) -> Statement {
    // It must be the only statement of its batch.
    let create = literal(&format!("CREATE SCHEMA {}", quote(name)));
    Statement::new(format!("IF SCHEMA_ID({}) IS NULL EXEC ({create})", literal(name)))
}

fn get_lock(name: &str, wait: &str, after: &str) -> Statement {
    Statement::new(format!(
        "DECLARE @got int; EXEC @got = sp_getapplock @Resource = @P1, @LockMode = N'Exclusive', @LockOwner = N'Transaction', \
         @LockTimeout = {wait}; {after}"
    ))
    .bind(format!("daplake {name}"))
}

impl Names for MssqlDialect {
    fn quote(&self, name: &str) -> String {
        quote(name)
    }

    fn table_name(&self, table: &TableRef) -> String {
        table_name(table)
    }

    fn meta_table(&self, name: &str) -> String {
        format!("[instructure_dap].{}", quote(name))
    }

    fn placeholder(&self, number: usize) -> String {
        format!("@P{number}")
    }

    fn timestamp(&self, placeholder: &str) -> String {
        format!("CAST({placeholder} AS datetime2)")
    }

    fn integer(&self, placeholder: &str) -> String {
        format!("CAST({placeholder} AS bigint)")
    }

    fn text(&self, name: &str) -> String {
        format!("CAST({} AS nvarchar(max))", quote(name))
    }

    fn micros_of(&self, name: &str) -> String {
        format!("DATEDIFF_BIG(microsecond, CAST(N'1970-01-01' AS datetime2), {})", quote(name))
    }
}

impl Ddl for MssqlDialect {
    fn table_of(&self, schema: &TableSchema) -> Result<SqlTable> {
        let columns = types::columns(schema);
        for (index, column) in columns.iter().enumerate() {
            if column.name != column.source {
                return Err(Error::new(Kind::Schema, "A column name is longer than SQL Server's 128 characters")
                    .with_field("column", &column.source));
            }
            if columns[..index].iter().any(|other| other.name == column.name) {
                return Err(Error::new(Kind::Schema, "Two columns have the same name").with_field("column", &column.name));
            }
        }
        Ok(SqlTable { table: schema.table.clone(), columns, comment: None, kept: KeptRows::default() })
    }

    fn create_namespace(&self, namespace: &Namespace) -> Vec<Statement> {
        vec![create_schema(namespace.as_str())]
    }

    fn create_lookups(&self, table: &SqlTable) -> Vec<Statement> {
        table.columns.iter().filter_map(|column| create_lookup(table, column)).collect()
    }

    fn create_table(&self, table: &SqlTable) -> Vec<Statement> {
        let columns = table.columns.iter().map(|column| define(column, column.required || column.key));
        let columns = columns.collect::<Vec<_>>().join(",\n");
        let mut statements = vec![Statement::new(format!("CREATE TABLE {} (\n{columns}\n)", table_name(&table.table)))];
        statements.extend(table.columns.iter().filter_map(|column| add_foreign_key(table, column)));
        statements.extend(kept_rows::guard(table));
        statements
    }

    fn add_key(&self, table: &SqlTable) -> Vec<Statement> {
        vec![add_primary_key(table)]
    }

    fn drop_table(&self, table: &TableRef) -> Statement {
        Statement::new(format!("DROP TABLE IF EXISTS {}", table_name(table)))
    }

    fn rename_column(&self, table: &TableRef, from: &str, to: &str) -> Statement {
        let column = format!("{}.{}", table_name(table), quote(from));
        Statement::new(format!("EXEC sp_rename {}, {}, N'COLUMN'", literal(&column), literal(to)))
    }

    fn change_table(&self, table: &SqlTable, live: &[LiveColumn], rules: ChangeRules<'_>) -> Result<Change> {
        change::change_table(table, live, rules)
    }

    fn settle(&self, column: &SqlColumn, live: &LiveColumn, kind: LoadKind) -> SqlColumn {
        change::settle(column, live, kind)
    }

    fn relax(&self, table: &SqlTable, column: &SqlColumn, _live: Option<&LiveColumn>) -> Statement {
        alter_as_found(table, column, None, true)
    }

    fn unbounded(&self, column: &SqlColumn) -> SqlColumn {
        if column.key || column.lookup.is_some() {
            return SqlColumn { longest: None, ..column.clone() };
        }
        SqlColumn { sql_type: SqlType::Varchar(None).to_string(), longest: None, ..column.clone() }
    }

    fn retype(&self, table: &SqlTable, column: &SqlColumn, _live: Option<&LiveColumn>) -> Statement {
        let mut text = drop_default(table, &column.name);
        text.push_str("; ");
        text.push_str(&alter_as_found(table, column, Some(&column.sql_type), false).text.replace("@text", "@alter"));
        if let Some(default) = &column.default {
            let name = quote(&column.name);
            text.push_str(&format!("; ALTER TABLE {} ADD {default} FOR {name}", table_name(&table.table)));
        }
        Statement::new(text)
    }
}

impl Enumerations for MssqlDialect {
    fn can_be_enum_value(&self, value: &str) -> bool {
        value.len() <= LOOKUP_BYTES
    }

    fn add_enum_values(
        &self,
        _table: &SqlTable,
        _column: &SqlColumn,
        _values: &[String],
        _live: Option<&LiveColumn>,
    ) -> Vec<Statement> {
        Vec::new()
    }
}

impl Introspection for MssqlDialect {
    fn live_columns(&self, table: &TableRef) -> Statement {
        Statement::new(
            "SELECT c.name, t.name, c.max_length, c.precision, c.scale, c.is_nullable, \
             CASE WHEN EXISTS (SELECT 1 FROM sys.index_columns AS k INNER JOIN sys.indexes AS i ON i.object_id = k.object_id \
             AND i.index_id = k.index_id WHERE i.is_primary_key = 1 AND k.object_id = c.object_id AND k.column_id = c.column_id) \
             THEN 1 ELSE 0 END, CASE WHEN c.default_object_id = 0 AND c.is_identity = 0 THEN 0 ELSE 1 END, \
             (SELECT MAX(QUOTENAME(SCHEMA_NAME(r.schema_id)) + N'.' + QUOTENAME(r.name)) FROM sys.foreign_key_columns AS f \
             INNER JOIN sys.tables AS r ON r.object_id = f.referenced_object_id WHERE f.parent_object_id = c.object_id \
             AND f.parent_column_id = c.column_id AND r.name LIKE N'%[_][_]%') \
             FROM sys.columns AS c INNER JOIN sys.types AS t ON t.user_type_id = c.user_type_id \
             WHERE c.object_id = OBJECT_ID(@P1, N'U') ORDER BY c.column_id",
        )
        .bind(table_name(table))
    }

    fn read_live(&self, row: &Row) -> Option<LiveColumn> {
        let [name, base, length, precision, scale, nullable, key, default, lookup] = &row[..] else { return None };
        let is_true = |cell: &Option<String>| cell.as_deref() == Some("1");
        let (name, base) = (name.clone()?, base.clone()?);
        let length: i64 = length.as_deref()?.parse().ok()?;
        let sized = |length: i64| if length < 0 { "max".to_owned() } else { length.to_string() };
        // The name of a lookup table ends with the column's name, unless it was cut.
        let end = format!("__{}]", name.replace(']', "]]")).to_lowercase();
        let is_lookup = |lookup: &String| lookup.to_lowercase().ends_with(&end) || lookup.len() >= NAME_CHARS;
        let lookup = lookup.clone().filter(|lookup| base == "int" && is_lookup(lookup));
        let sql_type = match base.as_str() {
            "char" | "varchar" | "binary" | "varbinary" => format!("{base}({})", sized(length)),
            "nchar" | "nvarchar" => format!("{base}({})", sized(if length < 0 { length } else { length / 2 })),
            "decimal" | "numeric" => format!("decimal({},{})", precision.as_deref()?, scale.as_deref()?),
            // The default, and what Babelfish keeps.
            "datetime2" | "time" if !matches!(scale.as_deref(), Some("6" | "7")) => format!("{base}({})", scale.as_deref()?),
            _ => base,
        };
        let (not_null, key, has_default) = (!is_true(nullable), is_true(key), is_true(default));
        Some(LiveColumn { name, sql_type, not_null, key, has_default, comment: None, lookup, foreign_key: None })
    }

    fn occupants(&self, tables: &[TableRef]) -> Statement {
        Statement::new(format!(
            "SELECT w.number, CASE o.type WHEN 'U' THEN N'table' WHEN 'V' THEN N'view' WHEN 'SN' THEN N'synonym' \
             WHEN 'SO' THEN N'sequence' ELSE N'object' END FROM {} JOIN sys.objects AS o ON o.object_id = OBJECT_ID(w.name)",
            wanted(tables)
        ))
    }

    fn table_bytes(&self, table: &TableRef) -> Statement {
        // Pages have 8 KiB. Units of type 2 (large objects) belong to a partition by its id, the others by its hobt id.
        Statement::new(
            "SELECT CONVERT(nvarchar(20), SUM(u.total_pages) * 8192) FROM sys.partitions AS p JOIN sys.allocation_units AS u \
             ON u.container_id = CASE u.type WHEN 2 THEN p.partition_id ELSE p.hobt_id END WHERE p.object_id = OBJECT_ID(@P1)",
        )
        .bind(table_name(table))
    }

    fn charset(&self) -> Statement {
        Statement::new(format!("SELECT {COLLATION}"))
    }

    fn judge_charset(&self, row: &Row) -> Option<String> {
        let collation = row.first().and_then(Option::as_deref).unwrap_or("unknown");
        (!collation.to_ascii_uppercase().ends_with("_UTF8")).then(|| {
            format!(
                "The database's collation is {collation}, which is not one of UTF-8 (such as Latin1_General_100_CI_AS_SC_UTF8): \
                 text with characters that it cannot hold is refused"
            )
        })
    }
}

impl DependentObjects for MssqlDialect {}

impl Privileges for MssqlDialect {
    fn table_privileges(&self, tables: &[TableRef]) -> Vec<Statement> {
        vec![Statement::new(format!(
            "SELECT w.number, p.name FROM {} CROSS JOIN (VALUES (N'SELECT'), (N'INSERT'), (N'UPDATE'), (N'DELETE'), (N'ALTER')) \
             AS p(name) WHERE HAS_PERMS_BY_NAME(w.name, N'OBJECT', p.name) = 0 ORDER BY 1",
            wanted(tables)
        ))]
    }

    fn is_denied(&self, error: &Error) -> bool {
        ["229", "230"].iter().any(|number| error.get("number") == Some(number))
    }

    fn grantee(&self) -> Statement {
        Statement::new("SELECT QUOTENAME(USER_NAME())")
    }
}

impl MetaTables for MssqlDialect {
    fn create_meta(&self) -> Vec<Statement> {
        let sync = concat!(
            "CREATE TABLE [instructure_dap].[table_sync] (\n",
            "[id] bigint IDENTITY(1,1) NOT NULL,\n",
            "[source_namespace] varchar(256) NOT NULL,\n",
            "[source_table] varchar(256) NOT NULL,\n",
            "[timestamp] datetime2 NOT NULL,\n",
            "[schema_version] bigint NOT NULL,\n",
            "[target_schema] varchar(256) NULL,\n",
            "[target_table] varchar(256) NOT NULL,\n",
            "[schema_description_format] varchar(256) NOT NULL,\n",
            "[schema_description] varchar(max) NOT NULL,\n",
            "CONSTRAINT [pk_instructure_dap_table_sync] PRIMARY KEY ([id])\n",
            ")",
        );
        let version = concat!(
            "CREATE TABLE [instructure_dap].[database_version] (\n",
            "[version] bigint IDENTITY(1,1) NOT NULL,\n",
            "CONSTRAINT [pk_instructure_dap_database_version] PRIMARY KEY ([version])\n",
            ")",
        );
        let unless_there =
            |name: &str, create: &str| Statement::new(format!("IF {} IS NULL {create}", object_id(&self.meta_table(name))));
        vec![create_schema("instructure_dap"), unless_there("table_sync", sync), unless_there("database_version", version)]
    }

    fn meta_columns(&self) -> Statement {
        let [sync, version] = ["table_sync", "database_version"].map(|name| literal(&self.meta_table(name)));
        Statement::new(format!(
            "SELECT o.name, c.name, CASE o.type WHEN 'U' THEN 1 ELSE 0 END FROM sys.objects AS o LEFT JOIN sys.columns AS c \
             ON c.object_id = o.object_id WHERE o.object_id IN (OBJECT_ID({sync}), OBJECT_ID({version}))"
        ))
    }

    fn table_namespace(&self) -> String {
        format!("REPLACE([source_namespace], {}, N'')", literal(OWN_NAMESPACE))
    }

    fn entry_exists(&self) -> String {
        format!("OBJECT_ID(QUOTENAME({}) + N'.' + QUOTENAME([source_table]), N'U') IS NOT NULL", self.table_namespace())
    }

    fn set_version(&self, version: i64) -> Vec<Statement> {
        let table = self.meta_table("database_version");
        vec![
            Statement::new(format!("DELETE FROM {table}")),
            Statement::new(format!(
                "SET IDENTITY_INSERT {table} ON; INSERT INTO {table} ([version]) VALUES ({version}); SET IDENTITY_INSERT {table} OFF"
            )),
        ]
    }

    fn legacy_tables(&self) -> Statement {
        // The official client has no older layout for this database.
        Statement::new("SELECT N'' WHERE 1 = 0")
    }

    fn migrate(&self, _ancient: &[String]) -> Vec<Statement> {
        Vec::new()
    }
}

impl MergeStatements for MssqlDialect {
    fn create_stage(&self, table: &SqlTable) -> Vec<Statement> {
        let columns = table.staged_columns().map(|column| format!(",\n{} {} NULL", quote(&column.name), column.stage_type));
        let create = format!("CREATE TABLE {STAGE} (\n[_action] nvarchar(1) NULL{}\n)", columns.collect::<String>());
        let mut statements = self.drop_stage();
        statements.push(Statement::new(create));
        statements
    }

    fn drop_stage(&self) -> Vec<Statement> {
        vec![Statement::new(format!("DROP TABLE IF EXISTS {STAGE}"))]
    }

    fn stage(&self) -> String {
        STAGE.to_owned()
    }

    fn action_type(&self) -> String {
        "nvarchar(1)".to_owned()
    }

    fn unique_stage(&self, table: &SqlTable) -> Vec<Statement> {
        vec![Statement::new(format!("CREATE UNIQUE INDEX [daplake_key] ON {STAGE} ({})", quoted(table.keys())))]
    }

    fn fill_lookups(&self, table: &SqlTable) -> Vec<Statement> {
        let fill = table.columns.iter().filter_map(fill_lookup);
        refuse_lost_characters(table).into_iter().chain(fill).collect()
    }

    fn clear(&self, table: &SqlTable) -> Statement {
        // Unlike TRUNCATE, it lets readers that use row versions see the old rows until the commit.
        Statement::new(format!("DELETE FROM {}", table_name(&table.table)))
    }

    fn upsert(&self, table: &SqlTable) -> Vec<Statement> {
        let (name, same) = (table_name(&table.table), same_row(table));
        let updates = table.columns.iter().filter(|column| !column.is_in_primary_key());
        let updates: Vec<String> =
            updates.map(|column| format!("{} = {}", quote(&column.name), staged(table, column))).collect();
        let mut statements = Vec::new();
        if !updates.is_empty() {
            let set = updates.join(", ");
            // Enum values in the key must be resolved before the rows can be found.
            let (of_key, others) = (lookups(table, |column| column.key), lookups(table, |column| !column.key));
            statements.push(Statement::new(format!(
                "UPDATE t SET {set} FROM {STAGE} AS s{of_key} INNER JOIN {name} AS t ON {same}{others} WHERE s.[_action] = N'U'"
            )));
        }
        let insert = self.insert(table).text;
        statements.push(Statement::new(format!("{insert} AND NOT EXISTS (SELECT 1 FROM {name} AS t WHERE {same})")));
        statements
    }

    fn insert(&self, table: &SqlTable) -> Statement {
        let values = table.columns.iter().map(|column| staged(table, column)).collect::<Vec<_>>().join(", ");
        Statement::new(format!(
            "INSERT INTO {} ({}) SELECT {values} FROM {STAGE} AS s{} WHERE s.[_action] = N'U'",
            table_name(&table.table),
            quoted(table.columns.iter()),
            lookups(table, |_| true)
        ))
    }

    fn delete(&self, table: &SqlTable) -> Statement {
        kept_rows::delete(table)
    }

    fn delete_missing(&self, table: &SqlTable, as_of: &str) -> Statement {
        kept_rows::delete_missing(table, as_of)
    }

    fn replace_versions(&self, table: &SqlTable, as_of: Option<&str>) -> Vec<Statement> {
        kept_rows::replace_versions(table, as_of)
    }
}

impl Transactions for MssqlDialect {
    fn begin(&self) -> Statement {
        Statement::new("BEGIN TRANSACTION")
    }

    fn commit(&self) -> Statement {
        Statement::new("COMMIT TRANSACTION")
    }

    fn rollback(&self) -> Statement {
        Statement::new("IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION")
    }

    fn ddl_is_transactional(&self) -> bool {
        true
    }

    fn lock(&self, name: &str) -> Statement {
        get_lock(name, "-1", &format!("IF @got < 0 RAISERROR (N'{LOCK_REFUSED}', 16, 1)"))
    }

    fn try_lock(&self, name: &str) -> Statement {
        get_lock(name, "0", "SELECT CASE WHEN @got >= 0 THEN 1 ELSE 0 END")
    }

    fn begin_definition(&self) -> Vec<Statement> {
        vec![Statement::new("SET LOCK_TIMEOUT 10000")]
    }

    fn end_definition(&self) -> Vec<Statement> {
        vec![Statement::new("SET LOCK_TIMEOUT -1")]
    }

    fn keeps_transaction(&self, keyword: &str) -> bool {
        !["BEGIN", "COMMIT", "ROLLBACK", "SAVE", "SET"].contains(&keyword)
    }

    fn mark(&self) -> Statement {
        Statement::new("SAVE TRANSACTION daplake_user")
    }

    fn check_mark(&self) -> Statement {
        Statement::new("IF @@TRANCOUNT <> 1 THROW 50000, 'The transaction has ended.', 1")
    }

    fn is_lock_timeout(&self, error: &Error) -> bool {
        errors::is_lock_timeout(error)
    }

    fn is_transient(&self, error: &Error) -> bool {
        errors::is_transient(error)
    }

    fn is_duplicate(&self, error: &Error) -> bool {
        errors::is_duplicate(error)
    }
}

impl ValueLimits for MssqlDialect {
    fn holds_non_finite(&self) -> bool {
        false
    }

    fn holds_subnormal(&self) -> bool {
        false
    }

    fn holds_nul(&self) -> bool {
        true
    }
}
