//! Random histories: the table, a replay into a map and the merge of the Delta crate must agree after every step, on a local disk
//! and in an object store, with each setting of deletion vectors.
//!
//! `DAPLAKE_TEST_HISTORIES` sets the number of histories; each is played with every setting. On failure the seed is printed;
//! `DAPLAKE_TEST_SEED` repeats it.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use datafusion::prelude::{SessionContext, col};
use deltalake::DeltaTable;
use deltalake::kernel::StructType;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestCaseResult, TestRng, TestRunner};
use serde_json::{Value, json};

use super::{TestLake, read_with_crate};
use crate::model::TableRef;
use crate::schema::{ColumnType, TableSchema};
use crate::sink::conformance::{
    Change, Change::Del, Change::Up, Fixture, TEXT, at, changes, column, expected, plan, read, reduced, rendered, schema,
};
use crate::sink::delta::distributed::tests::InProcess;
use crate::sink::delta::read::row_reader::deleted_rows;
use crate::sink::delta::{DeletionVectors, DeltaOptions, DeltaSink};
use crate::sink::{Load, LoadKind, Sink};
use crate::store::StoreOptions;

pub(crate) fn table() -> TableRef {
    TableRef::new("canvas", "accounts")
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum KeyKind {
    Whole,
    Text,
    Both,
}

impl KeyKind {
    /// The schema after `version` changes.
    pub(crate) fn schema(self, version: usize) -> TableSchema {
        let whole = column("id", ColumnType::Int64, true);
        let text = column("code", TEXT, true);
        let key = match self {
            KeyKind::Whole => vec![whole],
            KeyKind::Text => vec![text],
            KeyKind::Both => vec![text, whole],
        };
        let n = if version < 2 { ColumnType::Int32 } else { ColumnType::Int64 };
        let mut value = vec![column("n", n, false), column("day", ColumnType::Date, false)];
        if version < 3 {
            value.push(column("text", TEXT, false));
        }
        if version >= 1 {
            value.push(column("extra", TEXT, false));
        }
        if version >= 2 {
            let mut members = vec![column("a", ColumnType::Int64, false)];
            members.extend((version >= 3).then(|| column("b", TEXT, false)));
            value.push(column("nested", ColumnType::Struct(members), false));
        }
        schema(&table(), 1 + version as i64, key, value)
    }

    pub(crate) fn key(self, number: i64) -> Value {
        match self {
            // Ids of different shards are far apart.
            KeyKind::Whole => json!({"id": if number % 2 == 0 { number } else { number * 10_000_000_000_000 }}),
            // Longer than the bounds in statistics, with a common prefix.
            KeyKind::Text => json!({"code": format!("{:_>34}{number:03}", number % 3)}),
            KeyKind::Both => json!({"code": format!("c{}", number % 5), "id": number}),
        }
    }
}

/// Number of schema changes that [`KeyKind::schema`] supports.
pub(super) const SCHEMA_VERSIONS: usize = 3;

#[derive(Debug, Clone)]
pub(super) struct HistoryStep {
    pub(super) replace: bool,
    /// Whether the schema changes before this step.
    pub(super) evolves: bool,
    pub(super) changes: BTreeMap<i64, Option<i64>>,
}

pub(super) fn any_step(keys: i64) -> impl Strategy<Value = HistoryStep> {
    let changes = prop::collection::btree_map(0..keys, prop::option::weighted(0.7, 0_i64..1000), 0..40);
    (prop::bool::weighted(0.1), prop::bool::weighted(0.3), changes).prop_map(|(replace, evolves, changes)| HistoryStep {
        replace,
        evolves,
        changes,
    })
}

pub(super) fn any_kind() -> impl Strategy<Value = KeyKind> {
    prop_oneof![Just(KeyKind::Whole), Just(KeyKind::Text), Just(KeyKind::Both)]
}

pub(super) const SETTINGS: [DeletionVectors; 3] = [DeletionVectors::Auto, DeletionVectors::On, DeletionVectors::Off];

fn number<N: std::str::FromStr>(variable: &str) -> Option<N> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// Plays histories, each with every setting; `cases` is the default number of histories.
#[expect(clippy::print_stderr, reason = "a seed that is not seen cannot be played again")]
pub(super) fn play_all<S: Strategy, T: Copy>(
    cases: u32,
    histories: &S,
    settings: &[T],
    play: impl Fn(&S::Value, T) -> TestCaseResult,
) {
    let cases = number("DAPLAKE_TEST_HISTORIES").unwrap_or(cases);
    let seed: u64 = number("DAPLAKE_TEST_SEED").unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    eprintln!("{cases} histories of seed {seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let played = runner.run(histories, |history| settings.iter().try_for_each(|setting| play(&history, *setting)));
    if let Err(failure) = played {
        panic!("DAPLAKE_TEST_SEED={seed} DAPLAKE_TEST_HISTORIES={cases}: {failure}");
    }
}

/// The sink on which a history is played, and a reader of its table.
pub(super) struct Stage<'a> {
    pub(super) sink: &'a DeltaSink,
    pub(super) fixture: &'a Fixture,
    /// Folder for the table of the Delta crate's merge, if it plays the history as well: it is slow and supports no schema changes.
    pub(super) reference: Option<&'a Path>,
    /// If set, loads are distributed to this many tasks with these store options, where that is supported.
    pub(super) by_others: Option<(usize, StoreOptions)>,
}

impl TestLake {
    pub(super) fn stage(&self) -> Stage<'_> {
        Stage { sink: &self.sink, fixture: &self.fixture, reference: None, by_others: None }
    }
}

impl Stage<'_> {
    /// Writes the changes of a load.
    pub(super) async fn write(
        &self,
        opened: &mut Box<dyn Load>,
        schema: &TableSchema,
        batches: Vec<RecordBatch>,
    ) -> crate::Result<()> {
        if let Some((parts, store)) = &self.by_others {
            let folder = tempfile::tempdir().unwrap();
            let workers =
                InProcess::of(reduced(schema, batches.clone()), *parts, folder.path()).await.with_store(store.clone());
            if opened.can_distribute() {
                return opened.write_distributed(&workers).await;
            }
        }
        opened.write(reduced(schema, batches)).await.map_err(crate::sink::WriteError::into_error)
    }
}

/// A row in a version of the schema.
pub(crate) fn row(kind: KeyKind, number: i64, n: i64, version: usize) -> Value {
    let mut row = kind.key(number);
    row["n"] = if n % 7 == 0 { Value::Null } else { json!(n) };
    row["day"] = json!([None, Some("2026-01-31"), Some("2026-02-01"), Some("2027-02-01")][(n % 4) as usize]);
    if version < 3 {
        row["text"] = json!("t".repeat((n % 90) as usize));
    }
    if version >= 1 {
        row["extra"] = json!(format!("e{n}"));
    }
    if version >= 2 {
        row["nested"] = if n % 5 == 0 { Value::Null } else { json!({"a": n}) };
    }
    if version >= 3 && n % 5 != 0 {
        row["nested"]["b"] = json!("b");
    }
    row
}

/// The columns that a reader sees: a column that no longer exists at the source stays.
pub(super) fn seen(kind: KeyKind, version: usize) -> TableSchema {
    let mut schema = kind.schema(version);
    if version >= 3 {
        schema.value.push(column("text", TEXT, false));
    }
    schema
}

fn batches(schema: &TableSchema, kind: KeyKind, step: &HistoryStep, version: usize, batch_rows: usize) -> Vec<RecordBatch> {
    let all: Vec<Change> = step
        .changes
        .iter()
        .map(|(number, n)| match n {
            Some(n) => Up(row(kind, *number, *n, version)),
            None => Del(kind.key(*number)),
        })
        .collect();
    all.chunks(batch_rows).map(|part| changes(schema, part)).collect()
}

/// The same step with the Delta crate's merge.
async fn reference(mut opened: DeltaTable, schema: &TableSchema, step: &HistoryStep, batch: RecordBatch) -> DeltaTable {
    let session = SessionContext::new();
    if step.replace {
        (opened, _) = opened.delete().await.unwrap();
    }
    if batch.num_rows() == 0 {
        return opened;
    }
    let source = session.read_batch(batch).unwrap();
    let target = |name: &str| col(format!("t.{name}"));
    let from = |name: &str| col(format!("s.{name}"));
    let predicate = schema.key.iter().map(|key| target(&key.name).eq(from(&key.name))).reduce(|a, b| a.and(b)).unwrap();
    let is_delete = from("_action").eq(datafusion::prelude::lit("D"));
    let is_upsert = from("_action").eq(datafusion::prelude::lit("U"));
    let names: Vec<String> = schema.columns().map(|column| column.name.clone()).collect();
    let merged = opened
        .merge(source, predicate)
        .with_source_alias("s")
        .with_target_alias("t")
        .when_matched_delete(|clause| clause.predicate(is_delete))
        .unwrap()
        .when_matched_update(|clause| {
            names.iter().fold(clause.predicate(is_upsert.clone()), |clause, name| clause.update(name.as_str(), from(name)))
        })
        .unwrap()
        .when_not_matched_insert(|clause| {
            names.iter().fold(clause.predicate(is_upsert.clone()), |clause, name| clause.set(name.as_str(), from(name)))
        })
        .unwrap()
        .await
        .unwrap();
    merged.0
}

async fn reference_table(folder: &Path, schema: &TableSchema) -> DeltaTable {
    std::fs::create_dir_all(folder).unwrap();
    let fields = crate::sink::delta::log::columns::LakeColumn::from_fields(
        crate::schema::lake_schema(schema, Default::default()).fields(),
    )
    .unwrap();
    let fields: StructType =
        serde_json::from_str(&crate::sink::delta::log::columns::LakeColumn::schema_string(&fields)).unwrap();
    let url = url::Url::from_directory_path(folder).unwrap();
    DeltaTable::try_from_url(url).await.unwrap().create().with_columns(fields.fields().cloned()).await.unwrap()
}

/// Plays a history and compares after every step.
async fn play(stage: &Stage<'_>, kind: KeyKind, steps: &[HistoryStep], batch_rows: usize) -> TestCaseResult {
    let mut version = 0;
    let mut kept: BTreeMap<i64, (i64, usize)> = BTreeMap::new();
    let mut reference_state = match stage.reference {
        Some(folder) => Some(reference_table(folder, &kind.schema(0)).await),
        None => None,
    };
    for (number, step) in steps.iter().enumerate() {
        let replace = step.replace || number == 0;
        if step.evolves && stage.reference.is_none() {
            version = (version + 1).min(SCHEMA_VERSIONS);
        }
        let schema = kind.schema(version);
        let load_kind = if replace { LoadKind::Replace } else { LoadKind::Merge };
        let deleted = step.changes.iter().filter(|(key, n)| n.is_none() && kept.contains_key(key)).count() as u64;
        if replace {
            kept.clear();
        }
        for (key, n) in &step.changes {
            match n {
                Some(n) => kept.insert(*key, (*n, version)),
                None => kept.remove(key),
            };
        }
        let batches = batches(&schema, kind, step, version, batch_rows);
        let mut opened = stage.sink.begin(plan(stage.fixture, &schema, load_kind).await).await.unwrap();
        stage.write(&mut opened, &schema, batches.clone()).await.unwrap();
        let loaded = opened.commit(at(number as i64)).await.unwrap();
        prop_assert_eq!(loaded.rows, Some(kept.len() as u64));
        prop_assert_eq!(loaded.upserted, step.changes.values().flatten().count() as u64);
        prop_assert_eq!(loaded.deleted, if replace { 0 } else { deleted });
        let rows: Vec<Value> = kept.iter().map(|(key, (n, version))| row(kind, *key, *n, *version)).collect();
        let now = read(stage.fixture, &table()).await;
        prop_assert_eq!(&now, &expected(&seen(kind, version), &rows));
        check_vectors(stage.sink).await?;
        if let Some(opened) = reference_state.take() {
            let target = crate::schema::change_schema(&schema, Default::default());
            let mut batch = arrow::compute::concat_batches(&target, &batches).unwrap();
            if replace {
                let letters = batch.column(0).as_string::<i32>();
                let upserts: BooleanArray = (0..letters.len()).map(|row| Some(letters.value(row) == "U")).collect();
                batch = filter_record_batch(&batch, &upserts).unwrap();
            }
            let opened =
                reference(opened, &schema, &HistoryStep { replace, evolves: false, changes: BTreeMap::new() }, batch).await;
            let theirs = rendered(&read_with_crate(opened.table_url().clone()).await);
            prop_assert_eq!(&now, &theirs, "the crate's merge");
            reference_state = Some(opened);
        }
    }
    Ok(())
}

/// Checks that vectors match the log, that none deletes all rows of a file, and that their files have wide bounds.
pub(super) async fn check_vectors(sink: &DeltaSink) -> TestCaseResult {
    let log = sink.log(&table()).unwrap();
    let state = log.state().await.unwrap().unwrap();
    let (store, mut with_vector) = (log.store(), 0);
    for file in state.files.iter().filter(|file| file.deletion_vector.is_some()) {
        let gone = deleted_rows(&store, file).await.unwrap();
        prop_assert_eq!(gone.len(), file.deleted_rows());
        prop_assert!(!gone.is_empty() && file.live_rows().unwrap() > 0);
        prop_assert!(u64::from(gone.max().unwrap()) < file.rows.unwrap());
        with_vector += 1;
    }
    let off = sink.options.deletion_vectors == DeletionVectors::Off;
    prop_assert!(with_vector == 0 || !off);
    prop_assert!(!off || state.protocol["minReaderVersion"] == 1, "not more than necessary");
    Ok(())
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn a_random_history_equals_its_replay() {
    let histories = (
        any_kind(),
        prop::collection::vec(any_step(60), 1..6),
        1_usize..30,
        prop_oneof![Just(1_u64), Just(3_000), Just(128 << 20)],
        prop_oneof![Just(2_usize << 10), Just(64 << 20)],
    );
    play_all(10, &histories, &SETTINGS, |(kind, steps, batch_rows, target_file_bytes, memory_limit), deletion_vectors| {
        let change = |options| DeltaOptions {
            target_file_bytes: *target_file_bytes,
            checkpoint_interval: 3,
            deletion_vectors,
            ..options
        };
        let lake = TestLake::with(*memory_limit, change);
        runtime().block_on(play(&lake.stage(), *kind, steps, *batch_rows))?;
        prop_assert_eq!(lake.engine.memory_pool().reserved(), 0);
        Ok(())
    });
}

/// Few changes to many rows, so that files get deletion vectors repeatedly.
fn small_changes() -> impl Strategy<Value = (KeyKind, Vec<HistoryStep>, u64)> {
    let first = prop::collection::btree_map(0..400_i64, (0..1000_i64).prop_map(Some), 200..300);
    let others =
        prop::collection::vec(prop::collection::btree_map(0..400_i64, prop::option::weighted(0.7, 0_i64..1000), 1..15), 2..8);
    let target_file_bytes = prop_oneof![Just(3_000_u64), Just(128 << 20)];
    (any_kind(), first, others, target_file_bytes, prop::bool::weighted(0.2)).prop_map(
        |(kind, first, others, target_file_bytes, evolves)| {
            let step = |changes| HistoryStep { replace: false, evolves, changes };
            (kind, std::iter::once(first).chain(others).map(step).collect(), target_file_bytes)
        },
    )
}

#[test]
fn a_random_history_of_small_changes_equals_its_replay() {
    play_all(10, &small_changes(), &SETTINGS, |(kind, steps, target_file_bytes), deletion_vectors| {
        let change = |options| DeltaOptions {
            target_file_bytes: *target_file_bytes,
            checkpoint_interval: 3,
            deletion_vectors,
            ..options
        };
        let lake = TestLake::with(64 << 20, change);
        runtime().block_on(play(&lake.stage(), *kind, steps, 50))
    });
}

#[test]
fn a_random_history_equals_the_merge_of_the_delta_crate() {
    let histories = (any_kind(), prop::collection::vec(any_step(30), 2..4));
    play_all(3, &histories, &SETTINGS, |(kind, steps), deletion_vectors| {
        let lake = TestLake::with(64 << 20, |options| DeltaOptions { target_file_bytes: 3_000, deletion_vectors, ..options });
        let reference = lake.root.join("reference");
        let stage = Stage { reference: Some(&reference), ..lake.stage() };
        runtime().block_on(play(&stage, *kind, steps, 10))
    });
}

#[cfg(feature = "demo")]
#[test]
fn a_random_history_in_an_object_store_equals_its_replay() {
    use super::object_store::Remote;

    let histories = prop_oneof![
        (any_kind(), prop::collection::vec(any_step(60), 1..5), prop_oneof![Just(1_u64), Just(3_000), Just(128 << 20)]),
        small_changes(),
    ];
    play_all(2, &histories, &SETTINGS, |(kind, steps, target_file_bytes), deletion_vectors| {
        runtime().block_on(async {
            let change = |options| DeltaOptions {
                target_file_bytes: *target_file_bytes,
                checkpoint_interval: 3,
                deletion_vectors,
                ..options
            };
            let remote = Remote::with(change).await;
            play(&Stage { sink: &remote.sink, fixture: &remote.fixture, reference: None, by_others: None }, *kind, steps, 25)
                .await?;
            prop_assert_eq!(remote.server.left_parts(), 0);
            Ok(())
        })
    });
}
