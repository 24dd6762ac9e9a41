//! `optimize` and `vacuum`: care of the tables of a lake, one after the other; a table that fails leaves the others alone.

use std::time::Duration;

use crate::error::Result;
use crate::model::TableRef;
use crate::ops::selection::Selection;
use crate::sink::Lake;
use crate::sink::delta::{DeltaSink, Optimized, Scope, Vacuumed};

/// What became of one table.
#[derive(Debug)]
pub struct Cared<T> {
    /// Which.
    pub table: TableRef,
    /// What was done.
    pub result: Result<T>,
}

/// Merges small files and drops rows that are marked as deleted, see [`DeltaSink::optimize`].
pub async fn optimize(lake: &Lake, selection: &Selection, scope: Scope) -> Result<Vec<Cared<Optimized>>> {
    let mut done = Vec::new();
    for table in selection.resolve_held(lake.tables().as_ref()).await? {
        let result = lake.optimize(&table, scope).await;
        done.push(Cared { table, result });
    }
    Ok(done)
}

/// Whether files are really removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// They are.
    Real,
    /// They are only named.
    Preview,
}

/// Removes files that are no longer needed, see [`DeltaSink::vacuum`].
pub async fn vacuum(
    sink: &DeltaSink,
    selection: &Selection,
    retention: Duration,
    removal: Removal,
) -> Result<Vec<Cared<Vacuumed>>> {
    let mut done = Vec::new();
    for table in selection.resolve_held(sink).await? {
        let result = match removal {
            Removal::Real => sink.vacuum(&table, retention).await,
            Removal::Preview => sink.vacuum_preview(&table, retention).await,
        };
        done.push(Cared { table, result });
    }
    Ok(done)
}
