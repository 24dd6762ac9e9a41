//! `schema`: table schemas as files, byte for byte in the format of the official client.

use std::fmt::Write as _;
use std::future::Future;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::sync::Semaphore;

use super::run::{Observer, Step, each_table};
use super::staging::write_whole;
use super::{FilesReport, TableChoice};
use crate::api::{Client, VersionedSchema};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::model::{Namespace, TableRef};

/// Schemas that are requested at the same time.
const CONCURRENCY: usize = 8;

/// A request to save schemas.
#[derive(Debug, Clone)]
pub struct SchemaRequest {
    /// The service.
    pub client: Client,
    /// The namespace.
    pub namespace: Namespace,
    /// The tables.
    pub tables: TableChoice,
    /// Output folder, created if absent.
    pub folder: PathBuf,
}

/// Saves the current schemas as `<table>_schema_version_<n>.json`. Failures of single tables are in the report.
///
/// # Errors
/// An error means that no table was tried.
pub async fn save_schemas(
    request: SchemaRequest,
    observer: Observer<'_>,
    interrupted: impl Future<Output = ()>,
) -> Result<FilesReport> {
    let mut interrupted = std::pin::pin!(interrupted);
    let choice = request.tables.resolve_unless(&request.client, &request.namespace, interrupted.as_mut());
    let tables = choice.await?;
    let permits = Semaphore::new(CONCURRENCY);
    let (request, permits) = (&request, &permits);
    let report = each_table(tables, observer, interrupted.as_mut(), async |table, reporter| {
        let _permit = permits.acquire().await.context(Kind::Bug, "The run is closing")?;
        let schema = request.client.table_schema(table).await?;
        let path = request.folder.join(file_name(table, schema.version)?);
        let text = schema_text(&schema);
        save(&request.folder, path.clone(), text).await?;
        reporter.report(Step::SchemaSaved { path });
        Ok(())
    });
    Ok(report.await)
}

async fn save(folder: &Path, path: PathBuf, text: String) -> Result<()> {
    let folder = folder.to_owned();
    let write = move || {
        std::fs::create_dir_all(&folder).context(Kind::Io, format!("Cannot create the output folder: {}", folder.display()))?;
        write_whole(&path, text.as_bytes())
    };
    tokio::task::spawn_blocking(write).await.context(Kind::Bug, "Writing a file failed")?
}

fn file_name(table: &TableRef, version: i64) -> Result<String> {
    if !table.is_path_safe() {
        return Err(Error::new(Kind::Data, "The name of the table is not a valid file name"));
    }
    Ok(format!("{}_schema_version_{version}.json", table.table))
}

/// `{"schema": ..., "version": n}` with an indent of 4, non-ASCII characters escaped, no newline at the end.
pub fn schema_text(schema: &VersionedSchema) -> String {
    let mut text = String::from("{\n    \"schema\": ");
    write_value(&mut text, &schema.schema, 1);
    let _ = write!(text, ",\n    \"version\": {}\n}}", schema.version);
    text
}

/// JSON in the format of Python's `json.dumps(..., indent=4)`.
fn write_value(text: &mut String, value: &Value, depth: usize) {
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("    ", depth));
    };
    match value {
        Value::Object(members) if !members.is_empty() => {
            text.push('{');
            for (place, (name, member)) in members.iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                line(text, depth + 1);
                write_string(text, name);
                text.push_str(": ");
                write_value(text, member, depth + 1);
            }
            line(text, depth);
            text.push('}');
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                line(text, depth + 1);
                write_value(text, item, depth + 1);
            }
            line(text, depth);
            text.push(']');
        }
        Value::String(string) => write_string(text, string),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => text.push_str(&python_float(float)),
            _ => {
                let _ = write!(text, "{number}");
            }
        },
        // `null`, `true`, `false`, `{}`, `[]` have the same form.
        other => {
            let _ = write!(text, "{other}");
        }
    }
}

fn write_string(text: &mut String, string: &str) {
    text.push('"');
    for c in string.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            ' '..='~' => text.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
    }
    text.push('"');
}

/// The shortest digits of the same number, in the notation of Python.
fn python_float(number: f64) -> String {
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let Ok(exponent) = exponent.parse::<i32>() else { return scientific };
    if (-4..16).contains(&exponent) {
        let plain = format!("{number}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_have_the_format_of_python() {
        let schema = serde_json::from_str(
            r#"{"z":{"title":"Größe \u0007 \ud83d\ude00 \"a\\b\" \u007f/","empty":{},"none":[],"enum":["a",null,true]},"a":{"multipleOf":0.01,"maximum":1000000.0,"big":1e22,"small":0.00001,"int":-9223372036854775808,"edge":1e16,"four":0.0001}}"#,
        )
        .unwrap();
        let text = schema_text(&VersionedSchema { schema, version: 7 });
        // The output of CPython 3.11 for the same value.
        assert_eq!(
            text,
            r#"{
    "schema": {
        "z": {
            "title": "Gr\u00f6\u00dfe \u0007 \ud83d\ude00 \"a\\b\" \u007f/",
            "empty": {},
            "none": [],
            "enum": [
                "a",
                null,
                true
            ]
        },
        "a": {
            "multipleOf": 0.01,
            "maximum": 1000000.0,
            "big": 1e+22,
            "small": 1e-05,
            "int": -9223372036854775808,
            "edge": 1e+16,
            "four": 0.0001
        }
    },
    "version": 7
}"#
        );
    }

    #[test]
    fn table_names_cannot_escape_the_folder() {
        assert_eq!(file_name(&TableRef::new("canvas", "users"), 3).unwrap(), "users_schema_version_3.json");
        assert_eq!(file_name(&TableRef::new("canvas", "../users"), 3).unwrap_err().kind(), Kind::Data);
    }
}
