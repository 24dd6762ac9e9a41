//! From arguments, environment and settings file to typed settings. Precedence: option, variable, file, default. The values of the file
//! become defaults of the options, so the values are parsed and checked in one place, and the precedence is decided in one place.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, FromArgMatches};

#[cfg(feature = "lake")]
use crate::cli::args::Command;
use crate::cli::args::global::GlobalArgs;
use crate::cli::args::{Settings, definition};
#[cfg(feature = "lake")]
use crate::cli::settings::file::without_references;
use crate::cli::settings::file::{FileSettings, FileTarget, FileValue, log_values, options_of_tables};
use crate::cli::settings::paths::{SETTINGS_NAME, config_dir, variable};
use crate::cli::settings::schema::{is_for_lakes, is_for_sync_only, nearest};
#[cfg(feature = "lake")]
use crate::cli::version::program_name;
use crate::error::{Error, Kind, Result};
use crate::ops::Address;

/// The settings of a command.
pub(in crate::cli) struct Resolved {
    /// One for each target; never empty.
    pub(in crate::cli) runs: Vec<Settings>,
    /// Warnings about the settings file.
    pub(in crate::cli) warnings: Vec<String>,
}

/// Why there are no settings.
pub(in crate::cli) enum Unresolved {
    /// Wrong usage, or a request for help.
    Usage(clap::Error),
    /// An error in the settings file.
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

/// Commands that read no settings file.
const WITHOUT_FILE: [&str; 5] = ["init", "demo", "serve", "completions", "man"];
/// Commands that do not call the service.
const WITHOUT_SERVICE: [&str; 6] = ["schedule", "status", "query", "history", "optimize", "vacuum"];
/// Commands that use all targets of the file.
const ALL_TARGETS: [&str; 2] = ["sync", "check"];
/// Commands whose options have the values of `[schedule]` as defaults, and those of the other sections for `sync`.
const OF_SYNC: [&str; 3] = ["sync", "check", "schedule"];
/// Commands that need no target.
const NEEDS_NO_TARGET: [&str; 1] = ["check"];

/// Parses the arguments with the values of the settings file as defaults, once for each selected target, since a target can override
/// settings.
pub(in crate::cli) fn resolve(name: &'static str, arguments: &[OsString]) -> Result<Resolved, Unresolved> {
    let mut plain = definition(name);
    // Without the file, so that help texts never show its values.
    let matches = plain.try_get_matches_from_mut(arguments)?;
    let (command, inner) = match matches.subcommand() {
        Some((command, inner)) if !WITHOUT_FILE.contains(&command) => (command.to_owned(), inner.clone()),
        _ => {
            let runs = vec![Settings::from_arg_matches(&matches)?];
            #[cfg(feature = "lake")]
            check_addresses(&runs)?;
            return Ok(Resolved { runs, warnings: Vec::new() });
        }
    };
    let given = inner.get_one::<PathBuf>("settings").cloned();
    let path = settings_file(given)?;
    let has_secret = inner.value_source("client_secret").is_some();
    let selected = selected(&plain, &command, &inner);
    let runs_command = |section: &str| match section.strip_prefix("targets.") {
        Some(target) => selected.as_ref().is_some_and(|names| names.is_empty() || names.iter().any(|name| name == target)),
        None => needs(&command, section) && !(section == "service" && has_secret),
    };
    let file = path.as_deref().map(|path| FileSettings::read(path, &variable, &runs_command)).transpose()?;
    let has_file = file.is_some();
    let FileSettings { values, tables, targets, mut warnings, unresolved, .. } = file.unwrap_or_default();
    #[cfg(feature = "lake")]
    let elsewhere: Vec<String> = {
        let all = values.iter().chain(targets.iter().flat_map(|target| &target.values));
        all.filter(|value| value.option == "namespace").flat_map(|value| value.arguments.iter().cloned()).collect()
    };
    let unresolved = unresolved.into_iter().filter(|(section, _)| needs(&command, section));
    warnings.extend(unresolved.map(|(_, message)| message));
    let chosen = chosen(&mut plain, &command, &inner, targets, has_file)?;
    let mut runs = Vec::new();
    let mut databases = Vec::new();
    let mut ignored: Vec<&'static str> = Vec::new();
    for of_target in chosen {
        let own = of_target.as_ref().map_or(&[][..], |target| &target.tables);
        let mut of_tables = options_of_tables(&tables, own);
        let address = match &of_target {
            Some(target) => target.address().map(str::to_owned),
            None => given_address(&matches),
        };
        let mut shared = values.clone();
        if address.is_some_and(|text| Address::parse(&text).is_ok_and(|address| address.is_database())) {
            for values in [&mut shared, &mut of_tables] {
                values.retain_mut(|value| {
                    let given = value.arguments.len();
                    value.arguments.retain(|argument| !is_for_lakes(value.option, argument));
                    if value.arguments.len() < given && !ignored.contains(&value.option) {
                        ignored.push(value.option);
                    }
                    given == 0 || !value.arguments.is_empty()
                });
            }
            databases.push(of_target.as_ref().map_or("--target", |target| target.name.as_str()).to_owned());
        }
        let of_target_values = of_target.iter().flat_map(|target| &target.values);
        let overlay: Vec<FileValue> = shared.iter().chain(of_target_values).chain(&of_tables).cloned().collect();
        let mut definition = with_defaults(definition(name), &overlay, of_target.is_some());
        runs.push(Settings::from_arg_matches(&definition.try_get_matches_from_mut(arguments)?)?);
    }
    if !ignored.is_empty() && ALL_TARGETS.contains(&command.as_str()) {
        warnings.push(format!(
            "{} in the settings file is for lake tables and is ignored for {}",
            ignored
                .iter()
                .map(|option| if *option == "mode" { "mode = \"changes\"" } else { option })
                .collect::<Vec<_>>()
                .join(", "),
            databases.join(", ")
        ));
    }
    #[cfg(feature = "lake")]
    {
        check_addresses(&runs)?;
        for args in runs.iter_mut().filter_map(|settings| settings.command.as_mut()).filter_map(Command::table_args) {
            args.elsewhere.clone_from(&elsewhere);
        }
    }
    Ok(Resolved { runs, warnings })
}

/// Reads the settings of this process again, with all files.
#[cfg(feature = "lake")]
pub(in crate::cli) fn resolve_again() -> Result<Resolved> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    resolve(program_name(&arguments), &arguments).map_err(|error| match error {
        Unresolved::File(error) => error,
        // The parser's message can repeat a value.
        Unresolved::Usage(_) => Error::new(Kind::Usage, "The settings are no longer valid"),
    })
}

/// The global options of a command whose settings file is invalid, with its section `[log]` where that can be read.
pub(in crate::cli) fn logging_of(name: &'static str, arguments: &[OsString]) -> Option<GlobalArgs> {
    let matches = definition(name).try_get_matches_from(arguments).ok()?;
    let given = matches.subcommand()?.1.get_one::<PathBuf>("settings").cloned();
    let path = settings_file(given).ok().flatten();
    let values = path.map(|path| log_values(&path, &variable)).unwrap_or_default();
    let matches = with_defaults(definition(name), &values, false).try_get_matches_from(arguments);
    Some(Settings::from_arg_matches(&matches.or_else(|_| definition(name).try_get_matches_from(arguments)).ok()?).ok()?.global)
}

/// The target of the command line or of the environment.
#[cfg(feature = "lake")]
fn given_address(matches: &ArgMatches) -> Option<String> {
    Settings::from_arg_matches(matches).ok()?.command?.address().map(str::to_owned)
}

#[cfg(not(feature = "lake"))]
fn given_address(_: &ArgMatches) -> Option<String> {
    None
}

/// Refuses an address that is neither a folder nor a URL before other code sees it: it can be a connection string in another syntax.
#[cfg(feature = "lake")]
fn check_addresses(runs: &[Settings]) -> Result<(), Unresolved> {
    let addresses = runs.iter().filter_map(|settings| settings.command.as_ref()).filter_map(Command::address);
    for text in addresses {
        Address::parse(text)?;
    }
    // The target of `init` can refer to variables.
    for settings in runs {
        if let Some(Command::Init(args)) = &settings.command {
            let target = args.target.as_deref().map(without_references);
            target.as_deref().map(Address::parse).transpose()?;
        }
    }
    Ok(())
}

/// Whether a command uses a section of the file.
fn needs(command: &str, section: &str) -> bool {
    match section {
        "service" => !WITHOUT_SERVICE.contains(&command),
        section => !is_for_sync_only(section) || ALL_TARGETS.contains(&command),
    }
}

/// Whether a command uses targets of the file. Read from the definition: in release builds `ArgMatches` accepts unknown ids.
fn takes_targets(plain: &clap::Command, command: &str) -> bool {
    plain.find_subcommand(command).is_some_and(|sub| sub.get_arguments().any(|arg| arg.get_id() == "to"))
}

/// The targets of the file that a command uses, by name; empty for all. `None` if it uses none of them.
fn selected(plain: &clap::Command, command: &str, inner: &ArgMatches) -> Option<Vec<String>> {
    if !takes_targets(plain, command) {
        return None;
    }
    let to: Vec<String> = inner.get_many::<String>("to").into_iter().flatten().cloned().collect();
    let is_elsewhere = to.is_empty() && inner.value_source("target").is_some();
    (!is_elsewhere).then_some(to)
}

/// The selected targets of the file; a single `None` if the target comes from the command line or the environment.
fn chosen(
    plain: &mut clap::Command,
    command: &str,
    inner: &ArgMatches,
    targets: Vec<FileTarget>,
    has_file: bool,
) -> Result<Vec<Option<FileTarget>>, Unresolved> {
    if !takes_targets(plain, command) {
        return Ok(vec![None]);
    }
    let to: Vec<String> = inner.get_many::<String>("to").into_iter().flatten().cloned().collect();
    let source = inner.value_source("target");
    let mut usage = |kind, message: &str| {
        let sub = plain.find_subcommand_mut(command);
        Err(Unresolved::Usage(match sub {
            Some(sub) => sub.error(kind, message),
            None => clap::Error::raw(kind, message),
        }))
    };
    if !to.is_empty() && source == Some(ValueSource::CommandLine) {
        return usage(
            ErrorKind::ArgumentConflict,
            "--to names a target of the settings file, --target an address: give only one of them",
        );
    }
    if to.is_empty() && source.is_some() {
        return Ok(vec![None]);
    }
    if !to.is_empty() && !has_file {
        return usage(
            ErrorKind::MissingRequiredArgument,
            "--to names a target of a settings file, but there is no settings file: `daplake init` writes one",
        );
    }
    let mut unknown = to.iter().filter(|name| !targets.iter().any(|target| target.name == **name));
    if let Some(name) = unknown.next() {
        // The name is not repeated: it can be a connection string that was given by mistake.
        let error = Error::new(Kind::Usage, "The settings file has no target of that name");
        let near = nearest(name, targets.iter().map(|target| target.name.as_str()));
        let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
        return Err(Unresolved::File(match near {
            _ if name.contains("://") => error.hint("--to expects the name of a target, --target its address"),
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("the targets are: {}", names.join(", "))),
        }));
    }
    let selected: Vec<FileTarget> = targets.into_iter().filter(|target| to.is_empty() || to.contains(&target.name)).collect();
    if selected.is_empty() {
        if NEEDS_NO_TARGET.contains(&command) {
            return Ok(vec![None]);
        }
        return usage(
            ErrorKind::MissingRequiredArgument,
            "no target: give --target, set DAPLAKE_TARGET, or name it in a settings file (see `daplake init`)",
        );
    }
    if selected.len() > 1 && !ALL_TARGETS.contains(&command) {
        let names: Vec<&str> = selected.iter().map(|target| target.name.as_str()).collect();
        let message = format!("the settings file has several targets: select one with --to ({})", names.join(", "));
        return usage(ErrorKind::MissingRequiredArgument, &message);
    }
    selected
        .into_iter()
        .map(|mut target| match target.problem.take() {
            Some(problem) => Err(Unresolved::File(problem.with_field("target", &target.name))),
            None => Ok(Some(target)),
        })
        .collect()
}

/// The definition of the command line with the values as defaults; the last value of an option wins.
fn with_defaults(definition: clap::Command, values: &[FileValue], has_target: bool) -> clap::Command {
    let set = |arg: Arg, is_sync: bool| {
        let id = arg.get_id().as_str();
        // A target of the file was selected; DAPLAKE_TARGET must not override its address.
        let arg = if id == "target" && has_target { arg.env(Resettable::<clap::builder::OsStr>::Reset) } else { arg };
        let found = values.iter().rev().find(|value| value.option == arg.get_id().as_str() && (is_sync || !value.sync_only));
        match found {
            Some(value) => arg.default_values(value.arguments.iter().map(|text| clap::builder::OsStr::from(text.clone()))),
            None => arg,
        }
    };
    definition.mut_args(|arg| set(arg, false)).mut_subcommands(|command| {
        let is_sync = OF_SYNC.contains(&command.get_name());
        command.mut_args(|arg| set(arg, is_sync))
    })
}

/// The settings file: the given one, which must exist, else the first of the usual places.
pub(in crate::cli) fn settings_file(given: Option<PathBuf>) -> Result<Option<PathBuf>> {
    if let Some(path) = given {
        if path.is_file() {
            return Ok(Some(path));
        }
        return Err(Error::new(Kind::Usage, "The settings file does not exist")
            .with_field("file", path.display())
            .hint(format!("`daplake init --settings {}` writes one", path.display())));
    }
    let beside = PathBuf::from(SETTINGS_NAME);
    let candidates = [Some(beside), config_dir().map(|folder| folder.join(SETTINGS_NAME))];
    Ok(candidates.into_iter().flatten().find(|path| path.is_file()))
}
