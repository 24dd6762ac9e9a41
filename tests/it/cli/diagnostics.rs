//! Failures: log records, reports of runs that could not start, hints; signals at any time.

use std::net::TcpListener;
use std::path::Path;

use daplake::demo::serve::{Fault, Times};
use serde_json::Value;

use crate::support::{CLIENT_SECRET, Run, World, canvas, school};

const SYNC: [&str; 5] = ["sync", "--target", "lake", "--jobs-per-minute", "0"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SYNC[..], more].concat()
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn records(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// An address without a server.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("127.0.0.1:{}", listener.local_addr().unwrap().port())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_file_has_each_table_each_failure_and_the_totals() {
    let world = World::new(school(&[canvas("users"), canvas("accounts")])).await;
    world.server.inject_for(&canvas("users"), Fault::parse("malformed-line").unwrap(), Times::Always);
    let log = world.path("run.log");
    let run = world.daplake(&with(&["--logfile", log.to_str().unwrap()])).assert_code(5);
    assert!(run.stderr.contains("error: ") && run.stderr.contains("hint: "), "a terminal gets text: {run:?}");
    assert!(!run.stderr.contains(" - ERROR - "), "{run:?}");
    let text = lines(&log);
    let errors: Vec<&String> = text.iter().filter(|line| line.contains(" - ERROR - ")).collect();
    assert_eq!(errors.len(), 2, "one of the table, one of the run: {text:?}");
    assert!(["table: canvas.users", "hint: ", "kind: data"].iter().all(|word| errors[0].contains(word)), "{errors:?}");
    assert!(errors[1].contains("1 of 2 tables failed"), "{errors:?}");
    for words in ["Table started (table: canvas.accounts", "Table loaded (table: canvas.accounts", "Run ended"] {
        assert_eq!(
            text.iter().filter(|line| line.contains(" - INFO - ") && line.contains(words)).count(),
            1,
            "{words}: {text:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_json_logs_standard_error_has_only_json() {
    let world = World::new(school(&[canvas("users"), canvas("accounts")])).await;
    world.server.inject_for(&canvas("users"), Fault::parse("malformed-line").unwrap(), Times::Always);
    for more in [&[][..], &["--non-interactive"], &["--non-interactive", "--no-log-to-console"]] {
        let run = world.daplake(&with(&[&["--logformat", "json"][..], more].concat())).assert_code(5);
        let records = records(&run.stderr);
        let failed: Vec<&Value> = records.iter().filter(|record| record["level"] == "ERROR").collect();
        assert_eq!(failed.len(), 2, "{more:?}: {run:?}");
        let fields = &failed[0]["fields"];
        assert_eq!((&fields["kind"], &fields["table"]), (&"data".into(), &"canvas.users".into()), "{fields}");
        assert!(fields["hint"].is_string() && fields["context"]["object"].is_string(), "{fields}");
    }
    // A settings file that cannot be used, and a run that cannot start.
    let mut command = world.command(&with(&["--logformat", "json"]));
    let run = Run::of(command.env("DAP_CLIENT_SECRET", "wrong").output().unwrap()).assert_code(5);
    assert_eq!(records(&run.stderr).iter().filter(|record| record["fields"]["kind"] == "auth").count(), 1, "{run:?}");
    std::fs::write(world.path("wrong.toml"), "[log]\nfile = \"own.log\"\n[sync]\ntabels = [\"users\"]\n").unwrap();
    let run = world.daplake(&with(&["--logformat", "json", "--settings", "wrong.toml"])).assert_code(2);
    assert_eq!(records(&run.stderr).last().unwrap()["fields"]["kind"], "usage", "{run:?}");
    assert!(lines(&world.path("own.log")).iter().any(|line| line.contains("\"ERROR\"")), "the file of the settings");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_cannot_start_is_in_the_log_and_in_the_report() {
    let world = World::new(school(&[canvas("users")])).await;
    let postgres = format!("postgresql://etl:planted-password@{}/warehouse", nowhere());
    let service = format!("http://{}", nowhere());
    let (log, report) = (world.path("run.log"), world.path("report.json"));
    let common = ["--logfile", log.to_str().unwrap(), "--report", report.to_str().unwrap()];
    let sync = |target: &str, more: &[&str], variables: &[(&str, &str)]| {
        let _ = (std::fs::remove_file(&log), std::fs::remove_file(&report));
        let arguments = [&["sync", "--target", target, "--jobs-per-minute", "0"][..], &common[..], more].concat();
        let mut command = world.command(&arguments);
        command.envs(variables.iter().copied());
        let run = Run::of(command.output().unwrap()).assert_code(5);
        let text = std::fs::read_to_string(&report).unwrap();
        let report: Value = serde_json::from_str(&text).unwrap();
        let logged = lines(&log).into_iter().filter(|line| line.contains(" - ERROR - ")).collect::<Vec<_>>();
        assert_eq!(logged.len(), 1, "{logged:?}: {run:?}");
        for secret in ["planted-password", CLIENT_SECRET, "planted-wrong"] {
            assert!(!format!("{run:?}{text}{logged:?}").contains(secret), "{secret}: {run:?}");
        }
        assert!(logged[0].contains(report["failure"]["message"].as_str().unwrap()), "{logged:?}: {report}");
        assert_eq!(report["tables"], Value::Array(Vec::new()), "{report}");
        report
    };
    let wrong_secret = sync("lake", &[], &[("DAP_CLIENT_SECRET", "planted-wrong")]);
    assert_eq!(wrong_secret["failure"]["kind"], "auth");
    assert!(wrong_secret["failure"]["hint"].as_str().unwrap().contains("copied whole"), "{wrong_secret}");
    assert!(wrong_secret["target"].as_str().unwrap().contains("lake") && wrong_secret["run_id"].is_string());
    let no_secret = sync("lake", &[], &[("DAP_CLIENT_SECRET", "")]);
    assert_eq!(no_secret["failure"]["kind"], "auth");
    let no_database = sync(&postgres, &[], &[]);
    assert!(no_database["failure"]["causes"].is_array() && no_database["target"].as_str().unwrap().contains("warehouse"));
    let no_service = sync("lake", &[], &[("DAP_API_URL", &service)]);
    assert_eq!(no_service["failure"]["kind"], "unavailable");
    let unknown = sync("lake", &["--namespace", "canvs"], &[]);
    assert!(unknown["failure"]["hint"].as_str().unwrap().contains("`canvas`"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_targets_have_a_report_each_and_a_dash_is_standard_output() {
    let world = World::new(school(&[canvas("users")])).await;
    let settings = "[targets.one]\nurl = \"./one\"\n[targets.two]\nurl = \"./two\"\n[sync]\nreport = \"-\"\n";
    std::fs::write(world.path("two.toml"), settings).unwrap();
    let arguments = ["sync", "--settings", "two.toml", "--jobs-per-minute", "0"];
    let run = world.daplake(&arguments).assert_code(0);
    let reports: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(reports.as_array().unwrap().len(), 2, "{reports}");
    assert_eq!(reports[1]["tables"][0]["outcome"], "loaded");
    assert!(run.stderr.contains("1 loaded"), "the summary is on standard error: {run:?}");
    let run = Run::of(world.command(&arguments).env("DAP_CLIENT_SECRET", "").output().unwrap()).assert_code(5);
    let reports: Value = serde_json::from_str(&run.stdout).unwrap();
    assert!(reports.as_array().unwrap().iter().all(|report| report["failure"]["kind"] == "auth"), "{reports}");
    assert_eq!(reports.as_array().unwrap().len(), 2);
    assert!(!world.path("-").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotes_and_blanks_in_a_copied_key_are_named() {
    let world = World::new(school(&[canvas("users")])).await;
    let refused = |id: &str, secret: &str, words: &str| {
        let mut command = world.command(&["check"]);
        let run = command.env("DAP_CLIENT_ID", id).env("DAP_CLIENT_SECRET", secret).output().unwrap();
        let run = Run::of(run).assert_code(5).assert_says(&[words, "copied whole"]);
        assert!(!format!("{run:?}").contains(secret.trim()), "{run:?}");
    };
    let id = crate::support::CLIENT_ID;
    refused(&format!("'{id}'"), "planted-wrong-one", "the client id begins with a quote and ends with a quote");
    refused(id, &format!("{CLIENT_SECRET}\n"), "the client secret ends with a line end");
    refused(id, &format!("{CLIENT_SECRET}\r"), "the client secret ends with a carriage return");
    refused(&format!("{id}\u{a0}"), CLIENT_SECRET, "the client id ends with a no-break space");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_name_the_nearest_name() {
    let world = World::new(school(&[canvas("users"), canvas("accounts")])).await;
    let says = |arguments: &[&str], words: &[&str], not: &[&str]| {
        let run = world.daplake(arguments);
        assert_ne!(run.code, Some(0));
        let text = format!("{}{}", run.stdout, run.stderr).replace("\n", " ");
        words.iter().for_each(|word| assert!(text.contains(word), "{word}: {text}"));
        not.iter().for_each(|word| assert!(!text.contains(word), "{word}: {text}"));
    };
    says(&["list", "--namespace", "canvs"], &["did you mean the namespace `canvas`?"], &["daplake list"]);
    says(&["list", "--namespace", "Canvas"], &["did you mean the namespace `canvas`?"], &[]);
    says(&["list", "--namespace", "moodle"], &["namespaces are canvas, canvas_logs"], &["daplake list"]);
    says(&with(&["--table", "usrs"]), &["did you mean `users`?"], &["the others are right"]);
    says(&with(&["--table", "catalog.users"]), &["add --namespace catalog"], &["did you mean"]);
    let database = ["--target", "postgresql://u@127.0.0.1/d"];
    for (command, words) in
        [("vacuum", "manage their files"), ("optimize", "manage their files"), ("query", "client of the database")]
    {
        let more = if command == "query" { &["SELECT 1"][..] } else { &[] };
        says(&[&[command][..], &database[..], more].concat(), &["works on lake tables", words], &["can be queried"]);
    }
}

#[cfg(unix)]
mod signals {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use daplake::demo::school::SchoolOptions;

    use super::*;

    fn signal(child: &Child, name: &str) {
        assert!(Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap().success());
    }

    /// The signals that end a run here. Processes below `nohup` ignore SIGHUP and inherit that.
    fn signals() -> Vec<&'static str> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
        if ignored & 1 == 0 {
            return vec!["TERM", "HUP", "INT"];
        }
        eprintln!("not run: SIGHUP (it is ignored here)");
        vec!["TERM", "INT"]
    }

    /// Waits for the end; returns how long it took.
    fn ended(mut child: Child) -> (Option<i32>, Duration) {
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return (status.code(), begun.elapsed());
            }
            if begun.elapsed() > Duration::from_secs(40) {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("the run continues");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `DAPLAKE_TEST_SIGNALS` is the number of rounds, 12 by default.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_signal_between_two_waits_is_not_lost() {
        let rounds: usize = std::env::var("DAPLAKE_TEST_SIGNALS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
        let world = World::new(school(&[canvas("users"), canvas("accounts")])).await;
        let arguments = with(&["--watch", "--every", "30s", "--refresh", "0s"]);
        let signals = signals();
        for round in 0..rounds {
            let mut child = world.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            let moment = ["data as of", "next run at"][round % 2];
            let mut stderr = BufReader::new(child.stderr.take().unwrap());
            let mut line = String::new();
            while !line.contains(moment) {
                line.clear();
                assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended");
            }
            signal(&child, signals[round % signals.len()]);
            // A full pipe must not block it.
            std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
            let (code, took) = tokio::task::spawn_blocking(move || ended(child)).await.unwrap();
            assert_eq!(code, Some(0), "round {round}: the ordinary end of a service");
            assert!(took < Duration::from_secs(20), "round {round}: {took:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_signal_leaves_spilled_rows_or_a_panic_message() {
        let world = World::new(SchoolOptions { rows: 2000, ..school(&[canvas("users"), canvas("submissions")]) }).await;
        world.server.inject(Fault::parse("drip:2000").unwrap(), Times::Always);
        let temp = world.path("temp");
        std::fs::create_dir(&temp).unwrap();
        let arguments = with(&["--temp-dir", temp.to_str().unwrap()]);
        for name in signals() {
            let before = world.server.counters().downloads().gets;
            let child = world.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            while world.server.counters().downloads().gets == before || temp.read_dir().unwrap().next().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            signal(&child, name);
            let run = tokio::task::spawn_blocking(move || Run::of(child.wait_with_output().unwrap())).await.unwrap();
            let run = run.assert_code(125).assert_says(&["Interrupted"]);
            assert!(!run.stderr.contains("panicked"), "{run:?}");
            let left: Vec<_> = temp.read_dir().unwrap().collect();
            assert!(left.is_empty(), "{name}: {left:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_process_that_ignores_sighup_survives_it() {
        let world = World::new(school(&[canvas("users")])).await;
        let arguments = with(&["--every", "1h"]);
        let mut command = Command::new("nohup");
        let daplake = world.command(&arguments);
        command.arg(daplake.get_program()).args(daplake.get_args()).current_dir(daplake.get_current_dir().unwrap());
        for (name, value) in daplake.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("next run at") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended");
        }
        signal(&child, "HUP");
        std::thread::sleep(Duration::from_millis(500));
        assert!(child.try_wait().unwrap().is_none(), "the run continues");
        signal(&child, "TERM");
        assert_eq!(tokio::task::spawn_blocking(move || ended(child)).await.unwrap().0, Some(0));
    }
}
