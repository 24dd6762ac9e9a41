//! `init` on a terminal: from nothing to a scheduled sync, answers that are corrected, files that are not replaced, and keys from commands.

#![cfg(unix)]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use daplake::Timestamp;
use daplake::demo::school::SchoolOptions;
use serde_json::{Value, json};

use crate::docs::readme::normalised;
use crate::support::{CLIENT_ID, CLIENT_SECRET, Run, World, bare_command, canvas, school, serving};

/// The user and the key of the documentation.
const HOME: &str = "/home/admin";
const SHOWN_ID: &str = "us-east-1#0123-your-client-id";

/// A machine with nothing but the program and a scheduler.
struct Machine {
    world: World,
}

impl Machine {
    async fn new() -> Self {
        Self::of(World::new(school(&[canvas("accounts"), canvas("users")])).await)
    }

    fn of(world: World) -> Self {
        let machine = Self { world };
        std::fs::create_dir_all(machine.path("bin")).unwrap();
        machine.script("systemctl", &format!("echo \"$*\" >> '{}'", machine.path("calls").display()));
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.path(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn mode(&self, name: &str) -> u32 {
        self.path(name).metadata().unwrap().permissions().mode() & 0o777
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// A command with this home folder, and without a key.
    fn prepared(&self, mut command: Command) -> Command {
        let path = std::env::join_paths([self.path("bin"), "/usr/bin".into(), "/bin".into()]).unwrap();
        command.current_dir(self.path("")).env("HOME", self.path("")).env("PATH", path);
        for name in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "DAPLAKE_STATE_DIR"] {
            command.env_remove(name);
        }
        command
    }

    fn daplake(&self, arguments: &[&str]) -> Run {
        Run::of(self.prepared(bare_command(arguments)).output().unwrap())
    }

    /// Answers the questions of `init`: pairs of the text to wait for and the text to type.
    fn answer(&self, options: &[&str], variables: &[(&str, &str)], steps: &Value) -> Run {
        let base = self.world.server.url().to_string();
        let arguments = [&["init", "--base-url", &base], options].concat();
        let program = bare_command(&arguments);
        let mut command = self.prepared(crate::support::without_settings(Command::new("python3")));
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/type.py"))
            .arg(program.get_program())
            .args(program.get_args())
            .envs(variables.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(steps.to_string().as_bytes()).unwrap();
        Run::of(child.wait_with_output().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_assistant_leads_from_nothing_to_a_scheduled_sync() {
    // The school of the documentation: its data is of the last four hours.
    const COMMIT_DISTANCE: i64 = 4 * 3600 * 1_000_000;
    let start = Timestamp::from_micros(Timestamp::now().micros() / COMMIT_DISTANCE * COMMIT_DISTANCE);
    let of_docs =
        SchoolOptions { seed: 7, rows: 10_000, change_rate: 0.02, commits: 1, start, evolving: true, ..Default::default() };
    let serving = daplake::demo::serve::ServeOptions { rows_per_object: 100_000, ..serving() };
    let machine = Machine::of(World::with(of_docs, serving).await);
    let begun = Instant::now();
    let run = machine.answer(
        &[],
        &[],
        &json!([
            ["Client id", format!("{CLIENT_ID}\n")],
            ["Number [1]", "\n"],
            ["Client secret (hidden)", format!("{CLIENT_SECRET}\n"), "hidden"],
            ["Namespaces", "\n"],
            ["Tables", "accounts,users,courses\n"],
            ["Number [1]", "\n"],
            ["Folder", "\n"],
            ["Time between two runs", "\n"],
            ["Write it?", "\n"],
            ["Continue? [y/N]", "y\n"],
            ["Start the first sync now?", "\n"],
            ["3 loaded", null]
        ]),
    );
    let run = run.assert_code(0);
    assert!(begun.elapsed() < Duration::from_secs(300));
    let session = run
        .stdout
        .replace("\r\n", "\n")
        .replace("\u{1b}[2K", "\n")
        .replace(machine.path("").to_str().unwrap().trim_end_matches('/'), HOME)
        .replace(env!("CARGO_BIN_EXE_daplake"), "/usr/local/bin/daplake")
        .replace(CLIENT_ID, SHOWN_ID);
    assert!(!session.contains(CLIENT_SECRET), "the secret is not shown");

    // The result: a private settings file without a secret, a schedule, and tables.
    let settings = machine.read("daplake.toml");
    assert!(settings.contains("client_secret = \"file:daplake.secret\"") && !settings.contains(CLIENT_SECRET), "{settings}");
    assert_eq!(machine.read("daplake.secret"), CLIENT_SECRET);
    assert_eq!([machine.mode("daplake.toml"), machine.mode("daplake.secret")], [0o600, 0o600]);
    assert!(machine.read("calls").contains("enable --now daplake.timer"), "{}", machine.read("calls"));
    assert!(machine.path("lake/canvas/users/_delta_log").is_dir());
    // The scheduled command works without a terminal, the variables of the shell and the folder.
    let unit = machine.read(".config/systemd/user/daplake.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap_or_else(|| panic!("{unit}"));
    let mut scheduled = Command::new("sh");
    scheduled.args(["-c", line]).env_clear().env("HOME", machine.path("")).env("PATH", "/usr/bin:/bin").current_dir("/");
    Run::of(scheduled.output().unwrap()).assert_code(0);
    machine.daplake(&["check"]).assert_code(0).assert_says(&["ok    credentials", "3 tables selected"]);

    // The documentation shows this session. Lines that differ on each machine are left out there.
    let page = include_str!("../../../docs/getting-started.md");
    let shown = page.split("```text\n$ daplake init\n").nth(1).and_then(|rest| rest.split("\n```").next()).unwrap();
    let printed: Vec<String> = session.lines().map(normalised).collect();
    let mut place = 0;
    for line in shown.lines().map(normalised).filter(|line| !line.is_empty() && line != "...") {
        let at = printed[place..].iter().position(|found| *found == line);
        place += at.unwrap_or_else(|| panic!("the session does not have\n{line}\nhere, but\n{session}")) + 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_tested_at_once_and_can_be_corrected() {
    let machine = Machine::new().await;
    std::fs::write(machine.path("a file"), "").unwrap();
    let run = machine.answer(
        &[],
        &[("DAP_CLIENT_ID", CLIENT_ID)],
        &json!([
            ["Client id", "\n"],
            ["Number [1]", "7\n"],
            ["from 1 to 3", "2\n"],
            ["DAP_CLIENT_SECRET is not set", "\n"],
            ["Client secret (hidden)", "wrong\n", "hidden"],
            ["FAIL  credentials", null],
            ["Correct the answer? [Y/n]", "\n"],
            ["Client id", "\n"],
            ["Number [1]", "3\n"],
            ["Command", "no-such-program x\n"],
            ["cannot be started", null],
            ["Number [1]", "1\n"],
            ["Client secret (hidden)", format!("{CLIENT_SECRET}\n"), "hidden"],
            ["ok    credentials", null],
            ["Namespaces", "canvs\n"],
            ["did you mean `canvas`?", "canvas\n"],
            ["Tables", "usres\n"],
            ["did you mean `users`?", "us*\n"],
            ["1 table selected", null],
            ["Number [1]", "\n"],
            ["Folder", "s3://bucket\n"],
            ["not a folder", "a file\n"],
            ["FAIL  target", null],
            ["Correct the answer? [Y/n]", "y\n"],
            ["Number [1]", "2\n"],
            ["Folder", "plain\n"],
            ["ok    target", null],
            ["Time between two runs", "5h\n"],
            ["hint: use 30m", "none\n"],
            ["format = \"parquet\"", null],
            ["Write it?", "n\n"],
            ["Nothing was written.", null]
        ]),
    );
    run.assert_code(0);
    for name in ["daplake.toml", "daplake.secret", "plain"] {
        assert!(!machine.path(name).exists(), "{name}");
    }
    assert_eq!(machine.world.server.counters().jobs_started(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_answer_questions_and_files_are_replaced_only_after_a_question() {
    let machine = Machine::new().await;
    machine.script("show-secret", &format!("echo '{CLIENT_SECRET}'"));
    std::fs::write(machine.path("daplake.toml"), "# mine\n").unwrap();
    let options = ["--namespace", "canvas", "--table", "users", "--target", "./lake", "--every", "6h"];
    let key = [("DAP_CLIENT_ID", CLIENT_ID), ("DAP_CLIENT_SECRET", CLIENT_SECRET)];
    let kept = machine.answer(&options, &key, &json!([["Client id", "\n"], ["Number [2]", "\n"], ["Replace", "\n"]]));
    kept.assert_code(0).assert_says(&["Nothing was written."]);
    assert_eq!(machine.read("daplake.toml"), "# mine\n");
    let command = ["--credential-command", "show-secret 'a b'"];
    let replaced = machine.answer(
        &[&options[..], &command].concat(),
        &key[..1],
        &json!([
            ["Client id", "\n"],
            ["ok    credentials", null],
            ["Replace", "y\n"],
            ["every 6 hours", null],
            ["Continue?", "n\n"],
            ["Start the first sync now?", "n\n"]
        ]),
    );
    replaced.assert_code(0).assert_says(&["Wrote "]);
    let settings = machine.read("daplake.toml");
    assert!(settings.contains("credential_command = [\"show-secret\", \"a b\"]"), "{settings}");
    assert!(settings.contains(&format!("client_id = \"{CLIENT_ID}\"")) && !settings.contains(CLIENT_SECRET), "{settings}");
    machine.daplake(&["sync"]).assert_code(0).assert_says(&["1 loaded"]);
    assert!(!machine.path(".config").exists(), "the schedule was declined");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_asked_with_yes_or_without_a_terminal() {
    let machine = Machine::new().await;
    machine.script("show-secret", &format!("echo '{CLIENT_SECRET}'"));
    // In a terminal, with --yes.
    let options = ["--yes", "--table", "users", "--credential-command", "show-secret", "--every", "4h"];
    let run = machine.answer(&options, &[("DAP_CLIENT_ID", CLIENT_ID)], &json!([])).assert_code(0);
    assert!(!run.stdout.contains("[Y/n]") && !run.stdout.contains("[y/N]"), "{}", run.stdout);
    assert!(machine.read("calls").contains("enable --now daplake.timer"));
    machine.answer(&options, &[], &json!([])).assert_code(5).assert_says(&["already exists"]);
    // Without a terminal.
    let run = machine.daplake(&["init", "--settings", "other.toml"]).assert_code(0);
    assert!(run.stdout.contains("Next steps") && !run.stdout.contains("1 of 4"), "{}", run.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_command_runs_only_where_its_secret_is_needed() {
    let machine = Machine::new().await;
    let ran = machine.path("ran");
    machine.script("key", &format!("echo key >> '{}'; echo '{CLIENT_SECRET}'; echo planted-more", ran.display()));
    let settings = format!(
        "[service]\nurl = \"{}\"\nclient_id = \"{CLIENT_ID}\"\ncredential_command = [\"key\"]\n[targets.lake]\nurl = \"lake\"\n\
         [targets.db]\nurl = \"postgresql://u:${{CREDENTIAL}}@127.0.0.1:1/d\"\ncredential_command = [\"false\"]\n\
         [sync]\nnamespaces = [\"canvas\"]\n[log]\nlevel = \"debug\"\nfile = \"log.txt\"\n",
        machine.world.server.url()
    );
    std::fs::write(machine.path("daplake.toml"), settings).unwrap();
    std::fs::set_permissions(machine.path("daplake.toml"), PermissionsExt::from_mode(0o600)).unwrap();
    let sync = machine.daplake(&["sync", "--to", "lake"]).assert_code(0);
    assert_eq!(machine.read("ran"), "key\n");
    machine.daplake(&["status", "--to", "lake"]).assert_code(0);
    machine.daplake(&["query", "--to", "lake", "SELECT count(*) FROM users"]).assert_code(0);
    machine.daplake(&["schedule", "install", "--to", "lake", "--dry-run"]).assert_code(0);
    assert_eq!(machine.read("ran"), "key\n", "no other command needs the key");
    let failed = machine.daplake(&["sync", "--to", "db"]).assert_code(2);
    failed.assert_says(&["credential command has failed", "targets.db.url", "run the command in a terminal"]);
    for text in [sync.stdout, sync.stderr, machine.read("log.txt")] {
        assert!(!text.contains(CLIENT_SECRET) && !text.contains("planted-more"), "{text}");
    }
}
