//! The output of the official client's commands: marked lines on standard output for people, or only data there and log lines elsewhere
//! for scripts.

use std::io::IsTerminal;

use unicode_width::UnicodeWidthStr;

use crate::cli::args::global::{GlobalArgs, Theme};
use crate::cli::terminal::output::{out, out_visible};
use crate::cli::terminal::report;
use crate::error::{Error, Result};
use crate::redact::{visible_but, visible_lines};

/// Marks of the start and end of bold text, before control characters are escaped.
const BOLD: char = '\u{1}';
const PLAIN: char = '\u{2}';
/// Width of lines that do not go to a terminal.
const DEFAULT_WIDTH: usize = 80;

/// The console of a command.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Console {
    style: Option<Style>,
}

#[derive(Debug, Clone, Copy)]
struct Style {
    /// Colours; `None` if the output is no terminal, or colours are disabled.
    theme: Option<Theme>,
    /// Width at which lines are wrapped; `None` on a terminal, which wraps them itself.
    width: Option<usize>,
}

/// The kind of a line. The mark has the same meaning as the colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Mark {
    Title,
    Progress,
    Success,
    Error,
    Warning,
}

impl Mark {
    fn prefix(self) -> &'static str {
        match self {
            Mark::Title => "i",
            Mark::Progress => "➞",
            Mark::Success => "✓",
            Mark::Error => "✗ ERROR:",
            Mark::Warning => "⚠",
        }
    }

    /// SGR parameters.
    fn colour(self, theme: Theme) -> &'static str {
        match (theme, self) {
            (Theme::Dark, Mark::Title) => "96",
            (Theme::Dark, Mark::Progress) => "94",
            (Theme::Dark, Mark::Success) => "92",
            (Theme::Dark, Mark::Error) => "91",
            (Theme::Dark, Mark::Warning) => "93",
            (Theme::Light, Mark::Title) => "36",
            (Theme::Light, Mark::Progress) => "34",
            (Theme::Light, Mark::Success) => "32",
            (Theme::Light, Mark::Error) => "31",
            (Theme::Light, Mark::Warning) => "33",
            (Theme::HighContrastBw, Mark::Error | Mark::Warning) => "7",
            (Theme::HighContrastBw, _) => "1",
        }
    }
}

impl Mark {
    /// The sign of the mark alone, in its colour.
    pub(in crate::cli) fn painted(self, theme: Option<Theme>) -> String {
        let sign = self.prefix().split(' ').next().unwrap_or_default();
        match theme {
            Some(theme) => format!("\u{1b}[{}m{sign}\u{1b}[0m", self.colour(theme)),
            None => sign.to_owned(),
        }
    }
}

/// The colours of a terminal; `None` if they are not wanted.
pub(in crate::cli) fn terminal_theme(global: &GlobalArgs) -> Option<Theme> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let wants_colour = set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb");
    wants_colour.then_some(global.console_theme)
}

/// Makes text bold, if the output supports it.
pub(in crate::cli) type Bold<'a> = &'a dyn Fn(&str) -> String;

impl Console {
    /// From the arguments, and whether standard output is a terminal.
    pub(in crate::cli) fn new(global: &GlobalArgs) -> Self {
        if global.non_interactive || global.quiet {
            return Self { style: None };
        }
        let is_terminal = std::io::stdout().is_terminal();
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let columns = set("COLUMNS").and_then(|text| text.parse().ok()).filter(|columns| *columns > 0);
        let width = (!is_terminal).then(|| columns.unwrap_or(DEFAULT_WIDTH));
        let theme = terminal_theme(global).filter(|_| is_terminal);
        Self { style: Some(Style { theme, width }) }
    }

    /// Whether the output is for people, not for scripts.
    pub(in crate::cli) fn is_interactive(self) -> bool {
        self.style.is_some()
    }

    /// Prints a line for people, and logs it.
    pub(in crate::cli) fn say(self, mark: Mark, text: impl Fn(Bold<'_>) -> String) -> Result<()> {
        let plain = text(&str::to_owned);
        match mark {
            Mark::Error => tracing::error!("{plain}"),
            // In interactive mode, a layer of the log prints all warnings.
            Mark::Warning => {
                tracing::warn!("{plain}");
                return Ok(());
            }
            Mark::Title | Mark::Progress | Mark::Success => tracing::info!("{plain}"),
        }
        self.show(mark, text)
    }

    /// Prints a line for people that has been logged.
    pub(in crate::cli) fn show(self, mark: Mark, text: impl Fn(Bold<'_>) -> String) -> Result<()> {
        match self.style {
            Some(style) => out_visible(&style.line(mark, text)),
            None => Ok(()),
        }
    }

    /// Prints and logs an error with its fields, causes and hint.
    pub(in crate::cli) fn error(self, error: &Error) -> Result<()> {
        report::log(error);
        self.show(Mark::Error, |_| report::error_lines(error))
    }

    /// Prints data for scripts; nothing for people.
    pub(in crate::cli) fn data(self, text: &str) -> Result<()> {
        if self.is_interactive() { Ok(()) } else { out(text) }
    }
}

impl Style {
    fn line(self, mark: Mark, text: impl Fn(Bold<'_>) -> String) -> String {
        let prefix = mark.prefix();
        let mut line = match self.theme {
            None => format!("{prefix} {}", visible_lines(&text(&str::to_owned))),
            Some(theme) => {
                let colour = mark.colour(theme);
                let escaped = text(&|word| format!("{BOLD}{word}{PLAIN}"));
                let escaped = visible_but(&escaped, &['\n', '\t', BOLD, PLAIN]);
                let escaped = escaped.replace(BOLD, "\u{1b}[1m").replace(PLAIN, "\u{1b}[22m");
                format!("\u{1b}[{colour}m{prefix}\u{1b}[0m {escaped}")
            }
        };
        if let Some(width) = self.width {
            line = wrapped(&line, width);
        }
        line.push('\n');
        line
    }
}

/// Wraps lines at spaces. Words that are longer than a line are not broken, so that paths can be copied.
fn wrapped(text: &str, width: usize) -> String {
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let mut current = String::new();
        let mut length = 0;
        for word in line.split(' ') {
            let size = word.width();
            if length > 0 && length + 1 + size > width {
                lines.push(std::mem::take(&mut current));
                length = 0;
            } else if length > 0 {
                current.push(' ');
                length += 1;
            }
            current.push_str(word);
            length += size;
        }
        lines.push(current);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_wrapped_at_blanks() {
        assert_eq!(wrapped("✓ one two three", 9), "✓ one two\nthree");
        assert_eq!(wrapped("a /a/very/long/path b", 6), "a\n/a/very/long/path\nb");
        assert_eq!(wrapped("first\nsecond line", 80), "first\nsecond line");
    }

    #[test]
    fn control_characters_are_escaped() {
        let text = |bold: Bold<'_>| format!("{} \u{1b}]0;title\u{7}", bold("a\u{1b}[2J"));
        let plain = Style { theme: None, width: None };
        assert_eq!(plain.line(Mark::Warning, text), "⚠ a\\u001b[2J \\u001b]0;title\\u0007\n");
        let coloured = Style { theme: Some(Theme::Dark), width: None }.line(Mark::Warning, text);
        assert_eq!(coloured, "\u{1b}[93m⚠\u{1b}[0m \u{1b}[1ma\\u001b[2J\u{1b}[22m \\u001b]0;title\\u0007\n");
    }

    #[test]
    fn colour_never_carries_meaning() {
        let text = |bold: Bold<'_>| format!("{} tables", bold("3"));
        let plain = Style { theme: None, width: None };
        assert_eq!(plain.line(Mark::Error, text), "✗ ERROR: 3 tables\n");
        for theme in [Theme::Dark, Theme::Light, Theme::HighContrastBw] {
            for mark in [Mark::Title, Mark::Progress, Mark::Success, Mark::Error, Mark::Warning] {
                let coloured = Style { theme: Some(theme), width: None }.line(mark, text);
                let mut bare = String::new();
                let mut rest = coloured.as_str();
                while let Some((before, after)) = rest.split_once('\u{1b}') {
                    bare.push_str(before);
                    rest = after.split_once('m').unwrap().1;
                }
                bare.push_str(rest);
                assert_eq!(bare, plain.line(mark, text));
                assert_ne!(coloured, bare);
            }
        }
    }
}
