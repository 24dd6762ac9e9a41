//! The two formats of lake tables, Delta tables and folders of plain Parquet files: operations on both, and which of them a target
//! has.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use crate::error::Result;
use crate::model::TableRef;
use crate::sink::Sink;
use crate::sink::delta::log::table_log::TableLog;
use crate::sink::delta::{DeltaSink, Optimized, Scope};
use crate::sink::parquet_folder::{HIDDEN, ParquetSink, views};
use crate::store::Place;

/// A target with lake tables, for queries and maintenance: Delta tables, or folders of plain Parquet files.
///
/// [`open_lake`](crate::ops::open_lake) opens it. Clones share the target.
#[derive(Debug, Clone)]
pub struct Lake {
    /// The Delta tables, or the versions of the folders.
    tables: Arc<DeltaSink>,
    /// The sink of the folders, if the tables are folders of plain Parquet files.
    folders: Option<Arc<ParquetSink>>,
}

impl Lake {
    /// Delta tables.
    pub(crate) fn delta(tables: DeltaSink) -> Self {
        Self { tables: Arc::new(tables), folders: None }
    }

    /// Folders of plain Parquet files.
    pub(crate) fn parquet(folders: ParquetSink) -> Self {
        Self { tables: Arc::clone(folders.tables()), folders: Some(Arc::new(folders)) }
    }

    /// The target of a [`sync`](crate::ops::sync()).
    pub fn sink(&self) -> Arc<dyn Sink> {
        match &self.folders {
            Some(folders) => Arc::clone(folders) as Arc<dyn Sink>,
            None => Arc::clone(&self.tables) as Arc<dyn Sink>,
        }
    }

    /// The Delta tables, or the versions of the folders.
    pub(crate) fn tables(&self) -> &Arc<DeltaSink> {
        &self.tables
    }

    /// See [`DeltaSink::optimize`].
    pub(crate) async fn optimize(&self, table: &TableRef, scope: Scope) -> Result<Optimized> {
        match &self.folders {
            Some(folders) => folders.optimize(table, scope).await,
            None => self.tables.optimize(table, scope).await,
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
