//! The contract of [`Sink`] and [`Load`] as tests for any target.
//!
//! Every function takes a [`Fixture`], loads tables into the sink, reads them back, and panics where the sink breaks the contract.
//! [`all`] runs the whole suite. Tables should be read back by a program other than the sink, so that a sink and its reader cannot share
//! a mistake.
//!
//! The module is public with the feature `testing`, for sinks outside of this crate:
//!
//! ```no_run
//! use daplake::sink::Sink;
//! use daplake::sink::conformance::{self, Fixture};
//! # use arrow::array::RecordBatch;
//! # fn my_sink() -> Box<dyn Sink> { unimplemented!() }
//! # async fn read_back(_: daplake::TableRef) -> Vec<RecordBatch> { Vec::new() }
//!
//! # async fn example() {
//! let fixture = Fixture {
//!     // An empty target.
//!     sink: my_sink(),
//!     // All rows of one table, each column under its own name.
//!     read: Box::new(|table| Box::pin(read_back(table))),
//! };
//! conformance::all(&fixture).await;
//! # }
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{Layout, Load, LoadKind, LoadPlan, LoadSummary, Sink, WriteError};
use crate::engine::batch_stream;
use crate::error::{Error, Kind, Result};
use crate::model::{Bookmark, TableRef, Timestamp};
use crate::reduce::ChangeSet;
use crate::schema::{Column, ColumnType, Nested, TableSchema};

/// An empty target, and an independent way to read its tables.
pub struct Fixture {
    /// The sink under test. Its target must be empty.
    pub sink: Box<dyn Sink>,
    /// Reads all rows of a table, each column under its own name.
    pub read: Box<dyn Fn(TableRef) -> BoxFuture<'static, Vec<RecordBatch>> + Send + Sync>,
}

/// A change of one row, which is given as a JSON object of column names and values.
#[derive(Debug, Clone)]
pub enum Change {
    /// Inserts or replaces the row.
    Up(Value),
    /// Deletes the row. Only the key columns are given.
    Del(Value),
}

use Change::{Del, Up};

/// A column without description and default.
pub fn column(name: &str, column_type: ColumnType, required: bool) -> Column {
    Column { name: name.into(), column_type, required, description: None, oversizeable: false, default: None }
}

/// The type of text without a maximum length.
pub const TEXT: ColumnType = ColumnType::Text { max_length: None };

/// A schema of `key` and `value` columns.
pub fn schema(table: &TableRef, version: i64, key: Vec<Column>, value: Vec<Column>) -> TableSchema {
    TableSchema {
        table: table.clone(),
        version,
        description: Some("A table.".into()),
        key,
        value,
        source: Arc::new(json!({})),
        warnings: Vec::new(),
    }
}

/// A schema with the key `id` and the value columns `name` (required) and `score`.
pub fn plain(table: &TableRef) -> TableSchema {
    let value = vec![column("name", TEXT, true), column("score", ColumnType::Float64, false)];
    schema(table, 1, vec![column("id", ColumnType::Int64, true)], value)
}

/// The schema of change batches with typed nested columns.
fn change_schema(schema: &TableSchema) -> SchemaRef {
    crate::schema::change_schema(schema, Nested::Typed)
}

/// The changes as one batch, with the columns `_action`, `_ts` and `_seq`.
pub fn changes(schema: &TableSchema, changes: &[Change]) -> RecordBatch {
    let target = change_schema(schema);
    let rows: Vec<&Value> = changes
        .iter()
        .map(|change| match change {
            Up(row) | Del(row) => row,
        })
        .collect();
    let fields: Vec<Field> = target.fields()[3..].iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let values = Arc::new(Schema::new(fields));
    let mut decoder =
        arrow::json::ReaderBuilder::new(Arc::clone(&values)).with_batch_size(rows.len().max(1)).build_decoder().unwrap();
    decoder.serialize(&rows).unwrap();
    let values = decoder.flush().unwrap().unwrap_or_else(|| RecordBatch::new_empty(values));
    let letters = changes.iter().map(|change| match change {
        Up(_) => "U",
        Del(_) => "D",
    });
    let count = changes.len();
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(letters)),
        Arc::new(TimestampMicrosecondArray::from_iter_values(std::iter::repeat_n(1, count)).with_timezone("UTC")),
        Arc::new(UInt64Array::from_iter_values(0..count as u64)),
    ];
    columns.extend(values.columns().iter().cloned());
    RecordBatch::try_new(target, columns).unwrap()
}

/// A change set of one stream that is already reduced to one change per key.
pub fn reduced(schema: &TableSchema, batches: Vec<RecordBatch>) -> ChangeSet {
    let target = change_schema(schema);
    ChangeSet {
        keys: schema.key.iter().map(|column| column.name.clone()).collect(),
        streams: vec![batch_stream(Arc::clone(&target), batches)],
        schema: target,
        reduced: true,
    }
}

/// A change set that is not reduced, with one stream per batch.
pub fn unreduced(schema: &TableSchema, batches: Vec<RecordBatch>) -> ChangeSet {
    let target = change_schema(schema);
    let keys: Vec<String> = schema.key.iter().map(|column| column.name.clone()).collect();
    let streams = batches.into_iter().map(|batch| batch_stream(Arc::clone(&target), vec![batch])).collect();
    ChangeSet::unreduced(target, &keys, streams)
}

/// A bookmark `seconds` (and one microsecond) after 1970-01-01T00:00:00Z.
pub fn at(seconds: i64) -> Bookmark {
    Bookmark { at: Timestamp::from_micros(seconds * 1_000_000 + 1), schema_version: 1 }
}

/// The plan of a load on top of the table's current state.
pub async fn plan(fixture: &Fixture, schema: &TableSchema, kind: LoadKind) -> LoadPlan {
    LoadPlan {
        table: schema.table.clone(),
        schema: Arc::new(schema.clone()),
        nested: Nested::Typed,
        kind,
        expected: fixture.sink.committed(&schema.table).await.unwrap().map(|held| held.bookmark),
        run_id: "run".into(),
        job_id: "job".into(),
        layout: Layout::default(),
        is_snapshot: kind == LoadKind::Replace,
        as_of: Timestamp::from_micros(1),
    }
}

/// Begins, writes and commits a load.
pub async fn load(
    fixture: &Fixture,
    schema: &TableSchema,
    kind: LoadKind,
    rows: &[Change],
    reached: Bookmark,
) -> Result<LoadSummary> {
    let mut load = fixture.sink.begin(plan(fixture, schema, kind).await).await?;
    load.write(reduced(schema, vec![changes(schema, rows)])).await.map_err(WriteError::into_error)?;
    load.commit(reached).await
}

/// Each row as text, sorted: `name=value` for each column that is not null.
pub fn rendered(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows = Vec::new();
    for batch in batches {
        let schema = batch.schema();
        let options = FormatOptions::default().with_null("null");
        let columns: HashMap<&str, ArrayFormatter<'_>> = schema
            .fields()
            .iter()
            .zip(batch.columns())
            .map(|(field, array)| (field.name().as_str(), ArrayFormatter::try_new(array.as_ref(), &options).unwrap()))
            .collect();
        for row in 0..batch.num_rows() {
            let mut cells: Vec<String> = columns
                .iter()
                .map(|(name, column)| format!("{name}={}", column.value(row)))
                .filter(|cell| !cell.ends_with("=null"))
                .collect();
            cells.sort();
            rows.push(cells.join("; "));
        }
    }
    rows.sort();
    rows
}

/// The rows of a table, as [`rendered`] gives them.
pub async fn read(fixture: &Fixture, table: &TableRef) -> Vec<String> {
    rendered(&(fixture.read)(table.clone()).await)
}

/// The result of [`read`] for a table with exactly these rows.
pub fn expected(schema: &TableSchema, rows: &[Value]) -> Vec<String> {
    let rows: Vec<Change> = rows.iter().cloned().map(Up).collect();
    let batch = changes(schema, &rows);
    rendered(&[batch.project(&(3..batch.num_columns()).collect::<Vec<_>>()).unwrap()])
}

fn table(name: &str) -> TableRef {
    TableRef::new("conformance", name)
}

/// Runs every test of the suite, each on its own tables.
pub async fn all(fixture: &Fixture) {
    fixture.sink.check().await.unwrap();
    assert_eq!(fixture.sink.list(None).await.unwrap(), [], "the target must be empty");
    an_empty_first_load_creates_a_table(fixture).await;
    rows_are_upserted_and_deleted(fixture).await;
    a_replacement_removes_all_old_rows(fixture).await;
    the_same_load_twice_changes_nothing(fixture).await;
    an_older_bookmark_needs_a_snapshot(fixture).await;
    a_replace_at_the_same_bookmark_runs_again(fixture).await;
    a_plan_for_another_state_is_a_conflict(fixture).await;
    of_two_concurrent_loads_one_wins(fixture).await;
    an_aborted_or_dropped_load_leaves_no_trace(fixture).await;
    an_error_of_the_stream_leaves_the_table_unchanged(fixture).await;
    a_duplicate_key_is_detected(fixture).await;
    a_schema_evolves_with_its_rows(fixture).await;
    a_column_renamed_in_case_keeps_its_values(fixture).await;
    a_null_in_a_required_column_relaxes_it(fixture).await;
    every_type_keeps_nulls_and_extremes(fixture).await;
    special_characters_in_names_are_kept(fixture).await;
    composite_and_text_keys_work(fixture).await;
    let tables = fixture.sink.list(None).await.unwrap();
    assert!(tables.is_sorted() && tables.len() >= 10);
    assert_eq!(fixture.sink.list(Some(&tables[0].namespace)).await.unwrap(), tables);
    assert_eq!(fixture.sink.list(Some(&crate::model::Namespace::new("elsewhere"))).await.unwrap(), []);
}

/// A first load without rows creates the table, and an empty increment moves its bookmark.
pub async fn an_empty_first_load_creates_a_table(fixture: &Fixture) {
    let schema = plain(&table("empty"));
    assert_eq!(fixture.sink.committed(&schema.table).await.unwrap(), None);
    assert_eq!(fixture.sink.status(&schema.table).await.unwrap(), None);
    let loaded = load(fixture, &schema, LoadKind::Replace, &[], at(1)).await.unwrap();
    assert_eq!((loaded.upserted, loaded.deleted, loaded.repeated), (0, 0, false));
    assert_eq!(fixture.sink.committed(&schema.table).await.unwrap().unwrap().bookmark, at(1));
    assert_eq!(read(fixture, &schema.table).await, [] as [&str; 0]);
    // An empty increment moves the bookmark alone.
    load(fixture, &schema, LoadKind::Merge, &[], at(2)).await.unwrap();
    let status = fixture.sink.status(&schema.table).await.unwrap().unwrap();
    assert_eq!((status.bookmark, status.rows), (at(2), Some(0)));
}

/// A merge inserts, replaces and deletes rows by key. Deleting an unknown key has no effect and is not counted.
pub async fn rows_are_upserted_and_deleted(fixture: &Fixture) {
    let schema = plain(&table("merged"));
    let first = [json!({"id": 1, "name": "a"}), json!({"id": 2, "name": "b", "score": 0.5}), json!({"id": 3, "name": "c"})];
    let loaded = load(fixture, &schema, LoadKind::Replace, &first.clone().map(Up), at(1)).await.unwrap();
    assert_eq!((loaded.upserted, loaded.deleted), (3, 0));
    assert!(loaded.rows.is_none_or(|rows| rows == 3) && loaded.bytes_written > 0);
    assert_eq!(read(fixture, &schema.table).await, expected(&schema, &first));

    let second =
        [Up(json!({"id": 2, "name": "B"})), Up(json!({"id": 9, "name": "i"})), Del(json!({"id": 1})), Del(json!({"id": 77}))];
    let loaded = load(fixture, &schema, LoadKind::Merge, &second, at(2)).await.unwrap();
    assert_eq!((loaded.upserted, loaded.deleted), (2, 1), "deleting an unknown key is not counted");
    assert!(loaded.rows.is_none_or(|rows| rows == 3));
    let now = [json!({"id": 2, "name": "B"}), json!({"id": 3, "name": "c"}), json!({"id": 9, "name": "i"})];
    assert_eq!(read(fixture, &schema.table).await, expected(&schema, &now));

    let only_unknown = [Del(json!({"id": 1})), Del(json!({"id": -5}))];
    let loaded = load(fixture, &schema, LoadKind::Merge, &only_unknown, at(3)).await.unwrap();
    assert_eq!((loaded.upserted, loaded.deleted), (0, 0));
    let everything = now.clone().map(|row| Del(json!({"id": row["id"]})));
    assert_eq!(load(fixture, &schema, LoadKind::Merge, &everything, at(4)).await.unwrap().deleted, 3);
    assert_eq!(read(fixture, &schema.table).await, [] as [&str; 0]);
    let status = fixture.sink.status(&schema.table).await.unwrap().unwrap();
    assert_eq!((status.bookmark, status.rows.unwrap_or(0)), (at(4), 0));
}

/// A replace removes all earlier rows, and nothing is visible before the commit.
pub async fn a_replacement_removes_all_old_rows(fixture: &Fixture) {
    let schema = plain(&table("replaced"));
    let before = [Up(json!({"id": 1, "name": "a"})), Up(json!({"id": 2, "name": "b"}))];
    load(fixture, &schema, LoadKind::Merge, &before, at(1)).await.unwrap();
    let after = json!({"id": 2, "name": "z"});
    let mut opened = fixture.sink.begin(plan(fixture, &schema, LoadKind::Replace).await).await.unwrap();
    let more = json!({"id": 5, "name": "y"});
    let batches = vec![changes(&schema, &[Up(after.clone())]), changes(&schema, &[]), changes(&schema, &[Up(more.clone())])];
    opened.write(unreduced(&schema, batches)).await.unwrap();
    assert_eq!(read(fixture, &schema.table).await.len(), 2, "nothing is visible before the commit");
    let loaded = opened.commit(at(2)).await.unwrap();
    assert_eq!(loaded.upserted, 2);
    assert_eq!(read(fixture, &schema.table).await, expected(&schema, &[after, more]));
}

/// Repeating a committed load changes nothing and is reported as repeated.
pub async fn the_same_load_twice_changes_nothing(fixture: &Fixture) {
    let schema = plain(&table("twice"));
    let rows = [Up(json!({"id": 1, "name": "a"}))];
    let first = plan(fixture, &schema, LoadKind::Replace).await;
    for repeated in [false, true, true] {
        let mut opened = fixture.sink.begin(first.clone()).await.unwrap();
        opened.write(reduced(&schema, vec![changes(&schema, &rows)])).await.unwrap();
        assert_eq!(opened.commit(at(1)).await.unwrap().repeated, repeated);
    }
    let loaded = load(fixture, &schema, LoadKind::Merge, &rows, at(1)).await.unwrap();
    assert_eq!((loaded.repeated, loaded.upserted), (true, 0));
    assert_eq!(read(fixture, &schema.table).await.len(), 1);
}

/// A replace planned on top of its own bookmark replaces the rows again.
pub async fn a_replace_at_the_same_bookmark_runs_again(fixture: &Fixture) {
    let schema = plain(&table("reloaded"));
    load(fixture, &schema, LoadKind::Replace, &[Up(json!({"id": 1, "name": "a"})), Up(json!({"id": 2, "name": "b"}))], at(1))
        .await
        .unwrap();
    let loaded = load(fixture, &schema, LoadKind::Replace, &[Up(json!({"id": 1, "name": "c"}))], at(1)).await.unwrap();
    assert_eq!((loaded.repeated, loaded.upserted, loaded.rows), (false, 1, Some(1)));
    assert_eq!(read(fixture, &schema.table).await.len(), 1);
}

/// A merge cannot move the bookmark back; a replace can, unless another load was committed after it was planned.
pub async fn an_older_bookmark_needs_a_snapshot(fixture: &Fixture) {
    let schema = plain(&table("back"));
    load(fixture, &schema, LoadKind::Replace, &[], at(5)).await.unwrap();
    let row = json!({"id": 1, "name": "a"});
    let error = load(fixture, &schema, LoadKind::Merge, &[Up(row.clone())], at(4)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert_eq!(fixture.sink.committed(&schema.table).await.unwrap().unwrap().bookmark, at(5));
    assert_eq!(read(fixture, &schema.table).await, [] as [&str; 0]);
    // A replace sets rows and bookmark together, even to an older bookmark, but not after another load was committed.
    let late = plan(fixture, &schema, LoadKind::Replace).await;
    load(fixture, &schema, LoadKind::Merge, &[], at(6)).await.unwrap();
    assert_eq!(conflicting(fixture, &schema, late).await.kind(), Kind::Conflict);
    load(fixture, &schema, LoadKind::Replace, &[Up(row.clone())], at(4)).await.unwrap();
    assert_eq!(fixture.sink.committed(&schema.table).await.unwrap().unwrap().bookmark, at(4));
    assert_eq!(read(fixture, &schema.table).await, expected(&schema, &[row]));
}

/// A load whose plan expected another bookmark than the table has fails with kind `Conflict` and a hint.
pub async fn a_plan_for_another_state_is_a_conflict(fixture: &Fixture) {
    let schema = plain(&table("expected"));
    load(fixture, &schema, LoadKind::Replace, &[], at(1)).await.unwrap();
    for expected in [None, Some(at(7))] {
        let plan = LoadPlan { expected, ..plan(fixture, &schema, LoadKind::Merge).await };
        let error = conflicting(fixture, &schema, plan).await;
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(error.hint_text().is_some());
    }
    let absent = plain(&table("expects_absent"));
    let plan = LoadPlan { expected: Some(at(1)), ..plan(fixture, &absent, LoadKind::Merge).await };
    assert_eq!(conflicting(fixture, &absent, plan).await.kind(), Kind::Conflict);
    assert_eq!(fixture.sink.committed(&absent.table).await.unwrap(), None);
}

async fn conflicting(fixture: &Fixture, schema: &TableSchema, plan: LoadPlan) -> Error {
    let mut opened = match fixture.sink.begin(plan).await {
        Ok(opened) => opened,
        Err(error) => return error,
    };
    match opened.write(reduced(schema, vec![changes(schema, &[Up(json!({"id": 1, "name": "a"}))])])).await {
        Ok(()) => opened.commit(at(9)).await.unwrap_err(),
        Err(error) => error.into_error(),
    }
}

/// Of two loads that are written at the same time, one commits and the other fails with kind `Conflict`.
pub async fn of_two_concurrent_loads_one_wins(fixture: &Fixture) {
    let schema = plain(&table("race"));
    for (round, kind) in [(1, LoadKind::Replace), (2, LoadKind::Merge)] {
        let mut opened: Vec<Box<dyn Load>> = Vec::new();
        for name in ["left", "right"] {
            let mut load = fixture.sink.begin(plan(fixture, &schema, kind).await).await.unwrap();
            load.write(reduced(&schema, vec![changes(&schema, &[Up(json!({"id": 1, "name": name}))])])).await.unwrap();
            opened.push(load);
        }
        let (right, left) = (opened.pop().unwrap(), opened.pop().unwrap());
        let (left, right) = tokio::join!(left.commit(at(round * 10)), right.commit(at(round * 10 + 1)));
        assert!(left.is_ok() != right.is_ok(), "exactly one load must win: {left:?} {right:?}");
        let (winner, reached) = if left.is_ok() { ("left", at(round * 10)) } else { ("right", at(round * 10 + 1)) };
        assert_eq!(left.and(right).unwrap_err().kind(), Kind::Conflict);
        assert_eq!(read(fixture, &schema.table).await, expected(&schema, &[json!({"id": 1, "name": winner})]));
        assert_eq!(fixture.sink.committed(&schema.table).await.unwrap().unwrap().bookmark, reached);
    }
}

/// A load that is aborted, or dropped at any point, leaves no trace.
pub async fn an_aborted_or_dropped_load_leaves_no_trace(fixture: &Fixture) {
    let schema = plain(&table("abandoned"));
    let rows = changes(&schema, &[Up(json!({"id": 1, "name": "a"}))]);
    for attempt in 0..2 {
        for abort in [true, false] {
            let kind = if attempt == 0 { LoadKind::Replace } else { LoadKind::Merge };
            let mut opened = fixture.sink.begin(plan(fixture, &schema, kind).await).await.unwrap();
            opened.write(reduced(&schema, vec![rows.clone()])).await.unwrap();
            if abort {
                opened.abort().await.unwrap();
            } else {
                drop(opened);
            }
            let held = fixture.sink.committed(&schema.table).await.unwrap();
            assert_eq!(held.is_some(), attempt == 1);
        }
        if attempt == 0 {
            load(fixture, &schema, LoadKind::Replace, &[], at(1)).await.unwrap();
        }
    }
    assert_eq!(read(fixture, &schema.table).await, [] as [&str; 0]);
    // Dropped while rows are still arriving.
    let mut opened = fixture.sink.begin(plan(fixture, &schema, LoadKind::Merge).await).await.unwrap();
    let target = change_schema(&schema);
    let endless = futures::stream::iter([Ok(rows)]).chain_pending();
    let stream: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&target), endless));
    let set = ChangeSet { streams: vec![stream], ..reduced(&schema, Vec::new()) };
    tokio::select! {
        biased;
        result = opened.write(set) => panic!("an endless stream ended: {result:?}"),
        () = async { for _ in 0..50 { tokio::task::yield_now().await } } => {}
    }
    drop(opened);
    assert_eq!(read(fixture, &schema.table).await, [] as [&str; 0]);
}

trait ChainPending: futures::Stream + Sized {
    fn chain_pending(self) -> futures::stream::Chain<Self, futures::stream::Pending<Self::Item>> {
        futures::StreamExt::chain(self, futures::stream::pending())
    }
}

impl<S: futures::Stream> ChainPending for S {}

/// An error of the change stream fails the load with the kind of the cause, and the table stays as it was.
pub async fn an_error_of_the_stream_leaves_the_table_unchanged(fixture: &Fixture) {
    let schema = plain(&table("broken"));
    load(fixture, &schema, LoadKind::Replace, &[Up(json!({"id": 1, "name": "a"}))], at(1)).await.unwrap();
    for kind in [LoadKind::Replace, LoadKind::Merge] {
        let mut opened = fixture.sink.begin(plan(fixture, &schema, kind).await).await.unwrap();
        let target = change_schema(&schema);
        let failure = Error::new(Kind::Expired, "The job has expired").with_field("job", "j");
        let items = vec![Ok(changes(&schema, &[Up(json!({"id": 2, "name": "b"}))])), Err(failure.into())];
        let stream: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(target, futures::stream::iter(items)));
        let outcome = opened.write(ChangeSet { streams: vec![stream], ..reduced(&schema, Vec::new()) }).await;
        let error = outcome.unwrap_err().into_error();
        assert_eq!((error.kind(), error.get("job")), (Kind::Expired, Some("j")), "the kind of the cause is kept");
        opened.abort().await.unwrap();
    }
    assert_eq!(read(fixture, &schema.table).await, expected(&schema, &[json!({"id": 1, "name": "a"})]));
}

/// A key that occurs twice in a set that promised unique keys fails the load.
pub async fn a_duplicate_key_is_detected(fixture: &Fixture) {
    let schema = plain(&table("repeated"));
    let (one, two) = (Up(json!({"id": 1, "name": "a"})), Up(json!({"id": 2, "name": "b"})));
    for kind in [LoadKind::Replace, LoadKind::Merge] {
        let mut opened = fixture.sink.begin(plan(fixture, &schema, kind).await).await.unwrap();
        let batches = vec![changes(&schema, &[one.clone(), two.clone()]), changes(&schema, std::slice::from_ref(&one))];
        let outcome = opened.write(unreduced(&schema, batches)).await;
        assert!(matches!(outcome, Err(WriteError::DuplicateKey)), "{outcome:?}");
    }
    assert_eq!(fixture.sink.committed(&schema.table).await.unwrap(), None);
}

/// Columns are added, widened and made nullable. A change that would lose values fails with kind `Schema`; a replace accepts any schema.
pub async fn a_schema_evolves_with_its_rows(fixture: &Fixture) {
    let table = table("grown");
    let key = |column_type: ColumnType| vec![column("id", column_type, true)];
    let old = schema(
        &table,
        1,
        key(ColumnType::Int32),
        vec![
            column("name", TEXT, true),
            column("gone", TEXT, true),
            column("count", ColumnType::Int16, false),
            column("price", ColumnType::Decimal { precision: 5, scale: 2 }, false),
            column("size", ColumnType::Float32, false),
        ],
    );
    let first = [
        json!({"id": 1, "name": "a", "gone": "g", "count": 7, "price": "1.25", "size": 0.5}),
        json!({"id": 2, "name": "b", "gone": "h", "count": null, "price": "999.99", "size": 1.5}),
    ];
    load(fixture, &old, LoadKind::Replace, &first.clone().map(Up), at(1)).await.unwrap();
    let new = schema(
        &table,
        2,
        key(ColumnType::Int64),
        vec![
            column("name", TEXT, false),
            column("count", ColumnType::Int64, false),
            column("price", ColumnType::Decimal { precision: 12, scale: 4 }, false),
            column("size", ColumnType::Float64, false),
            column("late", ColumnType::Boolean, true),
        ],
    );
    let big = 1_i64 << 40;
    let second = [Up(json!({"id": big, "name": null, "count": big, "price": "12345678.1234", "size": 0.1, "late": true}))];
    let reached = Bookmark { schema_version: 2, ..at(2) };
    let loaded = load(fixture, &new, LoadKind::Merge, &second, reached).await.unwrap();
    assert!(loaded.schema_changes.iter().any(|change| change.contains("late")), "{:?}", loaded.schema_changes);
    assert_eq!(fixture.sink.committed(&table).await.unwrap().unwrap().bookmark, reached);
    let mut all_columns = new.clone();
    all_columns.value.push(column("gone", TEXT, false));
    let now = [
        json!({"id": 1, "name": "a", "gone": "g", "count": 7, "price": "1.25", "size": 0.5}),
        json!({"id": 2, "name": "b", "gone": "h", "price": "999.99", "size": 1.5}),
        json!({"id": big, "count": big, "price": "12345678.1234", "size": 0.1, "late": true}),
    ];
    assert_eq!(read(fixture, &table).await, expected(&all_columns, &now));

    let narrow = schema(&table, 3, key(ColumnType::Int64), vec![column("name", ColumnType::Int64, false)]);
    match load(fixture, &narrow, LoadKind::Merge, &[], at(2)).await {
        Err(error) => assert!(error.kind() == Kind::Schema && error.hint_text().is_some(), "{error:?}"),
        // Or the column takes a type that holds the old and the new values.
        Ok(_) => assert!(read(fixture, &table).await.iter().any(|row| row.contains("name=a;")), "no value is lost"),
    }
    let rekeyed = schema(&table, 3, vec![column("name", TEXT, true)], vec![]);
    assert_eq!(load(fixture, &rekeyed, LoadKind::Merge, &[], at(3)).await.unwrap_err().kind(), Kind::Schema);
    // A new snapshot may have any schema.
    let reached = Bookmark { schema_version: 3, ..at(3) };
    load(fixture, &narrow, LoadKind::Replace, &[Up(json!({"id": 5, "name": 6}))], reached).await.unwrap();
    assert_eq!(read(fixture, &table).await, expected(&narrow, &[json!({"id": 5, "name": 6})]));
}

/// A column whose name changes in letter case only keeps its values.
pub async fn a_column_renamed_in_case_keeps_its_values(fixture: &Fixture) {
    let table = table("respelled");
    let served = |version: i64, spell: fn(&str) -> String| {
        let word = json!({"type": "string", "enum": ["a", "b"]});
        let members =
            |columns: Vec<(&str, Value)>| Value::Object(columns.into_iter().map(|(name, node)| (spell(name), node)).collect());
        let key = members(vec![("Id", json!({"type": "integer", "format": "int64"}))]);
        let value = members(vec![
            ("Name", json!({"type": "string"})),
            ("Open", json!({"oneOf": [word, {"type": "string"}]})),
            ("Closed", word),
        ]);
        let source = json!({"properties": {
            "key": {"properties": key, "required": [spell("Id")]},
            "value": {"properties": value, "required": []},
        }});
        TableSchema::read(&table, version, source).unwrap()
    };
    let row = |spell: fn(&str) -> String, id: i64, word: &str| json!({spell("Id"): id, spell("Name"): "x", spell("Open"): word, spell("Closed"): word});
    let upper: fn(&str) -> String = str::to_owned;
    let lower: fn(&str) -> String = str::to_lowercase;
    let old = served(1, upper);
    load(fixture, &old, LoadKind::Replace, &[Up(row(upper, 1, "a")), Up(row(upper, 2, "b"))], at(1)).await.unwrap();
    let new = served(2, lower);
    let changes = [Up(row(lower, 2, "a")), Up(row(lower, 3, "b"))];
    let loaded = load(fixture, &new, LoadKind::Merge, &changes, Bookmark { schema_version: 2, ..at(2) }).await.unwrap();
    assert!(loaded.schema_changes.iter().any(|change| change.starts_with("`Name` ")), "{:?}", loaded.schema_changes);
    let rows = [row(lower, 1, "a"), row(lower, 2, "a"), row(lower, 3, "b")];
    assert_eq!(read(fixture, &table).await, expected(&new, &rows));
    let loaded = load(fixture, &new, LoadKind::Merge, &[Up(row(lower, 4, "b"))], at(3)).await.unwrap();
    assert_eq!(loaded.schema_changes, [] as [&str; 0]);
    let rows = [&rows[..], &[row(lower, 4, "b")]].concat();
    assert_eq!(read(fixture, &table).await, expected(&new, &rows));
    // A new snapshot with the old names again.
    let again = served(3, upper);
    load(fixture, &again, LoadKind::Replace, &[Up(row(upper, 5, "b"))], Bookmark { schema_version: 3, ..at(4) }).await.unwrap();
    assert_eq!(read(fixture, &table).await, expected(&again, &[row(upper, 5, "b")]));
}

/// A null in a required column makes the column nullable, once.
pub async fn a_null_in_a_required_column_relaxes_it(fixture: &Fixture) {
    let schema = plain(&table("required"));
    load(fixture, &schema, LoadKind::Replace, &[Up(json!({"id": 1, "name": "a"}))], at(1)).await.unwrap();
    let loaded = load(fixture, &schema, LoadKind::Merge, &[Up(json!({"id": 2, "name": null}))], at(2)).await.unwrap();
    assert_eq!(loaded.schema_changes.len(), 1);
    assert!(loaded.schema_changes[0].contains("name"));
    let now = [json!({"id": 1, "name": "a"}), json!({"id": 2})];
    assert_eq!(read(fixture, &schema.table).await, expected(&schema, &now));
    let loaded = load(fixture, &schema, LoadKind::Merge, &[Up(json!({"id": 3, "name": null}))], at(3)).await.unwrap();
    assert_eq!(loaded.schema_changes, [] as [&str; 0], "the column is already nullable");
}

/// A column of each type, with its extremes as JSON.
pub fn every_type() -> Vec<(Column, Vec<Value>)> {
    let nested = ColumnType::Struct(vec![
        column("a", TEXT, true),
        column("b", ColumnType::Struct(vec![column("c", ColumnType::Int64, false)]), false),
    ]);
    let words = ColumnType::Enum { members: vec!["x".into(), "y".into()], open: true };
    vec![
        (column("flag", ColumnType::Boolean, false), vec![json!(true), json!(false)]),
        (column("i16", ColumnType::Int16, false), vec![json!(i16::MIN), json!(i16::MAX)]),
        (column("i32", ColumnType::Int32, false), vec![json!(i32::MIN), json!(i32::MAX)]),
        (column("i64", ColumnType::Int64, false), vec![json!(i64::MIN), json!(i64::MAX)]),
        (column("f32", ColumnType::Float32, false), vec![json!(-3.0e38), json!(1.0e-38)]),
        (column("f64", ColumnType::Float64, false), vec![json!(-1.7e308), json!(5e-324)]),
        (
            column("dec", ColumnType::Decimal { precision: 38, scale: 10 }, false),
            vec![json!("9999999999999999999999999999.9999999999"), json!("-9999999999999999999999999999.9999999999")],
        ),
        (column("text", TEXT, false), vec![json!(""), json!("naïve \u{1F600}\u{10ffff} \t\"'\\ \u{0}")]),
        (column("long", TEXT, false), vec![json!("x".repeat(100_000)), json!(" ")]),
        (column("word", words, false), vec![json!("x"), json!("never announced")]),
        (column("ts", ColumnType::Timestamp, false), vec![json!("0001-01-01T00:00:00Z"), json!("9999-12-31T23:59:59.999999Z")]),
        (column("day", ColumnType::Date, false), vec![json!("0001-01-01"), json!("9999-12-31")]),
        (column("time", ColumnType::Time, false), vec![json!("00:00:00"), json!("23:59:59.999999")]),
        (
            column("uuid", ColumnType::Uuid, false),
            vec![json!("00000000-0000-0000-0000-000000000000"), json!("ffffffff-ffff-ffff-ffff-ffffffffffff")],
        ),
        (column("ip", ColumnType::Ip { v4: true, v6: true }, false), vec![json!("0.0.0.0"), json!("ffff::1")]),
        (column("nested", nested, false), vec![json!({"a": "", "b": {"c": i64::MIN}}), json!({"a": "x", "b": null})]),
        (column("list", ColumnType::List(Box::new(TEXT)), false), vec![json!([]), json!(["a", null, ""])]),
        (column("free", ColumnType::Json, false), vec![json!("{\"k\":[1]}"), json!("null")]),
    ]
}

/// Every column type keeps nulls and its extreme values, also through an update.
pub async fn every_type_keeps_nulls_and_extremes(fixture: &Fixture) {
    let types = every_type();
    let value = types.iter().map(|(column, _)| column.clone()).collect();
    let schema = schema(&table("types"), 1, vec![column("id", ColumnType::Int64, true)], value);
    let mut rows = vec![json!({"id": 0})];
    for extreme in 0..2 {
        let mut row = json!({"id": if extreme == 0 { i64::MIN } else { i64::MAX }});
        for (column, values) in &types {
            row[&column.name] = values[extreme].clone();
        }
        rows.push(row);
    }
    // Each type alone in a row of nulls.
    for (number, (column, values)) in types.iter().enumerate() {
        rows.push(json!({"id": number + 1, &column.name: values[0]}));
    }
    let first: Vec<Change> = rows.iter().cloned().map(Up).collect();
    load(fixture, &schema, LoadKind::Replace, &first, at(1)).await.unwrap();
    assert_eq!(read(fixture, &schema.table).await, expected(&schema, &rows));
    // And through an update that keeps the other values.
    rows[0]["text"] = json!("changed");
    let loaded = load(fixture, &schema, LoadKind::Merge, &[Up(rows[0].clone()), Del(json!({"id": 3}))], at(2)).await.unwrap();
    assert_eq!(loaded.deleted, 1);
    rows.retain(|row| row["id"] != 3);
    assert_eq!(read(fixture, &schema.table).await, expected(&schema, &rows));
}

/// Column and table names that look like syntax are taken literally.
pub async fn special_characters_in_names_are_kept(fixture: &Fixture) {
    let names = ["order", "two words", "dotted.name", "Größe", "select", "a,b;c{d}(e)=f", "quote\"s", "`tick`", "percent%20"];
    let value: Vec<Column> = names.iter().map(|name| column(name, TEXT, false)).collect();
    let schema = schema(&table("Odd-Names_1"), 1, vec![column("group", ColumnType::Int64, true)], value);
    let row = |id: i64| {
        let mut row = json!({"group": id});
        for name in names {
            row[name] = json!(format!("{name} {id}"));
        }
        row
    };
    load(fixture, &schema, LoadKind::Replace, &[Up(row(1)), Up(row(2))], at(1)).await.unwrap();
    let second = [Up(row(3)), Del(json!({"group": 1}))];
    assert_eq!(load(fixture, &schema, LoadKind::Merge, &second, at(2)).await.unwrap().deleted, 1);
    assert_eq!(read(fixture, &schema.table).await, expected(&schema, &[row(2), row(3)]));
}

/// Keys of several columns and keys of text work as keys of one number do.
pub async fn composite_and_text_keys_work(fixture: &Fixture) {
    let text = schema(
        &table("text_key"),
        1,
        vec![column("uuid", ColumnType::Uuid, true)],
        vec![column("n", ColumnType::Int64, false)],
    );
    let two = schema(
        &table("composite_key"),
        1,
        vec![column("a", TEXT, true), column("b", ColumnType::Int32, true)],
        vec![column("n", ColumnType::Int64, false)],
    );
    let key = |schema: &TableSchema, number: i64| match schema.key.len() {
        1 => json!({"uuid": format!("00000000-0000-0000-0000-{number:012x}")}),
        _ => json!({"a": format!("{}", number / 10), "b": number % 10}),
    };
    for schema in [text, two] {
        let row = |number: i64, n: i64| {
            let mut row = key(&schema, number);
            row["n"] = json!(n);
            row
        };
        let first: Vec<Change> = (0..50).map(|number| Up(row(number, 0))).collect();
        load(fixture, &schema, LoadKind::Replace, &first, at(1)).await.unwrap();
        let second = [Up(row(11, 1)), Up(row(70, 1)), Del(key(&schema, 12)), Del(key(&schema, 99))];
        let loaded = load(fixture, &schema, LoadKind::Merge, &second, at(2)).await.unwrap();
        assert_eq!((loaded.upserted, loaded.deleted), (2, 1));
        let now: Vec<Value> = (0..50)
            .filter(|number| ![11, 12].contains(number))
            .map(|number| row(number, 0))
            .chain([row(11, 1), row(70, 1)])
            .collect();
        assert_eq!(read(fixture, &schema.table).await, expected(&schema, &now));
    }
}
