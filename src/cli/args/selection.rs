//! Which namespaces, tables and columns.

#[cfg(feature = "lake")]
use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[cfg(feature = "lake")]
use crate::cli::args::headings::{EXTRAS, TABLES};

/// Which tables.
#[derive(Debug, Args)]
pub(in crate::cli) struct SelectionArgs {
    /// Namespaces: `canvas`, `canvas_logs`, `catalog`, `new_quizzes`, a comma list, or `all` that the account has.
    #[arg(long, value_delimiter = ',', default_value = "canvas", value_name = "NAMESPACE")]
    pub(in crate::cli) namespace: Vec<String>,
    /// Tables: `all`, a comma list, patterns with `*` and `?`; `namespace.table` to be exact.
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "TABLE")]
    pub(in crate::cli) table: Vec<String>,
    /// Tables to leave out: a comma list, patterns as above.
    #[arg(long, value_delimiter = ',', value_name = "TABLE")]
    pub(in crate::cli) exclude: Vec<String>,
}

/// Tables of a target.
#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(in crate::cli) struct HeldTablesArgs {
    /// Namespaces: a comma list, or `all` that the target has.
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "NAMESPACE")]
    pub(in crate::cli) namespace: Vec<String>,
    /// Tables: `all`, a comma list, patterns with `*` and `?`; `namespace.table` to be exact.
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "TABLE")]
    pub(in crate::cli) table: Vec<String>,
    /// Tables to leave out: a comma list, patterns as above.
    #[arg(long, value_delimiter = ',', value_name = "TABLE")]
    pub(in crate::cli) exclude: Vec<String>,
}

/// What becomes of single tables.
#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(in crate::cli) struct TableArgs {
    /// Columns to take, as table.column with `*` and `?` in either part, such as users.name; of tables that are named so, no
    /// other columns are taken but the key. A comma list; may be repeated.
    #[arg(long, value_delimiter = ',', value_name = "TABLE.COLUMN", help_heading = TABLES)]
    pub(in crate::cli) column: Vec<String>,
    /// Columns to leave out, written alike, such as 'users.*_email' or '*.sis_user_id'. They are not even decoded.
    #[arg(long, value_delimiter = ',', value_name = "TABLE.COLUMN", help_heading = TABLES)]
    pub(in crate::cli) drop_column: Vec<String>,
    /// Columns to replace by a keyed hash (HMAC-SHA256, 64 hexadecimal digits), written alike; key columns, too. The key comes from
    /// the variable DAPLAKE_HASH_KEY or from --hash-key-file.
    #[arg(long, value_delimiter = ',', value_name = "TABLE.COLUMN", help_heading = TABLES)]
    pub(in crate::cli) hash_column: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) key: HashKeyArgs,
    /// What a delete does to a row of a lake table: `remove` takes it out, `mark` leaves it with true in the column `_deleted`
    /// [default: as the table is; new ones: remove]. For all tables, or as table=mark for some; may be repeated.
    #[arg(long, value_name = "[TABLE=]WHAT", help_heading = TABLES)]
    pub(in crate::cli) deletes: Vec<String>,
    /// Which rows a lake table keeps: `current` one per key as it is now, `changes` every change that was seen, `history` every
    /// version of every row with the time it was valid. Cannot be changed later [default: as the table is; new ones: current]. For
    /// all tables, or as table=history for some; may be repeated.
    #[arg(long, value_name = "[TABLE=]MODE", help_heading = TABLES)]
    pub(in crate::cli) mode: Vec<String>,
    /// Partitions of new lake tables by a time or date, as table=day(column), month or year, such as
    /// 'submissions=month(submitted_at)'; web_logs is partitioned by day(timestamp) by itself, unless as web_logs=none. May be
    /// repeated.
    #[arg(long, value_name = "TABLE=UNIT(COLUMN)", help_heading = TABLES)]
    pub(in crate::cli) partition_by: Vec<String>,
    /// Namespaces of other targets of the settings file, of which options may speak.
    #[arg(skip)]
    pub(in crate::cli) elsewhere: Vec<String>,
}

#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(in crate::cli) struct HashKeyArgs {
    /// File with the key for hashed columns, at least 16 bytes; line ends at its end do not count.
    #[arg(long, env = "DAPLAKE_HASH_KEY_FILE", value_name = "FILE", help_heading = TABLES)]
    pub(in crate::cli) hash_key_file: Option<PathBuf>,
}

/// The one namespace of the commands that the official client has.
#[derive(Debug, Args)]
pub(in crate::cli) struct NamespaceArgs {
    /// Namespace: canvas, canvas_logs, catalog or new_quizzes.
    #[arg(long, value_name = "NAMESPACE", allow_hyphen_values = true)]
    pub(in crate::cli) namespace: String,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TablesArgs {
    /// Tables: one name, a list with commas between, or `all`.
    #[arg(long, value_name = "TABLE", allow_hyphen_values = true)]
    pub(in crate::cli) table: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum OnSnapshotRequired {
    Fail,
    Resnapshot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum NestedArg {
    Typed,
    Json,
}

/// Choices for times.
#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(in crate::cli) struct TimeArgs {
    /// Times and dates outside the years 1 to 9999: fail the table, or let them become null.
    #[arg(long, value_enum, default_value_t = OutOfRangeArg::Fail, value_name = "POLICY", help_heading = EXTRAS)]
    pub(in crate::cli) out_of_range_times: OutOfRangeArg,
}

#[cfg(feature = "lake")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum OutOfRangeArg {
    Fail,
    Null,
}

#[cfg(feature = "lake")]
impl TimeArgs {
    pub(in crate::cli) fn policy(&self) -> crate::ops::OutOfRange {
        match self.out_of_range_times {
            OutOfRangeArg::Fail => crate::ops::OutOfRange::Fail,
            OutOfRangeArg::Null => crate::ops::OutOfRange::Null,
        }
    }
}
