//! Reports of runs to a webhook over real HTTP, to a command and to Prometheus. A failing notification does not change the run, and its
//! address is never printed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use daplake::demo::serve::{Fault, Times};
use serde_json::Value;

use crate::support::{CLIENT_SECRET, World, canvas, school};

const SYNC: [&str; 5] = ["sync", "--target", "lake", "--jobs-per-minute", "0"];

/// A webhook that answers with these status lines in turn, then always with the last one, and forwards the bodies.
fn webhook(answers: &'static [&'static str]) -> (String, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook/planted-path-secret", listener.local_addr().unwrap());
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for (number, connection) in listener.incoming().enumerate() {
            let Ok(connection) = connection else { return };
            let Some(body) = read_request(&connection) else { continue };
            let status = answers.get(number).or(answers.last()).unwrap();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = (&connection).write_all(answer.as_bytes());
            if send.send(serde_json::from_slice(&body).unwrap()).is_err() {
                return;
            }
        }
    });
    (url, receive)
}

fn read_request(connection: &TcpStream) -> Option<Vec<u8>> {
    let mut reader = BufReader::new(connection);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SYNC[..], more].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_called_when_failures_start_and_end() {
    let world = World::new(school(&[canvas("users"), canvas("accounts")])).await;
    let (url, heard) = webhook(&["503 Busy", "200 OK"]);
    let sync = |more: &[&str]| {
        let mut command = world.command(&with(more));
        crate::support::Run::of(command.env("DAPLAKE_NOTIFY", &url).output().unwrap())
    };
    sync(&["--notify-on", "change"]).assert_code(0);
    sync(&[]).assert_code(0);
    assert!(heard.try_recv().is_err(), "nothing failed, and nothing changed");
    world.school.advance();
    world.server.inject_for(&canvas("users"), Fault::parse("malformed-line").unwrap(), Times::Always);
    let run = sync(&["--notify-on", "change"]).assert_code(5);
    assert!(!format!("{run:?}").contains("planted-path-secret"));
    let refused = heard.recv().unwrap();
    let message = heard.recv().unwrap();
    assert_eq!(refused, message, "a temporary refusal is repeated");
    assert_eq!(message["failed"], true);
    assert_eq!(message["totals"]["failed"], 1);
    assert_eq!(message["text"], "daplake: 1 of 2 tables failed");
    let tables = message["run"]["tables"].as_array().unwrap();
    let users = tables.iter().find(|table| table["table"] == "canvas.users").unwrap();
    assert_eq!(users["failure"]["kind"], "data");
    sync(&["--notify-on", "change"]).assert_code(5);
    assert!(heard.try_recv().is_err(), "unchanged failures are not reported again");
    world.server.clear_faults();
    world.school.advance();
    sync(&["--notify-on", "change", "--notify-form", "slack"]).assert_code(0);
    let message = heard.recv().unwrap();
    assert!(message["text"].as_str().unwrap().contains("2 tables are up to date"), "{message}");
    assert_eq!(message["blocks"][0]["type"], "section");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_notification_does_not_change_the_run_or_print_its_address() {
    let world = World::new(school(&[canvas("accounts")])).await;
    let (url, heard) = webhook(&["404 Gone"]);
    let run = world
        .daplake(&with(&["--notify", &url, "--notify-on", "always", "--notify-command", "exit 3"]))
        .assert_code(0)
        .assert_says(&["The notification could not be delivered", "404", "The notification command failed"]);
    assert!(!format!("{run:?}").contains("planted-path-secret"), "{run:?}");
    heard.recv().unwrap();
    assert!(heard.try_recv().is_err(), "a permanent refusal is not repeated");
    let wrong =
        world.daplake(&with(&["--notify", "planted-path-secret"])).assert_code(5).assert_says(&["--notify is not a URL"]);
    assert!(!format!("{wrong:?}").contains("planted-path-secret"), "{wrong:?}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_receives_the_run_on_standard_input_and_no_secret() {
    let world = World::new(school(&[canvas("accounts")])).await;
    let command = "cat > outcome.json; env > env.txt";
    world.daplake(&with(&["--notify-command", command])).assert_code(0);
    assert!(!world.path("outcome.json").exists(), "nothing failed");
    world.daplake(&with(&["--notify-command", command, "--notify-on", "always"])).assert_code(0);
    let outcome: Value = serde_json::from_str(&std::fs::read_to_string(world.path("outcome.json")).unwrap()).unwrap();
    assert_eq!(outcome["run"]["tables"][0]["outcome"], "unchanged");
    assert!(!std::fs::read_to_string(world.path("env.txt")).unwrap().contains(CLIENT_SECRET));
    // It gets no other secret, only the variables that it may need.
    let mut with_secrets = world.command(&with(&["--notify-command", "env > env.txt", "--notify-on", "always"]));
    let secrets = [
        "DAP_CONNECTION_STRING",
        "DAPLAKE_HASH_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "PGPASSWORD",
        "MYSQL_PWD",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "WAREHOUSE_PASSWORD",
    ];
    with_secrets.envs(secrets.map(|name| (name, "planted-secret of more than thirty-two bytes")));
    crate::support::Run::of(with_secrets.env("DAPLAKE_NOTIFY_URL", "https://own").output().unwrap()).assert_code(0);
    let environment = std::fs::read_to_string(world.path("env.txt")).unwrap();
    assert!(!environment.contains("planted-secret") && !environment.contains(crate::support::CLIENT_ID), "{environment}");
    assert!(environment.contains("PATH=") && environment.contains("DAPLAKE_NOTIFY_URL=https://own"), "{environment}");
    // A run that could not start is reported, too.
    world.server.inject(Fault::parse("account-disabled:tables").unwrap(), Times::Always);
    world.daplake(&with(&["--notify-command", command])).assert_code(5);
    let outcome: Value = serde_json::from_str(&std::fs::read_to_string(world.path("outcome.json")).unwrap()).unwrap();
    assert_eq!(outcome["run"]["failure"]["kind"], "account");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_run_serves_metrics_for_prometheus() {
    let world = World::new(school(&[canvas("accounts"), canvas("users")])).await;
    // A free port; the program prints its address only to the log.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut running = world.command(&with(&["--every", "1h", "--metrics-listen", &address])).spawn().unwrap();
    let get = |path: &str| {
        let mut connection = TcpStream::connect(&address).ok()?;
        connection.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).ok()?;
        let mut text = String::new();
        connection.read_to_string(&mut text).ok()?;
        Some(text)
    };
    let text = loop {
        assert!(running.try_wait().unwrap().is_none(), "the program is running");
        match get("/metrics") {
            Some(text) if text.contains("daplake_runs_total") => break text,
            _ => std::thread::yield_now(),
        }
    };
    let rows = world.school.expected(&canvas("users"), world.school.now()).unwrap().len();
    for line in [
        "HTTP/1.1 200 OK".to_owned(),
        "daplake_runs_total{result=\"success\"} 1".to_owned(),
        "daplake_job_starts_total 2".to_owned(),
        "daplake_run_in_progress 0".to_owned(),
        format!("daplake_upserted_rows_total{{table=\"canvas.users\"}} {rows}"),
        format!("daplake_decoded_rows_total{{table=\"canvas.users\"}} {rows}"),
        format!("daplake_table_rows{{table=\"canvas.users\"}} {rows}"),
        "daplake_received_bytes_total{table=\"canvas.users\"} ".to_owned(),
        "daplake_table_last_success_timestamp_seconds{table=\"canvas.accounts\"} ".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    assert!(get("/elsewhere").unwrap().starts_with("HTTP/1.1 404"));
    let taken = world.daplake(&with(&["--metrics-listen", &address])).assert_code(5);
    taken.assert_says(&["--metrics-listen", "another port"]);
    running.kill().unwrap();
    running.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_lines_have_their_fields_by_name() {
    let world = World::new(school(&[canvas("accounts")])).await;
    let log = world.path("run.log");
    let more = ["--logfile", log.to_str().unwrap(), "--logformat", "json", "--loglevel", "debug"];
    world.daplake(&with(&more)).assert_code(0);
    let text = std::fs::read_to_string(log).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let started = lines.iter().find(|line| line["message"].as_str().unwrap().starts_with("Job started")).unwrap();
    assert_eq!(started["fields"]["table"], "canvas.accounts");
    assert!(started["fields"]["job"].is_string());
    assert!(lines.iter().any(|line| line["fields"]["attempt"].is_u64()), "numbers stay numbers");
}
