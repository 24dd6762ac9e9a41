//! The settings file that `init` writes: every key of the schema, those that need no change as comments.

use crate::cli::args::setup::InitArgs;
use crate::cli::settings::schema::{Form, KEYS, Key, TABLES, TARGET};

/// Column at which comments begin.
const COMMENTS: usize = 43;

/// The text of a settings file. `target` and `secret` are values of `targets.NAME.url` and `service.client_secret`.
pub(in crate::cli) fn template(args: &InitArgs, target: &str, secret: &str) -> String {
    let value_of = |key: &Key| match (key.section, key.name) {
        ("service", "client_id") => Some(key.sample.to_owned()),
        ("service", "client_secret") => Some(quoted(secret)),
        ("targets", "url") => Some(quoted(target)),
        ("sync", "namespaces") => Some(list(&args.namespace)),
        ("sync", "tables") => Some(list(&args.table)),
        ("sync", "exclude") if !args.exclude.is_empty() => Some(list(&args.exclude)),
        _ => None,
    };
    let mut text = HEAD.to_owned();
    for (section, header, comment) in SECTIONS {
        text.push_str(&format!("\n{comment}[{}]\n", header.replace("NAME", &args.name)));
        for key in KEYS.iter().chain(TARGET).chain(TABLES).filter(|key| key.section == *section) {
            text.push_str(&line(key, value_of(key)));
        }
    }
    text
}

/// `name = value`, or the sample as a comment.
fn line(key: &Key, value: Option<String>) -> String {
    let Key { name, sample, .. } = key;
    let line = match value {
        Some(value) => return format!("{name} = {value}\n"),
        None => format!("# {name} = {sample}"),
    };
    match note(key) {
        note if note.is_empty() => format!("{line}\n"),
        note => format!("{:<COMMENTS$}# {note}\n", line + " "),
    }
}

/// The note of a key, or the other values of a fixed set.
fn note(key: &Key) -> String {
    if !key.note.is_empty() || key.form != Form::Choice {
        return key.note.to_owned();
    }
    let others: Vec<String> =
        key.choices().iter().map(|name| format!("\"{name}\"")).filter(|name| name != key.sample).collect();
    if others.is_empty() { String::new() } else { format!("or {}", others.join(", ")) }
}

/// A string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "\""
}

fn list(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| quoted(name.trim())).collect();
    format!("[{}]", names.join(", "))
}

const HEAD: &str = r#"# Settings of daplake. An option on the command line overrides a variable, a variable overrides this file.
# "${NAME}" is replaced by the value of a variable, "file:PATH" by the content of a file. Relative paths start at the folder of this file.
# `daplake check` tests all settings.
"#;

/// Sections with the header and the comment above it, in the order of the file.
const SECTIONS: &[(&str, &str, &str)] = &[
    ("service", "service", ""),
    (
        "targets",
        "targets.NAME",
        "# Any number of targets: `daplake sync` updates all of them, `daplake sync --to NAME` one. A target can override the keys of [sync],\n\
         # and have sections such as [targets.NAME.tables.\"canvas.users\"] with the keys of [tables].\n",
    ),
    ("sync", "sync", ""),
    ("tables", "tables.\"canvas.pseudonyms\"", "# Keys for single tables; the section is named after a table or a pattern.\n"),
    ("schedule", "schedule", ""),
    ("notify", "notify", "# Where to report the result of a run. The address of a webhook is a secret.\n"),
    ("metrics", "metrics", ""),
    ("engine", "engine", ""),
    ("limits", "limits", ""),
    ("pacing", "pacing", "# Calls per minute that the service allows your account; 0 for no limit.\n"),
    ("state", "state", ""),
    ("log", "log", ""),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use clap::Parser;

    use super::*;
    use crate::cli::settings::file;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        init: InitArgs,
    }

    #[test]
    fn the_template_has_every_key_and_is_valid_with_all_comments_removed() {
        let args = Alone::parse_from(["init", "--target", "a\"b\\c", "--exclude", "x*"]).init;
        let text = template(&args, &args.target, "${DAP_CLIENT_SECRET}");
        let opened: String = text
            .lines()
            .map(|line| {
                match line.strip_prefix("# ").filter(|rest| rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))) {
                    Some(rest) => format!("{rest}\n"),
                    None => format!("{line}\n"),
                }
            })
            .collect();
        let read = |text: &str| file::parse(text, Path::new("daplake.toml"), &|_| Some("x".to_owned())).unwrap();
        assert_eq!(read(&text).warnings, [""; 0]);
        let settings = read(&opened);
        let written = opened.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key).collect::<BTreeSet<_>>();
        for key in KEYS.iter().chain(TARGET).chain(TABLES) {
            assert!(written.contains(key.name), "{}.{} is not in the template", key.section, key.name);
        }
        assert_eq!(settings.targets.len(), 1);
        let nested = format!("{:<COMMENTS$}# or \"json\"", "# nested = \"typed\"");
        for line in [nested.as_str(), "[targets.lake]", "exclude = [\"x*\"]"] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
