//! Random histories in every table mode, with soft deletes, partitions, column choices and a change data feed: the table equals a replay
//! into maps, on a local disk and in an object store, with each setting of deletion vectors.
//!
//! The environment variables are those of [`super::history`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use ring::hmac;
use serde_json::{Value, json};

use super::change_feed::FeedRows;
use super::history::{
    HistoryStep, KeyKind, SCHEMA_VERSIONS, SETTINGS, Stage, any_kind, any_step, check_vectors, play_all, row, runtime, seen,
    table,
};
use super::{TestLake, change_feed, iceberg};
use crate::model::Timestamp;
use crate::redact::Secret;
use crate::schema::{
    ColumnChoice, ColumnRules, ColumnType, Deletes, HashKey, Nested, PartitionBy, PartitionUnit, Partitions, TableMode,
    TableSchema,
};
use crate::sink::conformance::{Change, Change::Del, Change::Up, TEXT, at, changes, column, expected, plan, read};
use crate::sink::delta::{ChangeDataFeed, DeletionVectors, DeltaOptions, IcebergView, Scope};
use crate::sink::{Layout, LoadKind, LoadPlan, LoadSummary, Sink};
use crate::store::StoreOptions;

/// Which rows the table keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Current,
    SoftDeletes,
    Changes,
    History,
}

const KEPT: [Kept; 4] = [Kept::Current, Kept::SoftDeletes, Kept::Changes, Kept::History];

impl Kept {
    pub(super) fn layout(self) -> Layout {
        match self {
            Kept::Current => Layout::default(),
            Kept::SoftDeletes => Layout { deletes: Some(Deletes::Mark), ..Layout::default() },
            Kept::Changes => Layout { mode: Some(TableMode::Changes), ..Layout::default() },
            Kept::History => Layout { mode: Some(TableMode::History), ..Layout::default() },
        }
    }
}

/// Which columns are dropped or hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Columns {
    /// None.
    All,
    /// `extra` is dropped, `n` hashed.
    Chosen,
    /// The key is hashed as well.
    HashedKey,
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";

impl Columns {
    fn dropped(self) -> &'static [&'static str] {
        if self == Columns::All { &[] } else { &["extra"] }
    }

    fn hashed(self) -> &'static [&'static str] {
        match self {
            Columns::All => &[],
            Columns::Chosen => &["n"],
            Columns::HashedKey => &["n", "id", "code"],
        }
    }

    fn of(self, schema: &TableSchema) -> ColumnChoice {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let rules = ColumnRules { keep: Vec::new(), drop: owned(self.dropped()), hash: owned(self.hashed()) };
        let key = HashKey::new(&Secret::new(SECRET)).unwrap();
        ColumnChoice::of(&Arc::new(schema.clone()), &rules, Some(&key)).unwrap()
    }

    /// The row that readers should see.
    fn seen(self, mut row: Value) -> Value {
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        for (name, value) in row.as_object_mut().unwrap().iter_mut().filter(|(_, value)| !value.is_null()) {
            if self.hashed().contains(&name.as_str()) {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let digits = hmac::sign(&key, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
                *value = Value::String(digits);
            }
        }
        row
    }
}

/// A history with one setting.
#[derive(Debug, Clone, Copy)]
struct Case {
    kept: Kept,
    partitions: Option<PartitionUnit>,
    columns: Columns,
    kind: KeyKind,
    feeds: bool,
    /// Whether the table has an Iceberg view.
    has_view: bool,
}

impl Case {
    /// The columns that readers see.
    fn schema(self, version: usize) -> TableSchema {
        let mut schema = with_system_columns(seen(self.kind, version), self.kept);
        schema.value.extend(self.partitions.map(|unit| match unit {
            PartitionUnit::Day => column("_day", ColumnType::Date, false),
            PartitionUnit::Month => column("_month", ColumnType::Date, false),
            PartitionUnit::Year => column("_year", ColumnType::Int32, false),
        }));
        schema.value.retain(|column| !self.columns.dropped().contains(&column.name.as_str()));
        for column in schema.key.iter_mut().chain(&mut schema.value) {
            if self.columns.hashed().contains(&column.name.as_str()) {
                column.column_type = TEXT;
            }
        }
        schema
    }

    /// The rows that readers see.
    fn expected(self, version: usize, rows: Vec<Value>) -> Vec<String> {
        let rows: Vec<Value> = rows.into_iter().map(|row| self.columns.seen(row)).collect();
        expected(&self.schema(version), &rows)
    }

    /// As [`row`], with the partition value.
    fn row(self, key: i64, held: ModelRow) -> Value {
        let mut row = row(self.kind, key, held.n, held.version);
        if let (Some(unit), Some(day)) = (self.partitions, row["day"].as_str().map(str::to_owned)) {
            match unit {
                PartitionUnit::Day => row["_day"] = json!(day),
                PartitionUnit::Month => row["_month"] = json!(format!("{}-01", &day[..7])),
                PartitionUnit::Year => row["_year"] = json!(day[..4].parse::<i32>().unwrap()),
            }
        }
        row
    }

    /// Whether two versions are equal in all columns of the later schema.
    fn is_same(self, key: i64, before: ModelRow, after: ModelRow) -> bool {
        let (old, new) = (row(self.kind, key, before.n, before.version), row(self.kind, key, after.n, after.version));
        let schema = self.kind.schema(after.version);
        let mut compared = schema.columns().filter(|column| !self.columns.dropped().contains(&column.name.as_str()));
        compared.all(|column| old[&column.name] == new[&column.name])
    }
}

pub(super) fn shown(micros: i64) -> Value {
    json!(Timestamp::from_micros(micros).to_string())
}

/// A change and its time.
pub(super) type Timed = (Change, i64);

pub(super) fn timed(schema: &TableSchema, rows: &[Timed]) -> RecordBatch {
    let plain: Vec<Change> = rows.iter().map(|(change, _)| change.clone()).collect();
    let batch = changes(schema, &plain);
    let mut columns = batch.columns().to_vec();
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|(_, at)| *at)).with_timezone("UTC");
    columns[1] = Arc::new(times) as ArrayRef;
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

pub(super) async fn load_timed(
    stage: &Stage<'_>,
    schema: &TableSchema,
    kind: LoadKind,
    layout: Layout,
    rows: &[Timed],
    second: i64,
    batch_rows: usize,
) -> crate::Result<LoadSummary> {
    let batches = rows.chunks(batch_rows).map(|rows| timed(schema, rows)).collect();
    load_batches(stage, schema, kind, layout, batches, second).await
}

async fn load_batches(
    stage: &Stage<'_>,
    schema: &TableSchema,
    kind: LoadKind,
    layout: Layout,
    batches: Vec<RecordBatch>,
    second: i64,
) -> crate::Result<LoadSummary> {
    let plan = LoadPlan { layout, as_of: Timestamp::from_micros(second * 1000), ..plan(stage.fixture, schema, kind).await };
    let mut opened = stage.sink.begin(plan).await?;
    stage.write(&mut opened, schema, batches).await?;
    opened.commit(at(second)).await
}

/// A row in the model: value, schema version, and time of the change.
#[derive(Debug, Clone, Copy, PartialEq)]
struct ModelRow {
    n: i64,
    version: usize,
    since: i64,
}

/// The rows that a table should have.
struct Model {
    case: Case,
    /// The current row of each key, and whether it is soft-deleted.
    now: BTreeMap<i64, (ModelRow, bool)>,
    /// Other rows: the closed versions of a history, or all entries of a log.
    past: Vec<Value>,
}

impl Model {
    fn render(&self) -> Vec<Value> {
        let mut rows = self.past.clone();
        for (key, (held, deleted)) in &self.now {
            let mut row = self.case.row(*key, *held);
            match self.case.kept {
                Kept::Current => {}
                Kept::Changes => continue,
                Kept::SoftDeletes => row["_deleted"] = json!(deleted),
                Kept::History => {
                    row["_valid_from"] = shown(held.since);
                    row["_current"] = json!(true);
                }
            }
            rows.push(row);
        }
        rows
    }

    /// Deletes the row of a key. Returns whether it existed.
    fn end(&mut self, key: i64, now: i64) -> bool {
        match self.case.kept {
            Kept::Current => self.now.remove(&key).is_some(),
            Kept::SoftDeletes => match self.now.get_mut(&key) {
                Some((_, deleted)) => !std::mem::replace(deleted, true),
                None => false,
            },
            Kept::Changes => {
                let mut row = self.case.kind.key(key);
                row["_action"] = json!("D");
                row["_ts"] = shown(now);
                self.past.push(row);
                self.now.remove(&key).is_some()
            }
            Kept::History => match self.now.remove(&key) {
                Some((held, _)) => {
                    self.close(key, held, now);
                    true
                }
                None => false,
            },
        }
    }

    fn close(&mut self, key: i64, held: ModelRow, now: i64) {
        let mut row = self.case.row(key, held);
        row["_valid_from"] = shown(held.since);
        row["_valid_to"] = shown(now);
        row["_current"] = json!(false);
        self.past.push(row);
    }

    fn write(&mut self, key: i64, held: ModelRow) {
        if self.case.kept == Kept::Changes {
            let mut row = self.case.row(key, held);
            row["_action"] = json!("U");
            row["_ts"] = shown(held.since);
            self.past.push(row);
        }
        if let (Kept::History, Some((before, _))) = (self.case.kept, self.now.get(&key).copied()) {
            if self.case.is_same(key, before, held) {
                return;
            }
            self.close(key, before, held.since);
        }
        self.now.insert(key, (held, false));
    }

    /// The feed that the last step should have.
    fn feed(&self, before: &BTreeMap<i64, (ModelRow, bool)>, step: &HistoryStep, replace: bool, version: usize) -> FeedRows {
        let mut rows: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        let mut tell = |kind, key: i64, held: ModelRow| rows.entry(kind).or_default().push(self.case.row(key, held));
        if replace {
            before.iter().for_each(|(key, (held, _))| tell("delete", *key, *held));
            self.now.iter().for_each(|(key, (held, _))| tell("insert", *key, *held));
        } else {
            for key in step.changes.keys() {
                match (before.get(key), self.now.get(key)) {
                    (None, None) => {}
                    (None, Some((now, _))) => tell("insert", *key, *now),
                    (Some((old, _)), None) => tell("delete", *key, *old),
                    (Some((old, _)), Some((now, _))) => {
                        tell("update_preimage", *key, *old);
                        tell("update_postimage", *key, *now);
                    }
                }
            }
        }
        rows.into_iter().map(|(kind, rows)| (kind.to_owned(), self.case.expected(version, rows))).collect()
    }
}

pub(super) fn with_system_columns(mut schema: TableSchema, kept: Kept) -> TableSchema {
    let roles: &[(&str, ColumnType)] = match kept {
        Kept::Current => &[],
        Kept::SoftDeletes => &[("_deleted", ColumnType::Boolean)],
        Kept::Changes => &[("_action", TEXT), ("_ts", ColumnType::Timestamp)],
        Kept::History => {
            &[("_valid_from", ColumnType::Timestamp), ("_valid_to", ColumnType::Timestamp), ("_current", ColumnType::Boolean)]
        }
    };
    schema.value.extend(roles.iter().map(|(name, kind)| column(name, kind.clone(), false)));
    schema
}

/// Plays a history and compares after every step. `feed_of` reads the feed of a version.
async fn play(
    stage: &Stage<'_>,
    case: Case,
    steps: &[HistoryStep],
    batch_rows: usize,
    feed_of: impl AsyncFn(u64) -> FeedRows,
) -> TestCaseResult {
    let Case { kept, partitions, kind, .. } = case;
    let (mut version, mut model) = (0, Model { case, now: BTreeMap::new(), past: Vec::new() });
    let first = Layout {
        partition_by: partitions.map(|unit| Partitions::By(PartitionBy { unit, column: "day".into() })),
        ..kept.layout()
    };
    for (number, step) in steps.iter().enumerate() {
        let replace = step.replace || number == 0;
        if step.evolves {
            version = (version + 1).min(SCHEMA_VERSIONS);
        }
        let (second, now) = (number as i64 + 1, (number as i64 + 1) * 1000);
        let (mut rows, mut deleted) = (Vec::new(), 0);
        let before = model.now.clone();
        for (key, n) in &step.changes {
            match n {
                Some(n) => {
                    let mut held = ModelRow { n: *n, version, since: now };
                    // A snapshot has the time of the last change of a row that did not change.
                    if let (true, Some((old, false))) = (replace, before.get(key))
                        && (old.n, old.version) == (*n, version)
                    {
                        held.since = old.since;
                    }
                    rows.push((Up(row(kind, *key, *n, version)), held.since));
                    let is_known = replace && before.get(key) == Some(&(held, false));
                    if kept != Kept::Changes || !is_known {
                        model.write(*key, held);
                    }
                }
                None if replace => {}
                None => {
                    rows.push((Del(kind.key(*key)), now));
                    let was_there = model.end(*key, now);
                    deleted += u64::from(was_there || kept == Kept::Changes);
                }
            }
        }
        if replace {
            for (key, (_, was_deleted)) in &before {
                if !matches!(step.changes.get(key), Some(Some(_))) && !was_deleted {
                    let was_there = model.end(*key, now);
                    deleted += u64::from(was_there && kept != Kept::Current);
                }
            }
        }
        let load_kind = if replace { LoadKind::Replace } else { LoadKind::Merge };
        let choice = case.columns.of(&kind.schema(version));
        // Columns are chosen in every run; the rest only in the first, after which the table has it.
        let layout = Layout { columns: choice.record().clone(), ..if number == 0 { first.clone() } else { Layout::default() } };
        let chosen = choice.change_schema(Nested::Typed);
        let batches = rows.chunks(batch_rows).map(|rows| choice.apply(&timed(choice.read(), rows), &chosen).unwrap()).collect();
        let log = stage.sink.log(&table()).unwrap();
        let next = log.state().await.unwrap().map_or(0, |state| state.version + 1);
        let loaded = load_batches(stage, choice.kept(), load_kind, layout, batches, second).await.unwrap();
        let wanted = model.render();
        prop_assert_eq!(loaded.rows, Some(wanted.len() as u64));
        prop_assert_eq!(&read(stage.fixture, &table()).await, &case.expected(version, wanted), "step {}", number);
        prop_assert_eq!(loaded.deleted, deleted, "step {}", number);
        check_vectors(stage.sink).await?;
        check_partitions(stage, partitions).await?;
        if case.has_view {
            iceberg::check(&log).await?;
            if number % 3 == 2 {
                stage.sink.optimize(&table(), Scope::Compact).await.unwrap();
                iceberg::check(&log).await?;
            }
        }
        // If a replacement changes columns, the crate takes the rows of deletion vectors for the deleted ones.
        if case.feeds && !(replace && step.evolves) {
            prop_assert_eq!(feed_of(next).await, model.feed(&before, step, replace, version), "feed of step {}", number);
        }
    }
    Ok(())
}

/// Checks that each file has a partition if and only if the table has partitions.
async fn check_partitions(stage: &Stage<'_>, partitions: Option<PartitionUnit>) -> TestCaseResult {
    let state = stage.sink.log(&table()).unwrap().state().await.unwrap().unwrap();
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

/// A history without its mode.
#[derive(Debug, Clone)]
struct Drawn {
    partitions: Option<PartitionUnit>,
    columns: Columns,
    kind: KeyKind,
    /// Whether there is a feed, in mode `current`.
    feeds: bool,
    steps: Vec<HistoryStep>,
    batch_rows: usize,
    target_file_bytes: u64,
    compact_after: u32,
}

/// Many changes to few rows, or few changes to many rows, so that files get deletion vectors repeatedly.
fn any_drawn() -> impl Strategy<Value = Drawn> {
    let unit = prop_oneof![Just(PartitionUnit::Day), Just(PartitionUnit::Month), Just(PartitionUnit::Year)];
    let columns = prop_oneof![3 => Just(Columns::All), 1 => Just(Columns::Chosen), 1 => Just(Columns::HashedKey)];
    let step = |changes| HistoryStep { replace: false, evolves: false, changes };
    let first = prop::collection::btree_map(0..300_i64, (0..1000_i64).prop_map(Some), 150..250);
    let small = prop::collection::btree_map(0..300_i64, prop::option::weighted(0.7, 0_i64..1000), 1..15);
    let small = (first, prop::collection::vec(small, 2..7))
        .prop_map(move |(first, others)| std::iter::once(first).chain(others).map(step).collect::<Vec<_>>());
    let steps = prop_oneof![3 => prop::collection::vec(any_step(40), 1..6), 2 => small];
    let sizes = (1_usize..60, prop_oneof![Just(1_u64), Just(3_000), Just(128 << 20)], prop_oneof![Just(0_u32), Just(3)]);
    (prop::option::of(unit), columns, any_kind(), any::<bool>(), steps, sizes).prop_map(
        |(partitions, columns, kind, feeds, steps, (batch_rows, target_file_bytes, compact_after))| Drawn {
            partitions,
            columns,
            kind,
            feeds,
            steps,
            batch_rows,
            target_file_bytes,
            compact_after,
        },
    )
}

impl Drawn {
    fn case(&self, kept: Kept) -> Case {
        let feeds = self.feeds && kept == Kept::Current;
        Case { kept, partitions: self.partitions, columns: self.columns, kind: self.kind, feeds, has_view: false }
    }

    fn options(&self, case: Case, deletion_vectors: DeletionVectors, options: DeltaOptions) -> DeltaOptions {
        DeltaOptions {
            target_file_bytes: self.target_file_bytes,
            checkpoint_interval: 3,
            deletion_vectors,
            compact_after: self.compact_after,
            change_data_feed: if case.feeds { ChangeDataFeed::On } else { ChangeDataFeed::Unchanged },
            ..options
        }
    }
}

/// Every mode with every setting.
fn modes() -> Vec<(Kept, DeletionVectors)> {
    KEPT.into_iter().flat_map(|kept| SETTINGS.map(|setting| (kept, setting))).collect()
}

#[test]
fn a_random_history_equals_its_replay_in_every_mode() {
    play_all(4, &any_drawn(), &modes(), |drawn, (kept, setting)| {
        let case = drawn.case(kept);
        let lake = TestLake::with(64 << 20, |options| drawn.options(case, setting, options));
        let feed_of =
            async |version| change_feed::feed_of(deltalake::open_table(lake.url(&table())).await.unwrap(), version).await;
        runtime().block_on(play(&lake.stage(), case, &drawn.steps, drawn.batch_rows, feed_of))?;
        prop_assert_eq!(lake.engine.memory_pool().reserved(), 0);
        Ok(())
    });
}

#[test]
fn the_iceberg_view_of_a_random_history_equals_the_table_at_every_version() {
    let played = Mutex::new(Vec::new());
    play_all(1, &any_drawn(), &modes(), |drawn, (kept, setting)| {
        let case = Case { has_view: true, ..drawn.case(kept) };
        let options = |options| DeltaOptions { iceberg: IcebergView::On, ..drawn.options(case, setting, options) };
        let lake = TestLake::with(64 << 20, options);
        let feed_of =
            async |version| change_feed::feed_of(deltalake::open_table(lake.url(&table())).await.unwrap(), version).await;
        runtime().block_on(play(&lake.stage(), case, &drawn.steps, drawn.batch_rows, feed_of))?;
        played.lock().unwrap().push(lake);
        Ok(())
    });
    let lakes = played.into_inner().unwrap();
    iceberg::compare_with_readers(&lakes.iter().map(|lake| lake.folder(&table())).collect::<Vec<_>>());
}

#[test]
fn a_random_distributed_history_equals_its_replay() {
    let modes = SETTINGS.map(|setting| (Kept::Current, setting));
    play_all(4, &(any_drawn(), 1_usize..4), &modes, |(drawn, parts), (kept, setting)| {
        let case = Case { feeds: false, ..drawn.case(kept) };
        let lake = TestLake::with(64 << 20, |options| drawn.options(case, setting, options));
        let stage = Stage { by_others: Some((*parts, StoreOptions::default())), ..lake.stage() };
        let feed_of = async |_| unreachable!("there is no feed");
        runtime().block_on(play(&stage, case, &drawn.steps, drawn.batch_rows, feed_of))?;
        prop_assert_eq!(lake.engine.memory_pool().reserved(), 0);
        Ok(())
    });
}

#[cfg(feature = "demo")]
#[test]
fn a_random_history_in_an_object_store_equals_its_replay_in_every_mode() {
    use super::object_store::Remote;

    play_all(1, &any_drawn(), &modes(), |drawn, (kept, setting)| {
        runtime().block_on(async {
            let case = drawn.case(kept);
            let remote = Remote::with(|options| drawn.options(case, setting, options)).await;
            let stage = Stage { sink: &remote.sink, fixture: &remote.fixture, reference: None, by_others: None };
            let feed_of = async |version| change_feed::feed_of(remote.opened(&table()).await, version).await;
            play(&stage, case, &drawn.steps, drawn.batch_rows, feed_of).await?;
            prop_assert_eq!(remote.server.left_parts(), 0);
            Ok(())
        })
    });
}
