//! Options of all commands.

use std::convert::Infallible;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::args::headings::GLOBAL;
use crate::cli::values::pacing::{Pace, parse_pace};
use crate::redact::Secret;

/// The default address of the service.
pub(in crate::cli) const DEFAULT_BASE_URL: &str = "https://api-gateway.instructure.com";

/// Options of all commands. They are accepted before and after the command.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct GlobalArgs {
    /// Client id of the API key.
    ///
    /// For example `us-east-1#0123...`. Put it in quotes: `#` begins a comment in shells, .env files and YAML.
    #[arg(
        long,
        global = true,
        env = "DAP_CLIENT_ID",
        allow_hyphen_values = true,
        value_name = "ID",
        help_heading = GLOBAL
    )]
    pub(in crate::cli) client_id: Option<String>,
    /// Client secret of the API key.
    ///
    /// Prefer the environment variable: other users of the machine can see the arguments of a process.
    #[arg(
        long,
        global = true,
        env = "DAP_CLIENT_SECRET",
        allow_hyphen_values = true,
        value_name = "SECRET",
        value_parser = |text: &str| Ok::<_, Infallible>(Secret::new(text)),
        help_heading = GLOBAL
    )]
    pub(in crate::cli) client_secret: Option<Secret>,
    /// Settings file (see `daplake init`).
    ///
    /// By default ./daplake.toml, or else daplake.toml in your configuration folder, such as ~/.config/daplake.
    #[arg(long, global = true, env = "DAPLAKE_SETTINGS", value_name = "FILE", help_heading = GLOBAL)]
    pub(in crate::cli) settings: Option<PathBuf>,
    /// Address of the DAP gateway.
    #[arg(
        long,
        global = true,
        env = "DAP_API_URL",
        default_value = DEFAULT_BASE_URL,
        value_name = "URL",
        hide_short_help = true,
        help_heading = GLOBAL
    )]
    pub(in crate::cli) base_url: String,
    /// PEM file with additional root certificates, for networks that inspect TLS.
    #[arg(long, global = true, env = "DAP_CA_BUNDLE", value_name = "FILE", hide_short_help = true, help_heading = GLOBAL)]
    pub(in crate::cli) ca_bundle: Option<PathBuf>,
    /// Minimum level of log messages.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t = LogLevel::Info,
        value_name = "LEVEL",
        hide_short_help = true,
        help_heading = GLOBAL
    )]
    pub(in crate::cli) loglevel: LogLevel,
    /// Append log lines to this file.
    #[arg(long, global = true, value_name = "LOGFILE", hide_short_help = true, help_heading = GLOBAL)]
    pub(in crate::cli) logfile: Option<PathBuf>,
    /// Format of log lines: text, or one JSON object per line.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t = LogFormat::Plain,
        value_name = "FORMAT",
        hide_short_help = true,
        help_heading = GLOBAL
    )]
    pub(in crate::cli) logformat: LogFormat,
    /// Print only failures.
    ///
    /// For cron, which mails all output. Requested data, such as the rows of `query`, is still printed. The log file still
    /// contains everything.
    #[arg(long, short = 'q', global = true, help_heading = GLOBAL)]
    pub(in crate::cli) quiet: bool,
    /// For scripts: data on standard output, log lines on standard error, no progress display.
    #[arg(long, global = true, hide_short_help = true, help_heading = GLOBAL)]
    pub(in crate::cli) non_interactive: bool,
    /// With --non-interactive: do not write log lines to standard error.
    #[arg(long, global = true, hide_short_help = true, help_heading = GLOBAL)]
    pub(in crate::cli) no_log_to_console: bool,
    /// Colours of the official client's commands on a terminal; NO_COLOR disables them.
    #[arg(
        long,
        global = true,
        value_enum,
        env = "DAP_CONSOLE_THEME",
        default_value_t = Theme::Dark,
        value_name = "THEME",
        hide_short_help = true,
        help_heading = GLOBAL
    )]
    pub(in crate::cli) console_theme: Theme,
    /// Limits on calls per minute, for accounts whose limits differ from the usual ones.
    ///
    /// Comma-separated; the defaults are job-status=500, table-lists=5, schemas=500 and object-urls=200, and 0 means unlimited.
    /// --jobs-per-minute limits job starts.
    #[arg(
        long,
        global = true,
        value_delimiter = ',',
        value_name = "KIND=N",
        value_parser = parse_pace,
        hide_short_help = true,
        help_heading = GLOBAL
    )]
    pub(in crate::cli) pacing: Vec<Pace>,
    /// Ignored, like the variable DAP_TRACKING: daplake never tracks usage.
    #[arg(long, global = true, hide_short_help = true, help_heading = GLOBAL)]
    pub(in crate::cli) no_tracking: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum LogLevel {
    Debug,
    Info,
    Warning,
    Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum LogFormat {
    Plain,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Theme {
    Dark,
    Light,
    HighContrastBw,
}
