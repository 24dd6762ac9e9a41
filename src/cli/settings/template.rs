//! The settings file that `init` writes: every key of the schema, those that need no change as comments.

use crate::cli::settings::schema::{CREDENTIALS, Form, KEYS, Key, TABLES, TARGET};

/// Column at which comments begin.
const COMMENTS: usize = 43;

/// The values of a settings file with one target.
pub(in crate::cli) struct Values {
    /// The name of the target.
    target: String,
    /// Section, key, and value in TOML.
    values: Vec<(&'static str, &'static str, String)>,
}

impl Values {
    pub(in crate::cli) fn new(target: &str) -> Self {
        Self { target: target.to_owned(), values: Vec::new() }
    }

    /// Sets a key to a value in TOML. The keys of the target are in the section `targets`.
    pub(in crate::cli) fn set(&mut self, section: &'static str, key: &'static str, value: String) {
        self.values.push((section, key, value));
    }

    fn of(&self, key: &Key) -> Option<&str> {
        let found = self.values.iter().find(|(section, name, _)| *section == key.section && *name == key.name);
        found.map(|(_, _, value)| value.as_str())
    }
}

/// The text of a settings file: all keys, those without a value as comments.
pub(in crate::cli) fn template(values: &Values) -> String {
    let mut text = HEAD.to_owned();
    for (section, header, comment) in SECTIONS {
        text.push_str(&format!("\n{comment}[{}]\n", header.replace("NAME", &values.target)));
        for key in KEYS.iter().chain(TARGET).chain(TABLES).chain(CREDENTIALS).filter(|key| key.section == *section) {
            text.push_str(&line(key, values.of(key)));
        }
    }
    text
}

/// `name = value`, or the sample as a comment.
fn line(key: &Key, value: Option<&str>) -> String {
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
pub(in crate::cli) fn quoted(text: &str) -> String {
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

/// A list of strings of TOML.
pub(in crate::cli) fn list(names: &[String]) -> String {
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
    ("catalog", "catalog", "# Registers Delta tables after their loads.\n"),
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

    use super::*;
    use crate::cli::settings::file;

    #[test]
    fn the_template_has_every_key_and_is_valid_with_all_comments_removed() {
        let mut values = Values::new("lake");
        values.set("targets", "url", quoted("a\"b\\c"));
        values.set("sync", "exclude", list(&["x*".to_owned()]));
        let text = template(&values);
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
        for key in KEYS.iter().chain(TARGET).chain(TABLES).chain(CREDENTIALS) {
            assert!(written.contains(key.name), "{}.{} is not in the template", key.section, key.name);
        }
        assert_eq!(settings.targets.len(), 1);
        let nested = format!("{:<COMMENTS$}# or \"json\"", "# nested = \"typed\"");
        for line in [nested.as_str(), "[targets.lake]", "exclude = [\"x*\"]"] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
