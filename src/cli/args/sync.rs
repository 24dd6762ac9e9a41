//! `sync`: its own options, its schedule, its notifications and its limits.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

#[cfg(feature = "cluster")]
use crate::cli::args::cluster::ClusterArgs;
#[cfg(feature = "sql")]
use crate::cli::args::database::DatabaseArgs;
use crate::cli::args::lake::LakeArgs;
use crate::cli::args::selection::{NestedArg, OnSnapshotRequired, SelectionArgs, TableArgs, TimeArgs};
use crate::cli::args::target::{EngineArgs, StateArgs, TargetArgs};
use crate::cli::values::bytes::parse_bytes;
use crate::cli::values::duration::parse_duration;
use crate::model::Format;
use crate::redact::Secret;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  daplake sync --target ./lake\n  daplake sync --target ./lake --namespace canvas,canvas_logs --exclude 'content_*'\n\nExit codes: 0 all tables are right; 2 wrong usage; 5 at least one table failed; 38 not supported; 125 interrupted."
)]
pub(in crate::cli) struct SyncArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    #[command(flatten)]
    pub(in crate::cli) selection: SelectionArgs,
    #[command(flatten)]
    pub(in crate::cli) engine: EngineArgs,
    #[command(flatten)]
    pub(in crate::cli) lake: LakeArgs,
    #[command(flatten)]
    pub(in crate::cli) tables: TableArgs,
    /// Take new snapshots even where increments would do.
    #[arg(long)]
    pub(in crate::cli) resnapshot: bool,
    /// What to do when the service no longer gives increments since the bookmark.
    #[arg(long, value_enum, default_value_t = OnSnapshotRequired::Resnapshot, value_name = "POLICY")]
    pub(in crate::cli) on_snapshot_required: OnSnapshotRequired,
    #[cfg(feature = "sql")]
    #[command(flatten)]
    pub(in crate::cli) database: DatabaseArgs,
    #[command(flatten)]
    pub(in crate::cli) times: TimeArgs,
    /// Format in which objects are downloaded: jsonl, csv, tsv or parquet.
    #[arg(long, default_value = "jsonl", value_name = "FORMAT")]
    pub(in crate::cli) download_format: Format,
    /// Nested objects and arrays as typed columns or as JSON text.
    #[arg(long, value_enum, default_value_t = NestedArg::Typed)]
    pub(in crate::cli) nested: NestedArg,
    /// Sets rows that cannot be read aside in this file (JSON lines, with the row itself) and goes on; without it such a row fails its table.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) bad_rows: Option<PathBuf>,
    /// Tables that are loaded at once.
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub(in crate::cli) concurrency: usize,
    /// Job starts per minute; 0 for no limit of our own.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub(in crate::cli) jobs_per_minute: u32,
    /// Writes the run report as JSON to this file, also when the run cannot start; a list of them when several targets are kept.
    /// `-` is standard output, which then has nothing else.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) report: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) schedule: ScheduleArgs,
    #[command(flatten)]
    pub(in crate::cli) notifications: NotifyArgs,
    #[command(flatten)]
    pub(in crate::cli) limits: LimitArgs,
    #[cfg(feature = "cluster")]
    #[command(flatten)]
    pub(in crate::cli) cluster: ClusterArgs,
}

/// What only runs without a person need.
#[derive(Debug, Args)]
pub(in crate::cli) struct ScheduleArgs {
    /// Stays, and syncs so often, such as 4h: --watch with this interval.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(in crate::cli) every: Option<Duration>,
    /// Stays, and syncs every --interval until it is ended (ctrl-c, SIGTERM; systemd is told how it is).
    #[arg(long)]
    pub(in crate::cli) watch: bool,
    /// With --watch: time from one begin to the next. The service refreshes its data every 4 hours.
    #[arg(long, default_value = "4h", value_name = "TIME", value_parser = parse_duration)]
    pub(in crate::cli) interval: Duration,
    /// With --watch: up to so much more, by chance [default: a tenth of the interval, at most 10m].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(in crate::cli) jitter: Option<Duration>,
    /// With --watch: leaves tables alone whose data are younger; 0s asks for all of them every time [default: 4h, as often as the
    /// service refreshes; 8h for new_quizzes].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(in crate::cli) refresh: Option<Duration>,
    /// Ends in this time with what is done by then; the next run goes on with the rest.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(in crate::cli) time_budget: Option<Duration>,
    /// Begins anew: forgets the jobs that an interrupted run has left behind.
    #[arg(long)]
    pub(in crate::cli) fresh: bool,
    #[command(flatten)]
    pub(in crate::cli) state: StateArgs,
}

/// Who is told of runs. A notification that does not arrive never changes how a run ends.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct NotifyArgs {
    /// Posts how a run ended to this webhook. The address is a secret: prefer the variable.
    #[arg(
        long,
        env = "DAPLAKE_NOTIFY",
        hide_env_values = true,
        value_name = "URL",
        value_parser = |text: &str| Ok::<_, std::convert::Infallible>(Secret::new(text))
    )]
    pub(in crate::cli) notify: Option<Secret>,
    /// What the webhook understands: JSON with all that is known of the run, or a message for Slack and its kin.
    #[arg(long, value_enum, default_value_t = NotifyFormArg::Json, value_name = "FORM")]
    pub(in crate::cli) notify_form: NotifyFormArg,
    /// Runs this command by the shell when a run ended, with the run as JSON on its standard input and without our credentials.
    #[arg(long, value_name = "COMMAND")]
    pub(in crate::cli) notify_command: Option<String>,
    /// When to tell: after every run, when other things fail than after the run before, or after runs with failures.
    #[arg(long, value_enum, default_value_t = NotifyOnArg::Failure, value_name = "WHEN")]
    pub(in crate::cli) notify_on: NotifyOnArg,
    /// Serves figures for Prometheus at http://ADDRESS/metrics while it runs, such as 127.0.0.1:9184.
    #[arg(long, value_name = "ADDRESS")]
    pub(in crate::cli) metrics_listen: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum NotifyFormArg {
    Json,
    Slack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum NotifyOnArg {
    Always,
    Change,
    Failure,
}

/// What a hostile or broken answer may cost at most.
#[derive(Debug, Args)]
pub(in crate::cli) struct LimitArgs {
    /// Longest line of an object; a longer one fails its table.
    #[arg(long, default_value = "256MiB", value_name = "BYTES", value_parser = parse_bytes)]
    pub(in crate::cli) max_line: u64,
    /// Largest ratio of unpacked to packed bytes of an object, beyond its first GiB.
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) max_unpack_ratio: u64,
    /// Largest size of one object, as it is stored and as it is read (Parquet: decoded).
    #[arg(long, default_value = "1TiB", value_name = "BYTES", value_parser = parse_bytes)]
    pub(in crate::cli) max_object: u64,
}
