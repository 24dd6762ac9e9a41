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

/// Tables of the service.
#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(in crate::cli) struct SelectionArgs {
    /// Namespaces: canvas, canvas_logs, catalog, new_quizzes, a comma list, or `all`.
    #[arg(long, value_delimiter = ',', default_value = "canvas", value_name = "NAMESPACE", help_heading = TABLES)]
    pub(in crate::cli) namespace: Vec<String>,
    /// Tables: `all`, or a comma-separated list of names and patterns such as 'user*'.
    ///
    /// Patterns may use `*` and `?`. Write namespace.table where several namespaces have a table of that name.
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "TABLE", help_heading = TABLES)]
    pub(in crate::cli) table: Vec<String>,
    /// Tables to leave out: a comma-separated list of names and patterns.
    #[arg(long, value_delimiter = ',', value_name = "TABLE", help_heading = TABLES)]
    pub(in crate::cli) exclude: Vec<String>,
}

/// Tables of a target.
#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(in crate::cli) struct HeldTablesArgs {
    /// Namespaces: a comma list, or `all` that the target has.
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "NAMESPACE", help_heading = TABLES)]
    pub(in crate::cli) namespace: Vec<String>,
    /// Tables: `all`, or a comma-separated list of names and patterns such as 'user*'.
    ///
    /// Patterns may use `*` and `?`. Write namespace.table where several namespaces have a table of that name.
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "TABLE", help_heading = TABLES)]
    pub(in crate::cli) table: Vec<String>,
    /// Tables to leave out: a comma-separated list of names and patterns.
    #[arg(long, value_delimiter = ',', value_name = "TABLE", help_heading = TABLES)]
    pub(in crate::cli) exclude: Vec<String>,
}

/// Options that apply to single tables.
#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(in crate::cli) struct TableArgs {
    /// Columns to load, as table.column; the other columns of that table are left out, except the key.
    ///
    /// A comma list; both parts may use `*` and `?`; may be repeated.
    #[arg(long, value_delimiter = ',', value_name = "TABLE.COLUMN", hide_short_help = true, help_heading = COLUMNS)]
    pub(in crate::cli) column: Vec<String>,
    /// Columns to leave out, such as 'users.*_email' or '*.sis_user_id'; they are not even decoded.
    #[arg(long, value_delimiter = ',', value_name = "TABLE.COLUMN", hide_short_help = true, help_heading = COLUMNS)]
    pub(in crate::cli) drop_column: Vec<String>,
    /// Columns to replace with a keyed hash (HMAC-SHA256, 64 hexadecimal digits); key columns are allowed.
    ///
    /// The key comes from the variable DAPLAKE_HASH_KEY or from --hash-key-file.
    #[arg(long, value_delimiter = ',', value_name = "TABLE.COLUMN", hide_short_help = true, help_heading = COLUMNS)]
    pub(in crate::cli) hash_column: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) key: HashKeyArgs,
    /// What a delete does to a row of a lake table.
    ///
    /// `remove` deletes the row, `mark` keeps it with `_deleted` set to true. A value for all tables, or table=mark for some; may
    /// be repeated. Default: as the table is; `remove` for new tables.
    #[arg(long, value_name = "[TABLE=]WHAT", hide_short_help = true, help_heading = LAKE)]
    pub(in crate::cli) deletes: Vec<String>,
    /// Which rows a lake table keeps; cannot be changed later.
    ///
    /// `current` has one row per key, `changes` every change that was loaded, `history` every version of each row with the time in
    /// which it was valid. A value for all tables, or table=history for some; may be repeated. Default: as the table is; `current`
    /// for new tables.
    #[arg(long, value_name = "[TABLE=]MODE", hide_short_help = true, help_heading = LAKE)]
    pub(in crate::cli) mode: Vec<String>,
    /// Partition new lake tables by a time or date, such as 'submissions=month(submitted_at)'.
    ///
    /// The unit is day, month or year. web_logs is partitioned by day(timestamp) unless web_logs=none is given. May be repeated.
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
    /// Tables: one name, a comma list, or `all`.
    #[arg(long, value_name = "TABLE", allow_hyphen_values = true)]
    pub(in crate::cli) table: String,
}
