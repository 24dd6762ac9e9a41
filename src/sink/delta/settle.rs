//! For a set of changes whose source may repeat keys, when a load has no old rows to look into: all rows are written as they come,
//! with a note of where each went; only then it is told which of several rows of one key stays, and the others are marked as deleted
//! or their files written anew. Keys are seldom repeated, so this is far less work than to set all rows down before.
//!
//! A note is 32 bytes a row, sorted within a share of the engine's limit, beyond it on disk.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{TimestampMicrosecondType, UInt64Type};
use futures::StreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use roaring::RoaringBitmap;

use super::apply::{MarkRule, rewrite};
use super::columns::LakeColumn;
use super::files::Names;
use super::keys::{KeyBytes, key_columns};
use super::partition::TableWriter;
use super::reader::{DataFile, Located, Rows};
use super::stats::loosened;
use super::vectors::VectorFile;
use super::writer::{FileFormat, NewFile, Placed};
use crate::error::{Error, Kind, Result};
use crate::schema::{SEQ, TS};
use crate::stage::{ChangeSet, Engine, Sorted, engine_error, hash_keys};

/// What a row takes whose key may be repeated, about.
const DOUBTFUL_BYTES: usize = 128;

/// Notes of where rows went, shared by the writers of a load.
#[derive(Debug, Clone)]
pub(super) struct Notes(Arc<Mutex<Sorted<4>>>);

/// How repeated rows go.
pub(super) struct Settling<'a> {
    pub(super) engine: &'a Engine,
    pub(super) format: &'a Arc<FileFormat>,
    pub(super) keys: &'a [LakeColumn],
    pub(super) names: &'a Names,
    /// `None`: rows may not be marked.
    pub(super) rule: Option<MarkRule>,
}

impl Notes {
    /// None yet.
    pub(super) fn new(engine: &Engine) -> Self {
        Self(Arc::new(Mutex::new(Sorted::new(engine, "WrittenRows"))))
    }

    /// Notes where the rows of a change batch went.
    pub(super) fn push(&self, batch: &RecordBatch, keys: &[ArrayRef], placed: &[Placed]) -> Result<()> {
        let hashes = hash_keys(keys, batch.num_rows()).map_err(engine_error)?;
        let times = batch.column_by_name(TS).and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
        let numbers = batch.column_by_name(SEQ).and_then(|numbers| numbers.as_primitive_opt::<UInt64Type>());
        let (Some(times), Some(numbers)) = (times, numbers) else {
            return Err(Error::new(Kind::Bug, "Changes without a needed column"));
        };
        // The order of the window over changes: a row without a time is the oldest.
        let time = |row: usize| if times.is_null(row) { 0 } else { times.value(row) as u64 ^ (1 << 63) };
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut note = |row: usize, file: u32, at: u32| {
            notes.push([hashes[row], time(row), numbers.value(row), (u64::from(file) << 32) | u64::from(at)])
        };
        for Placed { file, first, rows } in placed {
            let noted = match rows {
                None => (0..batch.num_rows()).try_for_each(|row| note(row, *file, first + row as u32)),
                Some(rows) => {
                    let rows = rows.values().iter().zip(*first..);
                    rows.into_iter().try_for_each(|(row, at)| note(*row as usize, *file, at))
                }
            };
            noted.map_err(engine_error)?;
        }
        Ok(())
    }

    /// The places of rows whose keys have the same hash, by hash, the oldest first. Asks for a reduced set if there are too many.
    async fn doubtful(self, engine: &Engine) -> Result<Vec<(u64, u64)>> {
        let Some(notes) = Arc::into_inner(self.0) else { return Err(Error::new(Kind::Bug, "Rows are still being written")) };
        let notes = notes.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut notes = notes.finish().await.map_err(engine_error)?;
        let most = engine.memory_limit() / 8 / DOUBTFUL_BYTES;
        let mut doubtful: Vec<(u64, u64)> = Vec::new();
        let mut last: Option<(u64, u64)> = None;
        while let Some([hash, _, _, place]) = notes.next().await.map_err(engine_error)? {
            if let Some(before) = last.replace((hash, place))
                && before.0 == hash
            {
                if doubtful.last() != Some(&before) {
                    doubtful.push(before);
                }
                doubtful.push((hash, place));
                if doubtful.len() > most {
                    return Err(ChangeSet::duplicate_key());
                }
            }
        }
        Ok(doubtful)
    }
}

impl Settling<'_> {
    /// Takes all rows out of `files` that a later one of the same key replaces. Gives what the table consists of then, the size of
    /// a file of deletion vectors, and how many rows went.
    ///
    /// The error is that of [`ChangeSet::duplicate_key`] if so many keys are repeated that a reduction is the better way.
    pub(super) async fn settle(&self, notes: Notes, files: Vec<NewFile>) -> Result<(Vec<NewFile>, u64, u64)> {
        let doubtful = notes.doubtful(self.engine).await?;
        let replaced = self.replaced(doubtful, &files).await?;
        let mut vectors = VectorFile::new();
        let mut writer = TableWriter::new(Arc::clone(self.format), self.names.clone());
        let mut kept = Vec::with_capacity(files.len());
        for mut file in files {
            let Some(gone) = replaced.get(&file.number) else {
                kept.push(file);
                continue;
            };
            let is_marked = gone.len() < file.rows
                && self.rule.is_some_and(|rule| {
                    file.bytes >= rule.least_file_bytes && gone.len() * 100 <= file.rows * rule.most_percent
                });
            if is_marked {
                file.vector = Some(vectors.push(gone)?);
                file.stats = loosened(&file.stats);
                file.rows -= gone.len();
                kept.push(file);
                continue;
            }
            let located = located(&file);
            if gone.len() < file.rows {
                rewrite(self.format, &located, gone.clone(), self.engine, &mut writer).await?;
            }
            // No commit is going to name it.
            if let Err(error) = self.format.store.delete(&located.path).await {
                tracing::warn!(file = file.name, error = %error, "A file that is not needed could not be removed");
            }
        }
        kept.extend(writer.finish().await?);
        let vector_bytes = vectors.finish(&self.format.store, self.names).await?;
        Ok((kept, vector_bytes, replaced.values().map(RoaringBitmap::len).sum()))
    }

    /// Rows by file that have the key of a later one: hashes may meet by accident, so the keys themselves are compared.
    async fn replaced(&self, doubtful: Vec<(u64, u64)>, files: &[NewFile]) -> Result<BTreeMap<u32, RoaringBitmap>> {
        let mut wanted: BTreeMap<u32, RoaringBitmap> = BTreeMap::new();
        for (_, place) in &doubtful {
            wanted.entry((place >> 32) as u32).or_default().insert(*place as u32);
        }
        let types: Vec<_> = self.keys.iter().map(|key| key.kind.file_type()).collect();
        let bytes = KeyBytes::new(&types)?;
        let mut keys: HashMap<u64, Box<[u8]>> = HashMap::with_capacity(doubtful.len());
        for file in files {
            let Some(rows) = wanted.get(&file.number) else { continue };
            self.read_keys(file, rows, &bytes, &mut keys).await?;
        }
        let mut replaced: BTreeMap<u32, RoaringBitmap> = BTreeMap::new();
        for group in doubtful.chunk_by(|a, b| a.0 == b.0) {
            let mut seen = HashSet::with_capacity(group.len());
            for (_, place) in group.iter().rev() {
                let key = keys.get(place).ok_or_else(|| Error::new(Kind::Bug, "A row is not where it was written to"))?;
                if !seen.insert(key) {
                    replaced.entry((place >> 32) as u32).or_default().insert(*place as u32);
                }
            }
        }
        Ok(replaced)
    }

    async fn read_keys(
        &self,
        file: &NewFile,
        rows: &RoaringBitmap,
        bytes: &KeyBytes,
        keys: &mut HashMap<u64, Box<[u8]>>,
    ) -> Result<()> {
        let located = located(file);
        let opened = DataFile::open(Arc::clone(&self.format.store), &located.path, located.size).await?;
        let chosen = Rows::at(opened.metadata(), rows);
        let names: Vec<String> = self.keys.iter().map(|key| key.physical.clone()).collect();
        let mut stream = opened.stream(names.iter().map(String::as_str), chosen, self.engine.batch_rows(0))?;
        let mut places = rows.iter().map(|row| (u64::from(file.number) << 32) | u64::from(row));
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(engine_error)?;
            let read = bytes.rows(&key_columns(&batch, &names)?)?;
            keys.extend(places.by_ref().zip(read.iter().map(|key| Box::from(key.as_ref()))).take(batch.num_rows()));
        }
        Ok(())
    }
}

fn located(file: &NewFile) -> Located {
    Located { path: Path::from(file.name.as_str()), size: file.bytes }
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;
    use arrow::datatypes::DataType;

    use super::*;
    use crate::sink::delta::columns::LakeType;
    use crate::sink::delta::{DeltaOptions, files::Uncommitted};
    use crate::stage::EngineOptions;

    #[tokio::test]
    async fn hashes_that_meet_by_accident_replace_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::new(EngineOptions { temp_dir: Some(folder.path().to_owned()), ..EngineOptions::default() }).unwrap();
        let store: Arc<dyn deltalake::ObjectStore> = Arc::new(object_store::memory::InMemory::new());
        let key = LakeColumn {
            name: "id".into(),
            physical: "id".into(),
            id: None,
            kind: LakeType::Leaf(DataType::Utf8),
            nullable: false,
            metadata: serde_json::Map::new(),
        };
        let columns = [key];
        let options = DeltaOptions::new(engine.clone());
        let format = Arc::new(FileFormat::new(&options, Arc::clone(&store), &columns, &["id".into()], 1));
        let uncommitted = Uncommitted::new(store, None);
        let mut writer = TableWriter::new(Arc::clone(&format), uncommitted.names());
        let keys: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a", "c"]));
        let placed = writer.write(RecordBatch::try_new(Arc::clone(&format.schema), vec![keys]).unwrap()).await.unwrap();
        let files = writer.finish().await.unwrap();
        assert_eq!((placed[0].file, placed[0].first), (files[0].number, 0));
        let names = uncommitted.names();
        let settling = Settling { engine: &engine, format: &format, keys: &columns, names: &names, rule: None };
        let place = |row: u64| (u64::from(files[0].number) << 32) | row;
        // As if all four had the same hash, the first being the newest.
        let replaced = settling.replaced([3, 2, 1, 0].map(|row| (7, place(row))).to_vec(), &files).await.unwrap();
        assert_eq!(replaced, BTreeMap::from([(files[0].number, RoaringBitmap::from([2]))]));
    }
}
