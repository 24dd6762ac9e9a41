//! `--quiet`: not a byte if all went well, so that cron sends no mail, and otherwise the failures.

use daplake::demo::serve::{Fault, Times};

use crate::support::{Run, World, canvas, school};

const SYNC: [&str; 5] = ["sync", "--target", "lake", "--jobs-per-minute", "0"];

#[track_caller]
fn assert_silent(run: Run) {
    let run = run.assert_code(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_succeeds_prints_nothing() {
    let world = World::new(school(&[canvas("users"), canvas("accounts")])).await;
    let quiet = |arguments: &[&str]| world.daplake(&[arguments, &["--quiet"]].concat());
    assert_silent(quiet(&[&SYNC[..], &["--logfile", "run.log"]].concat()));
    let log = std::fs::read_to_string(world.path("run.log")).unwrap();
    assert!(log.matches("Table loaded").count() == 2 && log.contains("Run ended"), "the log has everything: {log}");
    // Notes and warnings alone are no failure: a notification that does not arrive, and a table that the service does not list.
    let notify = ["--notify-on", "always", "--notify-command", "exit 3", "--drop-column", "*.no_such_column_*"];
    world.daplake(&[&SYNC[..], &notify].concat()).assert_code(0).assert_says(&["warning: "]);
    assert_silent(quiet(&[&SYNC[..], &notify].concat()));
    for command in ["check", "optimize", "vacuum"] {
        let arguments = [command, "--target", "lake"];
        world.daplake(&arguments).assert_code(0);
        assert_silent(quiet(&arguments));
    }
    // Output that was asked for is no chatter.
    let rows = quiet(&["query", "--target", "lake", "--output", "csv", "SELECT 1 AS one"]).assert_code(0);
    assert_eq!(rows.stdout, "one\n1\n");
    let report = quiet(&[&SYNC[..], &["--report", "-"]].concat()).assert_code(0);
    assert!(report.stdout.starts_with('{') && report.stderr.is_empty(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_fails_prints_the_failures_and_sums_up_notes() {
    let world = World::new(school(&[canvas("users"), canvas("accounts")])).await;
    world.server.inject_for(&canvas("users"), Fault::parse("malformed-line").unwrap(), Times::Always);
    let more = ["-q", "--notify-on", "always", "--notify-command", "exit 3"];
    let run = world.daplake(&[&SYNC[..], &more].concat()).assert_code(5);
    assert_eq!(run.stdout, "");
    for part in ["canvas.users", "error: 1 of 2 tables failed", "1 warning: see --logfile or --report"] {
        assert!(run.stderr.contains(part), "{part} is not in\n{}", run.stderr);
    }
    for part in ["canvas.accounts", "loaded", "upserted", "notification"] {
        assert!(!run.stderr.contains(part), "{part} is in\n{}", run.stderr);
    }
    let mut wrong = world.command(&[&SYNC[..], &["--quiet"]].concat());
    let run = Run::of(wrong.env("DAP_CLIENT_SECRET", "wrong").output().unwrap()).assert_code(5).assert_says(&["hint: "]);
    assert!(run.stdout.is_empty() && run.stderr.starts_with("error: "), "{run:?}");
    let mut check = world.command(&["check", "--quiet", "--target", "lake"]);
    let run = Run::of(check.env("DAP_CLIENT_SECRET", "wrong").output().unwrap()).assert_code(5);
    assert!(run.stdout.starts_with("FAIL  credentials") && !run.stdout.contains("ok  "), "{run:?}");
}
