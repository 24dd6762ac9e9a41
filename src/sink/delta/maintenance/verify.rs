//! Compares a table with the rows that it should have, by key and within the memory limit. Changes nothing.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{Column, JoinType};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::functions_aggregate::expr_fn::sum;
use datafusion::logical_expr::{Expr, lit, when};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use futures::StreamExt;

use crate::engine::{Engine, combine_streams, engine_error, streaming_table};
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::reduce::ChangeSet;
use crate::schema::{Deletes, TableMode};
use crate::sink::NEW_TARGET_HINT;
use crate::sink::delta::log::columns::{LakeColumn, file_schema};
use crate::sink::delta::log::system_columns::{SystemColumn, TableLayout};
use crate::sink::delta::log::table_log::TableLog;
use crate::sink::delta::log::table_state::TableState;
use crate::sink::delta::read::row_reader::RowReader;
use crate::sink::delta::write::schema_cast::{ColumnNames, cast_to_file_schema};

/// The differences between a table and a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Differences {
    /// Number of rows that the table should have.
    pub rows: u64,
    /// Number of rows that it lacks.
    pub missing: u64,
    /// Number of rows that it should not have, repeated rows included.
    pub surplus: u64,
    /// Number of rows with other values.
    pub different: u64,
    /// Some of the keys of these rows.
    pub keys: Vec<DifferingKey>,
}

/// A key whose row differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct DifferingKey {
    /// The values of the key, separated by commas.
    pub key: String,
    /// `missing`, `surplus` or `different`.
    pub what: &'static str,
}

impl Differences {
    /// Whether there are no differences.
    pub fn is_none(&self) -> bool {
        self.missing + self.surplus + self.different == 0
    }
}

const KINDS: [&str; 3] = ["missing", "surplus", "different"];
/// Number of wanted rows that the table lacks, in the joined rows.
const MISSING: &str = "missing";
/// Number of rows in the table that are not wanted.
const SURPLUS: &str = "surplus";

/// See [`DeltaSink::differences`](crate::sink::delta::DeltaSink::differences).
pub(crate) async fn differences(
    log: &TableLog,
    engine: &Engine,
    fresh: ChangeSet,
    changed: Option<ChangeSet>,
    limit: usize,
) -> Result<Differences> {
    let state = log.existing_state().await?;
    let layout = TableLayout::from_properties(&state.configuration);
    // The system column that indicates whether a row exists now, and the value for yes.
    let only = match (layout.mode, layout.deletes) {
        (TableMode::Current, Deletes::Remove) => None,
        (TableMode::Current, Deletes::Mark) => Some((SystemColumn::Deleted, false)),
        (TableMode::History, _) => Some((SystemColumn::Current, true)),
        (TableMode::Changes, _) => {
            return Err(Error::new(Kind::Unsupported, "A log of changes cannot be compared with a snapshot")
                .hint("select other tables with --table, or exclude this one with --exclude"));
        }
    };
    let only = only.and_then(|(column, wanted)| Some((column.find(&state.columns)?.clone(), wanted)));
    let comparison = Comparison::new(&state, &fresh)
        .map_err(|error| if layout.keeps_rows() || log.table.is_log() { error.hint_instead(NEW_TARGET_HINT) } else { error })?;
    let rows = Arc::new(AtomicU64::new(0));
    let wanted = comparison.digests_of_changes(fresh, engine, Arc::clone(&rows));
    let mut columns = comparison.columns.clone();
    columns.extend(only.iter().map(|(column, _)| column.clone()));
    let reader = RowReader::new(log.store(), &columns, &state.key, engine);
    let mut present = reader.live_rows_of(&state.files);
    if let Some((_, wanted)) = only {
        present = only_with(present, wanted, Arc::clone(&comparison.schema));
    }
    let present = comparison.digests_of_rows(present);
    let changed = changed.map(|changed| comparison.keys_of_changes(changed, engine));
    let joined = comparison.join(engine, wanted, present, changed).await?;
    let mut found = collect(joined, comparison.key_count, limit).await.with_field("table", &log.table)?;
    found.rows = rows.load(Ordering::Relaxed);
    Ok(found)
}

/// The rows whose last column has the value `wanted`, without that column.
fn only_with(rows: SendableRecordBatchStream, wanted: bool, schema: SchemaRef) -> SendableRecordBatchStream {
    let out = Arc::clone(&schema);
    let kept = rows.map(move |batch| {
        let batch = batch?;
        let (flags, others) = match batch.columns().split_last() {
            Some((flags, others)) => (flags.as_boolean(), others.to_vec()),
            None => return Ok(batch),
        };
        let chosen: BooleanArray =
            (0..flags.len()).map(|row| Some(flags.is_valid(row) && flags.value(row) == wanted)).collect();
        Ok(filter_record_batch(&RecordBatch::try_new(Arc::clone(&out), others)?, &chosen)?)
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, kept))
}

/// The comparison of two sets of rows by the columns that both have. Each side is reduced to key columns and a digest of all other
/// columns.
struct Comparison {
    /// Key columns first.
    columns: Vec<LakeColumn>,
    /// File schema of the columns.
    schema: SchemaRef,
    key_count: usize,
    /// Names of the key columns.
    keys: Vec<String>,
    /// Schema of a side: key columns `k0`, `k1`, ... and `digest`.
    output: SchemaRef,
}

impl Comparison {
    fn new(state: &TableState, fresh: &ChangeSet) -> Result<Self> {
        if state.key != fresh.keys {
            return Err(Error::new(Kind::Schema, "The primary key of the table differs from the service's")
                .hint("reload the table with --resnapshot"));
        }
        let key = |name: &String| state.columns.iter().find(|column| column.name == *name).cloned();
        let mut columns: Vec<LakeColumn> = state.key.iter().filter_map(key).collect();
        let key_count = columns.len();
        let others = state.columns.iter().filter(|column| !state.key.contains(&column.name));
        columns.extend(others.filter(|column| fresh.schema.index_of(&column.name).is_ok()).cloned());
        let schema = file_schema(&columns, &state.key);
        let mut fields: Vec<Field> = schema.fields()[..key_count]
            .iter()
            .enumerate()
            .map(|(number, field)| Field::new(key_name("k", number), field.data_type().clone(), false))
            .collect();
        fields.push(Field::new("digest", DataType::Int64, false));
        Ok(Self { columns, schema, key_count, keys: state.key.clone(), output: Arc::new(Schema::new(fields)) })
    }

    /// The wanted rows as a side. Counts them in `count`.
    fn digests_of_changes(&self, set: ChangeSet, engine: &Engine, count: Arc<AtomicU64>) -> SendableRecordBatchStream {
        let counted = move |batch: &RecordBatch| _ = count.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        self.digests_of(set, engine, self.columns.clone(), Arc::clone(&self.schema), counted)
    }

    /// The keys of changes as a side; the digests are those of no columns.
    fn keys_of_changes(&self, set: ChangeSet, engine: &Engine) -> SendableRecordBatchStream {
        let columns = self.columns[..self.key_count].to_vec();
        let schema = file_schema(&columns, &self.keys);
        self.digests_of(set, engine, columns, schema, |_| ())
    }

    fn digests_of(
        &self,
        set: ChangeSet,
        engine: &Engine,
        columns: Vec<LakeColumn>,
        schema: SchemaRef,
        inspect: impl Fn(&RecordBatch) + Send + 'static,
    ) -> SendableRecordBatchStream {
        let (output, key_count) = (Arc::clone(&self.output), self.key_count);
        let all = combine_streams(set.schema, set.streams, engine.partitions());
        let stream = all.map(move |batch| {
            let batch = batch?;
            inspect(&batch);
            let batch = cast_to_file_schema(&batch, &columns, &schema, ColumnNames::Logical).map_err(DataFusionError::from)?;
            digest(&batch, key_count, &output).map_err(DataFusionError::from)
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.output), stream))
    }

    /// Rows of the table, which have the file schema, as a side.
    fn digests_of_rows(&self, rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
        let (output, key_count) = (Arc::clone(&self.output), self.key_count);
        let stream = rows.map(move |batch| digest(&batch?, key_count, &output).map_err(DataFusionError::from));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.output), stream))
    }

    /// For each key with differences, the number of wanted rows that the table lacks and of rows that are not wanted: columns `x0`,
    /// `x1`, ..., [`MISSING`] and [`SURPLUS`]. Rows are equal if key and digest are. The sums spill.
    async fn join(
        &self,
        engine: &Engine,
        wanted: SendableRecordBatchStream,
        present: SendableRecordBatchStream,
        changed: Option<SendableRecordBatchStream>,
    ) -> Result<SendableRecordBatchStream> {
        let base = engine.session();
        // With one partition, the sums stay within the memory limit; see `Engine`.
        let config: SessionConfig = base.copied_config().with_target_partitions(1);
        let session = SessionContext::new_with_config_rt(config, base.runtime_env());
        let read = |stream: SendableRecordBatchStream| -> Result<DataFrame> {
            let table = streaming_table(Arc::clone(&self.output), vec![stream])?;
            session.read_table(table).map_err(engine_error)
        };
        let (wanted, present) = (read(wanted)?, read(present)?);
        let changed = changed.map(read).transpose()?;
        let names = |prefix: &str| -> Vec<String> { (0..self.key_count).map(|number| key_name(prefix, number)).collect() };
        let plan = || -> std::result::Result<DataFrame, DataFusionError> {
            let keys = || names("k").iter().map(|name| named(name)).collect::<Vec<_>>();
            let counted = |rows: DataFrame, count: i64| {
                rows.select(keys().into_iter().chain([named("digest"), lit(count).alias("copies")]).collect::<Vec<_>>())
            };
            let all = counted(wanted, 1)?.union(counted(present, -1)?)?;
            let equal = keys().into_iter().chain([named("digest")]).collect();
            let unbalanced = all.aggregate(equal, vec![sum(named("copies")).alias("balance")])?;
            let mut unbalanced = unbalanced.filter(named("balance").not_eq(lit(0_i64)))?;
            if let Some(changed) = changed {
                let renamed = names("k").iter().zip(names("c")).map(|(from, to)| named(from).alias(to)).collect::<Vec<_>>();
                let (left, right) = (names("k"), names("c"));
                let left: Vec<&str> = left.iter().map(String::as_str).collect();
                let right: Vec<&str> = right.iter().map(String::as_str).collect();
                unbalanced = unbalanced.join(changed.select(renamed)?, JoinType::LeftAnti, &left, &right, None)?;
            }
            let sum_if = |condition: Expr, count: Expr| -> std::result::Result<Expr, DataFusionError> {
                Ok(sum(when(condition, count).otherwise(lit(0_i64))?))
            };
            let missing = sum_if(named("balance").gt(lit(0_i64)), named("balance"))?.alias(MISSING);
            let surplus = sum_if(named("balance").lt(lit(0_i64)), lit(0_i64) - named("balance"))?.alias(SURPLUS);
            let by_key = unbalanced.aggregate(keys(), vec![missing, surplus])?;
            let renamed = names("k").into_iter().zip(names("x")).map(|(from, to)| named(&from).alias(to));
            by_key.select(renamed.chain([named(MISSING), named(SURPLUS)]).collect::<Vec<_>>())
        };
        plan().map_err(engine_error)?.execute_stream().await.map_err(engine_error)
    }
}

fn named(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

fn key_name(prefix: &str, number: usize) -> String {
    format!("{prefix}{number}")
}

/// The key columns, and a digest of all other columns.
fn digest(batch: &RecordBatch, key_count: usize, output: &SchemaRef) -> Result<RecordBatch> {
    let (keys, values) = batch.columns().split_at(key_count);
    let mut arrays: Vec<ArrayRef> = keys.to_vec();
    let digests: Int64Array = if values.is_empty() {
        vec![0_i64; batch.num_rows()].into()
    } else {
        let fields = values.iter().map(|array| SortField::new(array.data_type().clone())).collect();
        let converter = RowConverter::new(fields).context(Kind::Bug, "Rows cannot be compared")?;
        let rows = converter.convert_columns(values).context(Kind::Bug, "Rows cannot be compared")?;
        let hash = |row: arrow::row::Row<'_>| {
            let mut hasher = DefaultHasher::new();
            hasher.write(row.as_ref());
            hasher.finish() as i64
        };
        Int64Array::from_iter_values(rows.iter().map(hash))
    };
    arrays.push(Arc::new(digests));
    RecordBatch::try_new(Arc::clone(output), arrays).context(Kind::Bug, "Rows cannot be compared")
}

async fn collect(mut joined: SendableRecordBatchStream, key_count: usize, limit: usize) -> Result<Differences> {
    let mut found = Differences::default();
    while let Some(batch) = joined.next().await {
        let batch = batch.map_err(engine_error)?;
        let options = FormatOptions::default();
        let keys: Vec<ArrayFormatter<'_>> = batch.columns()[..key_count]
            .iter()
            .map(|array| ArrayFormatter::try_new(array.as_ref(), &options))
            .collect::<std::result::Result<_, _>>()
            .context(Kind::Bug, "Keys cannot be formatted")?;
        let counts = |place: usize| batch.column(key_count + place).as_primitive::<Int64Type>();
        let (missing, surplus) = (counts(0), counts(1));
        for row in 0..batch.num_rows() {
            let (missing, surplus) = (missing.value(row).max(0) as u64, surplus.value(row).max(0) as u64);
            // A missing and a surplus row of the same key are one different row.
            let different = missing.min(surplus);
            let counts = [missing - different, surplus - different, different];
            found.missing += counts[0];
            found.surplus += counts[1];
            found.different += counts[2];
            for (what, _) in KINDS.iter().zip(counts).filter(|(_, count)| *count > 0) {
                if found.keys.len() < limit {
                    let key: Vec<String> = keys.iter().map(|key| key.value(row).to_string()).collect();
                    found.keys.push(DifferingKey { key: key.join(", "), what });
                }
            }
        }
    }
    found.keys.sort();
    Ok(found)
}
