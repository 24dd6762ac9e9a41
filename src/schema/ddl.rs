//! SQL statements that make lake tables available in query engines: views and external tables, with the descriptions of tables and columns.
//! The statements are derived from schemas alone.

use std::fmt::Write as _;

use super::{Column, ColumnType, Nested, TableSchema};

/// A query engine that reads files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LakeEngine {
    /// DuckDB, with views.
    DuckDb,
    /// Amazon Athena, with external tables.
    Athena,
    /// Spark and Databricks, with external tables.
    Spark,
    /// Snowflake, with external tables over a stage.
    Snowflake,
}

/// Format of lake tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LakeFormat {
    /// Delta Lake tables.
    #[default]
    Delta,
    /// Folders of plain Parquet files.
    Parquet,
}

#[cfg(feature = "lake")]
impl LakeFormat {
    /// The file in the folder of a plain Parquet table that lists its files and holds its bookmark.
    pub(crate) const MANIFEST: &str = "_daplake.json";
}

/// Location and format of the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LakePlace {
    /// The URL or path of the target. Its tables are at `<url>/<namespace>/<table>`.
    pub url: String,
    /// The format of all tables.
    pub format: LakeFormat,
    /// The representation of nested columns.
    pub nested: Nested,
}

impl LakePlace {
    /// The folder of a table.
    pub(super) fn of(&self, schema: &TableSchema) -> String {
        format!("{}/{}/{}", self.url.trim_end_matches('/'), schema.table.namespace, schema.table.table)
    }
}

/// The statements that come once per namespace, before those of its tables.
pub fn lake_prelude(engine: LakeEngine, place: &LakePlace, namespace: &str) -> String {
    match engine {
        LakeEngine::DuckDb => {
            let delta = if place.format == LakeFormat::Delta { "INSTALL delta;\nLOAD delta;\n" } else { "" };
            format!("{delta}CREATE SCHEMA IF NOT EXISTS {};\n", double(namespace))
        }
        LakeEngine::Athena | LakeEngine::Spark => format!("CREATE DATABASE IF NOT EXISTS {};\n", back(namespace)),
        LakeEngine::Snowflake => format!(
            "CREATE SCHEMA IF NOT EXISTS {};\n-- Name your storage integration.\nCREATE STAGE IF NOT EXISTS {} URL = {} \
             STORAGE_INTEGRATION = my_integration;\n",
            upper(namespace),
            stage(namespace),
            quoted(&format!("{}/", place.url.trim_end_matches('/')))
        ),
    }
}

/// The statements for one table, each with `;` and a line end.
pub fn lake_table(engine: LakeEngine, place: &LakePlace, schema: &TableSchema) -> String {
    match engine {
        LakeEngine::DuckDb => duckdb(place, schema),
        LakeEngine::Athena => hive(Hive::Athena, place, schema),
        LakeEngine::Spark => hive(Hive::Spark, place, schema),
        LakeEngine::Snowflake => snowflake(place, schema),
    }
}

/// The table function of DuckDB for the table in a folder.
pub(super) fn duckdb_source(format: LakeFormat, folder: &str) -> String {
    match format {
        LakeFormat::Delta => format!("delta_scan({})", quoted(folder)),
        LakeFormat::Parquet => format!("read_parquet({}, union_by_name = true)", quoted(&format!("{folder}/*.parquet"))),
    }
}

fn duckdb(place: &LakePlace, schema: &TableSchema) -> String {
    let view = format!("{}.{}", double(schema.table.namespace.as_str()), double(&schema.table.table));
    let source = duckdb_source(place.format, &place.of(schema));
    let mut text = format!("CREATE OR REPLACE VIEW {view} AS SELECT * FROM {source};\n");
    if let Some(description) = &schema.description {
        let _ = writeln!(text, "COMMENT ON VIEW {view} IS {};", quoted(description));
    }
    for column in schema.columns() {
        if let Some(description) = &column.description {
            let _ = writeln!(text, "COMMENT ON COLUMN {view}.{} IS {};", double(&column.name), quoted(description));
        }
    }
    text
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Hive {
    Athena,
    Spark,
}

/// The maximum length of a comment in Athena's catalogue, in characters.
const ATHENA_COMMENT: usize = 255;

fn hive(engine: Hive, place: &LakePlace, schema: &TableSchema) -> String {
    let name = format!("{}.{}", back(schema.table.namespace.as_str()), back(&schema.table.table));
    let location = backslashed(&format!("{}/", place.of(schema)));
    let comment = |text: &str| match engine {
        Hive::Athena => backslashed(&text.chars().take(ATHENA_COMMENT).collect::<String>()),
        Hive::Spark => backslashed(text),
    };
    if place.format == LakeFormat::Delta {
        // The engines read columns and descriptions from the Delta log.
        return match engine {
            Hive::Athena => {
                format!(
                    "CREATE EXTERNAL TABLE IF NOT EXISTS {name}\nLOCATION {location}\nTBLPROPERTIES ('table_type' = 'DELTA');\n"
                )
            }
            Hive::Spark => format!("CREATE TABLE IF NOT EXISTS {name} USING DELTA LOCATION {location};\n"),
        };
    }
    let columns: Vec<String> = schema
        .columns()
        .map(|column| {
            let about = column.description.as_deref().map(|text| format!(" COMMENT {}", comment(text))).unwrap_or_default();
            format!("  {} {}{about}", back(&column.name), hive_type(engine, &column.column_type, place.nested))
        })
        .collect();
    let columns = columns.join(",\n");
    let about = schema.description.as_deref().map(|text| format!("COMMENT {}\n", comment(text))).unwrap_or_default();
    match engine {
        Hive::Athena => format!(
            "CREATE EXTERNAL TABLE IF NOT EXISTS {name} (\n{columns}\n)\n{about}STORED AS PARQUET\nLOCATION {location};\n"
        ),
        Hive::Spark => {
            format!("CREATE TABLE IF NOT EXISTS {name} (\n{columns}\n)\nUSING PARQUET\n{about}LOCATION {location};\n")
        }
    }
}

fn hive_type(engine: Hive, column_type: &ColumnType, nested: Nested) -> String {
    match column_type {
        ColumnType::Boolean => "boolean".into(),
        ColumnType::Int16 => "smallint".into(),
        ColumnType::Int32 => "int".into(),
        ColumnType::Int64 => "bigint".into(),
        ColumnType::Float32 => "float".into(),
        ColumnType::Float64 => "double".into(),
        ColumnType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        ColumnType::Timestamp => "timestamp".into(),
        ColumnType::Date => "date".into(),
        ColumnType::Struct(members) if nested == Nested::Typed => {
            let members: Vec<String> = members
                .iter()
                .map(|member| {
                    // Athena has no quoted names inside types.
                    let name = if engine == Hive::Athena { member.name.clone() } else { back(&member.name) };
                    format!("{name}:{}", hive_type(engine, &member.column_type, nested))
                })
                .collect();
            format!("struct<{}>", members.join(","))
        }
        ColumnType::List(item) if nested == Nested::Typed => format!("array<{}>", hive_type(engine, item, nested)),
        _ => "string".into(),
    }
}

fn snowflake(place: &LakePlace, schema: &TableSchema) -> String {
    let name = format!("{}.{}", upper(schema.table.namespace.as_str()), upper(&schema.table.table));
    let columns: Vec<String> = schema
        .columns()
        .map(|column| {
            let kind = snowflake_type(column, place.nested);
            format!("  {} {kind} AS (VALUE:{}::{kind})", upper(&column.name), double(&column.name))
        })
        .collect();
    let format = match place.format {
        LakeFormat::Delta => {
            "FILE_FORMAT = (TYPE = PARQUET)\nTABLE_FORMAT = DELTA\nREFRESH_ON_CREATE = FALSE\nAUTO_REFRESH = FALSE"
        }
        LakeFormat::Parquet => "PATTERN = '.*[.]parquet'\nFILE_FORMAT = (TYPE = PARQUET)\nAUTO_REFRESH = FALSE",
    };
    let about = schema.description.as_deref().map(|text| format!("\nCOMMENT = {}", quoted(text))).unwrap_or_default();
    let mut text = format!(
        "CREATE OR REPLACE EXTERNAL TABLE {name} (\n{}\n)\nLOCATION = @{}/{}/{}/\n{format}{about};\n",
        columns.join(",\n"),
        stage(schema.table.namespace.as_str()),
        schema.table.namespace,
        schema.table.table,
    );
    if place.format == LakeFormat::Delta {
        // To be repeated after each sync.
        let _ = writeln!(text, "ALTER EXTERNAL TABLE {name} REFRESH;");
    }
    for column in schema.columns() {
        if let Some(description) = &column.description {
            let _ = writeln!(text, "COMMENT ON COLUMN {name}.{} IS {};", upper(&column.name), quoted(description));
        }
    }
    text
}

fn snowflake_type(column: &Column, nested: Nested) -> String {
    match &column.column_type {
        ColumnType::Boolean => "BOOLEAN".into(),
        ColumnType::Int16 | ColumnType::Int32 | ColumnType::Int64 => "NUMBER(38,0)".into(),
        ColumnType::Float32 | ColumnType::Float64 => "FLOAT".into(),
        ColumnType::Decimal { precision, scale } => format!("NUMBER({precision},{scale})"),
        ColumnType::Timestamp => "TIMESTAMP_NTZ".into(),
        ColumnType::Date => "DATE".into(),
        ColumnType::Struct(_) if nested == Nested::Typed => "OBJECT".into(),
        ColumnType::List(_) if nested == Nested::Typed => "ARRAY".into(),
        _ => "VARCHAR".into(),
    }
}

fn stage(namespace: &str) -> String {
    format!("{}.\"DAPLAKE\"", upper(namespace))
}

/// The name in double quotes.
fn double(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The name in double quotes and upper case, as Snowflake resolves it without quotes.
fn upper(name: &str) -> String {
    double(&name.to_uppercase())
}

/// The name in backticks.
fn back(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// The text in single quotes; quotes inside are doubled.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The text in single quotes on one line, escaped by the rules of Hive and Spark.
fn backslashed(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n").replace('\r', "");
    format!("'{text}'")
}
