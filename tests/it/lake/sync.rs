//! Syncs without faults: snapshots, increments, schema changes, repeated keys, selections.

use daplake::internals::schema::Nested;
use daplake::ops::{self, OnSnapshotRequired, Outcome, Selection, SyncRequest, Target};
use daplake::{Format, Kind, TableRef};

use crate::support::{World, assert_schemas_are_frozen_on_request, canvas, outcome, school, web_logs};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_tables_of_all_namespaces_are_synced_through_a_history() {
    let world = World::new(daplake::demo::school::SchoolOptions { rows: 120, evolving: true, ..school(&[]) }).await;
    let first = world.sync_all().await;
    assert!(first.tables.len() > 100, "all tables of the catalogue");
    world.assert_all("deltalake", world.school.now());
    for _ in 0..3 {
        world.school.advance();
        world.sync_all().await;
    }
    world.assert_all("deltalake", world.school.now());
    world.assert_all("duckdb", world.school.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_increments_and_one_large_one_give_the_same_table() {
    let tables = [canvas("users"), canvas("submissions"), canvas("enrollments"), web_logs()];
    let steps = World::new(school(&tables)).await;
    let leap = World::new(school(&tables)).await;
    steps.sync_all().await;
    leap.sync_all().await;
    for _ in 0..5 {
        steps.school.advance();
        leap.school.advance();
        steps.sync_all().await;
    }
    leap.sync_all().await;
    let now = steps.school.now();
    assert_eq!(now, leap.school.now());
    steps.assert_tables("deltalake", &tables, now);
    leap.assert_tables("polars", &tables, now);

    let late = World::new(daplake::demo::school::SchoolOptions { commits: 6, ..school(&tables) }).await;
    late.sync_all().await;
    assert_eq!(late.school.now(), now);
    late.assert_tables("duckdb", &tables[..3], now);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_twice_changes_nothing() {
    let world = World::new(school(&[canvas("users"), web_logs()])).await;
    world.sync_all().await;
    let before = world.fingerprint();
    let again = world.sync_all().await;
    assert!(matches!(outcome(&again, &canvas("users")), Outcome::Unchanged { .. }), "{again:?}");
    assert_eq!(world.fingerprint(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schema_changes_are_committed_with_the_rows() {
    let world = World::new(daplake::demo::school::SchoolOptions { evolving: true, rows: 200, ..school(&[]) }).await;
    world.sync_all().await;
    let mut changes = Vec::new();
    for _ in 0..5 {
        world.school.advance();
        for table in world.sync_all().await.tables {
            if let Outcome::Loaded { schema_changes, .. } = table.outcome {
                changes.extend(schema_changes.into_iter().map(|change| format!("{}: {change}", table.table)));
            }
        }
        world.assert_all("deltalake", world.school.now());
    }
    assert!(changes.len() >= 4, "the history has schema changes: {changes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_columns_of_delta_tables_are_frozen_on_request() {
    let world = World::new(daplake::demo::school::SchoolOptions { evolving: true, rows: 30, ..school(&[]) }).await;
    assert_schemas_are_frozen_on_request(&world, || world.request()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_columns_of_parquet_folders_are_frozen_on_request() {
    let world = World::new(daplake::demo::school::SchoolOptions { evolving: true, rows: 30, ..school(&[]) }).await;
    let sink = ops::open_sink(&Target::Parquet(Box::new(Target::Folder(world.path("folders")))), &world.engine()).unwrap();
    assert_schemas_are_frozen_on_request(&world, || SyncRequest { sink: std::sync::Arc::clone(&sink), ..world.request() })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_table_has_its_columns_and_a_bookmark() {
    let table = canvas("rubrics");
    let world = World::new(daplake::demo::school::SchoolOptions {
        table_rows: vec![(table.clone(), 0)],
        ..school(std::slice::from_ref(&table))
    })
    .await;
    world.sync_all().await;
    world.assert_tables("deltalake", std::slice::from_ref(&table), world.school.now());
    let status = world.daplake(&["status", "--target", "lake", "--output", "json"]).assert_code(0);
    let lines = serde_json::from_str::<serde_json::Value>(&status.stdout).unwrap()["tables"].take();
    assert_eq!(lines[0]["table"], "rubrics");
    assert_eq!(lines[0]["rows"], 0);
    assert_eq!(lines[0]["data_as_of"], world.school.now().to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_log_keys_become_one_row_and_a_resnapshot_keeps_old_logs() {
    let table = web_logs();
    let world = World::new(school(std::slice::from_ref(&table))).await;
    world.sync_all().await;
    world.assert_tables("deltalake", std::slice::from_ref(&table), world.school.now());
    world.school.advance();
    let mut request = world.request();
    request.resnapshot = true;
    let report = ops::sync(request).await.unwrap();
    assert!(matches!(outcome(&report, &table), Outcome::Loaded { query: "snapshot", .. }), "{report:?}");
    world.assert_tables("deltalake", std::slice::from_ref(&table), world.school.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nested_columns_can_be_kept_as_json_text() {
    let table = canvas("courses");
    let world = World::new(school(std::slice::from_ref(&table))).await;
    let mut request = world.request();
    request.nested = Nested::Json;
    ops::sync(request).await.unwrap();
    let answer = world
        .daplake(&[
            "query",
            "--target",
            "lake",
            "--output",
            "json",
            "SELECT settings FROM courses WHERE settings IS NOT NULL LIMIT 1",
        ])
        .assert_code(0);
    let row: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    let settings: serde_json::Value = serde_json::from_str(row["settings"].as_str().unwrap()).unwrap();
    assert!(settings.is_object(), "{settings}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_formats_give_the_same_first_table() {
    let tables =
        [canvas("courses"), canvas("assignments"), canvas("late_policies"), TableRef::new("catalog", "products"), web_logs()];
    let world = World::new(school(&tables)).await;
    for format in Format::ALL {
        let other = World::new(school(&tables)).await;
        let mut request = other.request();
        request.format = format;
        let report = ops::sync(request).await.unwrap();
        assert_eq!(crate::support::failures(&report), [""; 0], "{format}");
        other.assert_tables("deltalake", &tables, world.school.now());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_chosen_tables_are_created() {
    let world = World::new(school(&[])).await;
    let mut request = world.request();
    request.selection =
        Selection { namespaces: vec!["canvas".into()], tables: vec!["account*".into()], exclude: vec!["account_users".into()] };
    let report = ops::sync(request).await.unwrap();
    let names: Vec<String> = report.tables.iter().map(|table| table.table.to_string()).collect();
    assert_eq!(names, ["canvas.account_domains", "canvas.accounts"]);
    assert!(!world.lake().join("canvas/account_users").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_simultaneous_syncs_leave_one_correct_table() {
    let table = canvas("users");
    let world = World::new(school(std::slice::from_ref(&table))).await;
    let rounds: u32 = std::env::var("DAPLAKE_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    for _ in 0..rounds {
        let (one, two) = tokio::join!(ops::sync(world.request()), ops::sync(world.request()));
        for report in [one.unwrap(), two.unwrap()] {
            assert_eq!(crate::support::failures(&report), [""; 0], "{report:?}");
        }
        world.assert_tables("deltalake", std::slice::from_ref(&table), world.school.now());
        world.school.advance();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_required_snapshot_is_taken_or_refused_as_configured() {
    use daplake::demo::serve::{Fault, Times};
    let table = canvas("users");
    let world = World::new(school(std::slice::from_ref(&table))).await;
    world.sync_all().await;
    let old = world.school.now();
    world.school.advance();
    for fault in ["snapshot-required", "out-of-range"] {
        world.server.inject(Fault::parse(fault).unwrap(), Times::Always);
        let mut request = world.request();
        request.on_snapshot_required = OnSnapshotRequired::Fail;
        let report = ops::sync(request).await.unwrap();
        let error = report.first_error().expect("refused");
        assert!(matches!(error.kind(), Kind::SnapshotRequired | Kind::OutOfRange), "{error:?}");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("--on-snapshot-required")), "{error:?}");
        world.assert_tables("deltalake", std::slice::from_ref(&table), old);
        world.server.clear_faults();
    }
    world.server.inject(Fault::parse("snapshot-required").unwrap(), Times::Always);
    let report = world.sync_all().await;
    assert!(matches!(outcome(&report, &table), Outcome::Loaded { query: "snapshot", .. }), "{report:?}");
    world.assert_tables("deltalake", std::slice::from_ref(&table), world.school.now());
}
