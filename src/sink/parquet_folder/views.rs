//! `views.sql` for folders of plain Parquet files: views that name the files of one version of each table.

use std::fs::File;
use std::io::{Error as IoError, Result as IoResult, Write};
use std::path::{Path as FsPath, PathBuf};

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use crate::error::Result;
use crate::model::TableRef;
use crate::sink::delta::maintenance::views::{FILE_NAME, header, is_replaceable, put_if_changed};
use crate::sink::parquet_folder::HIDDEN;
use crate::sink::parquet_folder::folder_swap::EMPTY;
use crate::sink::parquet_folder::manifest::Manifest;
use crate::store::Place;

/// Folder of the views of single tables, in an object store.
const FOLDER: &str = "views";

/// The folder of the views of single tables, in an object store.
pub(crate) fn folder(place: &Place) -> Path {
    place.root().clone().join(FOLDER)
}

/// The file with the view of one table, in an object store.
pub(super) fn file_of(place: &Place, table: &TableRef) -> Path {
    folder(place).join(format!("{table}.sql"))
}

/// Combines the views of single tables in an object store into `views.sql`. Repeats that if another run changed a view meanwhile: of two
/// runs, the one that read the older views may write last.
pub(super) async fn combine(place: &Place) -> Result<()> {
    let mut found = table_views(place).await?;
    loop {
        combine_once(place, &found).await?;
        let now = table_views(place).await?;
        if now == found {
            return Ok(());
        }
        found = now;
    }
}

/// The files with views of single tables, sorted.
async fn table_views(place: &Place) -> Result<Vec<ObjectMeta>> {
    let listed: Result<Vec<_>, _> = place.store().list(Some(&folder(place))).try_collect().await;
    let mut found = listed.map_err(|error| place.unusable(error))?;
    found.retain(|object| object.location.filename().is_some_and(|name| name.ends_with(".sql")));
    found.sort_by(|a, b| a.location.cmp(&b.location));
    Ok(found)
}

async fn combine_once(place: &Place, views: &[ObjectMeta]) -> Result<()> {
    let store = place.store();
    let mut text = header(place);
    for object in views {
        let read = async { store.get(&object.location).await?.bytes().await }.await;
        text.push('\n');
        text.push_str(&String::from_utf8_lossy(&read.map_err(|error| place.unusable(error))?));
    }
    put_if_changed(place, text).await
}

/// Writes `views.sql` at the local folder `root`, over the tables whose folders exist. The views name data files that stay for a
/// while after they were replaced, so that a query ends with the version with which it began.
pub(super) fn write_local(root: &FsPath) -> IoResult<()> {
    let lock = File::options().create(true).truncate(false).write(true).open(root.join(HIDDEN).join("views.lock"))?;
    lock.lock()?;
    if std::fs::read(root.join(FILE_NAME)).is_ok_and(|present| !is_replaceable(&present)) {
        return Ok(());
    }
    let mut text = String::from("-- DuckDB views over the tables of this folder, made by daplake: .read views.sql\n");
    for namespace in sorted_folders(root)? {
        if namespace.ends_with(HIDDEN) {
            continue;
        }
        for folder in sorted_folders(&namespace)? {
            let Some(manifest) = Manifest::read(&folder) else { continue };
            let data = manifest.table.split_once('.').map(|(namespace, table)| root.join(HIDDEN).join(namespace).join(table));
            let Some(data) = data else { continue };
            let mut paths: Vec<String> = manifest.files.iter().map(|file| data.join(file).display().to_string()).collect();
            if paths.is_empty() {
                paths.push(folder.join(EMPTY).display().to_string());
            }
            text.push('\n');
            text.push_str(&manifest.view(&paths));
        }
    }
    let mut file = tempfile::NamedTempFile::new_in(root.join(HIDDEN))?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(root.join(FILE_NAME)).map_err(IoError::from)?;
    Ok(())
}

/// The subfolders of a folder, sorted.
fn sorted_folders(folder: &FsPath) -> IoResult<Vec<PathBuf>> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}
