//! Modes and marked deletes: random histories equal their replay in every mode, and a table stays as it was begun.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::Lake;
use super::history::{
    KeyKind, SCHEMA_VERSIONS, Step, any_kind, any_step, any_vectors, check_vectors, histories, row, runtime, seen, table,
};
use crate::error::Kind;
use crate::model::{TableRef, Timestamp};
use crate::schema::{ColumnType, Deletes, PartitionBy, PartitionUnit, Partitions, TableMode, TableSchema};
use crate::sink::conformance::{
    Change, Change::Del, Change::Up, TEXT, at, changes, column, expected, load, plain, plan, read, reduced, schema,
};
use crate::sink::delta::{DeletionVectors, DeltaOptions, Scope};
use crate::sink::{Layout, LoadKind, LoadPlan, Loaded, Sink};

/// What is under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Current,
    Marked,
    Changes,
    History,
}

impl Kept {
    fn layout(self) -> Layout {
        match self {
            Kept::Current => Layout::default(),
            Kept::Marked => Layout { deletes: Some(Deletes::Mark), ..Layout::default() },
            Kept::Changes => Layout { mode: Some(TableMode::Changes), ..Layout::default() },
            Kept::History => Layout { mode: Some(TableMode::History), ..Layout::default() },
        }
    }
}

fn shown(micros: i64) -> Value {
    json!(Timestamp::from_micros(micros).to_string())
}

/// A change that was made at a time.
type Timed = (Change, i64);

fn timed(schema: &TableSchema, rows: &[Timed]) -> RecordBatch {
    let plain: Vec<Change> = rows.iter().map(|(change, _)| change.clone()).collect();
    let batch = changes(schema, &plain);
    let mut columns = batch.columns().to_vec();
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|(_, at)| *at)).with_timezone("UTC");
    columns[1] = Arc::new(times) as ArrayRef;
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

async fn load_timed(
    lake: &Lake,
    schema: &TableSchema,
    kind: LoadKind,
    layout: Layout,
    rows: &[Timed],
    second: i64,
    batch_rows: usize,
) -> crate::Result<Loaded> {
    let plan = LoadPlan { layout, as_of: Timestamp::from_micros(second * 1000), ..plan(&lake.fixture, schema, kind).await };
    let mut opened = lake.sink.begin(plan).await?;
    opened.write(reduced(schema, rows.chunks(batch_rows).map(|rows| timed(schema, rows)).collect())).await?;
    opened.commit(at(second)).await
}

/// A row as it stands in the model: number, version of the schema, and when it was written.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Held {
    n: i64,
    version: usize,
    since: i64,
}

/// What a table should hold.
#[derive(Default)]
struct Model {
    /// The row of each key now; with `true` if it was deleted and is marked.
    now: BTreeMap<i64, (Held, bool)>,
    /// Rows that are no longer: of a history closed versions, of a log all entries.
    past: Vec<Value>,
    partitions: Option<PartitionUnit>,
}

impl Model {
    /// As [`row`], with the value of the partition.
    fn row(&self, kind: KeyKind, key: i64, held: Held) -> Value {
        let mut row = row(kind, key, held.n, held.version);
        if let (Some(unit), Some(day)) = (self.partitions, row["day"].as_str().map(str::to_owned)) {
            match unit {
                PartitionUnit::Day => row["_day"] = json!(day),
                PartitionUnit::Month => row["_month"] = json!(format!("{}-01", &day[..7])),
                PartitionUnit::Year => row["_year"] = json!(day[..4].parse::<i32>().unwrap()),
            }
        }
        row
    }

    fn render(&self, kept: Kept, kind: KeyKind) -> Vec<Value> {
        let mut rows = self.past.clone();
        for (key, (held, deleted)) in &self.now {
            let mut row = self.row(kind, *key, *held);
            match kept {
                Kept::Current => {}
                Kept::Changes => continue,
                Kept::Marked => row["_deleted"] = json!(deleted),
                Kept::History => {
                    row["_valid_from"] = shown(held.since);
                    row["_current"] = json!(true);
                }
            }
            rows.push(row);
        }
        rows
    }

    /// Ends the row of a key, and says whether it was there.
    fn end(&mut self, kept: Kept, kind: KeyKind, key: i64, now: i64) -> bool {
        match kept {
            Kept::Current => self.now.remove(&key).is_some(),
            Kept::Marked => match self.now.get_mut(&key) {
                Some((_, deleted)) => !std::mem::replace(deleted, true),
                None => false,
            },
            Kept::Changes => {
                let mut row = kind.key(key);
                row["_action"] = json!("D");
                row["_ts"] = shown(now);
                self.past.push(row);
                self.now.remove(&key).is_some()
            }
            Kept::History => match self.now.remove(&key) {
                Some((held, _)) => {
                    self.close(kind, key, held, now);
                    true
                }
                None => false,
            },
        }
    }

    fn close(&mut self, kind: KeyKind, key: i64, held: Held, now: i64) {
        let mut row = self.row(kind, key, held);
        row["_valid_from"] = shown(held.since);
        row["_valid_to"] = shown(now);
        row["_current"] = json!(false);
        self.past.push(row);
    }

    fn write(&mut self, kept: Kept, kind: KeyKind, key: i64, held: Held) {
        if kept == Kept::Changes {
            let mut row = self.row(kind, key, held);
            row["_action"] = json!("U");
            row["_ts"] = shown(held.since);
            self.past.push(row);
        }
        if let (Kept::History, Some((before, _))) = (kept, self.now.get(&key).copied()) {
            if is_same(kind, key, before, held) {
                return;
            }
            self.close(kind, key, before, held.since);
        }
        self.now.insert(key, (held, false));
    }
}

/// Whether two versions agree in all columns that the schema of the later one has.
fn is_same(kind: KeyKind, key: i64, before: Held, after: Held) -> bool {
    let (old, new) = (row(kind, key, before.n, before.version), row(kind, key, after.n, after.version));
    kind.schema(after.version).columns().all(|column| old[&column.name] == new[&column.name])
}

fn with_roles(mut schema: TableSchema, kept: Kept) -> TableSchema {
    let roles: &[(&str, ColumnType)] = match kept {
        Kept::Current => &[],
        Kept::Marked => &[("_deleted", ColumnType::Boolean)],
        Kept::Changes => &[("_action", TEXT), ("_ts", ColumnType::Timestamp)],
        Kept::History => {
            &[("_valid_from", ColumnType::Timestamp), ("_valid_to", ColumnType::Timestamp), ("_current", ColumnType::Boolean)]
        }
    };
    schema.value.extend(roles.iter().map(|(name, kind)| column(name, kind.clone(), false)));
    schema
}

/// As `changes` of conformance, for schemas with names of ours, which have no change batches.
fn expected_rows(kept: Kept, partitions: Option<PartitionUnit>, kind: KeyKind, version: usize, rows: &[Value]) -> Vec<String> {
    let mut schema = with_roles(seen(kind, version), kept);
    schema.value.extend(partitions.map(|unit| match unit {
        PartitionUnit::Day => column("_day", ColumnType::Date, false),
        PartitionUnit::Month => column("_month", ColumnType::Date, false),
        PartitionUnit::Year => column("_year", ColumnType::Int32, false),
    }));
    expected(&schema, rows)
}

async fn play(
    lake: &Lake,
    (kept, partitions): (Kept, Option<PartitionUnit>),
    kind: KeyKind,
    steps: &[Step],
    batch_rows: usize,
) -> Result<(), TestCaseError> {
    let (mut version, mut model) = (0, Model { partitions, ..Model::default() });
    let first = Layout {
        partition_by: partitions.map(|unit| Partitions::By(PartitionBy { unit, column: "day".into() })),
        ..kept.layout()
    };
    for (number, step) in steps.iter().enumerate() {
        let replace = step.replace || number == 0;
        if step.evolves {
            version = (version + 1).min(SCHEMA_VERSIONS);
        }
        let schema = kind.schema(version);
        let (second, now) = (number as i64 + 1, (number as i64 + 1) * 1000);
        let (mut rows, mut deleted) = (Vec::new(), 0);
        let before = model.now.clone();
        for (key, n) in &step.changes {
            match n {
                Some(n) => {
                    let mut held = Held { n: *n, version, since: now };
                    // A snapshot gives a row that did not change with the time of its last change.
                    if let (true, Some((old, false))) = (replace, before.get(key))
                        && (old.n, old.version) == (*n, version)
                    {
                        held.since = old.since;
                    }
                    rows.push((Up(row(kind, *key, *n, version)), held.since));
                    let is_known = replace && before.get(key) == Some(&(held, false));
                    if kept != Kept::Changes || !is_known {
                        model.write(kept, kind, *key, held);
                    }
                }
                None if replace => {}
                None => {
                    rows.push((Del(kind.key(*key)), now));
                    let was_there = model.end(kept, kind, *key, now);
                    deleted += u64::from(was_there || kept == Kept::Changes);
                }
            }
        }
        if replace {
            for (key, (_, was_deleted)) in &before {
                if !matches!(step.changes.get(key), Some(Some(_))) && !was_deleted {
                    let was_there = model.end(kept, kind, *key, now);
                    deleted += u64::from(was_there && kept != Kept::Current);
                }
            }
        }
        let load_kind = if replace { LoadKind::Replace } else { LoadKind::Merge };
        // Said once, then the table knows.
        let layout = if number == 0 { first.clone() } else { Layout::default() };
        let loaded = load_timed(lake, &schema, load_kind, layout, &rows, second, batch_rows).await.unwrap();
        let wanted = model.render(kept, kind);
        prop_assert_eq!(
            &read(&lake.fixture, &table()).await,
            &expected_rows(kept, partitions, kind, version, &wanted),
            "step {}",
            number
        );
        prop_assert_eq!(loaded.rows, Some(wanted.len() as u64));
        prop_assert_eq!(loaded.deleted, deleted, "step {}", number);
        check_vectors(&lake.sink).await?;
        check_partitions(lake, partitions).await?;
    }
    Ok(())
}

/// Every file has its partition, and tables without partitions have none.
async fn check_partitions(lake: &Lake, partitions: Option<PartitionUnit>) -> Result<(), TestCaseError> {
    let state = lake.sink.log(&table()).unwrap().state().await.unwrap().unwrap();
    let values: BTreeSet<&str> = state.files.iter().filter_map(|file| file.partition.as_deref()).collect();
    let known: &[&str] = match partitions {
        None => &[],
        Some(PartitionUnit::Day) => &["2026-01-31", "2026-02-01", "2027-02-01"],
        Some(PartitionUnit::Month) => &["2026-01-01", "2026-02-01", "2027-02-01"],
        Some(PartitionUnit::Year) => &["2026", "2027"],
    };
    prop_assert!(values.iter().all(|value| known.contains(value)), "{:?}", values);
    Ok(())
}

/// With and without partitions.
fn any_kept() -> impl Strategy<Value = (Kept, Option<PartitionUnit>)> {
    let kept = prop_oneof![Just(Kept::Current), Just(Kept::Marked), Just(Kept::Changes), Just(Kept::History)];
    let unit = prop_oneof![Just(PartitionUnit::Day), Just(PartitionUnit::Month), Just(PartitionUnit::Year)];
    (kept, prop::option::of(unit))
}

proptest! {
    #![proptest_config(histories(30))]

    #[test]
    fn any_history_is_that_of_a_replay_in_every_mode(
        kept in any_kept(),
        kind in any_kind(),
        steps in prop::collection::vec(any_step(40), 1..6),
        batch_rows in 1_usize..30,
        target_file_bytes in prop_oneof![Just(1_u64), Just(3_000), Just(128 << 20)],
        compact_after in prop_oneof![Just(0_u32), Just(3)],
        deletion_vectors in any_vectors(),
    ) {
        let change = |options| {
            DeltaOptions { target_file_bytes, checkpoint_interval: 3, deletion_vectors, compact_after, ..options }
        };
        let lake = Lake::with(64 << 20, change);
        runtime().block_on(play(&lake, kept, kind, &steps, batch_rows))?;
        prop_assert_eq!(lake.engine.memory_pool().reserved(), 0);
    }

    /// Few changes on many rows, where rows are marked again and again.
    #[test]
    fn any_history_of_small_changes_is_that_of_a_replay_in_every_mode(
        kept in any_kept(),
        kind in any_kind(),
        first in prop::collection::btree_map(0..300_i64, (0..1000_i64).prop_map(Some), 150..250),
        steps in prop::collection::vec(
            prop::collection::btree_map(0..300_i64, prop::option::weighted(0.7, 0_i64..1000), 1..15),
            2..7,
        ),
        target_file_bytes in prop_oneof![Just(3_000_u64), Just(128 << 20)],
        deletion_vectors in any_vectors(),
    ) {
        let step = |changes| Step { replace: false, evolves: false, changes };
        let steps: Vec<Step> = std::iter::once(first).chain(steps).map(step).collect();
        let change = |options| DeltaOptions { target_file_bytes, checkpoint_interval: 3, deletion_vectors, ..options };
        let lake = Lake::with(64 << 20, change);
        runtime().block_on(play(&lake, kept, kind, &steps, 50))?;
    }
}

fn marked_row(id: i64, name: &str, deleted: bool) -> Value {
    json!({"id": id, "name": name, "_deleted": deleted})
}

fn marked_schema() -> TableSchema {
    with_roles(plain(&table()), Kept::Marked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_changes_between_removing_and_marking() {
    let lake = Lake::new();
    let schema = plain(&table());
    let up = |id: i64, name: &str| (Up(json!({"id": id, "name": name})), 1);
    let del = |id: i64| (Del(json!({"id": id})), 2);
    let none = Layout::default;
    load_timed(&lake, &schema, LoadKind::Replace, none(), &[up(1, "a"), up(2, "b"), up(3, "c")], 1, 9).await.unwrap();
    load_timed(&lake, &schema, LoadKind::Merge, none(), &[del(3)], 2, 9).await.unwrap();

    // From now on rows are marked; those that are there are known not to be deleted, also for readers that see nulls otherwise.
    let loaded = load_timed(&lake, &schema, LoadKind::Merge, Kept::Marked.layout(), &[del(2)], 3, 9).await.unwrap();
    assert_eq!((loaded.deleted, loaded.rows), (1, Some(2)));
    let now = [marked_row(1, "a", false), marked_row(2, "b", true)];
    assert_eq!(read(&lake.fixture, &table()).await, expected(&marked_schema(), &now));
    assert_eq!(lake.sink.status(&table()).await.unwrap().unwrap().kept_as.as_deref(), Some("current, deletes marked"));

    // A run that does not say it goes on so; a key that is born again is no longer marked.
    load_timed(&lake, &schema, LoadKind::Merge, none(), &[up(2, "B"), del(1), del(7)], 4, 9).await.unwrap();
    let now = [marked_row(1, "a", true), marked_row(2, "B", false)];
    assert_eq!(read(&lake.fixture, &table()).await, expected(&marked_schema(), &now));
    let loaded = load_timed(&lake, &schema, LoadKind::Replace, none(), &[up(5, "e")], 5, 9).await.unwrap();
    assert_eq!((loaded.deleted, loaded.rows), (1, Some(3)), "a new snapshot marks what it does not have");

    let removing = Layout { deletes: Some(Deletes::Remove), ..Layout::default() };
    let loaded = load_timed(&lake, &schema, LoadKind::Merge, removing, &[up(6, "f")], 6, 9).await.unwrap();
    assert!(loaded.schema_changes.iter().any(|change| change.contains("_deleted")), "{loaded:?}");
    let now = [json!({"id": 5, "name": "e"}), json!({"id": 6, "name": "f"})];
    assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &now));
    let state = lake.sink.log(&table()).unwrap().state().await.unwrap().unwrap();
    assert!(state.columns.iter().all(|column| column.name != "_deleted"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_stays_in_its_mode() {
    let lake = Lake::new();
    let schema = plain(&table());
    load_timed(&lake, &schema, LoadKind::Replace, Kept::History.layout(), &[(Up(json!({"id": 1, "name": "a"})), 1)], 1, 9)
        .await
        .unwrap();
    for mode in [TableMode::Current, TableMode::Changes] {
        let wanted = Layout { mode: Some(mode), ..Layout::default() };
        let begun = load_timed(&lake, &schema, LoadKind::Replace, wanted.clone(), &[], 2, 9).await.unwrap_err();
        for error in [begun, lake.sink.accepts(&table(), &wanted).await.unwrap_err()] {
            assert_eq!(error.kind(), Kind::Schema);
            assert!(error.hint_text().unwrap().contains("--mode history"), "{error:?}");
        }
    }
    lake.sink.accepts(&table(), &Layout::default()).await.unwrap();
    assert_eq!(lake.sink.status(&table()).await.unwrap().unwrap().kept_as.as_deref(), Some("history"));

    // A column of the service may not have the name of one of ours.
    let lake = Lake::new();
    let odd = schema_with("_Current");
    let error = load_timed(&lake, &odd, LoadKind::Replace, Kept::History.layout(), &[], 1, 9).await.unwrap_err();
    assert_eq!((error.kind(), error.get("column")), (Kind::Schema, Some("_Current")));
    load_timed(&lake, &odd, LoadKind::Replace, Layout::default(), &[], 1, 9).await.unwrap();
}

fn schema_with(name: &str) -> TableSchema {
    schema(&table(), 1, vec![column("id", ColumnType::Int64, true)], vec![column(name, TEXT, false)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_comes_again_is_put_right_and_not_repeated() {
    let lake = Lake::new();
    let schema = plain(&table());
    let up = |name: &str, at: i64| (Up(json!({"id": 1, "name": name})), at);
    let history = |from: i64, to: Option<i64>, name: &str| {
        let mut row = json!({"id": 1, "name": name, "_valid_from": shown(from), "_current": to.is_none()});
        row["_valid_to"] = to.map_or(Value::Null, shown);
        row
    };
    let columns = with_roles(schema.clone(), Kept::History);
    load_timed(&lake, &schema, LoadKind::Replace, Kept::History.layout(), &[up("a", 10)], 1, 9).await.unwrap();
    // The same time, other values: a correction. A later time, same values: nothing. A delete, and the key born again.
    load_timed(&lake, &schema, LoadKind::Merge, Layout::default(), &[up("A", 10)], 2, 9).await.unwrap();
    assert_eq!(read(&lake.fixture, &table()).await, expected(&columns, &[history(10, None, "A")]));
    load_timed(&lake, &schema, LoadKind::Replace, Layout::default(), &[up("A", 11)], 3, 9).await.unwrap();
    assert_eq!(read(&lake.fixture, &table()).await, expected(&columns, &[history(10, None, "A")]));
    load_timed(&lake, &schema, LoadKind::Merge, Layout::default(), &[(Del(json!({"id": 1})), 20)], 4, 9).await.unwrap();
    load_timed(&lake, &schema, LoadKind::Merge, Layout::default(), &[up("A", 30)], 5, 9).await.unwrap();
    let now = [history(10, Some(20), "A"), history(30, None, "A")];
    assert_eq!(read(&lake.fixture, &table()).await, expected(&columns, &now));
}

fn events() -> TableSchema {
    schema(
        &TableRef::new("canvas_logs", "web_logs"),
        1,
        vec![column("id", TEXT, true)],
        vec![column("timestamp", ColumnType::Timestamp, true), column("url", TEXT, false)],
    )
}

fn event(id: i64, day: u32, url: &str) -> Value {
    json!({"id": format!("{id:032}"), "timestamp": format!("2026-03-{day:02}T10:00:00Z"), "url": url})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_partitioned_by_day_and_only_touched_days_are_written() {
    for deletion_vectors in [DeletionVectors::On, DeletionVectors::Off] {
        let lake = Lake::with(64 << 20, |options| DeltaOptions { deletion_vectors, ..options });
        let (schema, table) = (events(), TableRef::new("canvas_logs", "web_logs"));
        let mut rows: Vec<Value> = (0..400).map(|id| event(id, 1 + (id % 40 / 2) as u32, "a")).collect();
        let ups: Vec<Change> = rows.iter().cloned().map(Up).collect();
        load(&lake.fixture, &schema, LoadKind::Replace, &ups, at(1)).await.unwrap();
        let status = lake.sink.status(&table).await.unwrap().unwrap();
        assert_eq!((status.kept_as.as_deref(), status.files), (Some("current by day(timestamp)"), Some(20)));
        let least = deletion_vectors == DeletionVectors::Off;
        assert_eq!(status.protocol.as_deref() == Some("1/2"), least, "partitions ask for nothing of readers");

        // One row changes, one moves to another day, one is new.
        let (changed, moved, new) = (event(4, 3, "b"), event(10, 20, "b"), event(1000, 7, "b"));
        load(&lake.fixture, &schema, LoadKind::Merge, &[&changed, &moved, &new].map(|row| Up(row.clone())), at(2))
            .await
            .unwrap();
        let commit = lake.commit(&table, 1);
        let days = |kind: &str| -> BTreeSet<String> {
            let actions = commit.iter().filter_map(|action| action.get(kind));
            actions.map(|action| action["partitionValues"]["_day"].as_str().unwrap().to_owned()).collect()
        };
        let owned = |days: &[&str]| days.iter().map(|day| format!("2026-03-{day}")).collect::<BTreeSet<_>>();
        assert_eq!(days("remove"), owned(&["03", "06"]));
        assert!(days("add").is_subset(&owned(&["03", "06", "07", "20"])), "{:?}", days("add"));
        rows.retain(|row| row["id"] != changed["id"] && row["id"] != moved["id"]);
        rows.extend([changed, moved, new]);
        let expected_now = || {
            let mut columns = schema.clone();
            columns.value.push(column("_day", ColumnType::Date, false));
            let days = rows.iter().map(|row| {
                let mut row = row.clone();
                row["_day"] = row["timestamp"].as_str().unwrap()[..10].into();
                row
            });
            expected(&columns, &days.collect::<Vec<_>>())
        };
        assert_eq!(read(&lake.fixture, &table).await, expected_now());

        // Care keeps days apart.
        let done = lake.sink.optimize(&table, Scope::Cluster).await.unwrap();
        assert!(done.commits > 0);
        assert_eq!(lake.sink.status(&table).await.unwrap().unwrap().files, Some(20));
        assert_eq!(read(&lake.fixture, &table).await, expected_now());
        let other = Layout { partition_by: Some("month(timestamp)".parse().unwrap()), ..Layout::default() };
        assert_eq!(lake.sink.accepts(&table, &other).await.unwrap_err().kind(), Kind::Schema);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_times_and_dates_partition_and_old_tables_stay_as_they_are() {
    let lake = Lake::new();
    let by = |text: &str| Layout { partition_by: Some(text.parse().unwrap()), ..Layout::default() };
    let schema = events();
    for wrong in ["day(url)", "day(nowhere)"] {
        let error = load_timed(&lake, &schema, LoadKind::Replace, by(wrong), &[], 1, 9).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Schema);
    }
    // A table of before: as a log would be without partitions.
    let old = plain(&table());
    load_timed(&lake, &old, LoadKind::Replace, Layout::default(), &[], 1, 9).await.unwrap();
    let error = load_timed(&lake, &old, LoadKind::Replace, by("day(name)"), &[], 2, 9).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("new --target"), "{error:?}");
    load_timed(&lake, &old, LoadKind::Merge, Layout::default(), &[(Up(json!({"id": 1, "name": "a"})), 1)], 2, 9).await.unwrap();
    assert!(
        lake.commit(&table(), 0)
            .iter()
            .filter_map(|action| action.get("metaData"))
            .all(|data| data["partitionColumns"] == json!([]))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_partitions_need_little_memory() {
    let lake = Lake::with(8 << 20, |options| options);
    let schema = events();
    let moment = |row: i64| Timestamp::from_micros((row * 7919 % 400) * 86_400_000_000).to_string();
    let rows: Vec<Change> =
        (0..6000).map(|id| Up(json!({"id": format!("{id:032}"), "timestamp": moment(id), "url": "u".repeat(200)}))).collect();
    let loaded = load(&lake.fixture, &schema, LoadKind::Replace, &rows, at(1)).await.unwrap();
    assert_eq!(loaded.rows, Some(6000));
    let state = lake.sink.log(&schema.table).unwrap().state().await.unwrap().unwrap();
    let days: BTreeSet<_> = state.files.iter().map(|file| file.partition.clone().unwrap()).collect();
    assert_eq!(days.len(), 400);
    assert_eq!(lake.engine.memory_pool().reserved(), 0);
}
