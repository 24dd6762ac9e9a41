//! What plain readers see of a table on a local disk: a folder of hard links that is exchanged as a whole, what it holds, and the
//! views over all tables. It decides no version; it shows the one it is given.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error as IoError, ErrorKind, Result as IoResult, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parquet::arrow::ArrowWriter;
use serde::{Deserialize, Serialize};

use super::folder::HIDDEN;
use crate::error::{Kind, Result, ResultExt};
use crate::model::TableRef;
use crate::sink::delta::log::columns::{LakeColumn, file_schema};
use crate::sink::delta::log::table_log::TableState;
use crate::sink::delta::write::partitioned_writer::is_partition;
use crate::store::{create_folder, sync_folder};

/// Says what a folder holds.
pub(super) const LEDGER: &str = "_daplake.json";
/// Stands for a table without rows: readers want at least one file.
const EMPTY: &str = "empty.parquet";
/// How long an exchange is tried where a program that has a file open keeps its folder from being renamed, as on Windows.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a folder holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ledger {
    /// Which table.
    pub(super) table: String,
    /// Id and version of the log.
    pub(super) log: (String, u64),
    /// Data as of, RFC 3339.
    pub(super) data_as_of: String,
    /// Version of the table schema.
    pub(super) schema_version: i64,
    /// Names of the data files.
    pub(super) files: Vec<String>,
    /// Columns whose names in the files are others: name in the files by name of the column.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) renamed: BTreeMap<String, String>,
    columns: Vec<String>,
}

impl Ledger {
    /// Of a version.
    pub(super) fn of(table: &TableRef, state: &TableState) -> Self {
        let renamed = state.columns.iter().filter(|column| column.physical != column.name);
        Self {
            table: table.to_string(),
            log: (state.metadata["id"].as_str().unwrap_or_default().to_owned(), state.version),
            data_as_of: state.bookmark.at.to_string(),
            schema_version: state.bookmark.schema_version,
            files: state.files.iter().map(|file| file.path.to_string()).collect(),
            renamed: renamed.map(|column| (column.name.clone(), column.physical.clone())).collect(),
            // What partitions the table is not in its files.
            columns: state.columns.iter().filter(|column| !is_partition(column)).map(|column| column.name.clone()).collect(),
        }
    }

    /// Of a folder; `None` if there is none, or one that cannot be read.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(folder.join(LEDGER)).ok()?).ok()
    }

    /// A DuckDB view over files at these paths.
    pub(super) fn view(&self, paths: &[String]) -> String {
        let Some((namespace, table)) = self.table.split_once('.') else { return String::new() };
        let name = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let path = |text: &String| format!("'{}'", text.replace('\'', "''"));
        let paths = paths.iter().map(path).collect::<Vec<_>>().join(", ");
        let column = |column: &String| match self.renamed.get(column) {
            Some(physical) => format!("{} AS {}", name(physical), name(column)),
            None => name(column),
        };
        let columns = self.columns.iter().map(column).collect::<Vec<_>>().join(", ");
        let (schema, view) = (name(namespace), name(table));
        match paths.is_empty() {
            true => format!("-- {}.{} has no rows\n", schema, view),
            false => format!(
                "CREATE SCHEMA IF NOT EXISTS {schema};\nCREATE OR REPLACE VIEW {schema}.{view} AS\n  SELECT {columns}\n  FROM read_parquet([{paths}], union_by_name = true); -- as of {}\n",
                self.data_as_of
            ),
        }
    }
}

/// Waits until nobody else publishes the table whose files are in `data`.
pub(super) async fn lock(data: &Path) -> Result<File> {
    let path = beside(data, "lock");
    let take = move || -> IoResult<File> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        file.lock()?;
        Ok(file)
    };
    let taken = tokio::task::spawn_blocking(take).await.context(Kind::Bug, "Waiting for a lock stopped unexpectedly")?;
    taken.context(Kind::Target, "The folder of the table cannot be locked")
}

fn beside(data: &Path, extension: &str) -> PathBuf {
    let mut name = data.as_os_str().to_owned();
    name.push(format!(".{extension}"));
    PathBuf::from(name)
}

/// Makes a folder of hard links to the files in `data` and puts it in the place of `folder`.
pub(super) fn exchange_folder(
    data: &Path,
    folder: &Path,
    ledger: &Ledger,
    columns: &[LakeColumn],
    key: &[String],
) -> IoResult<()> {
    let next = beside(data, "next");
    patiently(|| remove_folder(&next))?;
    create_folder(&next)?;
    for file in &ledger.files {
        // Those of partitions have folders of their own in the data; here they lie side by side.
        let name = Path::new(file).file_name().unwrap_or_else(|| file.as_ref());
        std::fs::hard_link(data.join(file), next.join(name))?;
    }
    if ledger.files.is_empty() {
        let file = File::create_new(next.join(EMPTY))?;
        let columns: Vec<LakeColumn> = columns.iter().filter(|column| !is_partition(column)).cloned().collect();
        let file = ArrowWriter::try_new(file, file_schema(&columns, key), None).and_then(ArrowWriter::into_inner);
        file.map_err(IoError::other)?.sync_all()?;
    }
    let mut file = File::create_new(next.join(LEDGER))?;
    file.write_all(&serde_json::to_vec_pretty(ledger)?)?;
    file.sync_all()?;
    // An open file would keep its folder from being renamed on Windows.
    drop(file);
    sync_folder(&next);
    exchange(&next, folder)?;
    for parent in [folder.parent(), next.parent()].into_iter().flatten() {
        sync_folder(parent);
    }
    // Readers may still have its files open; then the next exchange removes it.
    if let Err(error) = remove_folder(&next) {
        tracing::debug!(folder = %next.display(), %error, "The folder of the version before stays for now");
    }
    Ok(())
}

/// Tries again for some seconds while a program has a file open.
fn patiently<T>(mut work: impl FnMut() -> IoResult<T>) -> IoResult<T> {
    let begun = Instant::now();
    loop {
        match work() {
            Err(error) if is_in_use(&error) && begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(100)),
            other => return other,
        }
    }
}

/// Whether a program has a file open, in the words of Windows: access denied, sharing violation, lock violation.
pub(super) fn is_in_use(error: &IoError) -> bool {
    cfg!(windows) && matches!(error.raw_os_error(), Some(5 | 32 | 33))
}

fn remove_folder(folder: &Path) -> IoResult<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Swaps two folders in one step; the first one may then be removed.
fn exchange(next: &Path, folder: &Path) -> IoResult<()> {
    if !folder.exists() {
        if let Some(parent) = folder.parent() {
            create_folder(parent)?;
        }
        return patiently(|| std::fs::rename(next, folder));
    }
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, next, CWD, folder, RenameFlags::EXCHANGE) {
            Ok(()) => return Ok(()),
            // A file system that cannot.
            Err(error) if [Errno::NOSYS, Errno::INVAL, Errno::OPNOTSUPP].contains(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Two steps, with a moment in which readers find no folder; still never a mixture.
    let aside = beside(next, "old");
    patiently(|| remove_folder(&aside))?;
    patiently(|| std::fs::rename(folder, &aside))?;
    if let Err(error) = patiently(|| std::fs::rename(next, folder)) {
        let _ = std::fs::rename(&aside, folder);
        return Err(error);
    }
    patiently(|| std::fs::rename(&aside, next))
}

/// Writes `views.sql` at the root, over the tables whose folders are there. The views name files that stay for a while after they
/// were replaced, so that a query that began with one version ends with it.
pub(super) fn write_views(root: &Path) -> IoResult<()> {
    let lock = File::options().create(true).truncate(false).write(true).open(root.join(HIDDEN).join("views.lock"))?;
    lock.lock()?;
    let mut text = String::from("-- DuckDB views over the tables of this folder, made by daplake: .read views.sql\n");
    for namespace in sorted(root)? {
        if namespace.ends_with(HIDDEN) {
            continue;
        }
        for folder in sorted(&namespace)? {
            let Some(ledger) = Ledger::read(&folder) else { continue };
            let data = ledger.table.split_once('.').map(|(namespace, table)| root.join(HIDDEN).join(namespace).join(table));
            let Some(data) = data else { continue };
            let mut paths: Vec<String> = ledger.files.iter().map(|file| data.join(file).display().to_string()).collect();
            if paths.is_empty() {
                paths.push(folder.join(EMPTY).display().to_string());
            }
            text.push('\n');
            text.push_str(&ledger.view(&paths));
        }
    }
    let mut file = tempfile::NamedTempFile::new_in(root.join(HIDDEN))?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(root.join("views.sql")).map_err(IoError::from)?;
    Ok(())
}

/// The folders in a folder.
fn sorted(folder: &Path) -> IoResult<Vec<PathBuf>> {
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
