//! Damaged result files: each damage at the requested position only.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use bytes::Bytes;
use flate2::read::{GzDecoder, MultiGzDecoder};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

/// The objects of a query without and with a fault.
async fn right_and_wrong(fault: &str, query: Value) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let options = || ServeOptions { cache: Some(folder.path().into()), rows_per_object: 5, ..ServeOptions::instant() };
    let desk = Desk::named(20, Some("desk".into()));
    let caller = Caller::new(desk.clone(), options()).await;
    caller.server.inject(Fault::parse(fault).unwrap(), Times::Always);
    let wrong = caller.objects("many", query.clone()).await;
    let other = Caller::new(desk, options()).await;
    (other.objects("many", query).await, wrong)
}

/// The same, decompressed, for the one object that differs.
async fn texts(fault: &str, format: &str) -> (String, String) {
    let (right, wrong) = right_and_wrong(fault, json!({"format": format})).await;
    assert_eq!((right.len(), wrong.len()), (4, 4));
    for place in [0, 2, 3] {
        assert_eq!(right[place], wrong[place], "{fault}");
    }
    (unzip(&right[1]), unzip(&wrong[1]))
}

fn unpack_error(bytes: &[u8]) -> Option<std::io::Error> {
    MultiGzDecoder::new(bytes).read_to_end(&mut Vec::new()).err()
}

#[tokio::test]
async fn gzip_can_be_broken() {
    let (right, wrong) = right_and_wrong("corrupt", json!({"format": "jsonl"})).await;
    assert_eq!(right[1].len(), wrong[1].len());
    let differing: Vec<_> = (0..right[1].len()).filter(|&place| right[1][place] != wrong[1][place]).collect();
    assert_eq!(differing, [right[1].len() / 2]);
    assert!(unpack_error(&wrong[1]).is_some() && unpack_error(&wrong[0]).is_none());

    let (right, wrong) = right_and_wrong("wrong-crc:3", json!({"format": "csv"})).await;
    let place = right[3].len() - 8;
    assert_eq!((&right[3][..place], &right[3][place + 1..]), (&wrong[3][..place], &wrong[3][place + 1..]));
    assert_eq!(unpack_error(&wrong[3]).unwrap().kind(), std::io::ErrorKind::InvalidInput);

    let (right, wrong) = right_and_wrong("trailing-garbage:99", json!({"format": "tsv"})).await;
    assert!(wrong[3].starts_with(&right[3]) && wrong[3].len() > right[3].len(), "past the end means the last");
    assert!(unpack_error(&wrong[3]).is_some());
}

#[tokio::test]
async fn gzip_can_have_several_members() {
    let (right, wrong) = right_and_wrong("multi-member", json!({"format": "jsonl"})).await;
    for (right, wrong) in right.iter().zip(&wrong) {
        assert_eq!(unzip(right), unzip(wrong));
        let mut first = String::new();
        GzDecoder::new(wrong.as_slice()).read_to_string(&mut first).unwrap();
        assert!(first.len() < unzip(right).len());
    }
}

#[tokio::test]
async fn one_line_can_be_malformed() {
    for (format, expected) in [
        ("jsonl", "{\"key\":{\"id\":8},\"value\":{\"name\":\"row, 8\",\"count\":80,\"ta"),
        ("csv", "2024-01-02T00:00:00Z,8,\"row, 8\",80,true"),
        ("tsv", "2024-01-02T00:00:00Z\t8\trow, 8\t80\ttrue"),
    ] {
        let (right, wrong) = texts("malformed-line", format).await;
        let place = if format == "jsonl" { 2 } else { 3 };
        for (number, (right, wrong)) in right.lines().zip(wrong.lines()).enumerate() {
            assert_eq!(number == place, right != wrong, "{format}: {wrong}");
        }
        let (right_line, wrong_line) = (right.lines().nth(place).unwrap(), wrong.lines().nth(place).unwrap());
        assert!(wrong_line.starts_with(expected), "{wrong_line}");
        if format == "jsonl" {
            assert!(right_line.starts_with(wrong_line) && wrong_line.len() < right_line.len(), "{wrong_line}");
        } else {
            assert_eq!(wrong_line, expected);
        }
        assert_eq!(wrong.lines().count(), right.lines().count());
    }
}

#[tokio::test]
async fn one_value_can_have_the_wrong_type() {
    for (format, before, after) in [
        ("jsonl", "\"count\":90", "\"count\":\"not a number\""),
        ("csv", "\"row, 9\",90,", "\"row, 9\",not a number,"),
        ("tsv", "row, 9\t90\t", "row, 9\tnot a number\t"),
    ] {
        let (right, wrong) = texts("wrong-type:1:3", format).await;
        assert_eq!(right.replace(before, after), wrong);
        assert_ne!(right, wrong);
    }
}

#[tokio::test]
async fn one_row_or_column_can_be_unknown() {
    let (right, wrong) = texts("extra-column", "jsonl").await;
    assert_eq!(
        right.replace(
            "\"count\":80,\"tail\":{\"even\":true}",
            "\"count\":80,\"tail\":{\"even\":true},\"x_surprise\":\"surprise\""
        ),
        wrong
    );
    for (format, separator) in [("csv", ","), ("tsv", "\t")] {
        let (right, wrong) = texts("extra-column", format).await;
        let mut lines = right.lines().zip(wrong.lines());
        let (right, wrong) = lines.next().unwrap();
        assert_eq!(wrong, format!("{right}{separator}value.x_surprise"));
        assert!(lines.all(|(right, wrong)| wrong == format!("{right}{separator}surprise")));
    }
    let query = json!({"format": "csv", "since": FIRST.to_string()});
    let (_, wrong) = right_and_wrong("extra-column", query).await;
    assert!(unzip(&wrong[0]).ends_with(",D,1,,,,,\n"), "a delete has no surprise");
}

#[tokio::test]
async fn lines_can_be_empty_or_unterminated() {
    for format in ["jsonl", "csv", "tsv"] {
        let (right, wrong) = texts("empty-line:1:1", format).await;
        let place = if format == "jsonl" { 1 } else { 2 };
        let mut lines: Vec<_> = right.lines().collect();
        lines.insert(place, "");
        assert_eq!(wrong.lines().collect::<Vec<_>>(), lines);
        let (right, wrong) = texts("repeated-row:1:1", format).await;
        let mut lines: Vec<_> = right.lines().collect();
        lines.insert(place, lines[place]);
        assert_eq!(wrong.lines().collect::<Vec<_>>(), lines);
        let (right, wrong) = texts("no-final-newline", format).await;
        assert_eq!(right.strip_suffix('\n'), Some(wrong.as_str()));
    }
}

#[tokio::test]
async fn objects_can_be_empty() {
    for format in ["jsonl", "csv", "tsv"] {
        let query = json!({"format": format});
        for (fault, unpacked) in
            [("empty-file", None), ("empty-gzip", Some(0)), ("header-only", Some(usize::from(format != "jsonl")))]
        {
            let (right, wrong) = right_and_wrong(fault, query.clone()).await;
            assert_eq!(right, wrong[..4]);
            match unpacked {
                None => assert!(wrong[4].is_empty()),
                Some(lines) => assert_eq!(unzip(&wrong[4]).lines().count(), lines),
            }
        }
    }
    let (right, wrong) = right_and_wrong("header-only", json!({"format": "parquet"})).await;
    assert_eq!(right, wrong[..4]);
    assert!(batches(&wrong[4]).is_empty());
    let (_, wrong) = right_and_wrong("empty-file", json!({"format": "parquet"})).await;
    assert!(wrong[4].is_empty());
}

fn batches(object: &[u8]) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(object)).unwrap().build().unwrap();
    reader.map(Result::unwrap).collect()
}

#[tokio::test]
async fn parquet_can_be_damaged() {
    let query = json!({"format": "parquet"});
    let (right, wrong) = right_and_wrong("wrong-type", query.clone()).await;
    assert_eq!(right[0], wrong[0]);
    let batch = &batches(&wrong[1])[0];
    let value = batch.column_by_name("value").unwrap().as_struct();
    assert_eq!(value.column_by_name("count").unwrap().data_type(), &DataType::Utf8);
    assert_eq!(value.column_by_name("count").unwrap().as_string::<i32>().value(4), "not a number");

    let (_, wrong) = right_and_wrong("extra-column:0", query.clone()).await;
    let batch = &batches(&wrong[0])[0];
    assert_eq!(batch.column_by_name("value").unwrap().as_struct().column_names(), ["name", "count", "tail", "x_surprise"]);

    let (right, wrong) = right_and_wrong("wrong-crc", query.clone()).await;
    assert_ne!(right[1], wrong[1]);
    assert!(ParquetRecordBatchReaderBuilder::try_new(Bytes::from(wrong[1].clone())).is_err());

    let (right, wrong) = right_and_wrong("flat-parquet", query).await;
    let (right, wrong) = (&batches(&right[0])[0], &batches(&wrong[0])[0]);
    assert_eq!(right.schema().fields().len(), 3);
    let names: Vec<_> = wrong.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["meta.ts", "key.id", "value.name", "value.count", "value.tail.even", "value.tail.note"]);
    assert_eq!(wrong.column(3).len(), 5);
}

#[tokio::test]
async fn an_empty_result_can_have_an_object() {
    let caller = Caller::simple().await;
    caller.server.inject(Fault::parse("header-only").unwrap(), Times::Once);
    let objects = caller.objects("none", json!({"format": "csv"})).await;
    assert_eq!(unzip(&objects[0]), "meta.ts,key.id,value.name,value.count,value.tail.even,value.tail.note\n");
    // A damage without an object to apply to is not an error.
    caller.server.inject(Fault::parse("corrupt").unwrap(), Times::Once);
    assert!(caller.objects("none", json!({"format": "tsv"})).await.is_empty());
}
