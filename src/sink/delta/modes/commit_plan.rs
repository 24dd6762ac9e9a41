//! The commit of a load apart from its files: schema, protocol, table properties, operation and commit info.

use std::collections::{BTreeMap, HashMap};

use deltalake::kernel::Action;
use deltalake::protocol::{DeltaOperation, SaveMode};
use serde_json::{Value, json};

use crate::error::{Kind, Result, ResultExt};
use crate::model::Bookmark;
use crate::schema::{Nested, TableMode};
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::file_actions::FileChanges;
use crate::sink::delta::log::partition_column::is_partition;
use crate::sink::delta::log::properties;
use crate::sink::delta::log::protocol::{Feature, new_protocol, raised_protocol};
use crate::sink::delta::modes::context::LoadContext;
use crate::sink::delta::options::DeletionVectors;
use crate::sink::{LoadKind, LoadSummary};

/// The commit of a load.
pub(crate) struct CommitPlan<'a> {
    pub(crate) load: &'a LoadContext,
    pub(crate) written: &'a FileChanges,
    /// The bookmark that the load has reached.
    pub(crate) reached: Bookmark,
}

impl CommitPlan<'_> {
    /// The columns of the table, and all schema changes of the load. Required columns that have nulls become nullable, so that no
    /// row is lost.
    pub(crate) fn columns(&self) -> (Vec<LakeColumn>, Vec<String>) {
        let mut columns = self.load.design.columns.clone();
        let mut changes = self.load.design.changes.clone();
        for (index, column) in columns.iter_mut().filter(|column| !is_partition(column)).enumerate() {
            let has_nulls = self.written.added.iter().any(|file| file.has_nulls.get(index) == Some(&true));
            if has_nulls && !column.nullable {
                column.nullable = true;
                changes.push(format!("`{}` has nulls although it is required, and may be null from now on", column.name));
            }
        }
        (columns, changes)
    }

    /// The `protocol` and `metaData` actions, as far as they differ from the present ones.
    pub(crate) fn schema_actions(&self, columns: &[LakeColumn]) -> Result<Vec<Action>> {
        let load = self.load;
        let enables_vectors = self.deletion_vector_property();
        let configuration = self.configuration(enables_vectors);
        let metadata = self.metadata(columns, &configuration);
        let mut actions = Vec::new();
        let mut needs = Vec::new();
        if load.design.is_mapped {
            needs.push(Feature::ColumnMapping);
        }
        if enables_vectors == Some(true) {
            needs.push(Feature::DeletionVectors);
        }
        if load.writes_change_feed() {
            needs.push(Feature::ChangeDataFeed);
        }
        let protocol = match &load.state {
            None => Some(new_protocol(&needs)),
            Some(state) => raised_protocol(&state.protocol, &needs),
        };
        if let Some(protocol) = protocol {
            let protocol = serde_json::from_value(protocol).context(Kind::Bug, "The table's protocol cannot be written")?;
            actions.push(Action::Protocol(protocol));
        }
        let is_unchanged = load.state.as_ref().is_some_and(|state| {
            state.configuration == configuration
                && state.columns == columns
                && state.metadata["description"] == metadata["description"]
        });
        if !is_unchanged {
            let metadata = serde_json::from_value(metadata).context(Kind::Bug, "The table's metadata cannot be written")?;
            actions.push(Action::Metadata(metadata));
        }
        Ok(actions)
    }

    fn metadata(&self, columns: &[LakeColumn], configuration: &BTreeMap<String, String>) -> Value {
        let old = self.load.state.as_ref().map(|state| &state.metadata);
        let old_member = |name: &str| old.map(|old| old[name].clone()).filter(|value| !value.is_null());
        let partition: Vec<&str> =
            columns.iter().filter(|column| is_partition(column)).map(|column| column.name.as_str()).collect();
        json!({
            "id": old_member("id").unwrap_or_else(|| uuid::Uuid::new_v4().to_string().into()),
            "name": old_member("name").unwrap_or_else(|| self.load.plan.table.to_string().into()),
            "description": self.load.plan.schema.description,
            "format": {"provider": "parquet", "options": {}},
            "schemaString": LakeColumn::schema_string(columns),
            "partitionColumns": partition,
            "configuration": configuration,
            "createdTime": old_member("createdTime").unwrap_or_else(|| chrono::Utc::now().timestamp_millis().into()),
        })
    }

    /// The table properties. `enables_vectors` is the value of `delta.enableDeletionVectors` to set, if any.
    fn configuration(&self, enables_vectors: Option<bool>) -> BTreeMap<String, String> {
        let load = self.load;
        let mut configuration: BTreeMap<String, String> = match &load.state {
            Some(state) => state.configuration.clone(),
            None => {
                let interval = load.options.checkpoint_interval.max(1).to_string();
                BTreeMap::from([(properties::CHECKPOINT_INTERVAL.into(), interval)])
            }
        };
        let nested = match load.plan.nested {
            Nested::Typed => "typed",
            Nested::Json => "json",
        };
        configuration.insert(properties::TABLE.into(), load.plan.table.to_string());
        configuration.insert(properties::KEY.into(), json!(load.keys).to_string());
        configuration.insert(properties::SCHEMA_VERSION.into(), self.reached.schema_version.to_string());
        configuration.insert(properties::NESTED.into(), nested.into());
        if load.options.is_parquet_folder {
            configuration.insert(properties::FORMAT.into(), properties::PARQUET.into());
        }
        load.layout.record(&mut configuration);
        let record = &load.design.column_choice.record;
        if record.is_empty() {
            configuration.remove(properties::COLUMNS);
        } else {
            configuration.insert(properties::COLUMNS.into(), json!(record).to_string());
        }
        if load.design.is_mapped {
            configuration.insert(properties::MAPPING_MODE.into(), "name".into());
            configuration.insert(properties::MAPPING_MAX_ID.into(), load.design.max_column_id.to_string());
        }
        if let Some(enabled) = enables_vectors {
            configuration.insert(properties::DELETION_VECTORS.into(), enabled.to_string());
        }
        let is_enabled = configuration.get(properties::DELETION_VECTORS).is_some_and(|value| value == "true");
        if load.forbids_deletion_vectors() && is_enabled {
            configuration.insert(properties::NO_DELETION_VECTORS.into(), "true".into());
        } else {
            configuration.remove(properties::NO_DELETION_VECTORS);
        }
        if load.writes_change_feed() || configuration.contains_key(properties::CHANGE_DATA_FEED) {
            configuration.insert(properties::CHANGE_DATA_FEED.into(), load.writes_change_feed().to_string());
        }
        if load.has_iceberg_view() {
            configuration.insert(properties::ICEBERG.into(), "true".into());
        } else {
            configuration.remove(properties::ICEBERG);
        }
        configuration
    }

    /// Whether any file has a deletion vector after the commit.
    fn leaves_deletion_vectors(&self) -> bool {
        let mut kept = self.written.kept(self.load.files());
        self.written.has_deletion_vectors() || kept.any(|file| file.deletion_vector.is_some())
    }

    /// The value of `delta.enableDeletionVectors` to set; `None` leaves the property as it is. Some readers ignore deletion vectors
    /// if it is `false`, so it is `false` only if none is left. Until then, [`properties::NO_DELETION_VECTORS`] records what the user
    /// wants.
    fn deletion_vector_property(&self) -> Option<bool> {
        match self.load.options.deletion_vectors {
            DeletionVectors::On => Some(true),
            DeletionVectors::Off if self.leaves_deletion_vectors() => Some(true),
            DeletionVectors::Off => self.load.property(properties::DELETION_VECTORS).is_some().then_some(false),
            DeletionVectors::Auto => {
                let turns_off = self.load.property(properties::NO_DELETION_VECTORS).is_some();
                if turns_off && !self.leaves_deletion_vectors() {
                    return Some(false);
                }
                self.written.has_deletion_vectors().then_some(true)
            }
        }
    }

    /// The operation that the commit records.
    pub(crate) fn operation(&self) -> DeltaOperation {
        let write = |mode: SaveMode| DeltaOperation::Write { mode, partition_by: None, predicate: None };
        if self.load.layout.mode == TableMode::Changes {
            return write(SaveMode::Append);
        }
        if self.load.plan.kind == LoadKind::Replace && !self.load.keeps_rows() {
            return write(SaveMode::Overwrite);
        }
        DeltaOperation::Merge {
            predicate: None,
            merge_predicate: None,
            matched_predicates: Vec::new(),
            not_matched_predicates: Vec::new(),
            not_matched_by_source_predicates: Vec::new(),
        }
    }

    /// The commit info: run, job, bookmark, metrics, and the size of the table after the commit.
    pub(crate) fn info(&self, loaded: &LoadSummary) -> HashMap<String, Value> {
        let written = self.written;
        let added_rows: u64 = written.added.iter().map(|file| file.rows).sum();
        let removed = written.removed.iter().filter(|removed| **removed).count();
        let new_vectors = written.added.iter().filter(|file| file.deletion_vector.is_some()).count();
        let bytes: u64 = written.files_after(self.load.files()).map(|(bytes, _)| bytes).sum();
        // Strings, as other writers have them.
        let metrics = json!({
            "numUpsertedRows": written.upserted.to_string(),
            "numDeletedRows": written.deleted.to_string(),
            "numOutputRows": added_rows.to_string(),
            "numAddedFiles": written.added.len().to_string(),
            "numRemovedFiles": (removed - written.vector_updates.len()).to_string(),
            "numDeletionVectorsAdded": (written.vector_updates.len() + new_vectors).to_string(),
        });
        HashMap::from([
            ("daplakeRunId".into(), json!(self.load.plan.run_id)),
            ("daplakeJobId".into(), json!(self.load.plan.job_id)),
            ("daplakeBookmark".into(), json!(self.reached.at.to_string())),
            ("daplakeSchemaVersion".into(), json!(self.reached.schema_version)),
            ("operationMetrics".into(), metrics),
            ("daplakeRows".into(), json!(loaded.rows)),
            ("daplakeBytes".into(), json!(bytes)),
        ])
    }
}
