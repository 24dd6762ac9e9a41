//! What may stand in the settings file: sections, keys, forms of values, and the option that each of them is a default of. It reads
//! nothing.

pub(in crate::cli) use crate::model::nearest;

/// One key of one section.
#[derive(Debug)]
pub(in crate::cli) struct Key {
    pub(in crate::cli) section: &'static str,
    pub(in crate::cli) name: &'static str,
    /// Id of the option.
    pub(in crate::cli) option: &'static str,
    pub(in crate::cli) form: Form,
}

/// What a value must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Form {
    Text,
    /// May be `file:PATH`; in clear text it deserves a warning.
    Secret,
    /// Relative to the folder of the settings file.
    Path,
    /// As `Path`, or a URL; may be `file:PATH`, for URLs may hold passwords.
    Place,
    Count,
    Flag,
    List,
    /// Such as 256MiB.
    Size,
    /// Such as 256MiB, within what the machine has.
    #[cfg(feature = "lake")]
    Memory,
    /// Such as 4h.
    Time,
    OneOf(&'static [&'static str]),
    /// `NAME=VALUE` for each member of a table.
    Pairs,
}

impl Form {
    /// In words, with an example.
    pub(in crate::cli) fn words(self) -> String {
        match self {
            Form::Text | Form::Secret => "a text in quotes".to_owned(),
            Form::Path => "a path in quotes".to_owned(),
            Form::Place => "a folder or URL in quotes".to_owned(),
            Form::Count => "a whole number, such as 5".to_owned(),
            Form::Flag => "true or false".to_owned(),
            Form::List => "a list of texts, such as [\"users\", \"course*\"]".to_owned(),
            Form::Size => "a size, such as \"256MiB\" or \"2GB\"".to_owned(),
            #[cfg(feature = "lake")]
            Form::Memory => "a size of memory, such as \"256MiB\" or \"2GB\"".to_owned(),
            Form::Time => "a time, such as \"30s\", \"10m\" or \"4h\"".to_owned(),
            Form::OneOf(words) => format!("one of \"{}\"", words.join("\", \"")),
            Form::Pairs => "a table of texts, such as { region = \"eu-central-1\" }".to_owned(),
        }
    }
}

/// What is said of one target and of no other.
pub(in crate::cli) const TARGET: &[Key] = &[
    key("targets", "url", "target", Form::Place),
    key("targets", "format", "format", Form::OneOf(&["delta", "parquet"])),
    key("targets", "store_options", "store_option", Form::Pairs),
    key("targets", "include", "table", Form::List),
];

/// What is said of the tables that a pattern means. The options know what to do with
/// `PATTERN.COLUMN`, and with `PATTERN=WORD` where the value is no list.
pub(in crate::cli) const TABLES: &[Key] = &[
    key("tables", "columns", "column", Form::List),
    key("tables", "drop_columns", "drop_column", Form::List),
    key("tables", "hash_columns", "hash_column", Form::List),
    key("tables", "deletes", "deletes", Form::OneOf(&["remove", "mark"])),
    key("tables", "mode", "mode", Form::OneOf(&["current", "changes", "history"])),
    key("tables", "partition_by", "partition_by", Form::Text),
];

/// Options for tables that databases have no such tables for.
pub(in crate::cli) const FOR_LAKES: [&str; 3] = ["deletes", "mode", "partition_by"];

/// The section whose keys each target may have of its own.
pub(in crate::cli) const SHARED: &str = "sync";

/// Everything else.
pub(in crate::cli) const KEYS: &[Key] = &[
    key("service", "url", "base_url", Form::Text),
    key("service", "client_id", "client_id", Form::Text),
    key("service", "client_secret", "client_secret", Form::Secret),
    key("service", "ca_bundle", "ca_bundle", Form::Path),
    key("sync", "namespaces", "namespace", Form::List),
    key("sync", "tables", "table", Form::List),
    key("sync", "exclude", "exclude", Form::List),
    key("sync", "on_snapshot_required", "on_snapshot_required", Form::OneOf(&["fail", "resnapshot"])),
    key("sync", "download_format", "download_format", Form::OneOf(&["jsonl", "csv", "tsv", "parquet"])),
    key("sync", "nested", "nested", Form::OneOf(&["typed", "json"])),
    key("sync", "bad_rows", "bad_rows", Form::Path),
    key("sync", "concurrency", "concurrency", Form::Count),
    key("sync", "deletion_vectors", "deletion_vectors", Form::OneOf(&["auto", "on", "off"])),
    key("sync", "change_data_feed", "change_data_feed", Form::OneOf(&["on", "off"])),
    key("sync", "foreign_changes", "foreign_changes", Form::OneOf(&["fail", "warn"])),
    key("sync", "compact_after", "compact_after", Form::Count),
    key("sync", "non_finite", "non_finite", Form::OneOf(&["fail", "null"])),
    key("sync", "out_of_range_times", "out_of_range_times", Form::OneOf(&["fail", "null"])),
    key("sync", "drop_removed_columns", "drop_removed_columns", Form::Flag),
    key("sync", "adopt", "adopt", Form::List),
    key("sync", "hash_key_file", "hash_key_file", Form::Path),
    key("sync", "time_budget", "time_budget", Form::Time),
    key("sync", "report", "report", Form::Path),
    key("schedule", "every", "interval", Form::Time),
    key("schedule", "jitter", "jitter", Form::Time),
    key("schedule", "refresh", "refresh", Form::Time),
    key("notify", "url", "notify", Form::Secret),
    key("notify", "form", "notify_form", Form::OneOf(&["json", "slack"])),
    key("notify", "command", "notify_command", Form::Text),
    key("notify", "on", "notify_on", Form::OneOf(&["always", "change", "failure"])),
    key("metrics", "listen", "metrics_listen", Form::Text),
    key("engine", "memory_limit", "memory_limit", Form::Memory),
    key("engine", "temp_dir", "temp_dir", Form::Path),
    key("limits", "max_line", "max_line", Form::Size),
    key("limits", "max_unpack_ratio", "max_unpack_ratio", Form::Count),
    key("limits", "max_object", "max_object", Form::Size),
    key("pacing", "job_starts", "jobs_per_minute", Form::Count),
    key("pacing", "job_status", "pacing", Form::Count),
    key("pacing", "table_lists", "pacing", Form::Count),
    key("pacing", "schemas", "pacing", Form::Count),
    key("pacing", "object_urls", "pacing", Form::Count),
    key("state", "dir", "state_dir", Form::Path),
    key("log", "level", "loglevel", Form::OneOf(&["debug", "info", "warning", "error"])),
    key("log", "file", "logfile", Form::Path),
    key("log", "format", "logformat", Form::OneOf(&["plain", "json"])),
];

const fn key(section: &'static str, name: &'static str, option: &'static str, form: Form) -> Key {
    Key { section, name, option, form }
}

/// Sections whose keys are defaults of `sync` (and of `check`, which looks at what `sync` will do), and of no other command that
/// happens to have an option of the same name.
pub(in crate::cli) fn is_for_sync_only(section: &str) -> bool {
    matches!(section, SHARED | "tables" | "schedule" | "notify" | "metrics")
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
}
