//! `optimize` and `vacuum` for several tables, one after another. A table that fails does not affect the others.

use std::time::Duration;

use crate::error::Result;
use crate::model::TableRef;
use crate::ops::selection::Selection;
use crate::sink::Lake;
use crate::sink::delta::{DeltaSink, Optimized, Scope, Vacuumed};

/// The result for one table.
#[derive(Debug)]
pub struct TableResult<T> {
    /// The table.
    pub table: TableRef,
    /// The result.
    pub result: Result<T>,
}

/// Compacts small files and applies deletion vectors, see [`DeltaSink::optimize`].
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

/// Removes files that are no longer needed, see [`DeltaSink::vacuum`].
pub async fn vacuum(
    sink: &DeltaSink,
    selection: &Selection,
    retention: Duration,
    removal: Removal,
) -> Result<Vec<TableResult<Vacuumed>>> {
    let mut done = Vec::new();
    for table in selection.resolve_kept(sink).await? {
        let result = match removal {
            Removal::Real => sink.vacuum(&table, retention).await,
            Removal::Preview => sink.vacuum_preview(&table, retention).await,
        };
        done.push(TableResult { table, result });
    }
    Ok(done)
}
