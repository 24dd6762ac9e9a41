//! A timer and a service of the systemd user manager.

use std::path::PathBuf;

use super::job::{Job, known};
use super::step::{Call, MARKER, NewFile, Step, is_ours};
use crate::cli::settings::paths::xdg_config;
use crate::error::Result;

/// Whether this user has a running manager.
pub(super) fn is_available() -> bool {
    systemctl(&["show", "--property=Version"]).succeeds()
}

/// The service and the timer.
pub(super) fn files(job: &Job) -> Result<Vec<NewFile>> {
    let command: Vec<String> = job.command.iter().map(|word| quoted(word)).collect();
    let service = format!(
        "# {MARKER}. `daplake schedule remove` deletes it.\n[Unit]\nDescription=Update tables of the Data Access Platform\n\n\
         [Service]\nType=oneshot\nEnvironmentFile={}\nExecStart={}\n",
        job.environment.display().to_string().replace('%', "%%"),
        command.join(" "),
    );
    let timer = format!(
        "# {MARKER}. `daplake schedule remove` deletes it.\n[Unit]\nDescription=Update tables of the Data Access Platform regularly\n\n\
         [Timer]\nOnCalendar={}\nRandomizedDelaySec={}\n# A start that was missed while the machine was off is made up for.\nPersistent=true\n\n\
         [Install]\nWantedBy=timers.target\n",
        calendar(job),
        job.times.largest_delay(),
    );
    Ok(vec![NewFile::text(unit(&job.name, "service")?, service), NewFile::text(unit(&job.name, "timer")?, timer)])
}

/// Whether the timer waits for its next start.
pub(super) fn is_active(name: &str) -> bool {
    let timer = format!("{name}.timer");
    systemctl(&["is-active", "--quiet", &timer]).succeeds() && systemctl(&["is-enabled", "--quiet", &timer]).succeeds()
}

/// Steps that start the timer.
pub(super) fn activate(name: &str) -> Vec<Call> {
    let timer = format!("{name}.timer");
    vec![
        systemctl(&["daemon-reload"]),
        systemctl(&["enable", "--now", &timer]),
        // A changed timer counts from its new times only after a restart.
        systemctl(&["restart", &timer]),
    ]
}

/// Files of an installed schedule.
pub(super) fn installed(name: &str) -> Result<Vec<PathBuf>> {
    let files = [unit(name, "timer")?, unit(name, "service")?];
    Ok(files.into_iter().filter(|path| is_ours(path)).collect())
}

/// Steps that remove the schedule. A running sync ends as after any SIGTERM: each table keeps its old state or has its new one.
pub(super) fn remove(name: &str, files: Vec<PathBuf>) -> Vec<Step> {
    let stop = systemctl(&["disable", "--now", &format!("{name}.timer")]).may_fail();
    let files = files.into_iter().map(Step::Remove);
    std::iter::once(Step::Run(stop)).chain(files).chain([Step::Run(systemctl(&["daemon-reload"]).may_fail())]).collect()
}

/// State, next start and last result.
pub(super) fn state(name: &str) -> Vec<(&'static str, String)> {
    let show = |unit: &str, property: &str| {
        let text = systemctl(&["show", &format!("{name}.{unit}"), &format!("--property={property}"), "--value"]).text()?;
        let text = text.trim().to_owned();
        (!text.is_empty() && text != "n/a").then_some(text)
    };
    let state = if is_active(name) { "active" } else { "not active: install it again" };
    let mut lines = vec![("state", state.to_owned())];
    lines.extend(show("timer", "NextElapseUSecRealtime").map(|time| ("next run", time)));
    lines.extend(show("timer", "LastTriggerUSec").map(|time| ("last run", time)));
    lines.extend(show("service", "Result").map(|result| ("last result", result)));
    lines
}

/// A remark if the timer stops when the user logs out.
pub(super) fn remark() -> Option<String> {
    let lingers = Call::new("loginctl", &["show-user", "--property=Linger", "--value"]).text();
    (lingers.as_deref().map(str::trim) != Some("yes"))
        .then(|| "your timers run only while you are logged in; `loginctl enable-linger` lets them run always".to_owned())
}

fn systemctl(arguments: &[&str]) -> Call {
    Call::new("systemctl", &[&["--user"], arguments].concat())
}

fn unit(name: &str, kind: &str) -> Result<PathBuf> {
    Ok(known(xdg_config())?.join("systemd/user").join(format!("{name}.{kind}")))
}

/// The times in the syntax of systemd.
fn calendar(job: &Job) -> String {
    let (every, minute) = (job.times.every, job.times.minute());
    match every {
        1..60 => format!("*-*-* *:{minute:02}/{every}:00"),
        60 => format!("*-*-* *:{minute:02}:00"),
        _ if every == 24 * 60 => format!("*-*-* {:02}:{minute:02}:00", job.times.first / 60),
        _ => format!("*-*-* 00/{}:{minute:02}:00", every / 60),
    }
}

/// A word of `ExecStart=`: `%` and `$` have a meaning even within quotes.
fn quoted(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-=:,@+%".contains(&byte);
    if escaped.bytes().all(is_plain) { escaped } else { format!("\"{escaped}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_systemd() {
        for (word, expected) in [
            ("/usr/bin/daplake", "/usr/bin/daplake"),
            ("a b", "\"a b\""),
            ("50%", "50%%"),
            ("$HOME", "\"$$HOME\""),
            (r#"a"b\c"#, r#""a\"b\\c""#),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
