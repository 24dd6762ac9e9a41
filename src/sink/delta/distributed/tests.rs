//! Loads in parts, done one after the other in this process: what a cluster does, without one.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt32Array, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use async_trait::async_trait;
use futures::TryStreamExt;
use proptest::prelude::*;
use serde_json::json;

use crate::engine::{batch_stream, engine_error};
use crate::error::{Kind, Result};
use crate::model::{Bookmark, Namespace, TableRef};
use crate::redact::SafeUrl;
use crate::reduce::ChangeSet;
use crate::sink::conformance::{self, Change, Fixture, at, changes, expected, load, plain, plan, read, reduced};
use crate::sink::delta::distributed::{HASH, run_step};
use crate::sink::delta::tests::history::{KeyKind, row, runtime, table};
use crate::sink::delta::tests::{Lake, engine};
use crate::sink::delta::{DeletionVectors, DeltaOptions, DeltaSink};
use crate::sink::{Done, Held, Layout, Load, LoadKind, LoadPlan, Loaded, Sink, Source, TableStatus, Work, Worker, Workers};
use crate::store::StoreOptions;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) enum Fate {
    Nothing,
    /// A part of the first step is never done.
    IsLost,
    /// A part of the first step is done twice, and what it tells is of either time.
    IsMixed,
    /// What was written is not where the commit is going to be.
    IsElsewhere,
    /// So many times, nobody answers.
    IsSilent(usize),
}

/// Does work in this process.
#[derive(Debug)]
pub(in super::super) struct InProcess {
    schema: SchemaRef,
    changes: Vec<RecordBatch>,
    parts: usize,
    worker: Worker,
    /// Of the table.
    folder: PathBuf,
    fate: Fate,
    runs: AtomicUsize,
}

impl InProcess {
    pub(in super::super) async fn of(changes: ChangeSet, parts: usize, folder: &Path) -> Self {
        let mut batches = Vec::new();
        for stream in changes.streams {
            batches.extend(stream.try_collect::<Vec<_>>().await.unwrap());
        }
        let worker = Worker { engine: engine(&folder.join("worker"), 64 << 20), store: StoreOptions::default() };
        Self {
            schema: changes.schema,
            changes: batches,
            parts,
            worker,
            folder: PathBuf::new(),
            fate: Fate::Nothing,
            runs: AtomicUsize::new(0),
        }
    }

    pub(in super::super) fn with_store(mut self, store: StoreOptions) -> Self {
        self.worker.store = store;
        self
    }

    async fn done(&self, order: &str, schema: &SchemaRef, part: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        let output = run_step(order, batch_stream(Arc::clone(schema), part), &self.worker)?;
        output.try_collect().await.map_err(engine_error)
    }
}

/// Rows that are equal in some columns, together.
fn together(parts: Vec<Vec<RecordBatch>>, by: &[String], count: usize) -> Vec<Vec<RecordBatch>> {
    let mut out = vec![Vec::new(); count];
    for batch in parts.into_iter().flatten() {
        let columns: Vec<ArrayRef> = by.iter().map(|name| Arc::clone(batch.column_by_name(name).unwrap())).collect();
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let rows = RowConverter::new(fields).unwrap().convert_columns(&columns).unwrap();
        let mut places = vec![Vec::new(); count];
        for (number, key) in rows.iter().enumerate() {
            let mut hasher = DefaultHasher::new();
            key.as_ref().hash(&mut hasher);
            places[hasher.finish() as usize % count].push(number as u32);
        }
        for (part, rows) in out.iter_mut().zip(places) {
            part.push(take_record_batch(&batch, &UInt32Array::from(rows)).unwrap());
        }
    }
    out
}

#[async_trait]
impl Workers for InProcess {
    fn parts(&self) -> usize {
        self.parts
    }

    async fn run(&self, work: Work) -> Result<Done> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        if matches!(self.fate, Fate::IsSilent(times) if run < times) {
            return Err(crate::Error::new(Kind::Unavailable, "Nobody is there"));
        }
        let reads = matches!(work.source, Source::Changes);
        let (mut schema, mut parts) = match work.source {
            Source::Changes => {
                let mut parts = vec![Vec::new(); self.parts];
                self.changes.iter().enumerate().for_each(|(place, batch)| parts[place % self.parts].push(batch.clone()));
                (Arc::clone(&self.schema), parts)
            }
            Source::Rows(batches) => (batches[0].schema(), batches.into_iter().map(|batch| vec![batch]).collect()),
        };
        for (number, step) in work.steps.iter().enumerate() {
            assert!(!step.order.contains("planted"), "orders hold no secrets");
            if !step.by.is_empty() {
                parts = together(parts, &step.by, self.parts);
            }
            let mut outputs = Vec::new();
            for (place, part) in parts.into_iter().enumerate() {
                let first = number == 0 && place == 0;
                let mut output = self.done(&step.order, &schema, part.clone()).await?;
                match self.fate {
                    Fate::IsLost if first => output.clear(),
                    Fate::IsMixed if first => {
                        let again = self.done(&step.order, &schema, part).await?;
                        // Notes of one time, files of the other.
                        let notes = |batch: &RecordBatch| batch.column_by_name(HASH).is_some() && batch.num_rows() > 1;
                        output.retain(notes);
                        output.extend(again.into_iter().filter(|batch| !notes(batch)));
                    }
                    _ => {}
                }
                outputs.push(output);
            }
            (schema, parts) = (Arc::clone(&step.output), outputs);
        }
        if self.fate == Fate::IsElsewhere {
            for entry in std::fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_file() {
                    std::fs::rename(&entry, entry.with_extension("moved")).unwrap();
                }
            }
        }
        let changes = if reads { self.changes.iter().map(|batch| batch.num_rows() as u64).sum() } else { 0 };
        Ok(Done { batches: parts.into_iter().flatten().collect(), changes })
    }
}

/// A change of a key at a time: another number, or a delete.
type Seen = (i64, i64, Option<i64>);

fn batches_of(kind: KeyKind, seen: &[Seen], rows: usize) -> Vec<RecordBatch> {
    let schema = kind.schema(0);
    let numbered: Vec<(usize, &Seen)> = seen.iter().enumerate().collect();
    let batch = |part: &[(usize, &Seen)]| {
        let plain: Vec<Change> = part
            .iter()
            .map(|(_, (key, _, n))| match n {
                Some(n) => Change::Up(row(kind, *key, *n, 0)),
                None => Change::Del(kind.key(*key)),
            })
            .collect();
        let batch = changes(&schema, &plain);
        let mut columns = batch.columns().to_vec();
        let times = part.iter().map(|(_, (_, time, _))| *time);
        columns[1] = Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"));
        columns[2] = Arc::new(UInt64Array::from_iter_values(part.iter().map(|(number, _)| *number as u64)));
        RecordBatch::try_new(batch.schema(), columns).unwrap()
    };
    numbered.chunks(rows).map(batch).collect()
}

async fn in_parts(lake: &Lake, plan: LoadPlan, set: ChangeSet, fate: Fate, second: i64) -> Result<Loaded> {
    let mut opened = lake.sink.begin(plan.clone()).await?;
    let workers = InProcess { fate, folder: lake.folder(&plan.table), ..InProcess::of(set, 3, &lake.root).await };
    assert!(opened.write_by(&workers).await?, "others have a part in it");
    opened.commit(at(second)).await
}

fn any_seen() -> impl Strategy<Value = Vec<Seen>> {
    prop::collection::vec((0..40_i64, 0..5_i64, prop::option::weighted(0.8, 0..1000_i64)), 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn of_repeated_keys_the_latest_stays(
        kind in prop_oneof![Just(KeyKind::Whole), Just(KeyKind::Text), Just(KeyKind::Both)],
        seen in prop::collection::vec(any_seen(), 1..4),
        rows in 1..40_usize,
        setting in prop_oneof![Just(DeletionVectors::Auto), Just(DeletionVectors::On), Just(DeletionVectors::Off)],
        target_file_bytes in prop_oneof![Just(1_u64), Just(3_000), Just(128 << 20)],
    ) {
        let lake = Lake::with(64 << 20, |options| DeltaOptions { deletion_vectors: setting, target_file_bytes, ..options });
        let schema = kind.schema(0);
        let outcome: std::result::Result<(), TestCaseError> = runtime().block_on(async {
            let mut now: BTreeMap<i64, i64> = BTreeMap::new();
            for (number, seen) in seen.iter().enumerate() {
                let load_kind = if number == 0 { LoadKind::Replace } else { LoadKind::Merge };
                let set = ChangeSet { reduced: false, ..reduced(&schema, batches_of(kind, seen, rows)) };
                let plan = plan(&lake.fixture, &schema, load_kind).await;
                let loaded = in_parts(&lake, plan, set, Fate::Nothing, number as i64 + 1).await.unwrap();
                let mut latest: BTreeMap<i64, (i64, Option<i64>)> = BTreeMap::new();
                for (key, time, n) in seen {
                    let entry = latest.entry(*key).or_insert((*time, *n));
                    if *time >= entry.0 {
                        *entry = (*time, *n);
                    }
                }
                let upserted = latest.values().filter(|(_, n)| n.is_some()).count() as u64;
                let deleted = latest.iter().filter(|(key, (_, n))| n.is_none() && now.contains_key(key)).count() as u64;
                for (key, (_, n)) in latest {
                    match n {
                        Some(n) => now.insert(key, n),
                        None => now.remove(&key),
                    };
                }
                prop_assert_eq!((loaded.upserted, loaded.deleted, loaded.rows), (upserted, deleted, Some(now.len() as u64)));
                let wanted: Vec<_> = now.iter().map(|(key, n)| row(kind, *key, *n, 0)).collect();
                prop_assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &wanted));
            }
            Ok(())
        });
        outcome?;
    }
}

#[tokio::test]
async fn work_that_does_not_fit_together_is_no_commit() {
    let lake = Lake::new();
    let schema = plain(&table());
    let rows =
        |from: i64| (from..from + 60).map(|id| Change::Up(json!({"id": id, "name": format!("row {id}")}))).collect::<Vec<_>>();
    let set = |from| reduced(&schema, rows(from).chunks(7).map(|rows| changes(&schema, rows)).collect());
    for (kind, fates) in [(LoadKind::Replace, vec![Fate::IsLost, Fate::IsMixed]), (LoadKind::Merge, vec![Fate::IsLost])] {
        if kind == LoadKind::Merge {
            load(&lake.fixture, &schema, LoadKind::Replace, &rows(0), at(1)).await.unwrap();
        }
        let before = lake.data_files(&schema.table);
        for fate in fates {
            let error = in_parts(&lake, plan(&lake.fixture, &schema, kind).await, set(30), fate, 2).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Unavailable, "{fate:?}: {error:?}");
        }
        let held = lake.sink.held(&schema.table).await.unwrap();
        assert_eq!(held.map(|held| held.bookmark), (kind == LoadKind::Merge).then(|| at(1)));
        // What a lost part wrote is in nobody's hands; a vacuum knows its name. What was told of went.
        assert!(lake.data_files(&schema.table).len() >= before.len());
    }
    let elsewhere = in_parts(&lake, plan(&lake.fixture, &schema, LoadKind::Merge).await, set(30), Fate::IsElsewhere, 2).await;
    let error = elsewhere.unwrap_err();
    assert_eq!(error.kind(), Kind::Target);
    assert!(error.hint_text().unwrap().contains("same endpoint"), "{error:?}");
    for entry in std::fs::read_dir(lake.folder(&schema.table)).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.extension().is_some_and(|extension| extension == "moved") {
            std::fs::rename(&entry, entry.with_extension("parquet")).unwrap();
        }
    }
    // Who was silent twice is asked a third time.
    let loaded =
        in_parts(&lake, plan(&lake.fixture, &schema, LoadKind::Merge).await, set(30), Fate::IsSilent(2), 2).await.unwrap();
    assert_eq!((loaded.upserted, loaded.rows), (60, Some(90)));
}

#[tokio::test]
async fn no_file_of_keys_is_left() {
    let lake = Lake::with(64 << 20, |options| DeltaOptions { compact_after: 0, ..options });
    let schema = plain(&table());
    let ups = |ids: std::ops::Range<i64>| ids.map(|id| Change::Up(json!({"id": id, "name": "x"}))).collect::<Vec<_>>();
    load(&lake.fixture, &schema, LoadKind::Replace, &ups(0..50), at(1)).await.unwrap();
    let set = reduced(&schema, vec![changes(&schema, &ups(40..60))]);
    in_parts(&lake, plan(&lake.fixture, &schema, LoadKind::Merge).await, set, Fate::Nothing, 2).await.unwrap();
    let state = lake.sink.log(&schema.table).unwrap().state().await.unwrap().unwrap();
    let named = state.files.iter().filter(|file| lake.data_files(&schema.table).contains(&file.path.to_string())).count();
    // The file that was written anew stays for readers of the version before.
    assert_eq!((named, lake.data_files(&schema.table).len()), (state.files.len(), state.files.len() + 1));
}

#[tokio::test]
async fn tables_of_other_modes_are_not_given_away() {
    let lake = Lake::new();
    let schema = plain(&table());
    let layout = Layout { mode: Some(crate::schema::TableMode::History), ..Layout::default() };
    let plan = LoadPlan { layout, ..plan(&lake.fixture, &schema, LoadKind::Replace).await };
    let mut opened = lake.sink.begin(plan).await.unwrap();
    let workers = InProcess::of(reduced(&schema, Vec::new()), 2, &lake.root).await;
    assert!(!opened.write_by(&workers).await.unwrap());
}

/// A sink whose loads are done by others.
#[derive(Debug)]
struct PartedSink {
    inner: DeltaSink,
    folder: PathBuf,
}

struct PartedLoad {
    inner: Box<dyn Load>,
    folder: PathBuf,
}

#[async_trait]
impl Sink for PartedSink {
    fn location(&self) -> &SafeUrl {
        self.inner.location()
    }

    async fn check(&self) -> Result<()> {
        self.inner.check().await
    }

    async fn held(&self, table: &TableRef) -> Result<Option<Held>> {
        self.inner.held(table).await
    }

    async fn list(&self, namespace: Option<&Namespace>) -> Result<Vec<TableRef>> {
        self.inner.list(namespace).await
    }

    async fn status(&self, table: &TableRef) -> Result<Option<TableStatus>> {
        self.inner.status(table).await
    }

    async fn begin(&self, plan: LoadPlan) -> Result<Box<dyn Load>> {
        Ok(Box::new(PartedLoad { inner: self.inner.begin(plan).await?, folder: self.folder.clone() }))
    }
}

#[async_trait]
impl Load for PartedLoad {
    async fn write(&mut self, changes: ChangeSet) -> Result<()> {
        let workers = InProcess::of(changes, 3, &self.folder).await;
        assert!(self.inner.write_by(&workers).await?);
        Ok(())
    }

    async fn commit(self: Box<Self>, reached: Bookmark) -> Result<Loaded> {
        self.inner.commit(reached).await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.inner.abort().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_names_and_keys_are_what_they_are_in_one_process() {
    let Lake { fixture, sink, root, .. } = &Lake::new();
    let read = Box::new({
        let fixture = crate::sink::delta::tests::fixture(root, sink.options.clone());
        move |table| (fixture.read)(table)
    });
    assert!(fixture.sink.list(None).await.unwrap().is_empty());
    let parted = Fixture { sink: Box::new(PartedSink { inner: sink.clone(), folder: root.join("spill") }), read };
    conformance::an_empty_first_load_makes_a_table(&parted).await;
    conformance::rows_are_upserted_and_deleted(&parted).await;
    conformance::a_replacement_leaves_nothing_of_before(&parted).await;
    conformance::a_schema_grows_with_its_rows(&parted).await;
    conformance::a_null_in_a_required_column_loses_no_row(&parted).await;
    conformance::every_type_keeps_nulls_and_extremes(&parted).await;
    conformance::odd_names_are_only_names(&parted).await;
    conformance::composite_and_text_keys_are_keys(&parted).await;
}
