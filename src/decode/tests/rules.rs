//! The rules of decoding, with hand-written rows.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float64Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt64Type,
};
use serde_json::json;

use super::*;
use crate::error::Kind;
use crate::schema::tests::{everything, fixture, table};

/// A table with a key, a number and a text.
pub(super) fn small() -> TableSchema {
    table(json!({"id": {"type": "integer"}}), json!({"n": {"type": "integer", "format": "int32"}, "t": {"type": "string"}}))
}

/// A table with one value column `c`.
fn with(node: serde_json::Value) -> TableSchema {
    table(json!({"id": {"type": "integer"}}), json!({"c": node}))
}

const META: &str = r#""meta":{"ts":"2024-01-01T00:00:00Z"}"#;

fn line(value: &str) -> String {
    format!("{{\"key\":{{\"id\":1}},\"value\":{{\"c\":{value}}},{META}}}\n")
}

pub(super) fn texts(array: &ArrayRef) -> Vec<Option<&str>> {
    array.as_string::<i32>().iter().collect()
}

/// The column `c` of JSONL lines with these values, and the reasons of unreadable rows.
fn values(schema: &TableSchema, values: &[&str]) -> (ArrayRef, Vec<String>) {
    let decoded = decode(schema, Format::Jsonl, &values.iter().map(|value| line(value)).collect::<String>());
    let reasons = decoded.bad.iter().map(|(error, _)| format!("{}: {}", error.column.as_deref().unwrap_or("-"), error.reason));
    (decoded.batch.column_by_name("c").unwrap().clone(), reasons.collect())
}

/// The column `c` of a CSV or TSV file with these cells.
fn cells(schema: &TableSchema, format: Format, cells: &[&str]) -> (ArrayRef, Vec<String>) {
    let separator = if format == Format::Csv { "," } else { "\t" };
    let mut text = ["meta.ts", "key.id", "value.c"].join(separator) + "\n";
    for cell in cells {
        text += &(["2024-01-01T00:00:00Z", "1", cell].join(separator) + "\n");
    }
    let decoded = decode(schema, format, &text);
    let reasons = decoded.bad.iter().map(|(error, _)| format!("{}: {}", error.column.as_deref().unwrap_or("-"), error.reason));
    (decoded.batch.column_by_name("c").unwrap().clone(), reasons.collect())
}

#[test]
fn own_columns() {
    let text = concat!(
        r#"{"key":{"id":5},"value":{"n":1},"meta":{"ts":"2024-01-01T00:00:00.5Z","action":"U"}}"#,
        "\n",
        "\n  \t\n",
        r#"{"meta":{"action":"D","ts":"2024-01-01T01:00:00+01:00"},"key":{"id":6}}"#,
        "\n",
        r#"{"key":{"id":7},"value":{},"meta":{"ts":"2024-01-01T00:00:00.1234567Z"}}"#,
    );
    let decoded = decode(&small(), Format::Jsonl, text);
    assert_eq!(texts(decoded.batch.column(0)), [Some("U"), Some("D"), Some("U")]);
    let new_year = 1_704_067_200_000_000;
    let ts = decoded.batch.column(1).as_primitive::<TimestampMicrosecondType>();
    assert_eq!(ts.values(), &[new_year + 500_000, new_year, new_year + 123_456]);
    let seq = decoded.batch.column(2).as_primitive::<UInt64Type>();
    assert_eq!(seq.values(), &[3 << 40 | 1, 3 << 40 | 2, 3 << 40 | 3]);
    let counts = DecodeCounts { rows: 3, deletes: 1, cut_fractions: 1, ..DecodeCounts::default() };
    assert_eq!(decoded.counts, counts);
    assert_eq!(decoded.bad, []);
}

#[test]
fn an_upsert_of_nulls_is_not_a_delete() {
    for value in [r#""value":{},"#, r#""value":{"n":null},"#, r#""value":null,"value":{},"#] {
        let decoded = decode(&small(), Format::Jsonl, &format!("{{\"key\":{{\"id\":1}},{value}{META}}}"));
        assert_eq!((decoded.counts.rows, decoded.counts.deletes), (1, 0));
        assert!(decoded.batch.column_by_name("n").unwrap().is_null(0));
    }
}

#[test]
fn an_upsert_without_values_is_unreadable_if_the_table_has_value_columns() {
    let only_key = table(json!({"id": {"type": "integer"}}), json!({}));
    for value in ["", r#""value":null,"#, r#""value":{"n":1},"value":null,"#] {
        let text = format!("{{\"key\":{{\"id\":1}},{value}{META}}}");
        let decoded = decode(&small(), Format::Jsonl, &text);
        let (error, raw) = &decoded.bad[0];
        assert_eq!((error.column.as_deref(), error.reason.as_str()), (Some("value"), "an upsert without values"));
        assert_eq!((raw.as_slice(), decoded.counts.rows, decoded.counts.bad_rows), (text.as_bytes(), 0, 1));
        assert_eq!(decode(&only_key, Format::Jsonl, &text).counts.rows, 1);
    }
    // In CSV and TSV, the header shows it.
    for (format, separator) in [(Format::Csv, ","), (Format::Tsv, "\t")] {
        let lines =
            [["meta.ts", "meta.action", "key.id"], ["2024-01-01T00:00:00Z", "U", "1"], ["2024-01-01T00:00:00Z", "D", "2"]];
        let text = lines.map(|line| line.join(separator)).join("\n");
        let decoded = decode(&small(), format, &text);
        assert_eq!((decoded.counts.rows, decoded.counts.deletes, decoded.counts.bad_rows), (1, 1, 1), "{format}");
        assert_eq!(decode(&only_key, format, &text).counts.rows, 2);
    }
}

#[test]
fn times_outside_the_years_1_to_9999_fail_or_become_null() {
    let schema = table(
        json!({"id": {"type": "integer"}}),
        json!({
            "at": {"type": "string", "format": "date-time"},
            "on": {"type": "string", "format": "date"},
            "o": {"type": "object", "properties": {"at": {"type": "string", "format": "date-time"}}},
            "t": {"type": "string"}
        }),
    );
    let files = [
        (
            Format::Jsonl,
            r#"{"key":{"id":7},"value":{"at":"12025-01-01T00:00:00Z","on":"0000-01-01","o":{"at":"-0001-01-01T00:00:00Z"},"t":"x"},"meta":{"ts":"2024-01-01T00:00:00Z"}}"#,
        ),
        (
            Format::Tsv,
            "meta.ts\tkey.id\tvalue.at\tvalue.on\tvalue.o\tvalue.t\n2024-01-01T00:00:00Z\t7\t12025-01-01T00:00:00Z\t0000-01-01\t{\"at\":\"-0001-01-01T00:00:00Z\"}\tx\n",
        ),
        (
            Format::Csv,
            "meta.ts,key.id,value.at,value.on,value.o.at,value.t\n2024-01-01T00:00:00Z,7,12025-01-01T00:00:00Z,0000-01-01,-0001-01-01T00:00:00Z,x\n",
        ),
    ];
    for (format, text) in files {
        let error = failure(&schema, format, text);
        assert_eq!(
            (error.get("reason"), error.get("column"), error.get("key")),
            (Some("a year beyond 9999"), Some("value.at"), Some("id=7"))
        );
        assert!(error.hint_text().unwrap().contains("--out-of-range-times null"));
        let decoded =
            decode_parts(&schema, format, [text.as_bytes()], |options| options.out_of_range = OutOfRange::Null).unwrap();
        assert_eq!((decoded.counts.rows, decoded.counts.nulled_times, decoded.bad.len()), (1, 3, 0), "{format}");
        for column in ["at", "on", "o"] {
            assert!(decoded.batch.column_by_name(column).unwrap().is_null(0), "{format} {column}");
        }
        assert_eq!(texts(decoded.batch.column_by_name("t").unwrap()), [Some("x")]);
    }
    // Commit times and keys never become null.
    let text = r#"{"key":{"id":7},"value":{},"meta":{"ts":"12024-01-01T00:00:00Z"}}"#;
    let decoded =
        decode_parts(&schema, Format::Jsonl, [text.as_bytes()], |options| options.out_of_range = OutOfRange::Null).unwrap();
    assert_eq!(decoded.bad[0].0.reason, "a year beyond 9999");
}

#[test]
fn errors_contain_the_key_unless_it_is_hashed() {
    let text = format!("{{\"key\":{{\"id\":5}},\"value\":{{\"n\":\"x\"}},{META}}}");
    assert_eq!(failure(&small(), Format::Jsonl, &text).get("key"), Some("id=5"));
    let change = |options: &mut DecodeOptions| (options.bad_rows, options.names_keys) = (BadRows::Fail, false);
    let error = decode_parts(&small(), Format::Jsonl, [text.as_bytes()], change).unwrap_err();
    assert_eq!((error.get("column"), error.get("key")), (Some("value.n"), None));
}

#[test]
fn errors_contain_the_start_of_a_long_key() {
    let schema = table(json!({"id": {"type": "string"}}), json!({"n": {"type": "integer"}}));
    let text = format!("{{\"key\":{{\"id\":\"{}\"}},\"value\":{{\"n\":\"x\"}},{META}}}", "\u{e4}".repeat(6000));
    assert_eq!(failure(&schema, Format::Jsonl, &text).get("key"), Some(format!("id={}...", "\u{e4}".repeat(64)).as_str()));
}

#[test]
fn the_values_of_a_delete_are_ignored() {
    let jsonl = concat!(
        r#"{"key":{"id":1},"value":{"n":1,"t":"x"},"meta":{"ts":"2024-01-01T00:00:00Z","action":"D"}}"#,
        "\n",
        r#"{"meta":{"ts":"2024-01-01T00:00:00Z","action":"D"},"key":{"id":1},"value":{"n":"junk"}}"#,
        "\n",
        r#"{"key":{"id":2},"value":{"n":2,"t":"y"},"meta":{"ts":"2024-01-01T00:00:00Z","action":"U"}}"#,
    );
    let csv = "value.n,meta.ts,meta.action,key.id,value.t\n1,2024-01-01T00:00:00Z,D,1,x\n,2024-01-01T00:00:00Z,D,1,\n\
               2,2024-01-01T00:00:00Z,U,2,y\n";
    let tsv = "meta.action\tmeta.ts\tkey.id\tvalue.n\tvalue.t\nD\t2024-01-01T00:00:00Z\t1\tjunk\t\\N\nD\t2024-01-01T00:00:00Z\t1\t\t\n\
               U\t2024-01-01T00:00:00Z\t2\t2\ty\n";
    for (format, text) in [(Format::Jsonl, jsonl), (Format::Csv, csv), (Format::Tsv, tsv)] {
        let decoded = decode(&small(), format, text);
        assert_eq!(decoded.bad, [], "{format}");
        assert_eq!(texts(decoded.batch.column(0)), [Some("D"), Some("D"), Some("U")]);
        assert_eq!(texts(decoded.batch.column_by_name("t").unwrap()), [None, None, Some("y")]);
        let numbers: Vec<_> = decoded.batch.column_by_name("n").unwrap().as_primitive::<Int32Type>().iter().collect();
        assert_eq!(numbers, [None, None, Some(2)]);
    }
}

#[test]
fn rows_without_key_time_or_known_action_are_unreadable() {
    let meta = r#""meta":{"ts":"2024-01-01T00:00:00Z"}"#;
    for (text, column, reason) in [
        (format!("{{{meta}}}"), Some("key.id"), "the key is missing or null"),
        (format!("{{\"key\":null,{meta}}}"), Some("key.id"), "the key is missing or null"),
        (format!("{{\"key\":{{}},{meta}}}"), Some("key.id"), "the key is missing or null"),
        (format!("{{\"key\":{{\"id\":null}},{meta}}}"), Some("key.id"), "the key is missing or null"),
        (format!("{{\"key\":{{\"id\":1,\"id\":null}},{meta}}}"), Some("key.id"), "the key is missing or null"),
        (format!("{{\"key\":{{\"id\":null,\"id\":1}},{meta}}}"), Some("key.id"), "the key is missing or null"),
        (format!("{{\"key\":{{\"id\":1,\"id\":1}},{meta}}}"), Some("key.id"), "the key is given twice"),
        (format!("{{\"key\":{{\"id\":1}},\"key\":{{\"id\":1}},{meta}}}"), Some("key"), "the key is given twice"),
        (format!("{{\"key\":5,{meta}}}"), Some("key"), "not an object"),
        (r#"{"key":{"id":1}}"#.into(), Some("meta.ts"), "the commit time is missing or null"),
        (r#"{"key":{"id":1},"meta":null}"#.into(), Some("meta.ts"), "the commit time is missing or null"),
        (r#"{"key":{"id":1},"meta":{"ts":null}}"#.into(), Some("meta.ts"), "the commit time is missing or null"),
        (r#"{"key":{"id":1},"meta":{"ts":"soon"}}"#.into(), Some("meta.ts"), "not a time"),
        (
            r#"{"key":{"id":1},"meta":{"ts":"2024-01-01T00:00:00Z","action":"X"}}"#.into(),
            Some("meta.action"),
            "neither U nor D",
        ),
        (r#"{"key":{"id":1},"meta":{"ts":"2024-01-01T00:00:00Z","action":1}}"#.into(), Some("meta.action"), "not a string"),
        (
            format!("{{\"key\":{{\"id\":1}},\"meta\":{{\"action\":\"D\"}},\"value\":{{\"n\":1}},{meta}}}"),
            Some("meta"),
            "given twice: first a delete, then an upsert",
        ),
        ("[]".into(), None, "not a JSON object"),
        ("{".into(), None, "not valid JSON: no member name where one should be"),
        (format!("{{\"key\":{{\"id\":1}},{meta}}} x"), None, "not valid JSON: text after the end of the value"),
        (format!("{{\"key\":{{\"id\":1}},{meta}"), None, "not valid JSON: neither comma nor closing bracket after a value"),
    ] {
        let decoded = decode(&small(), Format::Jsonl, &text);
        let (error, raw) = &decoded.bad[0];
        assert_eq!((error.column.as_deref(), error.reason.as_str()), (column, reason), "{text}");
        assert_eq!(raw, text.as_bytes());
        assert_eq!((decoded.counts.rows, decoded.counts.bad_rows), (0, 1));
    }
    for (row, column, reason) in [
        ("2024-01-01T00:00:00Z,U,,1,x", "key.id", "the key is missing or null"),
        (",U,1,1,x", "meta.ts", "the commit time is null"),
        ("2024-01-01T00:00:00Z,u,1,1,x", "meta.action", "neither U nor D"),
    ] {
        let decoded = decode(&small(), Format::Csv, &format!("meta.ts,meta.action,key.id,value.n,value.t\n{row}\n"));
        assert_eq!(decoded.bad[0].0, RowError { line: 2, column: Some(column.into()), reason: reason.into() });
    }
}

#[test]
fn the_last_of_repeated_members_counts() {
    let schema = everything();
    let text = concat!(
        r#"{"value":{"name":"first","name":"second","big":1,"big":null,"kinds":["a","b"],"kinds":["b"],"#,
        r#""settings":{"limit":1,"is_public":"x"},"settings":{"limit":2},"anything":{},"anything":null,"flag":null,"flag":true},"#,
        r#""key":{"id":2,"part":"b"},"meta":{"ts":"2024-01-01T00:00:00Z","action":"U"},"meta":{"ts":"2025-01-01T00:00:00Z"}}"#,
    );
    let decoded = decode(&schema, Format::Jsonl, text);
    assert_eq!(decoded.bad, []);
    let column = |name: &str| decoded.batch.column_by_name(name).unwrap();
    assert_eq!(texts(column("_action")), [Some("U")]);
    let ts = column("_ts").as_primitive::<TimestampMicrosecondType>().value(0);
    assert_eq!(ts, 1_735_689_600_000_000);
    assert_eq!(texts(column("name")), [Some("second")]);
    assert!(column("big").is_null(0));
    assert!(column("anything").is_null(0));
    assert!(column("flag").as_boolean().value(0));
    assert_eq!(texts(&column("kinds").as_list::<i32>().value(0)), [Some("b")]);
    let settings = column("settings").as_struct();
    assert_eq!(settings.column_by_name("limit").unwrap().as_primitive::<Int32Type>().value(0), 2);
    assert!(settings.column_by_name("is_public").unwrap().is_null(0));

    let again = concat!(
        r#"{"key":{"id":1,"part":"b"},"value":{"settings":{"limit":1},"settings":{}, "name":"x"},"#,
        r#""value":{"big":7,"settings":{"inner":{"on":true},"inner":{"on":null}}},"meta":{"ts":"2024-01-01T00:00:00Z"}}"#,
    );
    let decoded = decode(&schema, Format::Jsonl, again);
    assert_eq!(decoded.bad, []);
    assert!(decoded.batch.column_by_name("settings").unwrap().is_null(0));
    assert!(decoded.batch.column_by_name("name").unwrap().is_null(0));
    assert_eq!(decoded.batch.column_by_name("big").unwrap().as_primitive::<Int64Type>().value(0), 7);
}

#[test]
fn numbers_are_exact_or_an_error() {
    let (array, bad) = values(
        &with(json!({"type": "integer", "format": "int16"})),
        &["7", "-32768", "1.0", "1e3", "\"12\"", "32768", "1.5", "true", "\"\"", "+1", "{}"],
    );
    assert_eq!(array.as_primitive::<Int16Type>().iter().collect::<Vec<_>>(), [7, -32768, 1, 1000, 12].map(Some));
    assert_eq!(
        bad,
        [
            "value.c: an integer beyond the range of the column",
            "value.c: a number with a fraction in an integer column",
            "value.c: a boolean where a number should be",
            "value.c: not an integer",
            "value.c: not valid JSON: no value where one should be",
            "value.c: an object where a number should be",
        ]
    );
    let (array, bad) =
        values(&with(json!({"type": "integer"})), &["9007199254740993", "9223372036854775807", "9223372036854775808"]);
    assert_eq!(array.as_primitive::<Int64Type>().values(), &[9_007_199_254_740_993, i64::MAX]);
    assert_eq!(bad, ["value.c: an integer beyond 64 bits"]);

    let decimal = with(json!({"type": "number", "multipleOf": 0.01, "exclusiveMinimum": -1000, "exclusiveMaximum": 1000}));
    let (array, bad) = values(&decimal, &["1.1", "-999.99", "5", "1.100", "\"2.50\"", "15e-1", "0.001", "1000", "null"]);
    assert_eq!(
        array.as_primitive::<Decimal128Type>().iter().collect::<Vec<_>>(),
        [Some(110), Some(-99_999), Some(500), Some(110), Some(250), Some(150), None]
    );
    assert_eq!(
        bad,
        ["value.c: more digits after the point than the column holds", "value.c: more digits than the column holds"]
    );

    let float = with(json!({"type": "number"}));
    let (array, bad) = values(&float, &["0.1", "1e300", "5", "\"Infinity\"", "\"-inf\"", "1e400", "NaN"]);
    assert_eq!(array.as_primitive::<Float64Type>().values(), &[0.1, 1e300, 5.0, f64::INFINITY, f64::NEG_INFINITY]);
    assert_eq!(
        bad,
        ["value.c: a number beyond the range of the column", "value.c: not valid JSON: no value where one should be"]
    );
    for format in [Format::Csv, Format::Tsv] {
        let (array, bad) = cells(&float, format, &["0.1", "nan", "Infinity", "-INF", "1,5", "x"]);
        assert!(array.as_primitive::<Float64Type>().value(1).is_nan());
        assert_eq!(array.as_primitive::<Float64Type>().value(3), f64::NEG_INFINITY);
        assert_eq!(bad.len(), 2);
    }
}

#[test]
fn booleans_are_true_or_false() {
    let schema = with(json!({"type": "boolean"}));
    let (array, bad) = values(&schema, &["true", "false", "null", "1", "\"true\"", "tru"]);
    assert_eq!(array.as_boolean().iter().collect::<Vec<_>>(), [Some(true), Some(false), None]);
    assert_eq!(bad.len(), 3);
    let (array, bad) = cells(&schema, Format::Csv, &["true", "\"false\"", "", "t", "TRUE", "1"]);
    assert_eq!(array.as_boolean().iter().collect::<Vec<_>>(), [Some(true), Some(false), None]);
    assert_eq!(bad, ["value.c: neither true nor false"; 3]);
}

#[test]
fn times_become_utc_and_dates_stay() {
    let (array, bad) = values(
        &with(json!({"type": "string", "format": "date-time"})),
        &["\"1970-01-01 00:00:01Z\"", "\"1970-01-01T01:00:00+01:00\"", "\"1970-01-01T00:00:00\\u005a\"", "5"],
    );
    assert_eq!(array.as_primitive::<TimestampMicrosecondType>().values(), &[1_000_000, 0, 0]);
    assert_eq!(bad, ["value.c: a number where a string should be"]);
    let (array, bad) = cells(
        &with(json!({"type": "string", "format": "date"})),
        Format::Tsv,
        &["1970-01-02", "\\N", "", "1970-01-01T00:00:00Z"],
    );
    assert_eq!(array.as_primitive::<Date32Type>().iter().collect::<Vec<_>>(), [Some(1), None]);
    assert_eq!(bad, ["value.c: not a date"; 2]);
    let (array, bad) = values(&with(json!({"type": "string", "format": "time"})), &["\"12:30:00Z\""]);
    assert_eq!((texts(&array), bad.len()), (vec![Some("12:30:00Z")], 0));
}

#[test]
fn text_columns_accept_any_json_value() {
    let schema = with(json!({"type": "string", "maxLength": 5}));
    let (array, bad) = values(
        &schema,
        &[
            "\"plain\"",
            "\"much longer than declared\"",
            "\"\\u0000\\ud83d\\ude00\"",
            "12.50",
            "true",
            "{\"a\": [1]}",
            "[]",
            "\"\"",
            "null",
            "\"\\ud83d\"",
            "nul",
        ],
    );
    let expected = ["plain", "much longer than declared", "\0\u{1f600}", "12.50", "true", "{\"a\": [1]}", "[]", ""];
    assert_eq!(texts(&array), expected.map(Some).into_iter().chain([None]).collect::<Vec<_>>());
    assert_eq!(
        bad,
        ["value.c: half of a surrogate pair in a string", "-: not valid JSON: an unknown word"]
            .map(|text| text.replace("-:", "value:"))
    );
    let (array, bad) =
        values(&with(json!({"type": "string", "enum": ["a"]})), &["\"a\"", "\"unknown member\"", "\"__dap_unspecified__\""]);
    assert_eq!((texts(&array), bad.len()), (vec![Some("a"), Some("unknown member"), Some("__dap_unspecified__")], 0));
}

#[test]
fn uuids_are_normalised() {
    let schema = with(json!({"type": "string", "format": "uuid"}));
    let expected = [Some("01234567-89ab-cdef-0123-456789abcdef"); 2];
    let (array, bad) = values(
        &schema,
        &[
            "\"01234567-89AB-cdef-0123-456789ABCDEF\"",
            "\"0123456789abcdef0123456789abcdef\"",
            "\"{01234567-89ab-cdef-0123-456789abcdef}\"",
        ],
    );
    assert_eq!((texts(&array), bad), (expected.to_vec(), vec!["value.c: not a UUID".to_owned()]));
}

/// A table with the text columns `a` and, required, `b`.
fn with_required() -> TableSchema {
    TableSchema::read(
        &crate::model::TableRef::new("canvas", "t"),
        1,
        json!({"properties": {
            "key": {"properties": {"id": {"type": "integer"}}},
            "value": {"properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["b"]}
        }}),
    )
    .unwrap()
}

#[test]
fn placeholders_and_required_nulls_are_counted() {
    let schema = with_required();
    let text = concat!(
        r#"{"key":{"id":1},"value":{"a":"__dap_oversized_truncated__","b":"__cd2_oversized_truncated__"},"meta":{"ts":"2024-01-01T00:00:00Z"}}"#,
        "\n",
        r#"{"key":{"id":2},"value":{"a":"x"},"meta":{"ts":"2024-01-01T00:00:00Z"}}"#,
        "\n",
        r#"{"key":{"id":3},"value":{"b":null},"meta":{"ts":"2024-01-01T00:00:00Z"}}"#,
        "\n",
        r#"{"key":{"id":4},"meta":{"ts":"2024-01-01T00:00:00Z","action":"D"}}"#,
        "\n",
        r#"{"key":{"id":5},"value":{"a":"__dap_oversized_truncated__","b":"c"},"meta":{"ts":"never"}}"#,
        "\n",
    );
    let decoded = decode(&schema, Format::Jsonl, text);
    let expected =
        DecodeCounts { rows: 4, deletes: 1, bad_rows: 1, oversized: 2, required_nulls: 2, ..DecodeCounts::default() };
    assert_eq!(decoded.counts, expected);
    assert_eq!(decoded.batch.column_by_name("b").unwrap().null_count(), 3);
}

#[test]
fn columns_that_a_file_lacks_are_reported() {
    let schema = everything();
    let decoded = decode(&schema, Format::Csv, "meta.ts,key.id,key.part,value.settings.limit\n2024-01-01T00:00:00Z,1,p,2\n");
    let expected: Vec<&String> = schema.value.iter().map(|column| &column.name).filter(|name| *name != "settings").collect();
    let mut absent: Vec<&String> = decoded.counts.absent_columns.iter().collect();
    absent.sort_by_key(|name| expected.iter().position(|column| column == name));
    assert_eq!((decoded.counts.rows, absent), (1, expected));
    let empty = decode(&schema, Format::Csv, "meta.ts,key.id,key.part,value.settings.limit\n");
    assert!(empty.counts.absent_columns.is_empty(), "a header without rows leaves nothing out");
}

#[test]
fn a_required_column_or_the_actions_of_an_increment_must_not_be_missing() {
    let schema = with_required();
    let read = |format: Format, text: &str, needs_action: bool| {
        let text = if format == Format::Tsv { text.replace(',', "\t") } else { text.to_owned() };
        decode_parts(&schema, format, [text.as_bytes()], |options| {
            (options.needs_required, options.needs_action) = (true, needs_action);
        })
    };
    for format in [Format::Csv, Format::Tsv] {
        let error = read(format, "meta.ts,key.id,value.a\n2024-01-01T00:00:00Z,1,x\n", false).unwrap_err();
        assert_eq!((error.kind(), error.get("column")), (Kind::Data, Some("value.b")));
        let decoded = read(format, "meta.ts,key.id,value.b\n2024-01-01T00:00:00Z,1,x\n", false).unwrap();
        assert_eq!(decoded.counts.absent_columns.iter().collect::<Vec<_>>(), ["a"]);
        let error = read(format, "meta.ts,key.id,value.b\n2024-01-01T00:00:00Z,1,x\n", true).unwrap_err();
        assert_eq!((error.kind(), error.get("column")), (Kind::Data, Some("meta.action")));
        // Without any value column, the file can hold deletes only.
        let deletes = read(format, "meta.ts,meta.action,key.id\n2024-01-01T00:00:00Z,D,1\n", true).unwrap();
        assert_eq!(deletes.counts.deletes, 1);
    }
}

#[test]
fn unknown_members_are_reported_once_and_ignored() {
    let schema = everything();
    let one = r#"{"extra":[{"deep":[1]}],"key":{"id":1,"part":"p","k":0},"value":{"new":{"x":"}"},"settings":{"limit":1,"newer":2},"rows":[{"x":1,"y":2}]},"meta":{"ts":"2024-01-01T00:00:00Z","m":1}}"#;
    let decoded = decode(&schema, Format::Jsonl, &[one, one].join("\n"));
    assert_eq!((decoded.counts.rows, decoded.bad.len()), (2, 0));
    let expected = ["extra", "key.k", "meta.m", "value.new", "value.rows.element.y", "value.settings.newer"];
    assert_eq!(decoded.counts.unknown_columns.iter().collect::<Vec<_>>(), expected);
    let csv =
        "meta.ts,extra,key.id,key.part,value.settings.limit,value.settings.newer,value.\"x\n2024-01-01T00:00:00Z,1,1,p,1,2,3\n";
    let decoded = decode(&schema, Format::Csv, csv);
    assert_eq!(decoded.counts.unknown_columns.iter().collect::<Vec<_>>(), ["extra", "value.\"x", "value.settings.newer"]);
    assert_eq!(decoded.counts.rows, 1);
    let hostile: String = (0..10_000).map(|n| format!("\"member_{n}\":{n},")).collect();
    let decoded = decode(
        &schema,
        Format::Jsonl,
        &format!("{{\"value\":{{{hostile}\"name\":\"x\"}},\"key\":{{\"id\":1,\"part\":\"\"}},{META}}}"),
    );
    assert_eq!(decoded.counts.rows, 1);
    assert_eq!(decoded.counts.unknown_columns.len(), 256);
}

#[test]
fn objects_without_values_are_null_in_every_format() {
    let schema = fixture("assignment_groups");
    let jsonl = |rules: &str| format!("{{\"key\":{{\"id\":1}},\"value\":{{\"rules\":{rules}}},{META}}}\n");
    let text: String =
        ["null", "{}", "{\"drop_lowest\":null}", "\"{}\"", "\"null\"", "{\"never_drop\":[]}", "\"{\\\"drop_lowest\\\":3}\""]
            .map(jsonl)
            .concat();
    let decoded = decode(&schema, Format::Jsonl, &text);
    assert_eq!(decoded.bad, []);
    let rules = decoded.batch.column_by_name("rules").unwrap();
    assert_eq!((0..7).map(|row| rules.is_valid(row)).collect::<Vec<_>>(), [false, false, false, false, false, true, true]);
    assert_eq!(rules.as_struct().column_by_name("drop_lowest").unwrap().as_primitive::<Int32Type>().value(6), 3);
    let expanded =
        "meta.ts,key.id,value.rules.drop_lowest,value.rules.never_drop\n2024-01-01T00:00:00Z,1,,\n2024-01-01T00:00:00Z,1,,[]\n";
    let rules = decode(&schema, Format::Csv, expanded).batch.column_by_name("rules").unwrap().clone();
    assert_eq!((rules.is_valid(0), rules.is_valid(1)), (false, true));
    let condensed = "meta.ts\tkey.id\tvalue.rules\n2024-01-01T00:00:00Z\t1\t{}\n2024-01-01T00:00:00Z\t1\t{\"never_drop\":[]}\n";
    let rules = decode(&schema, Format::Tsv, condensed).batch.column_by_name("rules").unwrap().clone();
    assert_eq!((rules.is_valid(0), rules.is_valid(1)), (false, true));
}

#[test]
fn faults_in_nested_values_have_a_path_and_leave_nothing() {
    let schema = everything();
    let row = |value: &str| format!("{{\"key\":{{\"id\":1,\"part\":\"p\"}},\"value\":{value},{META}}}\n");
    let good = r#"{"name":"ok","kinds":["a",null],"rows":[{"x":1},null,{}],"settings":{"inner":{"ids":[1,2]}}}"#;
    let bad = [
        (r#"{"name":"half","rows":[{"x":1},{"x":"y"}]}"#, "value.rows.element.x", "not an integer"),
        (
            r#"{"name":"half","kinds":["a",{}],"rows":[{"x":1}],"settings":{"inner":{"ids":[1,2,"x"]}}}"#,
            "value.settings.inner.ids.element",
            "not an integer",
        ),
        (r#"{"settings":{"inner":{"cost":1}},"settings":[]}"#, "value.settings", "an array where an object should be"),
        (r#"{"kinds":{"a":1}}"#, "value.kinds", "an object where an array should be"),
        (
            r#"{"settings":{"is_public":"unfinished"#,
            "value.settings",
            "not valid JSON: neither comma nor closing bracket after a value",
        ),
        (r#"{"settings":"{\"limit\":1"}"#, "value.settings", "not valid JSON: neither comma nor closing bracket after a value"),
        (r#"{"settings":"{} x"}"#, "value.settings", "not valid JSON: text after the end of the value"),
    ];
    let mut text = row(good);
    for (value, ..) in bad {
        text += &row(value);
        text += &row(good);
    }
    let decoded = decode(&schema, Format::Jsonl, &text);
    let seen: Vec<_> = decoded.bad.iter().map(|(error, _)| (error.column.as_deref().unwrap(), error.reason.as_str())).collect();
    assert_eq!(seen, bad.map(|(_, column, reason)| (column, reason)));
    let whole = decode(&schema, Format::Jsonl, &row(good).repeat(8));
    assert_eq!(decoded.batch.columns()[3..], whole.batch.columns()[3..]);
}

#[test]
fn json_text_is_copied_unchanged() {
    let schema = with(json!({"type": "object"}));
    let (array, bad) =
        values(&schema, &["{ \"b\" : [1, 2.50], \"a\":null}", "\"{\\\"a\\\":1}\"", "[1]", "7", "null", "{\"a\" 1}"]);
    assert_eq!(texts(&array), [Some("{ \"b\" : [1, 2.50], \"a\":null}"), Some("{\"a\":1}"), Some("[1]"), Some("7"), None]);
    assert_eq!(bad, ["value.c: not valid JSON: no colon after a member name"]);
    let (array, bad) = cells(&schema, Format::Csv, &["\"{\"\"a\"\":\"\"x\"\"}\"", "\"null\"", "null", ""]);
    assert_eq!(texts(&array), [Some("{\"a\":\"x\"}"), Some("null"), Some("null"), None]);
    assert!(bad.is_empty());
}

#[test]
fn errors_name_place_and_reason_but_no_value() {
    let secret = "hunter2";
    let text = format!("{}{}", line("1"), line(&format!("\"{secret}\"")));
    let error = failure(&with(json!({"type": "integer"})), Format::Jsonl, &text);
    assert_eq!(error.kind(), Kind::Data);
    assert_eq!(error.message(), "A row cannot be read");
    let context = [
        ("table", "canvas.things"),
        ("object", "part-1"),
        ("line", "2"),
        ("column", "value.c"),
        ("key", "id=1"),
        ("reason", "not an integer"),
    ];
    assert_eq!(error.fields().iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>(), context);
    assert!(error.hint_text().unwrap().contains("--bad-rows FILE"));
    assert!(!format!("{error:?}").contains(secret));
}

#[test]
fn an_error_while_setting_aside_is_returned() {
    let full = |_: &RowError, _: &[u8]| Err(crate::Error::new(Kind::Io, "The disk is full"));
    let decoded =
        decode_parts(&small(), Format::Jsonl, [&b"junk\n"[..]], |options| options.bad_rows = BadRows::SetAside(Arc::new(full)));
    assert_eq!(decoded.unwrap_err().kind(), Kind::Io);
}

#[test]
fn lines_that_are_not_utf8_are_unreadable() {
    let good = line("\"\u{e4}\"");
    let mut bytes = good.clone().into_bytes();
    let place = good.find('\u{e4}').unwrap();
    bytes[place] = 0xff;
    let schema = with(json!({"type": "string"}));
    let decoded = decode_parts(&schema, Format::Jsonl, [&bytes[..], good.as_bytes()], |_| {}).unwrap();
    assert_eq!((decoded.bad[0].0.reason.as_str(), decoded.bad[0].0.line), ("not UTF-8", 1));
    assert_eq!(decoded.bad[0].1, &bytes[..bytes.len() - 1]);
    assert_eq!(texts(decoded.batch.column_by_name("c").unwrap()), [Some("\u{e4}")]);
}

#[test]
fn lines_beyond_the_limit_are_unreadable_and_cost_no_memory() {
    let schema = with(json!({"type": "string"}));
    let (mut options, bad) = options();
    options.max_line = 200;
    let mut decoder = TextDecoder::new(Arc::new(schema.clone()), Format::Jsonl, options).unwrap();
    let mut out = Vec::new();
    decoder.push(line("\"a\"").as_bytes(), &mut out).unwrap();
    decoder.push(b"{\"value\":{\"c\":\"", &mut out).unwrap();
    for _ in 0..10_000 {
        decoder.push(&[b'x'; 1000], &mut out).unwrap();
    }
    decoder.push(b"\"}}\n", &mut out).unwrap();
    decoder.push(line("\"b\"").as_bytes(), &mut out).unwrap();
    decoder.finish(&mut out).unwrap();
    assert_eq!(texts(out[0].column_by_name("c").unwrap()), [Some("a"), Some("b")]);
    let bad = bad.lock().unwrap();
    assert_eq!((bad[0].0.line, bad[0].0.reason.as_str(), bad[0].1.len()), (2, "longer than 200 bytes", 200));
}

#[test]
fn batches_are_split_by_rows_and_by_bytes() {
    let schema = with(json!({"type": "string"}));
    let text: String = (0..10).map(|_| line(&format!("\"{}\"", "x".repeat(1000)))).collect();
    let sizes = |rows: usize, bytes: usize| {
        let change = |options: &mut DecodeOptions| {
            options.batch_rows = rows;
            options.batch_bytes = bytes;
        };
        decode_parts(&schema, Format::Jsonl, [text.as_bytes()], change).unwrap().sizes
    };
    assert_eq!(sizes(4, 1 << 20), [4, 4, 2]);
    assert_eq!(sizes(100, 3000), [3, 3, 3, 1]);
    assert_eq!(sizes(100, 1), [1; 10]);
    assert_eq!(sizes(0, 1 << 20), [1; 10]);
}

#[test]
fn object_numbers_have_24_bits() {
    let (mut options, _) = options();
    options.object_number = 1 << 24;
    assert_eq!(TextDecoder::new(Arc::new(small()), Format::Jsonl, options.clone()).unwrap_err().kind(), Kind::Unsupported);
    options.object_number -= 1;
    assert!(TextDecoder::new(Arc::new(small()), Format::Jsonl, options).is_ok());
}

#[test]
fn nested_json_has_no_nulls_and_keeps_json_inside() {
    let schema = with(json!({"type": "object", "additionalProperties": false, "properties": {
        "a": {"type": "string"}, "f": {"type": "number"}, "free": {"type": "object"}, "at": {"type": "string", "format": "date-time"},
        "l": {"type": "array", "items": {"type": "integer"}}
    }}));
    let text = line(r#"{"l":[1,null],"f":"NaN","x":1,"free":{"k": 1},"a":"q\"","at":"2024-01-01T00:00:00.5+00:00"}"#)
        + &line(r#"{"a":null,"f":1}"#)
        + &line("{}");
    let decoded = decode_parts(&schema, Format::Jsonl, [text.as_bytes()], |options| options.nested = Nested::Json).unwrap();
    let expected = [
        Some(r#"{"a":"q\"","f":"NaN","free":{"k": 1},"at":"2024-01-01T00:00:00.500000Z","l":[1,null]}"#),
        Some(r#"{"f":1.0}"#),
        None,
    ];
    assert_eq!(texts(decoded.batch.column_by_name("c").unwrap()), expected);
}
