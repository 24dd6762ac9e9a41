//! The built binary: streams, exit codes, bad input. Nothing changes when something is wrong.

use std::process::Command;

use serde_json::Value;

use crate::support::{CLIENT_ID, CLIENT_SECRET, Run, World, bare_command, canvas, school};

fn bare(arguments: &[&str]) -> Run {
    Run::of(bare_command(arguments).output().unwrap())
}

#[test]
fn help_and_version_go_to_stdout() {
    let help = bare(&["--help"]).assert_code(0);
    for word in ["sync", "status", "query", "demo", "serve", "DAP_CLIENT_SECRET"] {
        assert!(help.stdout.contains(word), "{word}");
    }
    let version = bare(&["--version"]).assert_code(0);
    assert_eq!(version.stdout, format!("daplake {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_exits_with_2() {
    bare(&["sink"]).assert_code(2);
    bare(&["sync"]).assert_code(2).assert_says(&["--target"]);
    bare(&["sync", "--target", "lake", "--download-format", "xml"]).assert_code(2);
    bare(&["sync", "--target", "lake", "--memory-limit", "plenty"]).assert_code(2).assert_says(&["256MiB"]);
    bare(&["sync", "--target", "lake", "--memory-limit", "1"]).assert_code(2).assert_says(&["too little"]);
    bare(&["sync", "--target", "lake", "--memory-limit", "999999TiB"]).assert_code(2).assert_says(&["more than"]);
}

#[test]
fn missing_credentials_are_named_with_the_way_out() {
    bare(&["sync", "--target", "lake"]).assert_code(5).assert_says(&["client id", "DAP_CLIENT_ID", "daplake demo"]);
    let output = bare_command(&["sync", "--target", "lake"]).env("DAP_CLIENT_ID", CLIENT_ID).output().unwrap();
    Run::of(output).assert_code(5).assert_says(&["client secret", "DAP_CLIENT_SECRET"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_tells_what_it_did_and_status_and_query_agree() {
    let world = World::new(school(&[canvas("accounts"), canvas("users")])).await;
    let report = world.path("report.json");
    let run = world
        .daplake(&["sync", "--target", "lake", "--jobs-per-minute", "0", "--report", report.to_str().unwrap()])
        .assert_code(0)
        .assert_says(&["2 tables: 2 loaded", "canvas.users"]);
    assert!(run.stdout.contains("2 tables"), "the summary is on stdout: {}", run.stdout);
    let report: Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    let users = report["tables"].as_array().unwrap().iter().find(|table| table["table"] == "canvas.users").unwrap();
    let expected = world.school.expected(&canvas("users"), world.school.now()).unwrap().len();
    assert_eq!(users["outcome"], "loaded");
    assert_eq!(users["rows"], expected);

    let status = world.daplake(&["status", "--target", "lake", "--output", "json"]).assert_code(0);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["tables"][1]["rows"], expected);
    world.daplake(&["status", "--target", "lake"]).assert_code(0).assert_says(&["canvas.accounts", "data as of"]);

    let count = "SELECT count(*) AS people FROM users";
    let csv = world.daplake(&["query", "--target", "lake", "--output", "csv", count]).assert_code(0);
    assert_eq!(csv.stdout, format!("people\n{expected}\n"));
    let json = world.daplake(&["query", "--target", "lake", "--output", "json", "SELECT count(*) AS people FROM canvas.users"]);
    assert_eq!(json.assert_code(0).stdout, format!("{{\"people\":{expected}}}\n"));
    world.daplake(&["query", "--target", "lake", count]).assert_code(0).assert_says(&["people", "1 row"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_cannot_change_anything() {
    let world = World::new(school(&[canvas("accounts")])).await;
    world.sync_all().await;
    let before = world.fingerprint();
    for sql in ["DROP TABLE accounts", "DELETE FROM accounts", "COPY accounts TO 'out.csv'", "SELECT * FROM nowhere"] {
        world.daplake(&["query", "--target", "lake", sql]).assert_code(5).assert_says(&["error:", "hint:"]);
    }
    assert_eq!(world.fingerprint(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_names_are_refused_before_anything_starts() {
    let world = World::new(school(&[canvas("accounts"), canvas("users")])).await;
    let sync = |more: &[&str]| {
        let mut arguments = vec!["sync", "--target", "lake", "--jobs-per-minute", "0"];
        arguments.extend(more);
        world.daplake(&arguments)
    };
    sync(&["--table", "usres"]).assert_code(5).assert_says(&["usres", "did you mean `users`?"]);
    sync(&["--namespace", "canvas_log"]).assert_code(5).assert_says(&["canvas_log", "canvas_logs"]);
    sync(&["--namespace", "moodle"]).assert_code(5).assert_says(&["moodle", "hint:"]);
    assert!(world.fingerprint().is_empty(), "nothing was made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_are_said_without_being_shown() {
    let world = World::new(school(&[canvas("accounts")])).await;
    let with = |id: &str, secret: &str| {
        let mut command = world.command(&["sync", "--target", "lake", "--loglevel", "debug"]);
        Run::of(command.env("DAP_CLIENT_ID", id).env("DAP_CLIENT_SECRET", secret).output().unwrap())
    };
    let run = with(CLIENT_ID, "a-wrong-planted-secret").assert_code(5).assert_says(&["expired"]);
    assert!(!format!("{run:?}").contains("a-wrong-planted-secret"));
    // What a shell or an .env file leaves of `test-region#planted-client` without quotes.
    with("test-region", CLIENT_SECRET).assert_code(5).assert_says(&["#"]);
    assert!(world.fingerprint().is_empty(), "nothing was made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_cannot_be_written_is_refused_before_anything_is_paid_for() {
    let world = World::new(school(&[canvas("accounts")])).await;
    std::fs::write(world.lake(), "a file in the way").unwrap();
    world.daplake(&["sync", "--target", "lake"]).assert_code(5).assert_says(&["lake", "hint:"]);
    assert_eq!(std::fs::read_to_string(world.lake()).unwrap(), "a file in the way");
    assert_eq!(world.server.counters().jobs_started(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_table_in_the_way_is_left_alone() {
    let world = World::new(school(&[canvas("accounts")])).await;
    let Ok(python) = std::env::var("DAPLAKE_TEST_PYTHON") else {
        eprintln!("not run: needs DAPLAKE_TEST_PYTHON");
        return;
    };
    let folder = world.lake().join("canvas/accounts");
    let script = "import sys, pyarrow, deltalake; deltalake.write_deltalake(sys.argv[1], pyarrow.table({'id': [1, 2]}))";
    assert!(Command::new(python).args(["-c", script]).arg(&folder).status().unwrap().success());
    let before = world.fingerprint();
    world
        .daplake(&["sync", "--target", "lake", "--jobs-per-minute", "0"])
        .assert_code(5)
        .assert_says(&["canvas.accounts", "hint:"]);
    assert_eq!(world.fingerprint(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_row_fails_its_table_or_is_set_aside_as_told() {
    use daplake::demo::serve::{Fault, Times};
    let world = World::new(school(&[canvas("users")])).await;
    world.server.inject(Fault::parse("malformed-line").unwrap(), Times::Always);
    let arguments = ["sync", "--target", "lake", "--jobs-per-minute", "0"];
    world.daplake(&arguments).assert_code(5).assert_says(&["canvas.users", "line:", "--bad-rows"]);
    assert!(world.daplake(&["status", "--target", "lake"]).stdout.contains("No tables"));

    let bad = world.path("bad.jsonl");
    let mut setting_aside = arguments.to_vec();
    setting_aside.extend(["--bad-rows", bad.to_str().unwrap()]);
    world.daplake(&setting_aside).assert_code(0).assert_says(&["1 rows could not be read"]);
    let text = std::fs::read_to_string(bad).unwrap();
    let row: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(row["table"], "canvas.users");
    assert!(row["line"].is_u64() && row["reason"].is_string() && row["row"].is_string(), "{row}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_leaves_a_school_and_can_be_repeated() {
    let world = World::new(school(&[canvas("accounts")])).await;
    for _ in 0..2 {
        let run = world.daplake(&["demo", "--rows", "150", "--dir", "demo"]).assert_code(0);
        for words in ["First sync", "canvas.users", "canvas_logs.web_logs", "catalog.products", "mean_score", "Next steps"] {
            assert!(run.stdout.contains(words), "{words} is not in\n{}", run.stdout);
        }
    }
    std::fs::create_dir(world.path("mine")).unwrap();
    std::fs::write(world.path("mine/thesis.txt"), "mine").unwrap();
    world.daplake(&["demo", "--dir", "mine"]).assert_code(5).assert_says(&["something else", "--dir"]);
    assert!(world.path("mine/thesis.txt").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_without_any_namespace_is_an_error_not_an_empty_success() {
    use daplake::demo::serve::{Fault, Times};
    let world = World::new(school(&[canvas("users")])).await;
    world.server.inject(Fault::parse("account-not-onboarded:tables").unwrap(), Times::Always);
    world.daplake(&["sync", "--target", "lake", "--namespace", "all"]).assert_code(5).assert_says(&["onboard", "hint:"]);
    assert!(world.fingerprint().is_empty(), "nothing was made");
}
