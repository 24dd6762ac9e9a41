//! The file for unreadable rows: JSON lines, one per row. It may contain data, so only its owner can read it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::decode::{BadRows, RowError};
use crate::error::{ErrorContext, Kind, Result, ResultExt};
use crate::model::TableRef;

/// Whether the row itself is written to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowContent {
    /// It is.
    Kept,
    /// Only its position and the reason, because columns of the table are dropped or hashed.
    LeftOut,
}

/// One file for all tables of a run.
#[derive(Debug, Clone)]
pub(super) struct BadRowFile(Arc<Mutex<File>>);

impl BadRowFile {
    /// Opens `path` for appending, and creates it if absent.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).context(Kind::Io, format!("Cannot open the file for bad rows: {}", path.display()))?;
        Ok(Self(Arc::new(Mutex::new(file))))
    }

    /// The policy for rows of one object.
    pub(super) fn policy(&self, table: &TableRef, object: &str, content: RowContent) -> BadRows {
        let (file, table, object) = (self.0.clone(), table.to_string(), object.to_owned());
        BadRows::SetAside(Arc::new(move |error: &RowError, row: &[u8]| {
            let mut line = serde_json::json!({
                "table": table,
                "object": object,
                "line": error.line,
                "column": error.column,
                "reason": error.reason,
            });
            if content == RowContent::Kept {
                line["row"] = String::from_utf8_lossy(row).into();
            }
            let mut line = line.to_string();
            line.push('\n');
            // One write per line, so that lines of different tables do not interleave.
            let mut file = file.lock();
            let written = file.write_all(line.as_bytes()).context(Kind::Io, "Cannot write to the file for bad rows");
            written.hint("free some space, or give another file with --bad-rows")
        }))
    }
}
