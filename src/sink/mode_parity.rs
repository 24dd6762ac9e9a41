//! Random histories in the table modes that lakes and databases share: after every load, a database has the rows of a lake. The tests of
//! the databases call [`all`].

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use datafusion::prelude::SessionContext;
use serde_json::{Value, json};

use super::conformance::{self, Change, Change::Del, Change::Up, Fixture, TEXT, at, column, plan, read, reduced, rendered};
use super::delta::{DeltaOptions, DeltaSink};
use super::{Layout, LoadKind, LoadPlan, LoadSummary, Sink, WriteError};
use crate::engine::{Engine, EngineOptions};
use crate::error::{Kind, Result};
use crate::model::{TableRef, Timestamp};
use crate::schema::{Deletes, TableMode, TableSchema};

/// A change and its time in microseconds.
type Timed = (Change, i64);

/// All tests, on tables of their own.
pub(crate) async fn all(fixture: &Fixture) {
    for (name, seed) in [("soft_one", 1), ("soft_two", 2)] {
        let mark = Layout { deletes: Some(Deletes::Mark), ..Layout::default() };
        play(fixture, name, &mark, seed).await;
        switch_soft_deletes(fixture, name).await;
    }
    for (name, seed) in [("history_one", 3), ("history_two", 4), ("history_three", 5)] {
        let history = Layout { mode: Some(TableMode::History), ..Layout::default() };
        play(fixture, name, &history, seed).await;
    }
}

fn table(name: &str) -> TableRef {
    TableRef::new("modes", name)
}

/// The schema after the change in the middle of a history.
fn schema_of(name: &str, has_changed: bool) -> TableSchema {
    let number = if has_changed { "int64" } else { "int32" };
    let mut value = json!({
        "n": {"type": "integer", "format": number},
        "name": {"type": "string"},
        "day": {"type": "string", "format": "date"},
        "word": {"type": "string", "enum": ["a", "ä"]},
        "short": {"type": "string", "maxLength": 9},
        "ratio": {"type": "number"},
    });
    if has_changed {
        value["extra"] = json!({"type": "string"});
    }
    let key = json!({"code": {"type": "string", "maxLength": 20}, "id": {"type": "integer", "format": "int64"}});
    let source = json!({"properties": {
        "key": {"properties": key, "required": ["code", "id"]},
        "value": {"properties": value, "required": ["name"]},
    }});
    TableSchema::read(&table(name), 1 + i64::from(has_changed), source).unwrap()
}

fn key(number: i64) -> Value {
    json!({"code": format!("c{}", number % 3), "id": number})
}

fn row(number: i64, n: i64, has_changed: bool) -> Value {
    let mut row = key(number);
    row["n"] = if n % 5 == 0 { Value::Null } else { json!(n) };
    // Values that only an exact comparison tells apart.
    row["name"] = json!(["x", "X", "x ", "ẍ"][(n % 4) as usize]);
    row["day"] = json!([None, Some("2026-01-31")][(n % 2) as usize]);
    row["word"] = json!([Some("a"), Some("ä"), None][(n % 3) as usize]);
    row["short"] = json!(["s", "S"][(n % 2) as usize]);
    row["ratio"] = json!((n % 3) as f64 / 2.0);
    if has_changed {
        row["extra"] = json!(format!("e{n}"));
    }
    row
}

fn timed(schema: &TableSchema, rows: &[Timed]) -> RecordBatch {
    let changes: Vec<Change> = rows.iter().map(|(change, _)| change.clone()).collect();
    let batch = conformance::changes(schema, &changes);
    let mut columns = batch.columns().to_vec();
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|(_, at)| *at)).with_timezone("UTC");
    columns[1] = Arc::new(times) as ArrayRef;
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

async fn load(
    fixture: &Fixture,
    schema: &TableSchema,
    kind: LoadKind,
    layout: Layout,
    rows: &[Timed],
    step: i64,
) -> Result<LoadSummary> {
    let plan = LoadPlan { layout, as_of: Timestamp::from_micros(step * 1000 + 999), ..plan(fixture, schema, kind).await };
    let mut opened = fixture.sink.begin(plan).await?;
    opened.write(reduced(schema, vec![timed(schema, rows)])).await.map_err(WriteError::into_error)?;
    opened.commit(at(step)).await
}

struct Lake {
    sink: DeltaSink,
    fixture: Fixture,
    _folder: tempfile::TempDir,
}

impl Lake {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::new(EngineOptions { memory_limit: 64 << 20, temp_dir: None, partitions: 1 }).unwrap();
        let sink = DeltaSink::at_path(&folder.path().join("lake"), DeltaOptions::new(engine)).unwrap();
        let fixture = Fixture { sink: Box::new(sink.clone()), read: Box::new(|_| Box::pin(async { Vec::new() })) };
        Self { sink, fixture, _folder: folder }
    }

    async fn rows(&self, table: &TableRef) -> Vec<String> {
        let provider = self.sink.provider(table).await.unwrap();
        let session = SessionContext::new();
        rendered(&session.read_table(provider).unwrap().collect().await.unwrap())
    }

    /// The rows without versions that came back with the time of their first one: a database reopens them, because its key contains the time,
    /// and a lake keeps both.
    async fn versions(&self, table: &TableRef) -> Vec<String> {
        let rows = self.rows(table).await;
        let field = |row: &str, name: &str| row.split("; ").find_map(|part| part.strip_prefix(name)).map(str::to_owned);
        let version = |row: &str| (field(row, "id="), field(row, "_valid_from="));
        // No end is the latest one.
        let end = |row: &str| field(row, "_valid_to=").unwrap_or_else(|| "open".to_owned());
        let is_reopened = |row: &String| {
            field(row, "_valid_from=").is_some()
                && rows.iter().any(|other| version(other) == version(row) && end(other) > end(row))
        };
        rows.iter().filter(|row| !is_reopened(row)).cloned().collect()
    }
}

/// Whole numbers that follow from a seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as i64) % limit
    }
}

/// The source: value and time of the last change of each row.
#[derive(Default)]
struct Source {
    rows: BTreeMap<i64, (i64, i64)>,
}

impl Source {
    /// A new snapshot. Some rows went since the last increment, and others are new.
    fn snapshot(&mut self, draw: &mut Draw, step: i64, has_changed: bool) -> Vec<Timed> {
        let gone: Vec<i64> = self.rows.keys().copied().filter(|_| draw.below(5) == 0).collect();
        gone.iter().for_each(|number| _ = self.rows.remove(number));
        for number in 0..12 {
            if !self.rows.contains_key(&number) && draw.below(3) == 0 {
                self.rows.insert(number, (draw.below(90), step * 1000 + number));
            }
        }
        self.rows.iter().map(|(number, (n, since))| (Up(row(*number, *n, has_changed)), *since)).collect()
    }

    /// An increment: new, changed and deleted rows, changes without effect, and changes that arrive late.
    fn increment(&mut self, draw: &mut Draw, step: i64, has_changed: bool) -> Vec<Timed> {
        let mut changes = Vec::new();
        for number in 0..16 {
            let now = step * 1000 + number;
            let old = self.rows.get(&number).copied();
            let change = match (draw.below(10), old) {
                (0..=2, _) => continue,
                (3, _) => (Del(key(number)), now - 1000),
                (4, Some((n, _))) => (Up(row(number, n, has_changed)), now),
                (5, Some((_, since))) => {
                    let n = draw.below(90);
                    self.rows.insert(number, (n, since));
                    (Up(row(number, n, has_changed)), since)
                }
                (6, None) => (Up(row(number, draw.below(90), has_changed)), now - 1500),
                (6 | 7, _) => {
                    self.rows.remove(&number);
                    (Del(key(number)), now)
                }
                _ => {
                    let n = draw.below(90);
                    self.rows.insert(number, (n, now));
                    (Up(row(number, n, has_changed)), now)
                }
            };
            changes.push(change);
        }
        changes
    }
}

/// Plays a history in the database and in a lake.
async fn play(fixture: &Fixture, name: &str, first: &Layout, seed: u64) {
    let (lake, table) = (Lake::new(), table(name));
    let (mut draw, mut source) = (Draw(seed), Source::default());
    for step in 1..=10_i64 {
        let has_changed = step > 6;
        let schema = schema_of(name, has_changed);
        let is_snapshot = step == 1 || step == 5 || step == 9;
        let (kind, rows) = match is_snapshot {
            true => (LoadKind::Replace, source.snapshot(&mut draw, step, has_changed)),
            false => (LoadKind::Merge, source.increment(&mut draw, step, has_changed)),
        };
        // The table stores its mode.
        let layout = if step == 1 { first.clone() } else { Layout::default() };
        let of_lake = load(&lake.fixture, &schema, kind, layout.clone(), &rows, step).await.unwrap();
        let of_database = load(fixture, &schema, kind, layout, &rows, step).await.unwrap();
        assert_eq!(read(fixture, &table).await, lake.versions(&table).await, "{name}, step {step}: {rows:?}");
        assert_eq!((of_database.upserted, of_database.deleted), (of_lake.upserted, of_lake.deleted), "{name}, step {step}");
    }
    // An empty snapshot lacks all rows.
    for fixture in [&lake.fixture, fixture] {
        load(fixture, &schema_of(name, true), LoadKind::Replace, Layout::default(), &[], 11).await.unwrap();
    }
    assert_eq!(read(fixture, &table).await, lake.versions(&table).await, "{name}, an empty snapshot");
    let [of_database, of_lake] =
        [fixture.sink.committed(&table).await.unwrap().unwrap(), lake.sink.committed(&table).await.unwrap().unwrap()];
    assert_eq!((of_database.mode, of_database.keeps_rows), (of_lake.mode, of_lake.keeps_rows));
    let [of_database, of_lake] =
        [fixture.sink.status(&table).await.unwrap().unwrap(), lake.sink.status(&table).await.unwrap().unwrap()];
    assert_eq!(of_database.kept_as, of_lake.kept_as);
    let names = |status: &super::TableStatus| status.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&of_database), names(&of_lake));
    refuses_another_mode(fixture, name, of_database.kept_as.as_deref() == Some("history")).await;
}

/// An existing table stays in its mode, whatever is loaded.
async fn refuses_another_mode(fixture: &Fixture, name: &str, is_history: bool) {
    let schema = schema_of(name, true);
    let (wanted, hint) = match is_history {
        true => (TableMode::Current, "--mode history"),
        false => (TableMode::History, "--mode current"),
    };
    let before = read(fixture, &table(name)).await;
    for (mode, kind, hint) in [(wanted, Kind::Schema, hint), (TableMode::Changes, Kind::Unsupported, "as --target")] {
        let layout = Layout { mode: Some(mode), ..Layout::default() };
        let begun = load(fixture, &schema, LoadKind::Replace, layout.clone(), &[], 20).await.unwrap_err();
        for error in [begun, fixture.sink.validate_layout(&table(name), &layout).await.unwrap_err()] {
            assert!(error.kind() == kind && error.hint_text().unwrap().contains(hint), "{error:?}");
        }
    }
    assert_eq!(read(fixture, &table(name)).await, before);
}

/// From soft deletes to removed rows and back.
async fn switch_soft_deletes(fixture: &Fixture, name: &str) {
    let (schema, table) = (schema_of(name, true), table(name));
    let up = |number: i64| (Up(row(number, number, true)), 21_000 + number);
    let with = |deletes| Layout { deletes: Some(deletes), ..Layout::default() };
    let live = |rows: Vec<String>| -> Vec<String> { rows.into_iter().filter(|row| row.contains("_deleted=false")).collect() };
    let before = live(read(fixture, &table).await);
    let loaded = load(fixture, &schema, LoadKind::Merge, with(Deletes::Remove), &[up(40)], 21).await.unwrap();
    assert!(loaded.schema_changes.iter().any(|change| change.contains("_deleted")), "{loaded:?}");
    let now = read(fixture, &table).await;
    assert!(now.len() == before.len() + 1 && now.iter().all(|row| !row.contains("_deleted")), "{now:?}");
    assert_eq!(fixture.sink.status(&table).await.unwrap().unwrap().kept_as, None);
    let rows = [(Del(key(40)), 22_000), (Del(key(41)), 22_001), up(42)];
    let loaded = load(fixture, &schema, LoadKind::Merge, with(Deletes::Mark), &rows, 22).await.unwrap();
    assert!(loaded.deleted == 1 && loaded.schema_changes.iter().any(|change| change.contains("_deleted")), "{loaded:?}");
    let now = read(fixture, &table).await;
    assert_eq!(now.iter().filter(|row| row.contains("_deleted=true") && row.contains("id=40")).count(), 1, "{now:?}");
    assert_eq!(live(now).len(), before.len() + 1);
    // A column of the service must not have the name of a system column.
    let mut odd = schema_of(&format!("{name}_odd"), false);
    odd.value.push(column("_Deleted", TEXT, false));
    let error = load(fixture, &odd, LoadKind::Replace, with(Deletes::Mark), &[], 1).await.unwrap_err();
    assert_eq!((error.kind(), error.get("column")), (Kind::Schema, Some("_Deleted")));
}
