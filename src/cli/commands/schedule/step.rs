//! The steps of an installation or a removal: files to write or remove, and programs to run. Steps are printed before they are
//! done.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use crate::child;
use crate::cli::terminal::output::file_beside;
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::ops::make_private;

/// In everything that `install` creates: `remove` and `install` touch nothing without it.
pub(super) const MARKER: &str = "Created by `daplake schedule install`";

/// One step.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Create a folder that only the user can enter.
    Folder(PathBuf),
    Write(NewFile),
    Remove(PathBuf),
    Run(Call),
}

/// A file to write.
#[derive(Debug, Clone)]
pub(super) struct NewFile {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
    /// The text that is printed for it.
    pub(super) shown: String,
    /// Only the owner may read it.
    pub(super) is_private: bool,
}

impl NewFile {
    /// A file that can be printed.
    pub(super) fn text(path: PathBuf, text: String) -> Self {
        Self { path, bytes: text.clone().into_bytes(), shown: text, is_private: false }
    }

    /// Whether the file has this content already.
    pub(super) fn is_current(&self) -> bool {
        std::fs::read(&self.path).is_ok_and(|bytes| bytes == self.bytes)
    }

    /// Refuses a file that daplake did not write.
    pub(super) fn check_owner(&self) -> Result<()> {
        if !self.path.exists() || is_ours(&self.path) {
            return Ok(());
        }
        Err(Error::new(Kind::Usage, "A file of another program has the name that the schedule needs")
            .with_field("file", self.path.display())
            .hint("give the schedule another name with --name, or move the file away"))
    }
}

/// Whether a file was created by `install`.
pub(super) fn is_ours(path: &Path) -> bool {
    let bytes = std::fs::read(path).unwrap_or_default();
    let has = |marker: &[u8]| bytes.windows(marker.len()).any(|window| window == marker);
    has(MARKER.as_bytes()) || has(&utf16(MARKER))
}

/// UTF-16, little-endian, without a byte order mark.
pub(super) fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// A call of a program of the system.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) program: &'static str,
    pub(super) arguments: Vec<String>,
    /// Text for its standard input, which is printed.
    pub(super) input: Option<String>,
    /// Whether a failure is ignored, such as stopping what does not run.
    pub(super) may_fail: bool,
}

impl Call {
    pub(super) fn new(program: &'static str, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self { program, arguments, input: None, may_fail: false }
    }

    #[must_use]
    pub(super) fn may_fail(self) -> Self {
        Self { may_fail: true, ..self }
    }

    /// Runs the program and returns what it printed. An error if it cannot be started.
    pub(super) fn output(&self) -> Result<Output> {
        let failed = || format!("{} cannot be run", self.program);
        let mut command = child::program(self.program, &self.arguments, &[]);
        let stdin = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut running =
            command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context(Kind::Io, failed())?;
        if let (Some(mut stdin), Some(input)) = (running.stdin.take(), &self.input) {
            // If the program does not read it, its exit code says why.
            let _ = stdin.write_all(input.as_bytes());
        }
        running.wait_with_output().context(Kind::Io, failed())
    }

    /// Whether the program can be started and succeeds.
    pub(super) fn succeeds(&self) -> bool {
        self.output().is_ok_and(|output| output.status.success())
    }

    /// Its standard output, if it succeeds.
    pub(super) fn text(&self) -> Option<String> {
        let output = self.output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn run(&self) -> Result<()> {
        if self.may_fail {
            let _ = self.output();
            return Ok(());
        }
        let output = self.output()?;
        if output.status.success() {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let error = Error::new(Kind::Io, format!("{} failed", self.program))
            .with_field("arguments", self.arguments.join(" "))
            .with_field("status", output.status);
        Err(if message.is_empty() { error } else { error.caused_by(message) })
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.program)?;
        for argument in &self.arguments {
            write!(f, " {}", shell_word(argument))?;
        }
        Ok(())
    }
}

impl Step {
    /// The step for people.
    pub(super) fn describe(&self) -> String {
        let indented = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
        match self {
            Step::Write(file) => {
                let mode = if file.is_private { ", which only you can read" } else { "" };
                format!("write {}{mode}\n{}", file.path.display(), indented(&file.shown))
            }
            Step::Folder(path) => format!("create the folder {}\n", path.display()),
            Step::Remove(path) => format!("remove {}\n", path.display()),
            Step::Run(call) => format!("run {call}\n{}", call.input.as_deref().map(indented).unwrap_or_default()),
        }
    }

    /// Does the step.
    pub(super) fn run(&self) -> Result<()> {
        match self {
            Step::Folder(path) => make_private(path)
                .context(Kind::Io, "The folder of the log cannot be created")
                .with_field("folder", path.display()),
            Step::Write(file) => write(file),
            Step::Remove(path) => match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(error).context(Kind::Io, "A file of the schedule cannot be removed").with_field("file", path.display())
                }
                _ => Ok(()),
            },
            Step::Run(call) => call.run(),
        }
    }
}

/// Writes a file as a whole, with its mode from the beginning.
fn write(file: &NewFile) -> Result<()> {
    let write = || {
        if let Some(folder) = file.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        // A temporary file is private.
        let mut new = file_beside(&file.path)?;
        new.write_all(&file.bytes)?;
        #[cfg(unix)]
        if !file.is_private {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            new.as_file().set_permissions(mode)?;
        }
        new.persist(&file.path)?;
        std::io::Result::Ok(())
    };
    write().context(Kind::Io, "A file of the schedule cannot be written").with_field("file", file.path.display())
}

/// A word of a POSIX shell, in quotes where needed.
pub(super) fn shell_word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-=:,@+".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_shell_are_quoted_where_needed() {
        for (text, expected) in [
            ("/usr/bin/daplake", "/usr/bin/daplake"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(text), expected);
        }
    }
}
