//! `demo` and `serve`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::values::duration::parse_duration;
use crate::model::Timestamp;

#[cfg(all(feature = "lake", feature = "demo"))]
#[derive(Debug, Args)]
pub(in crate::cli) struct DemoArgs {
    /// Where the tables go; emptied first if an earlier demo made it.
    #[arg(long, default_value = "daplake-demo", value_name = "DIR")]
    pub(in crate::cli) dir: PathBuf,
    /// Rows of `submissions`; other tables follow in proportion.
    #[arg(long, default_value_t = 2000, value_name = "N", value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    pub(in crate::cli) rows: u64,
    /// Another seed gives another school.
    #[arg(long, default_value_t = 7, value_name = "N")]
    pub(in crate::cli) seed: u64,
}

#[cfg(feature = "demo")]
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  daplake serve --port 8080 --rows 100000 --commit-every 60s --fault throttle:3")]
pub(in crate::cli) struct ServeArgs {
    /// Port on 127.0.0.1; 0 picks a free one.
    #[arg(long, default_value_t = 8765, value_name = "PORT")]
    pub(in crate::cli) port: u16,
    /// Rows of `submissions`; other tables follow in proportion.
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    pub(in crate::cli) rows: u64,
    /// Another seed gives another school.
    #[arg(long, default_value_t = 7, value_name = "N")]
    pub(in crate::cli) seed: u64,
    /// Commits there are at the start. Between two commits lie 4 hours of the school's time.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(in crate::cli) commits: u32,
    /// Time of the first commit, such as 2026-01-01T00:00:00Z, for the same data at every start [default: such that the last commit
    /// is of the last 4 hours].
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) start: Option<Timestamp>,
    /// Share of a table's rows that changes with each commit.
    #[arg(long, default_value_t = 0.02, value_name = "SHARE")]
    pub(in crate::cli) change_rate: f64,
    /// Makes a commit every so often, such as 30s, 10m, 4h. With each of them 4 hours pass at the school.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(in crate::cli) commit_every: Option<Duration>,
    /// Rows per object.
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    pub(in crate::cli) rows_per_object: u64,
    /// Keeps encoded objects in this folder for the next time.
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) cache: Option<PathBuf>,
    /// Limits calls per minute as the real service does (5 lists, 500 schemas, 5 job starts, 500 polls, 200 URL calls).
    #[arg(long)]
    pub(in crate::cli) limits: bool,
    /// Switches a fault on; `--fault list` names them. May be repeated.
    #[arg(long, value_name = "NAME[:ARG]")]
    pub(in crate::cli) fault: Vec<String>,
}
