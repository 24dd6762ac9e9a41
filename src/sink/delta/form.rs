//! In which form the tables of a target are kept: Delta tables or folders of plain Parquet files. It looks and decides nothing.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use super::folder::HIDDEN;
use crate::error::Result;
use crate::model::TableRef;
use crate::sink::delta::log::table_log::TableLog;
use crate::sink::delta::maintenance::views;
use crate::store::Place;

/// Which forms of tables are at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forms {
    /// There are Delta tables.
    pub delta: bool,
    /// There are folders of plain Parquet files.
    pub parquet: bool,
}

/// Looks what is at a place. Tables that daplake did not make do not count. Kind `Target` if the place cannot be read.
pub async fn forms_at(place: &Place) -> Result<Forms> {
    let root = place.root();
    let of_parquet = match place.folder() {
        Some(_) => with_log(place, &root.clone().join(HIDDEN)).await?,
        None => with_view(place).await?,
    };
    let mut delta = false;
    for table in folders_of_tables(place, root).await? {
        // In an object store the ledger of a folder lies where a Delta table would.
        if place.folder().is_none() && of_parquet.contains(&table) {
            continue;
        }
        // A table that cannot be read is refused when it is asked for.
        if TableLog::new(place, &table)?.is_ours().await.unwrap_or(false) {
            delta = true;
            break;
        }
    }
    Ok(Forms { delta, parquet: !of_parquet.is_empty() })
}

/// Folders two levels below, by the names of tables.
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

/// The first of these tables that has a log; of a folder on a local disk.
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

/// Tables of an object store that have a view of their own, as those of plain Parquet files have.
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
