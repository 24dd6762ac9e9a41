//! Exact bytes of each format for difficult values.

use std::io::Read;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type, TimestampMicrosecondType};
use flate2::read::MultiGzDecoder;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::demo::record::{Cell, Field};
use crate::model::{Op, Timestamp};

fn leaf(name: &str) -> Field {
    Field { name: name.into(), members: vec![] }
}

fn style(format: Format, mode: Mode, incremental: bool) -> Style {
    let layout = Layout {
        key: vec!["id".into()],
        value: vec![
            leaf("text"),
            leaf("amount"),
            Field {
                name: "settings".into(),
                members: vec![leaf("open"), Field { name: "deep".into(), members: vec![leaf("at")] }],
            },
            leaf("tags"),
        ],
    };
    let schema = json!({"properties": {
        "key": {"properties": {"id": {"type": "integer", "format": "int64"}}},
        "value": {"properties": {
            "text": {"type": "string"},
            "amount": {"type": "number", "multipleOf": 0.01, "exclusiveMaximum": 10000, "exclusiveMinimum": -10000},
            "settings": {"type": "object", "properties": {
                "open": {"type": "boolean"},
                "deep": {"type": "object", "properties": {"at": {"type": "string", "format": "date-time"}}}
            }},
            "tags": {"type": "array", "items": {"type": "string"}}
        }}
    }});
    Style { format, mode, incremental, flat: false, layout, schema }
}

fn text(value: &'static str) -> Cell {
    Cell::Text(value.into())
}

fn settings(open: Cell, at: Cell) -> Cell {
    Cell::Object(vec![("open".into(), open), ("deep".into(), Cell::Object(vec![("at".into(), at)]))])
}

const TS: Timestamp = Timestamp::from_micros(1_704_164_645_123_456);

fn rows() -> Vec<Record> {
    let row = |id, value: Vec<Cell>| Record { ts: TS, op: Op::Upsert, key: vec![Cell::Int(id)], value: Some(value) };
    let whole = Timestamp::from_micros(1_704_164_645_000_000);
    vec![
        row(
            1,
            vec![
                text("a\tb\"c\nd\\e,f"),
                Cell::Decimal(-5, 2),
                settings(Cell::Bool(true), Cell::Time(whole)),
                Cell::List(vec![]),
            ],
        ),
        row(2, vec![text(""), Cell::Null, settings(Cell::Null, Cell::Null), Cell::Null]),
        row(
            3,
            vec![
                text("NULL"),
                Cell::Decimal(125_000, 2),
                settings(Cell::Null, Cell::Time(whole)),
                Cell::List(vec![text("x\"\ty"), Cell::Null]),
            ],
        ),
        row(9_007_199_254_740_993, vec![text("\\N"), Cell::Null, Cell::Null, Cell::List(vec![text("😀\u{8}\u{c}\u{b}\r")])]),
        Record { ts: whole, op: Op::Delete, key: vec![Cell::Int(5)], value: None },
    ]
}

fn write(style: &Style, rows: &[Record]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("object");
    let mut object = Object::create(&path, style).unwrap();
    for row in rows {
        object.row(row).unwrap();
    }
    let sum = object.finish().unwrap();
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(sum, Sum { bytes: bytes.len() as u64, crc32: crc32fast::hash(&bytes) });
    bytes
}

fn unpacked(style: &Style, rows: &[Record]) -> String {
    let mut text = String::new();
    MultiGzDecoder::new(write(style, rows).as_slice()).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn jsonl_is_nested_in_both_modes() {
    let expected = concat!(
        r#"{"key":{"id":1},"value":{"text":"a\tb\"c\nd\\e,f","amount":-0.05,"settings":{"open":true,"deep":{"at":"2024-01-02T03:04:05Z"}},"tags":[]},"meta":{"ts":"2024-01-02T03:04:05.123456Z","action":"U"}}"#,
        "\n",
        r#"{"key":{"id":2},"value":{"text":""},"meta":{"ts":"2024-01-02T03:04:05.123456Z","action":"U"}}"#,
        "\n",
        r#"{"key":{"id":3},"value":{"text":"NULL","amount":1250.00,"settings":{"deep":{"at":"2024-01-02T03:04:05Z"}},"tags":["x\"\ty",null]},"meta":{"ts":"2024-01-02T03:04:05.123456Z","action":"U"}}"#,
        "\n",
        r#"{"key":{"id":9007199254740993},"value":{"text":"\\N","tags":["😀\b\f\u000b\r"]},"meta":{"ts":"2024-01-02T03:04:05.123456Z","action":"U"}}"#,
        "\n",
        r#"{"key":{"id":5},"meta":{"ts":"2024-01-02T03:04:05Z","action":"D"}}"#,
        "\n",
    );
    for mode in [Mode::Expanded, Mode::Condensed] {
        assert_eq!(unpacked(&style(Format::Jsonl, mode, true), &rows()), expected);
    }
}

#[test]
fn a_snapshot_has_no_action() {
    let rows = &rows()[1..2];
    assert_eq!(
        unpacked(&style(Format::Jsonl, Mode::Expanded, false), rows),
        "{\"key\":{\"id\":2},\"value\":{\"text\":\"\"},\"meta\":{\"ts\":\"2024-01-02T03:04:05.123456Z\"}}\n"
    );
    assert_eq!(
        unpacked(&style(Format::Tsv, Mode::Condensed, false), rows),
        "meta.ts\tkey.id\tvalue.text\tvalue.amount\tvalue.settings\tvalue.tags\n\
         2024-01-02T03:04:05.123456Z\t2\t\t\\N\t\\N\t\\N\n"
    );
}

#[test]
fn csv_distinguishes_null_from_empty() {
    assert_eq!(
        unpacked(&style(Format::Csv, Mode::Expanded, true), &rows()),
        concat!(
            "meta.ts,meta.action,key.id,value.text,value.amount,value.settings.open,value.settings.deep.at,value.tags\n",
            "2024-01-02T03:04:05.123456Z,U,1,\"a\tb\"\"c\nd\\e,f\",-0.05,true,2024-01-02T03:04:05Z,[]\n",
            "2024-01-02T03:04:05.123456Z,U,2,\"\",,,,\n",
            "2024-01-02T03:04:05.123456Z,U,3,\"NULL\",1250.00,,2024-01-02T03:04:05Z,\"[\"\"x\\\"\"\\ty\"\",null]\"\n",
            "2024-01-02T03:04:05.123456Z,U,9007199254740993,\"\\N\",,,,\"[\"\"😀\\b\\f\\u000b\\r\"\"]\"\n",
            "2024-01-02T03:04:05Z,D,5,,,,,\n",
        )
    );
}

#[test]
fn condensed_csv_has_one_column_per_object() {
    assert_eq!(
        unpacked(&style(Format::Csv, Mode::Condensed, true), &rows()[..2]),
        concat!(
            "meta.ts,meta.action,key.id,value.text,value.amount,value.settings,value.tags\n",
            "2024-01-02T03:04:05.123456Z,U,1,\"a\tb\"\"c\nd\\e,f\",-0.05,",
            "\"{\"\"open\"\":true,\"\"deep\"\":{\"\"at\"\":\"\"2024-01-02T03:04:05Z\"\"}}\",[]\n",
            "2024-01-02T03:04:05.123456Z,U,2,\"\",,,\n",
        )
    );
}

#[test]
fn tsv_escapes_twice_inside_json() {
    assert_eq!(
        unpacked(&style(Format::Tsv, Mode::Condensed, true), &rows()),
        concat!(
            "meta.ts\tmeta.action\tkey.id\tvalue.text\tvalue.amount\tvalue.settings\tvalue.tags\n",
            "2024-01-02T03:04:05.123456Z\tU\t1\ta\\tb\"c\\nd\\\\e,f\t-0.05\t{\"open\":true,\"deep\":{\"at\":\"2024-01-02T03:04:05Z\"}}\t[]\n",
            "2024-01-02T03:04:05.123456Z\tU\t2\t\t\\N\t\\N\t\\N\n",
            "2024-01-02T03:04:05.123456Z\tU\t3\tNULL\t1250.00\t{\"deep\":{\"at\":\"2024-01-02T03:04:05Z\"}}\t[\"x\\\\\"\\\\ty\",null]\n",
            "2024-01-02T03:04:05.123456Z\tU\t9007199254740993\t\\\\N\t\\N\t\\N\t[\"😀\\\\b\\\\f\\\\u000b\\\\r\"]\n",
            "2024-01-02T03:04:05Z\tD\t5\t\\N\t\\N\t\\N\t\\N\n",
        )
    );
    let expanded = unpacked(&style(Format::Tsv, Mode::Expanded, true), &rows());
    assert!(expanded.ends_with("2024-01-02T03:04:05Z\tD\t5\t\\N\t\\N\t\\N\t\\N\t\\N\n"), "{expanded}");
}

fn batch(style: &Style, rows: &[Record]) -> RecordBatch {
    let bytes = bytes::Bytes::from(write(style, rows));
    let mut reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    let batch = reader.next().unwrap().unwrap();
    assert!(reader.next().is_none());
    batch
}

#[test]
fn parquet_has_three_groups() {
    let batch = batch(&style(Format::Parquet, Mode::Expanded, true), &rows());
    assert_eq!(batch.num_rows(), 5);
    let names: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["meta", "key", "value"]);

    let meta = batch.column(0).as_struct();
    let times = meta.column_by_name("ts").unwrap().as_primitive::<TimestampMicrosecondType>();
    assert_eq!((times.value(0), times.timezone()), (TS.micros(), Some("UTC")));
    let actions: Vec<_> = meta.column_by_name("action").unwrap().as_string::<i32>().iter().flatten().collect();
    assert_eq!(actions, ["U", "U", "U", "U", "D"]);
    let ids = batch.column(1).as_struct().column(0).as_primitive::<Int64Type>();
    assert_eq!(ids.values(), &[1, 2, 3, 9_007_199_254_740_993, 5]);

    let value = batch.column(2).as_struct();
    assert_eq!((value.is_null(1), value.is_null(4)), (false, true));
    let text = value.column_by_name("text").unwrap().as_string::<i32>();
    assert_eq!((text.value(0), text.value(1), text.value(2)), ("a\tb\"c\nd\\e,f", "", "NULL"));
    let amount = value.column_by_name("amount").unwrap().as_primitive::<Decimal128Type>();
    assert_eq!(amount.data_type(), &DataType::Decimal128(6, 2));
    assert_eq!((amount.value(0), amount.is_null(1), amount.value(2)), (-5, true, 125_000));
    let settings = value.column_by_name("settings").unwrap().as_struct();
    assert_eq!((settings.is_null(0), settings.is_null(1), settings.is_null(2)), (false, true, false));
    let tags = value.column_by_name("tags").unwrap().as_list::<i32>();
    assert_eq!((tags.value_length(0), tags.is_null(1), tags.value_length(2)), (0, true, 2));
}

#[test]
fn flat_parquet_has_dotted_names() {
    for (mode, expected) in [
        (
            Mode::Expanded,
            vec![
                "meta.ts",
                "key.id",
                "value.text",
                "value.amount",
                "value.settings.open",
                "value.settings.deep.at",
                "value.tags",
            ],
        ),
        (Mode::Condensed, vec!["meta.ts", "key.id", "value.text", "value.amount", "value.settings", "value.tags"]),
    ] {
        let style = Style { flat: true, ..style(Format::Parquet, mode, false) };
        let batch = batch(&style, &rows()[..4]);
        let names: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names, expected);
        let tags = batch.column(names.len() - 1).as_string::<i32>();
        assert_eq!((tags.value(0), tags.is_null(1), tags.value(2)), ("[]", true, r#"["x\"\ty",null]"#));
        if mode == Mode::Condensed {
            let settings = batch.column(4).as_string::<i32>();
            assert_eq!((settings.value(2), settings.is_null(3)), (r#"{"deep":{"at":"2024-01-02T03:04:05Z"}}"#, true));
        } else {
            let at = batch.column(5).as_primitive::<TimestampMicrosecondType>();
            assert_eq!((at.value(0), at.is_null(1), at.value(2)), (1_704_164_645_000_000, true, 1_704_164_645_000_000));
        }
    }
}

#[test]
fn a_cell_of_another_type_is_an_error_in_parquet() {
    let mut row = rows().remove(0);
    row.value = Some(vec![Cell::Int(7), Cell::Null, Cell::Null, Cell::Null]);
    let folder = tempfile::tempdir().unwrap();
    let mut object = Object::create(&folder.path().join("x"), &style(Format::Parquet, Mode::Expanded, false)).unwrap();
    let error = object.row(&row).unwrap_err();
    assert_eq!((error.kind(), error.get("column_type")), (Kind::Bug, Some("Utf8")));
}

/// Fields of a TSV row without its line end; `None` is null.
fn read_tsv(row: &str) -> Vec<Option<String>> {
    let read = |field: &str| {
        let mut text = String::new();
        let mut letters = field.chars();
        while let Some(letter) = letters.next() {
            text.push(match letter {
                '\\' => match letters.next().unwrap() {
                    '0' => '\0',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'v' => '\u{b}',
                    '\\' => '\\',
                    other => panic!("unknown escape {other:?}"),
                },
                plain => plain,
            });
        }
        text
    };
    row.split('\t').map(|field| (field != "\\N").then(|| read(field))).collect()
}

/// Fields of all rows of a CSV file. Empty and `NULL` without quotes are null.
fn read_csv(text: &str) -> Vec<Vec<Option<String>>> {
    let mut rows = vec![Vec::new()];
    let mut letters = text.chars().peekable();
    while letters.peek().is_some() {
        let mut field = String::new();
        let quoted = letters.next_if_eq(&'"').is_some();
        if quoted {
            loop {
                match letters.next().unwrap() {
                    '"' if letters.next_if_eq(&'"').is_none() => break,
                    letter => field.push(letter),
                }
            }
        } else {
            while let Some(letter) = letters.next_if(|letter| !",\n".contains(*letter)) {
                assert!(!"\"\r\t".contains(letter), "must be quoted: {letter:?}");
                field.push(letter);
            }
        }
        let is_null = !quoted && (field.is_empty() || field == "NULL");
        rows.last_mut().unwrap().push((!is_null).then_some(field));
        match letters.next().unwrap() {
            ',' => {}
            '\n' => rows.push(Vec::new()),
            other => panic!("{other:?} behind a field"),
        }
    }
    assert_eq!(rows.pop(), Some(Vec::new()), "the last row ends in a line end");
    rows
}

fn cell_text() -> impl Strategy<Value = Option<String>> {
    let special = prop::sample::select(vec!["", "NULL", "null", "\\N", "\"", "\"\"", ",", "\n", "\r\n", "\0", "\u{b}", " a "]);
    prop_oneof![Just(None), special.prop_map(|text| Some(text.to_owned())), any::<String>().prop_map(Some)]
}

proptest! {
    #[test]
    fn any_string_round_trips(rows in prop::collection::vec(prop::collection::vec(cell_text(), 3), 1..5)) {
        let leaf = |name: &str| Field { name: name.into(), members: vec![] };
        let layout = Layout { key: vec!["id".into()], value: vec![leaf("a"), leaf("b,\""), leaf("c")] };
        let records: Vec<Record> = rows.iter().map(|cells| {
            let cell = |cell: &Option<String>| cell.clone().map_or(Cell::Null, |text| Cell::Text(text.into()));
            Record { ts: TS, op: Op::Upsert, key: vec![Cell::Int(1)], value: Some(cells.iter().map(cell).collect()) }
        }).collect();
        let text = |format| {
            let style = Style { layout: layout.clone(), ..style(format, Mode::Expanded, false) };
            let mut lines = Lines::new(&style).unwrap();
            let mut out = Vec::new();
            lines.header(&mut out);
            records.iter().for_each(|record| lines.row(record, &mut out));
            String::from_utf8(out).unwrap()
        };

        let tsv = text(Format::Tsv);
        let read: Vec<_> = tsv.strip_suffix('\n').unwrap().split('\n').skip(1).map(|row| read_tsv(row)[2..].to_vec()).collect();
        prop_assert_eq!(&read, &rows);

        let csv = read_csv(&text(Format::Csv));
        prop_assert_eq!(csv[0][3].as_deref(), Some("value.b,\""));
        let read: Vec<_> = csv[1..].iter().map(|row| row[2..].to_vec()).collect();
        prop_assert_eq!(&read, &rows);

        for (line, row) in text(Format::Jsonl).strip_suffix('\n').unwrap().split('\n').zip(&rows) {
            let value = &serde_json::from_str::<Value>(line).unwrap()["value"];
            let read: Vec<_> = ["a", "b,\"", "c"].iter().map(|name| value.get(name).map(|text| text.as_str().unwrap().to_owned())).collect();
            prop_assert_eq!(&read, row);
        }
    }
}
