//! Where a secret is kept: in a private file, in a variable, or in a key store with a command. Reads it at once, so that it can be tested.

use std::path::{Path, PathBuf};

use crate::cli::settings::credential_command::secret_of;
use crate::cli::settings::paths::variable;
use crate::cli::terminal::output::out;
use crate::cli::terminal::prompt;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::redact::Secret;

/// Where the settings file finds a secret.
pub(super) enum Place {
    /// A file that `init` writes, by its name beside the settings file.
    NewFile(String),
    /// A file that exists.
    File(PathBuf),
    Variable(String),
    Command(Vec<String>),
}

/// A secret, and where it is kept.
pub(super) struct Kept {
    pub(super) secret: Secret,
    pub(super) place: Place,
}

/// A file with a secret, to be written beside the settings file.
pub(super) struct NewSecret {
    pub(super) path: PathBuf,
    pub(super) secret: Secret,
}

/// Asks where a secret is, and reads it. `name` is that of its variable, `file` that of its file beside the settings file in `folder`.
pub(super) fn ask(noun: &str, name: &str, file: &str, folder: &Path) -> Result<Kept> {
    let is_set = variable(name).is_some();
    let options = [
        format!("enter it now; it is stored in the file {file}, which only you can read"),
        format!("in the variable {name}, {}", if is_set { "which is set" } else { "which is not set" }),
        "printed by a command, such as a password manager".to_owned(),
    ];
    loop {
        match prompt::choose(&format!("Where is the {noun}?"), &options, usize::from(is_set))? {
            0 => {
                let secret = prompt::secret(&capitalised(noun))?;
                return Ok(Kept { secret, place: Place::NewFile(file.to_owned()) });
            }
            1 => match variable(name) {
                Some(secret) => return Ok(Kept { secret: Secret::new(secret), place: Place::Variable(name.to_owned()) }),
                None => {
                    out(&format!("  {name} is not set. Export it and start `daplake init` again, or choose another place.\n"))?
                }
            },
            _ => {
                let answer = prompt::line("Command, such as pass show daplake", "")?;
                match by_command(&answer, folder) {
                    Ok(kept) => return Ok(kept),
                    Err(error) => prompt::say(&error)?,
                }
            }
        }
    }
}

/// The secret that a command prints.
pub(super) fn by_command(command: &str, folder: &Path) -> Result<Kept> {
    let words = words(command)?;
    Ok(Kept { secret: secret_of(&words, folder)?, place: Place::Command(words) })
}

/// The secret in an existing file.
pub(super) fn by_file(path: &Path) -> Result<Kept> {
    let text = std::fs::read_to_string(path).context(Kind::Usage, "The secret file cannot be read")?;
    let path = std::path::absolute(path).context(Kind::Usage, "The path of the secret file cannot be used")?;
    Ok(Kept { secret: Secret::new(text.trim_end_matches(['\n', '\r'])), place: Place::File(path) })
}

/// Splits a command at spaces outside of quotes. There are no other special characters.
pub(super) fn words(command: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if quote.is_some() {
        return Err(Error::new(Kind::Usage, "The command has a quote that is not closed"));
    }
    if words.first().is_none_or(String::is_empty) {
        return Err(Error::new(Kind::Usage, "No command was given"));
    }
    Ok(words)
}

fn capitalised(noun: &str) -> String {
    let mut letters = noun.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_blanks_of_a_command() {
        let words = |text: &str| words(text).map_err(|error| error.to_string());
        assert_eq!(words("pass show  'a b' \"c'd\" x\"y z\" ''").unwrap(), ["pass", "show", "a b", "c'd", "xy z", ""]);
        assert_eq!(words(r"C:\bin\get.exe $X").unwrap(), [r"C:\bin\get.exe", "$X"]);
        assert!(words(" ").unwrap_err().contains("No command") && words("a 'b").unwrap_err().contains("not closed"));
    }
}
