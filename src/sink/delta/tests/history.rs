//! Random histories: our apply, a replay into a map, and the merge of the Delta crate must agree after every step.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use datafusion::prelude::{SessionContext, col};
use deltalake::DeltaTable;
use deltalake::kernel::StructType;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Lake, read_with_crate};
use crate::model::TableRef;
use crate::schema::{ColumnType, TableSchema};
use crate::sink::conformance::{
    Change, Change::Del, Change::Up, TEXT, at, changes, column, expected, plan, read, reduced, rendered, schema,
};
use crate::sink::delta::DeltaOptions;
use crate::sink::{LoadKind, Sink};

fn table() -> TableRef {
    TableRef::new("canvas", "accounts")
}

#[derive(Debug, Clone, Copy)]
enum KeyKind {
    Whole,
    Text,
    Both,
}

impl KeyKind {
    fn schema(self) -> TableSchema {
        let whole = column("id", ColumnType::Int64, true);
        let text = column("code", TEXT, true);
        let key = match self {
            KeyKind::Whole => vec![whole],
            KeyKind::Text => vec![text],
            KeyKind::Both => vec![text, whole],
        };
        schema(&table(), 1, key, vec![column("n", ColumnType::Int64, false), column("text", TEXT, false)])
    }

    fn key(self, number: i64) -> Value {
        match self {
            // Cross-shard ids lie far apart.
            KeyKind::Whole => json!({"id": if number % 2 == 0 { number } else { number * 10_000_000_000_000 }}),
            // Longer than the bounds in statistics, alike in the front.
            KeyKind::Text => json!({"code": format!("{:_>34}{number:03}", number % 3)}),
            KeyKind::Both => json!({"code": format!("c{}", number % 5), "id": number}),
        }
    }
}

#[derive(Debug, Clone)]
struct Step {
    replace: bool,
    changes: BTreeMap<i64, Option<i64>>,
}

fn any_step(keys: i64) -> impl Strategy<Value = Step> {
    let changes = prop::collection::btree_map(0..keys, prop::option::weighted(0.7, 0_i64..1000), 0..40);
    (prop::bool::weighted(0.1), changes).prop_map(|(replace, changes)| Step { replace, changes })
}

fn any_kind() -> impl Strategy<Value = KeyKind> {
    prop_oneof![Just(KeyKind::Whole), Just(KeyKind::Text), Just(KeyKind::Both)]
}

fn row(kind: KeyKind, number: i64, n: i64) -> Value {
    let mut row = kind.key(number);
    row["n"] = if n % 7 == 0 { Value::Null } else { json!(n) };
    row["text"] = json!("t".repeat((n % 90) as usize));
    row
}

fn batches(schema: &TableSchema, kind: KeyKind, step: &Step, batch_rows: usize) -> Vec<RecordBatch> {
    let all: Vec<Change> = step
        .changes
        .iter()
        .map(|(number, n)| match n {
            Some(n) => Up(row(kind, *number, *n)),
            None => Del(kind.key(*number)),
        })
        .collect();
    all.chunks(batch_rows).map(|part| changes(schema, part)).collect()
}

/// The same step by the crate's merge.
async fn reference(mut opened: DeltaTable, schema: &TableSchema, step: &Step, batch: RecordBatch) -> DeltaTable {
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

async fn reference_table(lake: &Lake, schema: &TableSchema) -> DeltaTable {
    let folder = lake.root.join("reference");
    std::fs::create_dir_all(&folder).unwrap();
    let fields =
        super::super::columns::LakeColumn::of_fields(crate::schema::lake_schema(schema, Default::default()).fields()).unwrap();
    let fields: StructType = serde_json::from_str(&super::super::columns::LakeColumn::schema_string(&fields)).unwrap();
    let url = url::Url::from_directory_path(&folder).unwrap();
    DeltaTable::try_from_url(url).await.unwrap().create().with_columns(fields.fields().cloned()).await.unwrap()
}

/// Plays a history and compares after every step. `with_reference`: with the crate's merge as well, which is slow.
async fn play(
    lake: &Lake,
    kind: KeyKind,
    steps: &[Step],
    batch_rows: usize,
    with_reference: bool,
) -> Result<(), TestCaseError> {
    let schema = kind.schema();
    let mut kept: BTreeMap<i64, i64> = BTreeMap::new();
    let mut reference_state = if with_reference { Some(reference_table(lake, &schema).await) } else { None };
    for (number, step) in steps.iter().enumerate() {
        let replace = step.replace || number == 0;
        let load_kind = if replace { LoadKind::Replace } else { LoadKind::Merge };
        let deleted = step.changes.iter().filter(|(key, n)| n.is_none() && kept.contains_key(key)).count() as u64;
        if replace {
            kept.clear();
        }
        for (key, n) in &step.changes {
            match n {
                Some(n) => kept.insert(*key, *n),
                None => kept.remove(key),
            };
        }
        let batches = batches(&schema, kind, step, batch_rows);
        let mut opened = lake.sink.begin(plan(&lake.fixture, &schema, load_kind).await).await.unwrap();
        opened.write(reduced(&schema, batches.clone())).await.unwrap();
        let loaded = opened.commit(at(number as i64)).await.unwrap();
        prop_assert_eq!(loaded.rows, Some(kept.len() as u64));
        prop_assert_eq!(loaded.upserted, step.changes.values().flatten().count() as u64);
        prop_assert_eq!(loaded.deleted, if replace { 0 } else { deleted });
        let rows: Vec<Value> = kept.iter().map(|(key, n)| row(kind, *key, *n)).collect();
        let now = read(&lake.fixture, &table()).await;
        prop_assert_eq!(&now, &expected(&schema, &rows));
        if let Some(opened) = reference_state.take() {
            let target = crate::schema::change_schema(&schema, Default::default());
            let mut batch = arrow::compute::concat_batches(&target, &batches).unwrap();
            if replace {
                let letters = batch.column(0).as_string::<i32>();
                let upserts: BooleanArray = (0..letters.len()).map(|row| Some(letters.value(row) == "U")).collect();
                batch = filter_record_batch(&batch, &upserts).unwrap();
            }
            let opened = reference(opened, &schema, &Step { replace, changes: BTreeMap::new() }, batch).await;
            let theirs = rendered(&read_with_crate(opened.table_url().clone()).await);
            prop_assert_eq!(&now, &theirs, "the crate's merge");
            reference_state = Some(opened);
        }
    }
    Ok(())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn any_history_is_that_of_a_replay(
        kind in any_kind(),
        steps in prop::collection::vec(any_step(60), 1..5),
        batch_rows in 1_usize..30,
        target_file_bytes in prop_oneof![Just(1_u64), Just(3_000), Just(128 << 20)],
        memory_limit in prop_oneof![Just(2_usize << 10), Just(64 << 20)],
    ) {
        let lake = Lake::with(memory_limit, |options| DeltaOptions { target_file_bytes, checkpoint_interval: 3, ..options });
        runtime().block_on(play(&lake, kind, &steps, batch_rows, false))?;
        prop_assert_eq!(lake.engine.memory_pool().reserved(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn any_history_is_that_of_the_crates_merge(kind in any_kind(), steps in prop::collection::vec(any_step(30), 2..4)) {
        let lake = Lake::with(64 << 20, |options| DeltaOptions { target_file_bytes: 3_000, ..options });
        runtime().block_on(play(&lake, kind, &steps, 10, true))?;
    }
}
