//! Text on the two streams. A closed pipe on standard output ends the program quietly.

use std::io::{IsTerminal, Write};
#[cfg(feature = "lake")]
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;

use crate::error::{Error, Kind, Result};
pub(in crate::cli) use crate::page::figures::{age, grouped, size};
use crate::redact::visible_lines;

/// The live line at the bottom of a terminal, if there is one. Text must not be written through it.
static LIVE: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// From now on text goes above `bar`.
pub(in crate::cli) fn draw_around(bar: &ProgressBar) {
    *LIVE.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
}

/// Takes the live line away.
pub(in crate::cli) fn stop_drawing() {
    if let Some(bar) = LIVE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        bar.finish_and_clear();
    }
}

fn above_live_line<T>(write: impl FnOnce() -> T) -> T {
    match LIVE.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// A file to be written in full and then to take the place of `path` (`persist`); dropped before that, it leaves nothing.
#[cfg(feature = "lake")]
pub(in crate::cli) fn file_beside(path: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
}

/// Writes the whole file or nothing of it.
#[cfg(feature = "lake")]
pub(in crate::cli) fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = file_beside(path)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

/// Writes to standard output: what goes to a terminal without anything that it would act on.
pub(in crate::cli) fn out(text: &str) -> Result<()> {
    match std::io::stdout().is_terminal() {
        true => out_visible(&visible_lines(text)),
        false => out_visible(text),
    }
}

/// Writes text to standard output whose colours are ours.
pub(in crate::cli) fn out_visible(text: &str) -> Result<()> {
    let written = above_live_line(|| {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
    });
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::new(Kind::Io, "Standard output cannot be written").caused_by(error))
        }
        _ => Ok(()),
    }
}

/// Standard output for what writes bytes, with the same care.
#[cfg(feature = "lake")]
pub(in crate::cli) struct StandardOutput;

#[cfg(feature = "lake")]
impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = above_live_line(|| std::io::stdout().lock().write_all(bytes));
        match written {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match std::io::stdout().flush() {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }
}

/// Whether log lines go to standard error, so that nothing else should.
static HAS_LOG_LINES: AtomicBool = AtomicBool::new(false);

/// From now on standard error is for log lines.
pub(in crate::cli) fn reserve_for_log_lines() {
    HAS_LOG_LINES.store(true, Ordering::Relaxed);
}

/// Whether standard error is for log lines. Everything that a person should read there is a log line then.
pub(in crate::cli) fn has_log_lines() -> bool {
    HAS_LOG_LINES.load(Ordering::Relaxed)
}

/// Writes a line for people to standard error, unless that is for log lines.
pub(in crate::cli) fn aside(line: &str) {
    if !has_log_lines() {
        note(line);
    }
}

/// Writes a line to standard error; a failure there cannot be told to anybody.
pub(in crate::cli) fn note(line: &str) {
    let line = visible_lines(line);
    let _ = above_live_line(|| writeln!(std::io::stderr().lock(), "{line}"));
}

#[cfg(feature = "lake")]
/// Columns in plain text: left-aligned text, right-aligned numbers.
pub(in crate::cli) struct Grid {
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

#[cfg(feature = "lake")]
impl Grid {
    /// A grid with its head; a name that begins with `>` makes a right-aligned column.
    pub(in crate::cli) fn new(head: &[&str]) -> Self {
        let right = head.iter().map(|name| name.starts_with('>')).collect();
        let names = head.iter().map(|name| name.trim_start_matches('>').to_owned()).collect();
        Self { right, rows: vec![names] }
    }

    pub(in crate::cli) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Number of rows below the head.
    pub(in crate::cli) fn len(&self) -> usize {
        self.rows.len() - 1
    }

    pub(in crate::cli) fn render(&self) -> String {
        let widths: Vec<usize> = (0..self.right.len())
            .map(|column| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let pad = widths[column] - cell.chars().count();
                let (before, after) = if self.right[column] { (pad, 0) } else { (0, pad) };
                line.push_str(&format!("{}{cell}{}  ", " ".repeat(before), " ".repeat(after)));
            }
            text.push_str(line.trim_end());
            text.push('\n');
            if number == 0 {
                let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                text.push_str(&rule.join("  "));
                text.push('\n');
            }
        }
        text
    }
}
