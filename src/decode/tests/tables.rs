//! The rules of CSV and TSV: quotes, escapes, nulls, headers.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, UInt64Type};

use super::rules::{small, texts};
use super::*;
use crate::error::Kind;

#[test]
fn csv_quotes_span_pieces_of_input() {
    let schema = small();
    let text = "\u{feff}meta.ts,key.id,value.t,\"value.n\"\r\n\
                2024-01-01T00:00:00Z,1,,\r\n\
                2024-01-01T00:00:00Z,2,\"\",NULL\r\n\
                2024-01-01T00:00:00Z,3,NULL,\r\n\
                2024-01-01T00:00:00Z,4,\"NULL\",5\r\n\
                2024-01-01T00:00:00Z,5,\\N,\"6\"\n\
                \n\
                2024-01-01T00:00:00Z,6,\"\\N\",7\n\
                2024-01-01T00:00:00Z,7,\"a \"\"q\"\", b\r\nc\r\",8\n\
                2024-01-01T00:00:00Z,8,a\"b\"c,9\r\n\
                2024-01-01T00:00:00Z,9, x ,\"10\"";
    let decoded = decode(&schema, Format::Csv, text);
    assert_eq!(decoded.bad, []);
    let expected =
        [None, Some(""), None, Some("NULL"), Some("\\N"), Some("\\N"), Some("a \"q\", b\r\nc\r"), Some("a\"b\"c"), Some(" x ")];
    assert_eq!(texts(decoded.batch.column_by_name("t").unwrap()), expected);
    let numbers: Vec<_> = decoded.batch.column_by_name("n").unwrap().as_primitive::<Int32Type>().iter().collect();
    assert_eq!(numbers, [None, None, None, Some(5), Some(6), Some(7), Some(8), Some(9), Some(10)]);
    let seq: Vec<u64> = decoded.batch.column(2).as_primitive::<UInt64Type>().iter().map(|seq| seq.unwrap() & 0xff).collect();
    assert_eq!(seq, (1..=9).collect::<Vec<_>>());
}

#[test]
fn csv_faults_have_line_and_reason() {
    let text = "meta.ts,key.id,value.t,value.n\n\
                2024-01-01T00:00:00Z,1,\"x\ny\",1\n\
                2024-01-01T00:00:00Z,2,\"x\"y,1\n\
                2024-01-01T00:00:00Z,3,x\n\
                2024-01-01T00:00:00Z,4,x,1,2\n\
                2024-01-01T00:00:00Z,5,x,\"\"\n\
                2024-01-01T00:00:00Z,6,\"ends never,1\n2024-01-01T00:00:00Z,7,,\n";
    let decoded = decode(&small(), Format::Csv, text);
    let seen: Vec<_> =
        decoded.bad.iter().map(|(error, _)| (error.line, error.column.as_deref(), error.reason.as_str())).collect();
    assert_eq!(
        seen,
        [
            (4, None, "text after a closing quote"),
            (5, None, "fewer fields than the header has"),
            (6, None, "more fields than the header has"),
            (7, Some("value.n"), "not an integer"),
            (8, None, "a quote is never closed"),
        ]
    );
    assert!(decoded.bad[4].1.ends_with(b",7,,\n"), "the rows that the quote has swallowed are put aside with it");
    assert_eq!(decoded.counts.rows, 1);
}

#[test]
fn tsv_escapes_and_nulls() {
    let text = "meta.ts\tkey.id\tvalue.t\n\
                2024-01-01T00:00:00Z\t1\t\\N\n\
                2024-01-01T00:00:00Z\t2\t\r\n\
                \n\
                2024-01-01T00:00:00Z\t3\tNULL\n\
                2024-01-01T00:00:00Z\t4\t\\\\N\n\
                2024-01-01T00:00:00Z\t5\ta\\tb\\nc\\r\\\\\\b\\f\\v\\0\"q\"\n\
                2024-01-01T00:00:00Z\t6\t\\x\n\
                2024-01-01T00:00:00Z\t7\tx\\\n\
                2024-01-01T00:00:00Z\t8\tx\\N\n\
                2024-01-01T00:00:00Z\t\\\\9\tx";
    let decoded = decode(&small(), Format::Tsv, text);
    let expected = [None, Some(""), Some("NULL"), Some("\\N"), Some("a\tb\nc\r\\\u{8}\u{c}\u{b}\0\"q\"")];
    assert_eq!(texts(decoded.batch.column_by_name("t").unwrap()), expected);
    let seen: Vec<_> =
        decoded.bad.iter().map(|(error, _)| (error.line, error.column.as_deref(), error.reason.as_str())).collect();
    let escape = "an unknown escape";
    assert_eq!(
        seen,
        [
            (8, Some("value.t"), escape),
            (9, Some("value.t"), escape),
            (10, Some("value.t"), escape),
            (11, Some("key.id"), "not an integer")
        ]
    );
}

#[test]
fn unusable_headers_fail_the_table() {
    let schema = small();
    for (header, message, column) in [
        ("key.id,value.n", "The column of commit times is missing", Some("meta.ts")),
        ("meta.ts,value.n", "A key column is missing", Some("key.id")),
        ("meta.ts,key.id,value.n,value.n", "The header has a column twice", Some("value.n")),
        ("meta.ts,key.id,\"x", "The header cannot be read", None),
        // Lines that end with a carriage return alone.
        ("meta.ts,key.id\r2026-01-01T00:00:00Z,1\r", "The header cannot be read", None),
        ("meta.ts,key.id,\"value\nn\"", "The header cannot be read", None),
        ("", "The column of commit times is missing", Some("meta.ts")),
    ] {
        let decoded = decode_parts(&schema, Format::Csv, [format!("{header}\n").as_bytes()], |_| {});
        let error = decoded.unwrap_err();
        assert_eq!((error.kind(), error.message(), error.get("column")), (Kind::Data, message, column), "{header}");
        assert_eq!((error.get("object"), error.get("table")), (Some("part-1"), Some("canvas.things")));
    }
    let parts: [&[u8]; 2] = [b"meta.ts,key.id,value.\xff\n", b""];
    assert_eq!(
        decode_parts(&schema, Format::Csv, parts, |_| {}).unwrap_err().get("reason"),
        Some("a column name is not UTF-8")
    );
    let long = decode_parts(&schema, Format::Tsv, [&b"meta.ts\tkey.id"[..]], |options| options.max_line = 5).unwrap_err();
    assert_eq!(long.message(), "The header is too long");
}

#[test]
fn empty_objects_have_no_rows() {
    for format in [Format::Jsonl, Format::Csv, Format::Tsv] {
        let decoded = decode(&small(), format, "");
        assert_eq!((decoded.batch.num_rows(), decoded.sizes.len()), (0, 0));
    }
    for text in ["meta.ts,key.id", "meta.ts,key.id\n", "meta.ts,key.id\n\n\r\n"] {
        assert_eq!(decode(&small(), Format::Csv, text).counts, DecodeCounts::default());
    }
    let error = TextDecoder::new(Arc::new(small()), Format::Parquet, options().0).unwrap_err();
    assert_eq!(error.kind(), Kind::Bug);
}

#[test]
fn missing_columns_are_null_and_a_missing_action_is_an_upsert() {
    let decoded = decode(&small(), Format::Tsv, "key.id\tmeta.ts\tvalue.t\n1\t2024-01-01T00:00:00Z\t\\N\n");
    assert_eq!(texts(decoded.batch.column(0)), [Some("U")]);
    assert!(decoded.batch.column_by_name("n").unwrap().is_null(0) && decoded.batch.column_by_name("t").unwrap().is_null(0));
}

#[test]
fn an_unclosed_quote_fails_the_table() {
    let text = format!("meta.ts,key.id,value.t\n2024-01-01T00:00:00Z,1,\"{}\n2024-01-01T00:00:00Z,2,x\n", "x".repeat(300));
    let error = decode_parts(&small(), Format::Csv, [text.as_bytes()], |options| options.max_line = 100).unwrap_err();
    assert_eq!((error.kind(), error.get("line")), (Kind::Data, Some("2")));
    assert!(error.message().contains("never closed"));
    let closed = text.replace("\n2024-01-01T00:00:00Z,2", "\"\n2024-01-01T00:00:00Z,2");
    let decoded = decode_parts(&small(), Format::Csv, [closed.as_bytes()], |options| options.max_line = 100).unwrap();
    assert_eq!(decoded.bad[0].0.reason, "longer than 100 bytes, or a quote is never closed");
    assert_eq!(decoded.counts.rows, 1);
}
