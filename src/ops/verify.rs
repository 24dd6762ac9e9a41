//! `verify`: compares tables of a lake with fresh snapshots and names the keys that differ. It changes nothing.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Cared, Selection};
use crate::api::{Client, FinishedJob, Query};
use crate::decode::BadRows;
use crate::error::{Error, ErrorContext, Kind, Result};
use crate::fetch::UnpackLimits;
use crate::model::{Format, TableRef, Window};
use crate::scan::{ObjectScan, ScanOptions};
use crate::schema::{Nested, TableSchema};
use crate::sink::Sink;
use crate::sink::delta::{DeltaSink, Differences};
use crate::stage::{ChangeSet, Engine, latest_per_key};

/// Everything a verification needs, ready to use.
#[derive(Clone)]
pub struct VerifyRequest {
    /// The service.
    pub client: Client,
    /// Where the tables are kept.
    pub sink: Arc<DeltaSink>,
    /// Memory and spill; the sink's own.
    pub engine: Engine,
    /// Which of the tables held.
    pub selection: Selection,
    /// Format of the downloaded objects.
    pub format: Format,
    /// Staging folder for Parquet objects.
    pub temp_dir: PathBuf,
    /// Keys that are named, per table.
    pub keys: usize,
}

/// Compares every chosen table with a snapshot of now, one after the other. What changed at the service since a table's bookmark
/// is left out, so that a table need not be the newest; its schema must be. Costs one or two job starts per table. Logs keep
/// rows that the service has no longer, so that surplus keys are not told of them.
pub async fn verify(request: &VerifyRequest) -> Result<Vec<Cared<Differences>>> {
    let mut done = Vec::new();
    for table in request.selection.resolve_held(request.sink.as_ref()).await? {
        let result = one(request, &table).await.with("table", &table);
        let is_fatal = result.as_ref().is_err_and(|error| error.kind().is_fatal_for_run());
        done.push(Cared { table, result });
        if is_fatal {
            break;
        }
    }
    Ok(done)
}

async fn one(request: &VerifyRequest, table: &TableRef) -> Result<Differences> {
    let held = request.sink.held(table).await?;
    let held = held.ok_or_else(|| Error::new(Kind::NotFound, "The table is not kept at this target"))?.bookmark;
    let nested = request.sink.nested(table).await?;
    let client = &request.client;
    let query = |window| Query { table: table.clone(), format: request.format, mode: None, window };
    let snapshot = client.run(&query(Window::Snapshot)).await?;
    let schema = client.table_schema(table).await?;
    if snapshot.schema_version != held.schema_version || schema.version != held.schema_version {
        return Err(Error::new(Kind::Schema, "The table's schema has changed at the service").hint("run `daplake sync` first"));
    }
    let schema = Arc::new(TableSchema::read(table, schema.version, schema.schema)?);
    let changed = if snapshot.reached > held.at {
        let window = Window::Increment { since: held.at, until: Some(snapshot.reached) };
        Some(rows_of(request, client.run(&query(window)).await?, &schema, nested).await?)
    } else {
        None
    };
    let fresh = rows_of(request, snapshot, &schema, nested).await?;
    let mut found = request.sink.differences(table, fresh, changed, request.keys).await?;
    if table.is_log() {
        found.surplus = 0;
        found.keys.retain(|key| key.what != "surplus");
    }
    Ok(found)
}

async fn rows_of(request: &VerifyRequest, job: FinishedJob, schema: &Arc<TableSchema>, nested: Nested) -> Result<ChangeSet> {
    let options = ScanOptions {
        partitions: 2,
        batch_rows: 8192,
        batch_bytes: 4 << 20,
        max_line: 256 << 20,
        unpack: UnpackLimits::default(),
        nested,
        temp_dir: request.temp_dir.clone(),
    };
    let scan = ObjectScan::new(&request.client, job, schema.clone(), options, Arc::new(|_| BadRows::Fail));
    let keys: Vec<String> = schema.key_names().into_iter().map(str::to_owned).collect();
    latest_per_key(&request.engine, Arc::new(scan), &keys).await
}
