//! `query`: forms of answers, statements from standard input, and the prompt, typed at in a pseudo terminal.

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
async fn an_answer_can_be_a_parquet_file_and_plans_are_explained() {
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
async fn the_prompt_completes_remembers_and_goes_on_after_mistakes() {
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
        // The second line of the same statement, its table completed from `use`.
        ["people", "FROM use\t;\r"],
        ["1 row", "\\d accounts\r"],
        ["not null", "\\o csv\r"],
        ["daplake> ", "SELECT 1 + 1 AS two;\r"],
        ["two\r\n2", "\\q\r"]
    ]));
    assert!(run.stdout.contains(&format!("| {users} ")), "{}", run.stdout);
    // The arrow goes back to what was typed at the prompt before.
    typed(json!([["daplake> ", "\u{1b}[A\u{1b}[A\r"], ["two", null], ["daplake> ", "\u{4}"]]));
}
