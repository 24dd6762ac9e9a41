//! `status --watch`: a view on the terminal that is drawn again after each refresh and removed at the end.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::text::{Layout, overview_text};
use crate::cli::signals;
use crate::cli::terminal::output::{draw_around, stop_drawing};
use crate::error::Result;
use crate::ops::Overview;
use crate::redact::visible_lines;

/// Shows what `read` returns until a signal, which is the normal end. A failure of the first call ends it; later failures are shown above the
/// last known state.
pub(super) async fn watch(interval: Duration, read: impl AsyncFn() -> Result<Overview>) -> Result<()> {
    let mut overview = tokio::select! {
        overview = read() => overview?,
        () = signals::asked(1) => return Ok(()),
    };
    let mut failure = None;
    let view = View::new();
    loop {
        view.draw(&overview, failure.as_deref(), interval);
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = signals::asked(1) => return Ok(()),
        }
        let read = tokio::select! {
            read = read() => read,
            () = signals::asked(1) => return Ok(()),
        };
        match read {
            Ok(newer) => (overview, failure) = (newer, None),
            Err(error) => failure = Some(error.to_string()),
        }
    }
}

/// The view; removed from the terminal when it is dropped.
struct View(ProgressBar);

impl View {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
        // The template is valid; otherwise the default would be used.
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        draw_around(&bar);
        Self(bar)
    }

    /// Draws the view. Lines that do not fit the height of the terminal are omitted.
    fn draw(&self, overview: &Overview, failure: Option<&str>, interval: Duration) {
        let every = humantime::format_duration(interval);
        let mut text = format!("{} at {}, refreshed every {every}; Ctrl-C ends\n", overview.target, overview.made);
        if let Some(failure) = failure {
            text.push_str(&format!("the refresh failed: {failure}\n"));
        }
        text.push('\n');
        text.push_str(&overview_text(overview, Layout::Narrow));
        self.0.set_message(visible_lines(&text).into_owned());
        self.0.tick();
    }
}

impl Drop for View {
    fn drop(&mut self) {
        stop_drawing();
    }
}
