//! An entry of the user's crontab, between two lines that mark it. All other lines stay as they are.

use super::job::Job;
use super::step::{Call, MARKER, Step, shell_word};
use crate::error::{Error, Kind, Result};

/// Whether this machine has `crontab`.
pub(super) fn is_available() -> bool {
    crontab(&["-l"]).output().is_ok()
}

/// The current crontab; empty if there is none. An error if it cannot be read, since a new one would then delete it.
fn current() -> Result<String> {
    let output = crontab(&["-l"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    match output.status.success() {
        true => String::from_utf8(output.stdout)
            .map_err(|_| Error::new(Kind::Io, "The crontab cannot be read: it is not UTF-8").hint("use another --system")),
        false if said.contains("no crontab") || said.contains("no such file") => Ok(String::new()),
        false => Err(Error::new(Kind::Io, "The crontab cannot be read")
            .caused_by(said.trim().to_owned())
            .hint("ask the administrator of this machine for the right to use cron, or use another --system")),
    }
}

fn begin(name: &str) -> String {
    format!("# BEGIN daplake schedule {name}. {MARKER}; `daplake schedule remove` deletes it.")
}

fn end(name: &str) -> String {
    format!("# END daplake schedule {name}.")
}

/// The lines of the entry.
fn entry(job: &Job) -> Result<String> {
    let words: Vec<String> = job.shell_command()?.iter().map(|word| shell_word(word)).collect();
    // In a crontab an unescaped `%` is a line end.
    let command = words.join(" ").replace('%', "\\%");
    let (every, minute, hour) = (job.times.every, job.times.minute(), job.times.first / 60);
    let when = match every {
        1..60 => {
            let minutes: Vec<String> = (minute..60).step_by(every as usize).map(|minute| minute.to_string()).collect();
            format!("{} * * * *", minutes.join(","))
        }
        60 => format!("{minute} * * * *"),
        _ if every == 24 * 60 => format!("{minute} {hour} * * *"),
        _ => format!("{minute} */{} * * *", every / 60),
    };
    Ok(format!("{}\n{when} {command}\n{}\n", begin(&job.name), end(&job.name)))
}

/// The crontab without the entry, and the entry.
fn split(text: &str, name: &str) -> (String, Option<String>) {
    let (begin, end) = (begin(name), end(name));
    let (mut rest, mut entry) = (String::new(), None::<String>);
    let mut is_inside = false;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end_matches(['\n', '\r']);
        is_inside |= bare == begin;
        if is_inside {
            entry.get_or_insert_default().push_str(line);
            is_inside = bare != end;
        } else {
            rest.push_str(line);
        }
    }
    // Without its last line the end of the entry is unknown, so the text is left unchanged.
    if is_inside { (text.to_owned(), None) } else { (rest, entry) }
}

/// The entry of an installed schedule.
pub(super) fn installed(name: &str) -> Result<Option<String>> {
    Ok(split(&current()?, name).1)
}

/// The step that writes the entry; `None` if it exists.
pub(super) fn activate(job: &Job) -> Result<Option<Call>> {
    let text = current()?;
    let (mut new, old) = split(&text, &job.name);
    let entry = entry(job)?;
    if old.as_deref() == Some(entry.as_str()) {
        return Ok(None);
    }
    if !new.is_empty() && !new.ends_with('\n') {
        new.push('\n');
    }
    Ok(Some(Call { input: Some(new + &entry), ..crontab(&["-"]) }))
}

/// The step that removes the entry.
pub(super) fn remove(name: &str) -> Result<Vec<Step>> {
    let (rest, entry) = split(&current()?, name);
    let call = match entry {
        None => return Ok(Vec::new()),
        Some(_) if rest.trim().is_empty() => crontab(&["-r"]),
        Some(_) => Call { input: Some(rest), ..crontab(&["-"]) },
    };
    Ok(vec![Step::Run(call)])
}

fn crontab(arguments: &[&str]) -> Call {
    Call::new("crontab", arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_between_the_marks_are_removed() {
        let ours = format!("{}\n20 */4 * * * daplake\n{}\n", begin("a"), end("a"));
        let other = format!("{}\n20 */4 * * * daplake\n{}\n", begin("b"), end("b"));
        let text = format!("MAILTO=me\n{ours}{other}# no line end");
        let (rest, entry) = split(&text, "a");
        assert_eq!((rest, entry), (format!("MAILTO=me\n{other}# no line end"), Some(ours.clone())));
        let torn = format!("1 * * * * x\n{}\n2 * * * * y\n", begin("a"));
        assert_eq!(split(&torn, "a"), (torn.clone(), None), "an entry without an end is not touched");
        assert_eq!(split("", "a"), (String::new(), None));
    }
}
