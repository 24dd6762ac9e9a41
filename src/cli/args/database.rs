//! `initdb`, `syncdb`, `dropdb`, `listdb`, and the options of database targets.

use clap::{Args, ValueEnum};

use crate::cli::args::headings::EXTRAS;
use crate::cli::args::selection::{NamespaceArgs, OnSnapshotRequired, TablesArgs, TimeArgs};
use crate::cli::args::target::EngineArgs;
use crate::redact::Secret;

/// The database of the commands that the official client has.
#[derive(Debug, Args)]
pub(in crate::cli) struct ConnectionArgs {
    /// Database, as postgresql://user:password@host:port/database?ssl=require.
    #[arg(
        long,
        env = "DAP_CONNECTION_STRING",
        hide_env_values = true,
        value_name = "DBCONNSTR",
        allow_hyphen_values = true,
        value_parser = |text: &str| Ok::<_, std::convert::Infallible>(Secret::new(text))
    )]
    pub(in crate::cli) connection_string: Option<Secret>,
}

impl ConnectionArgs {
    pub(in crate::cli) fn address(&self) -> Option<&str> {
        self.connection_string.as_ref().map(Secret::reveal).filter(|text| !text.is_empty())
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "Layout, types and book-keeping are those of the official client: either can go on where the other stopped. Each table is one transaction.\n\nExit codes: 0 all done; 2 wrong usage; 5 something failed; 38 not supported; 125 interrupted."
)]
pub(in crate::cli) struct DbLoadArgs {
    #[command(flatten)]
    pub(in crate::cli) namespace: NamespaceArgs,
    #[command(flatten)]
    pub(in crate::cli) tables: TablesArgs,
    #[command(flatten)]
    pub(in crate::cli) connection: ConnectionArgs,
    /// What to do when the service no longer gives increments since the last run.
    #[arg(long, value_enum, default_value_t = OnSnapshotRequired::Fail, value_name = "POLICY", help_heading = EXTRAS)]
    pub(in crate::cli) on_snapshot_required: OnSnapshotRequired,
    /// Job starts per minute, as the service allows them; 0 for no limit of our own.
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = EXTRAS)]
    pub(in crate::cli) jobs_per_minute: u32,
    /// Tables to leave out: names or patterns with commas between; `--table` takes patterns such as 'user*', too.
    #[arg(long, value_delimiter = ',', value_name = "TABLES", help_heading = EXTRAS)]
    pub(in crate::cli) exclude: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) values: DatabaseArgs,
    #[command(flatten)]
    pub(in crate::cli) times: TimeArgs,
    #[command(flatten, next_help_heading = EXTRAS)]
    pub(in crate::cli) engine: EngineArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Layout, types and book-keeping are those of the official client: either can go on where the other stopped. Each table is one transaction.\n\nExit codes: 0 all done; 2 wrong usage; 5 something failed; 38 not supported; 125 interrupted."
)]
pub(in crate::cli) struct SyncdbArgs {
    #[command(flatten)]
    pub(in crate::cli) load: DbLoadArgs,
    /// Initialises tables that the database does not hold yet, instead of failing them.
    #[arg(long, help_heading = EXTRAS)]
    pub(in crate::cli) init_missing: bool,
}

/// Choices for databases.
#[derive(Debug, Args)]
pub(in crate::cli) struct DatabaseArgs {
    /// Databases without NaN and infinity: fail the table, or let such numbers become null.
    #[arg(long, value_enum, default_value_t = NonFiniteArg::Fail, value_name = "POLICY", help_heading = EXTRAS)]
    pub(in crate::cli) non_finite: NonFiniteArg,
    /// Databases: drop columns that are gone upstream, which are kept without new values otherwise.
    #[arg(long, help_heading = EXTRAS)]
    pub(in crate::cli) drop_removed_columns: bool,
    /// Databases: tables that may be taken over although they hold rows that the bookkeeping does not know; all their rows are
    /// replaced.
    #[arg(long, value_delimiter = ',', value_name = "TABLES", help_heading = EXTRAS)]
    pub(in crate::cli) adopt: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum NonFiniteArg {
    Fail,
    Null,
}

#[derive(Debug, Args)]
#[command(after_help = "`all` means all tables of the namespace that the database holds. The service is not asked.")]
pub(in crate::cli) struct DropdbArgs {
    #[command(flatten)]
    pub(in crate::cli) namespace: NamespaceArgs,
    #[command(flatten)]
    pub(in crate::cli) tables: TablesArgs,
    #[command(flatten)]
    pub(in crate::cli) connection: ConnectionArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ListdbArgs {
    #[command(flatten)]
    pub(in crate::cli) namespace: NamespaceArgs,
    #[command(flatten)]
    pub(in crate::cli) connection: ConnectionArgs,
    /// Leaves out tables that the database does not hold.
    #[arg(long)]
    pub(in crate::cli) omit_not_replicated: bool,
    /// Does not count rows.
    #[arg(long)]
    pub(in crate::cli) omit_record_count: bool,
}
