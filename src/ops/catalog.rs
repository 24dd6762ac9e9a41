//! Registration of tables in a catalog after their loads: which tables, and what is known from earlier runs.
//!
//! A file per target in the state folder remembers what was registered, so that a table that has not changed costs no request. Without the
//! file, the next run compares each table with its entry once. A registration that fails is repeated by the next run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::catalog::{Catalog, LEAVE_OUT_HINT, Registered};
use crate::error::{Error, Kind, Result};
use crate::model::TableRef;
use crate::ops::runs::Outcome;
use crate::ops::state_file;
use crate::sink::{CommittedState, Sink};

/// Tables that are registered at the same time: catalogs limit their calls per second.
const AT_ONCE: usize = 4;

/// What is known about the catalog of a target.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CatalogRecord {
    /// Identity of the catalog. Nothing is known about another one.
    catalog: String,
    tables: BTreeMap<String, TableRecord>,
}

/// What is known about one table.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct TableRecord {
    /// Schema version of the table when it was registered or compared.
    schema_version: Option<i64>,
    /// Fingerprint of the registered entry.
    entry: Option<String>,
    /// Why the last registration failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

impl CatalogRecord {
    /// The record of a target in the state folder; empty if there is none.
    pub(super) fn read(folder: &Path, location: &str) -> Self {
        state_file::read(&path_of(folder, location))
    }

    /// Why the last registration of a table failed; `None` if it succeeded, or there was none.
    pub(super) fn failure_of(&self, table: &TableRef) -> Option<&str> {
        self.tables.get(&table.to_string())?.failure.as_deref()
    }
}

fn path_of(folder: &Path, location: &str) -> PathBuf {
    state_file::path_of(folder, location, "catalog")
}

/// Checks that catalogs can list the tables of a target.
///
/// # Errors
/// Kind `Unsupported` if they cannot.
pub(super) fn require_delta_tables(sink: &dyn Sink) -> Result<()> {
    if sink.capabilities().lake.is_some_and(|lake| lake.suits_catalogs()) {
        return Ok(());
    }
    Err(Error::new(Kind::Unsupported, "A catalog can list Delta tables only")
        .with_field("target", sink.location())
        .hint(LEAVE_OUT_HINT))
}

/// The registrations of one run.
pub(super) struct Registrar {
    catalog: Arc<Catalog>,
    path: Option<PathBuf>,
    record: Mutex<CatalogRecord>,
    /// Fingerprints of the entries of tables at the begin of their turn.
    found: Mutex<BTreeMap<String, String>>,
    permits: Semaphore,
    /// Whether the catalog could not be reached. It is not called again in this run.
    is_down: AtomicBool,
}

impl Registrar {
    /// Registrations of the tables of a target. Without a state folder, nothing is remembered.
    pub(super) fn new(catalog: Arc<Catalog>, folder: Option<&Path>, location: &str) -> Self {
        let mut record = folder.map(|folder| CatalogRecord::read(folder, location)).unwrap_or_default();
        let identity = catalog.identity();
        if record.catalog != identity {
            record = CatalogRecord { catalog: identity, tables: BTreeMap::new() };
        }
        let path = folder.map(|folder| path_of(folder, location));
        let permits = Semaphore::new(AT_ONCE);
        let (record, found) = (Mutex::new(record), Mutex::default());
        Self { catalog, path, record, found, permits, is_down: AtomicBool::new(false) }
    }

    /// Notes the state of a table before its load. An earlier run may have ended between a load and the registration.
    pub(super) fn found(&self, table: &TableRef, committed: Option<&CommittedState>) {
        if let Some(fingerprint) = committed.and_then(|state| state.catalog_fingerprint.clone()) {
            self.found.lock().insert(table.to_string(), fingerprint);
        }
    }

    /// Registers a table after its turn in the run, if its entry may have changed. Returns a warning if that failed.
    pub(super) async fn register(&self, sink: &dyn Sink, table: &TableRef, outcome: &Outcome) -> Option<String> {
        let name = table.to_string();
        let known = self.record.lock().tables.get(&name).cloned().unwrap_or_default();
        let found = self.found.lock().get(&name).cloned();
        if !is_due(&known, found.as_deref(), outcome) {
            return None;
        }
        let _permit = self.permits.acquire().await.ok()?;
        let (next, warning) = match self.registered(sink, table, outcome, &known).await {
            Ok(Some(next)) => (next, None),
            Ok(None) => return None,
            Err(error) => {
                if error.kind() == Kind::Unavailable {
                    self.is_down.store(true, Ordering::Relaxed);
                }
                tracing::warn!(%table, %error, hint = error.hint_text(), "Could not register the table in the catalog; its rows are up to date");
                let reason = described(&error);
                let warning = format!("not registered in the catalog: {reason}; the next run tries again");
                (TableRecord { failure: Some(reason), ..known }, Some(warning))
            }
        };
        self.remember(table, next);
        warning
    }

    /// What is known after a registration; `None` if the target does not have the table.
    async fn registered(
        &self,
        sink: &dyn Sink,
        table: &TableRef,
        outcome: &Outcome,
        known: &TableRecord,
    ) -> Result<Option<TableRecord>> {
        let Some(lake) = sink.capabilities().lake else { return Ok(None) };
        let Some(entry) = lake.catalog_entry(table).await? else { return Ok(None) };
        let schema_version = match outcome {
            Outcome::Loaded { schema_version, .. } => Some(*schema_version),
            _ => known.schema_version,
        };
        let next = TableRecord { schema_version, entry: Some(entry.fingerprint()), failure: None };
        if next.entry == known.entry && known.failure.is_none() && !is_snapshot(outcome) {
            return Ok(Some(next));
        }
        if self.is_down.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Unavailable, "The catalog could not be reached earlier in this run"));
        }
        match self.catalog.register(&entry).await? {
            Registered::Created => tracing::info!(%table, "Created the table in the catalog"),
            Registered::Updated => tracing::info!(%table, "Updated the table in the catalog"),
            Registered::Unchanged => tracing::debug!(%table, "The catalog has the table as it is"),
        }
        Ok(Some(next))
    }

    fn remember(&self, table: &TableRef, next: TableRecord) {
        let mut record = self.record.lock();
        let name = table.to_string();
        if record.tables.get(&name) == Some(&next) {
            return;
        }
        record.tables.insert(name, next);
        if let Some(path) = &self.path
            && let Err(error) = state_file::write(path, &*record)
        {
            tracing::warn!(file = %path.display(), %error, "Cannot record what the catalog has");
        }
    }
}

/// Whether the entry of a table may differ from what is known. The entry has no rows, so an increment changes it only with its schema. A
/// snapshot compares again, which also repairs an entry that was dropped.
fn is_due(known: &TableRecord, found: Option<&str>, outcome: &Outcome) -> bool {
    let is_unknown =
        known.entry.is_none() || known.failure.is_some() || found.is_some_and(|found| known.entry.as_deref() != Some(found));
    match outcome {
        Outcome::Loaded { schema_version, schema_changes, .. } => {
            is_unknown || is_snapshot(outcome) || !schema_changes.is_empty() || known.schema_version != Some(*schema_version)
        }
        Outcome::Unchanged { .. } | Outcome::Recent { .. } => is_unknown,
        Outcome::Failed { .. } | Outcome::Deferred { .. } | Outcome::Skipped => false,
    }
}

fn is_snapshot(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Loaded { query, .. } if *query == "snapshot")
}

/// A failure in one line, without a full stop.
fn described(error: &Error) -> String {
    let detail = error.get("reason").map(str::to_owned).or_else(|| error.causes().into_iter().next());
    match detail {
        Some(detail) => format!("{}: {}", error.message(), detail.trim_end_matches('.')),
        None => error.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn loaded(query: &'static str, schema_version: i64, changes: &[&str]) -> Outcome {
        Outcome::Loaded {
            query,
            upserted: 1,
            deleted: 0,
            rows: None,
            objects: 1,
            bytes_written: 0,
            bad_rows: 0,
            bookmark: Timestamp::from_micros(0),
            schema_version,
            schema_changes: changes.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    #[test]
    fn only_what_may_have_changed_is_registered() {
        let known = TableRecord { schema_version: Some(3), entry: Some("x".into()), failure: None };
        let unchanged = Outcome::Unchanged { bookmark: Timestamp::from_micros(0), by_another_run: false };
        assert!(!is_due(&known, Some("x"), &loaded("increment", 3, &[])));
        assert!(!is_due(&known, Some("x"), &unchanged));
        assert!(is_due(&known, Some("y"), &unchanged), "a run ended before it registered the table");
        for outcome in [loaded("snapshot", 3, &[]), loaded("increment", 4, &[]), loaded("increment", 3, &["new column"])] {
            assert!(is_due(&known, Some("x"), &outcome), "{outcome:?}");
        }
        for unknown in [TableRecord::default(), TableRecord { failure: Some("down".into()), ..known }] {
            assert!(is_due(&unknown, Some("x"), &loaded("increment", 3, &[])));
            assert!(is_due(&unknown, Some("x"), &unchanged));
            assert!(!is_due(&unknown, Some("x"), &Outcome::Skipped));
        }
    }

    #[test]
    fn a_record_survives_a_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let table = TableRef::new("canvas", "users");
        let failed = TableRecord { failure: Some("Access denied".into()), ..TableRecord::default() };
        let record = CatalogRecord { catalog: "glue".into(), tables: BTreeMap::from([(table.to_string(), failed)]) };
        state_file::write(&path_of(folder.path(), "s3://bucket/"), &record).unwrap();
        let read = CatalogRecord::read(folder.path(), "s3://bucket/");
        assert_eq!(read, record);
        assert_eq!(read.failure_of(&table), Some("Access denied"));
        assert_eq!(CatalogRecord::read(folder.path(), "s3://other/"), CatalogRecord::default());
    }
}
