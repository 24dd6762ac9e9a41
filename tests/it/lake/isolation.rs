//! One failure does not affect the rest and ends with its cause: namespaces, names, pages of firewalls, stored jobs, late schemas,
//! rotated secrets, few open files.

use std::process::Command;
use std::time::Duration;

use daplake::demo::school::SchoolOptions;
use daplake::demo::serve::{Endpoint, Fault, Times};
use daplake::ops::{self, Journal, Outcome, Report, Selection, SyncRequest};
use daplake::{Client, ClientOptions, Credentials, Kind, Pacing, RetryPolicy, Secret, TableRef};

use crate::support::{CLIENT_ID, CLIENT_SECRET, Run, World, canvas, failures, outcome, school, web_logs};

const SYNC: [&str; 5] = ["sync", "--target", "lake", "--jobs-per-minute", "0"];

fn fault(text: &str) -> Fault {
    Fault::parse(text).unwrap()
}

fn journaled(world: &World) -> SyncRequest {
    SyncRequest { journal: Some(Journal::new(world.path("state"), "account")), ..world.request() }
}

fn of_namespaces(world: &World, namespaces: &[&str]) -> SyncRequest {
    let selection =
        Selection { namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(), ..Selection::all_of("canvas") };
    SyncRequest { selection, ..world.request() }
}

fn failed(report: &Report) -> Vec<(String, Kind)> {
    report.failed().map(|line| (line.table.to_string(), line.error.as_ref().unwrap().kind())).collect()
}

fn is_loaded(report: &Report, table: &TableRef) -> bool {
    matches!(outcome(report, table), Outcome::Loaded { .. })
}

fn starts_of(world: &World, table: &TableRef) -> usize {
    world.server.counters().job_starts.iter().filter(|start| start.table == *table).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_lags_behind_the_job_is_waited_for_or_fails_the_table() {
    let tables = [canvas("users"), canvas("courses")];
    let world = World::new(SchoolOptions { evolving: true, ..school(&tables) }).await;
    let before = world.school.now();
    assert_eq!(failures(&ops::sync(journaled(&world)).await.unwrap()), [""; 0]);
    // The second commit adds a column to `users`.
    world.school.advance();
    world.server.inject_for(&tables[0], Fault::OlderSchema, Times::Always);
    let report = ops::sync(journaled(&world)).await.unwrap();
    assert_eq!(failed(&report), [("canvas.users".to_owned(), Kind::Unavailable)]);
    assert!(is_loaded(&report, &tables[1]));
    world.assert_tables("deltalake", &tables[..1], before);

    let started = starts_of(&world, &tables[0]);
    world.server.clear_faults();
    let report = ops::sync(journaled(&world)).await.unwrap();
    assert_eq!(failures(&report), [""; 0]);
    assert_eq!(starts_of(&world, &tables[0]), started, "the job of the failed run is continued");
    world.assert_tables("deltalake", &tables, world.school.now());

    // A short delay is waited for.
    world.school.advance();
    world.school.advance();
    world.server.inject_for(&tables[0], Fault::OlderSchema, Times::N(3));
    let report = ops::sync(journaled(&world)).await.unwrap();
    assert_eq!(failures(&report), [""; 0]);
    world.assert_tables("deltalake", &tables, world.school.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unusable_result_blocks_a_table_for_one_run_only() {
    let tables = [canvas("users"), canvas("courses")];
    let world = World::new(school(&tables)).await;
    assert_eq!(failures(&ops::sync(journaled(&world)).await.unwrap()), [""; 0]);
    world.school.advance();
    world.server.inject_for(&tables[0], Fault::EndsEarly, Times::Once);
    let report = ops::sync(journaled(&world)).await.unwrap();
    assert_eq!(failed(&report), [("canvas.users".to_owned(), Kind::Data)]);
    // The service returns the same job for an equal query.
    let report = ops::sync(journaled(&world)).await.unwrap();
    assert_eq!(failures(&report), [""; 0]);
    world.assert_tables("deltalake", &tables, world.school.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permanently_damaged_result_is_replaced_in_the_third_run() {
    let tables = [canvas("users")];
    let world = World::new(school(&tables)).await;
    world.server.inject(fault("corrupt:0"), Times::Once);
    for _ in 0..2 {
        let report = ops::sync(journaled(&world)).await.unwrap();
        assert_eq!(failed(&report), [("canvas.users".to_owned(), Kind::Data)]);
    }
    assert_eq!(failures(&ops::sync(journaled(&world)).await.unwrap()), [""; 0]);
    world.assert_tables("deltalake", &tables, world.school.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_job_of_a_failed_run_is_followed_by_the_changes_since() {
    let tables = [canvas("users")];
    let world = World::new(school(&tables)).await;
    assert_eq!(failures(&ops::sync(journaled(&world)).await.unwrap()), [""; 0]);
    for is_old in [false, true] {
        let asked = world.school.advance();
        world.server.inject(fault("reset:0"), Times::Always);
        assert_eq!(failed(&ops::sync(journaled(&world)).await.unwrap()), [("canvas.users".to_owned(), Kind::Unavailable)]);
        world.server.clear_faults();
        world.school.advance();
        if is_old {
            // As if the failed run had ended two hours ago.
            for entry in world.path("state").read_dir().unwrap() {
                let path = entry.unwrap().path();
                let text = std::fs::read_to_string(&path).unwrap();
                let (head, rest) = text.split_once("\"noted\":").unwrap();
                let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap();
                let noted: i64 = rest[..digits].parse().unwrap();
                std::fs::write(&path, format!("{head}\"noted\":{}{}", noted - 7_200_000_000, &rest[digits..])).unwrap();
            }
        }
        let report = ops::sync(journaled(&world)).await.unwrap();
        assert_eq!(failures(&report), [""; 0]);
        let reached = if is_old { world.school.now() } else { asked };
        assert!(matches!(outcome(&report, &tables[0]), Outcome::Loaded { bookmark, .. } if *bookmark == reached), "{report:?}");
        assert_eq!(report.tables[0].warnings.iter().any(|warning| warning.contains("an earlier run")), !is_old);
        world.assert_tables("deltalake", &tables, reached);
        assert_eq!(failures(&ops::sync(journaled(&world)).await.unwrap()), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_a_firewall_does_not_end_the_run() {
    let tables = [canvas("users"), canvas("courses"), canvas("accounts")];
    for status in [401, 403, 407] {
        let world = World::new(school(&tables)).await;
        for at in [Endpoint::Login, Endpoint::Tables, Endpoint::Schema, Endpoint::Data, Endpoint::Job, Endpoint::Urls] {
            world.server.inject(Fault::Blocked { at, status }, Times::Once);
        }
        assert_eq!(failures(&world.sync().await), [""; 0], "{status}: the retry succeeds");
        world.school.advance();
        world.server.inject_for(&tables[0], Fault::Blocked { at: Endpoint::Data, status }, Times::Always);
        let report = world.sync().await;
        assert_eq!(failed(&report), [("canvas.users".to_owned(), Kind::Unavailable)], "{status}: only this table fails");
        assert!(is_loaded(&report, &tables[1]) && is_loaded(&report, &tables[2]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_namespace_is_reported_and_does_not_affect_others() {
    let tables = [canvas("users"), web_logs()];
    let world = World::new(school(&tables)).await;
    let report = ops::sync(of_namespaces(&world, &["canvas", "moodle"])).await.unwrap();
    assert_eq!(failed(&report), [("moodle.*".to_owned(), Kind::NotFound)]);
    assert!(is_loaded(&report, &tables[0]));

    // `all` asks the account for its namespaces; `canvas` is in every account.
    assert_eq!(failures(&ops::sync(of_namespaces(&world, &["all"])).await.unwrap()), [""; 0]);
    world.server.inject(fault("account-under-maintenance:tables"), Times::Once);
    let report = ops::sync(of_namespaces(&world, &["all"])).await.unwrap();
    assert_eq!(failed(&report), [("canvas.*".to_owned(), Kind::Account)]);
    assert!(report.tables.iter().any(|line| line.table == tables[1]));
    world.server.inject(fault("error-500:tables"), Times::N(4));
    let report = ops::sync(of_namespaces(&world, &["canvas", "canvas_logs"])).await.unwrap();
    assert_eq!(failed(&report), [("canvas.*".to_owned(), Kind::Unavailable)]);

    // No other namespace is selected.
    assert_eq!(ops::sync(of_namespaces(&world, &["moodle"])).await.unwrap_err().kind(), Kind::NotFound);
    let mut command = world.command(&[&SYNC[..], &["--namespace", "canvas,moodle"]].concat());
    Run::of(command.output().unwrap()).assert_code(5).assert_says(&["1 failed", "moodle"]);
    command.env("DAP_CLIENT_SECRET", "planted-other");
    Run::of(command.output().unwrap()).assert_code(5).assert_says(&["credentials"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_vanish_are_reported() {
    let tables = [canvas("users"), canvas("accounts"), web_logs()];
    let world = World::new(school(&tables)).await;
    world.sync_all().await;
    let smaller = World::new(school(&tables[..1])).await;
    let request = SyncRequest { client: smaller.client(), ..world.request() };
    let report = ops::sync(request).await.unwrap();
    assert_eq!(failures(&report), [""; 0]);
    for table in &tables[1..] {
        assert!(report.warnings.iter().any(|warning| warning.contains(&table.to_string())), "{:?}", report.warnings);
    }
    assert_eq!(report.warnings.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_name_fails_alone() {
    let world = World::new(school(&[canvas("users"), canvas("accounts")])).await;
    let run = world.daplake(&[&SYNC[..], &["--table", "usres,accounts"]].concat());
    run.assert_code(5).assert_says(&["1 loaded", "1 failed", "usres", "did you mean `users`?"]);
    world.assert_tables("deltalake", &[canvas("accounts")], world.school.now());
    let run = world.daplake(&[&SYNC[..], &["--table", "gone"]].concat());
    run.assert_code(5).assert_says(&["no such table", "gone"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_secret_is_read_again_when_it_is_refused() {
    let world = World::new(school(&[canvas("users")])).await;
    let credentials = |secret: &str| Credentials { client_id: CLIENT_ID.to_owned(), client_secret: Secret::new(secret) };
    let client = Client::new(ClientOptions {
        base_url: world.server.url(),
        credentials: credentials("planted-old"),
        pacing: Pacing::off(),
        retry: RetryPolicy::default(),
        ca_bundle: None,
        poll: (Duration::from_millis(5), Duration::from_millis(50)),
        idle_timeout: Duration::from_secs(30),
    })
    .unwrap();
    assert!(ops::sync(SyncRequest { client: client.clone(), ..world.request() }).await.is_err());
    client.set_credentials_source(move || Ok(credentials(CLIENT_SECRET)));
    assert_eq!(failures(&ops::sync(SyncRequest { client, ..world.request() }).await.unwrap()), [""; 0]);
}

/// Soft and hard limit, so that the process cannot raise it.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_tables_sync_with_few_open_files() {
    let world = World::new(SchoolOptions { rows: 6, ..school(&[]) }).await;
    let plain = world.command(&[]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 256 && ulimit -Hn 256 && exec \"$0\" \"$@\""]).arg(plain.get_program());
    command.args(SYNC).args(["--namespace", "all"]).current_dir(plain.get_current_dir().unwrap());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let run = tokio::task::spawn_blocking(move || Run::of(command.output().unwrap())).await.unwrap();
    run.assert_code(0).assert_says(&["122 tables: 122 loaded"]);
}
