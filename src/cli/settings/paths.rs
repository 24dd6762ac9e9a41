//! Folders by the conventions of the system, and variables.

use std::borrow::Cow;
use std::path::PathBuf;

use crate::error::{Error, Kind, Result};

/// The name of the settings file.
pub(in crate::cli) const SETTINGS_NAME: &str = "daplake.toml";

/// Our folder for settings by the conventions of the system.
pub(in crate::cli) fn config_dir() -> Option<PathBuf> {
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
pub(in crate::cli) fn variable(name: &str) -> Option<String> {
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
