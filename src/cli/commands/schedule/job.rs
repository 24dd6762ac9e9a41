//! The scheduled run: its command line, its times, and the files that it needs. Checks that it would work without the user's shell.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::step::{MARKER, NewFile};
use super::times::Times;
use crate::child;
use crate::cli::args::global::GlobalArgs;
use crate::cli::args::setup::ScheduledSyncArgs;
use crate::cli::settings::credential_command::KEY_STORES;
use crate::cli::settings::file::FileSettings;
use crate::cli::settings::paths::{SETTINGS_NAME, config_dir, state_dir, variable};
use crate::cli::settings::resolve::settings_file;
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};

/// A scheduled run.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) name: String,
    pub(super) times: Times,
    /// The program and its arguments. They contain no secret.
    pub(super) command: Vec<String>,
    pub(super) log: PathBuf,
    pub(super) settings: PathBuf,
    /// File with the variables of the run.
    pub(super) environment: PathBuf,
    variables: BTreeMap<String, String>,
}

/// Variables that the run needs besides [`child::NETWORK`] and those in the settings file. A trailing `*` matches any suffix.
const PASSED: &[&str] = &[
    // Notification commands are found as in the user's shell.
    "PATH",
    "DAP_*",
    "DAPLAKE_*",
    "AWS_*",
    "AZURE_*",
    "GOOGLE_*",
    "PGHOST",
    "PGPORT",
    "PGUSER",
    "PGPASSWORD",
    "PGDATABASE",
    "PGPASSFILE",
    "PGSSL*",
    "OTEL_*",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
];

/// Variables that would choose another file or target than the schedule names.
const OVERRIDING: [&str; 2] = ["DAPLAKE_SETTINGS", "DAPLAKE_TARGET"];

/// Temporary credentials, which would have expired at the next run.
const TEMPORARY: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

impl Job {
    /// The run of the options. Kind `Usage` if there is no settings file, or if it needs what the run would not have.
    pub(super) fn new(global: &GlobalArgs, args: &ScheduledSyncArgs) -> Result<Self> {
        let settings = settings_file(global.settings.clone())?.ok_or_else(|| {
            Error::new(Kind::Usage, "A scheduled run needs a settings file, and there is none")
                .hint(format!("`daplake init --target TARGET` writes {SETTINGS_NAME}; `daplake check` tests it"))
        })?;
        let settings = absolute(&settings)?;
        let variables = variables(&settings, &args.only)?;
        let log = match &global.logfile {
            Some(path) => absolute(path)?,
            None => known(state_dir(variable("DAPLAKE_STATE_DIR").map(PathBuf::from)))?.join(format!("{}.log", args.name)),
        };
        let program = std::env::current_exe().context(Kind::Io, "The path of this program is unknown")?;
        let mut command = vec![text(&program)?, "sync".to_owned(), "--settings".to_owned(), text(&settings)?];
        if !args.only.is_empty() {
            command.extend(["--to".to_owned(), args.only.join(",")]);
        }
        command.extend(["--quiet", "--logfile"].map(str::to_owned));
        command.push(text(&log)?);
        let times = Times::new(args.interval, spread(&settings, &args.name))?;
        let environment = environment_file(&args.name)?;
        Ok(Self { name: args.name.clone(), times, command, log, settings, environment, variables })
    }

    /// Names of the variables that the environment file holds.
    pub(super) fn variable_names(&self) -> Vec<&str> {
        self.variables.keys().map(String::as_str).collect()
    }

    /// The environment file, for a shell and for `EnvironmentFile=` of systemd. Values are in double quotes, whose escapes are the same
    /// for both. They are never printed.
    pub(super) fn environment_file(&self) -> NewFile {
        let mut text = format!("# {MARKER}: variables of the scheduled run. Only its user may read them.\n");
        let mut shown = text.clone();
        for (name, value) in &self.variables {
            let mut quoted = String::new();
            for letter in value.chars() {
                if matches!(letter, '"' | '\\' | '`' | '$') {
                    quoted.push('\\');
                }
                quoted.push(letter);
            }
            text.push_str(&format!("{name}=\"{quoted}\"\n"));
            shown.push_str(&format!("{name}=***\n"));
        }
        NewFile { path: self.environment.clone(), bytes: text.into_bytes(), shown, is_private: true }
    }

    /// The run as arguments of `/bin/sh`, which reads the environment file first. No word is interpreted by the shell.
    pub(super) fn shell_command(&self) -> Result<Vec<String>> {
        let script = "set -a; . \"$0\"; exec \"$@\"";
        let mut words = vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned(), text(&self.environment)?];
        words.extend(self.command.iter().cloned());
        Ok(words)
    }

    /// Refuses variables where the scheduler has no file for them.
    pub(super) fn check_without_variables(&self) -> Result<()> {
        let inherited = |name: &&str| !matches!(*name, "PATH");
        let names: Vec<&str> = self.variable_names().into_iter().filter(inherited).collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(Error::new(Kind::Usage, "The Task Scheduler does not have the variables of this session")
            .with_field("variables", names.join(", "))
            .hint(
                "write secrets into files and refer to them, such as client_secret = \"file:dap.secret\"; write other values into the settings file",
            ))
    }
}

/// The environment file of a schedule.
pub(super) fn environment_file(name: &str) -> Result<PathBuf> {
    Ok(known(config_dir())?.join(format!("{name}.env")))
}

/// A folder of the user. Kind `Usage` if there is no home folder.
pub(super) fn known(folder: Option<PathBuf>) -> Result<PathBuf> {
    folder.ok_or_else(|| Error::new(Kind::Usage, "The home folder is unknown").hint("set HOME"))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).context(Kind::Usage, "A path of the schedule cannot be used").with_field("path", path.display())
}

/// A path as text. Schedulers cannot represent other bytes, and a line break would begin a new entry.
fn text(path: &Path) -> Result<String> {
    let text = path.to_str().filter(|text| !text.contains(char::is_control));
    text.map(str::to_owned).ok_or_else(|| {
        Error::new(Kind::Usage, "A path contains characters that no scheduler accepts").with_field("path", path.display())
    })
}

/// A number from the name and the settings file: the same at each installation, and different at each institution.
fn spread(settings: &Path, name: &str) -> u64 {
    let host = variable("HOSTNAME").unwrap_or_default();
    let words = [settings.to_string_lossy().as_ref(), name, &host].join("\n");
    words.bytes().fold(7, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)))
}

/// The variables of this process that the run needs. Reads the settings file, and refuses one whose variables or secrets are missing.
fn variables(settings: &Path, only: &[String]) -> Result<BTreeMap<String, String>> {
    let used = RefCell::new(Vec::new());
    let lookup = |name: &str| {
        let value = variable(name);
        used.borrow_mut().extend(value.clone().map(|value| (name.to_owned(), value)));
        value
    };
    let read = FileSettings::read(settings, &lookup, &|_| false)?;
    let of_key_stores = if read.has_credential_command { KEY_STORES } else { &[] };
    let hint = "export the variable and install the schedule again, or write the secret into a file: \"file:PATH\"";
    if let Some((section, problem)) = read.unresolved.into_iter().next() {
        return Err(Error::new(Kind::Usage, format!("A scheduled run would fail. {problem}"))
            .with_field("section", format!("[{section}]"))
            .hint(hint));
    }
    let names: Vec<String> = read.targets.iter().map(|target| target.name.clone()).collect();
    if names.is_empty() {
        return Err(Error::new(Kind::Usage, "The settings file has no target")
            .with_field("file", settings.display())
            .hint("add a section such as [targets.lake] with url = \"./lake\""));
    }
    if let Some(unknown) = only.iter().find(|name| !names.contains(name)) {
        return Err(Error::new(Kind::Usage, "The settings file has no target of that name")
            .with_field("name", unknown)
            .hint(format!("the targets are: {}", names.join(", "))));
    }
    let wanted = read.targets.into_iter().filter(|target| only.is_empty() || only.contains(&target.name));
    for target in wanted {
        if let Some(problem) = target.problem {
            return Err(problem.with_field("target", target.name).hint(hint));
        }
    }
    let is_passed = |name: &str| {
        PASSED.iter().chain(child::NETWORK).chain(of_key_stores).any(|known| match known.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *known,
        })
    };
    let is_temporary = variable("AWS_SESSION_TOKEN").is_some();
    let inherited = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let inherited = inherited.filter(|(name, value)| {
        let skipped = OVERRIDING.contains(&name.as_str()) || (is_temporary && TEMPORARY.contains(&name.as_str()));
        is_passed(name) && !skipped && !value.is_empty()
    });
    Ok(inherited.chain(used.into_inner()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(variables: &[(&str, &str)]) -> Job {
        Job {
            name: "daplake".into(),
            times: Times { every: 240, first: 20 },
            command: vec!["/usr/bin/daplake".into(), "sync".into()],
            log: "/tmp/log".into(),
            settings: "/tmp/settings".into(),
            environment: "/tmp/a b.env".into(),
            variables: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    /// The shell reads back every value.
    #[cfg(unix)]
    #[test]
    fn values_of_the_environment_file_are_exact_and_not_shown() {
        let odd = "p\"a'$HOME`id`\\n#%d \t$(x) é\nnext";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.env");
        let file = job(&[("ODD", odd)]).environment_file();
        assert!(file.shown.contains("ODD=***") && !file.shown.contains("HOME"), "{}", file.shown);
        std::fs::write(&path, &file.bytes).unwrap();
        let print = "printf %s \"$ODD\"";
        let output = std::process::Command::new("sh")
            .args(["-c", &format!("set -a; . \"$0\"; exec sh -c '{print}'")])
            .arg(&path)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), odd);
    }

    #[test]
    fn a_scheduler_without_a_file_for_variables_refuses_them() {
        assert!(job(&[("PATH", "/bin")]).check_without_variables().is_ok());
        let error = job(&[("PATH", "/bin"), ("DAP_CLIENT_SECRET", "planted")]).check_without_variables().unwrap_err();
        assert!(error.to_string().contains("DAP_CLIENT_SECRET") && !error.to_string().contains("planted"), "{error}");
    }
}
