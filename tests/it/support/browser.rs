//! Headless Chromium: the DOM of a page after its scripts have run, and screenshots.

use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// The browser, or `None` if it is missing and not required.
pub fn browser() -> Option<PathBuf> {
    let given = std::env::var_os("DAPLAKE_TEST_CHROMIUM").map(PathBuf::from);
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = given.or_else(|| {
        let mut paths = std::env::split_paths(&folders).flat_map(|folder| PROGRAMS.map(|name| folder.join(name)));
        paths.find(|path| path.is_file())
    });
    if found.is_none() {
        let required = std::env::var("DAPLAKE_TEST_REQUIRE").is_ok_and(|list| list.split(',').any(|word| word == "chromium"));
        assert!(!required, "no Chromium on the path");
        eprintln!("not run: tests with a browser (install `chromium`, or set DAPLAKE_TEST_CHROMIUM)");
    }
    found
}

fn run(browser: &Path, page: &Path, place: &str, more: &[String]) -> String {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(browser);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg("--virtual-time-budget=3000")
        .arg(format!("--user-data-dir={}", home.path().display()))
        .args(more)
        .arg(format!("file://{}{place}", page.display()));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The DOM of a page after its scripts have run.
pub fn dom(browser: &Path, page: &Path) -> String {
    dom_at(browser, page, "")
}

/// [`dom`] at a fragment, such as `#name`.
pub fn dom_at(browser: &Path, page: &Path, place: &str) -> String {
    run(browser, page, place, &["--dump-dom".to_owned()])
}

/// Takes a screenshot. Returns its size in pixels.
pub fn screenshot(browser: &Path, page: &Path, picture: &Path, size: (u32, u32), more: &[&str]) -> (u32, u32) {
    take(browser, page, "", picture, size, more)
}

/// [`screenshot`] at a fragment.
pub fn screenshot_at(browser: &Path, page: &Path, place: &str, picture: &Path, size: (u32, u32)) -> (u32, u32) {
    take(browser, page, place, picture, size, &[])
}

fn take(browser: &Path, page: &Path, place: &str, picture: &Path, size: (u32, u32), more: &[&str]) -> (u32, u32) {
    let mut arguments = vec![format!("--screenshot={}", picture.display()), format!("--window-size={},{}", size.0, size.1)];
    arguments.extend(more.iter().map(|word| (*word).to_owned()));
    run(browser, page, place, &arguments);
    let bytes = std::fs::read(picture).unwrap();
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}
