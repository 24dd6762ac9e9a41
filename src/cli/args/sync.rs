//! `sync`: its own options, its schedule, its notifications and its limits.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

#[cfg(feature = "cluster")]
use crate::cli::args::cluster::ClusterArgs;
#[cfg(feature = "sql")]
use crate::cli::args::database::DatabaseArgs;
use crate::cli::args::headings::{COLUMNS, DOWNLOAD, LIMITS, NOTIFICATIONS, OUTPUT, SCHEDULE, TABLES};
use crate::cli::args::lake::{CatalogArgs, LakeArgs};
use crate::cli::args::selection::{SchemaChangesArgs, SelectionArgs, TableArgs, TimeArgs};
use crate::cli::args::target::{EngineArgs, StateArgs, TargetArgs};
use crate::cli::values::bytes::parse_bytes;
use crate::cli::values::choices::choice;
use crate::cli::values::duration::parse_duration;
use crate::model::Format;
use crate::ops::{NotifyForm, NotifyOn, OnSnapshotRequired};
use crate::redact::Secret;
use crate::schema::Nested;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  daplake sync --target ./lake\n  daplake sync --target ./lake --namespace canvas,canvas_logs --exclude 'content_*'\n  daplake sync --target ./lake --every 4h\n\nExit codes: 0 all tables are up to date; 2 wrong usage; 5 at least one table failed; 38 not supported; 125 interrupted."
)]
pub(in crate::cli) struct SyncArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    #[command(flatten)]
    pub(in crate::cli) selection: SelectionArgs,
    /// Load new snapshots, even where increments are available.
    #[arg(long, help_heading = TABLES)]
    pub(in crate::cli) resnapshot: bool,
    /// What to do when the service no longer offers increments since the bookmark.
    #[arg(
        long,
        value_parser = choice::<OnSnapshotRequired>(),
        default_value = "resnapshot",
        value_name = "POLICY",
        hide_short_help = true,
        help_heading = TABLES
    )]
    pub(in crate::cli) on_snapshot_required: OnSnapshotRequired,
    #[command(flatten, next_help_heading = TABLES)]
    pub(in crate::cli) columns: SchemaChangesArgs,
    /// Discard the jobs of an interrupted run instead of resuming them.
    #[arg(long, hide_short_help = true, help_heading = TABLES)]
    pub(in crate::cli) fresh: bool,
    #[command(flatten)]
    pub(in crate::cli) tables: TableArgs,
    /// Store nested objects and arrays as typed columns or as JSON text.
    #[arg(
        long,
        value_parser = choice::<Nested>(),
        default_value = "typed",
        value_name = "FORM",
        hide_short_help = true,
        help_heading = COLUMNS
    )]
    pub(in crate::cli) nested: Nested,
    #[command(flatten)]
    pub(in crate::cli) times: TimeArgs,
    /// Write unreadable rows to this file (JSON lines) instead of failing their table.
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = COLUMNS)]
    pub(in crate::cli) bad_rows: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) lake: LakeArgs,
    #[command(flatten)]
    pub(in crate::cli) catalog: CatalogArgs,
    #[cfg(feature = "sql")]
    #[command(flatten)]
    pub(in crate::cli) database: DatabaseArgs,
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
    /// Number of tables to load at the same time.
    #[arg(long, default_value_t = 2, value_name = "N", hide_short_help = true, help_heading = DOWNLOAD)]
    pub(in crate::cli) concurrency: usize,
    /// Maximum number of job starts per minute; 0 means unlimited.
    #[arg(long, default_value_t = 5, value_name = "N", hide_short_help = true, help_heading = DOWNLOAD)]
    pub(in crate::cli) jobs_per_minute: u32,
    #[command(flatten)]
    pub(in crate::cli) schedule: ScheduleArgs,
    #[command(flatten)]
    pub(in crate::cli) notifications: NotifyArgs,
    /// Write a JSON report of the run to this file; `-` is standard output.
    ///
    /// The report is written even if the run cannot start. With several targets it is a list of reports. With `-`, nothing else is
    /// written to standard output.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub(in crate::cli) report: Option<PathBuf>,
    #[command(flatten, next_help_heading = OUTPUT)]
    pub(in crate::cli) state: StateArgs,
    #[command(flatten)]
    pub(in crate::cli) engine: EngineArgs,
    #[command(flatten)]
    pub(in crate::cli) limits: LimitArgs,
    #[cfg(feature = "cluster")]
    #[command(flatten)]
    pub(in crate::cli) cluster: ClusterArgs,
}

/// How often to run, and for how long.
#[derive(Debug, Args)]
pub(in crate::cli) struct ScheduleArgs {
    /// Keep running and sync at this interval, such as 4h (same as --watch --interval 4h).
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = SCHEDULE)]
    pub(in crate::cli) every: Option<Duration>,
    /// Keep running and sync every 4 hours (see --interval).
    ///
    /// Ctrl-C or SIGTERM stops it. It reports its state to systemd.
    #[arg(long, help_heading = SCHEDULE)]
    pub(in crate::cli) watch: bool,
    /// With --watch: time from the start of one run to the start of the next.
    ///
    /// The service refreshes its data every 4 hours.
    #[arg(
        long,
        default_value = "4h",
        value_name = "TIME",
        value_parser = parse_duration,
        hide_short_help = true,
        help_heading = SCHEDULE
    )]
    pub(in crate::cli) interval: Duration,
    /// With --watch: maximum random delay added to each interval [default: a tenth of the interval, at most 10m].
    #[arg(long, value_name = "TIME", value_parser = parse_duration, hide_short_help = true, help_heading = SCHEDULE)]
    pub(in crate::cli) jitter: Option<Duration>,
    /// With --watch: skip tables whose data is younger than this; 0s queries all tables in every run.
    ///
    /// By default 4h, the refresh interval of the service; 8h for new_quizzes.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, hide_short_help = true, help_heading = SCHEDULE)]
    pub(in crate::cli) refresh: Option<Duration>,
    /// Stop after this time; the next run loads the remaining tables.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, hide_short_help = true, help_heading = SCHEDULE)]
    pub(in crate::cli) time_budget: Option<Duration>,
}

/// Notifications and metrics. A notification that fails never changes the result of a run.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct NotifyArgs {
    /// Post the result of each run to this webhook. The URL is a secret: prefer the variable.
    #[arg(
        long,
        env = "DAPLAKE_NOTIFY",
        value_name = "URL",
        value_parser = |text: &str| Ok::<_, Infallible>(Secret::new(text)),
        hide_short_help = true,
        help_heading = NOTIFICATIONS
    )]
    pub(in crate::cli) notify: Option<Secret>,
    /// Body of the webhook request: all details as JSON, a message for Slack, or a card for Microsoft Teams.
    #[arg(
        long,
        value_parser = choice::<NotifyForm>(),
        default_value = "json",
        value_name = "FORM",
        hide_short_help = true,
        help_heading = NOTIFICATIONS
    )]
    pub(in crate::cli) notify_form: NotifyForm,
    /// Run this shell command after each run.
    ///
    /// The command receives the details as JSON on standard input. Its environment has no credentials.
    #[arg(long, value_name = "COMMAND", hide_short_help = true, help_heading = NOTIFICATIONS)]
    pub(in crate::cli) notify_command: Option<String>,
    /// Send the result of each run to these comma-separated mail addresses.
    #[arg(long, value_delimiter = ',', value_name = "ADDRESS", hide_short_help = true, help_heading = NOTIFICATIONS)]
    pub(in crate::cli) notify_email: Vec<String>,
    /// Sender address of mail [default: the user of --notify-smtp if it is an address, else the first recipient].
    #[arg(long, value_name = "ADDRESS", hide_short_help = true, help_heading = NOTIFICATIONS)]
    pub(in crate::cli) notify_email_from: Option<String>,
    /// Mail server: smtp://user@host:587 (STARTTLS) or smtps://user@host:465 (TLS).
    ///
    /// For an unencrypted server on this machine: smtp://localhost:25?tls=off.
    #[arg(
        long,
        env = "DAPLAKE_SMTP",
        value_name = "URL",
        value_parser = |text: &str| Ok::<_, Infallible>(Secret::new(text)),
        hide_short_help = true,
        help_heading = NOTIFICATIONS
    )]
    pub(in crate::cli) notify_smtp: Option<Secret>,
    /// Password for the mail server; prefer the variable.
    #[arg(
        long,
        env = "DAPLAKE_SMTP_PASSWORD",
        value_name = "PASSWORD",
        allow_hyphen_values = true,
        value_parser = |text: &str| Ok::<_, Infallible>(Secret::new(text)),
        hide_short_help = true,
        help_heading = NOTIFICATIONS
    )]
    pub(in crate::cli) notify_smtp_password: Option<Secret>,
    /// Which runs to report: all, those in which failures begin or end, or those with failures.
    #[arg(
        long,
        value_parser = choice::<NotifyOn>(),
        default_value = "failure",
        value_name = "WHEN",
        hide_short_help = true,
        help_heading = NOTIFICATIONS
    )]
    pub(in crate::cli) notify_on: NotifyOn,
    /// Serve Prometheus metrics at http://ADDRESS/metrics, such as 127.0.0.1:9184.
    #[arg(long, value_name = "ADDRESS", hide_short_help = true, help_heading = NOTIFICATIONS)]
    pub(in crate::cli) metrics_listen: Option<SocketAddr>,
}

/// Limits that protect against broken or malicious responses.
#[derive(Debug, Args)]
pub(in crate::cli) struct LimitArgs {
    /// Maximum length of a line in an object; a longer line fails the table.
    #[arg(
        long,
        default_value = "256MiB",
        value_name = "BYTES",
        value_parser = parse_bytes,
        hide_short_help = true,
        help_heading = LIMITS
    )]
    pub(in crate::cli) max_line: u64,
    /// Maximum ratio of decompressed to compressed size of an object, beyond its first GiB.
    #[arg(
        long,
        default_value_t = 500,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..),
        hide_short_help = true,
        help_heading = LIMITS
    )]
    pub(in crate::cli) max_unpack_ratio: u64,
    /// Maximum size of an object, both compressed and decompressed (Parquet: decoded).
    #[arg(
        long,
        default_value = "1TiB",
        value_name = "BYTES",
        value_parser = parse_bytes,
        hide_short_help = true,
        help_heading = LIMITS
    )]
    pub(in crate::cli) max_object: u64,
}
