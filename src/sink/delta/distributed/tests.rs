//! Distributed loads whose tasks run one after the other in this process.

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
use crate::sink::delta::distributed::location_batch::KEY_HASH;
use crate::sink::delta::distributed::run_task;
use crate::sink::delta::tests::history::{KeyKind, row, runtime, table};
use crate::sink::delta::tests::{TestLake, engine};
use crate::sink::delta::{DeletionVectors, DeltaOptions, DeltaSink};
use crate::sink::{
    CommittedState, Executor, Layout, Load, LoadKind, LoadPlan, LoadSummary, Sink, TableStatus, TaskChain, TaskInput,
    TaskOutput, TaskResources, WriteError,
};
use crate::store::StoreOptions;

/// A fault of the executors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ExecutorFault {
    None,
    /// The output of a task of the first step is lost.
    LostTask,
    /// A task of the first step runs twice; its output is a mixture of both attempts.
    MixedAttempts,
    /// Files are written to another target.
    OtherTarget,
    /// The first jobs fail, because no executor is available.
    Unavailable(usize),
}

/// Runs tasks in this process.
#[derive(Debug)]
pub(crate) struct InProcess {
    schema: SchemaRef,
    changes: Vec<RecordBatch>,
    parts: usize,
    worker: TaskResources,
    /// Folder of the table.
    folder: PathBuf,
    fault: ExecutorFault,
    runs: AtomicUsize,
}

impl InProcess {
    pub(crate) async fn of(changes: ChangeSet, parts: usize, folder: &Path) -> Self {
        let mut batches = Vec::new();
        for stream in changes.streams {
            batches.extend(stream.try_collect::<Vec<_>>().await.unwrap());
        }
        let worker = TaskResources { engine: engine(&folder.join("worker"), 64 << 20), store: StoreOptions::default() };
        Self {
            schema: changes.schema,
            changes: batches,
            parts,
            worker,
            folder: PathBuf::new(),
            fault: ExecutorFault::None,
            runs: AtomicUsize::new(0),
        }
    }

    pub(crate) fn with_store(mut self, store: StoreOptions) -> Self {
        self.worker.store = store;
        self
    }

    async fn run_task(&self, order: &str, schema: &SchemaRef, part: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        let output = run_task(order, batch_stream(Arc::clone(schema), part), &self.worker)?;
        output.try_collect().await.map_err(engine_error)
    }
}

/// Shuffles rows into `count` parts: rows that are equal in the columns `by` are in the same part.
fn shuffle(parts: Vec<Vec<RecordBatch>>, by: &[String], count: usize) -> Vec<Vec<RecordBatch>> {
    let mut out = vec![Vec::new(); count];
    for batch in parts.into_iter().flatten() {
        let columns: Vec<ArrayRef> = by.iter().map(|name| Arc::clone(batch.column_by_name(name).unwrap())).collect();
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let rows = RowConverter::new(fields).unwrap().convert_columns(&columns).unwrap();
        let mut rows_of_parts = vec![Vec::new(); count];
        for (number, key) in rows.iter().enumerate() {
            let mut hasher = DefaultHasher::new();
            key.as_ref().hash(&mut hasher);
            rows_of_parts[hasher.finish() as usize % count].push(number as u32);
        }
        for (part, rows) in out.iter_mut().zip(rows_of_parts) {
            part.push(take_record_batch(&batch, &UInt32Array::from(rows)).unwrap());
        }
    }
    out
}

#[async_trait]
impl Executor for InProcess {
    fn parallelism(&self) -> usize {
        self.parts
    }

    async fn run(&self, chain: TaskChain) -> Result<TaskOutput> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        if matches!(self.fault, ExecutorFault::Unavailable(times) if run < times) {
            return Err(crate::Error::new(Kind::Unavailable, "No executor is available"));
        }
        let reads = matches!(chain.input, TaskInput::Changes);
        let (mut schema, mut parts) = match chain.input {
            TaskInput::Changes => {
                let mut parts = vec![Vec::new(); self.parts];
                self.changes.iter().enumerate().for_each(|(number, batch)| parts[number % self.parts].push(batch.clone()));
                (Arc::clone(&self.schema), parts)
            }
            TaskInput::Batches(batches) => (batches[0].schema(), batches.into_iter().map(|batch| vec![batch]).collect()),
        };
        for (number, step) in chain.tasks.iter().enumerate() {
            assert!(!step.spec.contains("planted"), "task specifications hold no secrets");
            if !step.shuffle_by.is_empty() {
                parts = shuffle(parts, &step.shuffle_by, self.parts);
            }
            let mut outputs = Vec::new();
            for (position, part) in parts.into_iter().enumerate() {
                let is_first = number == 0 && position == 0;
                let mut output = self.run_task(&step.spec, &schema, part.clone()).await?;
                match self.fault {
                    ExecutorFault::LostTask if is_first => output.clear(),
                    ExecutorFault::MixedAttempts if is_first => {
                        let again = self.run_task(&step.spec, &schema, part).await?;
                        // Locations of one attempt, files of the other.
                        let has_locations =
                            |batch: &RecordBatch| batch.column_by_name(KEY_HASH).is_some() && batch.num_rows() > 1;
                        output.retain(has_locations);
                        output.extend(again.into_iter().filter(|batch| !has_locations(batch)));
                    }
                    _ => {}
                }
                outputs.push(output);
            }
            (schema, parts) = (Arc::clone(&step.output), outputs);
        }
        if self.fault == ExecutorFault::OtherTarget {
            for entry in std::fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_file() {
                    std::fs::rename(&entry, entry.with_extension("moved")).unwrap();
                }
            }
        }
        let changes = if reads { self.changes.iter().map(|batch| batch.num_rows() as u64).sum() } else { 0 };
        Ok(TaskOutput { batches: parts.into_iter().flatten().collect(), changes })
    }
}

/// A change: key, time, and the new value or `None` for a delete.
type KeyChange = (i64, i64, Option<i64>);

fn batches_of(kind: KeyKind, key_changes: &[KeyChange], rows: usize) -> Vec<RecordBatch> {
    let schema = kind.schema(0);
    let numbered: Vec<(usize, &KeyChange)> = key_changes.iter().enumerate().collect();
    let batch = |part: &[(usize, &KeyChange)]| {
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

async fn load_distributed(
    lake: &TestLake,
    plan: LoadPlan,
    set: ChangeSet,
    fault: ExecutorFault,
    second: i64,
) -> Result<LoadSummary> {
    let mut opened = lake.sink.begin(plan.clone()).await?;
    let workers = InProcess { fault, folder: lake.folder(&plan.table), ..InProcess::of(set, 3, &lake.root).await };
    assert!(opened.can_distribute());
    opened.write_distributed(&workers).await?;
    opened.commit(at(second)).await
}

fn any_changes() -> impl Strategy<Value = Vec<KeyChange>> {
    prop::collection::vec((0..40_i64, 0..5_i64, prop::option::weighted(0.8, 0..1000_i64)), 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn the_newest_change_of_a_repeated_key_wins(
        kind in prop_oneof![Just(KeyKind::Whole), Just(KeyKind::Text), Just(KeyKind::Both)],
        loads in prop::collection::vec(any_changes(), 1..4),
        rows in 1..40_usize,
        setting in prop_oneof![Just(DeletionVectors::Auto), Just(DeletionVectors::On), Just(DeletionVectors::Off)],
        target_file_bytes in prop_oneof![Just(1_u64), Just(3_000), Just(128 << 20)],
    ) {
        let lake = TestLake::with(64 << 20, |options| DeltaOptions { deletion_vectors: setting, target_file_bytes, ..options });
        let schema = kind.schema(0);
        let outcome: std::result::Result<(), TestCaseError> = runtime().block_on(async {
            let mut now: BTreeMap<i64, i64> = BTreeMap::new();
            for (number, key_changes) in loads.iter().enumerate() {
                let load_kind = if number == 0 { LoadKind::Replace } else { LoadKind::Merge };
                let set = ChangeSet { reduced: false, ..reduced(&schema, batches_of(kind, key_changes, rows)) };
                let plan = plan(&lake.fixture, &schema, load_kind).await;
                let loaded = load_distributed(&lake, plan, set, ExecutorFault::None, number as i64 + 1).await.unwrap();
                let mut latest: BTreeMap<i64, (i64, Option<i64>)> = BTreeMap::new();
                for (key, time, n) in key_changes {
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
async fn inconsistent_results_are_not_committed() {
    let lake = TestLake::new();
    let schema = plain(&table());
    let rows =
        |from: i64| (from..from + 60).map(|id| Change::Up(json!({"id": id, "name": format!("row {id}")}))).collect::<Vec<_>>();
    let set = |from| reduced(&schema, rows(from).chunks(7).map(|rows| changes(&schema, rows)).collect());
    for (kind, faults) in [
        (LoadKind::Replace, vec![ExecutorFault::LostTask, ExecutorFault::MixedAttempts]),
        (LoadKind::Merge, vec![ExecutorFault::LostTask]),
    ] {
        if kind == LoadKind::Merge {
            load(&lake.fixture, &schema, LoadKind::Replace, &rows(0), at(1)).await.unwrap();
        }
        let before = lake.data_files(&schema.table);
        for fault in faults {
            let plan = plan(&lake.fixture, &schema, kind).await;
            let error = load_distributed(&lake, plan, set(30), fault, 2).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Unavailable, "{fault:?}: {error:?}");
        }
        let held = lake.sink.committed(&schema.table).await.unwrap();
        assert_eq!(held.map(|held| held.bookmark), (kind == LoadKind::Merge).then(|| at(1)));
        // Reported files are removed; files of a lost task are left for a vacuum.
        assert!(lake.data_files(&schema.table).len() >= before.len());
    }
    let merge = plan(&lake.fixture, &schema, LoadKind::Merge).await;
    let error = load_distributed(&lake, merge, set(30), ExecutorFault::OtherTarget, 2).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Target);
    assert!(error.hint_text().unwrap().contains("same endpoint"), "{error:?}");
    for entry in std::fs::read_dir(lake.folder(&schema.table)).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.extension().is_some_and(|extension| extension == "moved") {
            std::fs::rename(&entry, entry.with_extension("parquet")).unwrap();
        }
    }
    // After two failures there is a third attempt.
    let merge = plan(&lake.fixture, &schema, LoadKind::Merge).await;
    let loaded = load_distributed(&lake, merge, set(30), ExecutorFault::Unavailable(2), 2).await.unwrap();
    assert_eq!((loaded.upserted, loaded.rows), (60, Some(90)));
}

#[tokio::test]
async fn key_files_are_removed() {
    let lake = TestLake::with(64 << 20, |options| DeltaOptions { compact_after: 0, ..options });
    let schema = plain(&table());
    let ups = |ids: std::ops::Range<i64>| ids.map(|id| Change::Up(json!({"id": id, "name": "x"}))).collect::<Vec<_>>();
    load(&lake.fixture, &schema, LoadKind::Replace, &ups(0..50), at(1)).await.unwrap();
    let set = reduced(&schema, vec![changes(&schema, &ups(40..60))]);
    let merge = plan(&lake.fixture, &schema, LoadKind::Merge).await;
    load_distributed(&lake, merge, set, ExecutorFault::None, 2).await.unwrap();
    let state = lake.sink.log(&schema.table).unwrap().state().await.unwrap().unwrap();
    let named = state.files.iter().filter(|file| lake.data_files(&schema.table).contains(&file.path.to_string())).count();
    // The file that was rewritten stays for readers of the previous version.
    assert_eq!((named, lake.data_files(&schema.table).len()), (state.files.len(), state.files.len() + 1));
}

#[tokio::test]
async fn loads_of_other_modes_are_not_distributed() {
    let lake = TestLake::new();
    let schema = plain(&table());
    let layout = Layout { mode: Some(crate::schema::TableMode::History), ..Layout::default() };
    let plan = LoadPlan { layout, ..plan(&lake.fixture, &schema, LoadKind::Replace).await };
    let opened = lake.sink.begin(plan).await.unwrap();
    assert!(!opened.can_distribute());
}

/// A sink whose loads are distributed.
#[derive(Debug)]
struct DistributedSink {
    inner: DeltaSink,
    folder: PathBuf,
}

struct DistributedLoad {
    inner: Box<dyn Load>,
    folder: PathBuf,
}

#[async_trait]
impl Sink for DistributedSink {
    fn location(&self) -> &SafeUrl {
        self.inner.location()
    }

    async fn check(&self) -> Result<()> {
        self.inner.check().await
    }

    async fn committed(&self, table: &TableRef) -> Result<Option<CommittedState>> {
        self.inner.committed(table).await
    }

    async fn list(&self, namespace: Option<&Namespace>) -> Result<Vec<TableRef>> {
        self.inner.list(namespace).await
    }

    async fn status(&self, table: &TableRef) -> Result<Option<TableStatus>> {
        self.inner.status(table).await
    }

    async fn begin(&self, plan: LoadPlan) -> Result<Box<dyn Load>> {
        Ok(Box::new(DistributedLoad { inner: self.inner.begin(plan).await?, folder: self.folder.clone() }))
    }
}

#[async_trait]
impl Load for DistributedLoad {
    async fn write(&mut self, changes: ChangeSet) -> Result<(), WriteError> {
        let workers = InProcess::of(changes, 3, &self.folder).await;
        assert!(self.inner.can_distribute());
        self.inner.write_distributed(&workers).await?;
        Ok(())
    }

    async fn commit(self: Box<Self>, reached: Bookmark) -> Result<LoadSummary> {
        self.inner.commit(reached).await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.inner.abort().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_loads_fulfil_the_contract() {
    let TestLake { fixture, sink, root, .. } = &TestLake::new();
    let read = Box::new({
        let fixture = crate::sink::delta::tests::fixture(root, sink.options.clone());
        move |table| (fixture.read)(table)
    });
    assert!(fixture.sink.list(None).await.unwrap().is_empty());
    let sink = DistributedSink { inner: sink.clone(), folder: root.join("spill") };
    let distributed = Fixture { sink: Box::new(sink), read };
    conformance::an_empty_first_load_creates_a_table(&distributed).await;
    conformance::rows_are_upserted_and_deleted(&distributed).await;
    conformance::a_replacement_removes_all_old_rows(&distributed).await;
    conformance::a_schema_evolves_with_its_rows(&distributed).await;
    conformance::a_null_in_a_required_column_relaxes_it(&distributed).await;
    conformance::every_type_keeps_nulls_and_extremes(&distributed).await;
    conformance::special_characters_in_names_are_kept(&distributed).await;
    conformance::composite_and_text_keys_work(&distributed).await;
}
