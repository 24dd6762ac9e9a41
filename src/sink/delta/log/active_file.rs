//! A data file of one version of a table, as the log describes it.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::DataType;
use deltalake::kernel::{Action, Add, DeletionVectorDescriptor, LogicalFileView};
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Kind, Result, ResultExt};
use crate::model::Timestamp;
use crate::sink::delta::log::columns::{LakeColumn, LakeType};
use crate::sink::delta::log::statistics::{KeyBounds, with_wide_bounds};

/// Where a data file is.
#[derive(Debug, Clone)]
pub(crate) struct FileLocation {
    /// Path in the table's folder.
    pub(crate) path: Path,
    /// Size in bytes.
    pub(crate) size: u64,
}

/// A data file of one version of a table.
#[derive(Clone)]
pub(crate) struct ActiveFile {
    /// Path in the table's folder.
    pub(crate) path: Path,
    /// Size in bytes.
    pub(crate) size: u64,
    /// Number of rows, deleted ones included; `None` if the log does not say.
    pub(crate) rows: Option<u64>,
    /// Value of the partition column.
    pub(crate) partition: Option<String>,
    /// Which of its rows are deleted.
    pub(crate) deletion_vector: Option<DeletionVectorDescriptor>,
    stats: Value,
    /// The Delta crate's view of the file; `None` for a file that was read from a [`FileDescription`].
    view: Option<LogicalFileView>,
}

/// The description of a data file that an executor needs to probe and rewrite it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FileDescription {
    /// Position of the file in the driver's list of files.
    pub(crate) number: usize,
    path: String,
    size: u64,
    rows: Option<u64>,
    deletion_vector: Option<DeletionVectorDescriptor>,
    /// Minimum and maximum of the first key column, as in the log.
    min: Value,
    max: Value,
}

impl std::fmt::Debug for ActiveFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ActiveFile").field("path", &self.path).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl ActiveFile {
    /// The file of a view of the log. Kind `Target` if it is outside of the table's folder.
    pub(crate) fn from_view(view: LogicalFileView) -> Result<Self> {
        if view.path().contains("://") {
            return Err(Error::new(Kind::Target, "The table has data files outside of its folder")
                .hint("the table is a shallow clone; load into a new target"));
        }
        let stats: Value = view.stats().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null);
        Ok(Self {
            path: view.object_store_path(),
            size: u64::try_from(view.size()).unwrap_or(0),
            rows: stats["numRecords"].as_u64().or(view.num_records().map(|rows| rows as u64)),
            partition: view.partition_values_map().into_values().next().flatten(),
            deletion_vector: view.deletion_vector_descriptor(),
            stats,
            view: Some(view),
        })
    }

    /// The statistics as JSON, as the log has them.
    pub(crate) fn stats_text(&self) -> Option<String> {
        self.view.as_ref()?.stats().map(|text| text.to_string())
    }

    /// Describes the file for an executor. `key` is the first key column.
    pub(crate) fn describe(&self, number: usize, key: &LakeColumn) -> FileDescription {
        let bound = |which: &str| self.stats[which][&key.physical].clone();
        FileDescription {
            number,
            path: self.path.to_string(),
            size: self.size,
            rows: self.rows,
            deletion_vector: self.deletion_vector.clone(),
            min: bound("minValues"),
            max: bound("maxValues"),
        }
    }

    /// The file of a description. It can be read, but no action can be made of it.
    pub(crate) fn from_description(file: &FileDescription, key: &LakeColumn) -> Result<Self> {
        let path = Path::parse(&file.path).context(Kind::Data, "The path of a data file is invalid")?;
        let stats = json!({
            "minValues": {key.physical.as_str(): file.min},
            "maxValues": {key.physical.as_str(): file.max},
        });
        let deletion_vector = file.deletion_vector.clone();
        Ok(Self { path, size: file.size, rows: file.rows, partition: None, deletion_vector, stats, view: None })
    }

    fn view(&self) -> Result<&LogicalFileView> {
        self.view.as_ref().ok_or_else(|| Error::new(Kind::Bug, "A file without an entry in the log cannot be committed"))
    }

    /// Path and size.
    pub(crate) fn location(&self) -> FileLocation {
        FileLocation { path: self.path.clone(), size: self.size }
    }

    /// Bounds of a key column from the statistics; `None` if they are missing or of a type that is not compared.
    pub(crate) fn key_bounds(&self, key: &LakeColumn) -> Option<KeyBounds> {
        let LakeType::Leaf(leaf) = &key.kind else { return None };
        let (min, max) = (&self.stats["minValues"][&key.physical], &self.stats["maxValues"][&key.physical]);
        let array = |value: &Value| -> Option<ArrayRef> {
            match leaf {
                DataType::Int16 | DataType::Int32 | DataType::Int64 => Some(Arc::new(Int64Array::from(vec![value.as_i64()?]))),
                DataType::Utf8 => Some(Arc::new(StringArray::from(vec![value.as_str()?]))),
                _ => None,
            }
        };
        Some(KeyBounds { min: array(min)?, max: array(max)? })
    }

    /// An upper bound of a timestamp column in microseconds, if the statistics have one. Some writers truncate it to milliseconds.
    pub(crate) fn max_timestamp(&self, column: &LakeColumn) -> Option<i64> {
        let newest: Timestamp = self.stats["maxValues"][&column.physical].as_str()?.parse().ok()?;
        Some(newest.micros().saturating_add(999))
    }

    /// Number of nulls in a column, if the statistics have it.
    pub(crate) fn null_count(&self, column: &LakeColumn) -> Option<u64> {
        self.stats["nullCount"][&column.physical].as_u64()
    }

    /// Number of rows that are not deleted; `None` if the log does not say.
    pub(crate) fn live_rows(&self) -> Option<u64> {
        Some(self.rows?.saturating_sub(self.deleted_rows()))
    }

    /// Number of rows that the deletion vector deletes.
    pub(crate) fn deleted_rows(&self) -> u64 {
        self.deletion_vector.as_ref().map_or(0, |vector| u64::try_from(vector.cardinality).unwrap_or(0))
    }

    /// The action that removes the file from the table. `data_change` is false if the same commit adds all of its rows again.
    pub(crate) fn remove_action(&self, data_change: bool) -> Result<Action> {
        Ok(Action::Remove(self.view()?.remove_action(data_change)))
    }

    /// The action that adds the file again with another deletion vector. Requires [`Self::rows`].
    #[expect(deprecated, reason = "the crate has no other way to keep the tags of a file")]
    pub(crate) fn add_action(&self, deletion_vector: DeletionVectorDescriptor) -> Result<Action> {
        let add = self.view()?.add_action();
        let stats = add.stats.as_deref().map(with_wide_bounds);
        Ok(Action::Add(Add { stats, deletion_vector: Some(deletion_vector), data_change: true, ..add }))
    }
}
