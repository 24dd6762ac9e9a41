//! Commands that the user names (`--notify-command`, `credential_process`), started with a clean environment. It decides nothing
//! about what they are for.
//!
//! [`shell`] is the only way to start one: a child gets the variables of [`PASSED`] and nothing else, so that no secret of ours
//! (`DAP_*`, `AWS_*`, `PGPASSWORD`, `DAPLAKE_HASH_KEY`, a variable that the settings file refers to) reaches it. A list of what is
//! passed is safer than a list of what is not: it also holds for variables that we have never heard of.

use std::process::Command;

/// Variables that any command may need to start and to find its way; a `*` at the end stands for any rest.
pub(crate) const PASSED: &[&str] = &[
    // The user and the places.
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
    // The way out of a closed network.
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
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
];

/// The same on Windows, where names have no case.
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

/// `command` by the system's shell, with the environment cleaned. `more` names further variables to pass, in the form of
/// [`PASSED`].
pub(crate) fn shell(command: &str, more: &[&str]) -> Command {
    let mut child = start(command);
    // Names that are no text cannot be on the list.
    for (name, _) in std::env::vars_os().filter(|(name, _)| !name.to_str().is_some_and(|name| is_passed(name, more))) {
        child.env_remove(name);
    }
    child
}

#[cfg(not(windows))]
fn start(command: &str) -> Command {
    let mut child = Command::new("sh");
    child.arg("-c").arg(command);
    child
}

/// `cmd` does not understand the escaped quotes of usual arguments; with `/S` it takes the outer pair of quotes off and the rest as it is.
#[cfg(windows)]
fn start(command: &str) -> Command {
    use std::os::windows::process::CommandExt;
    let mut child = Command::new("cmd");
    child.args(["/D", "/S", "/C"]).raw_arg(format!("\"{command}\""));
    child
}

fn is_passed(name: &str, more: &[&str]) -> bool {
    let of_windows = PASSED_ON_WINDOWS.iter().filter(|_| cfg!(windows));
    PASSED.iter().chain(more).chain(of_windows).any(|known| {
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
    fn no_variable_that_opens_something_is_passed() {
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
    fn a_command_sees_what_is_passed_only() {
        let output = shell("env", &[]).env("GIVEN", "x").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let names: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        assert!(names.contains(&"PATH") && names.contains(&"GIVEN"), "{text}");
        // Some are the shell's own.
        let is_known = |name: &&str| is_passed(name, &["GIVEN", "SHLVL", "OLDPWD", "_"]);
        assert!(names.iter().all(is_known), "{text}");
    }
}
