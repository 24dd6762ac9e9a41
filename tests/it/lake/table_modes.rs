//! Table modes and soft deletes: other readers find the history of the school.

use daplake::TableRef;
use daplake::demo::school::SchoolOptions;
use serde_json::Value;

use crate::support::{World, assert_same, canvas, read_tables, school, web_logs};

fn sync(world: &World, more: &[&str]) -> crate::support::Run {
    let always = ["sync", "--target", "lake", "--namespace", "all", "--jobs-per-minute", "0"];
    let arguments: Vec<&str> = always.iter().copied().chain(more.iter().copied()).collect();
    world.daplake(&arguments)
}

fn query(world: &World, sql: &str) -> Vec<Value> {
    let run = world.daplake(&["query", "--target", "lake", "--output", "json", sql]).assert_code(0);
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn tables() -> Vec<TableRef> {
    vec![canvas("users"), canvas("submissions"), canvas("enrollments"), web_logs()]
}

/// Syncs a history and then a new snapshot in this mode, with and without deletion vectors. `only` selects the current rows of a table, which
/// must be those of the school.
async fn check_current_rows(mode: &[&str], only: impl Fn(&TableRef, Vec<Value>) -> Vec<Value>) {
    for (vectors, readers) in [("off", &["deltalake", "duckdb", "polars"][..]), ("on", &["deltalake", "polars"])] {
        let tables = tables();
        let world = World::new(SchoolOptions { change_rate: 0.3, ..school(&tables) }).await;
        let options = ["--deletion-vectors", vectors, "--compact-after", "0"];
        for round in 0..4 {
            if round > 0 {
                world.school.advance();
            }
            // Given in the first run; the tables store it.
            let mode = if round == 0 { mode } else { &[] };
            sync(&world, &[&options[..], mode].concat()).assert_code(0);
        }
        world.school.advance();
        sync(&world, &[&options[..], &["--resnapshot"]].concat()).assert_code(0);
        let folders: Vec<_> =
            tables.iter().map(|table| world.lake().join(table.namespace.as_str()).join(&table.table)).collect();
        for reader in readers {
            let Some(read) = read_tables(reader, &folders) else { return };
            for (table, rows) in tables.iter().zip(read) {
                assert_same(&world.school, table, world.school.now(), only(table, rows));
            }
        }
        world.daplake(&["optimize", "--target", "lake", "--sort-by-key"]).assert_code(0);
        let Some(read) = read_tables("polars", &folders) else { return };
        for (table, rows) in tables.iter().zip(read) {
            assert_same(&world.school, table, world.school.now(), only(table, rows));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_not_soft_deleted_are_the_current_rows() {
    check_current_rows(&["--deletes", "mark"], |table, rows| {
        let deleted = rows.iter().filter(|row| row["_deleted"] == true).count();
        // Most tables of the school have no hard deletes.
        assert!(deleted > 0 || table.table != "submissions", "{table} has soft-deleted rows");
        rows.into_iter().filter(|row| row["_deleted"] == false).collect()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_current_versions_of_a_history_are_the_current_rows() {
    check_current_rows(&["--mode", "history"], |_, rows| {
        for row in &rows {
            let (from, to) = (row["_valid_from"].as_i64().unwrap(), row["_valid_to"].as_i64());
            assert_eq!(row["_current"], to.is_none(), "{row}");
            assert!(to.is_none_or(|to| to > from), "{row}");
        }
        assert!(rows.iter().any(|row| row["_current"] == true));
        rows.into_iter().filter(|row| row["_current"] == true).collect()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_changes_of_a_change_log_give_the_current_rows() {
    check_current_rows(&["--mode", "changes"], |_, mut rows| {
        rows.sort_by_key(|row| row["_ts"].as_i64());
        let mut last = std::collections::BTreeMap::new();
        for row in rows {
            last.insert(row["id"].to_string(), row);
        }
        last.into_values().filter(|row| row["_action"] == "U").collect()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mode_is_shown_kept_and_verified() {
    let world = World::new(school(&[canvas("users")])).await;
    sync(&world, &["--mode", "history"]).assert_code(0);
    world.school.advance();
    sync(&world, &[]).assert_code(0);
    let versions = query(&world, "SELECT count(*) AS n, count(DISTINCT id) AS keys FROM users");
    assert!(versions[0]["n"].as_i64() > versions[0]["keys"].as_i64(), "{versions:?}");
    let status = world.daplake(&["status", "--target", "lake"]).assert_code(0);
    assert!(status.stdout.contains("kept as") && status.stdout.contains("history"), "{}", status.stdout);
    world.daplake(&["verify", "--target", "lake", "--jobs-per-minute", "0"]).assert_code(0);
    // Even if there is nothing to load.
    let before = world.fingerprint();
    sync(&world, &["--mode", "current"]).assert_code(5).assert_says(&["another mode", "--mode history"]);
    sync(&world, &["--mode", "current", "--resnapshot"]).assert_code(5);
    sync(&world, &["--deletes", "mark"]).assert_code(5).assert_says(&["mode `current` only"]);
    sync(&world, &["--mode", "future"]).assert_code(5);
    assert_eq!(world.fingerprint(), before);
    // Unchanged rows get no new version.
    sync(&world, &["--resnapshot"]).assert_code(0);
    assert_eq!(query(&world, "SELECT count(*) AS n, count(DISTINCT id) AS keys FROM users"), versions);
}

/// Days since 1970 of a timestamp in microseconds.
fn day_of(micros: &Value) -> Option<i64> {
    micros.as_i64().map(|micros| micros.div_euclid(86_400_000_000))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_what_readers_expect() {
    let tables = [canvas("enrollments"), web_logs()];
    for vectors in ["off", "on"] {
        let world = World::new(school(&tables)).await;
        let options = ["--deletion-vectors", vectors, "--partition-by", "enrollments=month(created_at)"];
        for round in 0..3 {
            if round > 0 {
                world.school.advance();
            }
            sync(&world, &options).assert_code(0);
        }
        let status = world.daplake(&["status", "--target", "lake"]).assert_code(0);
        for words in ["current by month(created_at)", "current by day(timestamp)"] {
            assert!(status.stdout.contains(words), "{}", status.stdout);
        }
        sync(&world, &["--partition-by", "enrollments=year(created_at)"])
            .assert_code(5)
            .assert_says(&["partitioned", "new --target"]);
        sync(&world, &["--partition-by", "day(created_at)"]).assert_code(5);

        let folders: Vec<_> =
            tables.iter().map(|table| world.lake().join(table.namespace.as_str()).join(&table.table)).collect();
        for reader in ["deltalake", "polars"] {
            let Some(read) = read_tables(reader, &folders) else { return };
            let days: std::collections::BTreeSet<i64> = read[1].iter().filter_map(|row| row["_day"].as_i64()).collect();
            assert!(days.len() > 1, "{days:?}");
            assert!(read[1].iter().all(|row| row["_day"].as_i64() == day_of(&row["timestamp"])), "{reader}");
            assert!(read[0].iter().all(|row| row["_month"].as_i64() <= day_of(&row["created_at"])), "{reader}");
            for (table, rows) in tables.iter().zip(read) {
                assert_same(&world.school, table, world.school.now(), rows);
            }
        }
        // Queries of daplake can filter by the partition column.
        let sql =
            "SELECT count(*) AS n, count(DISTINCT _day) AS days FROM canvas_logs.web_logs WHERE _day = CAST(timestamp AS DATE)";
        let counted = query(&world, sql);
        let expected = world.school.expected(&web_logs(), world.school.now()).unwrap().len();
        assert_eq!(counted[0]["n"].as_u64(), Some(expected as u64), "{counted:?}");
        world.daplake(&["verify", "--target", "lake", "--jobs-per-minute", "0"]).assert_code(0);
        sync(&world, &["--resnapshot"]).assert_code(0);
        world.assert_tables("polars", &tables, world.school.now());
    }
    // Plain folders have the same partitions; their readers see the columns of the service, through the folder and through the views.
    let world = World::new(school(&tables)).await;
    for round in 0..2 {
        if round > 0 {
            world.school.advance();
        }
        sync(&world, &["--format", "parquet"]).assert_code(0);
        world.assert_tables("folder", &tables, world.school.now());
        world.assert_tables("views", &tables, world.school.now());
    }
}
