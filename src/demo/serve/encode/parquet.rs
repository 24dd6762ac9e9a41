//! Parquet as Spark writes it: nested groups `meta`, `key` and `value`, times in microseconds, Snappy. Alternatively flat with dotted names.

use std::io::Write;
use std::slice::IterMut;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde_json::Value;

use super::columns::Column;
use super::shape::Shape;
use crate::demo::record::{self, Cell, Layout, Record};
use crate::error::{Kind, Result, ResultExt};
use crate::model::{Mode, Op};

const ROWS_PER_BATCH: usize = 4096;
const ROWS_PER_GROUP: usize = 64 * 1024;
const BYTES_PER_GROUP: usize = 32 * 1024 * 1024;

/// The top-level columns of a record.
enum Plan {
    /// Columns `meta`, `key`, `value`.
    Nested,
    /// One column per dotted name; value fields either whole or as leaves.
    Flat(Vec<Leaf>),
}

/// A value field of the flat layout.
enum Leaf {
    Whole,
    Spread(Vec<Leaf>),
}

/// A Parquet object that is being written.
pub(super) struct ParquetObject<W: Write + Send> {
    writer: ArrowWriter<W>,
    schema: SchemaRef,
    columns: Vec<Column>,
    plan: Plan,
    incremental: bool,
    rows: usize,
}

impl<W: Write + Send> ParquetObject<W> {
    pub(super) fn new(out: W, layout: &Layout, schema: &Value, mode: Mode, incremental: bool, flat: bool) -> Result<Self> {
        let (names, columns, plan) = match flat {
            true => flat_columns(layout, schema, mode, incremental),
            false => nested_columns(layout, schema, incremental),
        };
        let fields: Vec<Field> =
            names.iter().zip(&columns).map(|(name, column)| Field::new(name, column.data_type(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(ROWS_PER_GROUP))
            .set_max_row_group_bytes(Some(BYTES_PER_GROUP))
            .build();
        // The service's files have no Arrow schema, so these must not help the reader either.
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(out, schema.clone(), options)
            .context(Kind::Bug, "A Parquet object cannot be created")?;
        Ok(Self { writer, schema, columns, plan, incremental, rows: 0 })
    }

    pub(super) fn row(&mut self, record: &Record) -> Result<()> {
        let meta = [Cell::Time(record.ts), Cell::Text(record.op.letter().into())];
        let meta = &meta[..if self.incremental { 2 } else { 1 }];
        match &self.plan {
            Plan::Nested => {
                let [meta_column, key, value] = self.columns.as_mut_slice() else { unreachable!("three groups") };
                meta_column.push_group(meta)?;
                key.push_group(&record.key)?;
                match &record.value {
                    Some(cells) => value.push_group(cells)?,
                    None => value.push_null(),
                }
            }
            Plan::Flat(leaves) => {
                let mut columns = self.columns.iter_mut();
                for cell in meta.iter().chain(&record.key) {
                    push_next(&mut columns, cell)?;
                }
                for (place, leaf) in leaves.iter().enumerate() {
                    let cell = record.value.as_ref().and_then(|cells| cells.get(place)).unwrap_or(&Cell::Null);
                    leaf.push(cell, &mut columns)?;
                }
            }
        }
        debug_assert!(self.incremental || record.op == Op::Upsert, "a snapshot holds no deletes");
        self.rows += 1;
        if self.rows == ROWS_PER_BATCH { self.write_batch() } else { Ok(()) }
    }

    fn write_batch(&mut self) -> Result<()> {
        if std::mem::take(&mut self.rows) == 0 {
            return Ok(());
        }
        let arrays = self.columns.iter_mut().map(Column::finish).collect::<Result<_>>()?;
        let batch = RecordBatch::try_new(self.schema.clone(), arrays).context(Kind::Bug, "Columns differ in length")?;
        self.writer.write(&batch).context(Kind::Io, "A Parquet object cannot be written")
    }

    pub(super) fn finish(mut self) -> Result<W> {
        self.write_batch()?;
        self.writer.into_inner().context(Kind::Io, "A Parquet object cannot be written")
    }
}

fn push_next(columns: &mut IterMut<'_, Column>, cell: &Cell) -> Result<()> {
    match columns.next() {
        Some(column) => column.push(cell),
        None => unreachable!("the plan names as many columns as there are"),
    }
}

impl Leaf {
    fn push(&self, cell: &Cell, columns: &mut IterMut<'_, Column>) -> Result<()> {
        match self {
            Leaf::Whole => push_next(columns, cell),
            Leaf::Spread(leaves) => {
                let members: &[_] = if let Cell::Object(members) = cell { members } else { &[] };
                leaves.iter().enumerate().try_for_each(|(place, leaf)| {
                    leaf.push(members.get(place).map_or(&Cell::Null, |(_, member)| member), columns)
                })
            }
        }
    }
}

fn meta_columns(incremental: bool) -> Vec<(&'static str, Column)> {
    let mut columns = vec![("ts", Column::new(&Shape::Time))];
    if incremental {
        columns.push(("action", Column::new(&Shape::Text)));
    }
    columns
}

fn nested_columns(layout: &Layout, schema: &Value, incremental: bool) -> (Vec<String>, Vec<Column>, Plan) {
    let group = |group: &str, names: Vec<&'_ str>| {
        Column::object(names.into_iter().map(|name| (name, Column::new(&Shape::of_column(schema, group, name)))).collect())
    };
    let columns = vec![
        Column::object(meta_columns(incremental)),
        group("key", layout.key.iter().map(String::as_str).collect()),
        group("value", layout.value.iter().map(|field| field.name.as_str()).collect()),
    ];
    (vec!["meta".into(), "key".into(), "value".into()], columns, Plan::Nested)
}

fn flat_columns(layout: &Layout, schema: &Value, mode: Mode, incremental: bool) -> (Vec<String>, Vec<Column>, Plan) {
    let mut names = Vec::new();
    let mut columns = Vec::new();
    for (name, column) in meta_columns(incremental) {
        names.push(format!("meta.{name}"));
        columns.push(column);
    }
    for name in &layout.key {
        names.push(format!("key.{name}"));
        columns.push(Column::new(&Shape::of_column(schema, "key", name)));
    }
    let leaves = layout
        .value
        .iter()
        .map(|field| {
            let shape = Shape::of_column(schema, "value", &field.name);
            flatten(field, shape, "value", mode, &mut names, &mut columns)
        })
        .collect();
    (names, columns, Plan::Flat(leaves))
}

fn flatten(
    field: &record::Field,
    shape: Shape,
    prefix: &str,
    mode: Mode,
    names: &mut Vec<String>,
    columns: &mut Vec<Column>,
) -> Leaf {
    let name = format!("{prefix}.{}", field.name);
    match (shape, mode) {
        (Shape::Object(members), Mode::Expanded) if !field.members.is_empty() => {
            let member_shape =
                |wanted: &str| members.iter().find(|(name, _)| name == wanted).map_or(Shape::Json, |(_, shape)| shape.clone());
            let leaves = field.members.iter().map(|member| {
                let shape = member_shape(&member.name);
                flatten(member, shape, &name, mode, names, columns)
            });
            Leaf::Spread(leaves.collect())
        }
        (shape, _) => {
            // Nested values of a flat file are JSON text, as in the text formats.
            let shape = if matches!(shape, Shape::Object(_) | Shape::List(_)) { Shape::Json } else { shape };
            names.push(name);
            columns.push(Column::new(&shape));
            Leaf::Whole
        }
    }
}
