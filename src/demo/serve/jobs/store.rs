//! Result files on disk: encoded once, one object after the other, in bounded memory, under a name with everything that they depend on. The
//! files are always correct; `faults/damage.rs` damages copies of them.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::demo::serve::encode::{Object, Style, Sum};
use crate::demo::serve::source::Source;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::model::{Mode, TableRef, Timestamp};

/// Version of the encoding. Must change when the same records are encoded into other bytes, so that old caches are not used.
const ENCODING: &str = "v1";
const MANIFEST: &str = "manifest.json";
/// Number of records between checks whether to stop.
const STOP_CHECK_ROWS: u64 = 256;

/// The records of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    Snapshot { at: Timestamp },
    Changes { since: Timestamp, until: Timestamp },
}

impl Cut {
    /// Whether the window is empty.
    pub(crate) fn is_empty(self) -> bool {
        matches!(self, Cut::Changes { since, until } if since >= until)
    }

    /// The time whose schema version the records have.
    pub(crate) fn end(self) -> Timestamp {
        match self {
            Cut::Snapshot { at } => at,
            Cut::Changes { until, .. } => until,
        }
    }

    fn folder_name(self) -> String {
        match self {
            Cut::Snapshot { at } => format!("snapshot-{}", at.micros()),
            Cut::Changes { since, until } => format!("changes-{}-{}", since.micros(), until.micros()),
        }
    }
}

/// What to encode, and how.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) table: TableRef,
    pub(crate) cut: Cut,
    pub(crate) style: Style,
    pub(crate) rows_per_object: u64,
}

impl Recipe {
    fn folder_name(&self) -> String {
        let Style { format, mode, flat, .. } = &self.style;
        let mode = match mode {
            Mode::Expanded => "expanded",
            Mode::Condensed => "condensed",
        };
        let flat = if *flat { "-flat" } else { "" };
        format!("{format}-{mode}{flat}-{}", self.rows_per_object)
    }
}

/// A complete object.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Last segment of its id and of its URL.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) etag: String,
    /// The temporary folder of the object, if any; removed with its last object.
    _keep: Option<Arc<TempDir>>,
}

impl Part {
    pub(crate) fn new(folder: &Path, name: String, sum: Sum, keep: Option<Arc<TempDir>>) -> Self {
        let etag = format!("\"{:08x}-{:x}\"", sum.crc32, sum.bytes);
        Self { path: folder.join(&name), name, bytes: sum.bytes, etag, _keep: keep }
    }
}

/// The content of a cache folder. Written last; a folder without it is ignored.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    objects: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    name: String,
    bytes: u64,
    crc32: u32,
}

/// The store of encoded objects.
#[derive(Debug)]
pub(crate) struct Store {
    root: Option<PathBuf>,
    /// Folder of the source in the cache. `None`: objects are removed with their job.
    shared: Option<PathBuf>,
    making: Mutex<HashMap<PathBuf, Arc<Mutex<()>>>>,
}

impl Store {
    pub(crate) fn new(root: Option<PathBuf>, fingerprint: Option<String>) -> Result<Self> {
        if let Some(root) = &root {
            fs::create_dir_all(root).context(Kind::Io, "The cache folder of the demo server cannot be created")?;
        }
        let shared = root.as_ref().zip(fingerprint).map(|(root, text)| root.join(ENCODING).join(stable_hash(&text)));
        Ok(Self { root, shared, making: Mutex::default() })
    }

    /// The objects of a result, encoded if the cache does not have them. Blocking.
    pub(crate) fn objects(&self, source: &dyn Source, recipe: &Recipe, stop: &AtomicBool) -> Result<Vec<Part>> {
        let Some(shared) = &self.shared else {
            let folder = Arc::new(self.temporary()?);
            let entries = encode(source, recipe, folder.path(), stop)?;
            return Ok(parts(folder.path(), entries, Some(folder.clone())));
        };
        let table = &recipe.table;
        let table_name = if table.is_path_safe() { table.to_string() } else { stable_hash(&table.to_string()) };
        let parent = shared.join(table_name).join(recipe.cut.folder_name());
        let folder = parent.join(recipe.folder_name());

        let lock = self.making.lock().entry(folder.clone()).or_default().clone();
        let _guard = lock.lock();
        if let Some(parts) = cached(&folder) {
            return Ok(parts);
        }
        fs::create_dir_all(&parent).context(Kind::Io, "The cache folder of the demo server cannot be created")?;
        let making = tempfile::Builder::new()
            .prefix("making-")
            .tempdir_in(&parent)
            .context(Kind::Io, "The cache of the demo server cannot be written")?;
        let entries = encode(source, recipe, making.path(), stop)?;
        let manifest =
            serde_json::to_vec(&Manifest { objects: entries }).context(Kind::Bug, "The manifest cannot be serialized")?;
        fs::write(making.path().join(MANIFEST), manifest)
            .context(Kind::Io, "The cache of the demo server cannot be written")?;
        // An existing folder is damaged, or another server has just created it.
        if cached(&folder).is_none() {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).context(Kind::Io, "The cache of the demo server cannot be written");
                }
                _ => {}
            }
            match fs::rename(making.path(), &folder) {
                Ok(()) => drop(making.keep()),
                Err(_) if cached(&folder).is_some() => {}
                Err(error) => return Err(error).context(Kind::Io, "The cache of the demo server cannot be written"),
            }
        }
        cached(&folder).ok_or_else(|| {
            Error::new(Kind::Io, "Objects are missing from the cache of the demo server after they were written")
        })
    }

    /// A new temporary folder.
    pub(crate) fn temporary(&self) -> Result<TempDir> {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("daplake-serve-");
        let folder = match &self.root {
            Some(root) => builder.tempdir_in(root),
            None => builder.tempdir(),
        };
        folder.context(Kind::Io, "A temporary folder cannot be created")
    }
}

/// A hash that is the same in every process.
fn stable_hash(text: &str) -> String {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, text).hash(&mut hasher);
        hasher.finish()
    };
    format!("{:016x}{:016x}", half(0), half(1))
}

fn parts(folder: &Path, entries: Vec<Entry>, keep: Option<Arc<TempDir>>) -> Vec<Part> {
    let part = |Entry { name, bytes, crc32 }| Part::new(folder, name, Sum { bytes, crc32 }, keep.clone());
    entries.into_iter().map(part).collect()
}

/// The objects of a cache folder, if it is complete.
fn cached(folder: &Path) -> Option<Vec<Part>> {
    let manifest: Manifest = serde_json::from_slice(&fs::read(folder.join(MANIFEST)).ok()?).ok()?;
    let whole = |entry: &Entry| {
        let name_is_plain = Path::new(&entry.name).file_name().is_some_and(|name| name == entry.name.as_str());
        name_is_plain && fs::metadata(folder.join(&entry.name)).is_ok_and(|file| file.len() == entry.bytes)
    };
    manifest.objects.iter().all(whole).then(|| parts(folder, manifest.objects, None))
}

/// Name of an object by its number.
pub(crate) fn part_name(number: usize, style: &Style) -> String {
    format!("part-{number:05}-c000.{}", style.extension())
}

fn encode(source: &dyn Source, recipe: &Recipe, folder: &Path, stop: &AtomicBool) -> Result<Vec<Entry>> {
    let Recipe { table, cut, style, rows_per_object } = recipe;
    let records = match *cut {
        Cut::Snapshot { at } => source.snapshot(table, at),
        Cut::Changes { since, until } => source.changes(table, since, until),
    };
    let records =
        records.ok_or_else(|| Error::new(Kind::NotFound, "The school does not have the table").with_field("table", table))?;

    let mut entries = Vec::new();
    let mut open: Option<(String, Object, u64)> = None;
    let close = |(name, object, _): (String, Object, u64), entries: &mut Vec<Entry>| -> Result<()> {
        let Sum { bytes, crc32 } = object.finish()?;
        entries.push(Entry { name, bytes, crc32 });
        Ok(())
    };
    for (count, record) in (0u64..).zip(records) {
        if count % STOP_CHECK_ROWS == 0 && stop.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Cancelled, "The demo server was stopped"));
        }
        if let Some(full) = open.take_if(|(_, _, rows)| *rows >= *rows_per_object) {
            close(full, &mut entries)?;
        }
        let (_, object, rows) = match &mut open {
            Some(open) => open,
            None => {
                let name = part_name(entries.len(), style);
                let object = Object::create(&folder.join(&name), style)?;
                open.insert((name, object, 0))
            }
        };
        object.row(&record)?;
        *rows += 1;
    }
    if let Some(last) = open {
        close(last, &mut entries)?;
    }
    Ok(entries)
}
