//! For a set of changes whose source may repeat keys, when a load has no old rows to look into: all rows are written as they come,
//! with a note of where each went; only then it is told which of several rows of one key stays, and the others are marked as deleted
//! or their files written anew. Keys are seldom repeated, so this is far less work than to set all rows down before.
//!
//! A note is 40 bytes a row, sorted within a share of the engine's limit, beyond it on disk.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, TimestampMicrosecondType, UInt64Type};
use datafusion::error::Result as PlanResult;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use roaring::RoaringBitmap;

use crate::engine::{Engine, ExternalSorter, engine_error};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::schema::{SEQ, TS};
use crate::sink::delta::log::file_names::Names;
use crate::sink::delta::log::statistics::loosened;
use crate::sink::delta::merge::key_probe::{MarkRule, rewrite};
use crate::sink::delta::merge::key_set::KeyBytes;
use crate::sink::delta::read::data_file::Located;
use crate::sink::delta::write::deletion_vectors::VectorFile;
use crate::sink::delta::write::parquet_writer::{FileFormat, NewFile, Placed};
use crate::sink::delta::write::partitioned_writer::TableWriter;

/// Two hashes of a key, the time of the change, its number, and where the row is: file and row.
pub(in crate::sink::delta) type Note = [u64; 5];

/// Number of the file of a note on a change that left no row: a delete.
pub(in crate::sink::delta) const NO_FILE: u32 = u32::MAX;

/// Rows by number of the file.
pub(in crate::sink::delta) type RowsOfFiles = BTreeMap<u32, RoaringBitmap>;

/// Makes notes of changes.
#[derive(Debug, Clone)]
pub(in crate::sink::delta) struct NoteMaker(Arc<KeyBytes>);

impl NoteMaker {
    /// For keys of these types.
    pub(in crate::sink::delta) fn new(types: &[DataType]) -> Result<Self> {
        Ok(Self(Arc::new(KeyBytes::new(types)?)))
    }

    /// Calls `take` with a note of each row of a change batch.
    pub(in crate::sink::delta) fn of_rows(
        &self,
        batch: &RecordBatch,
        keys: &[ArrayRef],
        placed: &[Placed],
        mut take: impl FnMut(Note) -> Result<()>,
    ) -> Result<()> {
        let hashes = self.hashes(keys)?;
        let times = batch.column_by_name(TS).and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
        let numbers = batch.column_by_name(SEQ).and_then(|numbers| numbers.as_primitive_opt::<UInt64Type>());
        let (Some(times), Some(numbers)) = (times, numbers) else {
            return Err(Error::new(Kind::Bug, "Changes without a needed column"));
        };
        // The order of the window over changes: a row without a time is the oldest.
        let time = |row: usize| if times.is_null(row) { 0 } else { times.value(row) as u64 ^ (1 << 63) };
        let mut note = |row: usize, file: u32, at: u32| {
            let (first, second) = hashes[row];
            take([first, second, time(row), numbers.value(row), (u64::from(file) << 32) | u64::from(at)])
        };
        for Placed { file, first, rows } in placed {
            match rows {
                None => (0..batch.num_rows()).try_for_each(|row| note(row, *file, first + row as u32))?,
                Some(rows) => {
                    rows.values().iter().zip(*first..).try_for_each(|(row, at)| note(*row as usize, *file, at))?;
                }
            }
        }
        Ok(())
    }

    /// 128 bits of each key: that two of 10^9 keys have the same is less likely (10^-21) than a fault of the machine that it runs on.
    fn hashes(&self, keys: &[ArrayRef]) -> Result<Vec<(u64, u64)>> {
        let of = |key: &[u8]| {
            let mut second = DefaultHasher::new();
            second.write_u8(1);
            let mut first = DefaultHasher::new();
            first.write(key);
            second.write(key);
            (first.finish(), second.finish())
        };
        if let [key] = keys
            && let Some(texts) = key.as_string_opt::<i32>()
        {
            return Ok((0..texts.len()).map(|row| of(texts.value(row).as_bytes())).collect());
        }
        Ok(self.0.rows(keys)?.iter().map(|key| of(key.as_ref())).collect())
    }
}

/// Of sorted notes, all rows that have the key of a later change.
pub(in crate::sink::delta) async fn replaced(notes: ExternalSorter<5>) -> Result<RowsOfFiles> {
    // It reads the disk.
    let finding = tokio::task::spawn_blocking(move || find_replaced(notes));
    finding.await.context(Kind::Bug, "The search for repeated keys stopped unexpectedly")?.map_err(engine_error)
}

fn find_replaced(notes: ExternalSorter<5>) -> PlanResult<RowsOfFiles> {
    let mut replaced = RowsOfFiles::new();
    let mut last: Option<Note> = None;
    for note in notes.finish()? {
        let note = note?;
        if let Some(before) = last.replace(note)
            && before[..2] == note[..2]
            && (before[4] >> 32) as u32 != NO_FILE
        {
            replaced.entry((before[4] >> 32) as u32).or_default().insert(before[4] as u32);
        }
    }
    Ok(replaced)
}

/// Notes of where rows went, shared by the writers of a load.
#[derive(Debug, Clone)]
pub(in crate::sink::delta) struct Notes {
    maker: NoteMaker,
    sorted: Arc<Mutex<ExternalSorter<5>>>,
}

impl Notes {
    /// None yet, of rows with keys of these types.
    pub(in crate::sink::delta) fn new(types: &[DataType], engine: &Engine) -> Result<Self> {
        let sorted = Arc::new(Mutex::new(ExternalSorter::new(engine, "WrittenRows")));
        Ok(Self { maker: NoteMaker::new(types)?, sorted })
    }

    /// Notes where the rows of a change batch went.
    pub(in crate::sink::delta) fn push(&self, batch: &RecordBatch, keys: &[ArrayRef], placed: &[Placed]) -> Result<()> {
        let mut sorted = self.sorted.lock().unwrap_or_else(PoisonError::into_inner);
        self.maker.of_rows(batch, keys, placed, |note| sorted.push(note).map_err(engine_error))
    }

    /// All rows that have the key of a later one.
    pub(in crate::sink::delta) async fn replaced(self) -> Result<RowsOfFiles> {
        let sorted = Arc::into_inner(self.sorted).ok_or_else(|| Error::new(Kind::Bug, "Rows are still being written"))?;
        replaced(sorted.into_inner().unwrap_or_else(PoisonError::into_inner)).await
    }
}

/// How rows go.
pub(in crate::sink::delta) struct Settling<'a> {
    pub(in crate::sink::delta) engine: &'a Engine,
    pub(in crate::sink::delta) format: &'a Arc<FileFormat>,
    pub(in crate::sink::delta) names: &'a Names,
    /// `None`: rows may not be marked.
    pub(in crate::sink::delta) rule: Option<MarkRule>,
}

impl Settling<'_> {
    /// Takes all rows out of `files` that a later one of the same key replaces. Gives what the table consists of then, the size of
    /// a file of deletion vectors, and how many rows went.
    pub(in crate::sink::delta) async fn take_out(
        &self,
        replaced: &RowsOfFiles,
        files: Vec<NewFile>,
    ) -> Result<(Vec<NewFile>, u64, u64)> {
        let mut vectors = VectorFile::new();
        let mut writer = TableWriter::new(Arc::clone(self.format), self.names.clone());
        let mut kept = Vec::with_capacity(files.len());
        for mut file in files {
            let Some(gone) = replaced.get(&file.number) else {
                kept.push(file);
                continue;
            };
            if gone.len() < file.rows && self.rule.is_some_and(|rule| rule.marks(file.bytes, gone.len(), file.rows)) {
                file.vector = Some(vectors.push(gone)?);
                file.stats = loosened(&file.stats);
                file.rows -= gone.len();
                kept.push(file);
                continue;
            }
            let located = Located { path: Path::from(file.name.as_str()), size: file.bytes };
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
}
