//! The samples of the documentation: every `console` block is run against the embedded server and compared with the output it shows.
//! Durations, sizes and ports may differ; a line of three dots matches any lines.

use std::path::Path;
use std::process::Command;

use daplake::Timestamp;
use daplake::demo::school::SchoolOptions;

use crate::support::{Run, World, serving, without_settings};

struct Step {
    command: String,
    shown: Vec<String>,
}

/// The steps of each `console` block of a page: lines that begin with `$ `, and the output below them.
fn blocks(page: &str) -> Vec<Vec<Step>> {
    let mut blocks: Vec<Vec<Step>> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        match (inside, line) {
            (false, "```console") => {
                inside = true;
                blocks.push(Vec::new());
            }
            (true, "```") => inside = false,
            (true, line) => {
                let steps = blocks.last_mut().expect("a block is open");
                match line.strip_prefix("$ ") {
                    Some(command) => steps.push(Step { command: command.to_owned(), shown: Vec::new() }),
                    None => steps.last_mut().expect("a block begins with a command").shown.push(line.to_owned()),
                }
            }
            _ => {}
        }
    }
    blocks
}

const UNITS: [&str; 8] = ["s", "B", "KiB", "MiB", "GiB", "d", "h", "m"];

/// A line without what differs from run to run: durations, sizes, ages, ports, the width of columns.
pub fn normalised(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_number =
        |word: &str| word.starts_with(|c: char| c.is_ascii_digit()) && !word.contains(|c: char| c.is_ascii_alphabetic());
    let mut out: Vec<String> = Vec::new();
    for (place, word) in words.iter().enumerate() {
        let bare = word.trim_start_matches('(');
        let next = words.get(place + 1).map(|next| next.trim_end_matches([',', ')', ';']));
        let unit = bare.trim_start_matches(|c: char| c.is_ascii_digit());
        let is_quantity = is_number(bare) && next.is_some_and(|next| UNITS.contains(&next));
        if is_quantity || (bare != unit && UNITS.contains(&unit.trim_end_matches([',', ')', ';']))) {
            // An age has one or two parts.
            if out.last().is_none_or(|last| last != "#") {
                out.push("#".to_owned());
            }
        } else if bare.len() >= 20 && bare.as_bytes()[4] == b'-' && bare.ends_with(['Z', ',']) {
            out.push("time".to_owned());
        } else if word.contains("127.0.0.1:") {
            out.push("address".to_owned());
        } else if word.starts_with("--") && word.bytes().all(|byte| byte == b'-') {
            out.push("---".to_owned());
        } else {
            out.push((*word).to_owned());
        }
    }
    out.join(" ")
}

#[track_caller]
fn assert_shown(command: &str, shown: &[String], run: &Run) {
    let lines = |text: &str| text.lines().map(normalised).filter(|line| !line.is_empty()).collect::<Vec<_>>();
    let mut found = lines(&format!("{}{}", run.stdout, run.stderr));
    let mut wanted = lines(&shown.join("\n"));
    let is_part = wanted.iter().any(|line| line == "...");
    wanted.retain(|line| line != "...");
    if is_part {
        for line in &wanted {
            assert!(found.contains(line), "`{command}` does not print\n{line}\nbut\n{}", found.join("\n"));
        }
    } else {
        // Tables are loaded at the same time, so their lines have no fixed order.
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted, "`{command}`");
    }
}

/// The value for `DAPLAKE_TARGET` in place of the page's example. `None` if the server is missing and not required.
fn target(example: &str, databases: &mut Databases) -> Option<String> {
    match example.split("://").next() {
        #[cfg(feature = "postgres")]
        Some("postgresql") => {
            let database = crate::support::postgres::Database::new()?;
            let url = database.url.clone();
            databases.push(database);
            Some(url)
        }
        _ => panic!("no server for {example}; databases: {}", databases.len()),
    }
}

#[cfg(feature = "postgres")]
type Databases = Vec<crate::support::postgres::Database>;
#[cfg(not(feature = "postgres"))]
type Databases = Vec<()>;

/// Runs every `console` block of a page; returns how many commands there were.
async fn run_page(page: &str) -> usize {
    // The school of `daplake serve` with its default options: its data is of the last four hours.
    const COMMIT_DISTANCE: i64 = 4 * 3600 * 1_000_000;
    let start = Timestamp::from_micros(Timestamp::now().micros() / COMMIT_DISTANCE * COMMIT_DISTANCE);
    let school =
        SchoolOptions { seed: 7, rows: 10_000, change_rate: 0.02, commits: 1, start, evolving: true, ..Default::default() };
    let world = World::with(school, daplake::demo::serve::ServeOptions { rows_per_object: 100_000, ..serving() }).await;
    let bin = Path::new(env!("CARGO_BIN_EXE_daplake")).parent().unwrap();
    let path = std::env::join_paths(
        std::iter::once(bin.to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )
    .unwrap();
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let mut count = 0;
    let mut databases = Databases::new();
    'blocks: for block in blocks(&text) {
        let mut exported: Vec<(String, String)> = Vec::new();
        for Step { command, shown } in block {
            count += 1;
            if let Some((name, value)) = command.strip_prefix("export ").and_then(|rest| rest.split_once('=')) {
                let value = value.trim_matches('\'');
                let value = match name {
                    "DAPLAKE_TARGET" => match target(value, &mut databases) {
                        Some(url) => url,
                        None => {
                            eprintln!("not run: a block of {page} that needs a database");
                            continue 'blocks;
                        }
                    },
                    _ => value.to_owned(),
                };
                exported.push((name.to_owned(), value));
                continue;
            }
            let mut shell = without_settings(Command::new("sh"));
            // The variables and the folder of a command of the world.
            let model = world.command(&[]);
            for (name, value) in model.get_envs() {
                if let Some(value) = value {
                    shell.env(name, value);
                }
            }
            shell
                .arg("-c")
                .arg(&command)
                .env("PATH", &path)
                .envs(exported.iter().cloned())
                .current_dir(model.get_current_dir().unwrap());
            let run = Run::of(shell.output().unwrap()).assert_code(0);
            assert_shown(&command, &shown, &run);
        }
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readme_shows_what_the_program_prints() {
    assert!(run_page("README.md").await >= 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn getting_started_shows_what_the_program_prints() {
    assert!(run_page("docs/getting-started.md").await >= 4);
}

#[test]
fn a_line_is_compared_without_durations_and_sizes() {
    assert_eq!(normalised("(8 rows, 2.1 KiB received, 0.3 s)"), "(8 rows, # KiB received, # s)");
    assert_eq!(normalised("canvas.users     100  2026-01-01T00:00:00Z  331d 20h  behind"), "canvas.users 100 time # behind");
    assert_ne!(normalised("3 loaded"), normalised("2 loaded"));
}

/// The features of all dependencies, as cargo unifies them for the program, and for the program with its tests.
#[test]
fn the_demo_and_the_tests_share_one_build() {
    let tree = |edges: &str| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let arguments = ["tree", "--locked", "--offline", "--prefix", "none", "--format", "{p} {f}", "--edges", edges];
        let output = Command::new(cargo).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect::<std::collections::BTreeSet<_>>()
    };
    let (program, tests) = (tree("normal,build"), tree("normal,build,dev"));
    let twice: Vec<&String> = program.difference(&tests).collect();
    assert!(twice.is_empty(), "built twice, as the tests add features to them: {twice:#?}");
}

/// The program of `examples/tour`, which `cargo test` builds beside the tests.
#[test]
#[cfg(feature = "sql")]
fn the_examples_run() {
    let program = std::env::current_exe().unwrap().parent().and_then(Path::parent).unwrap().join("examples/tour");
    if !program.exists() {
        eprintln!("not run: examples/tour (build it with: cargo build --example tour)");
        return;
    }
    for (name, word) in [
        ("delta", "increment of canvas.users"),
        ("own_sink", "canvas.users: Loaded"),
        ("files", "0 failed"),
        ("arrow", "registered"),
        ("notify", "0 failed"),
    ] {
        let run = Run::of(without_settings(Command::new(&program)).arg(name).output().unwrap()).assert_code(0);
        assert!(run.stdout.contains(word), "{name}: {}", run.stdout);
    }
}

/// Options of other programs, and those of the feature `cluster`, which a usual build does not have.
const FOREIGN: &[&str] = &[
    "--locked",
    "--path",
    "--features",
    "--release",
    "--example",
    "--all-targets",
    "--offline",
    "--no-deps",
    "--edges",
    "--all",
    "--check",
    "--test",
    "--lib",
    "--deny",
    "--system",
    "--home-dir",
    "--now",
    "--save",
    "--silent",
    "--show-error",
    "--fail",
    "--header",
    "--data",
    "--rm",
    "--env-file",
    "--warn",
    "--cluster",
    "--cluster-parts",
    "--cluster-listen",
    "--cluster-advertise",
    "--listen",
    "--advertise",
    "--scheduler",
    "--port",
    "--control-port",
    "--cores",
    "--executor-timeout",
    "--inMemoryPersistence",
    "--label",
    "--skipApiVersionCheck",
    "--user",
];

/// Words that begin with two dashes.
fn options_in(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("--").filter_map(|(at, _)| {
        let before = text[..at].chars().next_back();
        let rest = &text[at + 2..];
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
        let is_option =
            before.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '-') && rest.starts_with(|c: char| c.is_ascii_lowercase());
        is_option.then(|| &text[at..at + 2 + length])
    })
}

#[test]
fn options_in_the_documentation_exist() {
    use crate::support::bare_command;

    let help = |arguments: &[&str]| Run::of(bare_command(arguments).output().unwrap()).assert_code(0).stdout;
    let whole = help(&["--help"]);
    let commands = whole.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = commands.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let helps: Vec<String> = names.map(|name| help(&[name, "--help"])).chain([whole.clone()]).collect();
    let known: std::collections::BTreeSet<&str> =
        helps.iter().flat_map(|help| options_in(help)).chain(FOREIGN.iter().copied()).collect();

    let mut unknown = Vec::new();
    for page in super::style::pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for (number, line) in text.lines().enumerate() {
            let missing = options_in(line).filter(|option| !known.contains(option));
            unknown.extend(missing.map(|option| format!("{}:{}: {option}", page.display(), number + 1)));
        }
    }
    assert!(unknown.is_empty(), "no command has these options:\n{}", unknown.join("\n"));
}

/// The help of every command, as `docs/reference/cli.md` has it.
#[cfg(not(any(feature = "cluster", feature = "otel", feature = "prompt")))]
fn command_line_reference() -> String {
    use crate::support::bare_command;

    let help = |arguments: &[&str]| {
        let run = Run::of(bare_command(arguments).env("COLUMNS", "100").output().unwrap()).assert_code(0);
        run.stdout.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>()
    };
    let whole = help(&["--help"]);
    let commands = whole.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
    let links: Vec<String> = names.iter().map(|name| format!("[{name}](#daplake-{name})")).collect();
    let mut text = format!(
        "# Command line\n\nThe help of every command of a build with the default features. This page is generated by \
         `DAPLAKE_UPDATE_DOCS=1 tests/run -- readme`.\n\n{}\n\n## daplake\n\n```text\n{whole}```\n",
        links.join(", ")
    );
    for name in names {
        // The options of all commands are in the first section only.
        let own = help(&[name, "--help"]);
        let (before, after) = own.split_once("\nGlobal options").unwrap_or((own.as_str(), ""));
        let examples: Vec<&str> = after.lines().skip(1).skip_while(|line| line.is_empty() || line.starts_with(' ')).collect();
        let examples = if examples.is_empty() { String::new() } else { format!("\n{}\n", examples.join("\n")) };
        text.push_str(&format!("\n## daplake {name}\n\n```text\n{before}{examples}```\n"));
    }
    text
}

#[test]
#[cfg(not(any(feature = "cluster", feature = "otel", feature = "prompt")))]
fn the_reference_of_the_command_line_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/cli.md");
    let text = command_line_reference();
    if std::env::var_os("DAPLAKE_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "docs/reference/cli.md is not current; write it by: DAPLAKE_UPDATE_DOCS=1 tests/run -- readme");
}
