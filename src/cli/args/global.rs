//! Options of all commands.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::args::headings::GLOBAL;
use crate::cli::values::pacing::{Pace, parse_pace};
use crate::redact::Secret;

/// The default address of the service.
pub(in crate::cli) const DEFAULT_BASE_URL: &str = "https://api-gateway.instructure.com";

/// Options of all commands; they may stand before or after the command.
#[derive(Debug, Args)]
pub(in crate::cli) struct GlobalArgs {
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
    pub(in crate::cli) base_url: String,
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
    pub(in crate::cli) client_id: Option<String>,
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
    pub(in crate::cli) client_secret: Option<Secret>,
    /// Least severe log line that is written.
    #[arg(long, global = true, value_enum, default_value_t = LogLevel::Info, value_name = "LEVEL", help_heading = GLOBAL)]
    pub(in crate::cli) loglevel: LogLevel,
    /// Appends log lines to this file.
    #[arg(long, global = true, value_name = "LOGFILE", help_heading = GLOBAL)]
    pub(in crate::cli) logfile: Option<PathBuf>,
    /// Log lines as text or as JSON objects, one per line.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Plain, value_name = "FORMAT", help_heading = GLOBAL)]
    pub(in crate::cli) logformat: LogFormat,
    /// With --non-interactive: no log lines on standard error.
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(in crate::cli) no_log_to_console: bool,
    /// For scripts: data on standard output, log lines on standard error, no progress.
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(in crate::cli) non_interactive: bool,
    /// Accepted and ignored, like the variable DAP_TRACKING: daplake tracks nothing.
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(in crate::cli) no_tracking: bool,
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
    pub(in crate::cli) console_theme: Theme,
    /// Extra root certificates in PEM form, for networks that inspect TLS.
    #[arg(long, global = true, env = "DAP_CA_BUNDLE", value_name = "FILE", help_heading = GLOBAL)]
    pub(in crate::cli) ca_bundle: Option<PathBuf>,
    /// Settings file (see `daplake init`) [default: ./daplake.toml, else that of your user, such as ~/.config/daplake/daplake.toml].
    #[arg(long, global = true, env = "DAPLAKE_SETTINGS", value_name = "FILE", help_heading = GLOBAL)]
    pub(in crate::cli) settings: Option<PathBuf>,
    /// Our own limits of calls per minute, where your account has others than the usual ones: job-status=500, table-lists=5,
    /// schemas=500, object-urls=200; 0 for no limit. Job starts have --jobs-per-minute.
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
