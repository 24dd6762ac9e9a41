//! What the questions of `init` have in common.

use std::path::Path;

use crate::cli::commands::check;
use crate::cli::terminal::output::out;
use crate::cli::terminal::prompt;
use crate::error::Result;
use crate::ops::{Finding, Verdict};

/// The title of a step, and what it is about.
pub(super) fn heading(number: usize, title: &str, explanation: &str) -> Result<()> {
    out(&format!("\n{number} of 4  {title}\n{explanation}\n\n"))
}

/// Prints the findings. Returns `true` if there is no problem or the user keeps the answer.
pub(super) fn accepted(findings: &[Finding]) -> Result<bool> {
    out(&check::text(findings.iter()))?;
    let is_good = findings.iter().all(|finding| finding.verdict != Verdict::Bad);
    Ok(is_good || !prompt::confirm("Correct the answer?", true)?)
}

/// The name of the settings file without its extension.
pub(super) fn stem_of(path: &Path) -> String {
    path.file_stem().map_or_else(|| "daplake".to_owned(), |stem| stem.to_string_lossy().into_owned())
}
