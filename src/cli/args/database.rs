//! `initdb`, `syncdb`, `dropdb`, `listdb`, and the options of database targets.

use std::convert::Infallible;

use clap::Args;

use crate::cli::args::headings::{DATABASES, EXTRAS};
use crate::cli::args::selection::{NamespaceArgs, SchemaChangesArgs, TablesArgs, TimeArgs};
use crate::cli::args::target::EngineArgs;
use crate::cli::values::choices::choice;
use crate::ops::OnSnapshotRequired;
use crate::redact::Secret;
use crate::sink::sql::{DependentViews, NonFinite};

/// The database of a command of the official client.
#[derive(Debug, Args)]
pub(in crate::cli) struct ConnectionArgs {
    /// Database, as postgresql://user:password@host:port/database?ssl=require.
    #[arg(
        long,
        env = "DAP_CONNECTION_STRING",
        value_name = "DBCONNSTR",
        allow_hyphen_values = true,
        value_parser = |text: &str| Ok::<_, Infallible>(Secret::new(text))
    )]
    pub(in crate::cli) connection_string: Option<Secret>,
}

impl ConnectionArgs {
    /// The connection string, if there is one.
    pub(in crate::cli) fn address(&self) -> Option<&str> {
        self.connection_string.as_ref().map(Secret::reveal).filter(|text| !text.is_empty())
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "Tables, types and sync state are those of the official client, so each program can continue where the other stopped. Each table is one transaction.\n\nExample:\n  daplake initdb --namespace canvas --table users,accounts\n\nExit codes: 0 success; 2 wrong usage; 5 at least one table failed; 38 not supported; 125 interrupted."
)]
pub(in crate::cli) struct DbLoadArgs {
    #[command(flatten)]
    pub(in crate::cli) namespace: NamespaceArgs,
    #[command(flatten)]
    pub(in crate::cli) tables: TablesArgs,
    #[command(flatten)]
    pub(in crate::cli) connection: ConnectionArgs,
    /// What to do when the service no longer offers increments since the last run.
    #[arg(long, value_parser = choice::<OnSnapshotRequired>(), default_value = "fail", value_name = "POLICY", help_heading = EXTRAS)]
    pub(in crate::cli) on_snapshot_required: OnSnapshotRequired,
    #[command(flatten, next_help_heading = EXTRAS)]
    pub(in crate::cli) columns: SchemaChangesArgs,
    /// Maximum number of job starts per minute; 0 means unlimited.
    #[arg(long, value_name = "N", default_value_t = 5, hide_short_help = true, help_heading = EXTRAS)]
    pub(in crate::cli) jobs_per_minute: u32,
    /// Comma-separated tables or patterns to exclude; --table accepts patterns, too.
    #[arg(long, value_delimiter = ',', value_name = "TABLES", help_heading = EXTRAS)]
    pub(in crate::cli) exclude: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) values: DatabaseArgs,
    #[command(flatten)]
    pub(in crate::cli) times: TimeArgs,
    #[command(flatten)]
    pub(in crate::cli) engine: EngineArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Tables, types and sync state are those of the official client, so each program can continue where the other stopped. Each table is one transaction.\n\nExample:\n  daplake syncdb --namespace canvas --table all\n\nExit codes: 0 success; 2 wrong usage; 5 at least one table failed; 38 not supported; 125 interrupted."
)]
pub(in crate::cli) struct SyncdbArgs {
    #[command(flatten)]
    pub(in crate::cli) load: DbLoadArgs,
    /// Initialise missing tables instead of failing them.
    #[arg(long, help_heading = EXTRAS)]
    pub(in crate::cli) init_missing: bool,
}

/// A table or pattern and an SQL statement. The error does not repeat the text, which may hold secrets.
fn table_statement(text: &str) -> Result<(String, String), &'static str> {
    let (tables, statement) = text.split_once('=').ok_or("write it as TABLE=SQL")?;
    Ok((tables.trim().to_owned(), statement.trim().to_owned()))
}

/// Options of database targets.
#[derive(Debug, Args)]
pub(in crate::cli) struct DatabaseArgs {
    /// NaN and infinity in databases that cannot store them: fail the table, or store null.
    #[arg(
        long,
        value_parser = choice::<NonFinite>(),
        default_value = "fail",
        value_name = "POLICY",
        hide_short_help = true,
        help_heading = DATABASES
    )]
    pub(in crate::cli) non_finite: NonFinite,
    /// Drop columns that the service has removed, instead of keeping them without new values.
    #[arg(long, hide_short_help = true, help_heading = DATABASES)]
    pub(in crate::cli) drop_removed_columns: bool,
    /// Existing tables without a bookmark to take over; all their rows are replaced.
    #[arg(long, value_delimiter = ',', value_name = "TABLES", hide_short_help = true, help_heading = DATABASES)]
    pub(in crate::cli) adopt: Vec<String>,
    /// SQL to run after each load of a table in its transaction, such as 'users=CALL refresh_reports()'.
    ///
    /// The table is a name or a pattern. May be repeated; each value is one statement.
    #[arg(long, value_name = "TABLE=SQL", value_parser = table_statement, hide_short_help = true, help_heading = DATABASES)]
    pub(in crate::cli) after_sql: Vec<(String, String)>,
    /// PostgreSQL: what to do with views on a column that changes its type or is dropped.
    ///
    /// `recreate` drops and recreates them in the transaction of the load, `fail` fails the table.
    #[arg(
        long,
        value_parser = choice::<DependentViews>(),
        default_value = "recreate",
        value_name = "POLICY",
        hide_short_help = true,
        help_heading = DATABASES
    )]
    pub(in crate::cli) dependent_views: DependentViews,
}

#[derive(Debug, Args)]
#[command(after_help = "`--table all` drops all tables of the namespace that the database has. The service is not called.")]
pub(in crate::cli) struct DropdbArgs {
    #[command(flatten)]
    pub(in crate::cli) namespace: NamespaceArgs,
    #[command(flatten)]
    pub(in crate::cli) tables: TablesArgs,
    #[command(flatten)]
    pub(in crate::cli) connection: ConnectionArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  daplake listdb --namespace canvas --omit-not-replicated")]
pub(in crate::cli) struct ListdbArgs {
    #[command(flatten)]
    pub(in crate::cli) namespace: NamespaceArgs,
    #[command(flatten)]
    pub(in crate::cli) connection: ConnectionArgs,
    /// Omit tables that the database does not have.
    #[arg(long)]
    pub(in crate::cli) omit_not_replicated: bool,
    /// Do not count rows.
    #[arg(long)]
    pub(in crate::cli) omit_record_count: bool,
}
