//! Syntax, validation, precedence of variables, and exit codes of refused commands.

use super::{names, run, small_world};
use crate::support::{CLIENT_ID, CLIENT_SECRET, Run, bare_command};

fn bare(arguments: &[&str]) -> Run {
    run(&mut bare_command(arguments))
}

/// Asserts a usage error, which is printed on standard error only.
#[track_caller]
fn assert_usage(run: Run, words: &[&str]) {
    let run = run.assert_code(2).assert_says(words);
    assert_eq!(run.stdout, "");
    assert!(run.stderr.contains("Usage:") || run.stderr.contains("--help"), "{}", run.stderr);
}

#[cfg(unix)]
#[test]
fn a_link_named_dap_behaves_like_the_official_client() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("dap");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_daplake"), &link).unwrap();
    let dap = |arguments: &[&str]| run(std::process::Command::new(&link).args(arguments).env_remove("DAP_CONSOLE_THEME"));
    assert_eq!(dap(&["--version"]).assert_code(0).stdout, "dap 2.3.1\n");
    assert!(dap(&["--help"]).assert_code(0).stdout.contains("Usage: dap "));
    assert_eq!(bare(&["--version"]).assert_code(0).stdout, format!("daplake {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn without_arguments_the_help_is_printed() {
    let alone = bare(&[]).assert_code(0);
    assert_eq!(alone.stderr, "");
    assert_eq!(alone.stdout, bare(&["-h"]).assert_code(0).stdout);
    assert_eq!(bare(&["--loglevel", "debug"]).assert_code(0).stdout, alone.stdout);
}

#[test]
fn help_names_every_option_with_its_default_and_an_example() {
    let help = bare(&["--help"]).assert_code(0);
    assert_eq!(help.stderr, "");
    for word in [
        "snapshot",
        "incremental",
        "list",
        "schema",
        "completions",
        "man",
        "--base-url",
        "https://api-gateway.instructure.com",
        "DAP_API_URL",
        "--client-id",
        "DAP_CLIENT_ID",
        "--client-secret",
        "DAP_CLIENT_SECRET",
        "--loglevel",
        "--logfile",
        "--logformat",
        "--no-log-to-console",
        "--no-tracking",
        "DAP_TRACKING",
        "--non-interactive",
        "--console-theme",
        "DAP_CONSOLE_THEME",
        "--version",
        "--help",
    ] {
        assert!(help.stdout.contains(word), "{word}");
    }
    for (command, words) in [
        ("list", vec!["--namespace"]),
        ("schema", vec!["--namespace", "--table", "--output-directory", "[default: downloads]"]),
        (
            "snapshot",
            vec!["--namespace", "--table", "--format", "[default: jsonl]", "--output-directory", "--convert", "--concurrency"],
        ),
        ("incremental", vec!["--since", "--until", "--format", "--output-directory", "--decompress", "--fresh"]),
    ] {
        for flag in ["-h", "--help"] {
            let help = bare(&[command, flag]).assert_code(0);
            assert!(help.stdout.contains("Example"), "{command}");
            // Long lines are wrapped.
            let text = help.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
            for word in &words {
                assert!(text.contains(word), "{command} {flag}: {word}");
            }
        }
    }
}

#[test]
fn invalid_arguments_are_usage_errors() {
    assert_usage(bare(&["fetch"]), &["fetch"]);
    assert_usage(bare(&["list", "--namespace", "canvas", "--tables"]), &["--tables"]);
    assert_usage(bare(&["list"]), &["--namespace"]);
    assert_usage(bare(&["list", "--names", "canvas"]), &["--names"]);
    assert_usage(bare(&["schema", "--namespace", "canvas"]), &["--table"]);
    assert_usage(bare(&["incremental", "--namespace", "canvas", "--table", "users"]), &["--since"]);
    assert_usage(bare(&["snapshot", "--namespace", "canvas", "--table", "users", "--format", "JSONL"]), &["jsonl"]);
    assert_usage(bare(&["snapshot", "--namespace", "canvas", "--table", "users", "--since", "2026-01-01"]), &["--since"]);
    assert_usage(bare(&["--loglevel", "INFO", "list", "--namespace", "canvas"]), &["info"]);
    assert_usage(bare(&["--logformat", "xml", "list", "--namespace", "canvas"]), &["plain"]);
    assert_usage(bare(&["--console-theme", "neon", "list", "--namespace", "canvas"]), &["dark"]);
    let since = |time: &str| bare(&["incremental", "--namespace", "canvas", "--table", "users", "--since", time]);
    assert_usage(since("yesterday"), &["yesterday", "2026-01-31T09:30:00Z"]);
    let extras = ["snapshot", "--namespace", "canvas", "--table", "users", "--decompress", "--convert", "parquet"];
    assert_usage(bare(&extras), &["--convert"]);
}

#[test]
fn an_invalid_theme_variable_is_a_usage_error_and_an_empty_one_is_ignored() {
    let with = |theme: &str| run(bare_command(&["list", "--namespace", "canvas"]).env("DAP_CONSOLE_THEME", theme));
    assert_usage(with("neon"), &["neon", "high-contrast-bw"]);
    with("").assert_code(5).assert_says(&["client id"]);
    with("light").assert_code(5).assert_says(&["client id"]);
}

#[test]
fn paths_that_cannot_be_written_are_usage_errors() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let nowhere = folder.path().join("nowhere/log.txt");
    assert_usage(bare(&["--logfile", nowhere.to_str().unwrap(), "list", "--namespace", "canvas"]), &["--logfile"]);
    assert_usage(bare(&["--logfile", folder.path().to_str().unwrap(), "list", "--namespace", "canvas"]), &["--logfile"]);
    for command in ["schema", "snapshot"] {
        let arguments = [command, "--namespace", "canvas", "--table", "users", "--output-directory", file];
        assert_usage(bare(&arguments), &["--output-directory"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_credentials_are_found_before_any_call() {
    let world = small_world().await;
    let command = |id: Option<&str>, secret: Option<&str>| {
        let mut command = world.command(&["list", "--namespace", "canvas"]);
        for (name, value) in [("DAP_CLIENT_ID", id), ("DAP_CLIENT_SECRET", secret)] {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        run(&mut command).assert_code(5)
    };
    command(None, None).assert_says(&["client id", "DAP_CLIENT_ID"]);
    command(Some(""), Some(CLIENT_SECRET)).assert_says(&["client id"]);
    command(Some(CLIENT_ID), None).assert_says(&["client secret", "DAP_CLIENT_SECRET"]);
    command(Some(CLIENT_ID), Some("")).assert_says(&["client secret"]);
    let counters = world.server.counters();
    assert!(counters.calls.is_empty(), "{counters:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tracking_variable_is_checked_and_ignored() {
    let world = small_world().await;
    let with = |value: &str, more: &[&str]| {
        let mut arguments = more.to_vec();
        arguments.extend(["--non-interactive", "list", "--namespace", "canvas"]);
        run(world.command(&arguments).env("DAP_TRACKING", value))
    };
    for value in ["false", "0", "no", "OFF", "true", "1", "Yes", "on", ""] {
        with(value, &[]).assert_code(0);
    }
    with("maybe", &[]).assert_code(5).assert_says(&["DAP_TRACKING"]);
    with("maybe", &["--no-tracking"]).assert_code(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_override_variables_and_the_last_option_wins() {
    let world = small_world().await;
    let url = format!("{}/", world.server.url().as_str().trim_end_matches('/'));
    let list = ["list", "--namespace", "nowhere", "--namespace=canvas"];
    let mut before = vec!["--non-interactive", "--base-url", &url, "--client-id", CLIENT_ID, "--client-secret", CLIENT_SECRET];
    before.extend(list);
    let mut wrong = bare_command(&before);
    wrong.env("DAP_API_URL", "http://127.0.0.1:9").env("DAP_CLIENT_ID", "wrong").env("DAP_CLIENT_SECRET", "wrong");
    let expected = "accounts\ncourses\nusers\n";
    assert_eq!(run(&mut wrong).assert_code(0).stdout, expected);
    // Global options may also follow the command.
    let mut after = list.to_vec();
    after.extend(["--base-url", &url, "--non-interactive", "--client-id", CLIENT_ID, "--client-secret", CLIENT_SECRET]);
    assert_eq!(run(&mut bare_command(&after)).assert_code(0).stdout, expected);
    // A value may begin with a dash.
    let mut refused = bare_command(&["--client-secret", "-x", "list", "--namespace", "canvas"]);
    refused.env("DAP_API_URL", &url).env("DAP_CLIENT_ID", CLIENT_ID);
    run(&mut refused).assert_code(5);
    assert_eq!(world.server.counters().refused_logins, 1);
}

#[test]
fn an_empty_base_url_variable_counts_as_unset() {
    let mut command = bare_command(&["--client-id", "a", "list", "--namespace", "canvas"]);
    // With an empty secret nothing is called; an empty URL would be an error of its own.
    let text = run(command.env("DAP_API_URL", "").env("DAP_CLIENT_SECRET", "")).assert_code(5).stdout;
    assert!(text.contains("client secret") && !text.contains("URL"), "{text}");
}

#[test]
fn completions_and_manual_pages_come_from_the_same_definitions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = bare(&["completions", shell]).assert_code(0);
        assert!(script.stdout.contains("output-directory") && script.stdout.contains("daplake"), "{shell}");
    }
    assert_usage(bare(&["completions", "tcsh"]), &["bash"]);
    let page = bare(&["man"]).assert_code(0).stdout;
    assert!(page.starts_with(".ie") && page.contains(".TH daplake 1") && page.contains("DAP_CLIENT_ID"), "{page}");
    let page = bare(&["man", "incremental"]).assert_code(0).stdout;
    assert!(page.contains(".TH daplake-incremental 1") && page.contains("\\-\\-since"), "{page}");
    assert_usage(bare(&["man", "nothing"]), &["nothing"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_usage_leaves_nothing_behind() {
    let world = small_world().await;
    run(&mut world.command(&["snapshot", "--namespace", "canvas", "--table", "users", "--format", "xml"])).assert_code(2);
    run(world.command(&["snapshot", "--namespace", "canvas", "--table", "users"]).env("DAP_CLIENT_SECRET", "wrong"))
        .assert_code(5);
    assert_eq!(names(&world.path("downloads")), [""; 0]);
}
