//! Lake tables in other programs, feature by feature; `docs/reference/readers.md` has the results.

use std::collections::BTreeSet;
use std::path::Path;

use daplake::TableRef;
use serde_json::Value;

use crate::support::{World, canvas, school, web_logs};

/// Readers that support deletion vectors.
const READ_DELETION_VECTORS: [&str; 5] = ["deltalake", "polars", "duckdb-delta", "chdb", "sail"];

/// Tables with every type of the catalogue: decimals, dates, times with zone, structs, lists, JSON as text, floats, long strings.
fn tables_of_all_types() -> Vec<TableRef> {
    let canvas =
        ["assignments", "context_external_tools", "courses", "late_policies", "quizzes", "rubrics", "submissions", "users"]
            .map(canvas);
    canvas.into_iter().chain([TableRef::new("catalog", "products"), web_logs()]).collect()
}

async fn synced(vectors: &str, more: &[&str]) -> World {
    let world = World::new(school(&tables_of_all_types())).await;
    for round in 0..4 {
        if round > 0 {
            world.school.advance();
        }
        let target = ["sync", "--target", "lake", "--namespace", "all", "--jobs-per-minute", "0"];
        let options = ["--deletion-vectors", vectors, "--compact-after", "0"];
        world.daplake(&[target.as_slice(), &options, more].concat()).assert_code(0);
    }
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_rows_are_hidden_and_all_types_are_correct() {
    let world = synced("on", &[]).await;
    let has_vectors = std::fs::read_dir(world.lake().join("canvas/submissions/_delta_log"))
        .unwrap()
        .any(|entry| std::fs::read_to_string(entry.unwrap().path()).is_ok_and(|text| text.contains("\"deletionVector\":{")));
    assert!(has_vectors, "the table has deletion vectors");
    for reader in READ_DELETION_VECTORS {
        world.assert_tables(reader, &tables_of_all_types(), world.school.now());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_deletion_vectors_every_reader_reads_all_types_correctly() {
    let world = synced("off", &[]).await;
    for reader in READ_DELETION_VECTORS.into_iter().chain(["duckdb", "daft"]) {
        world.assert_tables(reader, &tables_of_all_types(), world.school.now());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_iceberg_see_the_same_rows() {
    for vectors in ["on", "off"] {
        let world = synced(vectors, &["--iceberg", "on"]).await;
        for reader in ["pyiceberg", "duckdb-iceberg", "duckdb-delta"] {
            world.assert_tables(reader, &tables_of_all_types(), world.school.now());
        }
        // A later run keeps the view, and so do commands that change files.
        world.school.advance();
        let run = |command: &[&str]| world.daplake(&[command, &["--target", "lake"]].concat()).assert_code(0);
        run(&["sync", "--namespace", "all", "--jobs-per-minute", "0", "--deletion-vectors", vectors]);
        run(&["optimize"]);
        run(&["vacuum"]);
        for reader in ["pyiceberg", "duckdb-iceberg", "duckdb-delta"] {
            world.assert_tables(reader, &tables_of_all_types(), world.school.now());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_programs_show_descriptions() {
    let Ok(python) = std::env::var("DAPLAKE_TEST_PYTHON") else {
        eprintln!("not run: needs DAPLAKE_TEST_PYTHON");
        return;
    };
    let world = synced("off", &[]).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/read.py");
    for table in [canvas("courses"), canvas("submissions")] {
        let folder = world.lake().join("canvas").join(&table.table);
        let output = std::process::Command::new(&python).arg(&script).arg("comments").arg(folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let version = world.school.schema_version(&table, world.school.now()).unwrap();
        let source = world.school.schema(&table, version).unwrap();
        assert_eq!(found["table"], source["description"], "{table}");
        let mut described = 0;
        for part in ["key", "value"] {
            for (name, column) in source["properties"][part]["properties"].as_object().unwrap() {
                assert_eq!(found["columns"][name], column["description"], "{table}.{name}");
                described += usize::from(column["description"].is_string());
            }
        }
        assert!(described > 3, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_programs_read_the_change_data_feed() {
    let Ok(python) = std::env::var("DAPLAKE_TEST_PYTHON") else {
        eprintln!("not run: needs DAPLAKE_TEST_PYTHON");
        return;
    };
    let table = canvas("submissions");
    let parted = ["--partition-by", "submissions=month(created_at)"];
    for more in [&[][..], &parted] {
        let world = World::new(school(std::slice::from_ref(&table))).await;
        let sync = ["sync", "--target", "lake", "--jobs-per-minute", "0", "--change-data-feed", "on"];
        let sync = || world.daplake(&[&sync, more].concat()).assert_code(0);
        sync();
        let keys = || -> BTreeSet<String> {
            let rows = world.school.expected(&table, world.school.now()).unwrap();
            rows.into_iter().map(|row| format!("{:?}", row.key)).collect()
        };
        let before = keys();
        world.school.advance();
        sync();
        let after = keys();
        // The number of changes of each type, and of rows in the wrong partition.
        let script = "
import collections, json, sys, pyarrow
from deltalake import DeltaTable
feed = pyarrow.table(DeltaTable(sys.argv[1]).load_cdf(starting_version=1).read_all()).to_pylist()
month = lambda at: at and at.date().replace(day=1)
wrong = [row for row in feed if '_month' in row and row['_month'] != month(row['created_at'])]
found = collections.Counter(row['_change_type'] for row in feed)
print(json.dumps({**found, 'months': len({row.get('_month') for row in feed}), 'wrong': len(wrong)}))
";
        let output = std::process::Command::new(&python)
            .args(["-c", script])
            .arg(world.lake().join("canvas/submissions"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let count = |kind: &str| found[kind].as_u64().unwrap_or(0) as usize;
        assert_eq!((count("insert"), count("delete")), (after.difference(&before).count(), before.difference(&after).count()));
        assert_eq!(count("update_preimage"), count("update_postimage"));
        assert!(count("update_preimage") > 0, "{found}");
        assert_eq!((count("wrong"), count("months") > 1), (0, !more.is_empty()), "{found}");
    }
}
