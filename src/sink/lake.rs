//! The two formats of lake tables, Delta tables and folders of plain Parquet files: operations on both, and which of them a target
//! has.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use crate::error::Result;
use crate::model::TableRef;
use crate::sink::delta::log::table_log::TableLog;
use crate::sink::delta::{DeltaSink, Optimized, Scope};
use crate::sink::parquet_folder::{HIDDEN, ParquetSink, views};
use crate::store::Place;

/// Lake tables in one of the two formats.
#[derive(Debug, Clone)]
pub enum Lake {
    /// Delta tables.
    Delta(Arc<DeltaSink>),
    /// Folders of plain Parquet files.
    Parquet(Arc<ParquetSink>),
}

impl Lake {
    /// The Delta tables, or those with the versions of the folders.
    pub fn tables(&self) -> &Arc<DeltaSink> {
        match self {
            Lake::Delta(sink) => sink,
            Lake::Parquet(sink) => sink.tables(),
        }
    }

    /// See [`DeltaSink::optimize`].
    pub async fn optimize(&self, table: &TableRef, scope: Scope) -> Result<Optimized> {
        match self {
            Lake::Delta(sink) => sink.optimize(table, scope).await,
            Lake::Parquet(sink) => sink.optimize(table, scope).await,
        }
    }
}

/// Which formats of tables a target has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LakeFormats {
    /// It has Delta tables.
    pub delta: bool,
    /// It has folders of plain Parquet files.
    pub parquet: bool,
}

/// Detects the formats of a target. Tables that daplake did not create do not count. Kind `Target` if the target cannot be read.
pub async fn detect_formats(place: &Place) -> Result<LakeFormats> {
    let root = place.root();
    let parquet_tables = match place.folder() {
        Some(_) => with_log(place, &root.clone().join(HIDDEN)).await?,
        None => with_view(place).await?,
    };
    let mut delta = false;
    for table in folders_of_tables(place, root).await? {
        // In an object store, the log of a Parquet folder is where that of a Delta table would be.
        if place.folder().is_none() && parquet_tables.contains(&table) {
            continue;
        }
        // A table that cannot be read is reported when it is loaded.
        if TableLog::new(place, &table)?.is_ours().await.unwrap_or(false) {
            delta = true;
            break;
        }
    }
    Ok(LakeFormats { delta, parquet: !parquet_tables.is_empty() })
}

/// The folders two levels below `root`, as tables.
async fn folders_of_tables(place: &Place, root: &Path) -> Result<Vec<TableRef>> {
    let mut tables = Vec::new();
    for namespace in place.folders_in(root).await? {
        if !TableRef::new(namespace.as_str(), "x").is_path_safe() || namespace == HIDDEN {
            continue;
        }
        for name in place.folders_in(&root.clone().join(namespace.as_str())).await? {
            let table = TableRef::new(namespace.as_str(), name.as_str());
            if table.is_path_safe() {
                tables.push(table);
            }
        }
    }
    Ok(tables)
}

/// The first table below a local folder that has a Delta log.
async fn with_log(place: &Place, root: &Path) -> Result<BTreeSet<TableRef>> {
    let mut found = BTreeSet::new();
    for table in folders_of_tables(place, root).await? {
        let folder = root.clone().join(table.namespace.as_str()).join(table.table.as_str());
        if place.folders_in(&folder).await?.iter().any(|name| name == "_delta_log") {
            found.insert(table);
            break;
        }
    }
    Ok(found)
}

/// The tables of an object store that have a view of their own: those of plain Parquet files.
async fn with_view(place: &Place) -> Result<BTreeSet<TableRef>> {
    let store = place.store();
    let listed: std::result::Result<Vec<_>, _> = store.list(Some(&views::folder(place))).try_collect().await;
    let listed = listed.map_err(|error| place.unusable(error))?;
    let named = listed.iter().filter_map(|object| {
        let (namespace, table) = object.location.filename()?.strip_suffix(".sql")?.split_once('.')?;
        Some(TableRef::new(namespace, table))
    });
    Ok(named.collect())
}
