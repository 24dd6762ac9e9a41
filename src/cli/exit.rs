//! Exit codes: 0 success, 2 wrong usage, 5 failure, 38 not supported, 125 interrupted (those of the official client on Linux).

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::{Error, Kind};

/// The code of an error. One exhaustive table.
pub(super) fn code(error: &Error) -> ExitCode {
    use Kind::*;
    ExitCode::from(match error.kind() {
        Unsupported => 38,
        Cancelled => 125,
        Usage | Auth | Account | NotFound | Expired | OutOfRange | SnapshotRequired | Throttled | Unavailable | Job | Data
        | Schema | Target | Conflict | Io | Resources | Bug => 5,
    })
}

/// Something in the settings file is wrong, which is wrong usage.
pub(super) fn wrong_settings() -> ExitCode {
    ExitCode::from(2)
}

/// Prints what the argument parser has to say: help and version on standard output, mistakes on standard error.
pub(super) fn usage(error: clap::Error, definition: &clap::Command) -> ExitCode {
    let error = discreet(error, definition);
    // A closed pipe is no failure of ours.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}

const HIDDEN: &str = "***";

/// Without words that may be a secret, such as a connection string at the wrong place. The parser would repeat what was typed.
fn discreet(error: clap::Error, definition: &clap::Command) -> clap::Error {
    let said = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    // A word that is near to a known one is a slip of the pen.
    let is_near = |kind| error.get(kind).is_some();
    let hides = |kind: ContextKind| {
        said(kind).is_some_and(|text| match kind {
            ContextKind::InvalidValue => !is_near(ContextKind::SuggestedValue) && !is_plain(&text),
            ContextKind::InvalidSubcommand => !is_near(ContextKind::SuggestedSubcommand) && !is_word(&text),
            ContextKind::InvalidArg => {
                let is_option = error.kind() != ErrorKind::UnknownArgument || is_word(text.trim_start_matches('-'));
                !(text.starts_with('-') && is_option) && error.kind() == ErrorKind::UnknownArgument
            }
            _ => false,
        })
    };
    let hidden =
        [ContextKind::InvalidValue, ContextKind::InvalidSubcommand, ContextKind::InvalidArg].map(|kind| (kind, hides(kind)));
    if hidden.iter().all(|(_, hides)| !hides) {
        return error;
    }
    // Made anew: the cause and the tips of the old one repeat the word.
    let mut safe = clap::Error::new(error.kind()).with_cmd(definition);
    for (kind, value) in error.context().filter(|(kind, _)| !matches!(kind, ContextKind::Suggested | ContextKind::TrailingArg))
    {
        let value = match hidden.contains(&(kind, true)) {
            true => ContextValue::String(HIDDEN.to_owned()),
            false => value.clone(),
        };
        safe.insert(kind, value);
    }
    safe
}

/// Whether it looks like a name: letters and single marks between them.
fn is_word(text: &str) -> bool {
    text.len() <= 24 && text.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'-' | b'_'))
}

/// Whether it looks like a number, a size, a time, a date or a word, and is too short for a generated secret.
fn is_plain(text: &str) -> bool {
    let is_known =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'.' | b',' | b':' | b'+' | b'-' | b'_' | b'*');
    let runs = text.split(|c: char| !c.is_ascii_alphanumeric()).map(str::len).max().unwrap_or(0);
    text.len() <= 40 && runs <= 16 && text.bytes().all(is_known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::definition;

    #[test]
    fn the_parser_does_not_repeat_what_may_be_a_secret() {
        let said = |arguments: &[&str]| {
            let mut command = definition("daplake");
            let error = command.try_get_matches_from_mut([&["daplake"], arguments].concat()).unwrap_err();
            discreet(error, &command).to_string()
        };
        let url = "postgresql://u:HUNTER2@host/db";
        for arguments in [
            &["sync", url][..],
            &[url],
            &["sync", "--loglevel", url],
            &["sync", "--memory-limit", url],
            &["sync", "--memory-limit", "5HUNTER2=x"],
            &["sync", "--refresh", url],
            &["sync", "--pacing", "schemas=u:HUNTER2@x"],
            &["sync", "--metrics-listen", url],
            &["incremental", "--namespace", "canvas", "--table", "users", "--since", url],
            &["list", "--namespace", "canvas", "--client-secret", "first", "HUNTER2"],
            &["sync", "--client-secrt=HUNTER2"],
            &["sync", "--HUNTER2"],
            &["sync", "-HUNTER2=x"],
        ] {
            let said = said(arguments);
            assert!(!said.contains("HUNTER2") && said.contains("--help"), "{arguments:?}: {said}");
        }
        for (arguments, words) in [
            (&["snyc"][..], "'sync'"),
            (&["sync", "--loglevel", "loud"], "'loud'"),
            (&["sync", "--memory-limit", "plenty"], "256MiB"),
            (&["sync", "--targt", "x"], "'--target'"),
            (&["sync", "--concurrency", "many"], "'many'"),
        ] {
            let said = said(arguments);
            assert!(said.contains(words), "{arguments:?}: {said}");
        }
    }
}
