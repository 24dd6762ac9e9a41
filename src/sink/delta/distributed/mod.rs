//! A load in parts that other processes do: the orders they get, what they tell, and how it becomes one commit.
//!
//! A snapshot is written as it comes. Where each row went is noted (as in [`crate::sink::delta::merge::dedup`]); the notes, not the rows, are brought
//! together by key, and tell which rows a later one of the same key replaces. An increment is brought together by key and reduced
//! first; its rows go to new files, its keys to files of their own, which whoever looks into old files reads. Nothing of all that is
//! visible before the one commit, which is made where the load was begun.
//!
//! Orders hold descriptions and no secrets: a process that does one has its own way to the store ([`Worker`]).

mod gather;
mod steps;
#[cfg(test)]
pub(in crate::sink::delta) mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type, UInt64Type};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use deltalake::kernel::DeletionVectorDescriptor;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::engine::{BatchSender, engine_error, stream_from_task};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::sink::delta::merge::dedup::{NO_FILE, Note, NoteMaker};
use crate::sink::delta::merge::key_probe::MarkRule;
use crate::sink::delta::write::parquet_writer::{NewFile, Placed};
use crate::sink::{Step, Worker};

/// Notes that travel together.
const NOTES_AT_ONCE: usize = 8192;
/// The column that notes are brought together by.
const HASH: &str = "hash";

/// What is to be done with each part.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Order {
    /// Changes become rows of new files, and notes of where they went.
    Write(TableOrder),
    /// Notes of the same keys become the rows that others replace.
    Settle,
    /// Changes of the same keys become rows of new files, and a file of keys.
    Merge(TableOrder),
    /// Descriptions of old files become what is done with them.
    Apply(ApplyOrder),
}

/// What has to be known of a table to write its files.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct TableOrder {
    namespace: String,
    table: String,
    /// Where its target is, without any credentials.
    root: Url,
    /// Its columns, as the log has them.
    schema: String,
    keys: Vec<String>,
    target_file_bytes: u64,
    compression_level: i32,
}

/// What is looked for in old files.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ApplyOrder {
    table: TableOrder,
    keys: Vec<KeyFile>,
    rewrites: bool,
    rule: Option<MarkRule>,
}

/// A file of keys on their way to those who look into old files.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct KeyFile {
    name: String,
    bytes: u64,
}

/// What those who work tell.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Told {
    /// A new file. `writer` is a number of chance: with the file's own, it names the file in notes.
    File { writer: u64, file: NewFile },
    /// A part was written: upserts in its files, changes in all that came (several of a key counted as often).
    Wrote { upserted: u64, changes: u64 },
    /// Notes of some keys were looked through. Of each file (writer, number): how many there were, and the rows that a later change
    /// replaces, a bitmap in base64. There are as many entries as files, for each part that settles: so they are short.
    Settled(Vec<(u64, u32, u64, Option<String>)>),
    /// Keys of a part.
    Keys(KeyFile),
    /// An old file goes, or comes back with this vector.
    Changed { number: usize, vector: Option<DeletionVectorDescriptor> },
    /// Old files were looked into: keys of deletes that were found, bytes of deletion vectors that were written.
    Applied { deleted: u64, vector_bytes: u64 },
}

impl Order {
    fn step(&self, by: Vec<String>) -> Result<Step> {
        let order = serde_json::to_string(self).context(Kind::Bug, "Work cannot be described")?;
        Ok(Step { by, order, output: self.output() })
    }

    fn output(&self) -> SchemaRef {
        match self {
            Order::Write(_) => notes_schema(),
            Order::Settle | Order::Merge(_) | Order::Apply(_) => told_schema(),
        }
    }
}

/// Does a step of a load of a Delta table with one part of its rows. Must be called within a tokio runtime: the work is a task of its
/// own, which ends when the stream is dropped. Errors of the stream carry one of ours. Kind `Bug` for an order of another version of
/// this program.
pub fn run_step(order: &str, input: SendableRecordBatchStream, worker: &Worker) -> Result<SendableRecordBatchStream> {
    let order: Order = serde_json::from_str(order).context(Kind::Bug, "Work is described in unknown words")?;
    let worker = worker.clone();
    Ok(stream_from_task(order.output(), 2, move |sender| async move {
        let done = match order {
            Order::Write(table) => steps::write(&table, input, &worker, &sender).await,
            Order::Settle => steps::settle(input, &worker, &sender).await,
            Order::Merge(table) => steps::merge(&table, input, &worker, &sender).await,
            Order::Apply(order) => steps::apply(&order, input, &worker, &sender).await,
        };
        done.map_err(|error| DataFusionError::External(Box::new(error)))
    }))
}

fn notes_schema() -> SchemaRef {
    let number = |name: &str| Field::new(name, DataType::UInt64, false);
    let small = |name: &str| Field::new(name, DataType::UInt32, false);
    let told = Field::new("told", DataType::Utf8, true);
    let fields =
        [number(HASH), number("hash2"), number("ts"), number("seq"), number("writer"), small("file"), small("row"), told];
    Arc::new(Schema::new(fields.to_vec()))
}

fn told_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("told", DataType::Utf8, true)]))
}

/// Sends rows of the result. An error when nobody reads them any more.
async fn send(sender: &BatchSender, batch: RecordBatch) -> Result<()> {
    sender.send(batch).await.map_err(engine_error)
}

fn text_of(told: &Told) -> Result<String> {
    serde_json::to_string(told).context(Kind::Bug, "What was done cannot be told")
}

/// As a row of the schema of told things.
async fn tell(sender: &BatchSender, told: &Told) -> Result<()> {
    send(sender, rows_of_texts(vec![text_of(told)?])?).await
}

fn rows_of_texts(texts: Vec<String>) -> Result<RecordBatch> {
    let column: ArrayRef = Arc::new(StringArray::from(texts));
    RecordBatch::try_new(told_schema(), vec![column]).context(Kind::Bug, "What was done cannot be told")
}

/// The texts of a batch that has some.
fn texts_of(batch: &RecordBatch) -> Result<impl Iterator<Item = &str>> {
    let column = batch.column_by_name("told").and_then(|column| column.as_string_opt::<i32>());
    let column = column.ok_or_else(|| Error::new(Kind::Bug, "What was done is told in another way"))?;
    Ok(column.iter().flatten())
}

fn read_told(text: &str) -> Result<Told> {
    serde_json::from_str(text).context(Kind::Bug, "What was done is told in unknown words")
}

/// Tells where rows went.
#[derive(Debug, Clone)]
pub(in crate::sink::delta) struct Teller {
    maker: NoteMaker,
    /// Of chance, so that no two attempts at a part have the same.
    writer: u64,
    sender: BatchSender,
    notes: Arc<Mutex<Vec<Note>>>,
}

impl Teller {
    fn new(types: &[DataType], sender: BatchSender) -> Result<Self> {
        let writer = uuid::Uuid::new_v4().as_u64_pair().0;
        Ok(Self { maker: NoteMaker::new(types)?, writer, sender, notes: Arc::default() })
    }

    /// Rows of a change batch went to files.
    pub(in crate::sink::delta) async fn wrote(&self, batch: &RecordBatch, keys: &[ArrayRef], placed: &[Placed]) -> Result<()> {
        {
            let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            self.maker.of_rows(batch, keys, placed, |note| {
                notes.push(note);
                Ok(())
            })?;
        }
        self.send_notes(NOTES_AT_ONCE).await
    }

    /// Changes left no rows: they are deletes.
    pub(in crate::sink::delta) async fn deleted(&self, batch: &RecordBatch, keys: &[ArrayRef]) -> Result<()> {
        self.wrote(batch, keys, &[Placed { file: NO_FILE, first: 0, rows: None }]).await
    }

    /// Sends what was noted, if it is so much.
    async fn send_notes(&self, least: usize) -> Result<()> {
        loop {
            let step: Vec<Note> = {
                let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
                if notes.len() < least.max(1) {
                    return Ok(());
                }
                let rest = notes.len().min(NOTES_AT_ONCE);
                notes.drain(..rest).collect()
            };
            send(&self.sender, self.batch_of(&step, None)?).await?;
        }
    }

    /// Something else, among the notes.
    async fn tell(&self, told: &Told) -> Result<()> {
        send(&self.sender, self.batch_of(&[[0; 5]], Some(text_of(told)?))?).await
    }

    fn batch_of(&self, notes: &[Note], told: Option<String>) -> Result<RecordBatch> {
        let column =
            |number: usize| -> ArrayRef { Arc::new(UInt64Array::from_iter_values(notes.iter().map(|note| note[number]))) };
        let half = |shift: u32| -> ArrayRef {
            Arc::new(UInt32Array::from_iter_values(notes.iter().map(|note| (note[4] >> shift) as u32)))
        };
        let writer: ArrayRef = Arc::new(UInt64Array::from_value(self.writer, notes.len()));
        let told: ArrayRef = match told {
            Some(text) => Arc::new(StringArray::from(vec![text])),
            None => arrow::array::new_null_array(&DataType::Utf8, notes.len()),
        };
        let columns = vec![column(0), column(1), column(2), column(3), writer, half(32), half(0), told];
        RecordBatch::try_new(notes_schema(), columns).context(Kind::Bug, "Notes cannot be sent")
    }
}

/// Notes as they came.
struct NoteRows<'a> {
    numbers: Vec<&'a UInt64Array>,
    files: &'a UInt32Array,
    rows: &'a UInt32Array,
    told: &'a StringArray,
}

impl<'a> NoteRows<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self> {
        let wrong = || Error::new(Kind::Bug, "Notes came in another form");
        let number = |place: usize| batch.columns().get(place)?.as_primitive_opt::<UInt64Type>();
        let small = |place: usize| batch.columns().get(place)?.as_primitive_opt::<UInt32Type>();
        Ok(Self {
            numbers: (0..5).map(number).collect::<Option<_>>().ok_or_else(wrong)?,
            files: small(5).ok_or_else(wrong)?,
            rows: small(6).ok_or_else(wrong)?,
            told: batch.columns().get(7).and_then(|column| column.as_string_opt::<i32>()).ok_or_else(wrong)?,
        })
    }

    fn told(&self, row: usize) -> Option<&'a str> {
        self.told.is_valid(row).then(|| self.told.value(row))
    }

    /// Who wrote, and the number of the file.
    fn file(&self, row: usize) -> (u64, u32) {
        (self.numbers[4].value(row), self.files.value(row))
    }

    /// The note, with `file` in place of the file's number.
    fn note(&self, row: usize, file: u32) -> Note {
        let number = |place: usize| self.numbers[place].value(row);
        [number(0), number(1), number(2), number(3), (u64::from(file) << 32) | u64::from(self.rows.value(row))]
    }
}
