//! The questions of `init` on a terminal. Each answer is tested at once, as `check` does, and can be corrected. Nothing is written.

use std::path::Path;
use std::time::Duration;

use super::secrets::{self, Kept, NewSecret, Place};
use super::steps::{accepted, heading, stem_of};
use super::target::{self, Chosen};
use crate::cli::args::global::{DEFAULT_BASE_URL, GlobalArgs};
use crate::cli::args::setup::InitArgs;
use crate::cli::commands::{context, schedule};
use crate::cli::settings::paths::{folder_of, variable};
use crate::cli::settings::template::{Values, list, quoted};
use crate::cli::terminal::output::{counted, out};
use crate::cli::terminal::prompt;
use crate::cli::values::duration::parse_duration;
use crate::error::{Error, Kind, Result};
use crate::model::nearest;
use crate::ops::{self, Listing, Selection};

/// What the user has chosen.
pub(super) struct Answers {
    pub(super) values: Values,
    pub(super) secrets: Vec<NewSecret>,
    /// Time between two scheduled runs.
    pub(super) every: Option<Duration>,
    /// The number of selected tables, if the service could be asked.
    pub(super) tables: Option<usize>,
}

/// Job starts per minute that the service allows.
pub(super) const JOBS_PER_MINUTE: usize = 5;

/// Asks everything that the options do not answer. `path` is the settings file.
pub(super) async fn ask(global: &GlobalArgs, args: &InitArgs, path: &Path) -> Result<Answers> {
    let folder = folder_of(path);
    let exists = if path.exists() { " It exists; daplake asks before it replaces it." } else { "" };
    out(&format!(
        "This sets up daplake in four steps and writes {}.{exists}\n\
         Each answer is tested at once. Press Enter to accept the answer in brackets, or Ctrl-C to quit without changes.\n",
        path.display()
    ))?;
    let mut values = Values::new(&args.name);
    let mut secrets = Vec::new();
    if global.base_url != DEFAULT_BASE_URL {
        values.set("service", "url", quoted(&global.base_url));
    }

    heading(
        1,
        "API key",
        "daplake logs in with an API key, which an administrator of your institution creates in Instructure's\n\
         identity console: a client id such as us-east-1#0123... and a client secret.",
    )?;
    let Key { client_id, kept, listing } = key(global, args, path, &folder).await?;
    let is_variable = matches!(&kept.place, Place::Variable(_)) && variable("DAP_CLIENT_ID").as_ref() == Some(&client_id);
    let id = if is_variable { "${DAP_CLIENT_ID}".to_owned() } else { client_id };
    values.set("service", "client_id", quoted(&id));
    put(&mut values, &mut secrets, &folder, "service", "client_secret", kept);

    heading(
        2,
        "Tables",
        "A namespace is a group of tables of one product. `canvas` has users, courses, submissions and many more.",
    )?;
    let (selection, tables) = selection(args, &listing)?;
    values.set("sync", "namespaces", list(&selection.namespaces));
    values.set("sync", "tables", list(&selection.tables));
    if !selection.exclude.is_empty() {
        values.set("sync", "exclude", list(&selection.exclude));
    }

    heading(3, "Target", "The target is where the tables are kept. It is tested with a minimal write that is undone.")?;
    let Chosen { values: of_target, secrets: of_database } =
        target::ask(global, args, &selection.namespaces, path, &folder).await?;
    for (name, value) in of_target {
        values.set("targets", name, value);
    }
    secrets.extend(of_database);

    heading(
        4,
        "Schedule",
        "The service refreshes its data every 4 hours. A scheduled run loads only what has changed since the last one.",
    )?;
    let every = every(args)?;
    Ok(Answers { values, secrets, every, tables })
}

/// Puts a reference to a secret into a section of the settings.
fn put(values: &mut Values, secrets: &mut Vec<NewSecret>, folder: &Path, section: &'static str, key: &'static str, kept: Kept) {
    match kept.place {
        Place::NewFile(name) => {
            values.set(section, key, quoted(&format!("file:{name}")));
            secrets.push(NewSecret { path: folder.join(name), secret: kept.secret });
        }
        Place::File(path) => values.set(section, key, quoted(&format!("file:{}", path.display()))),
        Place::Variable(name) => values.set(section, key, quoted(&format!("${{{name}}}"))),
        Place::Command(words) => values.set(section, "credential_command", list(&words)),
    }
}

/// An API key with the tables that it can read.
struct Key {
    client_id: String,
    kept: Kept,
    listing: Listing,
}

/// Asks for the API key until the service accepts it or the user skips the test.
async fn key(global: &GlobalArgs, args: &InitArgs, path: &Path, folder: &Path) -> Result<Key> {
    let file = format!("{}.secret", stem_of(path));
    let mut given = match (&args.secret_file, &args.credential_command) {
        (Some(file), _) => Some(secrets::by_file(file)?),
        (None, Some(command)) => Some(secrets::by_command(command, folder)?),
        (None, None) => None,
    };
    let mut client_id = global.client_id.clone().unwrap_or_default();
    loop {
        client_id = prompt::valid("Client id", &client_id, |answer| match answer {
            "" => Err(Error::new(Kind::Usage, "The client id is required")),
            answer => Ok(answer.to_owned()),
        })?;
        let kept = match given.take() {
            Some(kept) => kept,
            None => secrets::ask("client secret", "DAP_CLIENT_SECRET", &file, folder)?,
        };
        let mut with_key = global.clone();
        with_key.client_id = Some(client_id.clone());
        with_key.client_secret = Some(kept.secret.clone());
        let client = context::client(&with_key, context::pacing(global, 0))?;
        let namespaces = if args.namespace.is_empty() { vec!["all".to_owned()] } else { args.namespace.clone() };
        let (findings, listing) = ops::check_service(&client, &namespaces).await;
        if accepted(&findings)? {
            return Ok(Key { client_id, kept, listing });
        }
    }
}

/// Namespaces and tables, and how many tables that are.
fn selection(args: &InitArgs, listing: &Listing) -> Result<(Selection, Option<usize>)> {
    let is_listed = !listing.answered.is_empty();
    let namespaces = match args.namespace.is_empty() {
        false => args.namespace.clone(),
        true => {
            let usual = listing.answered.iter().find(|name| *name == "canvas").or(listing.answered.first());
            let usual = usual.map_or("canvas", String::as_str);
            prompt::valid("Namespaces, separated by commas, or all", usual, |answer| {
                let names = names(answer);
                match names.iter().find(|name| is_listed && *name != "all" && !listing.answered.contains(name)) {
                    Some(unknown) => Err(not_listed(unknown, listing)),
                    None => Ok(names),
                }
            })?
        }
    };
    let select = |tables: Vec<String>| -> Result<(Selection, Option<usize>)> {
        let selection = Selection { namespaces: namespaces.clone(), tables, exclude: args.exclude.clone() };
        let count = if is_listed { Some(selection.resolve_among(&listing.tables)?.len()) } else { None };
        Ok((selection, count))
    };
    let (selection, count) = match args.table.is_empty() {
        false => select(args.table.clone())?,
        true => prompt::valid("Tables or patterns such as user*, separated by commas, or all", "all", |answer| {
            select(names(answer))
        })?,
    };
    if let Some(count) = count {
        let minutes = count.div_ceil(JOBS_PER_MINUTE) as u64;
        out(&format!(
            "ok    {} selected; the first sync takes about {}, as the service starts {JOBS_PER_MINUTE} jobs per minute\n",
            counted(count as u64, "table"),
            counted(minutes.max(1), "minute")
        ))?;
    }
    Ok((selection, count))
}

fn not_listed(unknown: &str, listing: &Listing) -> Error {
    let error = Error::new(Kind::NotFound, format!("The account has no namespace `{unknown}`"));
    match nearest(unknown, listing.answered.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint(format!("it has {}", listing.answered.join(", "))),
    }
}

/// The names of a comma-separated list.
fn names(answer: &str) -> Vec<String> {
    answer.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// The time between two scheduled runs; `None` for no schedule.
fn every(args: &InitArgs) -> Result<Option<Duration>> {
    if let Err(error) = schedule::check_available() {
        prompt::say(&error)?;
        return Ok(None);
    }
    if args.interval.is_some() {
        return Ok(args.interval);
    }
    prompt::valid("Time between two runs, or none for no schedule", "4h", |answer| {
        if answer == "none" {
            return Ok(None);
        }
        let time = parse_duration(answer).map_err(|reason| Error::new(Kind::Usage, reason))?;
        schedule::check_interval(time)?;
        Ok(Some(time))
    })
}
