//! How lake tables are written, the catalog in which they are registered, and the commands that maintain them.

use std::time::Duration;

use clap::Args;

use crate::cli::args::headings::{CATALOG, DOWNLOAD, LAKE};
use crate::cli::args::query::OutputFormat;
use crate::cli::args::selection::{HashKeyArgs, HeldTablesArgs};
use crate::cli::args::target::{EngineArgs, TargetArgs};
use crate::cli::values::choices::choice;
use crate::cli::values::duration::parse_retention;
use crate::model::Format;
use crate::ops::CatalogKind;
use crate::sink::delta::{ChangeDataFeed, DeletionVectors, IcebergView, OnForeignChanges};

/// How lake tables are written.
#[derive(Debug, Args)]
pub(in crate::cli) struct LakeArgs {
    /// When to record deleted rows in deletion vectors instead of rewriting files.
    ///
    /// `auto` uses them where they save work. Readers of the tables must support them.
    #[arg(
        long,
        value_parser = choice::<DeletionVectors>(),
        default_value = "auto",
        value_name = "WHEN",
        hide_short_help = true,
        help_heading = LAKE
    )]
    pub(in crate::cli) deletion_vectors: DeletionVectors,
    /// Enable or disable the change data feed of Delta tables from the next commit on.
    ///
    /// With it, each commit also reads and writes the old versions of changed rows. By default,
    /// existing tables keep their setting, and new tables have no feed.
    #[arg(long, value_parser = choice::<ChangeDataFeed>(), value_name = "SWITCH", hide_short_help = true, help_heading = LAKE)]
    pub(in crate::cli) change_data_feed: Option<ChangeDataFeed>,
    /// Enable or disable a read-only Iceberg view of Delta tables from the next commit on.
    ///
    /// Readers of Iceberg tables (format version 3) then see the same rows in the same data files. By default, existing tables
    /// keep their setting, and new tables have no view.
    #[arg(long, value_parser = choice::<IcebergView>(), value_name = "SWITCH", hide_short_help = true, help_heading = LAKE)]
    pub(in crate::cli) iceberg: Option<IcebergView>,
    /// What to do when another program has changed rows of a table since the last load.
    ///
    /// `fail` fails the table; `warn` loads the increment with a warning. Snapshots are always loaded.
    #[arg(
        long,
        value_parser = choice::<OnForeignChanges>(),
        default_value = "fail",
        value_name = "POLICY",
        hide_short_help = true,
        help_heading = LAKE
    )]
    pub(in crate::cli) foreign_changes: OnForeignChanges,
    /// Compact a Delta table when a load leaves this many small files; 0 disables it.
    #[arg(long, default_value_t = 20, value_name = "N", hide_short_help = true, help_heading = LAKE)]
    pub(in crate::cli) compact_after: u32,
    /// Remove files after a load that no version of this time needs, such as 30d; at least 7d.
    ///
    /// By default, only `daplake vacuum` removes files. A table is vacuumed once in a tenth of the time, and at
    /// most once a day. If a vacuum fails, the load still succeeds, with a warning.
    #[arg(long, value_name = "TIME", value_parser = parse_retention, hide_short_help = true, help_heading = LAKE)]
    pub(in crate::cli) vacuum_after: Option<Duration>,
}

/// The catalog of the tables.
#[derive(Debug, Args)]
pub(in crate::cli) struct CatalogArgs {
    /// Register Delta tables in a catalog after their loads, so that query engines find them.
    ///
    /// `glue` is the AWS Glue Data Catalog, for targets in S3. Tables appear with columns and descriptions, and follow schema
    /// changes. If a registration fails, the load still succeeds, with a warning, and the next run tries again.
    #[arg(
        long,
        value_parser = choice::<Option<CatalogKind>>(),
        default_value = "none",
        value_name = "KIND",
        hide_short_help = true,
        help_heading = CATALOG
    )]
    pub(in crate::cli) catalog: ChosenCatalog,
    /// Name of the database of a table, with the placeholders {namespace} and {table}; it is created if it does not exist.
    #[arg(long, default_value = "{namespace}", value_name = "TEMPLATE", hide_short_help = true, help_heading = CATALOG)]
    pub(in crate::cli) catalog_database: String,
    /// Name of a table, with the placeholders {namespace} and {table}.
    #[arg(long, default_value = "{table}", value_name = "TEMPLATE", hide_short_help = true, help_heading = CATALOG)]
    pub(in crate::cli) catalog_table: String,
    /// Option of the catalog; may be repeated: region, endpoint or catalog_id.
    ///
    /// By default, region and credentials are those of the target.
    #[arg(long, value_name = "NAME=VALUE", hide_short_help = true, help_heading = CATALOG)]
    pub(in crate::cli) catalog_option: Vec<String>,
}

/// The kind of the catalog. An alias, because clap would take an `Option` for an option that may be missing.
pub(in crate::cli) type ChosenCatalog = Option<CatalogKind>;

#[derive(Debug, Args)]
#[command(
    after_help = "Rows do not change. Replaced files remain for readers of older versions until `daplake vacuum` removes them.\n\nExample:\n  daplake optimize --target ./lake --table submissions --sort-by-key"
)]
pub(in crate::cli) struct OptimizeArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    #[command(flatten)]
    pub(in crate::cli) tables: HeldTablesArgs,
    /// Also sort files whose key ranges overlap by key. This can rewrite a whole table.
    #[arg(long, alias = "cluster")]
    pub(in crate::cli) sort_by_key: bool,
    /// Format of the output.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text, value_name = "FORMAT")]
    pub(in crate::cli) output: OutputFormat,
    #[command(flatten)]
    pub(in crate::cli) engine: EngineArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Removes files that were replaced before the retention period, and files that killed runs left behind. Older versions of the tables can then no longer be read.\n\nExample:\n  daplake vacuum --target ./lake --retention 30d --dry-run"
)]
pub(in crate::cli) struct VacuumArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    #[command(flatten)]
    pub(in crate::cli) tables: HeldTablesArgs,
    /// Keep files that were needed within this time, such as 30d; at least 7d.
    #[arg(long, default_value = "7d", value_name = "TIME", value_parser = parse_retention)]
    pub(in crate::cli) retention: Duration,
    /// List the files without removing them.
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Format of the output.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text, value_name = "FORMAT")]
    pub(in crate::cli) output: OutputFormat,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Loads a snapshot of each table and compares its rows, except those that changed since the bookmark. Changes nothing; `daplake sync --resnapshot` repairs differences.\n\nExample:\n  daplake verify --target ./lake --table users,enrollments\n\nExit codes: 0 no differences; 5 differences or failures."
)]
pub(in crate::cli) struct VerifyArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    #[command(flatten)]
    pub(in crate::cli) tables: HeldTablesArgs,
    /// Maximum number of differing keys to print per table.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(in crate::cli) keys: usize,
    /// Format of the output.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text, value_name = "FORMAT")]
    pub(in crate::cli) output: OutputFormat,
    #[command(flatten)]
    pub(in crate::cli) key: HashKeyArgs,
    /// Format of the downloaded objects.
    #[arg(
        long,
        value_parser = choice::<Format>(),
        default_value = "jsonl",
        value_name = "FORMAT",
        hide_short_help = true,
        help_heading = DOWNLOAD
    )]
    pub(in crate::cli) download_format: Format,
    /// Maximum number of job starts per minute; 0 means unlimited.
    #[arg(long, default_value_t = 5, value_name = "N", hide_short_help = true, help_heading = DOWNLOAD)]
    pub(in crate::cli) jobs_per_minute: u32,
    #[command(flatten)]
    pub(in crate::cli) engine: EngineArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  daplake history --target ./lake --table canvas.users")]
pub(in crate::cli) struct HistoryArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    /// Table, as namespace.table; the namespace defaults to `canvas`.
    #[arg(long, value_name = "TABLE")]
    pub(in crate::cli) table: String,
    /// Maximum number of commits to list, newest first.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(in crate::cli) limit: usize,
    /// Format of the output.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text, value_name = "FORMAT")]
    pub(in crate::cli) output: OutputFormat,
}
