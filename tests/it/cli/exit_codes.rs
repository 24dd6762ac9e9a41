//! The built program: streams, exit codes, help texts, invalid input. A refused command changes nothing.

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

/// The names of all commands.
fn commands() -> Vec<String> {
    let help = bare(&["--help"]).assert_code(0).stdout;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    commands.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

fn help(arguments: &[&str]) -> String {
    Run::of(bare_command(arguments).env("COLUMNS", "100").output().unwrap()).assert_code(0).stdout
}

#[test]
fn short_help_fits_on_a_screen_and_long_help_has_everything() {
    let commands = commands();
    assert!(commands.len() > 15, "{commands:?}");
    for command in &commands {
        let short = help(&[command, "-h"]);
        assert!(short.lines().count() <= 40, "{command} -h has {} lines\n{short}", short.lines().count());
        let last = short.lines().last().unwrap();
        assert!(last.contains(&format!("daplake {command} --help")), "{command}: {last}");
        let long = help(&[command, "--help"]);
        for option in short.split_whitespace().filter(|word| word.starts_with("--")) {
            assert!(long.contains(option.trim_end_matches([',', ']', ')', '`', '.'])), "{command}: {option}");
        }
        assert!(long.contains("--pacing") && long.contains("--base-url"), "{command}");
    }
    let mut with_secret = bare_command(&["sync", "--help"]);
    let run = Run::of(with_secret.env("DAP_CLIENT_SECRET", "planted").output().unwrap());
    assert!(run.stdout.contains("DAP_CLIENT_SECRET") && !run.stdout.contains("planted"), "{run:?}");
    let short = help(&["-h"]);
    let limit = if cfg!(feature = "cluster") { 42 } else { 40 };
    assert!(short.lines().count() <= limit, "{} lines\n{short}", short.lines().count());
}

#[test]
fn options_of_sync_are_in_groups_with_the_most_used_ones_first() {
    let long = help(&["sync", "--help"]);
    let groups: Vec<&str> = long.lines().filter(|line| line.ends_with(':') && !line.starts_with(' ')).collect();
    let mut last = 0;
    for group in [
        "Target:",
        "Tables:",
        "Columns and privacy:",
        "Lake tables:",
        "Databases:",
        "Download:",
        "Schedule:",
        "Notifications:",
        "Limits:",
    ] {
        let Some(place) = groups.iter().position(|found| *found == group) else {
            assert!(group == "Databases:" && !cfg!(feature = "sql"), "{group} is not in {groups:?}");
            continue;
        };
        assert!(place >= last, "{group} is not among the first: {groups:?}");
        last = place;
    }
    let short = help(&["sync", "-h"]);
    for option in [
        "--target",
        "--to",
        "--format",
        "--namespace",
        "--table",
        "--exclude",
        "--resnapshot",
        "--every",
        "--watch",
        "--report",
    ] {
        assert!(short.contains(&format!("{option} ")) || short.contains(&format!("{option}\n")), "{option} is not in\n{short}");
    }
    assert!(!short.contains("--max-unpack-ratio"), "{short}");
}

#[test]
fn the_old_name_of_an_option_still_works() {
    let run = bare(&["optimize", "--target", "nowhere", "--cluster"]);
    assert!(!run.stderr.contains("unexpected argument"), "{run:?}");
    assert!(!help(&["optimize", "--help"]).contains("--cluster"));
}

#[test]
fn wrong_usage_exits_with_2() {
    bare(&["sink"]).assert_code(2);
    bare(&["sync"]).assert_code(2).assert_says(&["--target"]);
    bare(&["sync", "--target", "lake", "--download-format", "xml"]).assert_code(2);
    bare(&["sync", "--target", "lake", "--memory-limit", "plenty"]).assert_code(2).assert_says(&["256MiB"]);
    bare(&["sync", "--target", "lake", "--memory-limit", "1"]).assert_code(2).assert_says(&["too small"]);
    bare(&["sync", "--target", "lake", "--memory-limit", "999999TiB"]).assert_code(2).assert_says(&["more than"]);
}

#[test]
fn missing_credentials_are_named_with_a_hint() {
    bare(&["sync", "--target", "lake"]).assert_code(5).assert_says(&["client id", "DAP_CLIENT_ID", "daplake demo"]);
    let output = bare_command(&["sync", "--target", "lake"]).env("DAP_CLIENT_ID", CLIENT_ID).output().unwrap();
    Run::of(output).assert_code(5).assert_says(&["client secret", "DAP_CLIENT_SECRET"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sync_status_and_query_agree() {
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
    for (sql, hint) in [
        ("DROP TABLE accounts", "`query` only reads"),
        ("DELETE FROM accounts", "`query` only reads"),
        ("COPY accounts TO 'out.csv'", "`query` only reads"),
        ("SELECT * FROM nowhere", "table names have the form namespace.table"),
        ("SELECT * FROM acounts", "did you mean `canvas.accounts`?"),
    ] {
        world.daplake(&["query", "--target", "lake", sql]).assert_code(5).assert_says(&["error:", "hint:", hint]);
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
    assert!(world.fingerprint().is_empty(), "nothing was created");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_are_reported_without_their_values() {
    let world = World::new(school(&[canvas("accounts")])).await;
    let with = |id: &str, secret: &str| {
        let mut command = world.command(&["sync", "--target", "lake", "--loglevel", "debug"]);
        Run::of(command.env("DAP_CLIENT_ID", id).env("DAP_CLIENT_SECRET", secret).output().unwrap())
    };
    let run = with(CLIENT_ID, "a-wrong-planted-secret").assert_code(5).assert_says(&["expired"]);
    assert!(!format!("{run:?}").contains("a-wrong-planted-secret"));
    // `test-region#planted-client` as a shell or an .env file cuts it without quotes.
    with("test-region", CLIENT_SECRET).assert_code(5).assert_says(&["#"]);
    assert!(world.fingerprint().is_empty(), "nothing was created");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_cannot_be_written_is_refused_before_any_job() {
    let world = World::new(school(&[canvas("accounts")])).await;
    std::fs::write(world.lake(), "a file in the way").unwrap();
    world.daplake(&["sync", "--target", "lake"]).assert_code(5).assert_says(&["lake", "hint:"]);
    assert_eq!(std::fs::read_to_string(world.lake()).unwrap(), "a file in the way");
    assert_eq!(world.server.counters().jobs_started(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_another_program_is_not_changed() {
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
async fn an_unreadable_row_fails_its_table_or_is_set_aside() {
    use daplake::demo::serve::{Fault, Times};
    let world = World::new(school(&[canvas("users")])).await;
    world.server.inject(Fault::parse("malformed-line").unwrap(), Times::Always);
    let arguments = ["sync", "--target", "lake", "--jobs-per-minute", "0"];
    world.daplake(&arguments).assert_code(5).assert_says(&["canvas.users", "line:", "--bad-rows"]);
    let status = world.daplake(&["status", "--target", "lake"]).stdout;
    assert!(status.contains("1 table: 1 failing") && !status.contains("rows  "), "{status}");

    let bad = world.path("bad.jsonl");
    let mut setting_aside = arguments.to_vec();
    setting_aside.extend(["--bad-rows", bad.to_str().unwrap()]);
    world.daplake(&setting_aside).assert_code(0).assert_says(&["1 row could not be read"]);
    let text = std::fs::read_to_string(bad).unwrap();
    let row: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(row["table"], "canvas.users");
    assert!(row["line"].is_u64() && row["reason"].is_string() && row["row"].is_string(), "{row}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_can_be_repeated_and_each_step_fits_on_a_screen() {
    let world = World::new(school(&[canvas("accounts")])).await;
    for more in [&[][..], &["--verbose"]] {
        let run = world.daplake(&[&["demo", "--rows", "150", "--dir", "demo"], more].concat()).assert_code(0);
        for text in ["First sync", "122 tables: 122 loaded", "mean_score", "Next steps"] {
            assert!(run.stdout.contains(text), "{text} is not in\n{}", run.stdout);
        }
        // Each step fits on a screen, except with --verbose.
        let tables = ["canvas.users", "canvas_logs.web_logs", "catalog.products"];
        let found = tables.iter().filter(|table| run.stdout.contains(*table)).count();
        let steps = run.stdout.split("\n\n").map(|step| step.lines().count()).max().unwrap();
        if more.is_empty() {
            assert!(found < 3 && steps <= 24 && run.stderr.lines().count() <= 8, "{run:?}");
        } else {
            assert!(found == 3 && run.stderr.lines().count() > 122, "{run:?}");
        }
    }
    std::fs::create_dir(world.path("mine")).unwrap();
    std::fs::write(world.path("mine/thesis.txt"), "mine").unwrap();
    world.daplake(&["demo", "--dir", "mine"]).assert_code(5).assert_says(&["other files", "--dir"]);
    assert!(world.path("mine/thesis.txt").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_without_namespaces_is_an_error() {
    use daplake::demo::serve::{Fault, Times};
    let world = World::new(school(&[canvas("users")])).await;
    world.server.inject(Fault::parse("account-not-onboarded:tables").unwrap(), Times::Always);
    world.daplake(&["sync", "--target", "lake", "--namespace", "all"]).assert_code(5).assert_says(&["onboard", "hint:"]);
    assert!(world.fingerprint().is_empty(), "nothing was created");
}
