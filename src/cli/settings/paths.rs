//! Folders of the system and variables of the environment.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

/// The name of the settings file.
pub(in crate::cli) const SETTINGS_NAME: &str = "daplake.toml";

/// The folder for settings: that of the system, such as `~/.config/daplake`. `None` if there is no home folder.
pub(in crate::cli) fn config_dir() -> Option<PathBuf> {
    if cfg!(windows) {
        return Some(absolute_variable("APPDATA")?.join("daplake"));
    }
    if cfg!(target_os = "macos") {
        return Some(home()?.join("Library/Application Support/daplake"));
    }
    Some(xdg_config()?.join("daplake"))
}

/// The folder for settings of all programs, by the convention of Linux.
pub(in crate::cli) fn xdg_config() -> Option<PathBuf> {
    absolute_variable("XDG_CONFIG_HOME").or_else(|| Some(home()?.join(".config")))
}

fn absolute_variable(name: &str) -> Option<PathBuf> {
    variable(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

pub(in crate::cli) fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| home.is_absolute())
}

/// Replaces a leading `~` by the home folder. Shells leave it in quotes and after a `=`.
pub(in crate::cli) fn at_home(text: &str) -> Result<Cow<'_, str>> {
    let Some(rest) = text.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/')) else {
        return Ok(text.into());
    };
    match home() {
        Some(home) => Ok(home.join(rest.trim_start_matches('/')).display().to_string().into()),
        None => Err(Error::new(Kind::Usage, "The home folder is unknown").hint("give the full path of the folder")),
    }
}

/// The folder of the settings file, where relative paths start.
pub(in crate::cli) fn folder_of(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.parent().map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// The value of a variable; an empty one counts as unset.
pub(in crate::cli) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The folder for the state of runs: the given one, else that of the system. `None` if there is no home folder.
pub(in crate::cli) fn state_dir(given: Option<PathBuf>) -> Option<PathBuf> {
    given.or_else(|| {
        if cfg!(windows) {
            return Some(absolute_variable("LOCALAPPDATA")?.join("daplake"));
        }
        if cfg!(target_os = "macos") {
            return Some(home()?.join("Library/Application Support/daplake"));
        }
        // systemd sets this variable for services with `StateDirectory=`.
        let of_service = absolute_variable("STATE_DIRECTORY");
        of_service.or_else(|| {
            Some(absolute_variable("XDG_STATE_HOME").or_else(|| Some(home()?.join(".local/state")))?.join("daplake"))
        })
    })
}
