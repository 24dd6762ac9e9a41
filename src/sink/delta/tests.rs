use std::path::Path;

use arrow::array::RecordBatch;
use datafusion::prelude::SessionContext;
use deltalake::DeltaTable;
use url::Url;

use super::{DeltaOptions, DeltaSink};
use crate::sink::conformance::{self, Fixture};
use crate::stage::{Engine, EngineOptions};

fn engine(folder: &Path, memory_limit: usize) -> Engine {
    Engine::new(EngineOptions { memory_limit, temp_dir: Some(folder.to_owned()), partitions: 2 }).unwrap()
}

/// Reads with the Delta crate's own scan, which shares nothing with our reader.
async fn read_with_crate(url: Url) -> Vec<RecordBatch> {
    let table: DeltaTable = deltalake::open_table(url).await.unwrap();
    let session = SessionContext::new();
    table.update_datafusion_session(&session.state()).unwrap();
    let provider = table.table_provider().await.unwrap();
    session.read_table(provider).unwrap().collect().await.unwrap()
}

fn fixture(root: &Path, options: DeltaOptions) -> Fixture {
    let sink = DeltaSink::at_path(root, options).unwrap();
    let base = sink.location.reveal().clone();
    Fixture {
        sink: Box::new(sink),
        read: Box::new(move |table| {
            let url = base.join(&format!("{}/{}/", table.namespace, table.table)).unwrap();
            Box::pin(read_with_crate(url))
        }),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("ein Ordner/ünïcode");
    let options = DeltaOptions::new(engine(folder.path(), 64 << 20));
    conformance::all(&fixture(&root, options)).await;
}
