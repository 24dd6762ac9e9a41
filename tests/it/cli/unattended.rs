//! Unattended runs: killed and repeated, with a time budget, stopped, watching, paced, two at the same time.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use daplake::demo::school::SchoolOptions;
use daplake::demo::serve::{Endpoint, Fault, ServeOptions, Times};
use daplake::internals::ops::Refresh;
use daplake::ops::{self, Cancellation, DeferReason, Journal, Outcome, Selection, SyncRequest};
use daplake::{Client, ClientOptions, Credentials, Pacing, RetryPolicy, Secret, TableRef, Timestamp};

use crate::support::{CLIENT_ID, CLIENT_SECRET, Random, World, canvas, failures, outcome, school, serving, web_logs};

/// The first tables of `canvas`, by name.
fn tables(count: usize) -> Vec<TableRef> {
    tables_of("canvas", count)
}

fn tables_of(namespace: &str, count: usize) -> Vec<TableRef> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(namespace);
    let mut names: Vec<String> = folder
        .read_dir()
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".json")?.to_owned()))
        .collect();
    names.sort();
    assert!(names.len() >= count, "the catalogue has {} tables", names.len());
    names.iter().take(count).map(|name| TableRef::new(namespace, name.as_str())).collect()
}

/// The number of tables with an unfinished job in the state folder. A run can be killed after it has committed a table and before it has
/// recorded that.
fn unfinished(world: &World) -> usize {
    let Ok(entries) = world.path("state").read_dir() else { return 0 };
    let status = world.daplake(&["status", "--target", "lake", "--output", "json"]).stdout;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
    let status = status["tables"].as_array().cloned().unwrap_or_default();
    let is_unfinished = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<serde_json::Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let last = lines.iter().rfind(|line| line.get("job").is_some() || line.get("done").is_some());
        let job = lines.iter().rfind(|line| line.get("job").is_some());
        let (Some(last), Some(job)) = (last, job) else { return false };
        let file = path.file_name().unwrap().to_str().unwrap();
        let held = status.iter().find(|line| file.starts_with(&format!("canvas.{}.", line["table"].as_str().unwrap())));
        let question = held.map_or("snapshot".to_owned(), |line| format!("since {} ", line["data_as_of"].as_str().unwrap()));
        last["done"] != true && job["of"].as_str().unwrap().starts_with(&question)
    };
    entries.filter(|entry| is_unfinished(&entry.as_ref().unwrap().path())).count()
}

/// `DAPLAKE_TEST_KILLS` is the number of kills, 6 by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_run_is_resumed_with_its_jobs() {
    let kills: u32 = std::env::var("DAPLAKE_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let mut random = Random::new();
    let tables = tables(20);
    let serving = ServeOptions { job_delay: (Duration::from_millis(100), Duration::from_millis(300)), ..serving() };
    let world = World::with(SchoolOptions { rows: 400, ..school(&tables) }, serving).await;
    let arguments = ["sync", "--target", "lake", "--jobs-per-minute", "0"];
    let posts = || {
        let counters = world.server.counters();
        counters.jobs_started() + counters.jobs_reattached
    };
    let (mut killed, mut resumed, mut whole) = (0, 0, 0);
    while killed < kills {
        let (known, before) = (unfinished(&world) as u64, posts());
        let mut child = world.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let moment = Duration::from_millis(50 + random.below(2500));
        let waited = tokio::task::spawn_blocking(move || {
            let begun = std::time::Instant::now();
            while begun.elapsed() < moment {
                if let Some(status) = child.try_wait().unwrap() {
                    return Some(status);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            child.kill().unwrap();
            child.wait().unwrap();
            None
        });
        match waited.await.unwrap() {
            None => killed += 1,
            Some(status) => {
                assert!(status.success());
                whole += 1;
                world.school.advance();
            }
        }
        resumed += known;
        let asked = posts() - before;
        assert!(asked + known <= 20, "{asked} jobs were started although {known} of 20 had a job");
    }
    world.daplake(&arguments).assert_code(0);
    world.assert_tables("deltalake", &tables, world.school.now());
    let counters = world.server.counters();
    let ids: BTreeSet<&str> = counters.job_starts.iter().map(|start| start.id.as_str()).collect();
    assert_eq!(ids.len() as u64, counters.jobs_started());
    eprintln!(
        "{killed} kills, {whole} whole runs, {resumed} jobs resumed, {} jobs started, {} started again because a kill had lost their ids",
        counters.jobs_started(),
        counters.jobs_reattached
    );
    // Nothing is left to resume.
    assert_eq!(unfinished(&world), 0);
}

fn journaled(world: &World, pacing: Pacing) -> SyncRequest {
    let client = Client::new(ClientOptions {
        base_url: world.server.url(),
        credentials: Credentials { client_id: CLIENT_ID.to_owned(), client_secret: Secret::new(CLIENT_SECRET) },
        pacing,
        retry: RetryPolicy::default(),
        ca_bundle: None,
        poll: (Duration::from_millis(5), Duration::from_millis(50)),
        idle_timeout: Duration::from_secs(30),
    });
    let journal = Some(Journal::new(world.path("state"), "account"));
    SyncRequest { client: client.unwrap(), journal, ..world.request() }
}

/// Four job starts, and then none for an hour.
fn four_starts() -> Pacing {
    Pacing { job_starts: 4, window: Duration::from_secs(3600), ..Pacing::default() }
}

fn names(report: &ops::Report, wanted: impl Fn(&Outcome) -> bool) -> BTreeSet<String> {
    report.tables.iter().filter(|line| wanted(&line.outcome)).map(|line| line.table.to_string()).collect()
}

fn is_loaded(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Loaded { .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_run_after_a_time_budget_loads_the_deferred_tables() {
    let tables = tables(12);
    let world = World::new(school(&tables)).await;
    let mut done = BTreeSet::new();
    for round in 0..2 {
        let time_budget = Some(Duration::from_secs(4));
        let report = ops::sync(SyncRequest { time_budget, ..journaled(&world, four_starts()) }).await.unwrap();
        assert_eq!(failures(&report), [""; 0]);
        let loaded = names(&report, is_loaded);
        assert!(!loaded.is_empty() && loaded.len() <= 4, "{report:?}");
        assert!(loaded.is_disjoint(&done), "round {round}: the least recently synced tables come first");
        let deferred = names(&report, |outcome| *outcome == Outcome::Deferred { reason: DeferReason::TimeBudget });
        assert_eq!(loaded.len() + deferred.len(), 12, "{report:?}");
        assert_eq!(report.ended_early, Some(DeferReason::TimeBudget));
        done.extend(loaded);
    }
    let report = ops::sync(journaled(&world, Pacing { job_starts: 0, ..Pacing::default() })).await.unwrap();
    assert_eq!((failures(&report).len(), report.ended_early), (0, None));
    world.assert_tables("deltalake", &tables, world.school.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_recently_synced_tables_come_first_even_if_their_schemas_are_late() {
    let tables = tables(12);
    let world = World::new(school(&tables)).await;
    let time_budget = Some(Duration::from_secs(4));
    let first = ops::sync(SyncRequest { time_budget, ..journaled(&world, four_starts()) }).await.unwrap();
    let done = names(&first, is_loaded);
    assert_eq!(done.len(), 4, "{first:?}");
    for table in tables.iter().filter(|table| !done.contains(&table.to_string())) {
        world.server.inject_for(table, Fault::parse("error-500:schema").unwrap(), Times::Once);
    }
    let second = ops::sync(SyncRequest { time_budget, ..journaled(&world, four_starts()) }).await.unwrap();
    assert_eq!(failures(&second), [""; 0]);
    let next = names(&second, is_loaded);
    assert_eq!(next.len(), 4, "{second:?}");
    assert!(next.is_disjoint(&done), "{second:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_always_fails_uses_neither_the_budget_nor_the_time_of_others() {
    let world = World::new(school(&[canvas("users"), canvas("courses"), web_logs()])).await;
    for (round, at) in [Endpoint::Schema, Endpoint::Data].into_iter().enumerate() {
        world.server.inject_for(&web_logs(), Fault::Status { at, status: 500 }, Times::Always);
        let begun = std::time::Instant::now();
        let order = ["canvas_logs,canvas", "canvas,canvas_logs"][round];
        let sync = ["sync", "--target", "lake", "--namespace", order, "--jobs-per-minute", "0", "--time-budget", "20s"];
        let run = world.daplake(&sync).assert_code(5).assert_says(&["canvas_logs.web_logs", "1 failed", "2 loaded"]);
        assert!(begun.elapsed() < Duration::from_secs(25), "{:?}: {run:?}", begun.elapsed());
        world.assert_tables("deltalake", &[canvas("users"), canvas("courses")], world.school.now());
        world.server.clear_faults();
        world.school.advance();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_budget_is_not_a_failure_and_the_report_lists_deferred_tables() {
    let tables = tables(5);
    let world = World::new(school(&tables)).await;
    let sync = ["sync", "--target", "lake", "--report", "report.json", "--jobs-per-minute"];
    let run = world.daplake(&[&sync[..], &["2", "--time-budget", "3s"]].concat()).assert_code(0);
    assert!(run.stdout.contains("deferred"), "{run:?}");
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(world.path("report.json")).unwrap()).unwrap();
    assert_eq!(report["ended_early"], "time_budget", "{report}");
    let deferred = report["tables"].as_array().unwrap().iter().filter(|table| table["outcome"] == "put_off");
    assert!(deferred.count() >= 3, "two jobs could be started: {report}");
    world.daplake(&[&sync[..], &["0"]].concat()).assert_code(0);
    // Loaded tables are queried for changes since then.
    let loaded = report["tables"].as_array().unwrap().iter().filter(|table| table["outcome"] == "loaded").count() as u64;
    assert_eq!(world.server.counters().jobs_started(), 5 + loaded, "started jobs are not started again");
    world.assert_tables("deltalake", &tables, world.school.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_run_starts_no_further_table() {
    let tables = tables(10);
    let world = World::new(school(&tables)).await;
    let stop = Cancellation::default();
    let running = tokio::spawn(ops::sync(SyncRequest { cancellation: stop.clone(), ..journaled(&world, four_starts()) }));
    while world.server.counters().jobs_started() < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The answers reach the journal.
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.drain();
    let report = running.await.unwrap().unwrap();
    assert_eq!(failures(&report), [""; 0]);
    assert_eq!(report.ended_early, Some(DeferReason::Stopped));
    assert!(names(&report, is_loaded).len() <= 4);
    assert_eq!(world.server.counters().jobs_started(), 4);
    // Started jobs that were not loaded are not started again.
    let report = ops::sync(journaled(&world, Pacing { job_starts: 0, ..Pacing::default() })).await.unwrap();
    assert_eq!(failures(&report), [""; 0]);
    assert_eq!(world.server.counters().jobs_reattached, 0);
    world.assert_tables("deltalake", &tables, world.school.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_with_recent_data_are_skipped() {
    let now = Timestamp::now().micros();
    let table = canvas("users");
    let world = World::new(SchoolOptions { start: Timestamp::from_micros(now), ..school(std::slice::from_ref(&table)) }).await;
    let request = || SyncRequest { skip_recent: Some(Refresh::AsDocumented), ..world.request() };
    let first = ops::sync(request()).await.unwrap();
    assert!(is_loaded(outcome(&first, &table)), "{first:?}");
    let calls = world.server.counters().calls_of(Endpoint::Data);
    let second = ops::sync(request()).await.unwrap();
    assert!(matches!(outcome(&second, &table), Outcome::Recent { .. }), "{second:?}");
    assert_eq!(world.server.counters().calls_of(Endpoint::Data), calls);
    // A new snapshot is loaded anyway, and a shorter interval is respected.
    let asked = ops::sync(SyncRequest { resnapshot: true, ..request() }).await.unwrap();
    assert!(is_loaded(outcome(&asked, &table)), "{asked:?}");
    let refresh = Some(Refresh::Every(Duration::ZERO));
    let asked = ops::sync(SyncRequest { skip_recent: refresh, ..request() }).await.unwrap();
    assert!(matches!(outcome(&asked, &table), Outcome::Unchanged { .. }), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_simultaneous_runs_the_second_waits() {
    let tables = [canvas("users"), canvas("courses"), canvas("submissions")];
    let world = World::new(school(&tables)).await;
    for _ in 0..3 {
        let free = || Pacing { job_starts: 0, ..Pacing::default() };
        let (one, two) = tokio::join!(ops::sync(journaled(&world, free())), ops::sync(journaled(&world, free())));
        for report in [one.unwrap(), two.unwrap()] {
            assert_eq!(failures(&report), [""; 0]);
        }
        world.assert_tables("deltalake", &tables, world.school.now());
        world.school.advance();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fresh_discards_the_jobs_of_an_earlier_run() {
    let table = canvas("users");
    let world = World::new(school(std::slice::from_ref(&table))).await;
    // The job is complete, its objects cannot be downloaded.
    world.server.inject(Fault::parse("error-500:objects").unwrap(), Times::Always);
    world.daplake(&["sync", "--target", "lake", "--jobs-per-minute", "0"]).assert_code(5);
    world.server.clear_faults();
    let posts = || {
        let counters = world.server.counters();
        counters.jobs_started() + counters.jobs_reattached
    };
    assert_eq!((unfinished(&world), posts()), (1, 1));
    world.daplake(&["sync", "--target", "lake", "--jobs-per-minute", "0", "--fresh"]).assert_code(0);
    assert_eq!(posts(), 2);
}

/// With the limits of the service and a shorter minute, the run is as fast as the limits allow and never exceeds them.
/// `DAPLAKE_TEST_WINDOW_MS` sets the length of the minute, 1500 by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_tables_use_the_limits_and_never_exceed_them() {
    const STARTS: u32 = 25;
    let window = std::env::var("DAPLAKE_TEST_WINDOW_MS").ok().and_then(|text| text.parse().ok()).unwrap_or(1500);
    let window = Duration::from_millis(window);
    let tables: Vec<TableRef> = [tables(80), tables_of("catalog", 20)].concat();
    let limits = [5, 500, STARTS, 500, 200];
    let serving = ServeOptions { limits, limit_window: window, ..serving() };
    let world = World::with(SchoolOptions { rows: 100, ..school(&tables) }, serving).await;
    let pacing = Pacing { window, job_starts: STARTS, ..Pacing::default() };
    let request = SyncRequest { selection: Selection::all_of("all"), ..journaled(&world, pacing) };
    let begun = std::time::Instant::now();
    let report = ops::sync(request).await.unwrap();
    let took = begun.elapsed();
    assert_eq!((failures(&report).len(), names(&report, is_loaded).len()), (0, 100), "{report:?}");
    let counters = world.server.counters();
    assert_eq!(counters.jobs_started(), 100);
    let kinds = [Endpoint::Tables, Endpoint::Schema, Endpoint::Data, Endpoint::Job, Endpoint::Urls];
    for (kind, limit) in kinds.into_iter().zip(limits) {
        assert_eq!(counters.throttled_of(kind), 0, "{kind:?}");
        assert!(counters.peak_calls[&kind] <= u64::from(limit), "{kind:?}: {} of {limit}", counters.peak_calls[&kind]);
    }
    let bound = window * (100 / STARTS - 1);
    let over = took.as_secs_f64() / bound.as_secs_f64() - 1.0;
    eprintln!("100 tables, {STARTS} starts per {window:?}: {took:.2?}, the bound is {bound:.2?} ({:+.1} %)", over * 100.0);
}

#[cfg(unix)]
mod staying {
    use std::os::unix::net::UnixDatagram as Socket;
    use std::process::{Child, Command};

    use super::*;

    struct Service {
        child: Child,
        socket: Socket,
        heard: Vec<String>,
    }

    impl Service {
        fn start(world: &World, more: &[&str]) -> Self {
            Self::watched(world, more, "0")
        }

        /// With a watchdog interval in microseconds.
        fn watched(world: &World, more: &[&str], watchdog: &str) -> Self {
            let path = world.path("notify");
            let _ = std::fs::remove_file(&path);
            let socket = Socket::bind(&path).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let mut arguments = vec!["sync", "--target", "lake", "--jobs-per-minute", "0"];
            arguments.extend(more);
            let mut command = world.command(&arguments);
            command.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", watchdog);
            let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            Self { child, socket, heard: Vec::new() }
        }

        /// Waits for a message.
        fn hears(&mut self, words: &str) {
            let mut buffer = [0; 1024];
            while !self.heard.iter().any(|heard| heard.contains(words)) {
                let length = self.socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{words}: {error}: {:?}", self.heard));
                self.heard.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
            }
        }

        /// Sends SIGTERM and waits for the end. The queue of messages is emptied before, since a full one loses the next message.
        fn terminate(&mut self) -> Option<i32> {
            self.socket.set_nonblocking(true).unwrap();
            while self.socket.recv(&mut [0; 1024]).is_ok() {}
            self.socket.set_nonblocking(false).unwrap();
            let pid = self.child.id().to_string();
            assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
            self.child.wait().unwrap().code()
        }
    }

    impl Drop for Service {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_service_notifies_systemd_and_ends_on_a_signal() {
        let table = canvas("users");
        let world = World::new(school(std::slice::from_ref(&table))).await;
        let mut service = Service::watched(&world, &["--every", "1h"], "200000");
        for words in ["READY=1", "STATUS=syncing", "the last run was good; the next one is at", "WATCHDOG=1"] {
            service.hears(words);
        }
        world.assert_tables("deltalake", std::slice::from_ref(&table), world.school.now());
        assert_eq!(service.terminate(), Some(0), "the normal end");
        service.hears("STOPPING=1");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_service_runs_repeatedly() {
        let table = canvas("users");
        let world = World::new(school(std::slice::from_ref(&table))).await;
        let mut service = Service::start(&world, &["--watch", "--interval", "10ms", "--jitter", "1ms"]);
        for _ in 0..3 {
            service.heard.clear();
            service.hears("the last run was good");
        }
        let before = world.server.counters().calls_of(Endpoint::Objects);
        world.school.advance();
        while world.server.counters().calls_of(Endpoint::Objects) == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The running load finishes.
        assert_eq!(service.terminate(), Some(0));
        world.assert_tables("deltalake", std::slice::from_ref(&table), world.school.now());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_service_with_failures_continues_and_reports_them() {
        let table = canvas("users");
        let world = World::new(school(std::slice::from_ref(&table))).await;
        world.server.inject(Fault::parse("account-under-maintenance").unwrap(), Times::Always);
        let mut service = Service::start(&world, &["--watch", "--interval", "2s", "--jitter", "1ms"]);
        service.hears("the last run failed");
        world.server.clear_faults();
        service.hears("the last run was good");
        assert_eq!(service.terminate(), Some(0));
        world.assert_tables("deltalake", std::slice::from_ref(&table), world.school.now());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_run_after_a_stop_resumes_the_job() {
        let table = canvas("users");
        let world = World::new(SchoolOptions { rows: 2000, ..school(std::slice::from_ref(&table)) }).await;
        // Slow, so that the load is running when the signal arrives.
        world.server.inject(Fault::parse("drip:2000").unwrap(), Times::Always);
        let mut service = Service::start(&world, &["--every", "1h"]);
        service.hears("STATUS=syncing");
        while world.server.counters().calls_of(Endpoint::Objects) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The first signal waits for the table; the second does not.
        let pid = service.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        service.hears("STOPPING=1");
        assert_eq!(service.terminate(), Some(0));
        assert!(!world.lake().join("canvas/users/_delta_log").exists(), "there is still no table");
        world.server.clear_faults();
        let run = world.daplake(&["sync", "--target", "lake", "--jobs-per-minute", "0"]).assert_code(0);
        assert!(run.stdout.contains("1 loaded"), "{run:?}");
        let counters = world.server.counters();
        assert_eq!((counters.jobs_started(), counters.jobs_reattached), (1, 0));
        world.assert_tables("deltalake", std::slice::from_ref(&table), world.school.now());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_interrupted_run_writes_a_report() {
        let table = canvas("users");
        let world = World::new(SchoolOptions { rows: 2000, ..school(std::slice::from_ref(&table)) }).await;
        world.server.inject(Fault::parse("drip:2000").unwrap(), Times::Always);
        let mut service = Service::start(&world, &["--report", "report.json"]);
        while world.server.counters().calls_of(Endpoint::Objects) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(service.terminate(), Some(125));
        let report: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(world.path("report.json")).unwrap()).unwrap();
        assert_eq!(
            (&report["ended_early"], &report["tables"][0]["outcome"]),
            (&"stopped".into(), &"put_off".into()),
            "{report}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_the_service_already_had_replaces_a_newer_table() {
    let modes: [&[&str]; 4] = [&[], &["--deletes", "mark"], &["--mode", "changes"], &["--mode", "history"]];
    for mode in modes {
        let table = canvas("users");
        let world = World::new(SchoolOptions { change_rate: 0.3, ..school(std::slice::from_ref(&table)) }).await;
        let sync = |more: &[&str]| {
            let always = ["sync", "--target", "lake", "--jobs-per-minute", "0", "--table", "users"];
            world.daplake(&[&always, mode, more].concat()).assert_code(0)
        };
        let begin = world.school.now();
        sync(&[]);
        for _ in 0..2 {
            world.school.advance();
            sync(&[]);
        }
        world.server.inject_for(&table, Fault::StaleJob, Times::N(1));
        let run = sync(&["--resnapshot"]);
        assert!(format!("{}{}", run.stdout, run.stderr).contains("older than the table"), "{run:?}");
        if mode.is_empty() {
            world.assert_tables("deltalake", std::slice::from_ref(&table), begin);
        }
        // The next run loads the rest.
        sync(&[]);
        if mode != ["--mode", "changes"] {
            world.daplake(&["verify", "--target", "lake", "--jobs-per-minute", "0"]).assert_code(0);
        }
        let counts = |sql: &str| {
            let run = world.daplake(&["query", "--target", "lake", "--output", "csv", sql]).assert_code(0);
            run.stdout.lines().nth(1).unwrap().to_owned()
        };
        match mode {
            ["--mode", "changes"] => {
                let twice = "SELECT count(*) FROM (SELECT id FROM users GROUP BY id, _ts, _action HAVING count(*) > 1)";
                assert_eq!(counts(twice), "0");
            }
            ["--mode", "history"] => {
                let twice = "SELECT count(*) FROM (SELECT id FROM users GROUP BY id, _valid_from HAVING count(*) > 1)";
                assert_eq!(counts(twice), "0");
            }
            _ => {}
        }
    }
}
