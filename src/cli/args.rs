//! What may be typed: commands, flags, environment names, help texts. It checks words, not their meaning.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, Resettable, TypedValueParser};
use clap::{Arg, Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::cli::values::moment::Moment;
use crate::model::Format;
use crate::redact::Secret;

/// The default address of the service.
pub(super) const DEFAULT_BASE_URL: &str = "https://api-gateway.instructure.com";

/// What `--version` says under the name `dap`: scripts look for the version of the official client that we stand in for.
const DAP_VERSION: &str = "2.3.1";

/// daplake: keeps a copy of your DAP (Canvas Data 2) tables right.
#[derive(Debug, Parser)]
#[command(name = "daplake", version, about, long_about = None, max_term_width = 110, disable_version_flag = true)]
#[command(
    after_help = "First steps, without an account:  daplake demo\nWith an API key:  DAP_CLIENT_ID=... DAP_CLIENT_SECRET=... daplake sync --target ./lake --table accounts,users\nAll commands of the official client `dap` work as they do there, also through a link of that name."
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: GlobalArgs,
    /// Prints the version.
    #[arg(long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

const GLOBAL: &str = "Global options (before or after the command)";

/// Options of all commands; they may stand before or after the command.
#[derive(Debug, Args)]
pub(super) struct GlobalArgs {
    /// Address of the DAP gateway.
    #[arg(
        long,
        global = true,
        env = "DAP_API_URL",
        hide_env_values = true,
        default_value = DEFAULT_BASE_URL,
        value_name = "URL",
        help_heading = GLOBAL
    )]
    pub(super) base_url: String,
    /// Client id of the API key, such as `us-east-1#0123...` (quote it: `#` begins a comment in many places).
    #[arg(
        long,
        global = true,
        env = "DAP_CLIENT_ID",
        hide_env_values = true,
        allow_hyphen_values = true,
        value_name = "CLIENTID",
        help_heading = GLOBAL
    )]
    pub(super) client_id: Option<String>,
    /// Client secret of the API key. Prefer the environment variable: arguments can be seen by other users of the machine.
    #[arg(
        long,
        global = true,
        env = "DAP_CLIENT_SECRET",
        hide_env_values = true,
        allow_hyphen_values = true,
        value_name = "CLIENTSECRET",
        value_parser = |text: &str| Ok::<_, std::convert::Infallible>(Secret::new(text)),
        help_heading = GLOBAL
    )]
    pub(super) client_secret: Option<Secret>,
    /// Least severe log line that is written.
    #[arg(long, global = true, value_enum, default_value_t = LogLevel::Info, value_name = "LEVEL", help_heading = GLOBAL)]
    pub(super) loglevel: LogLevel,
    /// Appends log lines to this file.
    #[arg(long, global = true, value_name = "LOGFILE", help_heading = GLOBAL)]
    pub(super) logfile: Option<PathBuf>,
    /// Log lines as text or as JSON objects, one per line.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Plain, value_name = "FORMAT", help_heading = GLOBAL)]
    pub(super) logformat: LogFormat,
    /// With --non-interactive: no log lines on standard error.
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(super) no_log_to_console: bool,
    /// For scripts: data on standard output, log lines on standard error, no progress.
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(super) non_interactive: bool,
    /// Accepted and ignored, like the variable DAP_TRACKING: daplake tracks nothing.
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(super) no_tracking: bool,
    /// Colours on a terminal; NO_COLOR switches them off.
    #[arg(
        long,
        global = true,
        value_enum,
        env = "DAP_CONSOLE_THEME",
        default_value_t = Theme::Dark,
        value_name = "THEME",
        help_heading = GLOBAL
    )]
    pub(super) console_theme: Theme,
    /// Extra root certificates in PEM form, for networks that inspect TLS.
    #[arg(long, global = true, env = "DAP_CA_BUNDLE", value_name = "FILE", help_heading = GLOBAL)]
    pub(super) ca_bundle: Option<PathBuf>,
    /// Settings file (see `daplake init`) [default: ./daplake.toml, else that of your user, such as ~/.config/daplake/daplake.toml].
    #[arg(long, global = true, env = "DAPLAKE_SETTINGS", value_name = "FILE", help_heading = GLOBAL)]
    pub(super) settings: Option<PathBuf>,
    /// Our own limits of calls per minute, where your account has others than the usual ones: job-status=500, table-lists=5,
    /// schemas=500, object-urls=200; 0 for no limit. Job starts have --jobs-per-minute.
    #[arg(
        long,
        global = true,
        value_delimiter = ',',
        value_name = "KIND=N",
        value_parser = crate::cli::settings::resolve::parse_pace,
        hide_short_help = true,
        help_heading = GLOBAL
    )]
    pub(super) pacing: Vec<crate::cli::settings::resolve::Pace>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogLevel {
    Debug,
    Info,
    Warning,
    Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Plain,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Theme {
    Dark,
    Light,
    HighContrastBw,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a settings file to begin with.
    #[cfg(feature = "lake")]
    Init(crate::cli::commands::init_and_check::InitArgs),
    /// Try credentials, targets, folders and the clock without changing anything.
    #[cfg(feature = "lake")]
    Check(Box<crate::cli::commands::init_and_check::CheckArgs>),
    /// Create or update tables at a target.
    #[cfg(feature = "lake")]
    Sync(Box<SyncArgs>),
    /// Show what a target holds: rows, data as of, age, schema version, files, bytes.
    #[cfg(feature = "lake")]
    Status(StatusArgs),
    /// Run SQL over the tables of a target.
    #[cfg(feature = "lake")]
    Query(QueryArgs),
    /// Merge small files of lake tables and drop rows that are marked as deleted.
    #[cfg(feature = "lake")]
    Optimize(OptimizeArgs),
    /// Remove files of lake tables that are no longer needed.
    #[cfg(feature = "lake")]
    Vacuum(VacuumArgs),
    /// Compare lake tables with fresh snapshots and name the keys that differ.
    #[cfg(feature = "lake")]
    Verify(VerifyArgs),
    /// Show what happened to a lake table, commit by commit.
    #[cfg(feature = "lake")]
    History(HistoryArgs),
    /// Download the present state of tables as files.
    Snapshot(SnapshotArgs),
    /// Download the changes of tables since a time as files.
    Incremental(IncrementalArgs),
    /// List the tables of a namespace.
    List(ListArgs),
    /// Load tables into a database for the first time.
    #[cfg(feature = "sql")]
    Initdb(DbLoadArgs),
    /// Bring tables of a database up to date.
    #[cfg(feature = "sql")]
    Syncdb(SyncdbArgs),
    /// Remove tables from a database.
    #[cfg(feature = "sql")]
    Dropdb(DropdbArgs),
    /// List what a database holds of a namespace.
    #[cfg(feature = "sql")]
    Listdb(ListdbArgs),
    /// Save the schemas of tables as JSON files.
    Schema(SchemaArgs),
    /// Try everything with a made-up school: no account, no network.
    #[cfg(all(feature = "lake", feature = "demo"))]
    Demo(DemoArgs),
    /// Run the embedded DAP server alone.
    #[cfg(feature = "demo")]
    Serve(ServeArgs),
    /// Run the scheduler of a cluster.
    #[cfg(feature = "cluster")]
    Scheduler(crate::cli::commands::cluster::SchedulerArgs),
    /// Run an executor of a cluster.
    #[cfg(feature = "cluster")]
    Executor(crate::cli::commands::cluster::ExecutorArgs),
    /// Print the completion script of a shell.
    Completions(CompletionsArgs),
    /// Print a manual page.
    Man(ManArgs),
}

#[cfg(feature = "lake")]
impl Command {
    /// The options for single tables.
    pub(super) fn table_args(&mut self) -> Option<&mut TableArgs> {
        match self {
            Command::Sync(args) => Some(&mut args.tables),
            Command::Check(args) => Some(&mut args.tables),
            _ => None,
        }
    }

    /// The address of the target, as it was given.
    pub(super) fn address(&self) -> Option<&str> {
        match self {
            Command::Check(args) => args.target.target.as_deref(),
            Command::Sync(args) => args.target.target.as_deref(),
            Command::Status(args) => args.target.target.as_deref(),
            Command::Query(args) => args.target.target.as_deref(),
            Command::Optimize(args) => args.target.target.as_deref(),
            Command::Vacuum(args) => args.target.target.as_deref(),
            Command::Verify(args) => args.target.target.as_deref(),
            Command::History(args) => args.target.target.as_deref(),
            Command::Schema(args) => args.ddl.target.as_deref().filter(|_| args.ddl.ddl.is_some()),
            #[cfg(feature = "sql")]
            Command::Initdb(args) => args.connection.address(),
            #[cfg(feature = "sql")]
            Command::Syncdb(args) => args.load.connection.address(),
            #[cfg(feature = "sql")]
            Command::Dropdb(args) => args.connection.address(),
            #[cfg(feature = "sql")]
            Command::Listdb(args) => args.connection.address(),
            _ => None,
        }
    }
}

/// The one namespace of the commands that the official client has.
#[derive(Debug, Args)]
pub(super) struct NamespaceArgs {
    /// Namespace: canvas, canvas_logs, catalog or new_quizzes.
    #[arg(long, value_name = "NAMESPACE", allow_hyphen_values = true)]
    pub(super) namespace: String,
}

#[derive(Debug, Args)]
pub(super) struct TablesArgs {
    /// Tables: one name, a list with commas between, or `all`.
    #[arg(long, value_name = "TABLE", allow_hyphen_values = true)]
    pub(super) table: String,
}

/// The database of the commands that the official client has.
#[cfg(feature = "sql")]
#[derive(Debug, Args)]
pub(super) struct ConnectionArgs {
    /// Database, as postgresql://user:password@host:port/database?ssl=require.
    #[arg(
        long,
        env = "DAP_CONNECTION_STRING",
        hide_env_values = true,
        value_name = "DBCONNSTR",
        allow_hyphen_values = true,
        value_parser = |text: &str| Ok::<_, std::convert::Infallible>(Secret::new(text))
    )]
    pub(super) connection_string: Option<Secret>,
}

#[cfg(feature = "sql")]
impl ConnectionArgs {
    fn address(&self) -> Option<&str> {
        self.connection_string.as_ref().map(Secret::reveal).filter(|text| !text.is_empty())
    }
}

#[cfg(feature = "sql")]
#[derive(Debug, Args)]
#[command(
    after_help = "Layout, types and book-keeping are those of the official client: either can go on where the other stopped. Each table is one transaction.\n\nExit codes: 0 all done; 2 wrong usage; 5 something failed; 38 not supported; 125 interrupted."
)]
pub(super) struct DbLoadArgs {
    #[command(flatten)]
    pub(super) namespace: NamespaceArgs,
    #[command(flatten)]
    pub(super) tables: TablesArgs,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
    /// What to do when the service no longer gives increments since the last run.
    #[arg(long, value_enum, default_value_t = OnSnapshotRequired::Fail, value_name = "POLICY", help_heading = EXTRAS)]
    pub(super) on_snapshot_required: OnSnapshotRequired,
    /// Job starts per minute, as the service allows them; 0 for no limit of our own.
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = EXTRAS)]
    pub(super) jobs_per_minute: u32,
    /// Tables to leave out: names or patterns with commas between; `--table` takes patterns such as 'user*', too.
    #[arg(long, value_delimiter = ',', value_name = "TABLES", help_heading = EXTRAS)]
    pub(super) exclude: Vec<String>,
    #[command(flatten)]
    pub(super) values: DatabaseArgs,
    #[command(flatten)]
    pub(super) times: TimeArgs,
    #[command(flatten, next_help_heading = EXTRAS)]
    pub(super) engine: EngineArgs,
}

#[cfg(feature = "sql")]
#[derive(Debug, Args)]
#[command(
    after_help = "Layout, types and book-keeping are those of the official client: either can go on where the other stopped. Each table is one transaction.\n\nExit codes: 0 all done; 2 wrong usage; 5 something failed; 38 not supported; 125 interrupted."
)]
pub(super) struct SyncdbArgs {
    #[command(flatten)]
    pub(super) load: DbLoadArgs,
    /// Initialises tables that the database does not hold yet, instead of failing them.
    #[arg(long, help_heading = EXTRAS)]
    pub(super) init_missing: bool,
}

/// Choices for times.
#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(super) struct TimeArgs {
    /// Times and dates outside the years 1 to 9999: fail the table, or let them become null.
    #[arg(long, value_enum, default_value_t = OutOfRangeArg::Fail, value_name = "POLICY", help_heading = EXTRAS)]
    pub(super) out_of_range_times: OutOfRangeArg,
}

#[cfg(feature = "lake")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OutOfRangeArg {
    Fail,
    Null,
}

#[cfg(feature = "lake")]
impl TimeArgs {
    pub(super) fn policy(&self) -> crate::ops::OutOfRange {
        match self.out_of_range_times {
            OutOfRangeArg::Fail => crate::ops::OutOfRange::Fail,
            OutOfRangeArg::Null => crate::ops::OutOfRange::Null,
        }
    }
}

/// Choices for databases.
#[cfg(feature = "sql")]
#[derive(Debug, Args)]
pub(super) struct DatabaseArgs {
    /// Databases without NaN and infinity: fail the table, or let such numbers become null.
    #[arg(long, value_enum, default_value_t = NonFiniteArg::Fail, value_name = "POLICY", help_heading = EXTRAS)]
    pub(super) non_finite: NonFiniteArg,
    /// Databases: drop columns that are gone upstream, which are kept without new values otherwise.
    #[arg(long, help_heading = EXTRAS)]
    pub(super) drop_removed_columns: bool,
    /// Databases: tables that may be taken over although they hold rows that the bookkeeping does not know; all their rows are
    /// replaced.
    #[arg(long, value_delimiter = ',', value_name = "TABLES", help_heading = EXTRAS)]
    pub(super) adopt: Vec<String>,
}

#[cfg(feature = "sql")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum NonFiniteArg {
    Fail,
    Null,
}

#[cfg(feature = "sql")]
#[derive(Debug, Args)]
#[command(after_help = "`all` means all tables of the namespace that the database holds. The service is not asked.")]
pub(super) struct DropdbArgs {
    #[command(flatten)]
    pub(super) namespace: NamespaceArgs,
    #[command(flatten)]
    pub(super) tables: TablesArgs,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

#[cfg(feature = "sql")]
#[derive(Debug, Args)]
pub(super) struct ListdbArgs {
    #[command(flatten)]
    pub(super) namespace: NamespaceArgs,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
    /// Leaves out tables that the database does not hold.
    #[arg(long)]
    pub(super) omit_not_replicated: bool,
    /// Does not count rows.
    #[arg(long)]
    pub(super) omit_record_count: bool,
}

#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// Folder for the files; made when absent.
    #[arg(long, value_name = "DIR", default_value = "downloads", allow_hyphen_values = true)]
    pub(super) output_directory: PathBuf,
}

/// What `snapshot` and `incremental` have in common.
#[derive(Debug, Args)]
pub(super) struct DownloadArgs {
    #[command(flatten)]
    pub(super) namespace: NamespaceArgs,
    #[command(flatten)]
    pub(super) tables: TablesArgs,
    /// Format of the files: tsv, csv, jsonl (these are gzip files) or parquet.
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "jsonl",
        value_parser = PossibleValuesParser::new(Format::ALL.map(Format::as_str)).try_map(|word| word.parse::<Format>())
    )]
    pub(super) format: Format,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    /// Unpacks text formats while they are written.
    #[arg(long, help_heading = EXTRAS, conflicts_with = "convert")]
    pub(super) decompress: bool,
    /// Writes text formats as Parquet (zstd) while they come, with the types of the table's schema.
    #[arg(long, value_name = "FORMAT", value_enum, help_heading = EXTRAS)]
    pub(super) convert: Option<ConvertTo>,
    /// Objects that are downloaded at once, of all tables together.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256), help_heading = EXTRAS)]
    pub(super) concurrency: u16,
    /// Job starts per minute, as the service allows them; 0 for no limit of our own.
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = EXTRAS)]
    pub(super) jobs_per_minute: u32,
    /// Begins anew: forgets what an interrupted run has reached and downloads every file again.
    #[arg(long, help_heading = EXTRAS)]
    pub(super) fresh: bool,
    /// Folder in which runs note what they have reached, so that an interrupted one can be continued [default: by the
    /// conventions of the system, such as ~/.local/state/daplake].
    #[arg(long, value_name = "DIR", env = "DAPLAKE_STATE_DIR", help_heading = EXTRAS)]
    pub(super) state_dir: Option<PathBuf>,
}

const EXTRAS: &str = "Options beyond those of the official client";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ConvertTo {
    Parquet,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Files appear in <output-directory>/job_<job id>/ when all of them are complete and checked; an interrupted run is continued by the same command.\n\nExamples:\n  daplake snapshot --namespace canvas --table users,accounts --format csv\n  daplake snapshot --namespace canvas --table all --convert parquet --output-directory out\n\nExit codes: 0 all done; 2 wrong usage; 5 something failed; 38 not supported; 125 interrupted."
)]
pub(super) struct SnapshotArgs {
    #[command(flatten)]
    pub(super) download: DownloadArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Times are ISO 8601, such as 2026-01-31T09:30:00Z; one without offset is in the time zone of this machine. The time for the next --since is `at` (of a snapshot) or `until` (of an increment) in the log line of the job, and `next_since` in .daplake-manifest.json beside the files. The service refreshes its data every 4 hours.\n\nExample:\n  daplake incremental --namespace canvas --table users --since 2026-01-31T09:30:00Z\n\nExit codes: 0 all done; 2 wrong usage; 5 something failed; 38 not supported; 125 interrupted."
)]
pub(super) struct IncrementalArgs {
    #[command(flatten)]
    pub(super) download: DownloadArgs,
    /// Changes after this time; it should be the end of the last result.
    #[arg(long, value_name = "DATETIME", value_parser = crate::cli::values::moment::parse_moment, allow_hyphen_values = true)]
    pub(super) since: Moment,
    /// Changes up to this time [default: the newest].
    #[arg(long, value_name = "DATETIME", value_parser = crate::cli::values::moment::parse_moment, allow_hyphen_values = true)]
    pub(super) until: Option<Moment>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  daplake --non-interactive list --namespace canvas | grep user")]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub(super) namespace: NamespaceArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "A schema is saved as <output-directory>/<table>_schema_version_<n>.json. With --ddl or --erd nothing is saved: statements or a diagram are printed.\n\nExamples:\n  daplake schema --namespace canvas --table all --output-directory schemas\n  daplake schema --namespace canvas --table all --ddl duckdb --target ./lake > views.sql\n  daplake schema --namespace canvas --table all --erd html --erd-source documentation > diagram.html"
)]
pub(super) struct SchemaArgs {
    #[command(flatten)]
    pub(super) namespace: NamespaceArgs,
    #[command(flatten)]
    pub(super) tables: TablesArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    #[cfg(feature = "lake")]
    #[command(flatten)]
    pub(super) ddl: DdlArgs,
    #[command(flatten)]
    pub(super) erd: ErdArgs,
}

#[derive(Debug, Args)]
pub(super) struct ErdArgs {
    /// Prints a diagram of the tables and their relations instead of saving schemas: for Mermaid, for Graphviz, or a page of its own
    /// with search and zoom. --namespace then takes a comma list or `all`, --table patterns as well.
    #[arg(long, value_enum, value_name = "FORM", help_heading = EXTRAS)]
    pub(super) erd: Option<ErdForm>,
    /// With --erd mermaid or dot: only keys and columns that refer, or all.
    #[arg(long, value_enum, default_value_t = ErdColumns::Keys, value_name = "WHICH", help_heading = EXTRAS)]
    pub(super) erd_columns: ErdColumns,
    /// With --erd: schemas as the service has them now, or those of the documentation that come with daplake, without any call.
    #[arg(long, value_enum, default_value_t = ErdSource::Service, value_name = "SOURCE", help_heading = EXTRAS)]
    pub(super) erd_source: ErdSource,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ErdForm {
    Mermaid,
    Dot,
    Html,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ErdColumns {
    Keys,
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ErdSource {
    Service,
    Documentation,
}

#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(super) struct DdlArgs {
    /// Prints statements instead of saving schemas: views or external tables over the tables of --target for an engine, or the
    /// tables of a database.
    #[arg(long, value_enum, value_name = "ENGINE", help_heading = EXTRAS)]
    pub(super) ddl: Option<DdlEngine>,
    /// With --ddl for an engine: the folder or URL that holds the tables.
    #[arg(long, env = "DAPLAKE_TARGET", hide_env_values = true, value_name = "TARGET", help_heading = EXTRAS)]
    pub(super) target: Option<String>,
    /// With --ddl for an engine: how the tables are kept.
    #[arg(long, value_enum, default_value_t = DdlFormat::Delta, value_name = "FORMAT", help_heading = EXTRAS)]
    pub(super) table_format: DdlFormat,
    /// With --ddl for an engine: how nested columns are kept.
    #[arg(long, value_enum, default_value_t = NestedArg::Typed, value_name = "FORM", help_heading = EXTRAS)]
    pub(super) nested: NestedArg,
}

#[cfg(feature = "lake")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DdlEngine {
    Duckdb,
    Athena,
    Spark,
    Snowflake,
    #[cfg(feature = "sql")]
    Postgresql,
    #[cfg(feature = "sql")]
    Mysql,
    #[cfg(feature = "sql")]
    Mssql,
}

#[cfg(feature = "lake")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DdlFormat {
    Delta,
    Parquet,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  daplake completions bash > ~/.local/share/bash-completion/completions/daplake")]
pub(super) struct CompletionsArgs {
    /// bash, zsh, fish, elvish or powershell.
    #[arg(value_enum)]
    pub(super) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  daplake man sync > daplake-sync.1")]
pub(super) struct ManArgs {
    /// Page of this command; without it, the page of the program.
    pub(super) command: Option<String>,
}

/// The definition of the command line, as it is called here and now: under which name, and with which variables. An empty
/// variable counts as unset.
pub(super) fn definition(name: &'static str) -> clap::Command {
    let version = if name == "dap" { DAP_VERSION } else { env!("CARGO_PKG_VERSION") };
    // As in the official client, the last of several values of an option counts.
    Cli::command()
        .name(name)
        .bin_name(name)
        .version(version)
        .args_override_self(true)
        .mut_args(without_empty)
        .mut_subcommands(|command| command.args_override_self(true).mut_args(without_empty))
}

fn without_empty(arg: Arg) -> Arg {
    let is_empty = arg.get_env().is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()));
    if is_empty { arg.env(Resettable::<clap::builder::OsStr>::Reset) } else { arg }
}

/// Which tables.
#[derive(Debug, Args)]
pub(super) struct SelectionArgs {
    /// Namespaces: `canvas`, `canvas_logs`, `catalog`, `new_quizzes`, a comma list, or `all` that the account has.
    #[arg(long, value_delimiter = ',', default_value = "canvas", value_name = "NAMESPACE")]
    pub(super) namespace: Vec<String>,
    /// Tables: `all`, a comma list, patterns with `*` and `?`; `namespace.table` to be exact.
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "TABLE")]
    pub(super) table: Vec<String>,
    /// Tables to leave out: a comma list, patterns as above.
    #[arg(long, value_delimiter = ',', value_name = "TABLE")]
    pub(super) exclude: Vec<String>,
}

/// The place where tables are kept.
#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    /// Folder that holds the Delta tables, as `<target>/<namespace>/<table>`; an object store, as s3://bucket/prefix,
    /// az://container/prefix or gs://bucket/prefix; or a database, as postgresql://user:password@host:port/database?ssl=require.
    #[arg(long, env = "DAPLAKE_TARGET", hide_env_values = true, value_name = "TARGET")]
    pub(super) target: Option<String>,
    /// Targets of the settings file, by name [default: `sync` takes all of them, other commands the only one].
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub(super) to: Vec<String>,
    /// Form of tables in folders and object stores: Delta tables, or plain Parquet files that any reader can read with `*.parquet`
    /// [default: the form that is there; Delta tables for a new target].
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(super) format: Option<LakeFormatArg>,
    /// Option of an object store, such as region=eu-central-1, endpoint=https://host:9000, addressing=path or profile=lake; may be
    /// repeated. Credentials come from the usual variables (AWS_*, AZURE_*, GOOGLE_*), profiles and roles.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) store_option: Vec<String>,
}

#[cfg(feature = "lake")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LakeFormatArg {
    Delta,
    Parquet,
}

/// Limits of the engine.
#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(super) struct EngineArgs {
    /// Memory that sorting and reducing may hold before they spill to disk, such as 256MiB or 2GB [default: a quarter of the machine or container, at least 256MiB; 24MiB where the target is a database].
    #[arg(long, env = "DAPLAKE_MEMORY_LIMIT", value_name = "BYTES", value_parser = crate::cli::settings::memory::parse_limit)]
    pub(super) memory_limit: Option<u64>,
    /// Folder for spill files and staged objects [default: the system's folder for temporary files].
    #[arg(long, env = "DAPLAKE_TEMP_DIR", value_name = "DIR")]
    pub(super) temp_dir: Option<PathBuf>,
}

#[cfg(feature = "lake")]
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  daplake sync --target ./lake\n  daplake sync --target ./lake --namespace canvas,canvas_logs --exclude 'content_*'\n\nExit codes: 0 all tables are right; 2 wrong usage; 5 at least one table failed; 38 not supported; 125 interrupted."
)]
pub(super) struct SyncArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    #[command(flatten)]
    pub(super) selection: SelectionArgs,
    #[command(flatten)]
    pub(super) engine: EngineArgs,
    #[command(flatten)]
    pub(super) lake: LakeArgs,
    #[command(flatten)]
    pub(super) tables: TableArgs,
    /// Take new snapshots even where increments would do.
    #[arg(long)]
    pub(super) resnapshot: bool,
    /// What to do when the service no longer gives increments since the bookmark.
    #[arg(long, value_enum, default_value_t = OnSnapshotRequired::Resnapshot, value_name = "POLICY")]
    pub(super) on_snapshot_required: OnSnapshotRequired,
    #[cfg(feature = "sql")]
    #[command(flatten)]
    pub(super) database: DatabaseArgs,
    #[command(flatten)]
    pub(super) times: TimeArgs,
    /// Format in which objects are downloaded: jsonl, csv, tsv or parquet.
    #[arg(long, default_value = "jsonl", value_name = "FORMAT")]
    pub(super) download_format: crate::model::Format,
    /// Nested objects and arrays as typed columns or as JSON text.
    #[arg(long, value_enum, default_value_t = NestedArg::Typed)]
    pub(super) nested: NestedArg,
    /// Sets rows that cannot be read aside in this file (JSON lines, with the row itself) and goes on; without it such a row fails its table.
    #[arg(long, value_name = "FILE")]
    pub(super) bad_rows: Option<PathBuf>,
    /// Tables that are loaded at once.
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub(super) concurrency: usize,
    /// Job starts per minute; 0 for no limit of our own.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub(super) jobs_per_minute: u32,
    /// Writes the run report as JSON to this file, also when the run cannot start; a list of them when several targets are kept.
    /// `-` is standard output, which then has nothing else.
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    #[command(flatten)]
    pub(super) unattended: crate::cli::observability::watch::UnattendedArgs,
    #[command(flatten)]
    pub(super) telling: TellingArgs,
    #[command(flatten)]
    pub(super) limits: LimitArgs,
    #[cfg(feature = "cluster")]
    #[command(flatten)]
    pub(super) cluster: crate::cli::commands::cluster::ClusterArgs,
}

/// Who is told of runs. A notification that does not arrive never changes how a run ends.
#[cfg(feature = "lake")]
#[derive(Debug, Clone, Args)]
pub(super) struct TellingArgs {
    /// Posts how a run ended to this webhook. The address is a secret: prefer the variable.
    #[arg(
        long,
        env = "DAPLAKE_NOTIFY",
        hide_env_values = true,
        value_name = "URL",
        value_parser = |text: &str| Ok::<_, std::convert::Infallible>(Secret::new(text))
    )]
    pub(super) notify: Option<Secret>,
    /// What the webhook understands: JSON with all that is known of the run, or a message for Slack and its kin.
    #[arg(long, value_enum, default_value_t = NotifyFormArg::Json, value_name = "FORM")]
    pub(super) notify_form: NotifyFormArg,
    /// Runs this command by the shell when a run ended, with the run as JSON on its standard input and without our credentials.
    #[arg(long, value_name = "COMMAND")]
    pub(super) notify_command: Option<String>,
    /// When to tell: after every run, when other things fail than after the run before, or after runs with failures.
    #[arg(long, value_enum, default_value_t = NotifyOnArg::Failure, value_name = "WHEN")]
    pub(super) notify_on: NotifyOnArg,
    /// Serves figures for Prometheus at http://ADDRESS/metrics while it runs, such as 127.0.0.1:9184.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) metrics_listen: Option<std::net::SocketAddr>,
}

#[cfg(feature = "lake")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum NotifyFormArg {
    Json,
    Slack,
}

#[cfg(feature = "lake")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum NotifyOnArg {
    Always,
    Change,
    Failure,
}

/// What a hostile or broken answer may cost at most.
#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(super) struct LimitArgs {
    /// Longest line of an object; a longer one fails its table.
    #[arg(long, default_value = "256MiB", value_name = "BYTES", value_parser = crate::cli::settings::resolve::parse_bytes)]
    pub(super) max_line: u64,
    /// Largest ratio of unpacked to packed bytes of an object, beyond its first GiB.
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_unpack_ratio: u64,
    /// Largest size of one object, as it is stored and as it is read (Parquet: decoded).
    #[arg(long, default_value = "1TiB", value_name = "BYTES", value_parser = crate::cli::settings::resolve::parse_bytes)]
    pub(super) max_object: u64,
}

/// What becomes of single tables.
#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(super) struct TableArgs {
    /// Columns to take, as table.column with `*` and `?` in either part, such as users.name; of tables that are named so, no
    /// other columns are taken but the key. A comma list; may be repeated.
    #[arg(long, value_delimiter = ',', value_name = "TABLE.COLUMN", help_heading = TABLES)]
    pub(super) column: Vec<String>,
    /// Columns to leave out, written alike, such as 'users.*_email' or '*.sis_user_id'. They are not even decoded.
    #[arg(long, value_delimiter = ',', value_name = "TABLE.COLUMN", help_heading = TABLES)]
    pub(super) drop_column: Vec<String>,
    /// Columns to replace by a keyed hash (HMAC-SHA256, 64 hexadecimal digits), written alike; key columns, too. The key comes from
    /// the variable DAPLAKE_HASH_KEY or from --hash-key-file.
    #[arg(long, value_delimiter = ',', value_name = "TABLE.COLUMN", help_heading = TABLES)]
    pub(super) hash_column: Vec<String>,
    #[command(flatten)]
    pub(super) key: HashKeyArgs,
    /// What a delete does to a row of a lake table: `remove` takes it out, `mark` leaves it with true in the column `_deleted`
    /// [default: as the table is; new ones: remove]. For all tables, or as table=mark for some; may be repeated.
    #[arg(long, value_name = "[TABLE=]WHAT", help_heading = TABLES)]
    pub(super) deletes: Vec<String>,
    /// Which rows a lake table keeps: `current` one per key as it is now, `changes` every change that was seen, `history` every
    /// version of every row with the time it was valid. Cannot be changed later [default: as the table is; new ones: current]. For
    /// all tables, or as table=history for some; may be repeated.
    #[arg(long, value_name = "[TABLE=]MODE", help_heading = TABLES)]
    pub(super) mode: Vec<String>,
    /// Partitions of new lake tables by a time or date, as table=day(column), month or year, such as
    /// 'submissions=month(submitted_at)'; web_logs is partitioned by day(timestamp) by itself, unless as web_logs=none. May be
    /// repeated.
    #[arg(long, value_name = "TABLE=UNIT(COLUMN)", help_heading = TABLES)]
    pub(super) partition_by: Vec<String>,
    /// Namespaces of other targets of the settings file, of which options may speak.
    #[arg(skip)]
    pub(super) elsewhere: Vec<String>,
}

#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(super) struct HashKeyArgs {
    /// File with the key for hashed columns, at least 16 bytes; line ends at its end do not count.
    #[arg(long, env = "DAPLAKE_HASH_KEY_FILE", value_name = "FILE", help_heading = TABLES)]
    pub(super) hash_key_file: Option<PathBuf>,
}

#[cfg(feature = "lake")]
const TABLES: &str = "Options for single tables";

/// How lake tables are written.
#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(super) struct LakeArgs {
    /// Marks rows of Delta files as deleted instead of writing the files anew: where it pays, in all files, or never. Tables with
    /// such marks need readers that know deletion vectors.
    #[arg(long, value_enum, default_value_t = DeletionVectorsArg::Auto, value_name = "WHEN")]
    pub(super) deletion_vectors: DeletionVectorsArg,
    /// Tells what each commit of a Delta table changed as rows (change data feed), from the next one on, or not any more. Tables
    /// stay as they are when this is not given. A commit then reads and writes the old rows as well.
    #[arg(long, value_enum, value_name = "SWITCH")]
    pub(super) change_data_feed: Option<SwitchArg>,
    /// What to do with an increment when another program changed rows of the table since the last load: fail, or load it with a
    /// warning. A new snapshot is always loaded.
    #[arg(long, value_enum, default_value_t = ForeignChangesArg::Fail, value_name = "POLICY")]
    pub(super) foreign_changes: ForeignChangesArg,
    /// Merges small files of a Delta table when a load leaves so many of them; 0 for never.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(super) compact_after: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SwitchArg {
    On,
    Off,
}

#[cfg(feature = "lake")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ForeignChangesArg {
    Fail,
    Warn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DeletionVectorsArg {
    Auto,
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OnSnapshotRequired {
    Fail,
    Resnapshot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum NestedArg {
    Typed,
    Json,
}

#[cfg(feature = "lake")]
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  daplake status --target ./lake\n  daplake status --target ./lake --html status.html\n\nRuns, and the failures of tables, are known from the state folder of the machine that ran them; the growth of lake tables from the lake itself, that of a database from the runs and from earlier calls of this command."
)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    /// Only these namespaces.
    #[arg(long, value_delimiter = ',', value_name = "NAMESPACE")]
    pub(super) namespace: Vec<String>,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = StatusOutput::Text)]
    pub(super) output: StatusOutput,
    /// Writes a page for people to this file: freshness, growth, runs, errors. It needs nothing but a browser.
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// Data older than this count as behind.
    #[arg(long, default_value = "12h", value_name = "TIME", value_parser = crate::cli::settings::resolve::parse_duration)]
    pub(super) current_for: std::time::Duration,
    /// Tells of so many runs, newest first [default: 5, for --html 20].
    #[arg(long, value_name = "N")]
    pub(super) runs: Option<usize>,
    /// Tells of so many loads of each table's past [default: 0, for --html 100].
    #[arg(long, value_name = "N")]
    pub(super) past: Option<usize>,
    #[command(flatten)]
    pub(super) state: StateArgs,
}

/// The folder that outlives runs.
#[derive(Debug, Args)]
pub(super) struct StateArgs {
    /// Folder in which runs note what they have reached, so that an interrupted one can be continued, and what `status` tells
    /// [default: by the conventions of the system, such as ~/.local/state/daplake].
    #[arg(long, value_name = "DIR", env = "DAPLAKE_STATE_DIR")]
    pub(super) state_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum StatusOutput {
    Text,
    Json,
}

#[cfg(feature = "lake")]
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  daplake query --target ./lake \"SELECT workflow_state, count(*) FROM canvas.users GROUP BY 1\"\n  daplake query --target ./lake --output parquet --output-file users.parquet \"SELECT id, name FROM users\"\n  daplake query --target ./lake          (a prompt, where it is built in)"
)]
pub(super) struct QueryArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    /// The statement. Tables are `namespace.table`; those of `canvas` also go by their bare names. `-` reads statements from standard
    /// input, as does no statement at all; on a terminal that begins a prompt, where it is built in.
    pub(super) sql: Option<String>,
    /// Reads the tables as they were: a version of the log (see `daplake history`), or a time such as 2026-01-31T09:30:00Z.
    #[arg(long, value_name = "VERSION|TIME")]
    pub(super) at: Option<String>,
    /// Form of the output: a table for people, CSV, JSON with one object per line, Parquet, or an Arrow file [default: by the ending of
    /// --output-file; else a table].
    #[arg(long, value_enum, value_name = "FORM")]
    pub(super) output: Option<QueryOutput>,
    /// Writes the answer to this file, whole or not at all, in the form of its ending: .csv, .json (one array), .jsonl, .parquet,
    /// .arrow, .txt.
    #[arg(long, value_name = "FILE")]
    pub(super) output_file: Option<PathBuf>,
    /// Writes so many rows of the answer; 0 for all [default: 40 of a table on a terminal, else all].
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<usize>,
    #[command(flatten)]
    pub(super) engine: EngineArgs,
    #[command(flatten)]
    pub(super) state: StateArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum QueryOutput {
    Table,
    Csv,
    #[value(alias = "jsonl")]
    Json,
    Parquet,
    Arrow,
}

/// Tables of a target.
#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(super) struct HeldTablesArgs {
    /// Namespaces: a comma list, or `all` that the target has.
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "NAMESPACE")]
    pub(super) namespace: Vec<String>,
    /// Tables: `all`, a comma list, patterns with `*` and `?`; `namespace.table` to be exact.
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "TABLE")]
    pub(super) table: Vec<String>,
    /// Tables to leave out: a comma list, patterns as above.
    #[arg(long, value_delimiter = ',', value_name = "TABLE")]
    pub(super) exclude: Vec<String>,
}

#[cfg(feature = "lake")]
#[derive(Debug, Args)]
#[command(
    after_help = "Rows stay the same, readers notice nothing. The replaced files stay for readers of older versions until `vacuum`.\n\nExample:\n  daplake optimize --target ./lake --table submissions --cluster"
)]
pub(super) struct OptimizeArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    #[command(flatten)]
    pub(super) tables: HeldTablesArgs,
    /// Also sorts files whose ranges of keys overlap into files that do not; this may write a whole table anew.
    #[arg(long)]
    pub(super) cluster: bool,
    #[command(flatten)]
    pub(super) engine: EngineArgs,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = StatusOutput::Text)]
    pub(super) output: StatusOutput,
}

#[cfg(feature = "lake")]
#[derive(Debug, Args)]
#[command(
    after_help = "Removed are files that were replaced, or left behind by a run that was killed, longer ago than the retention. Older versions can then no longer be read.\n\nExample:\n  daplake vacuum --target ./lake --retention 30d --dry-run"
)]
pub(super) struct VacuumArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    #[command(flatten)]
    pub(super) tables: HeldTablesArgs,
    /// Keeps what was needed within this time, such as 7d or 48h; 7 days at least.
    #[arg(long, default_value = "7d", value_name = "TIME", value_parser = crate::cli::settings::resolve::parse_retention)]
    pub(super) retention: std::time::Duration,
    /// Says what would be removed, and removes nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = StatusOutput::Text)]
    pub(super) output: StatusOutput,
}

#[cfg(feature = "lake")]
#[derive(Debug, Args)]
#[command(
    after_help = "Takes a snapshot of each table (and the changes since its bookmark, which are left out). Nothing is changed; what differs is repaired by `daplake sync --resnapshot`.\n\nExample:\n  daplake verify --target ./lake --table users,enrollments\n\nExit codes: 0 nothing differs; 5 something differs or failed."
)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    #[command(flatten)]
    pub(super) tables: HeldTablesArgs,
    /// Names so many of the keys that differ, per table.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(super) keys: usize,
    #[command(flatten)]
    pub(super) key: HashKeyArgs,
    /// Format in which objects are downloaded: jsonl, csv, tsv or parquet.
    #[arg(long, default_value = "jsonl", value_name = "FORMAT")]
    pub(super) download_format: crate::model::Format,
    /// Job starts per minute; 0 for no limit of our own.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub(super) jobs_per_minute: u32,
    #[command(flatten)]
    pub(super) engine: EngineArgs,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = StatusOutput::Text)]
    pub(super) output: StatusOutput,
}

#[cfg(feature = "lake")]
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  daplake history --target ./lake --table canvas.users")]
pub(super) struct HistoryArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    /// The table, as `namespace.table`; the namespace may be left out for `canvas`.
    #[arg(long, value_name = "TABLE")]
    pub(super) table: String,
    /// So many commits, newest first.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(super) limit: usize,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = StatusOutput::Text)]
    pub(super) output: StatusOutput,
}

#[cfg(all(feature = "lake", feature = "demo"))]
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Where the tables go; emptied first if an earlier demo made it.
    #[arg(long, default_value = "daplake-demo", value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// Rows of `submissions`; other tables follow in proportion.
    #[arg(long, default_value_t = 2000, value_name = "N", value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    pub(super) rows: u64,
    /// Another seed gives another school.
    #[arg(long, default_value_t = 7, value_name = "N")]
    pub(super) seed: u64,
}

#[cfg(feature = "demo")]
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  daplake serve --port 8080 --rows 100000 --commit-every 60s --fault throttle:3")]
pub(super) struct ServeArgs {
    /// Port on 127.0.0.1; 0 picks a free one.
    #[arg(long, default_value_t = 8765, value_name = "PORT")]
    pub(super) port: u16,
    /// Rows of `submissions`; other tables follow in proportion.
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    pub(super) rows: u64,
    /// Another seed gives another school.
    #[arg(long, default_value_t = 7, value_name = "N")]
    pub(super) seed: u64,
    /// Commits there are at the start. Between two commits lie 4 hours of the school's time.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(super) commits: u32,
    /// Time of the first commit, such as 2026-01-01T00:00:00Z, for the same data at every start [default: such that the last commit
    /// is of the last 4 hours].
    #[arg(long, value_name = "TIME")]
    pub(super) start: Option<crate::model::Timestamp>,
    /// Share of a table's rows that changes with each commit.
    #[arg(long, default_value_t = 0.02, value_name = "SHARE")]
    pub(super) change_rate: f64,
    /// Makes a commit every so often, such as 30s, 10m, 4h. With each of them 4 hours pass at the school.
    #[arg(long, value_name = "TIME", value_parser = crate::cli::settings::resolve::parse_duration)]
    pub(super) commit_every: Option<std::time::Duration>,
    /// Rows per object.
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    pub(super) rows_per_object: u64,
    /// Keeps encoded objects in this folder for the next time.
    #[arg(long, value_name = "DIR")]
    pub(super) cache: Option<PathBuf>,
    /// Limits calls per minute as the real service does (5 lists, 500 schemas, 5 job starts, 500 polls, 200 URL calls).
    #[arg(long)]
    pub(super) limits: bool,
    /// Switches a fault on; `--fault list` names them. May be repeated.
    #[arg(long, value_name = "NAME[:ARG]")]
    pub(super) fault: Vec<String>,
}
