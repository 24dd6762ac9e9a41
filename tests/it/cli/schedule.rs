//! `schedule`: files and entries for four schedulers. Programs of other systems are replaced by scripts that record their calls; what is
//! written is read by parsers that are not daplake's, and the scheduled command is run as the scheduler would run it.

#![cfg(unix)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{CLIENT_ID, CLIENT_SECRET, Run, World, canvas, school};

/// A password that shells, crontabs and systemd would all misread without quotes.
const ODD: &str = "p%d 'a' \"b\" $HOME `id` \\n #";

struct Machine {
    world: World,
}

impl Machine {
    /// A home folder with a settings file, and these programs in `PATH`.
    async fn new(programs: &[&str]) -> Self {
        let world = World::new(school(&[canvas("users"), canvas("accounts")])).await;
        let machine = Self { world };
        std::fs::create_dir_all(machine.path("bin")).unwrap();
        for name in programs {
            machine.fake(name, "");
        }
        let settings = "[service]\nclient_id = \"${DAP_CLIENT_ID}\"\nclient_secret = \"${DAP_CLIENT_SECRET}\"\n\
             [targets.lake]\nurl = \"lake\"\n[targets.other]\nurl = \"postgresql://u:${ODD}@127.0.0.1:1/d\"\n\
             [sync]\nnamespaces = [\"canvas\"]\n[pacing]\njob_starts = 0\n# \"${NOT_USED}\"\n";
        std::fs::write(machine.path("my settings.toml"), settings).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.path(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A program that records its arguments, and then does `more`.
    fn fake(&self, name: &str, more: &str) {
        let log = self.path("calls");
        let path = self.path("bin").join(name);
        let text = format!("#!/bin/sh\necho \"{name} $*\" >> '{}'\n{more}\n", log.display());
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// A `crontab` that keeps its table in a file.
    fn fake_crontab(&self) {
        let table = self.path("table").display().to_string();
        let script = format!(
            "case \"$1\" in\n-l) if [ -f '{table}' ]; then cat '{table}'; else echo 'no crontab for me' >&2; exit 1; fi;;\n\
             -r) rm '{table}';;\n-) cat > '{table}';;\nesac"
        );
        self.fake("crontab", &script);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.world.command(&["schedule"]);
        command
            .args(arguments)
            .args(["--settings", "my settings.toml"])
            .env("HOME", self.path("home"))
            .env("PATH", std::env::join_paths([self.path("bin"), "/usr/bin".into(), "/bin".into()]).unwrap())
            .env("ODD", ODD)
            .env("NOT_USED", "planted");
        command
    }

    fn schedule(&self, arguments: &[&str]) -> Run {
        Run::of(self.command(arguments).output().unwrap())
    }

    fn calls(&self) -> String {
        self.read("calls")
    }

    /// Asserts that no text contains a secret.
    #[track_caller]
    fn assert_no_secret(&self, texts: &[&str]) {
        for text in texts {
            for secret in [CLIENT_SECRET, ODD, "p%d", "planted-client"] {
                assert!(!text.contains(secret), "{secret} is in\n{text}");
            }
        }
    }

    /// Runs the command of a scheduler with its few variables, and asserts that it updates the table.
    #[track_caller]
    fn assert_runs(&self, words: &[String]) {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().env("HOME", self.path("home")).env("PATH", "/usr/bin:/bin").current_dir("/");
        let run = Run::of(command.output().unwrap());
        // The second target is a database that does not exist.
        assert_eq!(run.code, Some(5), "{run:?}");
        assert!(self.path("lake/canvas/users/_delta_log").is_dir(), "{run:?}");
        assert!(self.read("state/daplake.log").contains("Table loaded"), "{run:?}");
    }
}

fn python(script: &str, path: &Path) -> String {
    let output = Command::new("python3").args(["-c", script]).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_systemd_timer_is_installed_once_and_removed() {
    let machine = Machine::new(&["systemctl", "loginctl"]).await;
    let install = ["install", "--system", "systemd"];
    let dry = machine.schedule(&[&install[..], &["--dry-run"]].concat()).assert_code(0);
    let dry =
        dry.assert_says(&["daplake.timer", "OnCalendar=", "run systemctl --user enable --now daplake.timer", "--dry-run"]);
    assert!(!machine.path("home").exists() && machine.calls().lines().all(|line| line.contains("is-")), "{}", machine.calls());
    // Nothing is done without an answer.
    machine.schedule(&install).assert_code(5).assert_says(&["--yes"]);
    assert!(!machine.path("home").exists());

    let run = machine.schedule(&[&install[..], &["--yes"]].concat()).assert_code(0).assert_says(&["enable-linger"]);
    let (units, environment) = (machine.path("home/.config/systemd/user"), machine.path("home/.config/daplake/daplake.env"));
    let (service, timer) = (units.join("daplake.service"), units.join("daplake.timer"));
    assert_eq!(mode(&environment), 0o600);
    let environment = std::fs::read_to_string(environment).unwrap();
    for name in ["DAP_CLIENT_ID=", "DAP_CLIENT_SECRET=", "DAP_API_URL=", "ODD=", "PATH="] {
        assert!(environment.contains(name), "{name} is not in\n{environment}");
    }
    assert!(!environment.contains("NOT_USED"), "a comment is not a reference");
    let (service, timer) = (std::fs::read_to_string(&service).unwrap(), std::fs::read_to_string(&timer).unwrap());
    machine.assert_no_secret(&[&dry.stdout, &run.stdout, &run.stderr, &service, &timer, &machine.calls()]);
    assert!(service.contains("EnvironmentFile=") && service.contains(" sync --settings \""), "{service}");
    for call in ["--user daemon-reload", "--user enable --now daplake.timer", "--user restart daplake.timer"] {
        assert!(machine.calls().contains(call), "{call} is not in\n{}", machine.calls());
    }
    verify_units(&units);

    let before = machine.calls().matches("enable --now").count();
    machine.schedule(&[&install[..], &["--yes"]].concat()).assert_code(0).assert_says(&["nothing has to be changed"]);
    assert_eq!(machine.calls().matches("enable --now").count(), before);
    // Another interval changes the timer.
    machine.schedule(&[&install[..], &["--yes", "--every", "30m"]].concat()).assert_code(0);
    assert!(std::fs::read_to_string(units.join("daplake.timer")).unwrap().contains("/30:00"));
    verify_units(&units);
    machine.schedule(&["status"]).assert_code(0).assert_says(&["daplake is installed", "daplake.timer", "active"]);

    std::fs::write(units.join("other.timer"), "[Timer]\n").unwrap();
    machine
        .schedule(&[&install[..], &["--yes", "--name", "other"]].concat())
        .assert_code(5)
        .assert_says(&["other.timer", "--name"]);
    machine.schedule(&["remove", "--yes"]).assert_code(0).assert_says(&["Removed"]);
    let left: Vec<_> = units.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["other.timer"]);
    assert!(!machine.path("home/.config/daplake/daplake.env").exists());
    assert!(machine.calls().contains("--user disable --now daplake.timer"));
    machine.schedule(&["status"]).assert_code(5).assert_says(&["No schedule named daplake is installed", "schedule install"]);
    machine.schedule(&["remove", "--yes"]).assert_code(0).assert_says(&["nothing was removed"]);
}

/// systemd's own check of the units.
fn verify_units(units: &Path) {
    let verify =
        Command::new("systemd-analyze").args(["verify", "--user", "--man=no"]).arg(units.join("daplake.timer")).output();
    let Ok(output) = verify else { return eprintln!("not run: systemd-analyze") };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let about = said.lines().filter(|line| line.contains("daplake")).collect::<Vec<_>>();
    assert!(about.is_empty(), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crontab_keeps_its_other_lines_and_its_entry_runs() {
    let machine = Machine::new(&[]).await;
    machine.fake("systemctl", "exit 1");
    machine.fake_crontab();
    let others = "MAILTO=me@example.org\n5 4 * * * backup 100\\%\n";
    std::fs::write(machine.path("table"), others).unwrap();
    // Without a manager of systemd, the crontab is the usual one.
    let run = machine.schedule(&["install", "--yes"]).assert_code(0).assert_says(&["crontab"]);
    let table = machine.read("table");
    assert!(table.starts_with(others) && table.lines().count() == 5, "{table}");
    machine.assert_no_secret(&[&table, &run.stdout, &run.stderr, &machine.calls()]);
    machine.schedule(&["install", "--yes"]).assert_code(0).assert_says(&["nothing has to be changed"]);
    assert_eq!(machine.read("table"), table);
    machine.schedule(&["status"]).assert_code(0).assert_says(&["an entry of your crontab", "*/4 * * *"]);
    // Two schedulers would run at the same time.
    machine.schedule(&["install", "--yes", "--system", "launchd"]).assert_code(5).assert_says(&["--system cron"]);

    let line = table.lines().nth(3).unwrap();
    let command = line.split(' ').skip(5).collect::<Vec<_>>().join(" ").replace("\\%", "%");
    machine.assert_runs(&["/bin/sh".to_owned(), "-c".to_owned(), command]);

    machine.schedule(&["install", "--yes", "--every", "1h"]).assert_code(0);
    let changed = machine.read("table");
    assert!(changed.starts_with(others) && changed.lines().count() == 5 && !changed.contains("*/4"), "{changed}");
    machine.schedule(&["remove", "--yes"]).assert_code(0);
    assert_eq!(machine.read("table"), others);
    // A crontab that would be empty is removed.
    std::fs::remove_file(machine.path("table")).unwrap();
    machine.schedule(&["install", "--yes", "--system", "cron", "--to", "lake"]).assert_code(0);
    assert!(machine.read("table").contains(" --to lake "));
    machine.schedule(&["remove", "--yes"]).assert_code(0);
    assert!(!machine.path("table").exists());
    // One that cannot be read is not replaced.
    machine.fake("crontab", "echo 'you are not allowed to use this program' >&2; exit 1");
    machine.schedule(&["install", "--yes", "--system", "cron"]).assert_code(5).assert_says(&["not allowed"]);
    assert!(!machine.calls().lines().last().unwrap().ends_with("crontab -"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_launch_agent_is_a_property_list_that_runs() {
    let machine = Machine::new(&["launchctl"]).await;
    let install = ["install", "--system", "launchd", "--yes"];
    let run = machine.schedule(&install).assert_code(0);
    let path = machine.path("home/Library/LaunchAgents/local.daplake.plist");
    let text = std::fs::read_to_string(&path).unwrap();
    machine.assert_no_secret(&[&text, &run.stdout, &run.stderr, &machine.calls()]);
    let script = "import json, plistlib, sys; print(json.dumps(plistlib.load(open(sys.argv[1], 'rb'))))";
    let agent: serde_json::Value = serde_json::from_str(&python(script, &path)).unwrap();
    assert_eq!(agent["Label"], "local.daplake");
    let starts = agent["StartCalendarInterval"].as_array().unwrap();
    assert_eq!((starts.len(), &starts[1]["Hour"]), (6, &4.into()));
    assert!(machine.calls().contains("bootout gui/") && machine.calls().contains("bootstrap gui/"), "{}", machine.calls());
    let words: Vec<String> = serde_json::from_value(agent["ProgramArguments"].clone()).unwrap();
    machine.assert_runs(&words);
    machine.schedule(&install).assert_code(0).assert_says(&["nothing has to be changed"]);
    machine.schedule(&["remove", "--yes"]).assert_code(0);
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_windows_task_is_xml_and_needs_no_variable() {
    let machine = Machine::new(&["schtasks"]).await;
    let install = ["install", "--system", "windows", "--yes"];
    machine.schedule(&install).assert_code(5).assert_says(&["DAP_CLIENT_SECRET", "file:"]);
    std::fs::write(machine.path("dap.secret"), CLIENT_SECRET).unwrap();
    let settings = format!(
        "[service]\nclient_id = \"{CLIENT_ID}\"\nclient_secret = \"file:dap.secret\"\n[targets.lake]\nurl = \"lake\"\n"
    );
    std::fs::write(machine.path("my settings.toml"), settings).unwrap();
    let schedule = |arguments: &[&str]| {
        let mut command = machine.command(arguments);
        for name in ["DAP_API_URL", "DAP_CLIENT_ID", "DAP_CLIENT_SECRET", "DAPLAKE_STATE_DIR", "ODD"] {
            command.env_remove(name);
        }
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DAPLAKE_") || name.starts_with("SSL_")) {
            command.env_remove(name);
        }
        Run::of(command.output().unwrap())
    };
    schedule(&install).assert_code(0);
    let path = machine.path("home/.config/daplake/daplake.task.xml");
    let script = "import sys, xml.etree.ElementTree as e; t = e.parse(sys.argv[1]).getroot(); n = '{' + t.tag[1:].split('}')[0] + '}'\n\
                  for k in ['Interval', 'Arguments', 'WorkingDirectory', 'LogonType']: print(k, next(t.iter(n + k)).text)";
    let told = python(script, &path);
    assert!(
        told.contains("Interval PT240M") && told.contains("sync --settings \"") && told.contains("InteractiveToken"),
        "{told}"
    );
    assert!(machine.calls().contains("schtasks /Create /TN daplake /XML "), "{}", machine.calls());
    schedule(&install).assert_code(0).assert_says(&["nothing has to be changed"]);
    schedule(&["status", "--system", "windows"]).assert_code(0).assert_says(&["registered"]);
    // The task of another program stays.
    machine.fake("schtasks", "echo '<Task/>'");
    schedule(&["install", "--system", "windows", "--yes", "--every", "2h"]).assert_code(5).assert_says(&["another program"]);
    machine.fake("schtasks", "");
    schedule(&["remove", "--system", "windows", "--yes"]).assert_code(0);
    assert!(machine.calls().contains("schtasks /Delete /TN daplake /F") && !path.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_scheduled_run_would_lack_is_refused_before_anything_is_written() {
    let machine = Machine::new(&["systemctl", "loginctl"]).await;
    let install = ["install", "--system", "systemd", "--yes"];
    let without = |name: &str| Run::of(machine.command(&install).env_remove(name).output().unwrap());
    without("DAP_CLIENT_SECRET").assert_code(5).assert_says(&["DAP_CLIENT_SECRET", "export"]);
    without("ODD").assert_code(5).assert_says(&["ODD"]);
    machine.schedule(&[&install[..], &["--every", "5h"]].concat()).assert_code(5).assert_says(&["4h"]);
    machine.schedule(&[&install[..], &["--to", "lke"]].concat()).assert_code(5).assert_says(&["lake"]);
    let missing = machine.world.command(&["schedule", "install", "--yes"]).env("HOME", machine.path("home")).output().unwrap();
    Run::of(missing).assert_code(5).assert_says(&["daplake init"]);
    std::fs::write(machine.path("my settings.toml"), "[sync]\ntables = [\"users\"]\n").unwrap();
    machine.schedule(&install).assert_code(5).assert_says(&["no target"]);
    assert!(!machine.path("home").exists());
}
