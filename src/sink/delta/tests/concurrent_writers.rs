//! Two concurrent writers of one table, on a local disk and in an object store: no row is lost or repeated, and the loser gets a conflict.
//!
//! `DAPLAKE_TEST_ROUNDS` sets the number of rounds.

use serde_json::json;

use super::TestLake;
use crate::error::Kind;
use crate::model::TableRef;
use crate::sink::conformance::Change::{Del, Up};
use crate::sink::conformance::{Fixture, at, changes, expected, load, plain, plan, read, reduced};
use crate::sink::delta::{DeltaOptions, DeltaSink};
use crate::sink::{LoadKind, Sink};

fn table() -> TableRef {
    TableRef::new("canvas", "accounts")
}

/// Commits two loads from the same state concurrently, in many rounds. Returns the number of data files that the log has ever named.
async fn race(sink: &DeltaSink, fixture: &Fixture, default_rounds: i64) -> usize {
    let rounds: i64 = std::env::var("DAPLAKE_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default_rounds);
    let schema = plain(&table());
    load(fixture, &schema, LoadKind::Replace, &[Up(json!({"id": 0, "name": "first"}))], at(1)).await.unwrap();
    let mut rows = vec![json!({"id": 0, "name": "first"})];
    let mut named = 1;
    for round in 1..=rounds {
        let mut opened = Vec::new();
        for who in ["a", "b"] {
            let load = sink.begin(plan(fixture, &schema, LoadKind::Merge).await).await.unwrap();
            opened.push((who, load));
        }
        let mut loads = Vec::new();
        for (who, mut opened) in opened {
            let row = json!({"id": round, "name": format!("{who}{round}")});
            let set = reduced(&schema, vec![changes(&schema, &[Up(row.clone()), Del(json!({"id": -1}))])]);
            loads.push(tokio::spawn(async move {
                opened.write(set).await.unwrap();
                (row, opened.commit(at(round + 1)).await)
            }));
        }
        let mut winners = Vec::new();
        for done in loads {
            let (row, result) = done.await.unwrap();
            match result {
                Ok(_) => winners.push(row),
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Conflict, "{error:?}");
                    assert!(error.hint_text().is_some());
                }
            }
        }
        assert_eq!(winners.len(), 1, "round {round}");
        rows.append(&mut winners);
        named += 1;
    }
    assert_eq!(read(fixture, &table()).await, expected(&schema, &rows));
    let version = sink.log(&table()).unwrap().state().await.unwrap().unwrap().version;
    assert_eq!(version, rounds as u64, "one version per winner");
    named
}

fn plain_commits(options: DeltaOptions) -> DeltaOptions {
    DeltaOptions { compact_after: 0, ..options }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_concurrent_writers_wins() {
    let lake = TestLake::with(64 << 20, plain_commits);
    let named = race(&lake.sink, &lake.fixture, 12).await;
    assert_eq!(lake.data_files(&table()).len(), named, "losers leave no files");
}

#[cfg(feature = "demo")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_concurrent_writers_in_an_object_store_wins() {
    let remote = super::object_store::Remote::with(plain_commits).await;
    let named = race(&remote.sink, &remote.fixture, 12).await;
    assert_eq!(remote.data_files(), named, "losers leave no files");
    assert_eq!(remote.server.left_parts(), 0);
}
