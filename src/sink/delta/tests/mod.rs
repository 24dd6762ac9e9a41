//! Tests of Delta tables: the sink writes them, the Delta crate reads and checks them.

mod change_feed;
mod concurrent_writers;
mod foreign_programs;
pub(super) mod history;
mod history_in_modes;
mod iceberg;
mod iceberg_faults;
mod maintenance;
#[cfg(feature = "demo")]
mod object_store;
mod post_write_dedup;
mod schema_changes;
mod store_faults;
mod table_layout;
pub(crate) mod table_modes;

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use datafusion::prelude::SessionContext;
use deltalake::DeltaTable;
use serde_json::Value;
use tempfile::TempDir;
use url::Url;

use super::{DeltaOptions, DeltaSink};
use crate::engine::{Engine, EngineOptions};
use crate::model::TableRef;
use crate::sink::conformance::{self, Fixture};

pub(crate) fn engine(folder: &Path, memory_limit: usize) -> Engine {
    Engine::new(EngineOptions { memory_limit, temp_dir: Some(folder.to_owned()), partitions: 2 }).unwrap()
}

/// Reads a table with the scan of the Delta crate, which shares no code with our reader.
async fn read_with_crate(url: Url) -> Vec<RecordBatch> {
    let table: DeltaTable = deltalake::open_table(url).await.unwrap();
    let session = SessionContext::new();
    table.update_datafusion_session(&session.state()).unwrap();
    let provider = table.table_provider().await.unwrap();
    session.read_table(provider).unwrap().collect().await.unwrap()
}

pub(super) fn fixture(root: &Path, options: DeltaOptions) -> Fixture {
    let sink = DeltaSink::at_path(root, options).unwrap();
    let base = sink.place.location().reveal().clone();
    Fixture { sink: Box::new(sink), read: Box::new(move |table| Box::pin(read_with_crate(url_of(&base, &table)))) }
}

fn url_of(base: &Url, table: &TableRef) -> Url {
    base.join(&format!("{}/{}/", table.namespace, table.table)).unwrap()
}

/// A sink on a temporary folder.
pub(super) struct TestLake {
    pub(super) fixture: Fixture,
    pub(super) sink: DeltaSink,
    pub(super) root: PathBuf,
    engine: Engine,
    _folder: TempDir,
}

impl TestLake {
    pub(super) fn new() -> Self {
        Self::with(64 << 20, |options| options)
    }

    pub(super) fn with(memory_limit: usize, change: impl FnOnce(DeltaOptions) -> DeltaOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("lake");
        let engine = engine(&folder.path().join("spill"), memory_limit);
        let options = change(DeltaOptions::new(engine.clone()));
        let sink = DeltaSink::at_path(&root, options.clone()).unwrap();
        Self { fixture: fixture(&root, options), sink, root, engine, _folder: folder }
    }

    /// Changes the options of later loads.
    fn set_options(&mut self, change: impl FnOnce(&mut DeltaOptions)) {
        change(&mut self.sink.options);
        self.fixture.sink = Box::new(self.sink.clone());
    }

    pub(super) fn folder(&self, table: &TableRef) -> PathBuf {
        self.root.join(table.namespace.as_str()).join(&table.table)
    }

    fn url(&self, table: &TableRef) -> Url {
        url_of(self.sink.place.location().reveal(), table)
    }

    /// The actions of one version of the log.
    fn commit(&self, table: &TableRef, version: u64) -> Vec<Value> {
        let path = self.folder(table).join("_delta_log").join(format!("{version:020}.json"));
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Names of data files in the folder, committed or not.
    pub(super) fn data_files(&self, table: &TableRef) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.folder(table)) else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "_delta_log").collect()
    }
}

/// The only action of a kind.
fn only<'a>(actions: &'a [Value], kind: &str) -> &'a Value {
    let found: Vec<&Value> = actions.iter().filter_map(|action| action.get(kind)).collect();
    assert_eq!(found.len(), 1, "one {kind}");
    found[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("ein Ordner/ünïcode");
    let options = DeltaOptions::new(engine(folder.path(), 64 << 20));
    conformance::all(&fixture(&root, options)).await;
}

#[tokio::test]
async fn the_contract_holds_with_minimal_limits() {
    // One thread, files and row groups of a few rows, very little memory, a checkpoint at every commit.
    let lake = TestLake::with(40 << 10, |options| DeltaOptions { target_file_bytes: 1, checkpoint_interval: 1, ..options });
    conformance::all(&lake.fixture).await;
    assert_eq!(lake.engine.memory_pool().reserved(), 0, "all memory was given back");
}
