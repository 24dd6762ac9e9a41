//! The schema of the settings file: for each key its section, the form of its value, the option whose default it is, and its line in the
//! template of `init`. Reads no file.

use std::sync::LazyLock;

use clap::CommandFactory;

use crate::cli::args::Settings;
#[cfg(feature = "lake")]
use crate::cli::settings::credential_command::CREDENTIAL_COMMAND;
pub(in crate::cli) use crate::model::nearest;

/// One key of one section.
#[derive(Debug)]
pub(in crate::cli) struct Key {
    pub(in crate::cli) section: &'static str,
    pub(in crate::cli) name: &'static str,
    /// Id of the option whose default the value is.
    pub(in crate::cli) option: &'static str,
    pub(in crate::cli) form: Form,
    /// A value in the syntax of TOML, for the template.
    #[cfg_attr(not(feature = "lake"), expect(dead_code, reason = "only `init` writes a template"))]
    pub(in crate::cli) sample: &'static str,
    /// Comment in the template.
    #[cfg_attr(not(feature = "lake"), expect(dead_code, reason = "only `init` writes a template"))]
    pub(in crate::cli) note: &'static str,
}

/// The form of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Form {
    Text,
    /// May be `file:PATH`; a secret in clear text causes a warning.
    Secret,
    /// Relative to the folder of the settings file.
    Path,
    /// Like `Path`, or a URL; may be `file:PATH`, as URLs can contain passwords.
    Place,
    Count,
    Flag,
    List,
    /// A list of SQL statements.
    Statements,
    /// A number of bytes, such as 256MiB.
    Size,
    /// A number of bytes that this machine has.
    #[cfg(feature = "lake")]
    Memory,
    /// A duration, such as 4h.
    Time,
    /// One of the values of the option.
    Choice,
    OneOf(&'static [&'static str]),
    /// A table of strings: `NAME=VALUE` for each member.
    Pairs,
}

impl Key {
    /// The form of the value in words, with an example.
    pub(in crate::cli) fn expected(&self) -> String {
        match self.form {
            Form::Text | Form::Secret => "a string in quotes".to_owned(),
            Form::Path => "a path in quotes".to_owned(),
            Form::Place => "a folder or URL in quotes".to_owned(),
            Form::Count => "a whole number, such as 5".to_owned(),
            Form::Flag => "true or false".to_owned(),
            Form::List => "a list of strings, such as [\"users\", \"course*\"]".to_owned(),
            Form::Statements => "a list of SQL statements, such as [\"CALL refresh_reports()\"]".to_owned(),
            Form::Size => "a size, such as \"256MiB\" or \"2GB\"".to_owned(),
            #[cfg(feature = "lake")]
            Form::Memory => "a size of memory, such as \"256MiB\" or \"2GB\"".to_owned(),
            Form::Time => "a duration, such as \"30s\", \"10m\" or \"4h\"".to_owned(),
            Form::Choice | Form::OneOf(_) => format!("one of \"{}\"", self.choices().join("\", \"")),
            Form::Pairs => "a table of strings, such as { region = \"eu-central-1\" }".to_owned(),
        }
    }

    /// The values that the key accepts, if they are a fixed set. Empty if this build does not have the option.
    pub(in crate::cli) fn choices(&self) -> Vec<String> {
        match self.form {
            Form::OneOf(names) => names.iter().map(|name| (*name).to_owned()).collect(),
            Form::Choice => {
                let sync = COMMAND_LINE.find_subcommand("sync");
                let mut options = sync.into_iter().flat_map(clap::Command::get_arguments).chain(COMMAND_LINE.get_arguments());
                let values = options.find(|option| option.get_id() == self.option).map(|option| option.get_possible_values());
                values.into_iter().flatten().map(|value| value.get_name().to_owned()).collect()
            }
            _ => Vec::new(),
        }
    }
}

static COMMAND_LINE: LazyLock<clap::Command> = LazyLock::new(Settings::command);

/// Keys of a target.
pub(in crate::cli) const TARGET: &[Key] = &[
    key("targets", "url", "target", Form::Place, "\"./lake\"", ""),
    key("targets", "format", "format", Form::Choice, "\"delta\"", ""),
    key("targets", "store_options", "store_option", Form::Pairs, "{ region = \"eu-central-1\" }", ""),
    key("targets", "catalog", "catalog", Form::Choice, "\"glue\"", "instead of the type in [catalog]"),
    key("targets", "include", "table", Form::List, "[\"users\", \"courses\"]", "for this target, instead of `tables` below"),
];

/// `credential_command` in its sections. It is the default of no option.
#[cfg(feature = "lake")]
pub(in crate::cli) const CREDENTIALS: &[Key] = &[
    key("service", CREDENTIAL_COMMAND, "", Form::List, "[\"pass\", \"show\", \"daplake\"]", "prints the client secret"),
    key(
        "targets",
        CREDENTIAL_COMMAND,
        "",
        Form::List,
        "[\"pass\", \"show\", \"lake\"]",
        "prints a secret, for \"${CREDENTIAL}\" in this section",
    ),
    key("notify", CREDENTIAL_COMMAND, "", Form::List, "[\"pass\", \"show\", \"smtp\"]", "prints a secret, as in a target"),
];

/// Keys of the tables that match a pattern. The option receives `PATTERN.COLUMN` for a list, else `PATTERN=VALUE`.
pub(in crate::cli) const TABLES: &[Key] = &[
    key("tables", "columns", "column", Form::List, "[\"id\", \"user_id\"]", "load only these (and the key)"),
    key("tables", "drop_columns", "drop_column", Form::List, "[\"*_token\"]", "leave these out"),
    key("tables", "hash_columns", "hash_column", Form::List, "[\"unique_id\", \"sis_*\"]", "replace these with keyed hashes"),
    key(
        "tables",
        "deletes",
        "deletes",
        Form::OneOf(&["remove", "mark"]),
        "\"mark\"",
        "keep deleted rows, with _deleted set to true",
    ),
    key(
        "tables",
        "mode",
        "mode",
        Form::OneOf(&["current", "changes", "history"]),
        "\"history\"",
        "current, history or (lakes) changes; cannot be changed later",
    ),
    key(
        "tables",
        "after_sql",
        "after_sql",
        Form::Statements,
        "[\"CALL refresh_reports()\"]",
        "databases: statements that run in the transaction of each load",
    ),
    key(
        "tables",
        "partition_by",
        "partition_by",
        Form::Text,
        "\"month(created_at)\"",
        "lakes: day, month or year of a time, or none; for new tables",
    ),
];

/// Whether an argument of an option is for lake tables only. The settings file can have such options for all targets, so there they are
/// ignored for databases.
pub(in crate::cli) fn is_for_lakes(option: &str, argument: &str) -> bool {
    match option {
        "partition_by" | "change_data_feed" | "iceberg" | "vacuum_after" | "catalog" => true,
        "mode" => argument == "changes" || argument.ends_with("=changes"),
        _ => false,
    }
}

/// The section whose keys each target can override.
pub(in crate::cli) const SHARED: &str = "sync";

/// All other keys.
pub(in crate::cli) const KEYS: &[Key] = &[
    key("service", "url", "base_url", Form::Text, "\"https://api-gateway.instructure.com\"", ""),
    key("service", "client_id", "client_id", Form::Text, "\"${DAP_CLIENT_ID}\"", ""),
    key("service", "client_secret", "client_secret", Form::Secret, "\"${DAP_CLIENT_SECRET}\"", ""),
    key("service", "ca_bundle", "ca_bundle", Form::Path, "\"school-proxy.pem\"", ""),
    key("sync", "namespaces", "namespace", Form::List, "[\"canvas\"]", ""),
    key("sync", "tables", "table", Form::List, "[\"all\"]", ""),
    key("sync", "exclude", "exclude", Form::List, "[\"content_*\"]", ""),
    key("sync", "on_snapshot_required", "on_snapshot_required", Form::Choice, "\"resnapshot\"", ""),
    key(
        "sync",
        "schema_changes",
        "schema_changes",
        Form::Choice,
        "\"apply\"",
        "or \"fail\" or \"ignore-new-columns\", for columns that would change",
    ),
    key("sync", "download_format", "download_format", Form::Choice, "\"jsonl\"", ""),
    key("sync", "nested", "nested", Form::Choice, "\"typed\"", ""),
    key(
        "sync",
        "bad_rows",
        "bad_rows",
        Form::Path,
        "\"bad-rows.jsonl\"",
        "write unreadable rows there instead of failing their table",
    ),
    key("sync", "concurrency", "concurrency", Form::Count, "2", "tables to load at the same time"),
    key("sync", "deletion_vectors", "deletion_vectors", Form::Choice, "\"auto\"", ""),
    key("sync", "change_data_feed", "change_data_feed", Form::Choice, "\"on\"", ""),
    key("sync", "iceberg", "iceberg", Form::Choice, "\"on\"", ""),
    key(
        "sync",
        "foreign_changes",
        "foreign_changes",
        Form::Choice,
        "\"fail\"",
        "\"warn\": load although another program changed rows",
    ),
    key(
        "sync",
        "compact_after",
        "compact_after",
        Form::Count,
        "20",
        "compact a table with this many small files; 0 disables it",
    ),
    key("sync", "vacuum_after", "vacuum_after", Form::Time, "\"30d\"", "vacuum tables after their loads; at least 7d"),
    key(
        "sync",
        "non_finite",
        "non_finite",
        Form::OneOf(&["fail", "null"]),
        "\"fail\"",
        "or \"null\", for databases without NaN and infinity",
    ),
    key(
        "sync",
        "out_of_range_times",
        "out_of_range_times",
        Form::Choice,
        "\"fail\"",
        "or \"null\", for times outside the years 1 to 9999",
    ),
    key(
        "sync",
        "drop_removed_columns",
        "drop_removed_columns",
        Form::Flag,
        "false",
        "databases: drop columns that the service has removed",
    ),
    key(
        "sync",
        "dependent_views",
        "dependent_views",
        Form::OneOf(&["recreate", "fail"]),
        "\"recreate\"",
        "PostgreSQL: or \"fail\", when a view uses a column that changes",
    ),
    key("sync", "adopt", "adopt", Form::List, "[\"users\"]", "databases: existing tables whose rows may be replaced"),
    key(
        "sync",
        "hash_key_file",
        "hash_key_file",
        Form::Path,
        "\"hash.key\"",
        "key of hashed columns; by default the variable DAPLAKE_HASH_KEY",
    ),
    key("sync", "time_budget", "time_budget", Form::Time, "\"14m\"", "stop after this time; the next run continues"),
    key("sync", "report", "report", Form::Path, "\"report.json\"", ""),
    key("catalog", "type", "catalog", Form::Choice, "\"glue\"", "where query engines look for tables; or \"none\""),
    key("catalog", "database", "catalog_database", Form::Text, "\"{namespace}\"", "name of the database of a table"),
    key("catalog", "table", "catalog_table", Form::Text, "\"{table}\"", "name of a table"),
    key("catalog", "options", "catalog_option", Form::Pairs, "{ region = \"eu-central-1\" }", ""),
    key(
        "schedule",
        "every",
        "interval",
        Form::Time,
        "\"4h\"",
        "with `daplake sync --watch`; the service refreshes every 4 hours",
    ),
    key(
        "schedule",
        "jitter",
        "jitter",
        Form::Time,
        "\"10m\"",
        "maximum random delay, so that schools do not all start at once",
    ),
    key("schedule", "refresh", "refresh", Form::Time, "\"4h\"", "skip tables whose data is younger; \"0s\" queries all"),
    key("notify", "url", "notify", Form::Secret, "\"${DAPLAKE_NOTIFY}\"", ""),
    key("notify", "form", "notify_form", Form::Choice, "\"json\"", ""),
    key("notify", "command", "notify_command", Form::Text, "\"mail -s daplake me@example.org\"", ""),
    key("notify", "email", "notify_email", Form::List, "[\"data-team@example.org\"]", "needs smtp"),
    key("notify", "email_from", "notify_email_from", Form::Text, "\"daplake@example.org\"", ""),
    key("notify", "smtp", "notify_smtp", Form::Text, "\"smtp://daplake@mail.example.org:587\"", "smtps:// for port 465"),
    key("notify", "smtp_password", "notify_smtp_password", Form::Secret, "\"${DAPLAKE_SMTP_PASSWORD}\"", ""),
    key("notify", "on", "notify_on", Form::Choice, "\"failure\"", ""),
    key("metrics", "listen", "metrics_listen", Form::Text, "\"127.0.0.1:9184\"", "metrics for Prometheus"),
    key("engine", "memory_limit", "memory_limit", MEMORY, "\"1GiB\"", "beyond it, sorting spills to temp_dir"),
    key("engine", "temp_dir", "temp_dir", Form::Path, "\"/var/tmp\"", ""),
    key("limits", "max_line", "max_line", Form::Size, "\"256MiB\"", "longest line of an object"),
    key("limits", "max_unpack_ratio", "max_unpack_ratio", Form::Count, "500", "ratio of decompressed to compressed bytes"),
    key("limits", "max_object", "max_object", Form::Size, "\"1TiB\"", "largest object, compressed and decompressed"),
    key("pacing", "job_starts", "jobs_per_minute", Form::Count, "5", ""),
    key("pacing", "job_status", "pacing", Form::Count, "500", ""),
    key("pacing", "table_lists", "pacing", Form::Count, "5", ""),
    key("pacing", "schemas", "pacing", Form::Count, "500", ""),
    key("pacing", "object_urls", "pacing", Form::Count, "200", ""),
    key(
        "state",
        "dir",
        "state_dir",
        Form::Path,
        "\"/var/lib/daplake\"",
        "unfinished jobs and run history; interrupted runs are resumed from it",
    ),
    key("log", "level", "loglevel", Form::Choice, "\"info\"", ""),
    key("log", "file", "logfile", Form::Path, "\"daplake.log\"", ""),
    key("log", "format", "logformat", Form::Choice, "\"plain\"", ""),
];

#[cfg(feature = "lake")]
const MEMORY: Form = Form::Memory;
#[cfg(not(feature = "lake"))]
const MEMORY: Form = Form::Size;

const fn key(
    section: &'static str,
    name: &'static str,
    option: &'static str,
    form: Form,
    sample: &'static str,
    note: &'static str,
) -> Key {
    Key { section, name, option, form, sample, note }
}

/// Sections whose keys are defaults of `sync` and `check` only, even if other commands have an option of the same name.
pub(in crate::cli) fn is_for_sync_only(section: &str) -> bool {
    matches!(section, SHARED | "tables" | "catalog" | "schedule" | "notify" | "metrics")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_names_every_key() {
        let text = include_str!("../../../docs/reference/settings.md");
        let table = text.split("## Keys").nth(1).unwrap();
        for key in KEYS.iter().chain(TARGET).chain(TABLES) {
            assert!(table.contains(&format!("`{}`", key.name)), "{} of [{}]", key.name, key.section);
        }
    }

    #[test]
    fn every_key_is_the_default_of_an_option_of_sync() {
        let sync = COMMAND_LINE.find_subcommand("sync").unwrap();
        for key in KEYS.iter().chain(TARGET).chain(TABLES) {
            let option = sync.get_arguments().chain(COMMAND_LINE.get_arguments()).find(|option| option.get_id() == key.option);
            // Builds without databases have no options for them.
            let is_of_databases =
                matches!(key.option, "non_finite" | "drop_removed_columns" | "adopt" | "dependent_views" | "after_sql");
            assert!(option.is_some() || (is_of_databases && !cfg!(feature = "sql")), "{} has no option", key.option);
            assert!(key.form != Form::Choice || key.choices().len() > 1, "{} has no values", key.name);
        }
    }
}
