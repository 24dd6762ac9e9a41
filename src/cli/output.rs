//! Text on the two streams. A closed pipe on standard output ends the program quietly.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;

use crate::error::{Error, Kind, Result};

/// The live line at the bottom of a terminal, if there is one. Text must not be written through it.
static LIVE: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// From now on text goes above `bar`.
pub(super) fn draw_around(bar: &ProgressBar) {
    *LIVE.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
}

/// Takes the live line away.
pub(super) fn stop_drawing() {
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

/// Writes to standard output.
pub(super) fn out(text: &str) -> Result<()> {
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

/// Writes a line to standard error; a failure there cannot be told to anybody.
pub(super) fn note(line: &str) {
    let _ = above_live_line(|| writeln!(std::io::stderr().lock(), "{line}"));
}

/// `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `12.3 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// The two largest units, the second omitted when zero: `3d 2h`, `5h 12m`, `3m`, `42s`.
pub(super) fn age(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let parts = [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let mut text = format!("{}{}", parts[first].0, parts[first].1);
    if let Some((count, unit)) = parts.get(first + 1)
        && *count > 0
    {
        text.push_str(&format!(" {count}{unit}"));
    }
    text
}

#[cfg(feature = "lake")]
/// Columns in plain text: left-aligned text, right-aligned numbers.
pub(super) struct Grid {
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

#[cfg(feature = "lake")]
impl Grid {
    /// A grid with its head; a name that begins with `>` makes a right-aligned column.
    pub(super) fn new(head: &[&str]) -> Self {
        let right = head.iter().map(|name| name.starts_with('>')).collect();
        let names = head.iter().map(|name| name.trim_start_matches('>').to_owned()).collect();
        Self { right, rows: vec![names] }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(super) fn render(&self) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(999), "999");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(age(1057 * 86_400 + 9 * 3_600 + 5), "1057d 9h");
        assert_eq!(age(5 * 3_600 + 12 * 60), "5h 12m");
        assert_eq!(age(180), "3m");
        assert_eq!(age(42), "42s");
        assert_eq!(age(-3), "0s");
    }

    #[test]
    fn an_age_has_two_units_at_most() {
        let shown = [42, 180, 65, 18_720, 3_600, 91_357_200, 86_400, -5].map(age);
        assert_eq!(shown, ["42s", "3m", "1m 5s", "5h 12m", "1h", "1057d 9h", "1d", "0s"]);
    }
}
