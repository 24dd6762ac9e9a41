//! `list`, `snapshot`, `incremental`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::args::headings::EXTRAS;
use crate::cli::args::selection::{NamespaceArgs, TablesArgs};
use crate::cli::values::choices::choice;
use crate::cli::values::moment::{Moment, parse_moment};
use crate::model::Format;

#[derive(Debug, Args)]
pub(in crate::cli) struct OutputArgs {
    /// Folder for the files; created if missing.
    #[arg(long, value_name = "DIR", default_value = "downloads", allow_hyphen_values = true)]
    pub(in crate::cli) output_directory: PathBuf,
}

/// Options that `snapshot` and `incremental` share.
#[derive(Debug, Args)]
pub(in crate::cli) struct DownloadArgs {
    #[command(flatten)]
    pub(in crate::cli) namespace: NamespaceArgs,
    #[command(flatten)]
    pub(in crate::cli) tables: TablesArgs,
    /// Format of the files; the text formats are gzip-compressed.
    #[arg(long, value_name = "FORMAT", default_value = "jsonl", value_parser = choice::<Format>())]
    pub(in crate::cli) format: Format,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
    /// Decompress text formats while writing them.
    #[arg(long, help_heading = EXTRAS, conflicts_with = "convert")]
    pub(in crate::cli) decompress: bool,
    /// Convert text formats to Parquet (zstd) with the types of the table's schema.
    #[arg(long, value_name = "FORMAT", value_enum, help_heading = EXTRAS)]
    pub(in crate::cli) convert: Option<ConvertTo>,
    /// Number of objects to download at the same time, across all tables.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..=256),
        help_heading = EXTRAS
    )]
    pub(in crate::cli) concurrency: u16,
    /// Maximum number of job starts per minute; 0 means unlimited.
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = EXTRAS)]
    pub(in crate::cli) jobs_per_minute: u32,
    /// Discard the state of an interrupted run and download all files again.
    #[arg(long, help_heading = EXTRAS)]
    pub(in crate::cli) fresh: bool,
    /// Folder for the state from which interrupted runs are resumed.
    ///
    /// By default, the system's folder for state, such as ~/.local/state/daplake.
    #[arg(long, value_name = "DIR", env = "DAPLAKE_STATE_DIR", hide_short_help = true, help_heading = EXTRAS)]
    pub(in crate::cli) state_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ConvertTo {
    Parquet,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Files appear in <output-directory>/job_<job id>/ when all of them are complete and verified. The same command resumes an interrupted run.\n\nExamples:\n  daplake snapshot --namespace canvas --table users,accounts --format csv\n  daplake snapshot --namespace canvas --table all --convert parquet --output-directory out\n\nExit codes: 0 success; 2 wrong usage; 5 at least one table failed; 38 not supported; 125 interrupted."
)]
pub(in crate::cli) struct SnapshotArgs {
    #[command(flatten)]
    pub(in crate::cli) download: DownloadArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Times are ISO 8601, such as 2026-01-31T09:30:00Z; a time without an offset is in the time zone of this machine. The time for the next --since is `at` (of a snapshot) or `until` (of an increment) in the log line of the job, and `next_since` in .daplake-manifest.json beside the files. The service refreshes its data every 4 hours.\n\nExample:\n  daplake incremental --namespace canvas --table users --since 2026-01-31T09:30:00Z\n\nExit codes: 0 success; 2 wrong usage; 5 at least one table failed; 38 not supported; 125 interrupted."
)]
pub(in crate::cli) struct IncrementalArgs {
    #[command(flatten)]
    pub(in crate::cli) download: DownloadArgs,
    /// Download changes after this time, usually the end of the previous download.
    #[arg(long, value_name = "DATETIME", value_parser = parse_moment, allow_hyphen_values = true)]
    pub(in crate::cli) since: Moment,
    /// Download changes up to this time [default: all available changes].
    #[arg(long, value_name = "DATETIME", value_parser = parse_moment, allow_hyphen_values = true)]
    pub(in crate::cli) until: Option<Moment>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  daplake --non-interactive list --namespace canvas | grep user")]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    pub(in crate::cli) namespace: NamespaceArgs,
}
