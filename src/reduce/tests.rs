use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, UInt64Type};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt};
use proptest::prelude::*;

use super::*;
use crate::engine::{Engine, EngineOptions, batch_stream, rebatch, share_batches};
use crate::error::{Kind, ResultExt};
use crate::schema::{ACTION, SEQ, TS};

#[derive(Debug, Clone)]
struct Row {
    id: i64,
    part: String,
    ts: i64,
    deleted: bool,
    text: String,
}

fn schema() -> SchemaRef {
    let ts = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new(ACTION, DataType::Utf8, false),
        Field::new(TS, ts, false),
        Field::new(SEQ, DataType::UInt64, false),
        Field::new("Id", DataType::Int64, false),
        Field::new("part", DataType::Utf8, false),
        Field::new("text", DataType::Utf8, true),
    ]))
}

fn batch(rows: &[(usize, Row)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, row)| if row.deleted { "D" } else { "U" }))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|(_, row)| row.ts)).with_timezone("UTC")),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|(seq, _)| *seq as u64))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, row)| row.id))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, row)| row.part.as_str()))),
        Arc::new(StringArray::from_iter(rows.iter().map(|(_, row)| (!row.deleted).then_some(row.text.as_str())))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn change_set(partitions: Vec<Vec<RecordBatch>>, composite: bool) -> ChangeSet {
    let streams = partitions.into_iter().map(|batches| batch_stream(schema(), batches)).collect();
    ChangeSet::unreduced(schema(), &keys(composite), streams)
}

/// The rows in small batches, spread over `partitions`, as if each were an object.
fn dealt(rows: &[Row], partitions: usize, batch_rows: usize) -> Vec<Vec<RecordBatch>> {
    let mut dealt = vec![Vec::new(); partitions];
    let numbered: Vec<(usize, Row)> = rows.iter().cloned().enumerate().collect();
    for (number, chunk) in numbered.chunks(batch_rows).enumerate() {
        dealt[number % partitions].push(batch(chunk));
    }
    dealt
}

type Kept = HashMap<(i64, String), (u64, bool, Option<String>)>;

fn replay(rows: &[Row], composite: bool) -> Kept {
    let mut best: HashMap<(i64, String), (i64, usize)> = HashMap::new();
    for (seq, row) in rows.iter().enumerate() {
        let key = (row.id, if composite { row.part.clone() } else { String::new() });
        let entry = best.entry(key).or_insert((row.ts, seq));
        if (row.ts, seq) >= *entry {
            *entry = (row.ts, seq);
        }
    }
    best.into_iter()
        .map(|(key, (_, seq))| {
            let row = &rows[seq];
            (key, (seq as u64, row.deleted, (!row.deleted).then(|| row.text.clone())))
        })
        .collect()
}

fn collected(batches: &[RecordBatch], composite: bool) -> Kept {
    let mut kept = Kept::new();
    for batch in batches {
        assert_eq!(batch.schema(), schema());
        let action = batch.column(0).as_string::<i32>();
        let seq = batch.column(2).as_primitive::<UInt64Type>();
        let id = batch.column(3).as_primitive::<Int64Type>();
        let part = batch.column(4).as_string::<i32>();
        let text = batch.column(5).as_string::<i32>();
        for row in 0..batch.num_rows() {
            let key = (id.value(row), if composite { part.value(row).to_owned() } else { String::new() });
            let text = text.is_valid_at(row).then(|| text.value(row).to_owned());
            let again = kept.insert(key, (seq.value(row), action.value(row) == "D", text));
            assert_eq!(again, None, "each key once");
        }
    }
    kept
}

fn keys_of(batches: &[RecordBatch], composite: bool) -> Vec<(i64, String)> {
    let keys = batches.iter().flat_map(|batch| {
        let (id, part) = (batch.column(3).as_primitive::<Int64Type>(), batch.column(4).as_string::<i32>());
        let part = move |row| if composite { part.value(row).to_owned() } else { String::new() };
        (0..batch.num_rows()).map(move |row| (id.value(row), part(row)))
    });
    keys.collect()
}

trait ValidAt {
    fn is_valid_at(&self, row: usize) -> bool;
}

impl ValidAt for StringArray {
    fn is_valid_at(&self, row: usize) -> bool {
        datafusion::arrow::array::Array::is_valid(self, row)
    }
}

fn engine(memory_limit: usize, folder: &std::path::Path) -> Engine {
    Engine::new(EngineOptions { memory_limit, temp_dir: Some(folder.to_owned()), partitions: 2 }).unwrap()
}

fn keys(composite: bool) -> Vec<String> {
    if composite { vec!["Id".into(), "part".into()] } else { vec!["Id".into()] }
}

fn any_row() -> impl Strategy<Value = Row> {
    (-20_i64..20, "[ab]?", 0_i64..6, any::<bool>(), ".{0,12}").prop_map(|(id, part, ts, deleted, text)| Row {
        id,
        part,
        ts,
        deleted,
        text,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_latest_change_is_that_of_a_replay(
        rows in prop::collection::vec(any_row(), 0..200),
        partitions in 1_usize..5,
        batch_rows in 1_usize..40,
        composite in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let engine = engine(64 << 20, folder.path());
        let batches = runtime.block_on(async {
            let changes = || change_set(dealt(&rows, partitions, batch_rows), composite);
            let mut set = latest_per_key(&engine, changes()).unwrap();
            prop_assert!(set.reduced);
            let stream = set.streams.remove(0);
            let mut ordered = latest_in_key_order(&engine, changes()).unwrap();
            prop_assert!(ordered.reduced && ordered.streams.len() == 1);
            let ordered = ordered.streams.remove(0);
            Ok([stream.try_collect::<Vec<_>>().await.unwrap(), ordered.try_collect::<Vec<_>>().await.unwrap()])
        })?;
        for batches in &batches {
            prop_assert_eq!(collected(batches, composite), replay(&rows, composite));
        }
        let order = keys_of(&batches[1], composite);
        prop_assert!(order.is_sorted(), "{:?}", order);
    }

    #[test]
    fn any_batches_come_out_of_rebatch_in_order_and_within_bounds(
        sizes in prop::collection::vec(0_usize..60, 0..20),
        bytes in 200_usize..5_000,
        limit in 1_usize..40,
    ) {
        let mut seq = 0;
        let input: Vec<RecordBatch> = sizes.iter().map(|size| {
            let rows: Vec<(usize, Row)> = (0..*size).map(|_| {
                seq += 1;
                (seq, Row { id: 1, part: "p".into(), ts: 1, deleted: false, text: "text".into() })
            }).collect();
            batch(&rows)
        }).collect();
        let output: Vec<RecordBatch> = futures::executor::block_on(
            rebatch(batch_stream(schema(), input), bytes, limit).try_collect()
        ).unwrap();
        let seen: Vec<u64> = output.iter().flat_map(|b| b.column(2).as_primitive::<UInt64Type>().values().to_vec()).collect();
        prop_assert_eq!(seen, (1..=seq as u64).collect::<Vec<_>>());
        for batch in output {
            prop_assert!(batch.num_rows() >= 1 && batch.num_rows() <= limit);
        }
    }
}

fn many_rows(count: i64, text_bytes: usize) -> Vec<Row> {
    (0..count)
        .map(|n| Row {
            // Every key three times, far apart, the newest not last.
            id: (n * 7919) % (count / 3),
            part: String::new(),
            ts: (n * 31) % 997,
            deleted: n % 11 == 0,
            text: format!("{n}{}", "x".repeat(text_bytes)),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_low_limit_spills_and_gives_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(12 << 20, folder.path());
    let rows = many_rows(30_000, 600);
    for reduce in [latest_per_key, latest_in_key_order] {
        let changes = change_set(dealt(&rows, 3, 2_000), false);
        let mut set = reduce(&engine, changes).unwrap();
        assert_eq!(engine.spilled_bytes(), 0, "nothing runs before the first poll");
        let mut stream = set.streams.remove(0);
        let first = stream.next().await.unwrap().unwrap();
        assert!(engine.spilled_bytes() > 0, "18 MB of text do not fit into 12 MiB");
        assert!(first.get_array_memory_size() < 2 << 20, "wide rows come in small batches");
        let mut batches = vec![first];
        while let Some(batch) = stream.next().await {
            batches.push(batch.unwrap());
        }
        drop(stream);
        assert_eq!(engine.spilled_bytes(), 0);
        assert_eq!(collected(&batches, false), replay(&rows, false));
    }
    drop(engine);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the spill folder goes with the engine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_repeated_keys_among_many_are_reduced_beyond_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(4 << 20, folder.path());
    // Every 97th key comes a second time, far from the first; the newest is now the one, now the other.
    let mut rows: Vec<Row> = (0..12_000)
        .map(|id| Row { id, part: String::new(), ts: 500, deleted: id % 13 == 0, text: format!("{id}{}", "x".repeat(700)) })
        .collect();
    rows.extend((0..12_000).step_by(97).map(|id| Row {
        id,
        part: String::new(),
        ts: 499 + id % 2 * 2,
        deleted: id % 5 == 0,
        text: format!("again {id}"),
    }));
    let changes = change_set(dealt(&rows, 3, 500), false);
    let mut set = latest_per_key(&engine, changes).unwrap();
    let batches: Vec<RecordBatch> = set.streams.remove(0).try_collect().await.unwrap();
    assert_eq!(collected(&batches, false), replay(&rows, false));
    assert_eq!(engine.spilled_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_wider_than_the_limit_say_what_to_raise() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(1 << 20, folder.path());
    let rows = many_rows(6, 2 << 20);
    for reduce in [latest_per_key, latest_in_key_order] {
        let mut set = reduce(&engine, change_set(dealt(&rows, 1, 1), false)).unwrap();
        let error = set.streams.remove(0).try_collect::<Vec<_>>().await.map_err(crate::engine::engine_error).unwrap_err();
        assert_eq!(error.kind(), Kind::Resources, "{error:?}");
        assert!(error.hint_text().unwrap().contains("--memory-limit"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_source_keeps_its_kind() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(64 << 20, folder.path());
    let failure = crate::Error::new(Kind::Expired, "The job has expired").with_field("job", "j1");
    let items = vec![Ok(batch(&[])), Err(datafusion::error::DataFusionError::External(Box::new(failure)))];
    let stream: SendableRecordBatchStream =
        Box::pin(datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(schema(), futures::stream::iter(items)));
    let changes = ChangeSet::unreduced(schema(), &keys(false), vec![stream]);
    let mut set = latest_per_key(&engine, changes).unwrap();
    let error = set.streams.remove(0).try_collect::<Vec<_>>().await.context(Kind::Bug, "lost").unwrap_err();
    assert_eq!(error.kind(), Kind::Expired);
    assert_eq!(error.get("job"), Some("j1"));
}

#[tokio::test]
async fn changes_without_their_columns_are_a_defect() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(64 << 20, folder.path());
    let with_keys = |keys: &[String]| ChangeSet::unreduced(schema(), keys, Vec::new());
    let error = latest_per_key(&engine, with_keys(&["nope".into()])).unwrap_err();
    assert_eq!((error.kind(), error.get("column")), (Kind::Bug, Some("nope")));
    assert_eq!(latest_per_key(&engine, with_keys(&[])).unwrap_err().kind(), Kind::Bug);
}

#[tokio::test]
async fn shared_batches_arrive_once_and_an_error_reaches_every_reader() {
    let batch =
        |number: i64| RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![number])) as ArrayRef)]).unwrap();
    let input = |failing: bool| -> SendableRecordBatchStream {
        let end = failing.then(|| Err(DataFusionError::Internal("broken".into())));
        let batches = futures::stream::iter((0..100).map(move |number| Ok(batch(number))).chain(end));
        Box::pin(RecordBatchStreamAdapter::new(batch(0).schema(), batches))
    };
    let mut tasks = tokio::task::JoinSet::new();
    for stream in share_batches(input(false), 3) {
        tasks.spawn(stream.try_collect::<Vec<_>>());
    }
    let all: Vec<RecordBatch> = tasks.join_all().await.into_iter().flat_map(Result::unwrap).collect();
    let mut seen: Vec<i64> = all.iter().flat_map(|batch| batch["n"].as_primitive::<Int64Type>().values().to_vec()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());

    let mut failures = 0;
    for stream in share_batches(input(true), 3) {
        failures += usize::from(stream.try_collect::<Vec<_>>().await.is_err());
    }
    assert_eq!(failures, 3, "no reader takes the error of another for the end");
}
