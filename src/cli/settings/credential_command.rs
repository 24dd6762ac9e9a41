//! `credential_command`: a command whose first line of output is a secret. It runs without a shell and with a time limit. Neither its output
//! nor its arguments appear in messages.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::child;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::redact::Secret;

/// The key in a section of the settings file.
pub(in crate::cli) const CREDENTIAL_COMMAND: &str = "credential_command";
/// The name by which the values of the section refer to the secret.
pub(in crate::cli) const CREDENTIAL: &str = "CREDENTIAL";

/// How long a command may run, with the time that a person needs to unlock a key store.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// The longest secret, bytes.
const MAX_LENGTH: u64 = 64 << 10;

/// Variables of key stores, in the form of [`child::PASSED`].
pub(in crate::cli) const KEY_STORES: &[&str] = &[
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "GNUPGHOME",
    "GPG_TTY",
    "SSH_AUTH_SOCK",
    "PASSWORD_STORE_*",
    "BW_SESSION",
    "OP_*",
    "VAULT_*",
];

/// Runs a command in `folder`, and returns the first line that it prints.
///
/// # Errors
/// Kind `Usage`: the command cannot be started, fails, takes too long or prints nothing.
pub(in crate::cli) fn secret_of(command: &[String], folder: &Path) -> Result<Secret> {
    first_line(command, folder, TIME_LIMIT)
}

fn first_line(command: &[String], folder: &Path, limit: Duration) -> Result<Secret> {
    let Some((name, arguments)) = command.split_first() else {
        return Err(Error::new(Kind::Usage, "The credential command is empty"));
    };
    let failed = |message: &'static str| {
        Error::new(Kind::Usage, message)
            .with_field("program", name)
            .hint("run the command in a terminal: it must print the secret on its first line, without a prompt")
    };
    // A path is relative to the settings file; a name alone is found on the PATH.
    let is_path = name.contains(['/', '\\']);
    let program = if is_path { folder.join(name) } else { PathBuf::from(name) };
    let mut child = child::program(&program.display().to_string(), arguments, KEY_STORES)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed("The credential command cannot be started").caused_by(error))?;
    let deadline = Instant::now() + limit;
    let read = child.stdout.take().map(|output| {
        let (sender, receiver) = channel();
        // The thread reads to the end, so that the command is not stopped by a full pipe. It may outlive the command, if another process
        // has inherited the pipe.
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            let read = output.by_ref().take(MAX_LENGTH).read_until(b'\n', &mut line);
            let _ = sender.send(read.map(|_| line));
            let _ = std::io::copy(&mut output, &mut std::io::sink());
        });
        receiver
    });
    let line = read.and_then(|receiver| receiver.recv_timeout(limit).ok());
    let ended = child::wait_until(&mut child, deadline).context(Kind::Usage, "The credential command cannot be observed")?;
    match (ended, line) {
        (None, _) | (_, None) => {
            Err(failed("The credential command takes too long").with_field("seconds", limit.as_secs().max(1)))
        }
        (Some(status), _) if !status.success() => Err(failed("The credential command has failed").with_field("status", status)),
        (_, Some(Err(error))) => Err(failed("The output of the credential command cannot be read").caused_by(error)),
        (_, Some(Ok(line))) => {
            let text = String::from_utf8(line).map_err(|_| failed("The output of the credential command is not UTF-8"))?;
            let secret = text.trim_end_matches(['\n', '\r']);
            if secret.is_empty() {
                return Err(failed("The credential command has printed nothing on its first line"));
            }
            Ok(Secret::new(secret))
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn run(script: &str, limit: Duration) -> Result<String> {
        let command = ["sh", "-c", script].map(str::to_owned);
        first_line(&command, Path::new("/"), limit).map(|secret| secret.reveal().to_owned())
    }

    #[test]
    fn the_first_line_is_the_secret() {
        let limit = Duration::from_secs(20);
        assert_eq!(run("echo ' s#1 '; echo more", limit).unwrap(), " s#1 ");
        assert_eq!(run("printf 's\\r\\n'", limit).unwrap(), "s");
        assert_eq!(run("printf s; seq 100000", limit).unwrap(), "s1");
        // A process that keeps the pipe open does not hold up the run.
        assert_eq!(run("echo s; sleep 30 &", limit).unwrap(), "s");
    }

    #[test]
    fn failures_name_the_program_and_repeat_no_output() {
        let limit = Duration::from_secs(20);
        for (script, expected) in [
            ("echo planted; exit 3", "failed"),
            ("echo; echo planted", "printed nothing"),
            ("printf 'planted\\377\\n'", "not UTF-8"),
            ("exec 1>&-; exit 0", "printed nothing"),
        ] {
            let error = run(script, limit).unwrap_err();
            assert_eq!((error.kind(), error.get("program")), (Kind::Usage, Some("sh")));
            let text = format!("{error:?} {error}");
            assert!(text.contains(expected) && !text.contains("planted"), "{script}: {text}");
        }
        let absent = first_line(&["no-such-program".to_owned(), "planted".to_owned()], Path::new("/"), limit).unwrap_err();
        assert!(absent.to_string().contains("cannot be started") && !format!("{absent:?}").contains("planted"), "{absent:?}");
    }

    #[test]
    fn a_command_that_hangs_is_killed() {
        let begun = Instant::now();
        let error = run("echo planted; exec sleep 60", Duration::from_millis(200)).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn the_command_does_not_get_the_secrets_of_the_run() {
        let names = run("env | cut -d= -f1 | tr '\\n' ' '", Duration::from_secs(20)).unwrap();
        assert!(names.contains("PATH ") && !names.contains("DAP_CLIENT"), "{names}");
    }
}
