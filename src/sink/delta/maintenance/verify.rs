//! Compares a table with the rows that it should have, key by key, within the engine's memory limit. It changes nothing.

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
use crate::model::TableRef;
use crate::reduce::ChangeSet;
use crate::schema::{ColumnRecord, Deletes, Nested, TableMode};
use crate::sink::delta::DeltaSink;
use crate::sink::delta::log::columns::{LakeColumn, file_schema};
use crate::sink::delta::log::system_columns::{Role, TableLayout};
use crate::sink::delta::log::table_log::TableState;
use crate::sink::delta::maintenance::optimize::rows_of;
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::delta::write::schema_cast::{Names, conform};

/// How a table differs from what it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Differences {
    /// Rows that the table should have.
    pub rows: u64,
    /// Keys that it lacks.
    pub missing: u64,
    /// Rows that it has and should not have, also those of keys that it has more than once.
    pub surplus: u64,
    /// Keys whose rows have other values.
    pub different: u64,
    /// Some of these keys.
    pub keys: Vec<DifferingKey>,
}

/// A key whose row differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct DifferingKey {
    /// Its values, with commas between.
    pub key: String,
    /// `missing`, `surplus` or `different`.
    pub what: &'static str,
}

impl Differences {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.missing + self.surplus + self.different == 0
    }
}

const KINDS: [&str; 3] = ["missing", "surplus", "different"];
/// Rows that are wanted and not held, in the answer.
const MISSING: &str = "missing";
/// Rows that are held and not wanted.
const SURPLUS: &str = "surplus";

impl DeltaSink {
    /// How the table keeps nested columns. Kind `NotFound` if it is not kept here.
    pub async fn nested(&self, table: &TableRef) -> Result<Nested> {
        let state = self.present(&self.log(table)?).await?;
        Ok(match state.configuration.get(crate::sink::delta::log::table_log::NESTED).map(String::as_str) {
            Some("json") => Nested::Json,
            _ => Nested::Typed,
        })
    }

    /// Which columns of the table were left out or hashed. Kind `NotFound` if it is not kept here.
    pub async fn columns(&self, table: &TableRef) -> Result<ColumnRecord> {
        Ok(self.present(&self.log(table)?).await?.column_record())
    }

    /// Compares the table with `fresh`, a whole and reduced one, as multisets: a row that is there twice is surplus once. Keys in
    /// `changed` are left out: they changed between the two. At most `limit` keys are named, all rows are counted. Columns that only one side has are not compared.
    pub async fn differences(
        &self,
        table: &TableRef,
        fresh: ChangeSet,
        changed: Option<ChangeSet>,
        limit: usize,
    ) -> Result<Differences> {
        let state = self.present(&self.log(table)?).await?;
        let layout = TableLayout::of(&state.configuration);
        // The rows of now among all that are kept.
        let only = match (layout.mode, layout.deletes) {
            (TableMode::Current, Deletes::Remove) => None,
            (TableMode::Current, Deletes::Mark) => Role::Deleted.find(&state.columns).map(|column| (column.clone(), false)),
            (TableMode::History, _) => Role::Current.find(&state.columns).map(|column| (column.clone(), true)),
            (TableMode::Changes, _) => {
                return Err(Error::new(Kind::Unsupported, "A log of changes cannot be compared with a snapshot")
                    .hint("name other tables with --table, or leave this one out with --exclude"));
            }
        };
        let compared = Compared::new(&state, &fresh).map_err(|error| match layout.keeps_rows() || table.is_log() {
            true => {
                error.hint_instead("load the table into a new --target: this one keeps its old rows even with --resnapshot")
            }
            false => error,
        })?;
        let rows = Arc::new(AtomicU64::new(0));
        let engine = &self.options.engine;
        let wanted = compared.digests_of_changes(fresh, engine, Arc::clone(&rows));
        let mut columns = compared.columns.clone();
        columns.extend(only.iter().map(|(column, _)| column.clone()));
        let format = Arc::new(FileFormat::new(&self.options, self.log(table)?.outbox(engine), &columns, &state.key, 1));
        let mut rows_held = rows_of(&format, &state.files, engine);
        if let Some((_, wanted)) = only {
            rows_held = only_with(rows_held, wanted, Arc::clone(&compared.schema));
        }
        let held = compared.digests(rows_held, None, Names::Physical);
        let changed = changed.map(|changed| compared.keys_of_changes(changed, engine));
        let answer = compared.join(engine, wanted, held, changed).await?;
        let mut found = collect(answer, compared.key_count, limit).await.with_field("table", table)?;
        found.rows = rows.load(Ordering::Relaxed);
        Ok(found)
    }
}

/// The rows whose last column is `wanted`, without it.
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

/// The columns that both sides have, and how they are brought to one form: key columns and one number for all others.
struct Compared {
    columns: Vec<LakeColumn>,
    schema: SchemaRef,
    key_count: usize,
    keys: Vec<String>,
    output: SchemaRef,
}

impl Compared {
    fn new(state: &TableState, fresh: &ChangeSet) -> Result<Self> {
        if state.key != fresh.keys {
            return Err(Error::new(Kind::Schema, "The table has another primary key than the service has now")
                .hint("load the table anew with --resnapshot"));
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

    fn digests_of_changes(&self, set: ChangeSet, engine: &Engine, count: Arc<AtomicU64>) -> SendableRecordBatchStream {
        let all = combine_streams(set.schema, set.streams, engine.partitions());
        self.digests(all, Some(count), Names::Logical)
    }

    fn digests(
        &self,
        rows: SendableRecordBatchStream,
        count: Option<Arc<AtomicU64>>,
        names: Names,
    ) -> SendableRecordBatchStream {
        let (columns, schema, output, key_count) =
            (self.columns.clone(), self.schema.clone(), self.output.clone(), self.key_count);
        let stream = rows.map(move |batch| {
            let batch = batch?;
            if let Some(count) = &count {
                count.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
            }
            // Rows of data files were brought to this form as they were read.
            let batch = match names {
                Names::Physical => batch,
                Names::Logical => conform(&batch, &columns, &schema, names).map_err(external)?,
            };
            digest(&batch, key_count, &output).map_err(external)
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.output), stream))
    }

    fn keys_of_changes(&self, set: ChangeSet, engine: &Engine) -> SendableRecordBatchStream {
        let columns = self.columns[..self.key_count].to_vec();
        let schema = file_schema(&columns, &self.keys);
        let (output, key_count) = (self.output.clone(), self.key_count);
        let all = combine_streams(set.schema, set.streams, engine.partitions());
        let stream = all.map(move |batch| {
            let batch = conform(&batch?, &columns, &schema, Names::Logical).map_err(external)?;
            digest(&batch, key_count, &output).map_err(external)
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.output), stream))
    }

    /// Keys with how many rows of the wanted ones are not held, and how many of the held ones are not wanted; columns `x0`, `x1`,
    /// ..., [`MISSING`] and [`SURPLUS`]. Rows are the same if key and digest are. Sums that spill.
    async fn join(
        &self,
        engine: &Engine,
        wanted: SendableRecordBatchStream,
        held: SendableRecordBatchStream,
        changed: Option<SendableRecordBatchStream>,
    ) -> Result<SendableRecordBatchStream> {
        let base = engine.session();
        // One partition is what keeps within the limit, see `Engine`.
        let config: SessionConfig = base.copied_config().with_target_partitions(1);
        let session = SessionContext::new_with_config_rt(config, base.runtime_env());
        let read = |stream: SendableRecordBatchStream| -> Result<DataFrame> {
            let table = streaming_table(Arc::clone(&self.output), vec![stream])?;
            session.read_table(table).map_err(engine_error)
        };
        let (wanted, held) = (read(wanted)?, read(held)?);
        let changed = changed.map(read).transpose()?;
        let names = |prefix: &str| -> Vec<String> { (0..self.key_count).map(|number| key_name(prefix, number)).collect() };
        let plan = || -> std::result::Result<DataFrame, DataFusionError> {
            let keys = || names("k").iter().map(|name| named(name)).collect::<Vec<_>>();
            let counted = |rows: DataFrame, count: i64| {
                rows.select(keys().into_iter().chain([named("digest"), lit(count).alias("copies")]).collect::<Vec<_>>())
            };
            let all = counted(wanted, 1)?.union(counted(held, -1)?)?;
            let equal = keys().into_iter().chain([named("digest")]).collect();
            let odd = all.aggregate(equal, vec![sum(named("copies")).alias("balance")])?;
            let mut odd = odd.filter(named("balance").not_eq(lit(0_i64)))?;
            if let Some(changed) = changed {
                let renamed = names("k").iter().zip(names("c")).map(|(from, to)| named(from).alias(to)).collect::<Vec<_>>();
                let (left, right) = (names("k"), names("c"));
                let left: Vec<&str> = left.iter().map(String::as_str).collect();
                let right: Vec<&str> = right.iter().map(String::as_str).collect();
                odd = odd.join(changed.select(renamed)?, JoinType::LeftAnti, &left, &right, None)?;
            }
            let of_sign = |positive: bool| -> std::result::Result<Expr, DataFusionError> {
                let (is, count) = match positive {
                    true => (named("balance").gt(lit(0_i64)), named("balance")),
                    false => (named("balance").lt(lit(0_i64)), lit(0_i64) - named("balance")),
                };
                Ok(sum(when(is, count).otherwise(lit(0_i64))?))
            };
            let sums = vec![of_sign(true)?.alias(MISSING), of_sign(false)?.alias(SURPLUS)];
            let by_key = odd.aggregate(keys(), sums)?;
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

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Key columns, and a number that stands for all the others.
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

async fn collect(mut answer: SendableRecordBatchStream, key_count: usize, limit: usize) -> Result<Differences> {
    let mut found = Differences::default();
    while let Some(batch) = answer.next().await {
        let batch = batch.map_err(engine_error)?;
        let options = FormatOptions::default();
        let keys: Vec<ArrayFormatter<'_>> = batch.columns()[..key_count]
            .iter()
            .map(|array| ArrayFormatter::try_new(array.as_ref(), &options))
            .collect::<std::result::Result<_, _>>()
            .context(Kind::Bug, "Keys cannot be shown")?;
        let counts = |place: usize| batch.column(key_count + place).as_primitive::<Int64Type>();
        let (missing, surplus) = (counts(0), counts(1));
        for row in 0..batch.num_rows() {
            let (missing, surplus) = (missing.value(row).max(0) as u64, surplus.value(row).max(0) as u64);
            // A row in the place of another one is a different row.
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
