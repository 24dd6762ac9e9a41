//! A task of the Windows Task Scheduler, registered from XML.

use std::path::PathBuf;

use super::job::{Job, known};
use super::step::{Call, MARKER, NewFile, Step, is_ours, utf16};
use super::xml::escaped;
use crate::cli::settings::paths::config_dir;
use crate::error::{Error, Kind, Result};

/// The definition of the task, in UTF-16 as the Task Scheduler itself writes it.
pub(super) fn files(job: &Job) -> Result<Vec<NewFile>> {
    job.check_without_variables()?;
    let (program, arguments) = job.command.split_first().ok_or_else(|| Error::new(Kind::Bug, "The schedule has no command"))?;
    let arguments: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
    let (hour, minute) = (job.times.first / 60, job.times.first % 60);
    let interval = match job.times.every {
        every if every >= 24 * 60 => String::new(),
        every => format!(
            "\n      <Repetition>\n        <Interval>PT{every}M</Interval>\n        <Duration>P1D</Duration>\n        <StopAtDurationEnd>false</StopAtDurationEnd>\n      </Repetition>"
        ),
    };
    let folder = job.settings.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    let body = format!(
        r#"<Task version="1.4" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Description>Updates the DAP tables. {MARKER}.</Description>
  </RegistrationInfo>
  <Triggers>
    <CalendarTrigger>{interval}
      <StartBoundary>2026-01-01T{hour:02}:{minute:02}:00</StartBoundary>
      <Enabled>true</Enabled>
      <RandomDelay>PT{delay}S</RandomDelay>
      <ScheduleByDay>
        <DaysInterval>1</DaysInterval>
      </ScheduleByDay>
    </CalendarTrigger>
  </Triggers>
  <Principals>
    <Principal id="Author">
      <LogonType>InteractiveToken</LogonType>
      <RunLevel>LeastPrivilege</RunLevel>
    </Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <StartWhenAvailable>true</StartWhenAvailable>
    <RunOnlyIfNetworkAvailable>true</RunOnlyIfNetworkAvailable>
    <ExecutionTimeLimit>PT12H</ExecutionTimeLimit>
    <Enabled>true</Enabled>
  </Settings>
  <Actions Context="Author">
    <Exec>
      <Command>{program}</Command>
      <Arguments>{arguments}</Arguments>
      <WorkingDirectory>{folder}</WorkingDirectory>
    </Exec>
  </Actions>
</Task>
"#,
        delay = job.times.largest_delay(),
        program = escaped(program),
        arguments = escaped(&arguments.join(" ")),
        folder = escaped(&folder),
    );
    let bytes = [&[0xff, 0xfe][..], &utf16(&format!("<?xml version=\"1.0\" encoding=\"UTF-16\"?>\n{body}"))].concat();
    Ok(vec![NewFile { path: definition(&job.name)?, bytes, shown: body, is_private: false }])
}

/// Whether the task is registered.
pub(super) fn is_active(name: &str) -> bool {
    schtasks(&["/Query", "/TN", name]).succeeds()
}

/// Steps that register the task and replace an older one. Refuses to replace the task of another program.
pub(super) fn activate(name: &str) -> Result<Vec<Call>> {
    if is_foreign(name) {
        return Err(Error::new(Kind::Usage, "The Task Scheduler has a task of that name from another program")
            .with_field("task", name)
            .hint("give the schedule another name with --name"));
    }
    let path = definition(name)?.display().to_string();
    Ok(vec![schtasks(&["/Create", "/TN", name, "/XML", &path, "/F"])])
}

/// The definition of an installed schedule.
pub(super) fn installed(name: &str) -> Result<Vec<PathBuf>> {
    Ok(vec![definition(name)?].into_iter().filter(|path| is_ours(path)).collect())
}

/// Steps that remove the schedule.
pub(super) fn remove(name: &str, files: Vec<PathBuf>) -> Vec<Step> {
    let task = (!is_foreign(name)).then(|| Step::Run(schtasks(&["/Delete", "/TN", name, "/F"]).may_fail()));
    task.into_iter().chain(files.into_iter().map(Step::Remove)).collect()
}

/// State, next start and last result, as the system's language names them.
pub(super) fn state(name: &str) -> Vec<(&'static str, String)> {
    let Some(text) = schtasks(&["/Query", "/TN", name, "/V", "/FO", "LIST"]).text() else {
        return vec![("state", "not registered: install it again".to_owned())];
    };
    let value = |name: &str| Some(text.lines().find_map(|line| line.strip_prefix(name))?.trim().to_owned());
    let mut lines = vec![("state", "registered".to_owned())];
    lines.extend(value("Next Run Time:").map(|time| ("next run", time)));
    lines.extend(value("Last Run Time:").map(|time| ("last run", time)));
    lines.extend(value("Last Result:").map(|code| ("last result", format!("exit code {code}"))));
    lines
}

pub(super) fn remark() -> String {
    "the task runs while you are logged on; for a server, see docs/guides/scheduling.md".to_owned()
}

/// Whether a task of that name does not have our description.
fn is_foreign(name: &str) -> bool {
    let found = schtasks(&["/Query", "/TN", name, "/XML"]).output().ok().filter(|output| output.status.success());
    found.is_some_and(|output| {
        // UTF-16 when it is redirected on some systems.
        let text: Vec<u8> = output.stdout.into_iter().filter(|byte| *byte != 0).collect();
        let text = String::from_utf8_lossy(&text).into_owned();
        !text.trim().is_empty() && !text.contains(MARKER)
    })
}

fn schtasks(arguments: &[&str]) -> Call {
    Call::new("schtasks", arguments)
}

fn definition(name: &str) -> Result<PathBuf> {
    Ok(known(config_dir())?.join(format!("{name}.task.xml")))
}

/// An argument in the quoting of Windows programs.
fn quoted(word: &str) -> String {
    if !word.is_empty() && !word.contains([' ', '\t', '"']) {
        return word.to_owned();
    }
    let mut out = String::from("\"");
    let mut backslashes = 0;
    for letter in word.chars() {
        match letter {
            '\\' => backslashes += 1,
            '"' => {
                // Those before a quote are doubled, and the quote is escaped.
                out.push_str(&"\\".repeat(backslashes + 1));
                backslashes = 0;
            }
            _ => backslashes = 0,
        }
        out.push(letter);
    }
    out.push_str(&"\\".repeat(backslashes));
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_quoted_as_windows_programs_read_them() {
        for (word, expected) in [
            ("sync", "sync"),
            (r"C:\Program Files\x", r#""C:\Program Files\x""#),
            (r"C:\my folder\", r#""C:\my folder\\""#),
            (r#"a"b"#, r#""a\"b""#),
            ("", r#""""#),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
