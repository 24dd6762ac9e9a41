//! Standard output, standard error and the log file in both modes, and exit codes of whole runs.

use std::process::Stdio;
use std::time::Duration;

use daplake::demo::serve::{Endpoint, Fault, Times};
use serde_json::Value;

use super::{filtered, names, run, small_world};
use crate::support::{CLIENT_ID, CLIENT_SECRET, World, canvas};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_prints_a_text_for_people_and_one_name_per_line_for_scripts() {
    let world = small_world().await;
    let people = world.daplake(&["list", "--namespace", "canvas"]).assert_code(0);
    assert_eq!(people.stderr, "");
    insta::assert_snapshot!(people.stdout, @r"
    i Tables of the namespace canvas
    ➞ Asking the service for its list
    ✓ 3 tables in canvas: accounts, courses, users
    ");
    let scripts = world.daplake(&["--non-interactive", "list", "--namespace", "canvas"]).assert_code(0);
    assert_eq!(scripts.stdout, "accounts\ncourses\nusers\n");
    let quiet = world.daplake(&["--non-interactive", "--no-log-to-console", "list", "--namespace", "canvas"]).assert_code(0);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("accounts\ncourses\nusers\n", ""));
    // Without --non-interactive the option does not matter.
    let people_again = world.daplake(&["--no-log-to-console", "list", "--namespace", "canvas"]).assert_code(0);
    assert_eq!(people_again.stdout, people.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schema_reports_each_table_with_its_number() {
    let world = small_world().await;
    let one = world.daplake(&["schema", "--namespace", "canvas", "--table", "users"]).assert_code(0);
    assert_eq!(one.stderr, "");
    insta::assert_snapshot!(one.stdout, @r"
    i Schema of canvas.users
    ➞ Saved as downloads/users_schema_version_1.json
    ✓ canvas.users is complete
    ");
    let all = world.daplake(&["schema", "--namespace", "canvas", "--table", "all", "--output-directory", "s"]).assert_code(0);
    insta::assert_snapshot!(all.stdout, @r"
    i Schema of canvas.accounts (1 of 3)
    ➞ Saved as s/accounts_schema_version_1.json
    ✓ canvas.accounts is complete
    i Schema of canvas.courses (2 of 3)
    ➞ Saved as s/courses_schema_version_1.json
    ✓ canvas.courses is complete
    i Schema of canvas.users (3 of 3)
    ➞ Saved as s/users_schema_version_1.json
    ✓ canvas.users is complete
    ");
    assert_eq!(
        world.daplake(&["--non-interactive", "schema", "--namespace", "canvas", "--table", "all"]).assert_code(0).stdout,
        ""
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_reports_on_standard_output_for_people_only() {
    let world = small_world().await;
    let people = world.daplake(&["snapshot", "--namespace", "canvas", "--table", "users, accounts"]).assert_code(0);
    assert_eq!(people.stderr, "");
    assert!(!people.stdout.contains('\u{1b}'), "no colour without a terminal");
    let sizeless: String = filtered(&people.stdout)
        .lines()
        .map(|line| line.split(" (").next().filter(|_| line.contains("KiB")).unwrap_or(line).to_owned() + "\n")
        .collect();
    insta::assert_snapshot!(sizeless, @r"
    i Snapshot of canvas.users (1 of 2)
    ➞ Job <id> finished with status complete
    ➞ 8 files in downloads/job_<id>
    ✓ canvas.users is complete
    i Snapshot of canvas.accounts (2 of 2)
    ➞ Job <id> finished with status complete
    ➞ 1 file in downloads/job_<id>
    ✓ canvas.accounts is complete
    ");
    let scripts = world.daplake(&["--non-interactive", "snapshot", "--namespace", "canvas", "--table", "users,accounts"]);
    let scripts = scripts.assert_code(0);
    assert_eq!(scripts.stdout, "", "no empty lines between tables either");
    for line in scripts.stderr.lines() {
        assert_plain(line, "INFO");
    }
    assert!(scripts.stderr.contains("\"at\":\"2026-01-01T00:00:00Z\""), "the time for the next --since: {}", scripts.stderr);
    let first: Vec<&str> = scripts.stderr.lines().take(3).collect();
    assert!(first[0].contains("daplake") && first[1].contains("Platform") && first[2].contains("Features"), "{first:?}");
}

/// `2026-11-23 09:30:42,017 - INFO - text`.
#[track_caller]
fn assert_plain(line: &str, level: &str) {
    let shape: String = line.chars().take(23).map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00 00:00:00,000", "{line}");
    assert!(line[23..].starts_with(&format!(" - {level} - ")), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_table_does_not_affect_others_and_the_code_is_5() {
    let world = small_world().await;
    let arguments = ["snapshot", "--namespace", "canvas", "--table", "nowhere,users"];
    let people = world.daplake(&arguments).assert_code(5);
    assert_eq!(people.stderr, "");
    for words in ["✗ ERROR:", "canvas.nowhere", "uuid", "✓ canvas.users is complete", "1 of 2 tables failed"] {
        assert!(people.stdout.replace('\n', " ").contains(words), "{words}: {}", people.stdout);
    }
    let mut for_scripts = vec!["--non-interactive", "--loglevel", "error"];
    for_scripts.extend(arguments);
    let scripts = world.daplake(&for_scripts).assert_code(5);
    assert_eq!(scripts.stdout, "");
    assert_eq!(scripts.stderr.lines().count(), 2);
    scripts.stderr.lines().for_each(|line| assert_plain(line, "ERROR"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_that_every_table_would_have_stops_the_command() {
    let world = small_world().await;
    world.server.inject(Fault::parse("account-under-maintenance:schema").unwrap(), Times::Always);
    let run = world.daplake(&["schema", "--namespace", "canvas", "--table", "users,accounts,courses"]).assert_code(5);
    let text = run.stdout.replace('\n', " ");
    assert!(text.contains("1 of 3 tables failed, 2 skipped") && text.contains("maintenance"), "{text}");
    assert_eq!(names(&world.path("downloads")), [""; 0]);

    let wrong = super::run(world.command(&["list", "--namespace", "canvas"]).env("DAP_CLIENT_SECRET", "planted-wrong-one"));
    let wrong = wrong.assert_code(5);
    assert!(wrong.stdout.contains("✗ ERROR:") && !wrong.stdout.contains("planted-wrong-one"), "{}", wrong.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_namespace_is_reported_as_the_service_does() {
    let world = small_world().await;
    let run = world.daplake(&["list", "--namespace", "moodle"]).assert_code(5);
    assert!(run.stdout.contains("✗ ERROR:") && run.stdout.contains("moodle"), "{}", run.stdout);
    assert_eq!(world.server.counters().calls_of(Endpoint::Tables), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_service_is_an_error_and_not_a_hang() {
    let world = small_world().await;
    let mut command = world.command(&["list", "--namespace", "canvas"]);
    // Nothing listens on a port that was just free.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let run = run(command.env("DAP_API_URL", format!("http://127.0.0.1:{port}"))).assert_code(5);
    assert!(run.stdout.contains("✗ ERROR:"), "{}", run.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_file_gets_all_lines_in_both_modes_and_is_appended_to() {
    let world = small_world().await;
    let log = world.path("log.txt");
    let log_name = log.to_str().unwrap();
    world.daplake(&["--logfile", log_name, "list", "--namespace", "canvas"]).assert_code(0);
    let first = std::fs::read_to_string(&log).unwrap();
    first.lines().for_each(|line| assert_plain(line, "INFO"));
    let arguments = [
        "--logfile",
        log_name,
        "--non-interactive",
        "--no-log-to-console",
        "--loglevel",
        "debug",
        "list",
        "--namespace",
        "canvas",
    ];
    world.daplake(&arguments).assert_code(0);
    let both = std::fs::read_to_string(&log).unwrap();
    assert!(both.starts_with(&first) && both.len() > first.len());
    let debug = both.lines().filter(|line| line.contains(" - DEBUG - ")).collect::<Vec<_>>();
    assert!(!debug.is_empty());
    for line in debug {
        let (_, place) = line.rsplit_once(" (").unwrap();
        assert!(place.contains(".rs:") && place.ends_with(')'), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_log_lines_have_the_members_of_the_official_client() {
    let world = small_world().await;
    let arguments = ["--non-interactive", "--logformat", "json", "snapshot", "--namespace", "canvas", "--table", " users"];
    let run = world.daplake(&arguments).assert_code(0);
    for line in run.stderr.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let names: Vec<&String> = record.as_object().unwrap().keys().collect();
        assert_eq!(
            names,
            [
                "level",
                "message",
                "timestamp",
                "logger_name",
                "filename",
                "module",
                "lineno",
                "funcName",
                "dap_namespace",
                "dap_table",
                "dap_client_id",
                // Our own member, after those of the official client.
                "fields"
            ]
        );
        assert_eq!(
            (&record["dap_namespace"], &record["dap_table"], &record["dap_client_id"]),
            (&"canvas".into(), &" users".into(), &CLIENT_ID.into())
        );
        let time = record["timestamp"].as_str().unwrap();
        assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
        assert!(record["filename"].as_str().unwrap().ends_with(".rs") && record["lineno"].as_u64().unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_is_wrapped_where_there_is_no_terminal() {
    let world = small_world().await;
    let wide = run(world.command(&["list", "--namespace", "canvas"]).env("COLUMNS", "200"));
    let narrow = run(world.command(&["list", "--namespace", "canvas"]).env("COLUMNS", "20"));
    assert_eq!(wide.stdout.lines().count(), 3);
    assert!(
        narrow.stdout.lines().count() > 5 && narrow.stdout.lines().all(|line| line.chars().count() <= 20),
        "{}",
        narrow.stdout
    );
    assert_eq!(narrow.stdout.split_whitespace().collect::<Vec<_>>(), wide.stdout.split_whitespace().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_jobs_are_reported_with_type_and_uuid() {
    let world = small_world().await;
    world.server.inject(Fault::parse("job-fails:Out of memory").unwrap(), Times::Once);
    let mut command = world.command(&["snapshot", "--namespace", "canvas", "--table", "users"]);
    // The wait before the next attempt is long; the output until then is enough.
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let printed = {
        use std::io::{BufRead, BufReader};
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut printed = String::new();
        for line in lines.map_while(Result::ok) {
            printed.push_str(&line);
            printed.push(' ');
            if printed.contains('⚠') && printed.contains("uuid:") {
                break;
            }
        }
        printed
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(printed.contains("⚠") && printed.contains("type:") && printed.contains("uuid:"), "{printed}");
}

/// Starts a snapshot whose downloads stall, and signals it once they have started.
#[cfg(unix)]
async fn signalled(world: &World, arguments: &[&str], signal: &str) -> std::process::Output {
    // Tables are prepared in advance, and none of them may be complete before the signal.
    for table in ["users", "accounts", "courses"] {
        world.server.inject_for(&canvas(table), Fault::parse("stall:30:50").unwrap(), Times::Always);
    }
    let mut command = world.command(arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !world.server.counters().job_starts.iter().any(|start| start.table == canvas("users"))
        || world.server.counters().downloads().gets < 3
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_is_code_125_and_the_rest_is_skipped() {
    for mode in [&[][..], &["--non-interactive"]] {
        let world = small_world().await;
        let mut arguments = mode.to_vec();
        arguments.extend(["snapshot", "--namespace", "canvas", "--table", "users,accounts,courses"]);
        let output = signalled(&world, &arguments, "-INT").await;
        assert_eq!(output.status.code(), Some(125));
        let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let printed = printed.replace('\n', " ");
        assert!(printed.contains("Interrupted") && printed.contains("1 of 3 tables failed, 2 skipped"), "{printed}");
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ends_the_process_with_the_code_of_that_signal() {
    use std::os::unix::process::ExitStatusExt;
    let world = small_world().await;
    let output = signalled(&world, &["snapshot", "--namespace", "canvas", "--table", "users"], "-TERM").await;
    assert_eq!(output.status.signal(), Some(15), "a shell reports 143");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_pipe_is_not_a_failure() {
    let world = small_world().await;
    let mut command = world.command(&["--non-interactive", "--no-log-to-console", "list", "--namespace", "canvas"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_output_or_log_contains_a_secret() {
    let mut printed = String::new();
    for fault in ["error-500:objects", "url-expires", "gone-at-download", "corrupt", "token-dies", "reset:10"] {
        let world = small_world().await;
        world.server.inject(Fault::parse(fault).unwrap(), Times::N(3));
        for (number, mode) in ["--non-interactive", "--no-tracking"].iter().enumerate() {
            let log = world.path(&format!("log{number}.txt"));
            let run = world.daplake(&[
                mode,
                "--loglevel",
                "debug",
                "--logfile",
                log.to_str().unwrap(),
                "snapshot",
                "--namespace",
                "canvas",
                "--table",
                "users,accounts",
            ]);
            printed.push_str(&run.stdout);
            printed.push_str(&run.stderr);
            printed.push_str(&std::fs::read_to_string(log).unwrap());
        }
    }
    assert!(printed.len() > 5000, "there is something to search");
    for secret in [CLIENT_SECRET, "Bearer ", "Basic ", "ignature=", "sig=", "eyJ"] {
        let line = printed.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} was printed");
    }
}
