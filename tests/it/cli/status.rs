//! `status` for monitoring and on a terminal: filters, exit codes, order, and the view that refreshes itself.

use daplake::demo::serve::{Fault, Times};
use serde_json::Value;

use crate::support::{Run, World, canvas, school};

const SYNC: [&str; 5] = ["sync", "--target", "lake", "--jobs-per-minute", "0"];
/// The data of the school is old.
const ALL_CURRENT: [&str; 2] = ["--current-for", "99999d"];

fn status(world: &World, more: &[&str]) -> Run {
    world.daplake(&[&["status", "--target", "lake"], more].concat())
}

fn names(world: &World, more: &[&str]) -> Vec<String> {
    let run = status(world, &[more, &["--output", "json"]].concat()).assert_code(0);
    let overview: Value = serde_json::from_str(&run.stdout).unwrap();
    overview["tables"].as_array().unwrap().iter().map(|line| line["table"].as_str().unwrap().to_owned()).collect()
}

/// Three tables, of which `users` is failing and the others are current.
async fn failing() -> World {
    let world = World::new(school(&["accounts", "courses", "users"].map(canvas))).await;
    world.daplake(&SYNC).assert_code(0);
    world.school.advance();
    world.server.inject_for(&canvas("users"), Fault::parse("malformed-line").unwrap(), Times::Always);
    world.daplake(&SYNC).assert_code(5);
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes_tell_a_monitor_whether_tables_are_failing_or_behind() {
    let world = failing().await;
    let check = |condition: &str, more: &[&str]| status(&world, &[&["--fail-if", condition], more].concat());
    status(&world, &ALL_CURRENT).assert_code(0);
    check("failing", &ALL_CURRENT).assert_code(5).assert_says(&["1 of 3 tables failing"]);
    check("behind", &ALL_CURRENT).assert_code(5).assert_says(&["1 of 3 tables failing"]);
    check("behind", &[]).assert_code(5).assert_says(&["1 of 3 tables failing, 2 behind"]);
    // The condition covers the selected tables, also those that --state hides.
    check("failing", &["--table", "accounts,courses"]).assert_code(0);
    check("failing", &["--state", "current", "--current-for", "99999d"]).assert_code(5).assert_says(&["1 of 3 tables failing"]);

    // The damaged object stays with its job.
    world.server.clear_faults();
    world.school.advance();
    world.daplake(&SYNC).assert_code(0);
    check("failing", &[]).assert_code(0);
    check("behind", &ALL_CURRENT).assert_code(0);
    check("behind", &[]).assert_code(5).assert_says(&["3 of 3 tables behind"]);
    // A run that could not start at all.
    world.server.inject(Fault::parse("account-disabled:tables").unwrap(), Times::Always);
    world.daplake(&SYNC).assert_code(5);
    check("failing", &ALL_CURRENT).assert_code(5).assert_says(&["The last run could not start"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_without_tables_is_behind_but_not_failing() {
    let world = World::new(school(&[canvas("users")])).await;
    status(&world, &["--fail-if", "behind"]).assert_code(5).assert_says(&["no tables"]);
    status(&world, &["--fail-if", "failing"]).assert_code(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_selected_by_name_and_state_and_failing_ones_come_first() {
    let world = failing().await;
    assert_eq!(names(&world, &["--state", "failing"]), ["users"]);
    assert_eq!(names(&world, &[&["--state", "current"], &ALL_CURRENT[..]].concat()), ["accounts", "courses"]);
    assert_eq!(names(&world, &["--state", "behind,failing"]).len(), 3);
    assert_eq!(names(&world, &["--table", "course*,users", "--state", "behind"]), ["courses"]);
    let text = status(&world, &ALL_CURRENT).assert_code(0).stdout;
    // Above the lines of the tables, the names are in sentences.
    let line = |name: &str| text.find(&format!("\n{name} ")).unwrap_or_else(|| panic!("{name} has no line in\n{text}"));
    assert!(line("canvas.users") < line("canvas.accounts"), "{text}");
    status(&world, &["--state", "broken"]).assert_code(2).assert_says(&["current", "behind", "failing"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_live_view_needs_a_terminal() {
    let world = World::new(school(&[canvas("users")])).await;
    status(&world, &["--watch"]).assert_code(5).assert_says(&["needs a terminal", "hint: "]);
    status(&world, &["--watch", "--fail-if", "behind"]).assert_code(2).assert_says(&["cannot be used with"]);
    status(&world, &["--watch", "--output", "json"]).assert_code(2).assert_says(&["cannot be used with"]);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_live_view_refreshes_until_it_is_interrupted() {
    use std::io::Write;
    use std::process::{Command, Stdio};

    let world = World::new(school(&["accounts", "users"].map(canvas))).await;
    world.daplake(&[&SYNC[..], &["--table", "users"]].concat()).assert_code(0);
    let program = world.command(&["status", "--target", "lake", "--watch", "--interval", "300ms"]);
    let mut command = Command::new("python3");
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/type.py"))
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(program.get_current_dir().unwrap())
        .envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child =
        command.env("TERM", "xterm").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let steps = serde_json::json!([["refreshed every 300ms", null], ["canvas.users", null], ["canvas.accounts", "\u{3}"]]);
    child.stdin.take().unwrap().write_all(steps.to_string().as_bytes()).unwrap();
    // A table that is loaded while the view is open appears in it.
    world.daplake(&SYNC).assert_code(0);
    Run::of(child.wait_with_output().unwrap()).assert_code(0);
}
