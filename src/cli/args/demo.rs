//! `demo` and `serve`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::values::duration::parse_duration;
use crate::model::Timestamp;

#[cfg(feature = "lake")]
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  daplake demo --rows 20000 --verbose")]
pub(in crate::cli) struct DemoArgs {
    /// Folder for the tables. A folder of an earlier demo is emptied first; any other must be empty.
    #[arg(long, default_value = "daplake-demo", value_name = "DIR")]
    pub(in crate::cli) dir: PathBuf,
    /// Number of rows in `submissions`; the other tables scale with it.
    #[arg(long, default_value_t = 2000, value_name = "N", value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    pub(in crate::cli) rows: u64,
    /// Seed of the generated data.
    #[arg(long, default_value_t = 7, value_name = "N")]
    pub(in crate::cli) seed: u64,
    /// Print a line for each table.
    #[arg(long)]
    pub(in crate::cli) verbose: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  daplake serve --port 8080 --rows 100000 --commit-every 60s --fault throttle:3")]
pub(in crate::cli) struct ServeArgs {
    /// Port on 127.0.0.1; 0 selects a free one.
    #[arg(long, default_value_t = 8765, value_name = "PORT")]
    pub(in crate::cli) port: u16,
    /// Number of rows in `submissions`; the other tables scale with it.
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    pub(in crate::cli) rows: u64,
    /// Seed of the generated data.
    #[arg(long, default_value_t = 7, value_name = "N")]
    pub(in crate::cli) seed: u64,
    /// Number of commits at the start; each covers 4 hours of the school's time.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(in crate::cli) commits: u32,
    /// Time of the first commit, such as 2026-01-01T00:00:00Z, for the same data at every start.
    ///
    /// By default, the last commit is less than 4 hours old.
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) start: Option<Timestamp>,
    /// Fraction of a table's rows that changes in each commit.
    #[arg(long, default_value_t = 0.02, value_name = "FRACTION")]
    pub(in crate::cli) change_rate: f64,
    /// Add a commit at this interval, such as 30s, 10m or 4h.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(in crate::cli) commit_every: Option<Duration>,
    /// Rows per object.
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    pub(in crate::cli) rows_per_object: u64,
    /// Cache encoded objects in this folder for the next start.
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) cache: Option<PathBuf>,
    /// Limit calls per minute like the real service.
    ///
    /// The limits are 5 table lists, 500 schemas, 5 job starts, 500 job polls and 200 requests for object URLs.
    #[arg(long)]
    pub(in crate::cli) limits: bool,
    /// Inject a fault; `--fault list` lists them; may be repeated.
    #[arg(long, value_name = "NAME[:ARG]")]
    pub(in crate::cli) fault: Vec<String>,
}
