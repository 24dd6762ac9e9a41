//! `query`: formats of results, statements from standard input, and the prompt in a pseudo terminal.

use std::io::Write;
#[cfg(all(unix, feature = "prompt"))]
use std::process::Command;
use std::process::Stdio;

#[cfg(all(unix, feature = "prompt"))]
use serde_json::{Value, json};

use crate::support::{Run, World, canvas, school};

async fn lake() -> World {
    let world = World::new(school(&[canvas("users"), canvas("accounts")])).await;
    world.sync_all().await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_can_be_a_parquet_file_and_plans_are_explained() {
    let world = lake().await;
    let users = world.school.expected(&canvas("users"), world.school.now()).unwrap().len();
    let file = world.path("users.parquet");
    let query = ["query", "--target", "lake"];
    let to_file = ["--output", "parquet", "--output-file", file.to_str().unwrap(), "SELECT id, name FROM users"];
    world.daplake(&[&query[..], &to_file].concat()).assert_code(0);
    let reader = parquet::file::reader::SerializedFileReader::try_from(std::fs::File::open(&file).unwrap()).unwrap();
    let metadata = parquet::file::reader::FileReader::metadata(&reader).file_metadata().clone();
    assert_eq!((metadata.num_rows(), metadata.schema_descr().num_columns()), (users as i64, 2));
    world
        .daplake(&[&query[..], &["EXPLAIN SELECT count(*) FROM users"]].concat())
        .assert_code(0)
        .assert_says(&["plan", "users"]);
    let copy = world.path("copy.csv");
    let statement = format!("EXPLAIN ANALYZE COPY users TO '{}'", copy.display());
    world.daplake(&[&query[..], &[&statement]].concat()).assert_code(5);
    assert!(!copy.exists(), "nothing is written by a statement");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_extension_of_a_file_selects_the_format() {
    let world = lake().await;
    let users = world.school.expected(&canvas("users"), world.school.now()).unwrap().len();
    let query = |file: &str, more: &[&str]| {
        let sql = "SELECT id, name, CAST(NULL AS text) AS none FROM users ORDER BY id";
        world.daplake(&[&["query", "--target", "lake", "--output-file", file], more, &[sql]].concat())
    };
    let read = |file: &str| std::fs::read(world.path(file)).unwrap();
    let text = |file: &str| String::from_utf8(read(file)).unwrap();
    for file in ["x.csv", "x.json", "x.JSONL", "x.parquet", "x.arrow", "x.arrows", "x.txt"] {
        query(file, &[]).assert_code(0);
    }
    assert_eq!((text("x.csv").lines().count(), text("x.csv").lines().next()), (users + 1, Some("id,name,none")));
    let array: Vec<serde_json::Value> = serde_json::from_str(&text("x.json")).unwrap();
    assert!(array.len() == users && array[0]["none"].is_null() && array[0].get("none").is_some(), "{:?}", array[0]);
    assert!(text("x.JSONL").lines().all(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].is_number()));
    assert!(read("x.parquet").starts_with(b"PAR1") && read("x.arrow").starts_with(b"ARROW1"));
    // A stream begins with a message, and ends with an empty one.
    assert!(read("x.arrows").starts_with(b"\xff\xff\xff\xff") && read("x.arrows").ends_with(b"\xff\xff\xff\xff\0\0\0\0"));
    assert!(text("x.txt").starts_with('+'));
    query("y.csv", &["--limit", "3"]).assert_code(0);
    assert_eq!(text("y.csv").lines().count(), 4);
    query("y.json", &["--output", "json"]).assert_code(0);
    query("y.data", &["--output", "csv"]).assert_code(0);
    for (file, form) in [("z.csv", "table"), ("z.parquet", "table"), ("z.json", "csv"), ("z.csv", "parquet")] {
        query(file, &["--output", form]).assert_code(5).assert_says(&["extension"]);
    }
    for file in ["z", "z.xlsx", "z.csv.gz"] {
        query(file, &[]).assert_code(5).assert_says(&["extension", ".parquet"]);
    }
    assert!(!["z.csv", "z.parquet", "z.json", "z", "z.xlsx", "z.csv.gz"].iter().any(|file| world.path(file).exists()));
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_shows_the_first_rows_and_a_pipe_gets_all() {
    let world = lake().await;
    let sql = "SELECT u.id FROM users u CROSS JOIN users v LIMIT 100";
    let piped = world.daplake(&["query", "--target", "lake", sql]).assert_code(0);
    assert!(piped.stdout.contains("100 rows") && piped.stdout.lines().count() > 100, "{}", piped.stdout.lines().count());
    let limited = world.daplake(&["query", "--target", "lake", "--limit", "7", sql]).assert_code(0);
    assert!(limited.stdout.contains("93 rows more; use --output csv or --limit 0"), "{}", limited.stdout);
    for (more, lines, words) in
        [(&[][..], 40, "60 rows more"), (&["--limit", "0"], 100, "100 rows"), (&["--output", "csv"], 100, "id")]
    {
        let program = world.command(&[&["query", "--target", "lake"], more, &[sql]].concat());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/type.py");
        let mut command = std::process::Command::new("python3");
        command.arg(script).arg(program.get_program()).args(program.get_args()).current_dir(program.get_current_dir().unwrap());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(serde_json::json!([[words, serde_json::Value::Null]]).to_string().as_bytes())
            .unwrap();
        let run = Run::of(child.wait_with_output().unwrap()).assert_code(0);
        let rows = run.stdout.lines().filter(|line| line.trim_matches(['|', ' ', '\r']).parse::<i64>().is_ok()).count();
        assert_eq!(rows, lines, "{}", run.stdout);
    }
}

/// The program in a pseudo terminal of 100 columns.
#[cfg(unix)]
fn in_a_terminal(world: &World, arguments: &[&str]) -> Run {
    let program = world.command(arguments);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/type.py");
    let mut command = std::process::Command::new("python3");
    command.arg(script).arg(program.get_program()).args(program.get_args()).current_dir(program.get_current_dir().unwrap());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"[]").unwrap();
    Run::of(child.wait_with_output().unwrap())
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_with_escape_sequences_do_not_reach_a_terminal() {
    let world = lake().await;
    let sql = "SELECT chr(27) || '[2J' || chr(7) AS name, id FROM users LIMIT 2";
    for output in ["table", "csv", "json"] {
        let run = in_a_terminal(&world, &["query", "--target", "lake", "--output", output, sql]).assert_code(0);
        assert!(run.stdout.contains("\\u001b[2J\\u0007"), "{output}: {:?}", run.stdout);
        assert!(!run.stdout.contains('\u{1b}') && !run.stdout.contains('\u{7}'), "{output}: {:?}", run.stdout);
    }
    let piped = world.daplake(&["query", "--target", "lake", "--output", "csv", sql]).assert_code(0);
    assert!(piped.stdout.contains("\u{1b}[2J\u{7}"), "a pipe gets the values: {:?}", piped.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_come_from_standard_input_one_by_one() {
    let world = lake().await;
    let mut command = world.command(&["query", "--target", "lake", "--output", "csv"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"SELECT ';' AS a;\n-- done;\nSELECT 2 AS b").unwrap();
    let run = Run::of(child.wait_with_output().unwrap()).assert_code(0);
    assert_eq!(run.stdout, "a\n;\nb\n2\n");
}

#[cfg(all(unix, feature = "prompt"))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_prompt_completes_keeps_a_history_and_survives_errors() {
    let world = lake().await;
    let users = world.school.expected(&canvas("users"), world.school.now()).unwrap().len();
    let typed = |steps: Value| {
        let program = world.command(&["query", "--target", "lake"]);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/type.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(program.get_program()).args(program.get_args()).current_dir(program.get_current_dir().unwrap());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let mut child =
            command.env("TERM", "xterm").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(steps.to_string().as_bytes()).unwrap();
        Run::of(child.wait_with_output().unwrap()).assert_code(0)
    };
    let run = typed(json!([
        ["daplake> ", "\\d\r"],
        ["canvas.users", "SELECT nonsense;\r"],
        ["hint:", "SELECT count(*) AS people\r"],
        // The second line of the statement; Tab completes its table from `use`.
        ["people", "FROM use\t;\r"],
        ["1 row", "\\d accounts\r"],
        ["not null", "\\o csv\r"],
        ["daplake> ", "SELECT 1 + 1 AS two;\r"],
        ["two\r\n2", "\\q\r"]
    ]));
    assert!(run.stdout.contains(&format!("| {users} ")), "{}", run.stdout);
    // The arrow key recalls statements of the previous prompt.
    typed(json!([["daplake> ", "\u{1b}[A\u{1b}[A\r"], ["two", null], ["daplake> ", "\u{4}"]]));
}
