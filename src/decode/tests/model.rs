//! Random typed rows, writers of each format and mode, and the arrays that must be decoded from them. Shares no code with the decoders.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array,
    ListArray, StringArray, StructArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields};
use arrow::record_batch::RecordBatch;
use chrono::{DateTime, Duration, NaiveDate};
use proptest::prelude::*;

use crate::schema::{Column, ColumnType, ELEMENT, Nested, TableSchema, arrow_type, change_schema};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Null,
    Bool(bool),
    Int(i64),
    Float32(f32),
    Float(f64),
    Decimal(i128, u32),
    Text(String),
    /// JSON text that is written as a JSON value in JSONL.
    Json(String),
    Moment(i64),
    Day(i32),
    Object(Vec<Cell>),
    List(Vec<Cell>),
}

#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) ts: i64,
    pub(super) delete: bool,
    pub(super) key: Vec<Cell>,
    /// All null for a delete.
    pub(super) value: Vec<Cell>,
}

// ---- random rows

pub(super) fn rows(schema: &TableSchema, most: usize) -> BoxedStrategy<Vec<Row>> {
    let key: Vec<_> = schema.key.iter().map(|column| some(&column.column_type)).collect();
    let value: Vec<_> = schema.value.iter().map(|column| cell(&column.column_type)).collect();
    let nulls = vec![Cell::Null; value.len()];
    let row = (moment(), prop::bool::weighted(0.15), key, value).prop_map(move |(ts, delete, key, value)| {
        let value = if delete { nulls.clone() } else { value };
        Row { ts, delete, key, value }
    });
    proptest::collection::vec(row, 0..most).boxed()
}

fn cell(column_type: &ColumnType) -> BoxedStrategy<Cell> {
    prop_oneof![3 => some(column_type), 1 => Just(Cell::Null)].boxed()
}

fn moment() -> BoxedStrategy<i64> {
    let years_1_to_9999 = -62_135_596_800_000_000_i64..253_402_300_800_000_000;
    prop_oneof![
        3 => (1_500_000_000_i64..1_800_000_000).prop_map(|seconds| seconds * 1_000_000),
        1 => (1_500_000_000_000_i64..1_800_000_000_000).prop_map(|millis| millis * 1000),
        1 => years_1_to_9999,
    ]
    .boxed()
}

fn text() -> BoxedStrategy<String> {
    let odd = [
        "",
        "NULL",
        "\\N",
        "null",
        "true",
        "12",
        " ",
        "a,b",
        "\"",
        "a\"\"b",
        "x\ty",
        "line\nline",
        "cr\r",
        "\r\n",
        "\\",
        "\\t",
        "\0",
    ];
    prop_oneof![
        4 => "[a-zA-Z0-9 _.,;:/-]{0,40}",
        2 => proptest::sample::select(odd.to_vec()).prop_map(str::to_owned),
        1 => Just("__dap_oversized_truncated__".to_owned()),
        1 => any::<String>(),
        1 => "[a-z\\\\\"\u{e4}\u{20ac}\u{1f600}\t\n]{60,150}",
    ]
    .boxed()
}

/// A value that is not null.
fn some(column_type: &ColumnType) -> BoxedStrategy<Cell> {
    match column_type {
        ColumnType::Boolean => any::<bool>().prop_map(Cell::Bool).boxed(),
        ColumnType::Int16 => any::<i16>().prop_map(|value| Cell::Int(value.into())).boxed(),
        ColumnType::Int32 => any::<i32>().prop_map(|value| Cell::Int(value.into())).boxed(),
        ColumnType::Int64 => prop_oneof![any::<i64>(), 0_i64..100_000].prop_map(Cell::Int).boxed(),
        ColumnType::Float32 => any::<f32>().prop_map(Cell::Float32).boxed(),
        ColumnType::Float64 => prop_oneof![
            any::<f64>(),
            (-1000_i32..1000).prop_map(|value| f64::from(value) / 4.0),
            proptest::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0])
        ]
        .prop_map(Cell::Float)
        .boxed(),
        ColumnType::Decimal { precision, scale } => {
            let limit = 10_i128.pow((*precision).into());
            let scale = u32::from(scale.unsigned_abs());
            prop_oneof![-limit + 1..limit, -999_i128..1000].prop_map(move |value| Cell::Decimal(value % limit, scale)).boxed()
        }
        ColumnType::Text { .. } | ColumnType::Enum { .. } => text().prop_map(Cell::Text).boxed(),
        ColumnType::Timestamp => moment().prop_map(Cell::Moment).boxed(),
        ColumnType::Date => (-719_162..2_932_897_i32).prop_map(Cell::Day).boxed(),
        ColumnType::Time => "[0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z".prop_map(Cell::Text).boxed(),
        ColumnType::Uuid => any::<u128>().prop_map(|bits| Cell::Text(uuid::Uuid::from_u128(bits).to_string())).boxed(),
        ColumnType::Ip { .. } => any::<std::net::IpAddr>().prop_map(|ip| Cell::Text(ip.to_string())).boxed(),
        ColumnType::Json => {
            let texts = [r#"{"a":[1,2.50,{"b":null}],"c":"x\ty"}"#, "[]", r#"{"q":"\"\\\u00e4 ,"}"#, "[ 1 , true ]", "{}"];
            proptest::sample::select(texts.to_vec()).prop_map(|text| Cell::Json(text.to_owned())).boxed()
        }
        ColumnType::Struct(members) => {
            let members: Vec<_> = members.iter().map(|member| cell(&member.column_type)).collect();
            // An object without values is null.
            let null_if_empty = |members: Vec<Cell>| {
                if members.iter().all(|member| *member == Cell::Null) { Cell::Null } else { Cell::Object(members) }
            };
            members.prop_map(null_if_empty).boxed()
        }
        ColumnType::List(item) => proptest::collection::vec(cell(item), 0..4).prop_map(Cell::List).boxed(),
    }
}

// ---- expected arrays

pub(super) fn batch(schema: &TableSchema, rows: &[Row], object_number: u64) -> RecordBatch {
    let actions: Vec<&str> = rows.iter().map(|row| if row.delete { "D" } else { "U" }).collect();
    let ts: Vec<i64> = rows.iter().map(|row| row.ts).collect();
    let seq: Vec<u64> = (1..=rows.len() as u64).map(|number| object_number << 40 | number).collect();
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(actions)),
        Arc::new(TimestampMicrosecondArray::from(ts).with_timezone("UTC")),
        Arc::new(UInt64Array::from(seq)),
    ];
    for (number, column) in schema.key.iter().enumerate() {
        columns.push(array(&column.column_type, &rows.iter().map(|row| row.key[number].clone()).collect::<Vec<_>>()));
    }
    for (number, column) in schema.value.iter().enumerate() {
        columns.push(array(&column.column_type, &rows.iter().map(|row| row.value[number].clone()).collect::<Vec<_>>()));
    }
    RecordBatch::try_new(change_schema(schema, Nested::Typed), columns).unwrap()
}

/// The cells as an array of the column's type.
pub(super) fn array(column_type: &ColumnType, cells: &[Cell]) -> ArrayRef {
    fn each<T>(cells: &[Cell], pick: impl Fn(&Cell) -> T) -> Vec<Option<T>> {
        cells.iter().map(|cell| (*cell != Cell::Null).then(|| pick(cell))).collect()
    }
    let int = |cell: &Cell| match cell {
        Cell::Int(value) => *value,
        other => panic!("{other:?}"),
    };
    match column_type {
        ColumnType::Boolean => Arc::new(BooleanArray::from(each(cells, |cell| *cell == Cell::Bool(true)))),
        ColumnType::Int16 => Arc::new(Int16Array::from(each(cells, |cell| int(cell) as i16))),
        ColumnType::Int32 => Arc::new(Int32Array::from(each(cells, |cell| int(cell) as i32))),
        ColumnType::Int64 => Arc::new(Int64Array::from(each(cells, int))),
        ColumnType::Float32 => Arc::new(Float32Array::from(each(cells, |cell| match cell {
            Cell::Float32(value) => *value,
            other => panic!("{other:?}"),
        }))),
        ColumnType::Float64 => Arc::new(Float64Array::from(each(cells, |cell| match cell {
            Cell::Float(value) => *value,
            other => panic!("{other:?}"),
        }))),
        ColumnType::Decimal { precision, scale } => {
            let values = each(cells, |cell| match cell {
                Cell::Decimal(value, _) => *value,
                other => panic!("{other:?}"),
            });
            Arc::new(Decimal128Array::from(values).with_precision_and_scale(*precision, *scale).unwrap())
        }
        ColumnType::Timestamp => {
            let values = each(cells, |cell| match cell {
                Cell::Moment(value) => *value,
                other => panic!("{other:?}"),
            });
            Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
        }
        ColumnType::Date => Arc::new(Date32Array::from(each(cells, |cell| match cell {
            Cell::Day(value) => *value,
            other => panic!("{other:?}"),
        }))),
        ColumnType::Struct(members) => {
            let DataType::Struct(fields) = arrow_type(column_type, Nested::Typed) else { panic!() };
            let columns = members.iter().enumerate().map(|(number, member)| {
                let cells: Vec<Cell> = cells
                    .iter()
                    .map(|cell| match cell {
                        Cell::Object(members) => members[number].clone(),
                        _ => Cell::Null,
                    })
                    .collect();
                array(&member.column_type, &cells)
            });
            let valid: NullBuffer = cells.iter().map(|cell| *cell != Cell::Null).collect();
            Arc::new(StructArray::try_new_with_length(fields, columns.collect(), Some(valid), cells.len()).unwrap())
        }
        ColumnType::List(item) => {
            let lists: Vec<&[Cell]> = cells
                .iter()
                .map(|cell| match cell {
                    Cell::List(items) => items.as_slice(),
                    _ => &[],
                })
                .collect();
            let items = array(item, &lists.concat());
            let field = Arc::new(Field::new(ELEMENT, items.data_type().clone(), true));
            let valid: NullBuffer = cells.iter().map(|cell| *cell != Cell::Null).collect();
            Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lists.iter().map(|list| list.len())), items, Some(valid)))
        }
        _ => Arc::new(StringArray::from(each(cells, |cell| match cell {
            Cell::Text(text) | Cell::Json(text) => text.clone(),
            other => panic!("{other:?}"),
        }))),
    }
}

// ---- text of the formats

/// Variations of the output that must not change the result.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// Columns and members in reverse order.
    pub(super) reversed: bool,
    /// Nulls are written rather than omitted (JSON), `NULL` rather than nothing (CSV).
    pub(super) explicit_nulls: bool,
    /// Blanks between JSON tokens; quotes around every CSV field; \r\n.
    pub(super) wordy: bool,
    /// Members and columns that are not in the schema.
    pub(super) strangers: bool,
    /// One column per leaf.
    pub(super) expanded: bool,
    /// The last line has a line end.
    pub(super) last_line_end: bool,
}

pub(super) fn manner() -> impl Strategy<Value = Manner> {
    any::<[bool; 6]>().prop_map(|[reversed, explicit_nulls, wordy, strangers, expanded, last_line_end]| Manner {
        reversed,
        explicit_nulls,
        wordy,
        strangers,
        expanded,
        last_line_end,
    })
}

fn show_moment(micros: i64) -> String {
    let time = DateTime::from_timestamp_micros(micros).unwrap();
    let fraction = if micros % 1_000_000 == 0 { "" } else { "%.6f" };
    time.format(&format!("%Y-%m-%dT%H:%M:%S{fraction}Z")).to_string()
}

fn show_day(days: i32) -> String {
    (NaiveDate::from_ymd_opt(1970, 1, 1).unwrap() + Duration::days(days.into())).to_string()
}

fn show_decimal(value: i128, scale: u32) -> String {
    let power = 10_u128.pow(scale);
    let sign = if value < 0 { "-" } else { "" };
    let (whole, fraction) = (value.unsigned_abs() / power, value.unsigned_abs() % power);
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction:0width$}", width = scale as usize) }
}

fn show_float(text: String) -> String {
    text.replace("inf", "Infinity")
}

/// JSON of a cell; nulls inside objects by `manner`.
pub(super) fn json(column_type: &ColumnType, cell: &Cell, manner: Manner) -> String {
    let string = |text: &str| serde_json::to_string(text).unwrap();
    match cell {
        Cell::Null => "null".to_owned(),
        Cell::Bool(value) => value.to_string(),
        Cell::Int(value) => value.to_string(),
        Cell::Float32(value) if value.is_finite() => value.to_string(),
        Cell::Float32(value) => string(&show_float(value.to_string())),
        Cell::Float(value) if value.is_finite() => value.to_string(),
        Cell::Float(value) => string(&show_float(value.to_string())),
        Cell::Decimal(value, scale) => show_decimal(*value, *scale),
        Cell::Text(text) => string(text),
        Cell::Json(text) => text.clone(),
        Cell::Moment(micros) => string(&show_moment(*micros)),
        Cell::Day(days) => string(&show_day(*days)),
        Cell::Object(cells) => {
            let ColumnType::Struct(members) = column_type else { panic!() };
            object(members, cells, manner)
        }
        Cell::List(cells) => {
            let ColumnType::List(item) = column_type else { panic!() };
            let items: Vec<String> = cells.iter().map(|cell| json(item, cell, manner)).collect();
            format!("[{}]", items.join(if manner.wordy { " , " } else { "," }))
        }
    }
}

fn object(columns: &[Column], cells: &[Cell], manner: Manner) -> String {
    let mut members: Vec<String> = columns
        .iter()
        .zip(cells)
        .filter(|(_, cell)| **cell != Cell::Null || manner.explicit_nulls)
        .map(|(column, cell)| {
            let colon = if manner.wordy { " : " } else { ":" };
            format!("{}{colon}{}", serde_json::to_string(&column.name).unwrap(), json(&column.column_type, cell, manner))
        })
        .collect();
    if manner.strangers {
        members.insert(members.len() / 2, r#""stranger":{"a":[1,{"b":"}\"]"}],"name":null}"#.to_owned());
    }
    if manner.reversed {
        members.reverse();
    }
    let separator = if manner.wordy { " ,\t" } else { "," };
    format!("{{{}}}", members.join(separator))
}

pub(super) fn jsonl(schema: &TableSchema, rows: &[Row], manner: Manner) -> String {
    let mut lines: Vec<String> = Vec::new();
    for row in rows {
        let mut groups = vec![format!("\"key\":{}", object(&schema.key, &row.key, manner))];
        if !row.delete {
            groups.push(format!("\"value\":{}", object(&schema.value, &row.value, manner)));
        } else if manner.explicit_nulls {
            groups.push("\"value\":null".to_owned());
        }
        let action = if row.delete { ",\"action\":\"D\"" } else { ",\"action\":\"U\"" };
        groups.push(format!("\"meta\":{{\"ts\":\"{}\"{action}}}", show_moment(row.ts)));
        if manner.reversed {
            groups.reverse();
        }
        lines.push(format!("{{{}}}", groups.join(",")));
    }
    finish(lines, manner)
}

fn finish(lines: Vec<String>, manner: Manner) -> String {
    let end = if manner.wordy { "\r\n" } else { "\n" };
    let mut text = lines.join(end);
    if manner.last_line_end && !lines.is_empty() {
        text.push_str(end);
    }
    text
}

/// A column of a CSV or TSV file: its name and the text of each row, `None` for null.
struct Leaf {
    name: String,
    cells: Vec<Option<String>>,
}

fn spread(name: String, column_type: &ColumnType, cells: Vec<Cell>, manner: Manner, leaves: &mut Vec<Leaf>) {
    if let (ColumnType::Struct(members), true) = (column_type, manner.expanded) {
        for (number, member) in members.iter().enumerate() {
            let cells = cells.iter().map(|cell| match cell {
                Cell::Object(members) => members[number].clone(),
                _ => Cell::Null,
            });
            spread(format!("{name}.{}", member.name), &member.column_type, cells.collect(), manner, leaves);
        }
        return;
    }
    let plain = |cell: &Cell| match cell {
        Cell::Text(text) | Cell::Json(text) => text.clone(),
        Cell::Moment(micros) => show_moment(*micros),
        Cell::Day(days) => show_day(*days),
        Cell::Float(value) => show_float(value.to_string()),
        Cell::Float32(value) => show_float(value.to_string()),
        other => json(column_type, other, manner),
    };
    let cells = cells.iter().map(|cell| (*cell != Cell::Null).then(|| plain(cell))).collect();
    leaves.push(Leaf { name, cells });
}

fn leaves(schema: &TableSchema, rows: &[Row], manner: Manner) -> Vec<Leaf> {
    let mut leaves = vec![
        Leaf { name: "meta.ts".to_owned(), cells: rows.iter().map(|row| Some(show_moment(row.ts))).collect() },
        Leaf {
            name: "meta.action".to_owned(),
            cells: rows.iter().map(|row| Some(if row.delete { "D" } else { "U" }.to_owned())).collect(),
        },
    ];
    for (number, column) in schema.key.iter().enumerate() {
        let cells = rows.iter().map(|row| row.key[number].clone()).collect();
        spread(format!("key.{}", column.name), &column.column_type, cells, manner, &mut leaves);
    }
    for (number, column) in schema.value.iter().enumerate() {
        let cells = rows.iter().map(|row| row.value[number].clone()).collect();
        spread(format!("value.{}", column.name), &column.column_type, cells, manner, &mut leaves);
    }
    if manner.strangers {
        leaves.insert(1, Leaf { name: "value.stranger".to_owned(), cells: vec![Some("x,\"\n\\t".to_owned()); rows.len()] });
    }
    if manner.reversed {
        leaves.reverse();
    }
    leaves
}

fn table(leaves: &[Leaf], rows: usize, separator: &str, manner: Manner, show: impl Fn(Option<&str>) -> String) -> String {
    let line = |fields: Vec<String>| fields.join(separator);
    let mut lines = vec![line(leaves.iter().map(|leaf| leaf.name.clone()).collect())];
    lines.extend((0..rows).map(|row| line(leaves.iter().map(|leaf| show(leaf.cells[row].as_deref())).collect())));
    finish(lines, manner)
}

pub(super) fn csv(schema: &TableSchema, rows: &[Row], manner: Manner) -> String {
    table(&leaves(schema, rows, manner), rows.len(), ",", manner, |cell| match cell {
        None if manner.explicit_nulls => "NULL".to_owned(),
        None => String::new(),
        Some(text) => {
            let special = matches!(text, "" | "NULL" | "\\N") || text.contains(['"', ',', '\r', '\n', '\t']);
            if special || manner.wordy { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
        }
    })
}

pub(super) fn tsv(schema: &TableSchema, rows: &[Row], manner: Manner) -> String {
    table(&leaves(schema, rows, manner), rows.len(), "\t", manner, |cell| {
        let Some(text) = cell else { return "\\N".to_owned() };
        let mut shown = String::new();
        for character in text.chars() {
            match character {
                '\\' => shown.push_str("\\\\"),
                '\0' => shown.push_str("\\0"),
                '\u{8}' => shown.push_str("\\b"),
                '\u{c}' => shown.push_str("\\f"),
                '\n' => shown.push_str("\\n"),
                '\r' => shown.push_str("\\r"),
                '\t' => shown.push_str("\\t"),
                '\u{b}' => shown.push_str("\\v"),
                other => shown.write_char(other).unwrap(),
            }
        }
        shown
    })
}

// ---- Parquet

/// The batch of a Parquet file with these rows: groups as structs or as dotted names; objects as structs, as one column per leaf (dotted
/// names only) or as JSON text.
pub(super) fn parquet_batch(schema: &TableSchema, rows: &[Row], groups: bool, manner: Manner) -> RecordBatch {
    let mut flat: Vec<(String, ArrayRef)> = vec![
        ("meta.ts".to_owned(), array(&ColumnType::Timestamp, &rows.iter().map(|row| Cell::Moment(row.ts)).collect::<Vec<_>>())),
        (
            "meta.action".to_owned(),
            Arc::new(StringArray::from(rows.iter().map(|row| row.delete.then_some("D")).collect::<Vec<_>>())),
        ),
    ];
    let parts = [("key", &schema.key, true), ("value", &schema.value, false)];
    for (group, columns, is_key) in parts {
        for (number, column) in columns.iter().enumerate() {
            let cells = rows.iter().map(|row| if is_key { &row.key[number] } else { &row.value[number] }).cloned().collect();
            flatten(format!("{group}.{}", column.name), &column.column_type, cells, groups, manner, &mut flat);
        }
    }
    if manner.strangers {
        flat.push(("value.stranger".to_owned(), Arc::new(Int64Array::from(vec![Some(1); rows.len()]))));
    }
    if manner.reversed {
        flat.reverse();
    }
    if !groups {
        return RecordBatch::try_from_iter_with_nullable(flat.into_iter().map(|(name, array)| (name, array, true))).unwrap();
    }
    let nested = ["key", "value", "meta"].map(|group| {
        let members = flat.iter().filter_map(|(name, array)| Some((name.strip_prefix(group)?.strip_prefix('.')?, array)));
        let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) =
            members.map(|(name, array)| (Field::new(name, array.data_type().clone(), true), array.clone())).unzip();
        let valid: NullBuffer = rows.iter().map(|row| group != "value" || !row.delete).collect();
        let array = StructArray::try_new_with_length(Fields::from(fields), arrays, Some(valid), rows.len()).unwrap();
        (group, Arc::new(array) as ArrayRef, true)
    });
    RecordBatch::try_from_iter_with_nullable(nested).unwrap()
}

fn flatten(
    name: String,
    column_type: &ColumnType,
    cells: Vec<Cell>,
    groups: bool,
    manner: Manner,
    flat: &mut Vec<(String, ArrayRef)>,
) {
    match column_type {
        ColumnType::Struct(members) if manner.expanded && !groups => {
            for (number, member) in members.iter().enumerate() {
                let cells = cells.iter().map(|cell| match cell {
                    Cell::Object(members) => members[number].clone(),
                    _ => Cell::Null,
                });
                flatten(format!("{name}.{}", member.name), &member.column_type, cells.collect(), groups, manner, flat);
            }
        }
        ColumnType::Struct(_) | ColumnType::List(_) if !manner.expanded => {
            let texts = cells.iter().map(|cell| (*cell != Cell::Null).then(|| json(column_type, cell, manner)));
            flat.push((name, Arc::new(StringArray::from(texts.collect::<Vec<_>>()))));
        }
        _ => flat.push((name, array(column_type, &cells))),
    }
}
