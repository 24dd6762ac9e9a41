//! Text on standard output and standard error. A closed pipe on standard output is not an error.

use std::io::{IsTerminal, Write};
#[cfg(feature = "lake")]
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use indicatif::ProgressBar;
use parking_lot::Mutex;
#[cfg(feature = "lake")]
use unicode_width::UnicodeWidthStr;

use crate::error::{Error, Kind, Result};
#[cfg(feature = "lake")]
pub(in crate::cli) use crate::page::figures::age;
pub(in crate::cli) use crate::page::figures::{counted, grouped, size};
use crate::redact::visible_lines;

/// The progress line at the bottom of a terminal, if there is one. Other text is written above it.
static LIVE: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// From now on, text is written above `bar`.
pub(in crate::cli) fn draw_around(bar: &ProgressBar) {
    *LIVE.lock() = Some(bar.clone());
}

/// Removes the progress line.
pub(in crate::cli) fn stop_drawing() {
    if let Some(bar) = LIVE.lock().take() {
        bar.finish_and_clear();
    }
}

fn above_progress<T>(write: impl FnOnce() -> T) -> T {
    match LIVE.lock().as_ref() {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// A temporary file in the folder of `path`, to replace `path` when it is complete (`persist`). Dropped before that, it is removed.
#[cfg(feature = "lake")]
pub(in crate::cli) fn file_beside(path: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
}

/// Writes the whole file durably, or nothing. Only its owner can read it.
#[cfg(feature = "lake")]
pub(in crate::cli) fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = file_beside(path)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Writes text to standard output. On a terminal, control characters are escaped.
pub(in crate::cli) fn out(text: &str) -> Result<()> {
    if std::io::stdout().is_terminal() { out_visible(&visible_lines(text)) } else { out_visible(text) }
}

/// Writes text to standard output unchanged, with the colours that daplake added.
pub(in crate::cli) fn out_visible(text: &str) -> Result<()> {
    let written = above_progress(|| {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
    });
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::new(Kind::Io, "Standard output cannot be written to").caused_by(error))
        }
        _ => Ok(()),
    }
}

/// Standard output as a writer of bytes. On a terminal, control characters are escaped.
#[cfg(feature = "lake")]
pub(in crate::cli) struct StandardOutput {
    is_terminal: bool,
    /// Bytes for a terminal that may be the beginning of a character.
    pending: Vec<u8>,
}

#[cfg(feature = "lake")]
impl StandardOutput {
    pub(in crate::cli) fn new() -> Self {
        Self { is_terminal: std::io::stdout().is_terminal(), pending: Vec::new() }
    }

    /// The pending text up to the last complete character, or all of it, with control characters escaped.
    fn escaped(&mut self, all: bool) -> String {
        let complete = match std::str::from_utf8(&self.pending) {
            Err(error) if error.error_len().is_none() && !all => error.valid_up_to(),
            _ => self.pending.len(),
        };
        let bytes: Vec<u8> = self.pending.drain(..complete).collect();
        visible_lines(&String::from_utf8_lossy(&bytes)).into_owned()
    }
}

#[cfg(feature = "lake")]
impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = if self.is_terminal {
            self.pending.extend_from_slice(bytes);
            let text = self.escaped(false);
            above_progress(|| std::io::stdout().lock().write_all(text.as_bytes()))
        } else {
            above_progress(|| std::io::stdout().lock().write_all(bytes))
        };
        match written {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let rest = self.escaped(true);
        let written = above_progress(|| {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(rest.as_bytes()).and_then(|()| stdout.flush())
        });
        match written {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }
}

/// Whether standard error is reserved for log lines.
static HAS_LOG_LINES: AtomicBool = AtomicBool::new(false);

/// Reserves standard error for log lines.
pub(in crate::cli) fn reserve_for_log_lines() {
    HAS_LOG_LINES.store(true, Ordering::Relaxed);
}

/// Whether standard error is reserved for log lines. Messages for people are log lines then.
pub(in crate::cli) fn has_log_lines() -> bool {
    HAS_LOG_LINES.load(Ordering::Relaxed)
}

/// Whether only failures are printed.
static IS_QUIET: AtomicBool = AtomicBool::new(false);
/// Warnings that were not printed.
static HIDDEN_WARNINGS: AtomicU64 = AtomicU64::new(0);

/// From now on, only failures are printed.
pub(in crate::cli) fn be_quiet() {
    IS_QUIET.store(true, Ordering::Relaxed);
}

/// Whether only failures are printed.
pub(in crate::cli) fn is_quiet() -> bool {
    IS_QUIET.load(Ordering::Relaxed)
}

/// Counts a warning that is not printed.
pub(in crate::cli) fn hide_warning() {
    HIDDEN_WARNINGS.fetch_add(1, Ordering::Relaxed);
}

/// The number of warnings since the last call that were not printed.
#[cfg(feature = "lake")]
pub(in crate::cli) fn take_hidden_warnings() -> u64 {
    HIDDEN_WARNINGS.swap(0, Ordering::Relaxed)
}

/// Writes the result of a command to standard output, unless only failures are printed.
#[cfg(feature = "lake")]
pub(in crate::cli) fn result(text: &str) -> Result<()> {
    if is_quiet() { Ok(()) } else { out(text) }
}

/// Writes a line for people to standard error, unless that is reserved for log lines, or only failures are printed.
pub(in crate::cli) fn aside(line: &str) {
    if !is_quiet() {
        failure(line);
    }
}

/// [`aside`] for a line whose control characters are the colours of daplake.
pub(in crate::cli) fn aside_marked(line: &str) {
    if !is_quiet() && !has_log_lines() {
        let _ = above_progress(|| writeln!(std::io::stderr().lock(), "{line}"));
    }
}

/// Writes a failure for people to standard error, unless that is reserved for log lines.
pub(in crate::cli) fn failure(line: &str) {
    if !has_log_lines() {
        note(line);
    }
}

/// Writes a line to standard error. An error is ignored, as it cannot be reported.
pub(in crate::cli) fn note(line: &str) {
    let line = visible_lines(line);
    let _ = above_progress(|| writeln!(std::io::stderr().lock(), "{line}"));
}

/// A table in plain text: left-aligned text, right-aligned numbers, no borders, no wrapping. Configuring
/// `comfy-table` like this would take as many lines.
#[cfg(feature = "lake")]
pub(in crate::cli) struct Grid {
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

#[cfg(feature = "lake")]
impl Grid {
    /// A table with its header. A name that starts with `>` makes a right-aligned column.
    pub(in crate::cli) fn new(head: &[&str]) -> Self {
        let right = head.iter().map(|name| name.starts_with('>')).collect();
        let names = head.iter().map(|name| name.trim_start_matches('>').to_owned()).collect();
        Self { right, rows: vec![names] }
    }

    pub(in crate::cli) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Number of rows below the header.
    pub(in crate::cli) fn len(&self) -> usize {
        self.rows.len() - 1
    }

    pub(in crate::cli) fn render(&self) -> String {
        let widths: Vec<usize> =
            (0..self.right.len()).map(|column| self.rows.iter().map(|row| row[column].width()).max().unwrap_or(0)).collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let pad = widths[column] - cell.width();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "lake")]
    #[test]
    fn columns_are_as_wide_as_their_widest_cell_on_the_screen() {
        let mut grid = Grid::new(&["name", ">rows"]);
        grid.row(vec!["\u{5b66}\u{751f}".to_owned(), "1".to_owned()]);
        grid.row(vec!["users".to_owned(), "100".to_owned()]);
        assert_eq!(grid.render(), "name   rows\n-----  ----\n\u{5b66}\u{751f}      1\nusers   100\n");
    }

    #[cfg(feature = "lake")]
    #[test]
    fn bytes_for_a_terminal_are_escaped_in_whole_characters() {
        let mut output = StandardOutput { is_terminal: true, pending: "a\u{1b}[2J\u{e4}".as_bytes()[..6].to_vec() };
        assert_eq!(output.escaped(false), "a\\u001b[2J");
        output.pending.push(0xa4);
        assert_eq!(output.escaped(false), "\u{e4}");
        output.pending.push(0xc3);
        assert_eq!(output.escaped(true), "\u{fffd}");
    }
}
