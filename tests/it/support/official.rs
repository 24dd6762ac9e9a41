//! The official client, as a black box in its own Python environment.

use std::path::PathBuf;
use std::process::Command;

use super::{CLIENT_ID, CLIENT_SECRET, Run, World};

/// The program. `None` if it is missing and not required.
pub fn found() -> Option<PathBuf> {
    let required = std::env::var("DAPLAKE_TEST_REQUIRE").is_ok_and(|list| list.split(',').any(|word| word == "dap"));
    match std::env::var_os("DAPLAKE_TEST_DAP") {
        Some(program) => Some(program.into()),
        None => {
            assert!(!required, "DAPLAKE_TEST_DAP is not set");
            eprintln!("not run: the official client (set DAPLAKE_TEST_DAP, or use tests/run)");
            None
        }
    }
}

/// Runs a command for tables of a namespace, without usage tracking.
pub fn run(program: &PathBuf, world: &World, verb: &str, namespace: &str, tables: &str, database: &str) -> Run {
    let home = world.path("home");
    std::fs::create_dir_all(&home).unwrap();
    let mut command = Command::new(program);
    command
        .args([
            "--no-tracking",
            "--non-interactive",
            "--loglevel",
            "warning",
            verb,
            "--namespace",
            namespace,
            "--table",
            tables,
        ])
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("HOME", home)
        .env("TZ", "UTC")
        .env("LC_ALL", "C.UTF-8")
        .env("DAP_API_URL", world.server.url().as_str().trim_end_matches('/'))
        .env("DAP_CLIENT_ID", CLIENT_ID)
        .env("DAP_CLIENT_SECRET", CLIENT_SECRET)
        .env("DAP_CONNECTION_STRING", database);
    Run::of(command.output().unwrap())
}
