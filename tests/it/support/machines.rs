//! Two machines that keep one target up to date without knowing of each other: each has a state folder of its own.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Random, Run, World};

/// Most milliseconds between two commits of the service. Some of them come while both machines load the changes before.
const COMMIT_PAUSE: u64 = 2500;

/// What the runs of both machines did.
#[derive(Debug, Default)]
pub struct Figures {
    /// Runs of both machines.
    pub runs: usize,
    /// Commits of the service.
    pub commits: usize,
    /// Tables that were loaded, over all runs.
    pub loaded: usize,
    /// Tables without newer data.
    pub unchanged: usize,
    /// Tables that the other machine had brought up to date during the load.
    pub by_another_run: usize,
    /// Loads that continued from the bookmark of the other machine.
    pub continued: usize,
}

/// Runs `sync` from two machines every few seconds while the service commits changes, for `DAPLAKE_TEST_SECONDS` or 20 s. Every run must
/// succeed and print no warning. `command` makes the command line of a sync.
pub async fn sync_from_two_machines(world: &World, command: impl Fn() -> Command) -> Figures {
    let seconds = std::env::var("DAPLAKE_TEST_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let end = Instant::now() + Duration::from_secs(seconds);
    let committing = async {
        let (mut commits, mut random) = (0, Random::new());
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(random.below(COMMIT_PAUSE))).await;
            world.school.advance();
            commits += 1;
        }
        commits
    };
    let machine = async |name: &str| {
        let mut figures = Figures::default();
        let mut random = Random::new();
        while Instant::now() < end {
            let (report, log) = (world.path(&format!("{name}.json")), world.path(&format!("{name}.log")));
            let _ = std::fs::remove_file(&log);
            let mut sync = command();
            sync.env("DAPLAKE_STATE_DIR", world.path(name)).arg("--report").arg(&report).arg("--logfile").arg(&log);
            let child = sync.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
            let log = std::fs::read_to_string(log).unwrap();
            let run = Run::of(output);
            assert!(run.code == Some(0) && !log.contains("WARN") && !log.contains("ERROR"), "{name}: {run:?}\n{log}");
            figures.add(&serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap(), &log);
            tokio::time::sleep(Duration::from_millis(random.below(2000))).await;
        }
        figures
    };
    let (commits, one, other) = tokio::join!(committing, machine("one"), machine("other"));
    let figures = Figures {
        runs: one.runs + other.runs,
        commits,
        loaded: one.loaded + other.loaded,
        unchanged: one.unchanged + other.unchanged,
        by_another_run: one.by_another_run + other.by_another_run,
        continued: one.continued + other.continued,
    };
    eprintln!("two machines, {seconds} s: {figures:?}");
    figures
}

impl Figures {
    fn add(&mut self, report: &Value, log: &str) {
        self.runs += 1;
        for table in report["tables"].as_array().unwrap() {
            match (table["outcome"].as_str().unwrap(), table["by_another_run"].as_bool()) {
                ("loaded", None) => self.loaded += 1,
                ("unchanged", None) => self.unchanged += 1,
                ("unchanged", Some(true)) => self.by_another_run += 1,
                other => panic!("unexpected outcome {other:?}: {table}"),
            }
        }
        self.continued += log.matches("continuing from its bookmark").count();
    }
}
