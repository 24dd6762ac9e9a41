//! From words to typed values: the only reader of arguments, environment and settings file. Precedence: flag, environment, file,
//! default. The values of the file become the defaults of the options they are about, so that there is one way to parse and check
//! all of them, and one place that decides who wins.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, FromArgMatches};
use url::Url;

use crate::api::{Client, ClientOptions, Credentials, Pacing, RetryPolicy};
use crate::cli::args::{Cli, GlobalArgs, definition};
use crate::cli::settings::settings_file::{FileSettings, FileTarget, FileValue, log_values, options_of_tables};
use crate::cli::settings::settings_schema::{FOR_LAKES, is_for_sync_only, nearest};
#[cfg(feature = "lake")]
use crate::error::ResultExt;
use crate::error::{Error, Kind, Result};
use crate::ops::Address;
#[cfg(feature = "lake")]
use crate::ops::Target;
#[cfg(feature = "lake")]
use crate::redact::Secret;
#[cfg(feature = "lake")]
use crate::schema::HashKey;
#[cfg(feature = "lake")]
use crate::sink::delta::LEAST_RETENTION;
#[cfg(feature = "lake")]
use crate::store::StoreOptions;

/// The command line, completed by the settings file.
pub(in crate::cli) struct Resolved {
    /// One for each target that is meant; never empty.
    pub(in crate::cli) runs: Vec<Cli>,
    /// What a person should know about the file.
    pub(in crate::cli) warnings: Vec<String>,
}

/// Why there is none.
pub(in crate::cli) enum Unresolved {
    /// Wrong usage, or a wish for help.
    Usage(clap::Error),
    /// Something is wrong with the settings file.
    File(Error),
}

impl From<clap::Error> for Unresolved {
    fn from(error: clap::Error) -> Self {
        Unresolved::Usage(error)
    }
}

impl From<Error> for Unresolved {
    fn from(error: Error) -> Self {
        Unresolved::File(error)
    }
}

/// Commands that take nothing from a settings file.
const WITHOUT_FILE: [&str; 5] = ["init", "demo", "serve", "completions", "man"];
/// Commands that look at a target alone.
const WITHOUT_SERVICE: [&str; 5] = ["status", "query", "history", "optimize", "vacuum"];
/// Commands that work on several targets at once, and those that work without any.
const ALL_TARGETS: [&str; 2] = ["sync", "check"];
const NEEDS_NO_TARGET: [&str; 1] = ["check"];

/// Parses the arguments, with the settings file as their defaults: once for each target of the file that is meant, since a target
/// may have settings of its own.
pub(in crate::cli) fn resolve(name: &'static str, arguments: &[OsString]) -> Result<Resolved, Unresolved> {
    let mut plain = definition(name);
    // Without the file, so that help never shows what stands in it.
    let matches = plain.try_get_matches_from_mut(arguments)?;
    let (command, inner) = match matches.subcommand() {
        Some((command, inner)) if !WITHOUT_FILE.contains(&command) => (command.to_owned(), inner.clone()),
        _ => {
            let runs = vec![Cli::from_arg_matches(&matches)?];
            #[cfg(feature = "lake")]
            check_addresses(&runs)?;
            return Ok(Resolved { runs, warnings: Vec::new() });
        }
    };
    let told = inner.get_one::<PathBuf>("settings").cloned();
    let path = settings_file(told)?;
    let file = path.as_deref().map(|path| FileSettings::read(path, &variable)).transpose()?;
    let has_file = file.is_some();
    let FileSettings { values, tables, targets, mut warnings, lacking, .. } = file.unwrap_or_default();
    #[cfg(feature = "lake")]
    let elsewhere: Vec<String> = {
        let all = values.iter().chain(targets.iter().flat_map(|target| &target.values));
        all.filter(|value| value.option == "namespace").flat_map(|value| value.texts.iter().cloned()).collect()
    };
    let lacking = lacking.into_iter().filter(|(section, _)| needs(&command, section));
    warnings.extend(lacking.map(|(_, words)| words));
    let chosen = chosen(&mut plain, &command, &inner, targets, has_file)?;
    let mut runs = Vec::new();
    let mut databases = Vec::new();
    let mut without: Vec<&'static str> = Vec::new();
    for of_target in chosen {
        let own = of_target.as_ref().map_or(&[][..], |target| &target.tables);
        let mut of_tables = options_of_tables(&tables, own);
        let address = match &of_target {
            Some(target) => target.address().map(str::to_owned),
            None => given_address(&matches),
        };
        if address.is_some_and(|text| Address::parse(&text).is_ok_and(|address| address.is_database())) {
            of_tables.retain(|value| {
                let is_for_lakes = FOR_LAKES.contains(&value.option);
                if is_for_lakes && !without.contains(&value.option) {
                    without.push(value.option);
                }
                !is_for_lakes
            });
            databases.push(of_target.as_ref().map_or("--target", |target| target.name.as_str()).to_owned());
        }
        let of_target_values = of_target.iter().flat_map(|target| &target.values);
        let overlay: Vec<FileValue> = values.iter().chain(of_target_values).chain(&of_tables).cloned().collect();
        let mut definition = with_defaults(definition(name), &overlay, of_target.is_some());
        runs.push(Cli::from_arg_matches(&definition.try_get_matches_from_mut(arguments)?)?);
    }
    if !without.is_empty() && ALL_TARGETS.contains(&command.as_str()) {
        warnings.push(format!(
            "Databases keep the rows as they are now: {} in [tables] of the settings file does not apply to {}",
            without.join(", "),
            databases.join(", ")
        ));
    }
    #[cfg(feature = "lake")]
    {
        check_addresses(&runs)?;
        for args in runs.iter_mut().filter_map(|cli| cli.command.as_mut()).filter_map(crate::cli::args::Command::table_args) {
            args.elsewhere.clone_from(&elsewhere);
        }
    }
    Ok(Resolved { runs, warnings })
}

/// The command line of this process as it is now: files with secrets and settings are read again.
#[cfg(feature = "lake")]
pub(in crate::cli) fn resolve_again() -> Result<Resolved> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    resolve(crate::cli::program_name(&arguments), &arguments).map_err(|error| match error {
        Unresolved::File(error) => error,
        // The text of the parser may repeat a value.
        Unresolved::Usage(_) => Error::new(Kind::Usage, "The settings cannot be used any more"),
    })
}

/// The API key of the settings as they are now.
#[cfg(feature = "lake")]
pub(in crate::cli) fn credentials_again() -> Result<Credentials> {
    let resolved = resolve_again()?;
    let first = resolved.runs.into_iter().next();
    credentials(&first.ok_or_else(|| Error::new(Kind::Bug, "The command line was lost"))?.global)
}

/// The global options of a command whose settings file is wrong, with what can be read of its section `[log]`.
pub(in crate::cli) fn logging_of(name: &'static str, arguments: &[OsString]) -> Option<GlobalArgs> {
    let matches = definition(name).try_get_matches_from(arguments).ok()?;
    let told = matches.subcommand()?.1.get_one::<PathBuf>("settings").cloned();
    let path = settings_file(told).ok().flatten();
    let values = path.map(|path| log_values(&path, &variable)).unwrap_or_default();
    let matches = with_defaults(definition(name), &values, false).try_get_matches_from(arguments);
    Some(Cli::from_arg_matches(&matches.or_else(|_| definition(name).try_get_matches_from(arguments)).ok()?).ok()?.global)
}

/// The target of the command line or the environment.
#[cfg(feature = "lake")]
fn given_address(matches: &ArgMatches) -> Option<String> {
    Cli::from_arg_matches(matches).ok()?.command?.address().map(str::to_owned)
}

#[cfg(not(feature = "lake"))]
fn given_address(_: &ArgMatches) -> Option<String> {
    None
}

/// Refuses what is neither a folder nor a URL before anything else looks at it: it may be a connection string in another form.
#[cfg(feature = "lake")]
fn check_addresses(runs: &[Cli]) -> Result<(), Unresolved> {
    let texts = runs.iter().filter_map(|cli| cli.command.as_ref()).filter_map(crate::cli::args::Command::address);
    for text in texts {
        Address::parse(text)?;
    }
    // What `init` writes into the file may hold references to variables.
    for cli in runs {
        if let Some(crate::cli::args::Command::Init(args)) = &cli.command {
            Address::parse(&crate::cli::settings::settings_file::without_references(&args.target))?;
        }
    }
    Ok(())
}

/// Whether a section of the file concerns a command.
fn needs(command: &str, section: &str) -> bool {
    match section {
        "service" => !WITHOUT_SERVICE.contains(&command),
        section => !is_for_sync_only(section) || ALL_TARGETS.contains(&command),
    }
}

/// The settings of each target of the file that is meant; one `None` when the target comes from elsewhere.
fn chosen(
    plain: &mut clap::Command,
    command: &str,
    inner: &ArgMatches,
    targets: Vec<FileTarget>,
    has_file: bool,
) -> Result<Vec<Option<FileTarget>>, Unresolved> {
    // Asked of the definition: a program built for release finds any argument in what was typed.
    let takes = plain.find_subcommand(command).is_some_and(|sub| sub.get_arguments().any(|arg| arg.get_id() == "to"));
    if !takes {
        return Ok(vec![None]);
    }
    let to: Vec<String> = inner.get_many::<String>("to").into_iter().flatten().cloned().collect();
    let typed = inner.value_source("target");
    let mut usage = |kind, message: &str| {
        let sub = plain.find_subcommand_mut(command);
        Err(Unresolved::Usage(match sub {
            Some(sub) => sub.error(kind, message),
            None => clap::Error::raw(kind, message),
        }))
    };
    if !to.is_empty() && typed == Some(ValueSource::CommandLine) {
        return usage(
            ErrorKind::ArgumentConflict,
            "--to names a target of the settings file, --target another one: give one of them",
        );
    }
    if to.is_empty() && typed.is_some() {
        return Ok(vec![None]);
    }
    if !to.is_empty() && !has_file {
        return usage(
            ErrorKind::MissingRequiredArgument,
            "--to names a target of a settings file, and there is none: `daplake init` writes one",
        );
    }
    let mut unknown = to.iter().filter(|name| !targets.iter().any(|target| target.name == **name));
    if let Some(name) = unknown.next() {
        // The name itself is not said: where a connection string was given by mistake it is one.
        let error = Error::new(Kind::Usage, "The settings file has no such target");
        let near = nearest(name, targets.iter().map(|target| target.name.as_str()));
        let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
        return Err(Unresolved::File(match near {
            _ if name.contains("://") => error.hint("--to takes the name of a target, --target its address"),
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("its targets are: {}", names.join(", "))),
        }));
    }
    let meant: Vec<FileTarget> = targets.into_iter().filter(|target| to.is_empty() || to.contains(&target.name)).collect();
    if meant.is_empty() {
        if NEEDS_NO_TARGET.contains(&command) {
            return Ok(vec![None]);
        }
        return usage(
            ErrorKind::MissingRequiredArgument,
            "a target is needed: give --target, set DAPLAKE_TARGET, or write it in a settings file (see `daplake init`)",
        );
    }
    if meant.len() > 1 && !ALL_TARGETS.contains(&command) {
        let names: Vec<&str> = meant.iter().map(|target| target.name.as_str()).collect();
        let message = format!("the settings file has several targets: say which one with --to ({})", names.join(", "));
        return usage(ErrorKind::MissingRequiredArgument, &message);
    }
    meant
        .into_iter()
        .map(|mut target| match target.problem.take() {
            Some(problem) => Err(Unresolved::File(problem.with_field("target", &target.name))),
            None => Ok(Some(target)),
        })
        .collect()
}

/// The definition of the command line with other defaults; the last value for an option counts.
fn with_defaults(definition: clap::Command, values: &[FileValue], has_target: bool) -> clap::Command {
    let set = |arg: Arg, is_sync: bool| {
        let id = arg.get_id().as_str();
        // `--to` was typed (or nothing else names a target): it wins over the environment.
        let arg = if id == "target" && has_target { arg.env(Resettable::<clap::builder::OsStr>::Reset) } else { arg };
        let found = values.iter().rev().find(|value| value.option == arg.get_id().as_str() && (is_sync || !value.sync_only));
        match found {
            Some(value) => arg.default_values(value.texts.iter().map(|text| clap::builder::OsStr::from(text.clone()))),
            None => arg,
        }
    };
    definition.mut_args(|arg| set(arg, false)).mut_subcommands(|command| {
        let is_sync = ALL_TARGETS.contains(&command.get_name());
        command.mut_args(|arg| set(arg, is_sync))
    })
}

/// The settings file: as told, which must be there, or where the conventions look for it.
fn settings_file(told: Option<PathBuf>) -> Result<Option<PathBuf>> {
    if let Some(path) = told {
        return match path.is_file() {
            true => Ok(Some(path)),
            false => Err(Error::new(Kind::Usage, "The settings file is not there")
                .with_field("file", path.display())
                .hint(format!("`daplake init --settings {}` writes one", path.display()))),
        };
    }
    let beside = PathBuf::from(SETTINGS_NAME);
    let candidates = [Some(beside), config_dir().map(|folder| folder.join(SETTINGS_NAME))];
    Ok(candidates.into_iter().flatten().find(|path| path.is_file()))
}

/// The name of the settings file.
pub(in crate::cli) const SETTINGS_NAME: &str = "daplake.toml";

/// Our folder for settings by the conventions of the system.
fn config_dir() -> Option<PathBuf> {
    if cfg!(windows) {
        return Some(absolute_variable("APPDATA")?.join("daplake"));
    }
    if cfg!(target_os = "macos") {
        return Some(home()?.join("Library/Application Support/daplake"));
    }
    Some(absolute_variable("XDG_CONFIG_HOME").or_else(|| Some(home()?.join(".config")))?.join("daplake"))
}

fn absolute_variable(name: &str) -> Option<PathBuf> {
    variable(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| home.is_absolute())
}

/// The client that the global options describe. No network yet.
pub(in crate::cli) fn client(global: &GlobalArgs, pacing: Pacing) -> Result<Client> {
    Client::new(client_options(global, pacing)?)
}

fn client_options(global: &GlobalArgs, pacing: Pacing) -> Result<ClientOptions> {
    let base_url = base_url(&global.base_url)?;
    Ok(ClientOptions {
        base_url,
        credentials: credentials(global)?,
        pacing,
        retry: RetryPolicy::default(),
        ca_bundle: global.ca_bundle.clone(),
        poll: (Duration::from_millis(300), Duration::from_secs(10)),
        idle_timeout: Duration::from_secs(60),
    })
}

fn base_url(text: &str) -> Result<Url> {
    let trimmed = text.trim_end_matches('/');
    let url = Url::parse(trimmed).map_err(|error| {
        Error::new(Kind::Usage, "The address of the service is not a URL")
            .caused_by(error)
            .hint("set --base-url or DAP_API_URL to something like https://api-gateway.instructure.com")
    })?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(Error::new(
            Kind::Usage,
            "The address of the service must begin with https:// (or http:// for a local server)",
        ));
    }
    Ok(url)
}

fn credentials(global: &GlobalArgs) -> Result<Credentials> {
    let missing = |what: &'static str, flag: &'static str, variable: &'static str| {
        Error::new(Kind::Usage, format!("No {what} was given"))
            .hint(format!("set {variable} (or {flag}); try `daplake demo` to see everything work without an account"))
            .with_kind(Kind::Auth)
    };
    let client_id = global
        .client_id
        .clone()
        .filter(|id| !id.is_empty())
        .ok_or_else(|| missing("client id", "--client-id", "DAP_CLIENT_ID"))?;
    let client_secret = global
        .client_secret
        .clone()
        .filter(|secret| !secret.is_empty())
        .ok_or_else(|| missing("client secret", "--client-secret", "DAP_CLIENT_SECRET"))?;
    Ok(Credentials { client_id, client_secret })
}

/// The target that was named, with all that an object store may want to know, and in the form that its tables have.
#[cfg(feature = "lake")]
pub(in crate::cli) async fn target(global: &GlobalArgs, args: &crate::cli::args::TargetArgs) -> Result<Target> {
    let text = args.target.as_deref().ok_or_else(|| {
        Error::new(Kind::Usage, "No target was given")
            .hint("give --target, or write it in a settings file (see `daplake init`)")
    })?;
    let target = database(text)?;
    let options = store_options(global, &args.store_option)?;
    let wanted = args.format.map(|format| match format {
        crate::cli::args::LakeFormatArg::Delta => crate::ops::LakeFormat::Delta,
        crate::cli::args::LakeFormatArg::Parquet => crate::ops::LakeFormat::Parquet,
    });
    target.with_store_options(options).recognised(wanted).await
}

/// The way to object stores: what was told, and what the environment knows.
#[cfg(feature = "lake")]
pub(in crate::cli) fn store_options(global: &GlobalArgs, told: &[String]) -> Result<StoreOptions> {
    let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut options = StoreOptions::default().with_variables(variables);
    options.ca_bundle = global.ca_bundle.clone().or_else(|| variable("AWS_CA_BUNDLE").map(PathBuf::from));
    options.home = std::env::home_dir();
    for option in told {
        options = options.tell(option)?;
    }
    Ok(options)
}

/// The key for hashed columns: from the file that was named, else from the variable. It cannot be given as an argument, which
/// others on the machine could see.
#[cfg(feature = "lake")]
pub(in crate::cli) fn hash_key(args: &crate::cli::args::HashKeyArgs) -> Result<Option<HashKey>> {
    let secret = match &args.hash_key_file {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text
                .context(Kind::Usage, format!("The file with the key for hashed columns cannot be read: {}", path.display()))?;
            Some(Secret::new(text.trim_end_matches(['\r', '\n'])))
        }
        None => variable("DAPLAKE_HASH_KEY").map(Secret::new),
    };
    secret.as_ref().map(HashKey::new).transpose()
}

/// The variable of the official client that switches its usage tracking off or on. It changes nothing here, but a wrong value is
/// refused as there.
pub(in crate::cli) fn check_tracking(global: &GlobalArgs) -> Result<()> {
    if global.no_tracking {
        return Ok(());
    }
    let Some(value) = variable("DAP_TRACKING") else { return Ok(()) };
    match ["false", "0", "no", "off", "true", "1", "yes", "on"].contains(&value.to_ascii_lowercase().as_str()) {
        true => Ok(()),
        false => Err(Error::new(Kind::Usage, "The variable DAP_TRACKING is neither true nor false")
            .hint("unset it: daplake tracks nothing in any case")),
    }
}

/// The place that a text names, with what the environment knows of the home folder and of a database's server.
#[cfg(feature = "lake")]
pub(in crate::cli) fn database(text: &str) -> Result<Target> {
    at_home(text)?.parse::<Target>()?.completed(&variable)
}

/// A path with the home folder in place of a `~` at its beginning: the shell leaves it in quotes and behind a `=`.
pub(in crate::cli) fn at_home(text: &str) -> Result<Cow<'_, str>> {
    let Some(rest) = text.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/')) else {
        return Ok(text.into());
    };
    match home() {
        Some(home) => Ok(home.join(rest.trim_start_matches('/')).display().to_string().into()),
        None => Err(Error::new(Kind::Usage, "The home folder is not known").hint("write the folder's full path")),
    }
}

/// A variable with something in it.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where runs note what they have reached: as told, or by the conventions of the system. `None`: there is no home.
pub(in crate::cli) fn state_dir(told: Option<PathBuf>) -> Option<PathBuf> {
    told.or_else(|| {
        if cfg!(windows) {
            return Some(absolute_variable("LOCALAPPDATA")?.join("daplake"));
        }
        if cfg!(target_os = "macos") {
            return Some(home()?.join("Library/Application Support/daplake"));
        }
        // A service of systemd is told its own.
        let told = absolute_variable("STATE_DIRECTORY");
        told.or_else(|| {
            Some(absolute_variable("XDG_STATE_HOME").or_else(|| Some(home()?.join(".local/state")))?.join("daplake"))
        })
    })
}

/// What systemd tells a service: the socket to notify, and how often it wants to hear that we live.
#[cfg(feature = "lake")]
pub(in crate::cli) fn systemd() -> (Option<String>, Option<Duration>) {
    let is_ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
    let watchdog = variable("WATCHDOG_USEC").filter(|_| is_ours).and_then(|text| text.parse().ok()).map(Duration::from_micros);
    (variable("NOTIFY_SOCKET"), watchdog.filter(|time| !time.is_zero()))
}

/// What OpenTelemetry is told.
#[cfg(feature = "otel")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum OtelSignal {
    Traces,
    Metrics,
}

#[cfg(feature = "otel")]
impl OtelSignal {
    /// As people write it.
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            OtelSignal::Traces => "traces",
            OtelSignal::Metrics => "metrics",
        }
    }
}

/// Where a signal goes. Its headers are read by the exporter itself.
#[cfg(feature = "otel")]
pub(in crate::cli) struct OtelSettings {
    pub(in crate::cli) endpoint: url::Url,
    /// Of one request.
    pub(in crate::cli) timeout: Duration,
}

/// By OpenTelemetry's own variables; `None`: not wanted. Wanted is what has an endpoint, or was asked for by name. No value of a
/// variable is part of an error: an endpoint may hold a secret.
#[cfg(feature = "otel")]
pub(in crate::cli) fn otel(signal: OtelSignal) -> Result<Option<OtelSettings>> {
    let word = signal.name().to_ascii_uppercase();
    let told = |what: &str| {
        variable(&format!("OTEL_EXPORTER_OTLP_{word}_{what}")).or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{what}")))
    };
    let endpoint = told("ENDPOINT");
    let is_disabled = variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let is_wanted = match variable(&format!("OTEL_{word}_EXPORTER")) {
        Some(exporter) => exporter == "otlp",
        None => endpoint.is_some(),
    };
    if is_disabled || !is_wanted {
        return Ok(None);
    }
    let wrong = |what: &str, hint: &'static str| {
        let message = format!("OpenTelemetry's {} cannot be sent: OTEL_EXPORTER_OTLP_{what}", signal.name());
        Err(Error::new(Kind::Usage, message).hint(hint))
    };
    if told("PROTOCOL").is_some_and(|protocol| protocol != "http/protobuf") {
        return wrong("PROTOCOL is not http/protobuf", "collectors take http/protobuf on port 4318");
    }
    let endpoint = endpoint.as_deref().unwrap_or("http://localhost:4318").parse::<url::Url>();
    let Some(endpoint) = endpoint.ok().filter(|url| matches!(url.scheme(), "http" | "https")) else {
        return wrong("ENDPOINT is not a URL", "write it as http://collector.example.org:4318");
    };
    let timeout = told("TIMEOUT").and_then(|text| text.parse().ok()).map_or(Duration::from_secs(10), Duration::from_millis);
    Ok(Some(OtelSettings { endpoint, timeout }))
}

/// Keeps the journals of accounts apart.
pub(in crate::cli) fn account(global: &GlobalArgs) -> String {
    format!("{} {}", global.base_url.trim_end_matches('/'), global.client_id.as_deref().unwrap_or_default())
}

/// The limit of one kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Pace {
    kind: PaceKind,
    per_minute: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PaceKind {
    JobStatus,
    TableLists,
    Schemas,
    ObjectUrls,
}

/// `schemas=100`.
pub(in crate::cli) fn parse_pace(text: &str) -> Result<Pace, String> {
    let (name, number) = text.split_once('=').ok_or("write it as schemas=100")?;
    let kind = match name.trim() {
        "job-status" => PaceKind::JobStatus,
        "table-lists" => PaceKind::TableLists,
        "schemas" => PaceKind::Schemas,
        "object-urls" => PaceKind::ObjectUrls,
        _ => return Err(format!("`{name}` is none of job-status, table-lists, schemas, object-urls")),
    };
    let per_minute = number.trim().parse().map_err(|_| format!("`{number}` is not a number of calls per minute"))?;
    Ok(Pace { kind, per_minute })
}

/// Our pace, with the number of job starts per minute that was asked for.
pub(in crate::cli) fn pacing(global: &GlobalArgs, jobs_per_minute: u32) -> Pacing {
    let mut pacing = Pacing { job_starts: jobs_per_minute, ..Pacing::default() };
    for Pace { kind, per_minute } in &global.pacing {
        match kind {
            PaceKind::JobStatus => pacing.job_status = *per_minute,
            PaceKind::TableLists => pacing.table_lists = *per_minute,
            PaceKind::Schemas => pacing.schemas = *per_minute,
            PaceKind::ObjectUrls => pacing.object_urls = *per_minute,
        }
    }
    pacing
}

/// `512`, `64KiB`, `256MiB`, `2GiB`, and the decimal `kB`, `MB`, `GB`; a bare `K`, `M`, `G` is binary.
pub(in crate::cli) fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| format!("`{text}` is not a size; write it as 256MiB or 2GB"))?;
    let unit: u64 = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        "t" | "ti" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        other => return Err(format!("unknown unit `{other}`; use KiB, MiB, GiB or kB, MB, GB")),
    };
    Ok((number * unit as f64) as u64)
}

/// `30s`, `10m`, `4h`, `250ms`, `1d`.
pub(in crate::cli) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| format!("`{text}` is not a time; write it as 30s, 10m or 4h"))?;
    let millis = match text[digits..].trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("`{text}` has no unit; write it as 30s, 10m or 4h")),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| format!("`{text}` is too long"))
}

/// As [`parse_duration`], for what `vacuum` spares.
#[cfg(feature = "lake")]
pub(in crate::cli) fn parse_retention(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);
    match parse_duration(text)? {
        time if time < LEAST_RETENTION => {
            Err("files of the last 7 days are not removed, as a run under way or a reader may need them; give 7d or more"
                .to_owned())
        }
        time if time > LONGEST => Err("it is longer than 100 years".to_owned()),
        time => Ok(time),
    }
}

/// What a load into a database may hold by default: all that it keeps are rows on their way and, of sets that may hold a key
/// twice, what waits to be reduced. With it a run stays below 128 MiB.
#[cfg(feature = "sql")]
pub(in crate::cli) const DATABASE_MEMORY_LIMIT: u64 = 24 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(parse_bytes("256MiB"), Ok(256 << 20));
        assert_eq!(parse_bytes("1.5G"), Ok(3 << 29));
        assert_eq!(parse_bytes("2GB"), Ok(2_000_000_000));
        assert!(parse_bytes("many").is_err());
        assert!(parse_bytes("1 parsec").is_err());
        assert_eq!(parse_duration("4h"), Ok(Duration::from_secs(4 * 3600)));
        assert!(parse_duration("4").is_err());
    }
}
