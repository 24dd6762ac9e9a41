//! Starts commands that the user configured (`--notify-command`, `credential_process`, `credential_command`), and programs of the system, with a clean
//! environment.
//!
//! [`shell`] and [`program`] are the only ways to start one. A child inherits the variables in [`PASSED`] and [`NETWORK`] and no others, so that no secret reaches it: `DAP_*`,
//! `AWS_*`, `PGPASSWORD`, `DAPLAKE_HASH_KEY`, or a variable that the settings file refers to. A list of allowed variables also covers
//! variables that are not known here.

use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// Variables that every command inherits. A `*` at the end matches any rest.
pub(crate) const PASSED: &[&str] = &[
    // The user and the file system.
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "PWD",
    "TMPDIR",
    "HOSTNAME",
    "XDG_*",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    // Language, time, terminal.
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TZ",
    "TERM",
    // Desktop notifications.
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "DBUS_SESSION_BUS_ADDRESS",
    // Certificates of other programs.
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
];

/// Proxies and certificates, which every command inherits as well.
pub(crate) const NETWORK: &[&str] = &[
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Further variables on Windows, where letter case does not matter.
const PASSED_ON_WINDOWS: &[&str] = &[
    "SYSTEMROOT",
    "SYSTEMDRIVE",
    "WINDIR",
    "COMSPEC",
    "PATHEXT",
    "TEMP",
    "TMP",
    "USERNAME",
    "USERDOMAIN",
    "USERPROFILE",
    "HOMEDRIVE",
    "HOMEPATH",
    "APPDATA",
    "LOCALAPPDATA",
    "PROGRAMDATA",
    "PROGRAMFILES*",
    "COMMONPROGRAMFILES*",
    "COMPUTERNAME",
    "NUMBER_OF_PROCESSORS",
    "PROCESSOR_*",
    "OS",
    "PSMODULEPATH",
];

/// The command that runs `command` in the system's shell with a clean environment. `more` lists further variables to pass, in the form of
/// [`PASSED`].
#[cfg(feature = "lake")]
pub(crate) fn shell(command: &str, more: &[&str]) -> Command {
    clean(start(command), more)
}

/// The command that runs a program, without a shell, with a clean environment and the variables of `more`.
pub(crate) fn program(name: &str, arguments: &[String], more: &[&str]) -> Command {
    let mut child = Command::new(name);
    child.args(arguments);
    clean(child, more)
}

const POLL: Duration = Duration::from_millis(5);

/// Waits for a child until the deadline, then kills it. `None` if it was killed.
pub(crate) fn wait_until(child: &mut Child, deadline: Instant) -> std::io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

fn clean(mut child: Command, more: &[&str]) -> Command {
    // A name that is not Unicode cannot be on the list.
    for (name, _) in std::env::vars_os().filter(|(name, _)| !name.to_str().is_some_and(|name| is_passed(name, more))) {
        child.env_remove(name);
    }
    child
}

#[cfg(all(feature = "lake", not(windows)))]
fn start(command: &str) -> Command {
    let mut child = Command::new("sh");
    child.arg("-c").arg(command);
    child
}

/// `cmd` does not support escaped quotes in arguments. With `/S` it removes the outer pair of quotes and takes the rest literally.
#[cfg(all(feature = "lake", windows))]
fn start(command: &str) -> Command {
    use std::os::windows::process::CommandExt;
    let mut child = Command::new("cmd");
    child.args(["/D", "/S", "/C"]).raw_arg(format!("\"{command}\""));
    child
}

fn is_passed(name: &str, more: &[&str]) -> bool {
    let windows = PASSED_ON_WINDOWS.iter().filter(|_| cfg!(windows));
    PASSED.iter().chain(NETWORK).chain(more).chain(windows).any(|known| {
        let same = |a: &str, b: &str| if cfg!(windows) { a.eq_ignore_ascii_case(b) } else { a == b };
        match known.strip_suffix('*') {
            Some(start) => name.get(..start.len()).is_some_and(|begin| same(begin, start)),
            None => same(name, known),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_passed() {
        for name in ["PATH", "HOME", "LC_ALL", "TZ", "HTTPS_PROXY", "XDG_RUNTIME_DIR"] {
            assert!(is_passed(name, &[]), "{name}");
        }
        for name in [
            "DAP_CLIENT_ID",
            "DAP_CLIENT_SECRET",
            "DAP_CONNECTION_STRING",
            "DAPLAKE_TARGET",
            "DAPLAKE_HASH_KEY",
            "DAPLAKE_NOTIFY",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AZURE_STORAGE_ACCOUNT_KEY",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "PGPASSWORD",
            "MYSQL_PWD",
            "MSSQL_PASSWORD",
            "OTEL_EXPORTER_OTLP_HEADERS",
            "WAREHOUSE_URL",
            "PATHOLOGY",
            "",
        ] {
            assert!(!is_passed(name, &[]), "{name}");
        }
        assert!(is_passed("AWS_PROFILE", &["AWS_PROFILE"]) && !is_passed("AWS_PROFILES", &["AWS_PROFILE"]));
    }

    #[cfg(unix)]
    #[test]
    fn a_command_inherits_only_the_listed_variables() {
        let output = shell("env", &[]).env("GIVEN", "x").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let names: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        assert!(names.contains(&"PATH") && names.contains(&"GIVEN"), "{text}");
        // The shell sets some itself.
        let is_known = |name: &&str| is_passed(name, &["GIVEN", "SHLVL", "OLDPWD", "_"]);
        assert!(names.iter().all(is_known), "{text}");
    }
}
