//! The downloaded files: names, folders, bytes. And the times that are requested.

use std::io::Read;

use serde_json::Value;

use super::{job_folder, names, run, small_world};
use crate::support::World;

fn gunzip(bytes: &[u8]) -> String {
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_a_job_folder_with_the_files_of_the_service() {
    let world = small_world().await;
    for (format, ending) in [(None, "jsonl.gz"), (Some("csv"), "csv.gz"), (Some("tsv"), "tsv.gz"), (Some("parquet"), "parquet")]
    {
        let folder = format.unwrap_or("default");
        let mut arguments = vec!["snapshot", "--namespace", "canvas", "--table", "users", "--output-directory", folder];
        arguments.extend(format.iter().flat_map(|format| ["--format", format]));
        world.daplake(&arguments).assert_code(0);
        let job = job_folder(&world, folder);
        assert_eq!(names(&world.path(folder)).len(), 1, "nothing beside the job's folder");
        let (hidden, files): (Vec<String>, Vec<String>) = names(&job).into_iter().partition(|name| name.starts_with('.'));
        assert_eq!(hidden, [daplake::internals::ops::files::MANIFEST]);
        assert_eq!(files.len(), 8);
        for (number, name) in files.iter().enumerate() {
            assert_eq!(*name, format!("part-{number:05}-c000.{ending}"));
            let bytes = std::fs::read(job.join(name)).unwrap();
            match format {
                Some("parquet") => assert!(bytes.starts_with(b"PAR1")),
                _ => assert!(!gunzip(&bytes).is_empty()),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_folder_is_downloads() {
    let world = small_world().await;
    world.daplake(&["snapshot", "--namespace", "canvas", "--table", "accounts"]).assert_code(0);
    let folder = job_folder(&world, "downloads");
    let id = folder.file_name().unwrap().to_str().unwrap().strip_prefix("job_").unwrap();
    assert_eq!(world.server.counters().job_starts[0].id, id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_unpack_and_convert_files() {
    let world = small_world().await;
    let base = ["snapshot", "--namespace", "canvas", "--table", "users", "--output-directory"];
    world.daplake(&[&base[..], &["plain", "--decompress"]].concat()).assert_code(0);
    assert_eq!(names(&job_folder(&world, "plain"))[1], "part-00000-c000.jsonl");
    world.daplake(&[&base[..], &["converted", "--convert", "parquet", "--format", "csv"]].concat()).assert_code(0);
    assert_eq!(names(&job_folder(&world, "converted"))[1], "part-00000-c000.parquet");
    let refused = world.daplake(&[&base[..], &["none", "--convert", "parquet", "--format", "parquet"]].concat());
    refused.assert_code(5).assert_says(&["Parquet"]);
    assert_eq!(names(&world.path("none")), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schema_files_are_those_of_the_official_client() {
    let world = small_world().await;
    world.daplake(&["schema", "--namespace", "canvas", "--table", "all"]).assert_code(0);
    let expected: Vec<String> =
        ["accounts", "courses", "users"].iter().map(|table| format!("{table}_schema_version_1.json")).collect();
    assert_eq!(names(&world.path("downloads")), expected);
    for table in ["accounts", "users"] {
        let text = std::fs::read_to_string(world.path(&format!("downloads/{table}_schema_version_1.json"))).unwrap();
        assert!(text.starts_with("{\n    \"schema\": {\n        \"$schema\": "), "{}", &text[..80]);
        assert!(text.ends_with("\n    },\n    \"version\": 1\n}"), "no newline at the end");
        assert!(text.is_ascii());
        let value: Value = serde_json::from_str(&text).unwrap();
        let served = world.school.schema(&crate::support::canvas(table), 1).unwrap();
        assert_eq!(value["schema"], served);
        // Where Python is installed, its output is the reference.
        let script = "import json,sys; t=open(sys.argv[1]).read(); sys.exit(t != json.dumps(json.loads(t), indent=4))";
        let path = world.path(&format!("downloads/{table}_schema_version_1.json"));
        match std::process::Command::new("python3").args(["-c", script]).arg(path).status() {
            Ok(status) => assert!(status.success(), "{table}: Python writes the same value differently"),
            Err(_) => eprintln!("not run: comparison with Python's writer"),
        }
    }
}

/// The query that was sent to the service, from the log line of the job.
fn window(world: &World, arguments: &[&str], zone: &str) -> (String, String, String) {
    let mut all = vec!["--non-interactive", "incremental", "--namespace", "canvas", "--table", "users"];
    all.extend(arguments);
    let run = run(world.command(&all).env("TZ", zone)).assert_code(0);
    let line = run.stderr.lines().find(|line| line.contains("\"until\"")).unwrap();
    let json = &line[line.find('{').unwrap()..=line.rfind('}').unwrap()];
    let job: Value = serde_json::from_str(json).unwrap();
    (job["since"].as_str().unwrap().to_owned(), job["until"].as_str().unwrap().to_owned(), run.stderr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_are_accepted_in_every_form() {
    let world = small_world().await;
    let newest = world.school.advance().to_string();
    let zone = "CET-1CEST,M3.5.0,M10.5.0/3";
    for (typed, since, is_local) in [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", false),
        ("2026-01-01T02:00:00.123456789+02:00", "2026-01-01T00:00:00.123456Z", false),
        ("2026-01-01T01:30", "2026-01-01T00:30:00Z", true),
        ("20260101 0130", "2026-01-01T00:30:00Z", true),
        ("2026-01-02", "2026-01-01T23:00:00Z", true),
        ("2026-W01-5", "2026-01-01T23:00:00Z", true),
    ] {
        // The second of January is after the newest commit, so the service refuses the query; only its text matters.
        let (asked, until, log) = match typed.contains("02") && is_local || typed.contains('W') {
            true => continue_later(&world, typed, zone),
            false => window(&world, &["--since", typed], zone),
        };
        assert_eq!((asked.as_str(), until.is_empty() || until == newest), (since, true), "{typed}");
        assert_eq!(log.contains(" - WARNING - --since has no offset"), is_local, "{typed}: {log}");
    }
    let (since, until, _) = window(&world, &["--since", "2026-01-01T00:00:00Z", "--until", "2026-01-01T04:00:00+00:00"], zone);
    assert_eq!((since.as_str(), until.as_str()), ("2026-01-01T00:00:00Z", newest.as_str()));
    // People see the warning as well.
    let arguments = ["incremental", "--namespace", "canvas", "--table", "users", "--since", "2026-01-01T01:00:00"];
    let people = run(world.command(&arguments).env("TZ", zone)).assert_code(0);
    assert!(people.stdout.contains("⚠ --since has no offset"), "{}", people.stdout);
}

/// For a window that the service refuses: the error contains the query.
fn continue_later(world: &World, typed: &str, zone: &str) -> (String, String, String) {
    let arguments = ["--non-interactive", "incremental", "--namespace", "canvas", "--table", "users", "--since", typed];
    let run = run(world.command(&arguments).env("TZ", zone));
    let text = run.stderr.clone();
    let asked = text
        .split(", since: ")
        .nth(1)
        .map(|rest| rest.split([',', ')']).next().unwrap().to_owned())
        .or_else(|| text.split("\"since\":\"").nth(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
    (asked.unwrap_or_else(|| panic!("{text}")), String::new(), text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_manifest_holds_the_start_of_the_next_increment() {
    let world = small_world().await;
    world.daplake(&["snapshot", "--namespace", "canvas", "--table", "users", "--output-directory", "s"]).assert_code(0);
    let manifest = |folder: &str| -> Value {
        let path = job_folder(&world, folder).join(daplake::internals::ops::files::MANIFEST);
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    let since = manifest("s")["next_since"].as_str().unwrap().to_owned();
    let newest = world.school.advance();
    let arguments = ["incremental", "--namespace", "canvas", "--table", "users", "--output-directory", "i", "--since", &since];
    world.daplake(&arguments).assert_code(0);
    let second = manifest("i");
    assert_eq!((&second["query"], &second["since"]), (&"incremental".into(), &since.as_str().into()));
    assert_eq!(second["next_since"], newest.to_string());
}
