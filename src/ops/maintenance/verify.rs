//! `verify`: compares tables of a lake with new snapshots and reports the keys that differ. It changes nothing.

use std::sync::Arc;

use super::cleanup::TableResult;
use crate::api::{Client, FinishedJob, Query};
use crate::decode::{BadRows, OutOfRange};
use crate::engine::Engine;
use crate::error::{Error, ErrorContext, Kind, Result};
use crate::fetch::UnpackLimits;
use crate::model::{Format, TableRef, Window};
use crate::ops::selection::Selection;
use crate::reduce::{ChangeSet, latest_per_key};
use crate::scan::{ObjectScan, ScanOptions};
use crate::schema::{ColumnChoice, ColumnRules, HashKey, Nested, TableSchema};
use crate::sink::delta::Differences;
use crate::sink::{Lake, Sink};

/// Everything a verification needs.
#[derive(Clone)]
pub struct VerifyRequest {
    /// The service.
    pub client: Client,
    /// The target.
    pub lake: Lake,
    /// The engine of the target.
    pub engine: Engine,
    /// The tables, among those of the target.
    pub selection: Selection,
    /// Format of the downloaded objects.
    pub format: Format,
    /// Maximum number of keys to report per table.
    pub keys: usize,
    /// The key of hashed columns, for tables with such columns.
    pub hash_key: Option<HashKey>,
}

/// Compares every selected table with a new snapshot, one after another. Changes since the bookmark of a table are ignored, so the table need
/// not be up to date, but its schema must be. Needs one or two job starts per table. Logs keep rows that the service has deleted, so surplus
/// keys are not reported for them.
pub async fn verify(request: &VerifyRequest) -> Result<Vec<TableResult<Differences>>> {
    let mut done = Vec::new();
    for table in request.selection.resolve_kept(request.lake.tables().as_ref()).await? {
        let result = one(request, &table).await.with_field("table", &table);
        let is_fatal = result.as_ref().is_err_and(|error| error.kind().is_fatal_for_run());
        done.push(TableResult { table, result });
        if is_fatal {
            break;
        }
    }
    Ok(done)
}

async fn one(request: &VerifyRequest, table: &TableRef) -> Result<Differences> {
    let committed = request.lake.tables().committed(table).await?;
    let committed = committed.ok_or_else(|| Error::new(Kind::NotFound, "The target does not have the table"))?.bookmark;
    let nested = request.lake.tables().nested(table).await?;
    let client = &request.client;
    let query = |window| Query { table: table.clone(), format: request.format, mode: None, window };
    let snapshot = client.run(&query(Window::Snapshot)).await?;
    let schema = client.table_schema(table).await?;
    if snapshot.schema_version != committed.schema_version || schema.version != committed.schema_version {
        return Err(
            Error::new(Kind::Schema, "The schema of the table has changed at the service").hint("run `daplake sync` first")
        );
    }
    let schema = Arc::new(TableSchema::read(table, schema.version, schema.schema)?);
    // The same columns are dropped and hashed as in the table.
    let record = request.lake.tables().columns(table).await?;
    let has = |name: &String| schema.columns().any(|column| column.name == *name);
    let chosen = |names: &[String]| names.iter().filter(|name| has(name)).cloned().collect::<Vec<_>>();
    let rules = ColumnRules { keep: Vec::new(), drop: chosen(&record.dropped), hash: chosen(&record.hashed) };
    let choice = ColumnChoice::of(&schema, &rules, request.hash_key.as_ref())?;
    record.follow(choice.record(), |_| true, |name| choice.kept().columns().any(|column| column.name == name))?;
    let mut scans = Vec::new();
    // The service may return an earlier snapshot, so either of the two may be older. An increment with an end would omit a key that changed in
    // between and again later.
    let changed = if snapshot.reached != committed.at {
        let window = Window::Increment { since: committed.at.min(snapshot.reached), until: None };
        Some(rows_of(request, client.run(&query(window)).await?, &choice, nested, &mut scans).await?)
    } else {
        None
    };
    let fresh = rows_of(request, snapshot, &choice, nested, &mut scans).await?;
    let mut found = request.lake.tables().differences(table, fresh, changed, request.keys).await?;
    scans.iter().try_for_each(ObjectScan::check_finished)?;
    if table.is_log() {
        found.surplus = 0;
        found.keys.retain(|key| key.what != "surplus");
    }
    Ok(found)
}

async fn rows_of(
    request: &VerifyRequest,
    job: FinishedJob,
    choice: &ColumnChoice,
    nested: Nested,
    scans: &mut Vec<ObjectScan>,
) -> Result<ChangeSet> {
    let options = ScanOptions {
        partitions: 2,
        batch_rows: request.engine.batch_rows(1),
        batch_bytes: request.engine.batch_bytes(),
        memory_limit: request.engine.memory_limit(),
        max_line: 256 << 20,
        unpack: UnpackLimits::default(),
        nested,
        // As in a load with --out-of-range null; in other loads such values fail.
        out_of_range: OutOfRange::Null,
        temp_dir: request.engine.folder().to_owned(),
    };
    let scan = ObjectScan::new(&request.client, job, choice.clone(), options, Arc::new(|_| BadRows::Fail));
    let keys: Vec<String> = choice.kept().key_names().into_iter().map(str::to_owned).collect();
    let changes = ChangeSet::unreduced(scan.schema(), &keys, scan.streams());
    scans.push(scan);
    latest_per_key(&request.engine, changes)
}
