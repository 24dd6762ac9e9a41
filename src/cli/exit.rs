//! Exit codes, which are those of the official client on Linux: 0 success, 2 wrong usage, 5 failure, 38 not supported, 125 interrupted.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::{Error, Kind};

/// The exit code of an error.
pub(super) fn code(error: &Error) -> ExitCode {
    use Kind::*;
    ExitCode::from(match error.kind() {
        Unsupported => 38,
        Cancelled => 125,
        Usage | Auth | Account | NotFound | Expired | OutOfRange | SnapshotRequired | Throttled | Unavailable | Job | Data
        | Schema | Target | Conflict | Io | Resources | Bug => 5,
    })
}

/// The exit code of an invalid settings file, which is wrong usage.
pub(super) fn wrong_settings() -> ExitCode {
    ExitCode::from(2)
}

/// Prints a message of the argument parser: help and version to standard output, errors to standard error.
pub(super) fn usage(error: clap::Error, definition: &clap::Command) -> ExitCode {
    let error = with_own_usage(without_secrets(error, definition), definition);
    // A closed pipe is not an error.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}

/// If an argument is missing, names only the required ones. The parser would also list options whose values come from variables.
fn with_own_usage(mut error: clap::Error, definition: &clap::Command) -> clap::Error {
    if error.kind() != ErrorKind::MissingRequiredArgument {
        return error;
    }
    let usage = match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string(),
        _ => return error,
    };
    let mut definition = definition.clone();
    definition.build();
    let command = usage.split_whitespace().nth(2).and_then(|name| definition.find_subcommand_mut(name));
    if let Some(command) = command {
        error.insert(ContextKind::Usage, ContextValue::StyledStr(command.render_usage()));
    }
    error
}

const HIDDEN: &str = "***";

/// Hides arguments that may be a secret, such as a connection string in the wrong place. The parser would repeat them.
fn without_secrets(error: clap::Error, definition: &clap::Command) -> clap::Error {
    let value = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    // A value with a suggestion is a typing error.
    let is_near = |kind| error.get(kind).is_some();
    let hides = |kind: ContextKind| {
        value(kind).is_some_and(|text| match kind {
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
    // A new error, because the cause and the suggestions of the original one repeat the value.
    let mut safe = clap::Error::new(error.kind()).with_cmd(definition);
    for (kind, value) in error.context().filter(|(kind, _)| !matches!(kind, ContextKind::Suggested | ContextKind::TrailingArg))
    {
        let is_hidden = hidden.contains(&(kind, true));
        let value = if is_hidden { ContextValue::String(HIDDEN.to_owned()) } else { value.clone() };
        safe.insert(kind, value);
    }
    safe
}

/// Whether it looks like a name: lower-case letters, `-` and `_`.
fn is_word(text: &str) -> bool {
    text.len() <= 24 && text.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'-' | b'_'))
}

/// Whether it looks like a number, size, time, date or word, and is too short for a generated secret.
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
    fn messages_of_the_parser_contain_no_secrets() {
        let message = |arguments: &[&str]| {
            let mut command = definition("daplake");
            let error = command.try_get_matches_from_mut([&["daplake"], arguments].concat()).unwrap_err();
            without_secrets(error, &command).to_string()
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
            let message = message(arguments);
            assert!(!message.contains("HUNTER2") && message.contains("--help"), "{arguments:?}: {message}");
        }
        for (arguments, expected) in [
            (&["snyc"][..], "'sync'"),
            (&["sync", "--loglevel", "loud"], "'loud'"),
            (&["sync", "--memory-limit", "plenty"], "256MiB"),
            (&["sync", "--targt", "x"], "'--target'"),
            (&["sync", "--concurrency", "many"], "'many'"),
        ] {
            let message = message(arguments);
            assert!(message.contains(expected), "{arguments:?}: {message}");
        }
    }
}
