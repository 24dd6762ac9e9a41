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
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::{Expr, lit, when};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use futures::StreamExt;

use super::DeltaSink;
use super::columns::{LakeColumn, file_schema};
use super::conform::{Names, conform};
use super::layout::{Role, TableLayout};
use super::log::TableState;
use super::optimize::rows_of;
use super::writer::FileFormat;
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::model::TableRef;
use crate::schema::{ColumnRecord, Deletes, Nested, TableMode};
use crate::stage::{ChangeSet, Engine, engine_error, pull_together, table_of_streams};

/// How a table differs from what it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Differences {
    /// Rows that the table should have.
    pub rows: u64,
    /// Keys that it lacks.
    pub missing: u64,
    /// Keys that it has and should not have.
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

impl DeltaSink {
    /// How the table keeps nested columns. Kind `NotFound` if it is not kept here.
    pub async fn nested(&self, table: &TableRef) -> Result<Nested> {
        let state = self.present(&self.log(table)?).await?;
        Ok(match state.configuration.get(super::log::NESTED).map(String::as_str) {
            Some("json") => Nested::Json,
            _ => Nested::Typed,
        })
    }

    /// Which columns of the table were left out or hashed. Kind `NotFound` if it is not kept here.
    pub async fn columns(&self, table: &TableRef) -> Result<ColumnRecord> {
        Ok(self.present(&self.log(table)?).await?.column_record())
    }

    /// Compares the table with `fresh`, a whole and reduced one. Keys in `changed` are left out: they changed between the two. At
    /// most `limit` keys are named, all are counted. Columns that only one side has are not compared.
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
        let compared = Compared::new(&state, &fresh)?;
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
        let mut found = collect(answer, compared.key_count, limit).await.with("table", table)?;
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
        let all = pull_together(set.schema, set.streams, engine.partitions());
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
        let all = pull_together(set.schema, set.streams, engine.partitions());
        let stream = all.map(move |batch| {
            let batch = conform(&batch?, &columns, &schema, Names::Logical).map_err(external)?;
            digest(&batch, key_count, &output).map_err(external)
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.output), stream))
    }

    /// Keys on one side only or with other digests; columns `x0`, `x1`, ... and `what`. Sorts and merges, which spill.
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
        let side = |stream: SendableRecordBatchStream, prefix: &str| -> Result<DataFrame> {
            let table = table_of_streams(Arc::clone(&self.output), vec![stream])?;
            let renamed = (0..self.key_count).map(|number| named(&key_name("k", number)).alias(key_name(prefix, number)));
            let renamed: Vec<Expr> = renamed.chain([named("digest").alias(format!("{prefix}digest"))]).collect();
            session.read_table(table).and_then(|table| table.select(renamed)).map_err(engine_error)
        };
        let (wanted, held) = (side(wanted, "w")?, side(held, "h")?);
        let changed = changed.map(|stream| side(stream, "c")).transpose()?;
        let names = |prefix: &str| -> Vec<String> { (0..self.key_count).map(|number| key_name(prefix, number)).collect() };
        let plan = || -> std::result::Result<DataFrame, DataFusionError> {
            let (left, right) = (names("w"), names("h"));
            let left: Vec<&str> = left.iter().map(String::as_str).collect();
            let right: Vec<&str> = right.iter().map(String::as_str).collect();
            let joined = wanted.join(held, JoinType::Full, &left, &right, None)?;
            let absent = |name: &str| named(name).is_null();
            let differs = absent("w0").or(absent("h0")).or(named("wdigest").not_eq(named("hdigest")));
            let what = when(absent("h0"), lit(0_i64)).when(absent("w0"), lit(1_i64)).otherwise(lit(2_i64))?;
            let mut output: Vec<Expr> = (0..self.key_count)
                .map(|number| {
                    coalesce(vec![named(&key_name("w", number)), named(&key_name("h", number))]).alias(key_name("x", number))
                })
                .collect();
            output.push(what.alias("what"));
            let found = joined.filter(differs)?.select(output)?;
            let Some(changed) = changed else { return Ok(found) };
            let (left, right) = (names("x"), names("c"));
            let left: Vec<&str> = left.iter().map(String::as_str).collect();
            let right: Vec<&str> = right.iter().map(String::as_str).collect();
            found.join(changed, JoinType::LeftAnti, &left, &right, None)
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
        let converter = RowConverter::new(fields).or_fail(Kind::Bug, "Rows cannot be compared")?;
        let rows = converter.convert_columns(values).or_fail(Kind::Bug, "Rows cannot be compared")?;
        let hash = |row: arrow::row::Row<'_>| {
            let mut hasher = DefaultHasher::new();
            hasher.write(row.as_ref());
            hasher.finish() as i64
        };
        Int64Array::from_iter_values(rows.iter().map(hash))
    };
    arrays.push(Arc::new(digests));
    RecordBatch::try_new(Arc::clone(output), arrays).or_fail(Kind::Bug, "Rows cannot be compared")
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
            .or_fail(Kind::Bug, "Keys cannot be shown")?;
        let whats = batch.column(key_count).as_primitive::<Int64Type>();
        for (row, what) in whats.values().iter().enumerate() {
            let counts = [&mut found.missing, &mut found.surplus, &mut found.different];
            let place = usize::try_from(*what).unwrap_or(0).min(KINDS.len() - 1);
            *counts[place] += 1;
            if found.keys.len() < limit {
                let key: Vec<String> = keys.iter().map(|key| key.value(row).to_string()).collect();
                found.keys.push(DifferingKey { key: key.join(", "), what: KINDS[place] });
            }
        }
    }
    found.keys.sort();
    Ok(found)
}
