//! Syncs into an object store, through the program and over HTTP at both ends.

use std::process::{Command, Stdio};
use std::time::Duration;

use daplake::demo::school::SchoolOptions;
use daplake::{TableRef, Timestamp};
use serde_json::Value;

use crate::support::s3::{Fault, S3Server, SESSION_TOKEN, Seen};
use crate::support::{Random, Run, World, canvas, school, web_logs};

const PREFIX: &str = "lakes/ours";

struct Remote {
    world: World,
    server: S3Server,
}

impl Remote {
    async fn new(school: SchoolOptions) -> Self {
        Self { world: World::new(school).await, server: S3Server::start().await }
    }

    fn command(&self, verb: &str, arguments: &[&str]) -> Command {
        let target = self.server.url(PREFIX);
        let mut command = self.world.command(&[verb, "--target", &target, "--store-option", "max_retries=4"]);
        command.args(arguments).envs(self.server.variables());
        command
    }

    fn run(&self, verb: &str, arguments: &[&str]) -> Run {
        Run::of(self.command(verb, arguments).output().unwrap())
    }

    fn sync(&self) -> Run {
        self.run("sync", &SYNC)
    }

    /// The server keeps the bucket as a folder, which other readers can read.
    fn assert_tables(&self, tables: &[TableRef], at: Timestamp) {
        self.world.assert_tables_in(&self.server.bucket().join(PREFIX), "deltalake", tables, at);
    }
}

const SYNC: [&str; 4] = ["--namespace", "all", "--jobs-per-minute", "0"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_may_have_blanks_and_percent_signs() {
    let remote = Remote::new(school(&[canvas("users")])).await;
    let target = remote.server.url("odd%20name/a%2520b");
    let run = |arguments: &[&str]| {
        let mut command = remote.world.command(&[arguments, &["--target", &target]].concat());
        Run::of(command.envs(remote.server.variables()).output().unwrap()).assert_code(0)
    };
    for _ in 0..3 {
        run(&["sync", "--jobs-per-minute", "0"]).assert_says(&["1 loaded"]);
        let rows = remote.world.school.expected(&canvas("users"), remote.world.school.now()).unwrap().len();
        let counted = run(&["query", "--output", "csv", "SELECT count(*) AS n FROM users WHERE id IS NOT NULL"]);
        assert_eq!(counted.stdout, format!("n\n{rows}\n"));
        remote.world.school.advance();
    }
    run(&["status"]).assert_says(&["canvas.users"]);
    assert!(remote.server.bucket().join("odd name/a%20b/canvas/users/_delta_log").is_dir());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_is_synced_into_an_object_store() {
    let tables = [canvas("users"), canvas("submissions"), canvas("courses"), web_logs()];
    let remote = Remote::new(school(&tables)).await;
    for round in 0..4 {
        if round > 0 {
            remote.world.school.advance();
        }
        // Each round has a temporary fault of its own.
        match round {
            1 => remote.server.fault(Fault::SlowDown, |_| true, 5, 3),
            2 => remote.server.fault(Fault::CutDownload, Seen::is_download, 2, 2),
            3 => remote.server.fault(Fault::LostAnswer, |seen| seen.is_conditional, 2, 2),
            _ => {}
        }
        remote.sync().assert_code(0);
        remote.assert_tables(&tables, remote.world.school.now());
    }
    let before = remote.server.objects(PREFIX);
    remote.sync().assert_code(0);
    assert_eq!(remote.server.objects(PREFIX), before, "nothing new, nothing written");
    assert_eq!(remote.server.left_parts(), 0);

    let status = remote.run("status", &["--output", "json"]).assert_code(0);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    let lines = status["tables"].as_array().unwrap();
    assert_eq!(lines.len(), tables.len());
    assert_eq!(lines[0]["data_as_of"], remote.world.school.now().to_string());
    let answer = remote.run("query", &["SELECT count(*) AS n FROM users", "--output", "csv"]).assert_code(0);
    let users = remote.world.school.expected(&canvas("users"), remote.world.school.now()).unwrap().len();
    assert_eq!(answer.stdout, format!("n\n{users}\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_simultaneous_syncs_into_an_object_store_leave_one_correct_table() {
    let tables = [canvas("users")];
    let remote = Remote::new(school(&tables)).await;
    let rounds: u32 = std::env::var("DAPLAKE_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    for _ in 0..rounds {
        let start = || remote.command("sync", &SYNC).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (one, two) = (start(), start());
        for child in [one, two] {
            let run = Run::of(tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap());
            run.assert_code(0);
        }
        remote.assert_tables(&tables, remote.world.school.now());
        remote.world.school.advance();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_correct_after_kills_during_uploads() {
    let tables = [canvas("users"), canvas("submissions"), web_logs()];
    let remote = Remote::new(SchoolOptions { rows: 2000, ..school(&tables) }).await;
    let mut random = Random::new();
    let mut kills = 0;
    for round in 0..3 {
        if round > 0 {
            remote.world.school.advance();
        }
        // Uploads are slow, so that the kill interrupts some of them.
        remote.server.fault(Fault::Slow(Duration::from_millis(300)), |seen| seen.method.as_str() == "PUT", 0, usize::MAX);
        for _ in 0..3 {
            let mut child = remote.command("sync", &SYNC).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            tokio::time::sleep(Duration::from_millis(200 + random.below(1500))).await;
            kills += u32::from(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
        }
        remote.server.clear_faults();
        remote.sync().assert_code(0);
        remote.assert_tables(&tables, remote.world.school.now());
    }
    assert!(kills > 0, "at least one run was really killed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unusable_store_is_explained_without_a_secret() {
    let remote = Remote::new(school(&[canvas("users")])).await;
    let assert_clean = |run: Run| {
        assert!(!run.stdout.contains("planted") && !run.stderr.contains("planted"), "{run:?}");
        run
    };
    // Before the first call to the service.
    remote.server.fault(Fault::Unconditional, |seen| seen.is_conditional, 0, usize::MAX);
    assert_clean(remote.sync()).assert_code(5).assert_says(&["conditional writes", "If-None-Match"]);
    assert_eq!(remote.server.objects("").len(), 0);
    remote.server.clear_faults();

    remote.server.fault(Fault::Expired, |_| true, 0, usize::MAX);
    let mut command = remote.command("sync", &["--loglevel", "debug"]);
    command.args(SYNC).env("AWS_SESSION_TOKEN", SESSION_TOKEN);
    assert_clean(Run::of(command.output().unwrap())).assert_code(5).assert_says(&["ExpiredToken", "have expired"]);
    remote.server.clear_faults();

    let mut command = remote.command("status", &["--loglevel", "debug"]);
    command.env("AWS_SECRET_ACCESS_KEY", "planted-other");
    assert_clean(Run::of(command.output().unwrap())).assert_code(5).assert_says(&["credentials"]);

    let run = remote.run("status", &["--store-option", "secret_access_key=planted"]);
    assert_clean(run).assert_code(5).assert_says(&["environment"]);
    let in_address = remote.world.daplake(&["status", "--target", "s3://id:planted@bucket/x"]);
    assert_clean(in_address).assert_code(5).assert_says(&["AWS_ACCESS_KEY_ID"]);

    remote.server.fault(Fault::SlowDown, |_| true, 0, usize::MAX);
    assert_clean(remote.run("status", &["--store-option", "max_retries=1"]))
        .assert_code(5)
        .assert_says(&["after 1 retries", "overloaded"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_in_an_object_store_are_maintained() {
    let tables = [canvas("users"), canvas("submissions"), web_logs()];
    let remote = Remote::new(school(&tables)).await;
    let begin = remote.world.school.now();
    let marks = ["--deletion-vectors", "on", "--compact-after", "0"];
    for round in 0..3 {
        if round > 0 {
            remote.world.school.advance();
        }
        remote.run("sync", &[SYNC.as_slice(), &marks].concat()).assert_code(0);
    }
    let json = |verb: &str, arguments: &[&str]| -> Value {
        let run = remote.run(verb, &[arguments, &["--output", "json"]].concat()).assert_code(0);
        serde_json::from_str(&run.stdout).unwrap()
    };
    let commits = json("history", &["--table", "submissions"]);
    let operations: Vec<&str> = commits.as_array().unwrap().iter().map(|line| line["operation"].as_str().unwrap()).collect();
    assert_eq!(operations, ["MERGE", "MERGE", "WRITE"]);
    let count = |at: &[&str]| {
        let query = ["SELECT count(*) AS n FROM submissions", "--output", "csv"];
        remote.run("query", &[query.as_slice(), at].concat()).assert_code(0).stdout.lines().nth(1).unwrap().to_owned()
    };
    let expected = |at| remote.world.school.expected(&canvas("submissions"), at).unwrap().len().to_string();
    assert_eq!((count(&["--at", "0"]), count(&[])), (expected(begin), expected(remote.world.school.now())));
    let service = ["--jobs-per-minute", "0"];
    remote.run("verify", &service).assert_code(0);

    // A burst of refusals during maintenance is not a failure.
    remote.server.fault(Fault::SlowDown, |seen| seen.method.as_str() == "PUT", 1, 2);
    let done = json("optimize", &["--sort-by-key"]);
    assert!(remote.server.faults_are_used_up());
    let purged: u64 = done.as_array().unwrap().iter().map(|line| line["done"]["rows_purged"].as_u64().unwrap()).sum();
    assert!(purged > 0, "{done}");
    remote.assert_tables(&tables, remote.world.school.now());
    remote.run("verify", &service).assert_code(0);
    let before = remote.server.objects(PREFIX);
    remote.run("vacuum", &[]).assert_code(0);
    assert_eq!(remote.server.objects(PREFIX), before, "all data is recent");
    remote.run("vacuum", &["--retention", "1h"]).assert_says(&["7d"]);
    remote.world.school.advance();
    remote.sync().assert_code(0);
    remote.assert_tables(&tables, remote.world.school.now());
    assert_eq!(remote.server.left_parts(), 0);

    let views = std::fs::read_to_string(remote.server.bucket().join(PREFIX).join("views.sql")).unwrap();
    for table in &tables {
        assert!(
            views.contains(&format!("delta_scan('s3://lake-bucket/{PREFIX}/{}/{}')", table.namespace, table.table)),
            "{views}"
        );
    }
}
