//! `schedule`: runs `sync` regularly by the scheduler of the operating system. Each step is printed before it is done.

mod cron;
mod job;
mod launchd;
mod step;
mod systemd;
mod times;
mod windows;
mod xml;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::args::global::GlobalArgs;
use crate::cli::args::setup::{ScheduleAction, ScheduledSyncArgs, SchedulerChoice};
use crate::cli::terminal::output::{note, out};
use crate::error::{Error, Kind, Result};
use job::{Job, environment_file};
use step::{NewFile, Step, is_ours};
use times::Times;

/// A scheduler of an operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheduler {
    Systemd,
    Launchd,
    Windows,
    Cron,
}

const ALL: [Scheduler; 4] = [Scheduler::Systemd, Scheduler::Launchd, Scheduler::Windows, Scheduler::Cron];

impl Scheduler {
    fn name(self) -> &'static str {
        match self {
            Scheduler::Systemd => "systemd",
            Scheduler::Launchd => "launchd",
            Scheduler::Windows => "windows",
            Scheduler::Cron => "cron",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Scheduler::Systemd => "a timer of your systemd user manager",
            Scheduler::Launchd => "a launch agent",
            Scheduler::Windows => "a task of the Task Scheduler",
            Scheduler::Cron => "an entry of your crontab",
        }
    }

    /// Files besides the environment file.
    fn files(self, job: &Job) -> Result<Vec<NewFile>> {
        match self {
            Scheduler::Systemd => systemd::files(job),
            Scheduler::Launchd => launchd::files(job),
            Scheduler::Windows => windows::files(job),
            Scheduler::Cron => Ok(Vec::new()),
        }
    }

    /// The parts of an installed schedule: its files and its crontab entry. Empty if it is not installed.
    fn installed(self, name: &str) -> Result<Found> {
        let files = match self {
            Scheduler::Systemd => systemd::installed(name)?,
            Scheduler::Launchd => launchd::installed(name)?,
            Scheduler::Windows => windows::installed(name)?,
            Scheduler::Cron => return Ok(Found { files: Vec::new(), entry: cron::installed(name)? }),
        };
        Ok(Found { files, entry: None })
    }

    /// Whether it can be asked for its schedules.
    fn is_present(self) -> bool {
        match self {
            Scheduler::Systemd | Scheduler::Launchd => true,
            Scheduler::Windows => cfg!(windows),
            Scheduler::Cron => cron::is_available(),
        }
    }

    fn remark(self) -> Option<String> {
        match self {
            Scheduler::Systemd => systemd::remark(),
            Scheduler::Windows => Some(windows::remark()),
            Scheduler::Launchd | Scheduler::Cron => None,
        }
    }
}

/// An installed schedule.
struct Found {
    files: Vec<PathBuf>,
    entry: Option<String>,
}

impl Found {
    fn is_installed(&self) -> bool {
        !self.files.is_empty() || self.entry.is_some()
    }
}

pub(in crate::cli) fn schedule(global: &GlobalArgs, args: &ScheduledSyncArgs) -> Result<()> {
    match args.action {
        ScheduleAction::Install => install(global, args),
        ScheduleAction::Status => status(args),
        ScheduleAction::Remove => remove(args),
    }
}

/// Creates or changes the schedule.
pub(in crate::cli) fn install(global: &GlobalArgs, args: &ScheduledSyncArgs) -> Result<()> {
    let job = Job::new(global, args)?;
    let scheduler = chosen(args.system)?;
    for other in ALL.into_iter().filter(|other| *other != scheduler && other.is_present()) {
        // A scheduler that cannot be asked has no schedule of daplake.
        if other.installed(&args.name).is_ok_and(|found| found.is_installed()) {
            return Err(Error::new(Kind::Usage, format!("The schedule is installed already, as {}", other.noun()))
                .with_field("name", &args.name)
                .hint(format!("`daplake schedule remove --system {}` removes it; --name installs another one", other.name())));
        }
    }
    let mut files = scheduler.files(&job)?;
    if scheduler != Scheduler::Windows {
        files.insert(0, job.environment_file());
    }
    for file in &files {
        file.check_owner()?;
    }
    let changed: Vec<NewFile> = files.into_iter().filter(|file| !file.is_current()).collect();
    let calls = match scheduler {
        Scheduler::Cron => cron::activate(&job)?.into_iter().collect(),
        _ if changed.is_empty() && is_active(scheduler, &args.name) => Vec::new(),
        Scheduler::Systemd => systemd::activate(&args.name),
        Scheduler::Launchd => launchd::activate(&args.name)?,
        Scheduler::Windows => windows::activate(&args.name)?,
    };
    // A run cannot start if it cannot open its log.
    let folder = job.log.parent().filter(|folder| !folder.is_dir()).map(|folder| Step::Folder(folder.to_owned()));
    let changed = changed.into_iter().map(Step::Write);
    let steps: Vec<Step> = folder.into_iter().chain(changed).chain(calls.into_iter().map(Step::Run)).collect();
    if steps.is_empty() {
        return out(&format!(
            "The schedule is installed already, as {}; nothing has to be changed.\n{}",
            scheduler.noun(),
            summary(&job)
        ));
    }
    out(&format!("`daplake sync` as {}, {}:\n\n{}\n", scheduler.noun(), job.times.words(), summary(&job)))?;
    if !carry_out(args, &steps)? {
        return Ok(());
    }
    out("Installed. `daplake schedule status` shows the next run; `daplake schedule remove` removes it.\n")?;
    if let Some(remark) = scheduler.remark() {
        note(&format!("note: {remark}"));
    }
    Ok(())
}

/// Whether this machine has a scheduler to install into.
pub(in crate::cli) fn check_available() -> Result<()> {
    chosen(SchedulerChoice::Auto).map(|_| ())
}

/// Whether schedulers can repeat a run at an interval.
pub(in crate::cli) fn check_interval(every: Duration) -> Result<()> {
    Times::new(every, 0).map(|_| ())
}

fn is_active(scheduler: Scheduler, name: &str) -> bool {
    match scheduler {
        Scheduler::Systemd => systemd::is_active(name),
        Scheduler::Launchd => launchd::is_active(name),
        Scheduler::Windows => windows::is_active(name),
        Scheduler::Cron => true,
    }
}

/// The scheduled command and its files.
fn summary(job: &Job) -> String {
    format!(
        "  command    {}\n  settings   {}\n  log        {}\n  variables  {}\n",
        job.command.join(" "),
        job.settings.display(),
        job.log.display(),
        job.variable_names().join(", ")
    )
}

/// Prints the steps and does them, after confirmation. Returns whether they were done.
fn carry_out(args: &ScheduledSyncArgs, steps: &[Step]) -> Result<bool> {
    for step in steps {
        out(&step.describe())?;
    }
    if args.dry_run {
        out("\nNothing was changed (--dry-run).\n")?;
        return Ok(false);
    }
    if !args.yes && !confirmed()? {
        out("Nothing was changed.\n")?;
        return Ok(false);
    }
    for step in steps {
        step.run()?;
    }
    Ok(true)
}

/// Asks on a terminal. Kind `Usage` without one.
fn confirmed() -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::new(Kind::Usage, "Changing the schedule needs a confirmation, and there is no terminal")
            .hint("confirm with --yes, or print the steps with --dry-run"));
    }
    out("\nContinue? [y/N] ")?;
    let mut answer = String::new();
    let _ = std::io::stdin().read_line(&mut answer);
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Prints what is installed. Kind `NotFound` if nothing is, so that a monitor notices.
fn status(args: &ScheduledSyncArgs) -> Result<()> {
    let mut is_any = false;
    for scheduler in asked(args.system) {
        let Some(found) = found(args, scheduler)? else { continue };
        is_any = true;
        out(&format!("{} is installed as {}.\n", args.name, scheduler.noun()))?;
        let mut lines: Vec<(&str, String)> = match scheduler {
            Scheduler::Systemd => systemd::state(&args.name),
            Scheduler::Launchd => launchd::state(&args.name),
            Scheduler::Windows => windows::state(&args.name),
            Scheduler::Cron => Vec::new(),
        };
        lines.extend(found.files.iter().map(|path| ("file", path.display().to_string())));
        let entry = found.entry.iter().flat_map(|entry| entry.lines()).filter(|line| !line.starts_with('#'));
        lines.extend(entry.map(|line| ("entry", line.to_owned())));
        lines.extend(
            environment_file(&args.name)
                .ok()
                .filter(|path| is_ours(path))
                .map(|path| ("variables", path.display().to_string())),
        );
        for (name, value) in lines {
            out(&format!("  {name:<12} {value}\n"))?;
        }
    }
    if is_any {
        return Ok(());
    }
    Err(Error::new(Kind::NotFound, format!("No schedule named {} is installed", args.name))
        .hint("`daplake schedule install` creates one"))
}

/// Removes what `install` created.
fn remove(args: &ScheduledSyncArgs) -> Result<()> {
    let mut steps = Vec::new();
    for scheduler in asked(args.system) {
        let Some(found) = found(args, scheduler)? else { continue };
        steps.extend(match scheduler {
            Scheduler::Systemd => systemd::remove(&args.name, found.files),
            Scheduler::Launchd => launchd::remove(&args.name, found.files),
            Scheduler::Windows => windows::remove(&args.name, found.files),
            Scheduler::Cron => cron::remove(&args.name)?,
        });
    }
    let is_needed_elsewhere = args.system != SchedulerChoice::Auto
        && ALL
            .into_iter()
            .filter(|other| !asked(args.system).contains(other) && other.is_present())
            .any(|other| other.installed(&args.name).is_ok_and(|found| found.is_installed()));
    if !is_needed_elsewhere {
        steps.extend(environment_file(&args.name).ok().filter(|path| is_ours(path)).map(Step::Remove));
    }
    if steps.is_empty() {
        return out(&format!("No schedule named {} is installed; nothing was removed.\n", args.name));
    }
    if carry_out(args, &steps)? {
        out("Removed. The settings file, the log and the tables are still there.\n")?;
    }
    Ok(())
}

/// The schedule in a scheduler. `None` also if the scheduler was not requested and does not respond.
fn found(args: &ScheduledSyncArgs, scheduler: Scheduler) -> Result<Option<Found>> {
    match scheduler.installed(&args.name) {
        Ok(found) => Ok(found.is_installed().then_some(found)),
        Err(_) if args.system == SchedulerChoice::Auto => Ok(None),
        Err(error) => Err(error),
    }
}

/// The scheduler that the user named.
fn named(system: SchedulerChoice) -> Option<Scheduler> {
    match system {
        SchedulerChoice::Auto => None,
        SchedulerChoice::Systemd => Some(Scheduler::Systemd),
        SchedulerChoice::Launchd => Some(Scheduler::Launchd),
        SchedulerChoice::Windows => Some(Scheduler::Windows),
        SchedulerChoice::Cron => Some(Scheduler::Cron),
    }
}

/// The schedulers of a command that reads.
fn asked(system: SchedulerChoice) -> Vec<Scheduler> {
    match named(system) {
        Some(scheduler) => vec![scheduler],
        None => ALL.into_iter().filter(|scheduler| scheduler.is_present()).collect(),
    }
}

/// The scheduler to install into.
fn chosen(system: SchedulerChoice) -> Result<Scheduler> {
    match named(system) {
        Some(scheduler) => Ok(scheduler),
        None if cfg!(windows) => Ok(Scheduler::Windows),
        None if cfg!(target_os = "macos") => Ok(Scheduler::Launchd),
        None if systemd::is_available() => Ok(Scheduler::Systemd),
        None if cron::is_available() => Ok(Scheduler::Cron),
        None => Err(Error::new(Kind::Unsupported, "This machine has neither a systemd user manager nor cron")
            .hint("install cron, or let `daplake sync --watch` run as a service (docs/guides/scheduling.md)")),
    }
}
