//! Tests over any database: values that it cannot hold, and values that the schema does not list. A database's own tests call [`all`].

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use serde_json::{Value, json};

use crate::engine::{Engine, EngineOptions};
use crate::error::{Kind, Result};
use crate::model::{Bookmark, TableRef};
use crate::reduce::{ChangeSet, latest_per_key};
use crate::schema::{Column, ColumnType};
use crate::sink::conformance::{self, Change, Fixture, TEXT, at, column, expected, load, plan, read, schema};
use crate::sink::sql::encoding::replace_column;
use crate::sink::{LoadKind, LoadPlan, LoadSummary, WriteError};

/// All of them, on tables of their own. `timestamps`: microseconds since 1970 beyond the range of the database's type.
pub(in crate::sink::sql) async fn all(fixture: &Fixture, timestamps: &[i64]) {
    values_out_of_range_fail_with_table_column_and_key(fixture, timestamps).await;
    values_beyond_the_schema_are_kept(fixture).await;
    fractions_addresses_and_non_ascii_values_are_exact(fixture).await;
    a_key_that_is_deleted_and_inserted_exists(fixture).await;
}

fn table(name: &str) -> TableRef {
    TableRef::new("odd", name)
}

/// The batch with other values in one column.
fn with(batch: &RecordBatch, name: &str, array: ArrayRef) -> RecordBatch {
    replace_column(batch, batch.schema().index_of(name).unwrap(), array).unwrap()
}

/// Loads like a run: aborts if the changes cannot be written.
async fn attempt(fixture: &Fixture, plan: LoadPlan, changes: ChangeSet, reached: Bookmark) -> Result<LoadSummary, WriteError> {
    let mut opened = fixture.sink.begin(plan).await?;
    match opened.write(changes).await {
        Ok(()) => Ok(opened.commit(reached).await?),
        Err(error) => {
            opened.abort().await?;
            Err(error)
        }
    }
}

async fn values_out_of_range_fail_with_table_column_and_key(fixture: &Fixture, beyond: &[i64]) {
    let key = vec![column("id", ColumnType::Int64, true), column("part", TEXT, true)];
    let value = vec![
        column("day", ColumnType::Date, false),
        column("moment", ColumnType::Timestamp, false),
        column("clock", ColumnType::Time, false),
        column("uuid", ColumnType::Uuid, false),
        column("address", ColumnType::Ip { v4: true, v6: true }, false),
    ];
    let schema = schema(&table("refused"), 1, key, value);
    let good = json!({"id": 1, "part": "x", "day": "2026-01-02"});
    load(fixture, &schema, LoadKind::Replace, &[Change::Up(good.clone())], at(1)).await.unwrap();
    let plain = |row: Value| conformance::changes(&schema, &[Change::Up(good.clone()), Change::Up(row)]);
    let second = || plain(json!({"id": 5, "part": "p"}));
    let timestamps = |last: i64| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(vec![0, last]).with_timezone("UTC")) };
    let cases = [
        ("day", with(&second(), "day", Arc::new(Date32Array::from(vec![0, i32::MAX])))),
        ("day", with(&second(), "day", Arc::new(Date32Array::from(vec![0, i32::MIN])))),
        ("clock", plain(json!({"id": 5, "part": "p", "clock": "planted"}))),
        ("uuid", plain(json!({"id": 5, "part": "p", "uuid": "planted"}))),
        ("address", plain(json!({"id": 5, "part": "p", "address": "planted"}))),
        ("id", with(&second(), "id", Arc::new(Int64Array::from(vec![Some(1), None])))),
    ];
    let late = beyond.iter().map(|moment| ("moment", with(&second(), "moment", timestamps(*moment))));
    for (name, batch) in cases.into_iter().chain(late) {
        for kind in [LoadKind::Merge, LoadKind::Replace] {
            let changes = conformance::reduced(&schema, vec![batch.clone()]);
            let outcome = attempt(fixture, plan(fixture, &schema, kind).await, changes, at(9)).await;
            let error = outcome.unwrap_err().into_error();
            let key = if name == "id" { "id=null, part=p" } else { "id=5, part=p" };
            let fields = (error.kind(), error.get("table"), error.get("column"), error.get("key"));
            assert_eq!(fields, (Kind::Data, Some("odd.refused"), Some(name), Some(key)), "{kind:?}: {error:?}");
            assert!(error.hint_text().is_some() && !format!("{error:?}").contains("planted"), "{error:?}");
            assert_eq!(read(fixture, &schema.table).await, expected(&schema, std::slice::from_ref(&good)), "{name}");
        }
    }
    assert_eq!(fixture.sink.committed(&schema.table).await.unwrap().unwrap().bookmark, at(1));
}

/// Longer strings (among them the service's placeholder), unknown enum values, nulls in required columns: in a first load, an increment
/// and a new snapshot.
async fn values_beyond_the_schema_are_kept(fixture: &Fixture) {
    let words = |open| ColumnType::Enum { members: vec!["a".into(), "ä".into()], open };
    let short = ColumnType::Text { max_length: Some(3) };
    let value: Vec<Column> = vec![
        column("closed", words(false), false),
        column("open", words(true), false),
        column("short", short.clone(), false),
        column("placeholder", short, false),
        column("needed", TEXT, true),
    ];
    let row = |id: i64| {
        json!({"id": id, "closed": "ünannounced", "open": "neither", "short": "four",
               "placeholder": "__dap_oversized_truncated__", "needed": null})
    };
    let fitting = json!({"id": 9, "closed": "ä", "open": "a", "short": "üüü", "placeholder": "abc", "needed": "x"});
    for (name, first) in [("more_at_once", vec![fitting.clone(), row(1)]), ("more_later", vec![fitting.clone()])] {
        let schema = schema(&table(name), 1, vec![column("id", ColumnType::Int64, true)], value.clone());
        let ups = |rows: &[Value]| rows.iter().cloned().map(Change::Up).collect::<Vec<_>>();
        // A table whose rows are copied directly may need them again.
        let changes = conformance::reduced(&schema, vec![conformance::changes(&schema, &ups(&first))]);
        let outcome = attempt(fixture, plan(fixture, &schema, LoadKind::Replace).await, changes, at(1)).await;
        if matches!(outcome, Err(WriteError::Restart)) {
            load(fixture, &schema, LoadKind::Replace, &ups(&first), at(1)).await.unwrap();
        } else {
            outcome.unwrap();
        }
        assert_eq!(read(fixture, &schema.table).await, expected(&schema, &first), "{name}");
        for (step, kind, sent, all) in [
            (2, LoadKind::Merge, vec![row(1), row(2)], vec![fitting.clone(), row(1), row(2)]),
            (3, LoadKind::Replace, vec![row(3), fitting.clone()], vec![fitting.clone(), row(3)]),
        ] {
            load(fixture, &schema, kind, &ups(&sent), at(step)).await.unwrap();
            assert_eq!(read(fixture, &schema.table).await, expected(&schema, &all), "{name} {step}");
        }
    }
}

/// Values that the official client cuts or garbles.
async fn fractions_addresses_and_non_ascii_values_are_exact(fixture: &Fixture) {
    let value = vec![
        column("moment", ColumnType::Timestamp, false),
        column("clock", ColumnType::Time, false),
        column("either", ColumnType::Ip { v4: true, v6: true }, false),
        column("word", ColumnType::Enum { members: vec!["fünf".into(), "六".into()], open: false }, false),
        column("text", TEXT, false),
    ];
    let schema = schema(&table("whole"), 1, vec![column("id", ColumnType::Int64, true)], value);
    let mut rows = vec![
        json!({"id": 1, "moment": "2026-01-02T03:04:05.123456Z", "clock": "01:02:03.000004",
               "either": "192.0.2.1", "word": "fünf", "text": "a\u{0}b"}),
        json!({"id": 2, "moment": "1969-12-31T23:59:59.999999Z", "clock": "23:59:59.999999", "either": "2001:db8::1", "word": "六"}),
    ];
    let ups: Vec<Change> = rows.iter().cloned().map(Change::Up).collect();
    load(fixture, &schema, LoadKind::Replace, &ups, at(1)).await.unwrap();
    assert_eq!(read(fixture, &schema.table).await, expected(&schema, &rows));
    rows[0]["moment"] = json!("2026-01-02T03:04:05.999999Z");
    rows[1]["either"] = json!("198.51.100.7");
    let ups: Vec<Change> = rows.iter().cloned().map(Change::Up).collect();
    load(fixture, &schema, LoadKind::Merge, &ups, at(2)).await.unwrap();
    assert_eq!(read(fixture, &schema.table).await, expected(&schema, &rows));
}

/// The load detects the repeated key, and deduplication keeps the last change.
async fn a_key_that_is_deleted_and_inserted_exists(fixture: &Fixture) {
    let schema = conformance::plain(&table("reborn"));
    let row = |id: i64, name: &str| json!({"id": id, "name": name});
    let first = [row(1, "old"), row(2, "old"), row(3, "stays")].map(Change::Up);
    load(fixture, &schema, LoadKind::Replace, &first, at(1)).await.unwrap();
    let changes = [
        Change::Del(json!({"id": 1})),
        Change::Up(row(1, "reborn")),
        Change::Up(row(2, "dying")),
        Change::Del(json!({"id": 2})),
    ];
    let batch = conformance::changes(&schema, &changes);
    let twice = conformance::unreduced(&schema, vec![batch.clone()]);
    let error = attempt(fixture, plan(fixture, &schema, LoadKind::Merge).await, twice, at(2)).await.unwrap_err();
    assert!(matches!(error, WriteError::DuplicateKey), "{error:?}");
    let engine = Engine::new(EngineOptions { memory_limit: 64 << 20, temp_dir: None, partitions: 1 }).unwrap();
    let reduced = latest_per_key(&engine, conformance::unreduced(&schema, vec![batch])).unwrap();
    attempt(fixture, plan(fixture, &schema, LoadKind::Merge).await, reduced, at(2)).await.unwrap();
    assert_eq!(read(fixture, &schema.table).await, expected(&schema, &[row(1, "reborn"), row(3, "stays")]));
}
