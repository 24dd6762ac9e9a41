//! Plain Parquet folders through the program, read by DuckDB while syncs run.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{World, canvas, school};

const SYNC: [&str; 9] = ["sync", "--target", "lake", "--format", "parquet", "--namespace", "canvas", "--jobs-per-minute", "0"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duckdb_never_reads_a_mixture_of_versions() {
    let required = std::env::var("DAPLAKE_TEST_REQUIRE").is_ok_and(|list| list.split(',').any(|word| word == "python"));
    let Ok(python) = std::env::var("DAPLAKE_TEST_PYTHON") else {
        assert!(!required, "DAPLAKE_TEST_PYTHON is not set");
        eprintln!("not run: DuckDB during syncs (set DAPLAKE_TEST_PYTHON, or use tests/run)");
        return;
    };
    let world = World::new(school(&[canvas("users"), canvas("submissions")])).await;
    let watch = |stop: Option<&Path>| {
        let mut command = Command::new(&python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/watch.py"));
        command.arg(world.lake()).args(["canvas", "users", "id"]).args(stop);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let parse = |output: std::process::Output| -> Value {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let once = || parse(watch(None).wait_with_output().unwrap())["files"].as_object().unwrap().keys().next().unwrap().clone();

    world.daplake(&SYNC).assert_code(0);
    let mut versions = vec![once()];
    let stop = world.path("stop");
    let watching = watch(Some(&stop));
    for _ in 0..8 {
        world.school.advance();
        world.daplake(&SYNC).assert_code(0);
        versions.push(once());
    }
    std::fs::write(&stop, "").unwrap();
    let seen = parse(watching.wait_with_output().unwrap());
    for kind in ["files", "views"] {
        let found = seen[kind].as_object().unwrap();
        assert!(found.len() > 1, "more than one version was read: {seen}");
        assert!(found.keys().all(|version| versions.contains(version)), "{versions:?} {seen}");
    }
    let (reads, missed) = (seen["reads"].as_u64().unwrap(), seen["missed"].as_u64().unwrap());
    assert!(missed * 2 < reads, "most reads succeed: {seen}");
    versions.dedup();
    assert!(versions.len() > 4, "the versions differ");

    // The folder has the rows of the table.
    let count = world.daplake(&[
        "query",
        "--target",
        "lake",
        "--format",
        "parquet",
        "--output",
        "csv",
        "SELECT count(*) AS n FROM users",
    ]);
    let users = world.school.expected(&canvas("users"), world.school.now()).unwrap().len();
    assert_eq!(count.assert_code(0).stdout, format!("n\n{users}\n"));
    let last = versions.last().unwrap();
    assert!(last.starts_with(&format!("({users}, {users}, ")), "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_are_correct_after_kills_at_random_times() {
    let world = World::new(school(&[canvas("users"), canvas("courses")])).await;
    let mut random = crate::support::Random::new();
    for _ in 0..4 {
        for _ in 0..2 {
            let mut child = world.command(&SYNC).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(50 + random.below(700))).await;
            child.kill().unwrap();
            child.wait().unwrap();
        }
        world.daplake(&SYNC).assert_code(0);
        for table in ["users", "courses"] {
            let ledger: Value =
                serde_json::from_slice(&std::fs::read(world.lake().join("canvas").join(table).join("_daplake.json")).unwrap())
                    .unwrap();
            assert_eq!(ledger["data_as_of"], world.school.now().to_string());
        }
        world.school.advance();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_format_of_a_target_is_recognised() {
    let world = World::new(school(&[canvas("users"), canvas("courses")])).await;
    let run = |arguments: &[&str]| world.daplake(arguments);
    let target = ["--target", "lake"];
    let service = ["--target", "lake", "--jobs-per-minute", "0"];
    run(&[&["sync", "--table", "users", "--format", "parquet"][..], &service].concat()).assert_code(0);
    world.school.advance();
    // Without the option: the same table and a new one.
    run(&[&["sync", "--table", "users,courses"][..], &service].concat()).assert_code(0);
    for table in ["users", "courses"] {
        let folder = world.lake().join("canvas").join(table);
        assert!(folder.join("_daplake.json").exists() && !folder.join("_delta_log").exists(), "{table}");
    }
    let status = run(&[&["status"][..], &target].concat()).assert_code(0).stdout;
    assert!(status.contains("canvas.users") && status.contains("canvas.courses"), "{status}");
    let count = run(&[&["query", "--output", "csv", "SELECT count(*) AS n FROM users"][..], &target].concat()).assert_code(0);
    assert_eq!(count.stdout, format!("n\n{}\n", world.school.expected(&canvas("users"), world.school.now()).unwrap().len()));
    run(&[&["verify"][..], &service].concat()).assert_code(0);
    run(&[&["optimize"][..], &target].concat()).assert_code(0);
    run(&[&["vacuum"][..], &target].concat()).assert_code(0);
    let history = run(&[&["history", "--table", "users"][..], &target].concat()).assert_code(0).stdout;
    assert!(history.contains("MERGE"), "{history}");
    // A contradicting option is refused, and nothing is changed.
    let before = world.fingerprint();
    for command in [&["status"][..], &["query", "SELECT 1 FROM users"], &["sync", "--jobs-per-minute", "0"]] {
        let refused = run(&[command, &target, &["--format", "delta"]].concat());
        assert_ne!(refused.code, Some(0), "{refused:?}");
        refused.assert_says(&["--format", "folders of Parquet files"]);
    }
    assert_eq!(world.fingerprint(), before);

    // The same the other way round.
    run(&["sync", "--table", "users", "--target", "delta", "--jobs-per-minute", "0"]).assert_code(0);
    let refused = run(&["sync", "--target", "delta", "--format", "parquet", "--jobs-per-minute", "0"]);
    refused.assert_says(&["--format", "Delta tables"]);
    run(&["sync", "--table", "courses", "--target", "delta", "--format", "delta", "--jobs-per-minute", "0"]).assert_code(0);
    assert!(world.path("delta/canvas/courses/_delta_log").exists());
}
