//! Maintenance of lake tables through the program: deletion vectors and other readers, `optimize`, `vacuum`, `history`, older versions.

use serde_json::Value;

use crate::support::{World, canvas, school, web_logs};

const ALWAYS: [&str; 6] = ["sync", "--target", "lake", "--namespace", "all", "--jobs-per-minute"];

fn sync(world: &World, more: &[&str]) {
    let arguments: Vec<&str> = ALWAYS.iter().copied().chain(["0"]).chain(more.iter().copied()).collect();
    world.daplake(&arguments).assert_code(0);
}

fn json(world: &World, arguments: &[&str]) -> Value {
    serde_json::from_str(&world.daplake(arguments).assert_code(0).stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_rows_are_hidden_from_every_reader() {
    let tables = [canvas("users"), canvas("submissions"), canvas("enrollments"), web_logs()];
    let world = World::new(school(&tables)).await;
    for _ in 0..4 {
        sync(&world, &["--deletion-vectors", "on", "--compact-after", "0"]);
        world.school.advance();
    }
    sync(&world, &["--deletion-vectors", "on", "--compact-after", "0"]);
    let status = json(&world, &["status", "--target", "lake", "--output", "json"]);
    for line in status["tables"].as_array().unwrap() {
        assert_eq!(line["protocol"], "3/7: deletionVectors", "{line}");
    }
    let deleted_by_vectors: u64 = tables
        .iter()
        .flat_map(|table| {
            let history = json(&world, &["history", "--target", "lake", "--table", &table.to_string(), "--output", "json"]);
            history.as_array().unwrap().clone()
        })
        .filter_map(|commit| commit["files_marked"].as_u64())
        .sum();
    assert!(deleted_by_vectors >= 4, "{deleted_by_vectors}");
    for reader in ["deltalake", "polars"] {
        world.assert_tables(reader, &tables, world.school.now());
    }
    for table in &tables {
        let sql = format!("SELECT count(*) AS n FROM {table}");
        let run = world.daplake(&["query", "--target", "lake", &sql, "--output", "csv"]).assert_code(0);
        assert_eq!(run.stdout, format!("n\n{}\n", world.school.expected(table, world.school.now()).unwrap().len()));
    }

    // After an optimize even a reader of single files sees the correct rows, because no deletion vector is left.
    let done = json(&world, &["optimize", "--target", "lake", "--output", "json"]);
    let purged: u64 = done.as_array().unwrap().iter().map(|line| line["done"]["rows_purged"].as_u64().unwrap()).sum();
    assert!(purged > 0);
    for reader in ["deltalake", "polars"] {
        world.assert_tables(reader, &tables, world.school.now());
    }
    sync(&world, &["--deletion-vectors", "off"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_versions_can_be_queried_and_listed() {
    let world = World::new(school(&[canvas("users")])).await;
    let begin = world.school.now();
    sync(&world, &[]);
    for _ in 0..2 {
        world.school.advance();
        sync(&world, &[]);
    }
    let count = |at: &[&str]| {
        let mut arguments = vec!["query", "--target", "lake", "SELECT count(*) AS n FROM users", "--output", "csv"];
        arguments.extend(at);
        world.daplake(&arguments).assert_code(0).stdout.lines().nth(1).unwrap().parse::<usize>().unwrap()
    };
    let expected = |at| world.school.expected(&canvas("users"), at).unwrap().len();
    assert_eq!(count(&["--at", "0"]), expected(begin));
    assert_eq!(count(&[]), expected(world.school.now()));
    assert_eq!(count(&["--at", "9999-01-01T00:00:00Z"]), expected(world.school.now()));
    let query = ["query", "--target", "lake", "SELECT 1 FROM users", "--at"];
    for (at, words) in
        [("7", "no such version"), ("1999-01-01T00:00:00Z", "no version that old"), ("soon", "neither a version nor a time")]
    {
        let arguments: Vec<&str> = query.iter().copied().chain([at]).collect();
        let run = world.daplake(&arguments);
        assert_ne!(run.code, Some(0));
        run.assert_says(&[words]);
    }
    let text = world.daplake(&["history", "--target", "lake", "--table", "users"]).assert_code(0).stdout;
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.contains("MERGE") && text.contains("WRITE"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vacuum_keeps_recent_files_and_names_its_limits() {
    let world = World::new(school(&[canvas("users"), canvas("accounts")])).await;
    sync(&world, &["--deletion-vectors", "on", "--compact-after", "0"]);
    world.school.advance();
    sync(&world, &["--deletion-vectors", "on", "--compact-after", "0"]);
    let before = world.fingerprint();
    let run = world.daplake(&["vacuum", "--target", "lake", "--dry-run"]).assert_code(0);
    assert_eq!(run.stdout, "Nothing to do in 2 tables.\n", "tables without a change are not listed");
    world.daplake(&["vacuum", "--target", "lake"]).assert_code(0);
    assert_eq!(world.fingerprint(), before);
    // Reported once, not for each table.
    let run = world.daplake(&["vacuum", "--target", "lake", "--retention", "1h"]).assert_code(2).assert_says(&["7d"]);
    assert_eq!(run.stderr.matches("7d").count(), 1, "{run:?}");
    world
        .daplake(&["optimize", "--target", "lake", "--table", "user"])
        .assert_says(&["The target has no such table", "did you mean `users`?"]);
    let run = world.daplake(&["optimize", "--target", "lake", "--sort-by-key"]).assert_code(0);
    assert!(run.stdout.contains("canvas.users") && run.stdout.contains("of 2 tables: "), "{run:?}");
    world.assert_all("deltalake", world.school.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verification_names_the_keys_that_differ() {
    let tables = [canvas("users"), canvas("enrollments"), web_logs()];
    let world = World::new(school(&tables)).await;
    sync(&world, &["--deletion-vectors", "on"]);
    world.school.advance();
    sync(&world, &["--deletion-vectors", "on"]);
    let verify = |more: &[&str]| {
        let arguments: Vec<&str> =
            ["verify", "--target", "lake", "--jobs-per-minute", "0"].iter().chain(more).copied().collect();
        world.daplake(&arguments)
    };
    verify(&[]).assert_code(0);
    // Changes since the bookmark are not differences.
    world.school.advance();
    verify(&[]).assert_code(0);
    sync(&world, &[]);

    // Another program changes the table.
    let Ok(python) = std::env::var("DAPLAKE_TEST_PYTHON") else {
        eprintln!("not run: needs DAPLAKE_TEST_PYTHON");
        return;
    };
    sync(&world, &["--deletion-vectors", "off", "--resnapshot", "--table", "users"]);
    let script = "
import sys, deltalake
table = deltalake.DeltaTable(sys.argv[1])
keys = sorted(table.to_pyarrow_table(columns=['id']).column('id').to_pylist())
table.delete(f'id = {keys[0]}')
table = deltalake.DeltaTable(sys.argv[1])
table.update(updates={'name': \"'someone else'\"}, predicate=f'id = {keys[1]}')
print(keys[0], keys[1])
";
    // A target that never had deletion vectors, because the other writer refuses them.
    let fresh = ["sync", "--target", "other", "--jobs-per-minute", "0", "--table", "users", "--deletion-vectors", "off"];
    world.daplake(&fresh).assert_code(0);
    let folder = world.path("other/canvas/users");
    let output = std::process::Command::new(python).args(["-c", script]).arg(&folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let keys = String::from_utf8(output.stdout).unwrap();
    let mut keys = keys.split_whitespace();
    let arguments = ["verify", "--target", "other", "--jobs-per-minute", "0"];
    let run = world.daplake(&arguments).assert_code(5);
    let missing = format!("key {} is missing", keys.next().unwrap());
    let different = format!("key {} is different", keys.next().unwrap());
    run.assert_says(&[&missing, &different, "1 of 1 tables differ", "--resnapshot"]);
}

/// Runs a script over a table with the Python of the other readers; `None` where there is none.
fn python(world: &World, table: &str, script: &str) -> Option<String> {
    let Ok(python) = std::env::var("DAPLAKE_TEST_PYTHON") else {
        eprintln!("not run: needs DAPLAKE_TEST_PYTHON");
        return None;
    };
    let output =
        std::process::Command::new(python).args(["-c", script]).arg(world.lake().join("canvas").join(table)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_another_program_restored_fails_until_it_is_loaded_again() {
    let world = World::new(school(&[canvas("users"), canvas("courses")])).await;
    let plain = ["--deletion-vectors", "off"];
    sync(&world, &plain);
    world.school.advance();
    sync(&world, &plain);
    let optimized = "import sys, deltalake; deltalake.DeltaTable(sys.argv[1]).optimize.compact()";
    let Some(_) = python(&world, "users", optimized) else { return };
    world.school.advance();
    sync(&world, &plain);
    python(&world, "users", "import sys, deltalake; deltalake.DeltaTable(sys.argv[1]).restore(0)");
    world.school.advance();
    let arguments: Vec<&str> = ALWAYS.iter().copied().chain(["0"]).chain(plain).collect();
    let before = world.fingerprint();
    let check = world.daplake(&["check", "--target", "lake"]).assert_code(5);
    check.assert_says(&["Another program changed rows since version", "RESTORE", "--resnapshot"]);
    world.daplake(&["check", "--target", "lake", "--foreign-changes", "warn"]).assert_code(0);
    let run = world.daplake(&arguments).assert_code(5);
    run.assert_says(&["Another program changed rows since version", "RESTORE", "--resnapshot", "--foreign-changes warn"]);
    let same = |path: &std::path::Path| path.to_string_lossy().contains("canvas/users");
    let users = |files: std::collections::BTreeMap<std::path::PathBuf, _>| {
        files.into_iter().filter(|(path, _)| same(path)).collect::<Vec<_>>()
    };
    assert_eq!(users(world.fingerprint()), users(before), "the table is unchanged");
    let run = world.daplake(&[&arguments[..], &["--foreign-changes", "warn"]].concat()).assert_code(0);
    assert!(format!("{}{}", run.stdout, run.stderr).contains("Another program changed rows"), "{run:?}");
    sync(&world, &["--resnapshot"]);
    world.assert_all("deltalake", world.school.now());
    world.school.advance();
    sync(&world, &plain);
    world.assert_all("deltalake", world.school.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicate_rows_are_found_by_verify() {
    let world = World::new(school(&[canvas("users")])).await;
    sync(&world, &["--deletion-vectors", "off"]);
    let append = "
import sys, deltalake
table = deltalake.DeltaTable(sys.argv[1])
deltalake.write_deltalake(table, table.to_pyarrow_table().slice(0, 2), mode='append')
";
    let Some(_) = python(&world, "users", append) else { return };
    let run = world.daplake(&["verify", "--target", "lake", "--jobs-per-minute", "0", "--output", "json"]);
    assert_ne!(run.code, Some(0), "{run:?}");
    let found: Value = serde_json::from_str(&run.stdout).unwrap();
    let done = &found[0]["done"];
    assert_eq!((&done["missing"], &done["surplus"], &done["different"]), (&0.into(), &2.into(), &0.into()), "{found}");
}
