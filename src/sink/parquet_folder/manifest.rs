//! The manifest of a folder: which version of which table it holds.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::model::TableRef;
use crate::sink::delta::log::file_names::MANIFEST;
use crate::sink::delta::log::partition_column::is_partition;
use crate::sink::delta::log::table_state::TableState;

/// The manifest of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Name of the table.
    pub(super) table: String,
    /// Id and version of the Delta log.
    pub(super) log: (String, u64),
    /// Time of the data, RFC 3339.
    data_as_of: String,
    /// Version of the table schema.
    schema_version: i64,
    /// Paths of the data files, relative to the folder of the log.
    pub(super) files: Vec<String>,
    /// Columns whose name in the files differs: name in the files by name of the column.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    renamed: BTreeMap<String, String>,
    /// Names of the columns in the files.
    columns: Vec<String>,
}

impl Manifest {
    /// The manifest of a version.
    pub(super) fn new(table: &TableRef, state: &TableState) -> Self {
        let renamed = state.columns.iter().filter(|column| column.physical != column.name);
        Self {
            table: table.to_string(),
            log: (state.metadata["id"].as_str().unwrap_or_default().to_owned(), state.version),
            data_as_of: state.bookmark.at.to_string(),
            schema_version: state.bookmark.schema_version,
            files: state.files.iter().map(|file| file.path.to_string()).collect(),
            renamed: renamed.map(|column| (column.name.clone(), column.physical.clone())).collect(),
            // The partition column is not in the files.
            columns: state.columns.iter().filter(|column| !is_partition(column)).map(|column| column.name.clone()).collect(),
        }
    }

    /// The manifest in a folder; `None` if it does not exist or is invalid.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(folder.join(MANIFEST)).ok()?).ok()
    }

    /// A DuckDB view over the files at these paths.
    pub(super) fn view(&self, paths: &[String]) -> String {
        let Some((namespace, table)) = self.table.split_once('.') else { return String::new() };
        if paths.is_empty() {
            return format!("-- {}.{} has no rows\n", quoted(namespace), quoted(table));
        }
        let path = |text: &String| format!("'{}'", text.replace('\'', "''"));
        let paths = paths.iter().map(path).collect::<Vec<_>>().join(", ");
        let column = |column: &String| match self.renamed.get(column) {
            Some(physical) => format!("{} AS {}", quoted(physical), quoted(column)),
            None => quoted(column),
        };
        let columns = self.columns.iter().map(column).collect::<Vec<_>>().join(", ");
        let (schema, view, as_of) = (quoted(namespace), quoted(table), &self.data_as_of);
        format!(
            "CREATE SCHEMA IF NOT EXISTS {schema};\nCREATE OR REPLACE VIEW {schema}.{view} AS\n  SELECT {columns}\n  FROM read_parquet([{paths}], union_by_name = true); -- as of {as_of}\n"
        )
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
