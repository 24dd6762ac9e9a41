//! Properties over random rows: every format and mode gives the same batch, any split of the bytes gives the same batches, and
//! no bytes make a decoder panic.

use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use arrow::array::{Array as _, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::json::ReaderBuilder;
use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;

use super::model::{self, Cell, Manner, Row, manner};
use super::*;
use crate::schema::ColumnType;
use crate::schema::tests::{everything, fixture};

const TEXT_FORMATS: [Format; 3] = [Format::Jsonl, Format::Csv, Format::Tsv];

fn render(schema: &TableSchema, format: Format, rows: &[Row], manner: Manner) -> String {
    match format {
        Format::Jsonl => model::jsonl(schema, rows, manner),
        Format::Csv => model::csv(schema, rows, manner),
        Format::Tsv => model::tsv(schema, rows, manner),
        Format::Parquet => unreachable!(),
    }
}

fn count_placeholders(cell: &Cell) -> u64 {
    match cell {
        Cell::Text(text) => u64::from(text == "__dap_oversized_truncated__"),
        Cell::Object(cells) | Cell::List(cells) => cells.iter().map(count_placeholders).sum(),
        _ => 0,
    }
}

/// Rows of a table with every type, or of a real one.
fn any_rows(most: usize) -> impl Strategy<Value = (TableSchema, Vec<Row>)> {
    let schemas = vec![everything(), everything(), fixture("courses"), fixture("assignment_groups"), fixture("web_logs")];
    proptest::sample::select(schemas).prop_flat_map(move |schema| {
        let rows = model::rows(&schema, most);
        (Just(schema), rows)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn all_text_formats_give_the_batch_of_the_rows((schema, rows) in any_rows(9), manner in manner()) {
        let expected = model::batch(&schema, &rows, 3);
        for format in TEXT_FORMATS {
            let text = render(&schema, format, &rows, manner);
            let decoded = decode(&schema, format, &text);
            prop_assert_eq!(&decoded.bad, &[], "{} {}", format, text);
            prop_assert_eq!(&decoded.batch, &expected, "{} {}", format, text);
            prop_assert_eq!(decoded.counts.rows, rows.len() as u64);
            prop_assert_eq!(decoded.counts.deletes, rows.iter().filter(|row| row.delete).count() as u64);
            let placeholders = rows.iter().flat_map(|row| row.key.iter().chain(&row.value)).map(count_placeholders).sum::<u64>();
            prop_assert_eq!(decoded.counts.oversized, placeholders);
            let required = schema.value.iter().enumerate().filter(|(_, column)| column.required);
            let nulls = required.map(|(number, _)| rows.iter().filter(|row| !row.delete && row.value[number] == Cell::Null).count());
            prop_assert_eq!(decoded.counts.required_nulls, nulls.sum::<usize>() as u64);
            prop_assert_eq!(decoded.counts.cut_fractions, 0);
            if !manner.strangers {
                prop_assert!(decoded.counts.unknown_columns.is_empty());
            } else if format != Format::Jsonl || rows.iter().any(|row| !row.delete) {
                prop_assert!(decoded.counts.unknown_columns.contains("value.stranger"));
            }
        }
    }

    #[test]
    fn nested_columns_as_json_are_the_same_in_all_formats((schema, rows) in any_rows(6), manner in manner()) {
        let condensed = Manner { expanded: false, explicit_nulls: false, reversed: false, wordy: false, strangers: false, ..manner };
        let mut decoded = Vec::new();
        for manner in [manner, condensed] {
            for format in TEXT_FORMATS {
                let text = render(&schema, format, &rows, manner);
                let one = decode_parts(&schema, format, [text.as_bytes()], |options| options.nested = Nested::Json).unwrap();
                prop_assert_eq!(&one.bad, &[]);
                decoded.push(one.batch);
            }
        }
        for (number, column) in schema.value.iter().enumerate() {
            let texts = decoded[0].column_by_name(&column.name).unwrap();
            for other in &decoded[1..] {
                prop_assert_eq!(texts, other.column_by_name(&column.name).unwrap());
            }
            if !matches!(column.column_type, ColumnType::Struct(_) | ColumnType::List(_)) {
                continue;
            }
            for (row, text) in rows.iter().zip(texts.as_string::<i32>()) {
                let cell = &row.value[number];
                prop_assert_eq!(text.is_none(), *cell == Cell::Null);
                if let Some(text) = text {
                    let value: serde_json::Value = serde_json::from_str(text).unwrap();
                    let expected: serde_json::Value = serde_json::from_str(&model::json(&column.column_type, cell, condensed)).unwrap();
                    prop_assert_eq!(same(&value), same(&expected));
                }
            }
        }
    }

    #[test]
    fn any_split_and_any_batch_size_give_the_same_rows(
        (schema, rows) in any_rows(9),
        manner in manner(),
        cuts in proptest::collection::vec(any::<Index>(), 0..12),
        batch_rows in 1_usize..6,
        batch_bytes in prop_oneof![Just(1_usize), 100_usize..5000],
        max_line in prop_oneof![Just(1 << 20), 300_usize..3000],
    ) {
        for format in TEXT_FORMATS {
            let text = render(&schema, format, &rows, manner);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let parts = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]);
            let change = |options: &mut DecodeOptions| {
                options.batch_rows = batch_rows;
                options.batch_bytes = batch_bytes;
                options.max_line = max_line;
            };
            match (decode_parts(&schema, format, parts, change), decode_parts(&schema, format, [text.as_bytes()], change)) {
                (Ok(split), Ok(whole)) => {
                    prop_assert_eq!(&split.batch, &whole.batch);
                    prop_assert_eq!(&split.sizes, &whole.sizes);
                    prop_assert_eq!(&split.bad, &whole.bad);
                    prop_assert_eq!(&split.counts, &whole.counts);
                    prop_assert!(split.sizes.iter().all(|rows| (1..=batch_rows).contains(rows)));
                    prop_assert_eq!(split.batch.num_rows() + split.bad.len(), rows.len());
                    if max_line == 1 << 20 {
                        prop_assert_eq!(&split.batch, &model::batch(&schema, &rows, 3));
                    }
                }
                (Err(split), Err(whole)) => prop_assert_eq!(split.to_string(), whole.to_string()),
                (split, whole) => prop_assert!(false, "{:?} {:?}", split, whole),
            }
        }
    }

    #[test]
    fn parquet_gives_the_same_batch((schema, rows) in any_rows(9), manner in manner(), groups: bool, batch_rows in 1_usize..12) {
        let file = model::parquet_batch(&schema, &rows, groups, manner);
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, file.schema(), None).unwrap();
        for row in (0..file.num_rows()).step_by(4) {
            writer.write(&file.slice(row, 4.min(file.num_rows() - row))).unwrap();
            writer.flush().unwrap();
        }
        writer.close().unwrap();
        let (mut options, bad) = options();
        options.batch_rows = batch_rows;
        let mut batches = super::super::parquet(Bytes::from(bytes), Arc::new(schema.clone()), options).unwrap();
        let all: Vec<_> = batches.by_ref().collect::<Result<_>>().unwrap();
        prop_assert!(all.iter().all(|batch| (1..=batch_rows).contains(&batch.num_rows())));
        let target = change_schema(&schema, Nested::Typed);
        prop_assert_eq!(&*bad.lock().unwrap(), &[]);
        prop_assert_eq!(concat_batches(&target, &all).unwrap(), model::batch(&schema, &rows, 3));
        prop_assert_eq!(batches.counts().rows, rows.len() as u64);
        prop_assert_eq!(batches.counts().unknown_columns.contains("value.stranger"), manner.strangers);
    }

    /// arrow-json is an independent decoder of the same lines. It supports neither NaN nor JSON text columns.
    #[test]
    fn jsonl_is_read_as_arrow_json_reads_it((schema, rows) in any_rows(9), manner in manner()) {
        let mut schema = schema;
        let mut rows = rows;
        let kept: Vec<bool> = schema.value.iter().map(|column| column.column_type != ColumnType::Json).collect();
        let keep = |number: usize| kept[number];
        for row in &mut rows {
            let mut number = 0;
            row.value.retain(|_| { number += 1; keep(number - 1) });
            row.value.iter_mut().for_each(without_infinities);
        }
        schema.value.retain(|column| column.column_type != ColumnType::Json);
        let text = model::jsonl(&schema, &rows, manner);
        let decoded = decode(&schema, Format::Jsonl, &text);
        let change = change_schema(&schema, Nested::Typed);
        let fields = &change.fields()[3..];
        let group = |fields: &[Arc<Field>]| {
            DataType::Struct(fields.iter().map(|field| with_offset(field)).collect())
        };
        let (key, value) = fields.split_at(schema.key.len());
        let theirs = Schema::new(vec![Field::new("key", group(key), true), Field::new("value", group(value), true)]);
        let reader = ReaderBuilder::new(Arc::new(theirs)).build(text.as_bytes()).unwrap();
        let mut row = 0;
        for batch in reader {
            let batch = batch.unwrap();
            let theirs = ["key", "value"].into_iter().flat_map(|name| batch.column_by_name(name).unwrap().as_struct().columns().to_vec());
            for (number, theirs) in theirs.collect::<Vec<ArrayRef>>().iter().enumerate() {
                let ours = decoded.batch.column(3 + number).slice(row, batch.num_rows());
                prop_assert_eq!(&ours, &arrow::compute::cast(theirs, ours.data_type()).unwrap());
            }
            row += batch.num_rows();
        }
        prop_assert_eq!(row, rows.len());
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let schema = everything();
        for format in TEXT_FORMATS {
            let _ = decode_parts(&schema, format, [&bytes[..]], |_| {});
            let headed = [&b"meta.ts,key.id,key.part,value.settings,value.rows\n"[..], &bytes[..]];
            if let Ok(decoded) = decode_parts(&schema, Format::Csv, headed, |_| {}) {
                prop_assert_eq!(decoded.batch.num_rows() as u64, decoded.counts.rows);
            }
        }
        let (options, _) = options();
        prop_assert!(super::super::parquet(Bytes::from(bytes), Arc::new(schema), options).is_err());
    }

    #[test]
    fn damaged_files_never_panic(
        (schema, rows) in any_rows(7),
        manner in manner(),
        damage in proptest::collection::vec((any::<Index>(), any::<u8>(), 0_u8..4), 1..8),
    ) {
        for format in TEXT_FORMATS {
            let mut bytes = render(&schema, format, &rows, manner).into_bytes();
            for (place, byte, how) in &damage {
                if bytes.is_empty() {
                    break;
                }
                let place = place.index(bytes.len());
                match how {
                    0 => bytes[place] = *byte,
                    1 => drop(bytes.remove(place)),
                    2 => bytes.insert(place, *byte),
                    _ => bytes.truncate(place),
                }
            }
            if let Ok(decoded) = decode_parts(&schema, format, [&bytes[..]], |_| {}) {
                prop_assert_eq!(decoded.batch.num_rows() as u64, decoded.counts.rows);
                prop_assert_eq!(decoded.bad.len() as u64, decoded.counts.bad_rows);
                for column in decoded.batch.columns() {
                    column.to_data().validate_full().unwrap();
                }
            }
        }
    }

    #[test]
    fn bad_rows_leave_no_trace(
        (schema, rows) in any_rows(8),
        manner in manner(),
        broken in proptest::collection::vec(any::<Index>(), 0..6),
        cut in any::<Index>(),
    ) {
        // A truncated line is never a JSON object.
        let text = model::jsonl(&schema, &rows, manner);
        let lines: Vec<&str> = text.lines().collect();
        let mut damaged = Vec::new();
        let mut numbers = Vec::new();
        for (number, line) in lines.iter().enumerate() {
            if broken.iter().any(|index| index.index(lines.len()) == number) {
                let mut end = 1 + cut.index(line.len() - 1);
                while !line.is_char_boundary(end) {
                    end -= 1;
                }
                damaged.push(&line[..end]);
                numbers.push(number as u64 + 1);
            } else {
                damaged.push(line);
            }
        }
        let decoded = decode(&schema, Format::Jsonl, &damaged.join("\n"));
        prop_assert_eq!(decoded.bad.iter().map(|(error, _)| error.line).collect::<Vec<_>>(), numbers.clone());
        let whole = decode(&schema, Format::Jsonl, &text).batch;
        let good: arrow::array::BooleanArray = (1..=rows.len() as u64).map(|number| Some(!numbers.contains(&number))).collect();
        prop_assert_eq!(decoded.batch, arrow::compute::filter_record_batch(&whole, &good).unwrap());
    }
}

/// The field with its time zone as an offset: without a time zone database, arrow-json does not know `UTC`.
fn with_offset(field: &Field) -> Field {
    let kind = match field.data_type() {
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some("+00:00".into())),
        DataType::Struct(members) => DataType::Struct(members.iter().map(|member| with_offset(member)).collect::<Fields>()),
        DataType::List(item) => DataType::List(Arc::new(with_offset(item))),
        kind => kind.clone(),
    };
    Field::new(field.name(), kind, true)
}

fn without_infinities(cell: &mut Cell) {
    match cell {
        Cell::Float(value) if !value.is_finite() => *value = 0.5,
        Cell::Float32(value) if !value.is_finite() => *value = 0.5,
        Cell::Object(cells) | Cell::List(cells) => cells.iter_mut().for_each(without_infinities),
        _ => {}
    }
}

/// Compares numbers by value: 1.0 equals 1.00. serde_json may be off by the last digit of a double.
fn same(value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Number(number) => Value::from(format!("{:.13e}", number.as_f64().unwrap())),
        Value::Array(items) => items.iter().map(same).collect(),
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), same(value))).collect(),
        other => other.clone(),
    }
}
