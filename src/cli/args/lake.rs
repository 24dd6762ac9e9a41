//! How lake tables are written and maintained.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::args::query::StatusOutput;
use crate::cli::args::selection::{HashKeyArgs, HeldTablesArgs};
use crate::cli::args::target::{EngineArgs, TargetArgs};
use crate::cli::values::duration::parse_retention;
use crate::model::Format;

/// How lake tables are written.
#[derive(Debug, Args)]
pub(in crate::cli) struct LakeArgs {
    /// Marks rows of Delta files as deleted instead of writing the files anew: where it pays, in all files, or never. Tables with
    /// such marks need readers that know deletion vectors.
    #[arg(long, value_enum, default_value_t = DeletionVectorsArg::Auto, value_name = "WHEN")]
    pub(in crate::cli) deletion_vectors: DeletionVectorsArg,
    /// Tells what each commit of a Delta table changed as rows (change data feed), from the next one on, or not any more. Tables
    /// stay as they are when this is not given. A commit then reads and writes the old rows as well.
    #[arg(long, value_enum, value_name = "SWITCH")]
    pub(in crate::cli) change_data_feed: Option<SwitchArg>,
    /// What to do with an increment when another program changed rows of the table since the last load: fail, or load it with a
    /// warning. A new snapshot is always loaded.
    #[arg(long, value_enum, default_value_t = ForeignChangesArg::Fail, value_name = "POLICY")]
    pub(in crate::cli) foreign_changes: ForeignChangesArg,
    /// Merges small files of a Delta table when a load leaves so many of them; 0 for never.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(in crate::cli) compact_after: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum SwitchArg {
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ForeignChangesArg {
    Fail,
    Warn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum DeletionVectorsArg {
    Auto,
    On,
    Off,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Rows stay the same, readers notice nothing. The replaced files stay for readers of older versions until `vacuum`.\n\nExample:\n  daplake optimize --target ./lake --table submissions --cluster"
)]
pub(in crate::cli) struct OptimizeArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    #[command(flatten)]
    pub(in crate::cli) tables: HeldTablesArgs,
    /// Also sorts files whose ranges of keys overlap into files that do not; this may write a whole table anew.
    #[arg(long)]
    pub(in crate::cli) cluster: bool,
    #[command(flatten)]
    pub(in crate::cli) engine: EngineArgs,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = StatusOutput::Text)]
    pub(in crate::cli) output: StatusOutput,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Removed are files that were replaced, or left behind by a run that was killed, longer ago than the retention. Older versions can then no longer be read.\n\nExample:\n  daplake vacuum --target ./lake --retention 30d --dry-run"
)]
pub(in crate::cli) struct VacuumArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    #[command(flatten)]
    pub(in crate::cli) tables: HeldTablesArgs,
    /// Keeps what was needed within this time, such as 7d or 48h; 7 days at least.
    #[arg(long, default_value = "7d", value_name = "TIME", value_parser = parse_retention)]
    pub(in crate::cli) retention: Duration,
    /// Says what would be removed, and removes nothing.
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = StatusOutput::Text)]
    pub(in crate::cli) output: StatusOutput,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Takes a snapshot of each table (and the changes since its bookmark, which are left out). Nothing is changed; what differs is repaired by `daplake sync --resnapshot`.\n\nExample:\n  daplake verify --target ./lake --table users,enrollments\n\nExit codes: 0 nothing differs; 5 something differs or failed."
)]
pub(in crate::cli) struct VerifyArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    #[command(flatten)]
    pub(in crate::cli) tables: HeldTablesArgs,
    /// Names so many of the keys that differ, per table.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(in crate::cli) keys: usize,
    #[command(flatten)]
    pub(in crate::cli) key: HashKeyArgs,
    /// Format in which objects are downloaded: jsonl, csv, tsv or parquet.
    #[arg(long, default_value = "jsonl", value_name = "FORMAT")]
    pub(in crate::cli) download_format: Format,
    /// Job starts per minute; 0 for no limit of our own.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub(in crate::cli) jobs_per_minute: u32,
    #[command(flatten)]
    pub(in crate::cli) engine: EngineArgs,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = StatusOutput::Text)]
    pub(in crate::cli) output: StatusOutput,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  daplake history --target ./lake --table canvas.users")]
pub(in crate::cli) struct HistoryArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    /// The table, as `namespace.table`; the namespace may be left out for `canvas`.
    #[arg(long, value_name = "TABLE")]
    pub(in crate::cli) table: String,
    /// So many commits, newest first.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(in crate::cli) limit: usize,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = StatusOutput::Text)]
    pub(in crate::cli) output: StatusOutput,
}
