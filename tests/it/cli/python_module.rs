//! The Python module of the wheel, run by the tests in `python/tests` against the embedded server.

use std::path::Path;
use std::process::Command;

use crate::support::{CLIENT_ID, CLIENT_SECRET, World, canvas, school, without_settings};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_module_syncs_and_queries() {
    let Ok(python) = std::env::var("DAPLAKE_TEST_PYTHON") else {
        eprintln!("not run: needs DAPLAKE_TEST_PYTHON");
        return;
    };
    let world = World::new(school(&[canvas("courses"), canvas("users")])).await;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
    let output = without_settings(Command::new(python))
        .args(["-m", "unittest", "discover", "--start-directory"])
        .arg(sources.join("tests"))
        .current_dir(world.path(""))
        .env("PYTHONPATH", &sources)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("DAPLAKE_PROGRAM", env!("CARGO_BIN_EXE_daplake"))
        .env("DAP_API_URL", world.server.url().as_str())
        .env("DAP_CLIENT_ID", CLIENT_ID)
        .env("DAP_CLIENT_SECRET", CLIENT_SECRET)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    assert!(!printed.contains("skipped"), "pyarrow is part of the environment: {printed}");
}
