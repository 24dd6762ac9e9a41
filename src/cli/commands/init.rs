//! `init`: a settings file to begin with.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::cli::args::global::GlobalArgs;
use crate::cli::args::setup::InitArgs;
use crate::cli::settings::paths::{SETTINGS_NAME, at_home};
use crate::cli::settings::settings_file;
use crate::cli::settings::settings_file::{holds_password, without_references};
use crate::cli::terminal::output::out;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::ops::Address;

pub(in crate::cli) fn init(global: &GlobalArgs, args: &InitArgs) -> Result<()> {
    let path = global.settings.clone().unwrap_or_else(|| PathBuf::from(SETTINGS_NAME));
    // A relative path means the same from wherever the program is run later.
    let target = match Address::parse(&without_references(&args.target))? {
        Address::Folder(_) => {
            let folder = at_home(&args.target)?;
            let folder = std::path::absolute(folder.as_ref()).context(Kind::Usage, "The target's path cannot be used")?;
            folder.display().to_string()
        }
        Address::File(_) | Address::Store(_) | Address::Database(_) => args.target.clone(),
    };
    if holds_password(&target) {
        return Err(Error::new(Kind::Usage, "The target holds a password, which does not belong into a settings file")
            .hint("write a variable in its place, in single quotes: 'postgresql://etl:${LAKE_PASSWORD}@host/database'"));
    }
    let secret = match &args.secret_file {
        Some(file) => {
            let file = std::path::absolute(file).context(Kind::Usage, "The path of the secret's file cannot be used")?;
            format!("file:{}", file.display())
        }
        None => "${DAP_CLIENT_SECRET}".to_owned(),
    };
    let text = template(args, &target, &secret);
    write_new(&path, &text)?;
    // What was written must be what is understood; a mistake here is ours.
    settings_file::parse(&text, &path, &|_| Some("x".to_owned()))
        .context(Kind::Bug, "The settings file cannot be read back")?;
    out(&format!(
        "{} is written, for you alone to read.\n\nNext steps:\n  export DAP_CLIENT_ID='region#id'{}\n  daplake check\n  daplake sync\n  daplake sync --watch        # stay, and keep the tables right\n",
        path.display(),
        if args.secret_file.is_none() { " DAP_CLIENT_SECRET='...'" } else { "" },
    ))
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Error::new(Kind::Usage, "The settings file is there already and stays as it is")
                .with_field("file", path.display())
                .hint("name another one with --settings, or move it away"))
        }
        other => other.context(Kind::Io, format!("The settings file cannot be written: {}", path.display())),
    }
}

/// A text of TOML.
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

fn list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word.trim())).collect();
    format!("[{}]", words.join(", "))
}

fn template(args: &InitArgs, target: &str, secret: &str) -> String {
    let exclude = match args.exclude.is_empty() {
        true => "# exclude = [\"content_*\"]".to_owned(),
        false => format!("exclude = {}", list(&args.exclude)),
    };
    TEMPLATE
        .replace("@secret@", &quoted(secret))
        .replace("@name@", &args.name)
        .replace("@target@", &quoted(target))
        .replace("@namespaces@", &list(&args.namespace))
        .replace("@tables@", &list(&args.table))
        .replace("@exclude@", &exclude)
}

/// Every key there is, those that need no change as comments.
const TEMPLATE: &str = r#"# Settings of daplake. An option on the command line beats a variable, that beats this file, that beats the default.
# "${NAME}" takes the value of a variable, "file:PATH" the text of a file; relative paths begin at this file's folder.
# `daplake check` tries everything that is said here.

[service]
# url = "https://api-gateway.instructure.com"
client_id = "${DAP_CLIENT_ID}"
client_secret = @secret@
# ca_bundle = "school-proxy.pem"

# As many targets as you like, each with a name: `daplake sync` takes all of them, `daplake sync --to NAME` one. A target may have
# keys of [sync] of its own, and sections such as [targets.NAME.tables."canvas.users"] with keys of [tables].
[targets.@name@]
url = @target@
# format = "delta"                         # or "parquet"
# store_options = { region = "eu-central-1" }
# include = ["users", "courses"]           # for this target, in place of `tables` below

[sync]
namespaces = @namespaces@
tables = @tables@
@exclude@
# on_snapshot_required = "resnapshot"      # or "fail"
# download_format = "jsonl"                # or "csv", "tsv", "parquet"
# nested = "typed"                         # or "json"
# bad_rows = "bad-rows.jsonl"              # set unreadable rows aside instead of failing their table
# concurrency = 2                          # tables that load at once
# deletion_vectors = "auto"                # or "on", "off"
# change_data_feed = "on"                  # or "off"; tells what commits changed as rows
# foreign_changes = "fail"                 # "warn": go on where another program changed rows
# compact_after = 20                       # merge small files from so many on; 0 for never
# non_finite = "fail"                      # or "null", for databases without NaN and infinity
# out_of_range_times = "fail"              # or "null", for times outside the years 1 to 9999
# drop_removed_columns = false             # databases: drop columns that are gone upstream
# adopt = ["users"]                        # databases: tables with rows of others that may be replaced
# hash_key_file = "hash.key"               # the key of hashed columns; else the variable DAPLAKE_HASH_KEY
# time_budget = "14m"                      # end in time, go on in the next run
# report = "report.json"

# What is said of single tables; the name of a section is a table or a pattern.
[tables."canvas.pseudonyms"]
# columns = ["id", "user_id"]              # take these only (and the key)
# drop_columns = ["*_token"]               # leave these out
# hash_columns = ["unique_id", "sis_*"]    # put keyed hashes in their place
# deletes = "mark"                         # lakes: keep deleted rows, with true in the column _deleted
# mode = "history"                         # lakes: current, changes or history; cannot be changed later
# partition_by = "month(created_at)"       # lakes: day, month or year of a time, or none; for new tables

[schedule]
# every = "4h"                             # with `daplake sync --watch`; the service refreshes its data every 4 hours
# jitter = "10m"                           # wait up to so long more, so that not all schools come at once
# refresh = "4h"                           # leave tables alone whose data are younger; "0s" asks always

# Who is told how a run ended. The address of a webhook is a secret.
[notify]
# url = "${DAPLAKE_NOTIFY}"
# form = "json"                            # or "slack"
# command = "mail -s daplake me@example.org"
# on = "failure"                           # or "change", "always"

[metrics]
# listen = "127.0.0.1:9184"                # figures for Prometheus

[engine]
# memory_limit = "1GiB"                    # beyond it, sorting spills to temp_dir
# temp_dir = "/var/tmp"

[limits]
# max_line = "256MiB"                      # longest line of an object
# max_unpack_ratio = 500                   # unpacked to packed bytes
# max_object = "1TiB"                      # bytes of one object, as stored and as read

# Calls per minute that the service allows your account; 0 for no limit of our own.
[pacing]
# job_starts = 5
# job_status = 500
# table_lists = 5
# schemas = 500
# object_urls = 200

[state]
# dir = "/var/lib/daplake"                 # where runs note their jobs, so that the next one goes on with them

[log]
# level = "info"
# file = "daplake.log"
# format = "plain"                         # or "json"
"#;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::args::Cli;
    use crate::cli::settings::settings_schema::{KEYS, TABLES, TARGET};

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        init: InitArgs,
    }

    #[test]
    fn the_template_names_every_key_and_stays_right_when_all_comments_are_opened() {
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
        let read = |text: &str| settings_file::parse(text, Path::new("daplake.toml"), &|_| Some("x".to_owned())).unwrap();
        assert_eq!(read(&text).warnings, [""; 0]);
        let settings = read(&opened);
        let written = opened.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key).collect::<BTreeSet<_>>();
        for key in KEYS.iter().chain(TARGET).chain(TABLES) {
            assert!(written.contains(key.name), "{}.{} is not in the template", key.section, key.name);
        }
        assert_eq!(settings.targets.len(), 1);
    }

    #[test]
    fn every_key_is_the_default_of_an_option_of_sync() {
        let command = Cli::command();
        let sync = command.find_subcommand("sync").unwrap();
        for key in KEYS.iter().chain(TARGET).chain(TABLES) {
            let known = sync.get_arguments().chain(command.get_arguments()).any(|arg| arg.get_id() == key.option);
            // Without databases there are no options for them.
            let is_of_databases = matches!(key.option, "non_finite" | "drop_removed_columns" | "adopt");
            assert!(known || (is_of_databases && !cfg!(feature = "sql")), "{} has no option", key.option);
        }
    }
}
