//! The actions of a commit in the Delta log, as far as an Iceberg snapshot depends on them. No I/O.

use std::collections::BTreeMap;

use deltalake::kernel::DeletionVectorDescriptor;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::error::{Kind, Result, ResultExt};
use crate::sink::delta::log::active_file::ActiveFile;
use crate::sink::delta::log::properties;
use crate::sink::delta::log::table_log::OUR_CLIENT_PREFIX;

/// A data file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DataFile {
    /// Path in the table's folder.
    pub(super) path: String,
    pub(super) size: i64,
    /// Value of the partition column.
    #[serde(default, rename = "partitionValues", deserialize_with = "only_value")]
    pub(super) partition: Option<String>,
    /// Statistics as JSON.
    pub(super) stats: Option<String>,
    pub(super) deletion_vector: Option<DeletionVectorDescriptor>,
    #[serde(default)]
    data_change: bool,
}

impl From<&ActiveFile> for DataFile {
    fn from(file: &ActiveFile) -> Self {
        Self {
            path: file.path.to_string(),
            size: i64::try_from(file.size).unwrap_or(i64::MAX),
            partition: file.partition.clone(),
            stats: file.stats_text(),
            deletion_vector: file.deletion_vector.clone(),
            data_change: true,
        }
    }
}

/// The value of the only partition column.
fn only_value<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<String>, D::Error> {
    Ok(known_value(deserializer)?.flatten())
}

fn known_value<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Option<String>>, D::Error> {
    let values = Option::<BTreeMap<String, Option<String>>>::deserialize(deserializer)?;
    Ok(values.map(|values| values.into_values().next().flatten()))
}

/// A file that a commit removes.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RemovedFile {
    pub(super) path: String,
    /// Value of the partition column; `None` if the action does not say.
    #[serde(default, rename = "partitionValues", deserialize_with = "known_value")]
    pub(super) partition: Option<Option<String>>,
    pub(super) deletion_vector: Option<DeletionVectorDescriptor>,
}

/// The `metaData` action.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Description {
    pub(super) description: Option<String>,
    pub(super) schema_string: String,
    #[serde(default)]
    pub(super) partition_columns: Vec<String>,
    #[serde(default)]
    pub(super) configuration: BTreeMap<String, String>,
}

impl Description {
    /// Names of the key columns; none if a key may occur more than once.
    pub(super) fn key(&self) -> Vec<String> {
        if self.configuration.contains_key(properties::MODE) {
            return Vec::new();
        }
        self.configuration.get(properties::KEY).and_then(|key| serde_json::from_str(key).ok()).unwrap_or_default()
    }
}

/// One version of the log.
#[derive(Debug, Default)]
pub(super) struct DeltaCommit {
    pub(super) version: u64,
    /// Time of the commit in milliseconds since 1970, by the clock of its writer.
    pub(super) timestamp: i64,
    /// Whether daplake made the commit. Other programs may add a file that the table has already.
    pub(super) is_ours: bool,
    pub(super) description: Option<Description>,
    pub(super) added: Vec<DataFile>,
    pub(super) removed: Vec<RemovedFile>,
    /// Whether rows of the table change.
    pub(super) changes_rows: bool,
}

/// A line of the log.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    add: Option<DataFile>,
    remove: Option<RemovedFile>,
    meta_data: Option<Description>,
    commit_info: Option<Value>,
}

impl DeltaCommit {
    /// Parses the JSON lines of a version. Kind `Target` if they are invalid.
    pub(super) fn parse(version: u64, entry: &str) -> Result<Self> {
        let mut commit = Self { version, ..Self::default() };
        for line in entry.lines().filter(|line| !line.trim().is_empty()) {
            let line: Line = serde_json::from_str(line).context(Kind::Target, "The Delta log cannot be read")?;
            if let Some(mut file) = line.add {
                file.path = decoded(&file.path);
                commit.changes_rows |= file.data_change;
                commit.added.push(file);
            }
            if let Some(mut file) = line.remove {
                file.path = decoded(&file.path);
                commit.removed.push(file);
            }
            commit.description = line.meta_data.or(commit.description);
            if let Some(info) = line.commit_info {
                commit.timestamp = info["timestamp"].as_i64().unwrap_or(0);
                commit.is_ours = info["clientVersion"].as_str().is_some_and(|client| client.starts_with(OUR_CLIENT_PREFIX));
            }
        }
        Ok(commit)
    }
}

fn decoded(path: &str) -> String {
    percent_decode_str(path).decode_utf8_lossy().into_owned()
}
