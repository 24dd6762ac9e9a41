//! A launch agent of macOS.

use std::path::PathBuf;

use super::job::{Job, known};
use super::step::{Call, MARKER, NewFile, Step, is_ours};
use super::xml::escaped;
use crate::cli::settings::paths::home;
use crate::error::{Error, Kind, Result};

/// The property list.
pub(super) fn files(job: &Job) -> Result<Vec<NewFile>> {
    let words: String = job.shell_command()?.iter().map(|word| format!("    <string>{}</string>\n", escaped(word))).collect();
    let hourly = job.times.every <= 60;
    let starts = job.times.starts().take_while(|(hour, _)| !hourly || *hour == 0);
    let starts: String = starts
        .map(|(hour, minute)| {
            let hour = if hourly { String::new() } else { format!("<key>Hour</key><integer>{hour}</integer>") };
            format!("    <dict>{hour}<key>Minute</key><integer>{minute}</integer></dict>\n")
        })
        .collect();
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <!-- {MARKER}. `daplake schedule remove` deletes it. -->\n\
         <plist version=\"1.0\">\n<dict>\n  <key>Label</key>\n  <string>{}</string>\n  <key>ProgramArguments</key>\n  <array>\n{words}  </array>\n\
         \x20 <key>StartCalendarInterval</key>\n  <array>\n{starts}  </array>\n  <key>ProcessType</key>\n  <string>Background</string>\n</dict>\n</plist>\n",
        escaped(&label(&job.name)),
    );
    Ok(vec![NewFile::text(agent(&job.name)?, text)])
}

/// Whether the agent is loaded.
pub(super) fn is_active(name: &str) -> bool {
    agent_in_session(name).is_some_and(|agent| Call::new("launchctl", &["print", &agent]).succeeds())
}

/// Steps that load the agent and replace an older one.
pub(super) fn activate(name: &str) -> Result<Vec<Call>> {
    let domain = domain().ok_or_else(|| Error::new(Kind::Io, "Cannot determine the user id: `id -u` failed"))?;
    let path = agent(name)?.display().to_string();
    Ok(vec![
        Call::new("launchctl", &["bootout", &in_session(&domain, name)]).may_fail(),
        Call::new("launchctl", &["bootstrap", &domain, &path]),
    ])
}

/// The file of an installed schedule.
pub(super) fn installed(name: &str) -> Result<Vec<PathBuf>> {
    Ok(vec![agent(name)?].into_iter().filter(|path| is_ours(path)).collect())
}

/// Steps that remove the schedule.
pub(super) fn remove(name: &str, files: Vec<PathBuf>) -> Vec<Step> {
    let stop = agent_in_session(name).map(|agent| Call::new("launchctl", &["bootout", &agent]).may_fail());
    stop.into_iter().map(Step::Run).chain(files.into_iter().map(Step::Remove)).collect()
}

/// State and last exit code.
pub(super) fn state(name: &str) -> Vec<(&'static str, String)> {
    let text = agent_in_session(name).and_then(|agent| Call::new("launchctl", &["print", &agent]).text());
    let Some(text) = text else { return vec![("state", "not loaded: install it again".to_owned())] };
    let value = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(" = "));
    let mut lines = vec![("state", "loaded".to_owned())];
    lines.extend(value("last exit code").map(|code| ("last result", format!("exit code {code}"))));
    lines
}

/// The session of this user.
fn domain() -> Option<String> {
    Some(format!("gui/{}", Call::new("id", &["-u"]).text()?.trim()))
}

/// The name of the agent for `launchctl`.
fn in_session(domain: &str, name: &str) -> String {
    format!("{domain}/{}", label(name))
}

fn agent_in_session(name: &str) -> Option<String> {
    Some(in_session(&domain()?, name))
}

fn label(name: &str) -> String {
    format!("local.{name}")
}

fn agent(name: &str) -> Result<PathBuf> {
    Ok(known(home())?.join("Library/LaunchAgents").join(format!("{}.plist", label(name))))
}
