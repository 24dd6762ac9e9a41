//! `optimize` and `vacuum` for several tables, one after another. A table that fails does not affect the others.

use std::time::Duration;

use crate::error::Result;
use crate::model::TableRef;
use crate::ops::selection::Selection;
use crate::sink::Lake;
use crate::sink::delta::{Optimized, Scope, Vacuumed};

/// The result for one table of a command that works on several.
#[derive(Debug)]
pub struct TableResult<T> {
    /// The table.
    pub table: TableRef,
    /// The result.
    pub result: Result<T>,
}

/// Compacts small files of the selected tables and rewrites files that have deletion vectors, one table after another.
///
/// Readers are not disturbed: replaced files stay until [`vacuum`] removes them.
///
/// # Errors
/// Kind `NotFound` if the selection names a table that the target does not have, `Target` if the target cannot be listed. The failure of a
/// single table is in its result: kind `Conflict` if another commit removed its files at the same time.
///
/// ```no_run
/// # async fn example(lake: daplake::ops::Lake) -> daplake::Result<()> {
/// use daplake::ops::{Scope, Selection, optimize};
///
/// for done in optimize(&lake, &Selection::all_of("canvas"), Scope::Compact).await? {
///     let figures = done.result?;
///     println!("{}: {} files replaced by {}", done.table, figures.files_removed, figures.files_added);
/// }
/// # Ok(())
/// # }
/// ```
pub async fn optimize(lake: &Lake, selection: &Selection, scope: Scope) -> Result<Vec<TableResult<Optimized>>> {
    let mut done = Vec::new();
    for table in selection.resolve_kept(lake.tables().as_ref()).await? {
        let result = lake.optimize(&table, scope).await;
        done.push(TableResult { table, result });
    }
    Ok(done)
}

/// Whether files are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// They are removed.
    Real,
    /// They are only listed.
    Preview,
}

/// Removes, or lists, the files of the selected tables that no version of the last `retention` needs, one table after another.
///
/// Afterwards versions before `retention` cannot be read, and a query over them that is still running fails.
///
/// # Errors
/// Kind `NotFound` if the selection names a table that the target does not have, `Target` if the target cannot be listed. The failure of a
/// single table is in its result: kind `Usage` if `retention` is too short.
///
/// ```no_run
/// # async fn example(lake: daplake::ops::Lake) -> daplake::Result<()> {
/// use std::time::Duration;
///
/// use daplake::ops::{Removal, Selection, vacuum};
///
/// let week = Duration::from_secs(7 * 24 * 3600);
/// for done in vacuum(&lake, &Selection::all_of("canvas"), week, Removal::Preview).await? {
///     let found = done.result?;
///     println!("{}: {} files, {} bytes", done.table, found.files.len(), found.bytes);
/// }
/// # Ok(())
/// # }
/// ```
pub async fn vacuum(
    lake: &Lake,
    selection: &Selection,
    retention: Duration,
    removal: Removal,
) -> Result<Vec<TableResult<Vacuumed>>> {
    let sink = lake.tables();
    let mut done = Vec::new();
    for table in selection.resolve_kept(sink.as_ref()).await? {
        let result = match removal {
            Removal::Real => sink.vacuum(&table, retention).await,
            Removal::Preview => sink.vacuum_preview(&table, retention).await,
        };
        done.push(TableResult { table, result });
    }
    Ok(done)
}
