//! Which namespaces, tables, columns and values.

#[cfg(feature = "lake")]
use std::path::PathBuf;

use clap::Args;

#[cfg(feature = "lake")]
use crate::cli::args::headings::{COLUMNS, LAKE, TABLES};
#[cfg(feature = "lake")]
use crate::cli::values::choices::choice;
#[cfg(feature = "lake")]
use crate::ops::OutOfRange;
#[cfg(feature = "lake")]
use crate::sink::OnSchemaChange;

/// Tables of the service.
#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(in crate::cli) struct SelectionArgs {
    /// Comma-separated namespaces (canvas, canvas_logs, catalog, new_quizzes), or `all`.
    #[arg(long, value_delimiter = ',', default_value = "canvas", value_name = "NAMESPACE", help_heading = TABLES)]
    pub(in crate::cli) namespace: Vec<String>,
    /// Comma-separated tables or patterns, such as 'user*', or `all`.
    ///
    /// Patterns may contain `*` and `?`. Write namespace.table if several namespaces have a table of that name.
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "TABLE", help_heading = TABLES)]
    pub(in crate::cli) table: Vec<String>,
    /// Comma-separated tables or patterns to exclude.
    #[arg(long, value_delimiter = ',', value_name = "TABLE", help_heading = TABLES)]
    pub(in crate::cli) exclude: Vec<String>,
}

/// Tables of a target.
#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(in crate::cli) struct HeldTablesArgs {
    /// Comma-separated namespaces, or `all` namespaces of the target.
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "NAMESPACE", help_heading = TABLES)]
    pub(in crate::cli) namespace: Vec<String>,
    /// Comma-separated tables or patterns, such as 'user*', or `all`.
    ///
    /// Patterns may contain `*` and `?`. Write namespace.table if several namespaces have a table of that name.
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "TABLE", help_heading = TABLES)]
    pub(in crate::cli) table: Vec<String>,
    /// Comma-separated tables or patterns to exclude.
    #[arg(long, value_delimiter = ',', value_name = "TABLE", help_heading = TABLES)]
    pub(in crate::cli) exclude: Vec<String>,
}

/// Options that apply to single tables.
#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(in crate::cli) struct TableArgs {
    /// Columns to load, as table.column; the table's other columns are left out, except its key.
    ///
    /// Separate columns with commas, or repeat the option. Both parts may contain `*` and `?`.
    #[arg(long, value_delimiter = ',', value_name = "TABLE.COLUMN", hide_short_help = true, help_heading = COLUMNS)]
    pub(in crate::cli) column: Vec<String>,
    /// Columns to leave out, such as 'users.*_email' or '*.sis_user_id'; their values are never decoded.
    #[arg(long, value_delimiter = ',', value_name = "TABLE.COLUMN", hide_short_help = true, help_heading = COLUMNS)]
    pub(in crate::cli) drop_column: Vec<String>,
    /// Columns to replace with a keyed hash (HMAC-SHA256, 64 hexadecimal digits); key columns are allowed.
    ///
    /// The key comes from the variable DAPLAKE_HASH_KEY or from --hash-key-file.
    #[arg(long, value_delimiter = ',', value_name = "TABLE.COLUMN", hide_short_help = true, help_heading = COLUMNS)]
    pub(in crate::cli) hash_column: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) key: HashKeyArgs,
    /// How deletes change a table, in lakes and databases.
    ///
    /// `remove` deletes the row; `mark` keeps it with `_deleted` set to true. Give a value for all tables, or table=mark for
    /// one table; may be repeated. By default, existing tables keep their setting, and new tables use `remove`.
    #[arg(long, value_name = "[TABLE=]WHAT", hide_short_help = true, help_heading = LAKE)]
    pub(in crate::cli) deletes: Vec<String>,
    /// Which rows a table keeps, in lakes and databases; cannot be changed later.
    ///
    /// `current` keeps one row per key, `changes` (lakes only) every loaded change, `history` every version of each row with the period
    /// in which it was valid. Give a value for all tables, or table=history for one table; may be repeated. By default, existing tables
    /// keep their mode, and new tables use `current`.
    #[arg(long, value_name = "[TABLE=]MODE", hide_short_help = true, help_heading = LAKE)]
    pub(in crate::cli) mode: Vec<String>,
    /// Partition new lake tables by a time or date column, such as 'submissions=month(submitted_at)'.
    ///
    /// Units are day, month and year. web_logs is partitioned by day(timestamp) unless you give web_logs=none. May be repeated.
    #[arg(long, value_name = "TABLE=UNIT(COLUMN)", hide_short_help = true, help_heading = LAKE)]
    pub(in crate::cli) partition_by: Vec<String>,
    /// Namespaces of other targets of the settings file; options may name their tables.
    #[arg(skip)]
    pub(in crate::cli) elsewhere: Vec<String>,
}

#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(in crate::cli) struct HashKeyArgs {
    /// File with the key for hashed columns: at least 16 bytes, without trailing line ends.
    #[arg(long, env = "DAPLAKE_HASH_KEY_FILE", value_name = "FILE", hide_short_help = true, help_heading = COLUMNS)]
    pub(in crate::cli) hash_key_file: Option<PathBuf>,
}

/// Times that most targets cannot store.
#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(in crate::cli) struct TimeArgs {
    /// Times and dates outside the years 1 to 9999: fail the table, or store null.
    #[arg(
        long,
        value_parser = choice::<OutOfRange>(),
        default_value = "fail",
        value_name = "POLICY",
        hide_short_help = true,
        help_heading = COLUMNS
    )]
    pub(in crate::cli) out_of_range_times: OutOfRange,
}

/// The namespace of a command of the official client.
#[derive(Debug, Args)]
pub(in crate::cli) struct NamespaceArgs {
    /// Namespace: canvas, canvas_logs, catalog or new_quizzes.
    #[arg(long, value_name = "NAMESPACE", allow_hyphen_values = true)]
    pub(in crate::cli) namespace: String,
}

/// The tables of a command of the official client.
#[derive(Debug, Args)]
pub(in crate::cli) struct TablesArgs {
    /// Comma-separated tables, or `all`.
    #[arg(long, value_name = "TABLE", allow_hyphen_values = true)]
    pub(in crate::cli) table: String,
}

/// Changes of columns. The command that has the option gives its heading.
#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(in crate::cli) struct SchemaChangesArgs {
    /// What to do when the columns of an existing table would change.
    ///
    /// `apply` follows the service, `fail` fails the table before its job starts, `ignore-new-columns` leaves out new columns and fails for
    /// other changes.
    #[arg(
        long,
        value_parser = choice::<OnSchemaChange>(),
        default_value = "apply",
        value_name = "POLICY",
        hide_short_help = true
    )]
    pub(in crate::cli) schema_changes: OnSchemaChange,
}
