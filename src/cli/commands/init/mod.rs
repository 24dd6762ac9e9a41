//! `init`: writes a commented settings file. On a terminal, an assistant asks for its values first.

mod assistant;
mod secrets;
mod steps;
mod target;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use assistant::Answers;
use secrets::NewSecret;

use crate::child;
use crate::cli::args::global::{DEFAULT_BASE_URL, GlobalArgs};
use crate::cli::args::setup::{InitArgs, ScheduleAction, ScheduledSyncArgs, SchedulerChoice};
use crate::cli::commands::schedule;
use crate::cli::settings::file;
use crate::cli::settings::file::{holds_password, without_references};
use crate::cli::settings::paths::{SETTINGS_NAME, folder_of};
use crate::cli::settings::template::{Values, list, quoted, template};
use crate::cli::terminal::output::{out, write_whole};
use crate::cli::terminal::prompt;
use crate::cli::values::choices::name_of;
use crate::error::{Error, Kind, Result, ResultExt};

pub(in crate::cli) async fn init(global: &GlobalArgs, args: &InitArgs) -> Result<()> {
    let path = global.settings.clone().unwrap_or_else(|| PathBuf::from(SETTINGS_NAME));
    if args.target.as_deref().is_some_and(holds_password) {
        return Err(Error::new(Kind::Usage, "The target contains a password, which must not be written to a settings file")
            .hint("use a variable instead, in single quotes: 'postgresql://etl:${LAKE_PASSWORD}@host/database'"));
    }
    if !args.yes && !global.non_interactive && prompt::can_ask() {
        return with_questions(global, args, &path).await;
    }
    write_new(&path, &checked(template(&of_options(global, args)?), &path)?)?;
    out(&format!("Wrote {} (only you can read it).\n", path.display()))?;
    if let Some(every) = args.interval {
        install(global, &path, every, args.yes)?;
    }
    let has_secret = args.secret_file.is_some() || args.credential_command.is_some();
    out(&format!(
        "\nNext steps:\n  export DAP_CLIENT_ID='region#id'{}\n  daplake check\n  daplake sync\n  daplake schedule install    # sync every 4 hours\n",
        if has_secret { "" } else { " DAP_CLIENT_SECRET='...'" },
    ))
}

/// The values of the options, and their defaults.
fn of_options(global: &GlobalArgs, args: &InitArgs) -> Result<Values> {
    let text = args.target.as_deref().unwrap_or("./lake");
    let target = if without_references(text) == text { target::absolute(text)? } else { text.to_owned() };
    let or = |names: &[String], usual: &str| if names.is_empty() { list(&[usual.to_owned()]) } else { list(names) };
    let mut values = Values::new(&args.name);
    if global.base_url != DEFAULT_BASE_URL {
        values.set("service", "url", quoted(&global.base_url));
    }
    values.set("service", "client_id", quoted("${DAP_CLIENT_ID}"));
    match (&args.secret_file, &args.credential_command) {
        (Some(file), _) => {
            let file = std::path::absolute(file).context(Kind::Usage, "The path of the secret file cannot be used")?;
            values.set("service", "client_secret", quoted(&format!("file:{}", file.display())));
        }
        (None, Some(command)) => values.set("service", "credential_command", list(&secrets::words(command)?)),
        (None, None) => values.set("service", "client_secret", quoted("${DAP_CLIENT_SECRET}")),
    }
    values.set("targets", "url", quoted(&target));
    if let Some(format) = args.format {
        values.set("targets", "format", quoted(name_of(format)));
    }
    values.set("sync", "namespaces", or(&args.namespace, "canvas"));
    values.set("sync", "tables", or(&args.table, "all"));
    if !args.exclude.is_empty() {
        values.set("sync", "exclude", list(&args.exclude));
    }
    Ok(values)
}

/// Asks, shows the file, writes it, and offers the schedule and the first sync.
async fn with_questions(global: &GlobalArgs, args: &InitArgs, path: &Path) -> Result<()> {
    let Answers { values, secrets, every, tables } = assistant::ask(global, args, path).await?;
    let text = checked(template(&values), path)?;
    out(&format!("\nThe settings file, {}:\n\n", path.display()))?;
    for line in set_lines(&text) {
        out(&format!("  {line}\n"))?;
    }
    out("\nIt also lists every other setting, as a comment. It contains no secret.\n")?;
    for NewSecret { path, .. } in &secrets {
        out(&format!("Secret, in a file that only you can read: {}\n", path.display()))?;
    }
    let replaced: Vec<String> = std::iter::once(path)
        .chain(secrets.iter().map(|secret| secret.path.as_path()))
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
        .collect();
    let question = match &replaced[..] {
        [] => "Write it?".to_owned(),
        files => format!("Replace {}?", files.join(" and ")),
    };
    if !prompt::confirm(&question, replaced.is_empty())? {
        return out("Nothing was written.\n");
    }
    for secret in &secrets {
        write("secret file", &secret.path, secret.secret.reveal())?;
    }
    write("settings file", path, &text)?;
    out(&format!("Wrote {}.\n\n", path.display()))?;
    let scheduled = match every {
        Some(every) => install(global, path, every, args.yes),
        None => Ok(()),
    };
    if let Err(error) = &scheduled {
        prompt::say(error)?;
    }
    let minutes = tables.map_or(0, |tables| tables.div_ceil(assistant::JOBS_PER_MINUTE));
    let time = if minutes > 1 { format!(" It takes about {minutes} minutes.") } else { String::new() };
    if prompt::confirm(&format!("\nStart the first sync now?{time}"), true)? {
        sync(path)?;
    }
    out(
        "\nNext steps:\n  daplake status              # how fresh the tables are\n  daplake check               # tests everything again\n",
    )?;
    scheduled
}

/// The lines of a settings file that set something, with their sections.
fn set_lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut section = None;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with('[') {
            section = Some(line);
        } else {
            lines.extend(section.take());
            lines.push(line);
        }
    }
    lines
}

/// Installs the schedule. It prints its steps, and asks unless `is_agreed`.
fn install(global: &GlobalArgs, path: &Path, every: Duration, is_agreed: bool) -> Result<()> {
    let mut global = global.clone();
    global.settings = Some(path.to_owned());
    schedule::install(
        &global,
        &ScheduledSyncArgs {
            action: ScheduleAction::Install,
            system: SchedulerChoice::Auto,
            interval: every,
            only: Vec::new(),
            name: "daplake".to_owned(),
            dry_run: false,
            yes: is_agreed,
        },
    )
}

/// Runs `daplake sync` as the schedule will. It gets the variables of this process.
fn sync(path: &Path) -> Result<()> {
    let program = std::env::current_exe().context(Kind::Io, "The path of this program is unknown")?;
    let arguments = ["sync".to_owned(), "--settings".to_owned(), path.display().to_string()];
    let mut command = child::program(&program.display().to_string(), &arguments, &["*"]);
    let status = command.status().context(Kind::Io, "The first sync cannot be started")?;
    if status.success() {
        return Ok(());
    }
    Err(Error::new(Kind::Target, "The first sync has failed; see above")
        .hint("correct the cause and run `daplake sync`; the settings file exists"))
}

/// The text, if it is valid. An error here is a defect of the template.
fn checked(text: String, path: &Path) -> Result<String> {
    file::parse(&text, path, &|_| Some("x".to_owned())).context(Kind::Bug, "The new settings file cannot be parsed")?;
    Ok(text)
}

/// Writes a file with mode 0600, in place of an existing one, and makes its folder.
fn write(noun: &str, path: &Path, text: &str) -> Result<()> {
    let written = std::fs::create_dir_all(folder_of(path)).and_then(|()| write_whole(path, text.as_bytes()));
    written.context(Kind::Io, format!("The {noun} cannot be written: {}", path.display()))
}

/// Creates the file with mode 0600. Kind `Usage` if it exists.
fn write_new(path: &Path, text: &str) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Error::new(Kind::Usage, "The settings file already exists and was not changed")
                .with_field("file", path.display())
                .hint("give another path with --settings, or move the file away"))
        }
        other => other.context(Kind::Io, format!("The settings file cannot be written: {}", path.display())),
    }
}
