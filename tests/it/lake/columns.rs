//! Choice of columns: dropped columns are absent everywhere, hashes join across tables, and no table mixes values and hashes.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{Run, World, canvas, read_tables, school};

const KEY: &str = "a-key-for-tests-0123456789";

fn sync(world: &World, key: &str, more: &[&str]) -> Run {
    let mut command = world.command(&["sync", "--target", "lake", "--namespace", "canvas", "--jobs-per-minute", "0"]);
    Run::of(command.args(more).env("DAPLAKE_HASH_KEY", key).output().unwrap())
}

fn query(world: &World, sql: &str) -> Vec<Value> {
    let run = world.daplake(&["query", "--target", "lake", "--output", "json", sql]).assert_code(0);
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The number of rows and of people in a join over three hashed keys.
fn joined(world: &World) -> Vec<Value> {
    query(
        world,
        "SELECT count(*) AS n, count(DISTINCT u.id) AS people FROM users u JOIN enrollments e ON e.user_id = u.id \
         JOIN pseudonyms p ON p.user_id = u.id",
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hashed_keys_join_and_dropped_columns_are_absent() {
    let tables = [canvas("users"), canvas("enrollments"), canvas("pseudonyms")];
    let plain = World::new(school(&tables)).await;
    let world = World::new(school(&tables)).await;
    let rules = [
        "--hash-column",
        "users.id,*.user_id",
        "--drop-column",
        "users.*name",
        "--column",
        "pseudonyms.user_id,pseudonyms.unique_id",
        "--hash-column",
        "canvas.pseudonyms.unique_id",
    ];
    for round in 0..3 {
        if round > 0 {
            plain.school.advance();
            world.school.advance();
        }
        plain.sync_all().await;
        sync(&world, KEY, &rules).assert_code(0);
        let expected = joined(&plain);
        assert!(expected[0]["n"].as_i64().unwrap() > 5, "{expected:?}");
        assert_eq!(joined(&world), expected, "round {round}");
    }

    let users = query(&world, "SELECT * FROM users LIMIT 5");
    for user in &users {
        assert!(user.get("sortable_name").is_none() && user.get("short_name").is_none(), "{user}");
        assert_eq!(user["id"].as_str().unwrap().len(), 64);
    }
    let columns: BTreeMap<String, Value> =
        serde_json::from_value(query(&world, "SELECT * FROM pseudonyms WHERE unique_id IS NOT NULL LIMIT 1").remove(0))
            .unwrap();
    assert_eq!(columns.keys().collect::<Vec<_>>(), ["id", "unique_id", "user_id"]);
    assert_eq!(columns["unique_id"].as_str().unwrap().len(), 64);

    // Other readers see the hashes.
    if let Some(mut read) = read_tables("polars", &[world.lake().join("canvas/users")]) {
        let of_plain: Vec<Value> = query(&plain, "SELECT id FROM users");
        let hashes: Vec<Value> = read.remove(0);
        assert_eq!(hashes.len(), of_plain.len());
        assert!(hashes.iter().all(|row| row["id"].as_str().is_some_and(|id| id.len() == 64)));
    }

    // `verify` uses the stored choice of columns and needs the key.
    let verify = |key: &str| {
        let mut command = world.command(&["verify", "--target", "lake", "--jobs-per-minute", "0"]);
        Run::of(command.env("DAPLAKE_HASH_KEY", key).output().unwrap())
    };
    verify(KEY).assert_code(0);
    assert_ne!(verify("another-key-0123456789").assert_says(&["hashes of another key"]).code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_choice_of_columns_is_applied_or_refused_with_a_hint() {
    let tables = [canvas("users")];
    let world = World::new(school(&tables)).await;
    let rules = ["--hash-column", "users.sortable_name", "--drop-column", "users.short_name"];
    let run = sync(&world, "", &rules);
    assert_eq!(run.code, Some(5), "no key: {run:?}");
    sync(&world, "short", &rules).assert_code(5).assert_says(&["shorter than 16 bytes", "openssl rand"]);
    sync(&world, KEY, &["--drop-column", "users.shrt_name"]).assert_code(5).assert_says(&["does not have", "shrt_name"]);
    sync(&world, KEY, &["--drop-column", "users.id"]).assert_code(5).assert_says(&["key column"]);
    sync(&world, KEY, &["--drop-column", "short_name"]).assert_code(5).assert_says(&["hint:", "users.email"]);
    assert!(!world.lake().join("canvas/users/_delta_log").exists());
    assert_eq!(world.server.counters().job_starts.len(), 0, "no job is started for an impossible choice");
    sync(&world, KEY, &rules).assert_code(0);

    world.school.advance();
    let before = world.fingerprint();
    let jobs = world.server.counters().job_starts.len();
    for (key, rules, words) in [
        ("another-key-0123456789", &rules[..], "hashes of another key"),
        (KEY, &rules[2..], "is no longer hashed"),
        (KEY, &["--hash-column", "users.*_name,users.workflow_state", "--drop-column", "users.short_name"][..], "from now on"),
    ] {
        let run = sync(&world, key, rules).assert_code(5).assert_says(&[words, "--resnapshot"]);
        assert!(!run.stderr.contains(key), "the key is not printed");
    }
    assert_eq!(world.fingerprint(), before, "nothing was changed");
    assert_eq!(world.server.counters().job_starts.len(), jobs, "and no job started");

    // A column that is loaded again is null in old rows, and the report says how to fill it.
    let report = world.path("report.json");
    sync(&world, KEY, &["--hash-column", "users.sortable_name", "--report", report.to_str().unwrap()]).assert_code(0);
    let text = std::fs::read_to_string(&report).unwrap();
    assert!(text.contains("no longer left out") && text.contains("--resnapshot"), "{text}");
    let count = |sql: &str| query(&world, sql)[0]["n"].as_i64().unwrap();
    assert!(count("SELECT count(*) AS n FROM users WHERE short_name IS NULL") > 0);
    sync(&world, "another-key-0123456789", &["--hash-column", "users.sortable_name", "--resnapshot"]).assert_code(0);
    assert_eq!(count("SELECT count(*) AS n FROM users WHERE short_name IS NULL AND sortable_name IS NOT NULL"), 0);
    sync(&world, KEY, &["--resnapshot"]).assert_code(0);
    world.assert_tables("deltalake", &tables, world.school.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_rows_do_not_reveal_dropped_columns() {
    use daplake::demo::serve::{Fault, Times};
    let world = World::new(school(&[canvas("users")])).await;
    world.server.inject(Fault::parse("malformed-line").unwrap(), Times::Always);
    let bad = world.path("bad.jsonl");
    let arguments = ["--bad-rows", bad.to_str().unwrap()];
    sync(&world, KEY, &[&arguments[..], &["--drop-column", "users.*name"]].concat()).assert_code(0);
    let text = std::fs::read_to_string(&bad).unwrap();
    let line: Value = serde_json::from_str(text.lines().next().expect("a row was set aside")).unwrap();
    assert!(line["reason"].is_string() && line.get("row").is_none(), "{line}");
}
