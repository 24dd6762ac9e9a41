//! A table at one version of its log.

use std::collections::BTreeMap;
use std::sync::Arc;

use deltalake::table::state::DeltaTableState;
use serde_json::Value;

use crate::error::{Error, Kind, Result};
use crate::model::{Bookmark, TableRef};
use crate::schema::{ColumnRecord, Nested};
use crate::sink::delta::log::active_file::ActiveFile;
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::partition_column::is_partition;
use crate::sink::delta::log::properties;

/// Table features that neither our files nor our commits can violate.
const HARMLESS_FEATURES: [&str; 10] = [
    "appendOnly",
    "invariants",
    // Listed where an older protocol version implied them; a table that uses them has properties or column metadata that say so.
    "checkConstraints",
    "generatedColumns",
    "columnMapping",
    "changeDataFeed",
    "v2Checkpoint",
    "vacuumProtocolCheck",
    "deletionVectors",
    "domainMetadata",
];

/// A table at one version of its log.
#[derive(Debug, Clone)]
pub(crate) struct TableState {
    /// Version of the log.
    pub(crate) version: u64,
    /// The bookmark of the newest load.
    pub(crate) bookmark: Bookmark,
    /// Columns.
    pub(crate) columns: Vec<LakeColumn>,
    /// Names of the key columns.
    pub(crate) key: Vec<String>,
    /// Table properties.
    pub(crate) configuration: BTreeMap<String, String>,
    /// The `metaData` action.
    pub(crate) metadata: Value,
    /// The `protocol` action.
    pub(crate) protocol: Value,
    /// Data files.
    pub(crate) files: Vec<Arc<ActiveFile>>,
    /// The same state as the Delta crate represents it.
    pub(crate) delta: DeltaTableState,
}

impl TableState {
    /// Whether the table has an Iceberg view.
    pub(crate) fn has_iceberg_view(&self) -> bool {
        self.property(properties::ICEBERG).is_some()
    }

    /// Checks that daplake can write to the table: another program may have set properties that daplake would violate. Kind
    /// `Target` if so.
    pub(crate) fn check_writable(&self, table: &TableRef) -> Result<()> {
        let refuse = |property: String| {
            Err(Error::new(Kind::Target, "The table has a property that daplake does not support")
                .with_field("table", table)
                .with_field("property", property)
                .hint("another program added it; remove it or load into a new target"))
        };
        let expected = self.columns.iter().filter(|column| is_partition(column)).map(|column| Some(column.name.as_str()));
        let partition_columns = self.metadata["partitionColumns"].as_array();
        if partition_columns.is_some_and(|columns| !columns.iter().map(Value::as_str).eq(expected)) {
            return refuse("partition columns".into());
        }
        if let Some(property) = self.configuration.keys().find(|name| name.starts_with("delta.constraints.")) {
            return refuse(property.clone());
        }
        if self.configuration.get("delta.appendOnly").is_some_and(|value| value == "true") {
            return refuse("delta.appendOnly".into());
        }
        let constraints = ["delta.generationExpression", "delta.identity.start", "delta.invariants"];
        let is_constrained = |column: &&LakeColumn| constraints.iter().any(|name| column.metadata.contains_key(*name));
        if let Some(column) = self.columns.iter().find(is_constrained) {
            return refuse(format!("generated or constrained column {}", column.name));
        }
        let features = ["readerFeatures", "writerFeatures"].iter().filter_map(|list| self.protocol[*list].as_array()).flatten();
        for feature in features.filter_map(Value::as_str) {
            if !HARMLESS_FEATURES.contains(&feature) {
                return refuse(format!("feature {feature}"));
            }
        }
        Ok(())
    }

    /// A table property.
    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        self.configuration.get(name).map(String::as_str)
    }

    /// How nested columns are stored.
    pub(crate) fn nested(&self) -> Nested {
        match self.property(properties::NESTED) {
            Some("json") => Nested::Json,
            _ => Nested::Typed,
        }
    }

    /// Which columns are dropped or hashed.
    pub(crate) fn column_record(&self) -> ColumnRecord {
        self.property(properties::COLUMNS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// Number of rows; `None` if a file does not say how many it has.
    pub(crate) fn rows(&self) -> Option<u64> {
        self.files.iter().try_fold(0, |sum, file| Some(sum + file.live_rows()?))
    }

    /// Whether columns are mapped, and the highest column id in use.
    pub(crate) fn mapping(&self) -> (bool, i64) {
        let mapped = self.property(properties::MAPPING_MODE).is_some_and(|mode| mode != "none");
        let max_id = self.property(properties::MAPPING_MAX_ID).and_then(|id| id.parse().ok()).unwrap_or(0);
        (mapped, max_id)
    }
}
