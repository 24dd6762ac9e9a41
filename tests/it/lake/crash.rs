//! The process is killed at random times and run again until it finishes; the tables equal those of an undisturbed run.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Random, World, canvas, school, web_logs};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_correct_after_kills_at_random_times() {
    let mut random = Random::new();
    let tables = [canvas("users"), canvas("submissions"), canvas("courses"), web_logs()];
    let world = World::new(daplake::demo::school::SchoolOptions { rows: 2000, ..school(&tables) }).await;
    let arguments = ["sync", "--target", "lake", "--namespace", "all", "--jobs-per-minute", "0"];
    let mut kills = 0;
    for round in 0..4 {
        if round > 0 {
            world.school.advance();
        }
        for _ in 0..4 {
            let mut child = world.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            tokio::time::sleep(Duration::from_millis(100 + random.below(1500))).await;
            if child.try_wait().unwrap().is_none() {
                kills += 1;
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        world.daplake(&arguments).assert_code(0);
        world.assert_tables("deltalake", &tables, world.school.now());
    }
    assert!(kills > 0, "at least one run was really killed");
}

/// The newest version of the Delta log in the folder of a table.
fn delta_version(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder.join("_delta_log")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(".json")?.parse().ok()).max().unwrap()
}

/// The Delta version that readers of the Iceberg view see.
fn iceberg_version(folder: &Path) -> u64 {
    let hint = std::fs::read_to_string(folder.join("metadata/version-hint.text")).unwrap();
    let metadata = std::fs::read(folder.join(format!("metadata/v{}.metadata.json", hint.trim()))).unwrap();
    let metadata: Value = serde_json::from_slice(&metadata).unwrap();
    let mut snapshots = metadata["snapshots"].as_array().unwrap().iter();
    let current = snapshots.find(|snapshot| snapshot["snapshot-id"] == metadata["current-snapshot-id"]).unwrap();
    current["summary"]["delta.version"].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_killed_between_the_delta_and_the_iceberg_commit_is_completed_by_the_next() {
    const KILLS: usize = 50;
    let mut random = Random::new();
    let tables = [canvas("submissions")];
    let world = World::new(school(&tables)).await;
    let folder = world.lake().join("canvas/submissions");
    let options = ["--iceberg", "on", "--deletion-vectors", "on", "--jobs-per-minute", "0"];
    let arguments = [&["sync", "--target", "lake"], &options[..]].concat();
    world.daplake(&arguments).assert_code(0);
    let (mut between, mut runs) = (0, 0);
    while between < KILLS {
        runs += 1;
        assert!(runs <= 8 * KILLS, "{between} of {runs} kills were between the two commits");
        world.school.advance();
        let next = folder.join(format!("_delta_log/{:020}.json", delta_version(&folder) + 1));
        let mut child = world.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while !next.exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(100));
        }
        std::thread::sleep(Duration::from_micros(random.below(5000)));
        child.kill().unwrap();
        child.wait().unwrap();
        // Readers of Iceberg see a whole version, the new one or the one before.
        let lag = delta_version(&folder) - iceberg_version(&folder);
        assert!(lag <= 1, "{lag} versions are missing");
        between += usize::from(lag == 1);
        // The next run finds no changes, or loads some.
        if random.below(2) == 0 {
            world.school.advance();
        }
        world.daplake(&arguments).assert_code(0);
        assert_eq!(iceberg_version(&folder), delta_version(&folder), "after {runs} runs");
        if lag == 1 && between.is_multiple_of(10) {
            for reader in ["deltalake", "pyiceberg", "duckdb-iceberg"] {
                world.assert_tables(reader, &tables, world.school.now());
            }
        }
    }
    // Every snapshot equals its Delta version.
    let Ok(python) = std::env::var("DAPLAKE_TEST_ICEBERG") else {
        eprintln!("not run: needs DAPLAKE_TEST_ICEBERG");
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/iceberg.py");
    let output = Command::new(python).arg(script).arg(&folder).output().unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
