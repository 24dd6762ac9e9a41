//! A full disk: a clear error, unchanged tables, and a successful next run. Needs the privilege to mount a small file system in memory;
//! without it, the tests report that they were not run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use daplake::TableRef;
use daplake::demo::school::SchoolOptions;

use crate::support::{World, canvas, school, web_logs};

/// A file system of a few KiB, unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(path: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let option = format!("size={size},mode=700");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &option, "tmpfs"]).arg(path).stderr(Stdio::null()).status();
        if !mount.is_ok_and(|status| status.success()) {
            eprintln!("not run: no privilege to mount a small file system");
            return None;
        }
        Some(Self(path.to_owned()))
    }

    fn grow(&self, size: &str) {
        let option = format!("remount,size={size}");
        assert!(Command::new("mount").args(["-o", &option]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a process of the test may still have a file open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

const TABLES: [&str; 2] = ["accounts", "submissions"];

fn both() -> Vec<TableRef> {
    TABLES.iter().map(|name| canvas(name)).collect()
}

async fn world() -> World {
    World::new(SchoolOptions { rows: 10_000, ..school(&both()) }).await
}

fn sync<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["sync", "--target", "lake", "--jobs-per-minute", "0"];
    arguments.extend(more);
    arguments
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_the_lake_is_full() {
    let world = world().await;
    let Some(small) = Small::mount(&world.lake(), "128k") else { return };
    world.daplake(&sync(&["--table", "accounts"])).assert_code(0);
    world.daplake(&sync(&["--table", "submissions"])).assert_code(5).assert_says(&[
        "canvas.submissions",
        "No space left",
        "hint:",
    ]);
    world.assert_tables("deltalake", &[canvas("accounts")], world.school.now());
    let log = world.lake().join("canvas/submissions/_delta_log");
    assert!(log.read_dir().map_or(true, |mut entries| entries.next().is_none()), "there is no commit");
    small.grow("64m");
    world.daplake(&sync(&[])).assert_code(0);
    world.assert_tables("deltalake", &both(), world.school.now());
    // The same for an increment: the table keeps its bookmark and its rows.
    let before = world.school.now();
    world.school.advance();
    let used = String::from_utf8(Command::new("du").args(["-sk"]).arg(world.lake()).output().unwrap().stdout).unwrap();
    let used: u64 = used.split_whitespace().next().unwrap().parse().unwrap();
    small.grow(&format!("{}k", used + 8));
    world.daplake(&sync(&["--table", "submissions"])).assert_code(5).assert_says(&["No space left", "hint:"]);
    world.assert_tables("deltalake", &[canvas("submissions")], before);
    small.grow("64m");
    world.daplake(&sync(&[])).assert_code(0);
    world.assert_tables("deltalake", &both(), world.school.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_spilled_rows_is_full() {
    // `web_logs` can repeat keys, so all of its rows are spilled until the keys are known.
    let world = World::new(SchoolOptions { rows: 4_000, ..school(&[web_logs()]) }).await;
    let Some(small) = Small::mount(&world.path("small"), "64k") else { return };
    let more = ["--namespace", "canvas_logs", "--temp-dir", "small", "--memory-limit", "8MiB"];
    world.daplake(&sync(&more)).assert_code(5).assert_says(&["canvas_logs.web_logs", "No space left", "--temp-dir"]);
    assert!(!world.lake().join("canvas_logs/web_logs/_delta_log").exists());
    small.grow("256m");
    world.daplake(&sync(&more)).assert_code(0);
    world.assert_tables("deltalake", &[web_logs()], world.school.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_staged_objects_is_full() {
    let world = World::with(
        SchoolOptions { rows: 10_000, ..school(&both()) },
        daplake::demo::serve::ServeOptions { rows_per_object: 50_000, ..crate::support::serving() },
    )
    .await;
    let Some(small) = Small::mount(&world.path("small"), "64k") else { return };
    let more = ["--temp-dir", "small", "--download-format", "parquet", "--table", "submissions"];
    world.daplake(&sync(&more)).assert_code(5).assert_says(&["canvas.submissions", "No space left", "free some space"]);
    assert!(!world.lake().join("canvas/submissions/_delta_log").exists());
    small.grow("256m");
    world.daplake(&sync(&more)).assert_code(0);
    world.assert_tables("deltalake", &[canvas("submissions")], world.school.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_the_journal_is_full() {
    let world = world().await;
    let Some(_small) = Small::mount(&world.path("state"), "8k") else { return };
    // Fills the rest.
    let _ = std::fs::write(world.path("state/filler"), vec![0; 64 << 10]);
    let run = world.daplake(&sync(&[])).assert_code(0).assert_says(&["journal"]);
    assert!(run.stdout.contains("2 loaded"), "a journal that cannot be written fails no table: {run:?}");
    world.assert_tables("deltalake", &both(), world.school.now());
}

/// Files below a folder that are neither empty nor of the log.
fn data_files(folder: &Path) -> usize {
    crate::support::files_below(folder)
        .iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "parquet"))
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_parquet_folders_is_full() {
    let world = world().await;
    let Some(small) = Small::mount(&world.lake(), "128k") else { return };
    let parquet = ["--format", "parquet", "--table", "submissions"];
    for _ in 0..2 {
        world.daplake(&sync(&parquet)).assert_code(5).assert_says(&["canvas.submissions", "No space left", "hint: free space"]);
        assert_eq!(data_files(&world.lake()), 0, "a failed load leaves no file");
    }
    small.grow("64m");
    world.daplake(&sync(&parquet)).assert_code(0);
    world.assert_tables("folder", &[canvas("submissions")], world.school.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_downloads_is_full() {
    let world = world().await;
    let Some(small) = Small::mount(&world.path("out"), "64k") else { return };
    let snapshot = [
        "--non-interactive",
        "snapshot",
        "--namespace",
        "canvas",
        "--table",
        "submissions",
        "--format",
        "jsonl",
        "--output-directory",
        "out",
        "--jobs-per-minute",
        "0",
    ];
    world.daplake(&snapshot).assert_code(5).assert_says(&["The disk is full", "free some space"]);
    let is_complete = |entry: &std::path::PathBuf| entry.file_name().unwrap().to_string_lossy().starts_with("job_");
    let complete =
        || std::fs::read_dir(world.path("out")).unwrap().map(|entry| entry.unwrap().path()).filter(is_complete).count();
    assert_eq!(complete(), 0, "an incomplete download has no final name");
    small.grow("64m");
    world.daplake(&snapshot).assert_code(0);
    assert_eq!(complete(), 1);
    assert_eq!(world.server.counters().jobs_started(), 1, "the second run resumes the first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_results_is_full() {
    let world = world().await;
    world.daplake(&sync(&[])).assert_code(0);
    let Some(_small) = Small::mount(&world.path("out"), "16k") else { return };
    for name in ["rows.csv", "rows.jsonl", "rows.json", "rows.parquet", "rows.arrow"] {
        let file = format!("out/{name}");
        let query = ["query", "--target", "lake", "--output-file", &file, "SELECT * FROM canvas.submissions"];
        let run = world.daplake(&query).assert_code(5).assert_says(&["No space left"]);
        assert!(!run.stderr.contains("nested columns"), "{run:?}");
        assert_eq!(std::fs::read_dir(world.path("out")).unwrap().count(), 0, "no part of the result is left");
    }
}
