//! The settings file: its effect, its precedence, its errors; `init` and `check`.

use daplake::demo::serve::{Endpoint, Fault, Times};
use serde_json::Value;

use crate::support::{CLIENT_ID, CLIENT_SECRET, Run, World, bare_command, canvas, files_below, school};

async fn small() -> World {
    World::new(school(&[canvas("accounts"), canvas("users")])).await
}

/// Runs the program in the world's folder, with these variables only.
fn bare(world: &World, arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut command = bare_command(arguments);
    command.current_dir(world.path("")).envs(variables.iter().copied()).env("DAPLAKE_STATE_DIR", world.path("state"));
    Run::of(command.output().unwrap())
}

fn write(world: &World, text: &str) {
    let path = world.path("daplake.toml");
    std::fs::write(&path, text.replace("@url@", world.server.url().as_str())).unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

const SERVICE: &str =
    "[service]\nurl = \"@url@\"\nclient_id = \"${MY_ID}\"\nclient_secret = \"file:secret.txt\"\n[pacing]\njob_starts = 0\n";
const MINE: (&str, &str) = ("MY_ID", CLIENT_ID);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sync_updates_all_targets_of_the_file() {
    let world = small().await;
    std::fs::write(world.path("secret.txt"), format!("{CLIENT_SECRET}\n")).unwrap();
    write(
        &world,
        &format!(
            "{SERVICE}[targets.one]\nurl = \"one\"\n[targets.two]\nurl = \"two\"\nformat = \"parquet\"\ntables = [\"users\"]\n[tables.users]\ndrop_columns = [\"name\"]\nmode = \"history\"\n[sync]\nreport = \"report.json\"\n"
        ),
    );
    let run = bare(&world, &["sync"], &[MINE]).assert_code(0);
    assert!(run.stdout.contains("/one/: 2 tables: 2 loaded") && run.stdout.contains("/two/: 1 table: 1 loaded"), "{run:?}");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(world.path("report.json")).unwrap()).unwrap();
    assert_eq!(report.as_array().map(Vec::len), Some(2), "{report}");
    assert!(world.path("two/canvas/users").is_dir() && !world.path("two/canvas/accounts").exists());

    let columns = bare(&world, &["query", "--to", "one", "--output", "csv", "SELECT * FROM users LIMIT 1"], &[]).assert_code(0);
    let head: Vec<&str> = columns.stdout.lines().next().unwrap_or_default().split(',').collect();
    assert!(head.contains(&"sortable_name") && !head.contains(&"name") && head.contains(&"_current"), "{head:?}");

    // With several targets, other commands need a name.
    bare(&world, &["status"], &[]).assert_code(2).assert_says(&["--to", "one, two"]);
    let status = bare(&world, &["status", "--to", "two", "--output", "json"], &[]).assert_code(0);
    assert_eq!(serde_json::from_str::<Value>(&status.stdout).unwrap()["tables"].as_array().map(Vec::len), Some(1));
    bare(&world, &["status", "--to", "tow"], &[]).assert_code(2).assert_says(&["`two`"]);
    bare(&world, &["status", "--to", "two", "--target", "one"], &[]).assert_code(2).assert_says(&["--to", "--target"]);
    // `--to` is an option and overrides the variable.
    let variable = [("DAPLAKE_TARGET", "elsewhere")];
    let status = bare(&world, &["status", "--to", "one", "--output", "json"], &variable).assert_code(0);
    assert_eq!(serde_json::from_str::<Value>(&status.stdout).unwrap()["tables"].as_array().map(Vec::len), Some(2));
    bare(&world, &["status"], &variable).assert_code(0).assert_says(&["No tables at", "elsewhere"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_option_overrides_a_variable_which_overrides_the_file() {
    let world = small().await;
    std::fs::write(world.path("secret.txt"), CLIENT_SECRET).unwrap();
    write(&world, &format!("{SERVICE}[targets.lake]\nurl = \"lake\"\n[sync]\ntables = [\"accounts\"]\n"));
    let tables = |run: Run| run.assert_code(0).stdout.lines().next().unwrap_or_default().to_owned();
    assert!(tables(bare(&world, &["sync"], &[MINE])).starts_with("1 table:"), "the file");
    assert!(tables(bare(&world, &["sync", "--table", "all"], &[MINE])).starts_with("2 tables"), "a flag");
    // A variable overrides the file, and an option overrides both.
    let wrong = ("DAP_CLIENT_SECRET", "wrong");
    bare(&world, &["sync"], &[MINE, wrong]).assert_code(5).assert_says(&["credentials"]);
    bare(&world, &["sync", "--client-secret", CLIENT_SECRET], &[MINE, wrong]).assert_code(0);
    // Another file by option or variable; it must exist.
    std::fs::rename(world.path("daplake.toml"), world.path("other.toml")).unwrap();
    bare(&world, &["sync"], &[MINE]).assert_code(2).assert_says(&["--target", "daplake init"]);
    bare(&world, &["sync", "--settings", "other.toml"], &[MINE]).assert_code(0);
    bare(&world, &["sync"], &[MINE, ("DAPLAKE_SETTINGS", "other.toml")]).assert_code(0);
    bare(&world, &["sync", "--settings", "absent.toml"], &[MINE]).assert_code(2).assert_says(&["absent.toml", "init"]);
    // The file in the settings folder of the user.
    let config = world.path("config");
    std::fs::create_dir_all(config.join("daplake")).unwrap();
    std::fs::rename(world.path("other.toml"), config.join("daplake/daplake.toml")).unwrap();
    if cfg!(target_os = "linux") {
        let run = bare(&world, &["sync"], &[MINE, ("XDG_CONFIG_HOME", config.to_str().unwrap())]);
        // Its relative paths start at its own folder, which has no secret.
        run.assert_code(5).assert_says(&["secret.txt", "client secret"]);
    }
    // Help never shows values of a file.
    write(&world, &SERVICE.replace("file:secret.txt", "planted-in-clear"));
    let help = bare(&world, &["sync", "--help"], &[MINE]).assert_code(0);
    assert!(!help.stdout.contains("planted-in-clear"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_file_is_wrong_usage_with_a_line_and_a_hint() {
    let world = small().await;
    write(&world, &format!("{SERVICE}[sync]\ntabels = [\"users\"]\n"));
    bare(&world, &["sync"], &[MINE]).assert_code(2).assert_says(&["daplake.toml", "line: 8", "`tables`"]);
    write(&world, &SERVICE.replace("file:secret.txt", CLIENT_SECRET));
    let run = bare(&world, &["sync", "--target", "lake"], &[MINE]).assert_code(0).assert_says(&["clear text", "line 4"]);
    assert!(!format!("{run:?}").contains(CLIENT_SECRET));
    #[cfg(unix)]
    {
        let path = world.path("daplake.toml");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        bare(&world, &["status", "--target", "lake"], &[]).assert_code(0).assert_says(&["chmod 600"]);
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        bare(&world, &["status", "--target", "lake"], &[]).assert_code(2).assert_says(&["Every user", "chmod 600"]);
    }
    // A missing variable matters only for a selected target, and is named.
    write(&world, "[targets.db]\nurl = \"postgresql://u:${ABSENT}@h/d\"\n[targets.lake]\nurl = \"lake\"\n");
    bare(&world, &["status", "--to", "lake"], &[]).assert_code(0);
    bare(&world, &["status", "--to", "db"], &[]).assert_code(2).assert_says(&["ABSENT", "targets.db.url"]);
    // Missing credentials do not matter to commands that do not call the service.
    write(&world, &format!("{SERVICE}[targets.lake]\nurl = \"lake\"\n"));
    let run = bare(&world, &["status"], &[]).assert_code(0);
    assert!(!format!("{run:?}").contains("MY_ID"), "{run:?}");
    bare(&world, &["check"], &[]).assert_code(5).assert_says(&["MY_ID", "client_id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_writes_a_file_that_check_and_sync_accept() {
    let world = small().await;
    bare(&world, &["init", "--target", "my lake", "--name", "main"], &[]).assert_code(0).assert_says(&["daplake check"]);
    let path = world.path("daplake.toml");
    #[cfg(unix)]
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    bare(&world, &["init"], &[]).assert_code(5).assert_says(&["already exists", "--settings"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "it is not changed");

    let url = world.server.url();
    let all = [("DAP_API_URL", url.as_str()), ("DAP_CLIENT_ID", CLIENT_ID), ("DAP_CLIENT_SECRET", CLIENT_SECRET)];
    let check = bare(&world, &["check"], &all).assert_code(0);
    for words in
        ["ok    credentials", "ok    clock", "namespace canvas", "2 tables", "my%20lake/ can be written", "temporary files"]
    {
        assert!(check.stdout.contains(words), "{words} is not in\n{}", check.stdout);
    }
    assert!(world.fingerprint().is_empty() && !world.path("my lake/canvas").exists(), "nothing is created");
    assert_eq!(world.server.counters().jobs_started(), 0);
    bare(&world, &["sync", "--jobs-per-minute", "0"], &all).assert_code(0);
    bare(&world, &["query", "SELECT count(*) FROM users"], &all).assert_code(0);

    // Each failed check has a hint.
    std::fs::write(world.path("in the way"), "").unwrap();
    let wrong = [all[0], all[1], ("DAP_CLIENT_SECRET", "wrong"), ("DAPLAKE_TEMP_DIR", "in the way")];
    let check = bare(&world, &["check", "--target", "in the way", "--output", "json"], &wrong).assert_code(5);
    let findings: Value = serde_json::from_str(&check.stdout).unwrap();
    let bad: Vec<&str> = findings
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["verdict"] == "bad")
        .filter_map(|finding| finding["subject"].as_str())
        .collect();
    assert_eq!(bad, ["credentials", "target", "temporary files"], "{findings}");
    assert!(
        findings
            .as_array()
            .unwrap()
            .iter()
            .filter(|finding| finding["verdict"] == "bad")
            .all(|finding| finding["hint"].is_string()),
        "{findings}"
    );
    bare(&world, &["init", "--settings", "db.toml", "--target", "mysql://u:planted@h/d"], &[])
        .assert_code(5)
        .assert_says(&["password"]);
    assert!(!world.path("db.toml").exists());
    bare(&world, &["init", "--settings", "db.toml", "--target", "mysql://u:${PW}@h/d"], &[]).assert_code(0);
    assert!(std::fs::read_to_string(world.path("db.toml")).unwrap().contains("u:${PW}@h"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_of_the_file_appear_nowhere_and_files_are_private() {
    let world = small().await;
    std::fs::write(world.path("secret.txt"), CLIENT_SECRET).unwrap();
    write(
        &world,
        &format!(
            "{SERVICE}[targets.lake]\nurl = \"lake\"\n[sync]\nreport = \"report.json\"\nbad_rows = \"bad.jsonl\"\n[log]\nlevel = \"debug\"\nfile = \"log.txt\"\n"
        ),
    );
    // Slow, so that the arguments of the process can be inspected.
    world.server.inject(Fault::parse("drip:4000").unwrap(), Times::Always);
    let mut command = bare_command(&["sync"]);
    command.current_dir(world.path("")).env("MY_ID", CLIENT_ID).env("DAPLAKE_STATE_DIR", world.path("state"));
    let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    while world.server.counters().calls_of(Endpoint::Objects) == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let arguments = std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap_or_default();
    world.server.clear_faults();
    let run = Run::of(child.wait_with_output().unwrap()).assert_code(0);
    let mut searched = String::from_utf8(arguments).unwrap() + &run.stdout + &run.stderr;
    let folders = ["state", "lake"].map(|name| files_below(&world.path(name)));
    assert!(folders.iter().all(|files| !files.is_empty()));
    for file in folders.into_iter().flatten().chain([world.path("report.json"), world.path("log.txt")]) {
        searched.push_str(&String::from_utf8_lossy(&std::fs::read(file).unwrap()));
    }
    searched.push_str(&bare(&world, &["check", "--output", "json", "--loglevel", "debug"], &[MINE]).assert_code(0).stderr);
    assert!(searched.len() > 2000, "there is something to search");
    for secret in [CLIENT_SECRET, "Bearer ", "Basic ", "signature=", "sig=", "eyJ"] {
        assert!(!searched.contains(secret), "{secret} shows");
    }
    #[cfg(unix)]
    for (path, mode) in [("state", 0o700), ("report.json", 0o600), ("bad.jsonl", 0o600)] {
        let found = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(world.path(path)).unwrap().permissions());
        assert_eq!(found & 0o777, mode, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_beyond_a_limit_fail_their_table_with_a_hint() {
    let world = small().await;
    for (limit, words) in [
        (&["--max-line", "40"][..], "longer than 40 bytes"),
        (&["--max-object", "100"], "--max-object"),
        (&["--max-object", "100", "--download-format", "parquet"], "--max-object"),
        // More than the size of the object, less than its unpacked size.
        (&["--max-object", "12KiB", "--download-format", "parquet"], "--max-object"),
    ] {
        let mut arguments = vec!["sync", "--target", "lake", "--jobs-per-minute", "0", "--table", "users"];
        arguments.extend(limit);
        world.daplake(&arguments).assert_code(5).assert_says(&["canvas.users", words]);
        assert!(!world.lake().join("canvas/users/_delta_log").exists());
    }
}

/// The folder for temporary files can be shared with other users, like `/tmp`.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_in_the_temporary_folder_does_not_block_a_run() {
    let world = small().await;
    let folder = world.path("tmp");
    std::fs::create_dir(&folder).unwrap();
    let pipe = folder.join("daplake-spill-x.lock");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let sync = ["sync", "--target", "lake", "--temp-dir", "tmp", "--jobs-per-minute", "0", "--namespace", "canvas"];
    world.daplake(&sync).assert_code(0);
    let query = ["query", "--target", "lake", "--temp-dir", "tmp", "SELECT count(*) FROM canvas.users"];
    world.daplake(&query).assert_code(0);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "only the pipe is left");
}

/// Paths below a folder, with their permissions.
#[cfg(unix)]
fn modes(folder: &std::path::Path) -> Vec<(std::path::PathBuf, u32)> {
    use std::os::unix::fs::PermissionsExt;

    use crate::support::paths_below;
    let mode = |path: std::path::PathBuf| {
        let mode = path.symlink_metadata().ok()?.permissions().mode() & 0o777;
        Some((path, mode))
    };
    paths_below(folder).into_iter().filter_map(mode).collect()
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn staged_objects_are_private_and_removed_after_a_kill() {
    let world = small().await;
    world.server.inject(Fault::parse("drip:2000").unwrap(), Times::Always);
    let sync = ["sync", "--target", "lake", "--temp-dir", "tmp", "--jobs-per-minute", "0", "--namespace", "canvas"];
    let mut child = world.command(&sync).args(["--download-format", "parquet"]).spawn().unwrap();
    let folder = world.path("tmp");
    let staged = loop {
        let found = modes(&folder);
        if found.iter().any(|(path, _)| path.extension().is_some_and(|extension| extension == "part")) {
            break found;
        }
        assert!(child.try_wait().unwrap().is_none(), "the run ended without staging an object");
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    for (path, mode) in &staged {
        // Files of the engine are within the private folder.
        let is_open = *mode & 0o077 != 0 && !path.to_string_lossy().contains("/datafusion-");
        assert!(!is_open, "{} is {mode:o}", path.display());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!modes(&folder).is_empty(), "a killed run leaves its folder");
    world.server.clear_faults();
    world.daplake(&sync).assert_code(0);
    assert_eq!(modes(&folder), []);
}
