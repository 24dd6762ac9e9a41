//! From words to typed values: the only reader of arguments, environment and settings file. Precedence: flag, environment, file,
//! default. The values of the file become the defaults of the options they are about, so that there is one way to parse and check
//! all of them, and one place that decides who wins.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, FromArgMatches};

#[cfg(feature = "lake")]
use crate::cli::args::Command;
use crate::cli::args::global::GlobalArgs;
use crate::cli::args::{Cli, definition};
use crate::cli::settings::paths::{SETTINGS_NAME, config_dir, variable};
#[cfg(feature = "lake")]
use crate::cli::settings::settings_file::without_references;
use crate::cli::settings::settings_file::{FileSettings, FileTarget, FileValue, log_values, options_of_tables};
use crate::cli::settings::settings_schema::{FOR_LAKES, is_for_sync_only, nearest};
#[cfg(feature = "lake")]
use crate::cli::version::program_name;
use crate::error::{Error, Kind, Result};
use crate::ops::Address;

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
        for args in runs.iter_mut().filter_map(|cli| cli.command.as_mut()).filter_map(Command::table_args) {
            args.elsewhere.clone_from(&elsewhere);
        }
    }
    Ok(Resolved { runs, warnings })
}

/// The command line of this process as it is now: files with secrets and settings are read again.
#[cfg(feature = "lake")]
pub(in crate::cli) fn resolve_again() -> Result<Resolved> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    resolve(program_name(&arguments), &arguments).map_err(|error| match error {
        Unresolved::File(error) => error,
        // The text of the parser may repeat a value.
        Unresolved::Usage(_) => Error::new(Kind::Usage, "The settings cannot be used any more"),
    })
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
    let texts = runs.iter().filter_map(|cli| cli.command.as_ref()).filter_map(Command::address);
    for text in texts {
        Address::parse(text)?;
    }
    // What `init` writes into the file may hold references to variables.
    for cli in runs {
        if let Some(Command::Init(args)) = &cli.command {
            Address::parse(&without_references(&args.target))?;
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
