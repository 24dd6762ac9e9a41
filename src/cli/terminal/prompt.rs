//! Questions on a terminal. Every question has a default, which is taken by pressing Enter.

use std::io::IsTerminal;

use console::Term;

use crate::cli::terminal::output::out;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::redact::Secret;

/// Whether questions can be asked: both standard input and standard output are terminals.
pub(in crate::cli) fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Asks for a line; `default` is the answer to an empty one.
pub(in crate::cli) fn line(question: &str, default: &str) -> Result<String> {
    let shown = if default.is_empty() { String::new() } else { format!(" [{default}]") };
    out(&format!("{question}{shown}: "))?;
    let answer = read_line()?;
    let answer = answer.trim();
    Ok(if answer.is_empty() { default.to_owned() } else { answer.to_owned() })
}

/// Asks until the answer can be read. An error is printed with its hint.
pub(in crate::cli) fn valid<T>(question: &str, default: &str, read: impl Fn(&str) -> Result<T>) -> Result<T> {
    loop {
        match read(&line(question, default)?) {
            Ok(value) => return Ok(value),
            Err(error) => say(&error)?,
        }
    }
}

/// Asks for a line that the terminal does not show.
pub(in crate::cli) fn secret(question: &str) -> Result<Secret> {
    loop {
        out(&format!("{question} (hidden): "))?;
        let typed = Term::stdout().read_secure_line().context(Kind::Io, "The terminal cannot be read")?;
        match typed.trim() {
            "" => out("  Nothing was entered.\n")?,
            secret => return Ok(Secret::new(secret)),
        }
    }
}

/// Asks for yes or no.
pub(in crate::cli) fn confirm(question: &str, default: bool) -> Result<bool> {
    loop {
        out(&format!("{question} [{}] ", if default { "Y/n" } else { "y/N" }))?;
        match read_line()?.trim().to_ascii_lowercase().as_str() {
            "" => return Ok(default),
            "y" | "yes" => return Ok(true),
            "n" | "no" => return Ok(false),
            _ => out("  Please answer y or n.\n")?,
        }
    }
}

/// Asks for one of several options, by number. Returns its index.
pub(in crate::cli) fn choose(question: &str, options: &[String], default: usize) -> Result<usize> {
    out(&format!("{question}\n"))?;
    for (number, option) in options.iter().enumerate() {
        out(&format!("  {}  {option}\n", number + 1))?;
    }
    valid("Number", &(default + 1).to_string(), |answer| {
        let number = answer.parse::<usize>().ok().filter(|number| (1..=options.len()).contains(number));
        let wrong = || Error::new(Kind::Usage, format!("Please answer with a number from 1 to {}", options.len()));
        number.map(|number| number - 1).ok_or_else(wrong)
    })
}

/// Prints why an answer cannot be used.
pub(in crate::cli) fn say(error: &Error) -> Result<()> {
    let hint = error.hint_text().map_or_else(String::new, |hint| format!("\n  hint: {hint}"));
    let causes: String = error.causes().iter().map(|cause| format!(": {cause}")).collect();
    out(&format!("  {error}{causes}{hint}\n"))
}

/// A line of standard input. Kind `Cancelled` at its end.
fn read_line() -> Result<String> {
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer).context(Kind::Io, "The terminal cannot be read")?;
    if read == 0 {
        return Err(Error::new(Kind::Cancelled, "The input has ended; nothing was written"));
    }
    Ok(answer)
}
