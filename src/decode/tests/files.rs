//! Parquet files of unusual layouts and types.

use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::{BrotliLevel, Compression, Encoding, GzipLevel, ZstdLevel};
use ::parquet::data_type::{ByteArray, ByteArrayType, Int96, Int96Type};
use ::parquet::file::metadata::ParquetMetaDataReader;
use ::parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Decimal128Array, DictionaryArray, FixedSizeBinaryArray, Float32Array, Float64Array,
    Int8Array, Int32Array, Int64Array, NullArray, StringArray, StringViewArray, StructArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, UInt32Array, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field};
use arrow::datatypes::{Date32Type, Decimal128Type, Float64Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::error::Kind;
use crate::schema::tests::{everything, table};

fn write(columns: Vec<(&str, ArrayRef)>) -> Bytes {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    Bytes::from(bytes)
}

fn read(schema: &TableSchema, file: Bytes) -> Result<Decoded> {
    let (options, bad) = options();
    let mut batches = super::super::parquet(file, Arc::new(schema.clone()), options)?;
    let all: Vec<RecordBatch> = batches.by_ref().collect::<Result<_>>()?;
    let sizes = all.iter().map(RecordBatch::num_rows).collect();
    let batch = concat_batches(&change_schema(schema, Nested::Typed), &all).unwrap();
    let bad = bad.lock().unwrap().clone();
    Ok(Decoded { batch, sizes, counts: batches.counts().clone(), bad })
}

/// The value column `c` of this type out of this array, and the reasons of rows that do not fit.
fn column(node: serde_json::Value, array: ArrayRef) -> (ArrayRef, Vec<String>) {
    let schema = table(json!({"id": {"type": "integer"}}), json!({"c": node}));
    let rows = array.len();
    let file = write(vec![
        ("meta.ts", Arc::new(TimestampMicrosecondArray::from(vec![0; rows]))),
        ("key.id", Arc::new(Int64Array::from_iter_values(1..=rows as i64))),
        ("value.c", array),
    ]);
    let decoded = read(&schema, file).unwrap();
    let reasons = decoded
        .bad
        .iter()
        .map(|(error, _)| format!("{} {}: {}", error.line, error.column.as_deref().unwrap_or("-"), error.reason));
    (decoded.batch.column_by_name("c").unwrap().clone(), reasons.collect())
}

#[test]
fn an_upsert_whose_group_of_values_is_null_is_unreadable() {
    let schema = table(json!({"id": {"type": "integer"}}), json!({"n": {"type": "integer"}}));
    let group = |name: &str, values: ArrayRef, nulls: Option<NullBuffer>| -> ArrayRef {
        let field = Field::new(name, values.data_type().clone(), true);
        Arc::new(StructArray::new(vec![field].into(), vec![values], nulls))
    };
    let times = TimestampMicrosecondArray::from(vec![0; 3]);
    let file = write(vec![
        ("meta", group("ts", Arc::new(times.clone()), None)),
        ("key", group("id", Arc::new(Int64Array::from(vec![1, 2, 3])), None)),
        ("value", group("n", Arc::new(Int64Array::from(vec![Some(7), None, None])), Some(vec![true, false, true].into()))),
    ]);
    let decoded = read(&schema, file).unwrap();
    let bad: Vec<_> = decoded.bad.iter().map(|(error, _)| (error.line, error.reason.as_str())).collect();
    assert_eq!(bad, [(2, "an upsert without values")]);
    assert_eq!(decoded.counts.rows, 2, "values that are null are values");

    // Without the group, and with dotted names, there are no values at all.
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let file = write(vec![("meta.ts", Arc::new(times)), ("key.id", keys)]);
    assert_eq!(read(&schema, file.clone()).unwrap().counts.bad_rows, 3);
    let only_key = table(json!({"id": {"type": "integer"}}), json!({}));
    assert_eq!(read(&only_key, file).unwrap().counts.rows, 3);
}

#[test]
fn integers_of_any_width() {
    let int16 = json!({"type": "integer", "format": "int16"});
    let arrays: [ArrayRef; 5] = [
        Arc::new(Int8Array::from(vec![Some(-7), None])),
        Arc::new(Int32Array::from(vec![Some(-7), None])),
        Arc::new(Int64Array::from(vec![Some(-7), None])),
        Arc::new(Float64Array::from(vec![Some(-7.0), None])),
        Arc::new(StringArray::from(vec![Some("-7"), None])),
    ];
    for array in arrays {
        let (array, bad) = column(int16.clone(), array);
        assert_eq!(array.as_primitive::<Int16Type>().iter().collect::<Vec<_>>(), [Some(-7), None]);
        assert!(bad.is_empty());
    }
    let (array, bad) = column(int16, Arc::new(UInt32Array::from(vec![1, 70_000, 2])));
    assert_eq!(array.as_primitive::<Int16Type>().values(), &[1, 2]);
    assert_eq!(bad, ["2 value.c: an integer beyond the range of the column"]);
    let (array, bad) = column(json!({"type": "integer"}), Arc::new(UInt64Array::from(vec![1 << 60, u64::MAX])));
    assert_eq!(array.as_primitive::<Int64Type>().values(), &[1 << 60]);
    assert_eq!(bad, ["2 value.c: an integer beyond 64 bits"]);
    let (_, bad) = column(json!({"type": "integer"}), Arc::new(Float64Array::from(vec![1.5, f64::NAN])));
    assert_eq!(bad, ["1 value.c: a number with a fraction in an integer column", "2 value.c: not an integer"]);
}

#[test]
fn floats_and_decimals() {
    let float = json!({"type": "number"});
    let arrays: [ArrayRef; 4] = [
        Arc::new(Float32Array::from(vec![2.5])),
        Arc::new(Float64Array::from(vec![2.5])),
        Arc::new(Decimal128Array::from(vec![250]).with_precision_and_scale(9, 2).unwrap()),
        Arc::new(StringArray::from(vec!["2.50"])),
    ];
    for array in arrays {
        let (array, bad) = column(float.clone(), array);
        assert_eq!((array.as_primitive::<Float64Type>().values().to_vec(), bad.len()), (vec![2.5], 0));
    }
    let (array, bad) = column(float, Arc::new(Int64Array::from(vec![1 << 60, (1 << 60) + 1, i64::MAX])));
    assert_eq!(array.as_primitive::<Float64Type>().values(), &[1_152_921_504_606_846_976.0]);
    assert_eq!(bad.len(), 2);

    let decimal = json!({"type": "number", "multipleOf": 0.01, "exclusiveMinimum": -1000, "exclusiveMaximum": 1000});
    let arrays: [ArrayRef; 6] = [
        Arc::new(Decimal128Array::from(vec![250]).with_precision_and_scale(5, 2).unwrap()),
        Arc::new(Decimal128Array::from(vec![25]).with_precision_and_scale(20, 1).unwrap()),
        Arc::new(Decimal128Array::from(vec![25_000]).with_precision_and_scale(20, 4).unwrap()),
        Arc::new(Float64Array::from(vec![2.5])),
        Arc::new(Float32Array::from(vec![2.5])),
        Arc::new(StringArray::from(vec!["2.5"])),
    ];
    for array in arrays {
        let (array, bad) = column(decimal.clone(), array);
        assert_eq!((array.as_primitive::<Decimal128Type>().values().to_vec(), bad.len()), (vec![250], 0));
    }
    let fine = Decimal128Array::from(vec![25_001, 1_000_000_000]).with_precision_and_scale(20, 4).unwrap();
    let (_, bad) = column(decimal.clone(), Arc::new(fine));
    assert_eq!(
        bad,
        ["1 value.c: more digits after the point than the column holds", "2 value.c: more digits than the column holds"]
    );
    let wide = Decimal128Array::from(vec![100_000, -99_999]).with_precision_and_scale(20, 2).unwrap();
    let (array, bad) = column(decimal, Arc::new(wide));
    assert_eq!(array.as_primitive::<Decimal128Type>().values(), &[-99_999]);
    assert_eq!(bad, ["1 value.c: more digits than the column holds"]);
}

#[test]
fn strings_in_any_form() {
    let text = json!({"type": "string"});
    let values = vec![Some("a"), None, Some("\u{e4}\u{1f600}")];
    let dictionary: DictionaryArray<arrow::datatypes::Int8Type> = values.iter().copied().collect();
    let arrays: [ArrayRef; 4] = [
        Arc::new(StringArray::from(values.clone())),
        Arc::new(StringViewArray::from(values.clone())),
        Arc::new(dictionary),
        Arc::new(values.iter().map(|value| value.map(str::as_bytes)).collect::<BinaryArray>()),
    ];
    for array in arrays {
        let (array, bad) = column(text.clone(), array);
        assert_eq!((array.as_string::<i32>().iter().collect::<Vec<_>>(), bad.len()), (values.clone(), 0));
    }
    let (_, bad) = column(text.clone(), Arc::new(BinaryArray::from(vec![&b"\xff"[..]])));
    assert_eq!(bad, ["1 value.c: not UTF-8"]);
    let (array, _) = column(text.clone(), Arc::new(TimestampMillisecondArray::from(vec![1500])));
    assert_eq!(array.as_string::<i32>().value(0), "1970-01-01T00:00:01.500000Z");
    let (array, _) = column(text.clone(), Arc::new(arrow::array::Time64MicrosecondArray::from(vec![45_000_000_500])));
    assert_eq!(array.as_string::<i32>().value(0), "12:30:00.000500Z");
    let (array, bad) = column(text, Arc::new(NullArray::new(2)));
    assert_eq!((array.null_count(), bad.len()), (2, 0));
}

#[test]
fn uuids_as_bytes_and_as_text() {
    let uuid = json!({"type": "string", "format": "uuid"});
    let bytes: Vec<u8> = (0..16).collect();
    let arrays: [ArrayRef; 3] = [
        Arc::new(FixedSizeBinaryArray::try_from_iter([&bytes].into_iter()).unwrap()),
        Arc::new(BinaryArray::from(vec![&bytes[..]])),
        Arc::new(StringArray::from(vec!["000102030405060708090A0B0C0D0E0F"])),
    ];
    for array in arrays {
        let (array, bad) = column(uuid.clone(), array);
        assert_eq!((array.as_string::<i32>().value(0), bad.len()), ("00010203-0405-0607-0809-0a0b0c0d0e0f", 0));
    }
    let (_, bad) = column(uuid, Arc::new(StringArray::from(vec!["x"])));
    assert_eq!(bad, ["1 value.c: not a UUID"]);
}

#[test]
fn times_of_any_unit() {
    let time = json!({"type": "string", "format": "date-time"});
    let arrays: [(ArrayRef, i64); 5] = [
        (Arc::new(TimestampMillisecondArray::from(vec![1500])), 1_500_000),
        (Arc::new(TimestampMicrosecondArray::from(vec![1_500_001]).with_timezone("UTC")), 1_500_001),
        (Arc::new(TimestampNanosecondArray::from(vec![1_500_000_999])), 1_500_000),
        (Arc::new(TimestampNanosecondArray::from(vec![-1])), -1),
        (Arc::new(StringArray::from(vec!["1970-01-01T01:00:01.5+01:00"])), 1_500_000),
    ];
    for (array, expected) in arrays {
        let (array, bad) = column(time.clone(), array);
        assert_eq!((array.as_primitive::<TimestampMicrosecondType>().values().to_vec(), bad.len()), (vec![expected], 0));
    }
    let far = TimestampMillisecondArray::from(vec![i64::MAX, 253_402_300_800_000, -62_135_596_800_001]);
    let (_, bad) = column(time.clone(), Arc::new(far));
    assert_eq!(bad.len(), 3);
    let (_, bad) = column(time, Arc::new(Int64Array::from(vec![5])));
    assert_eq!(bad, ["1 value.c: not a time"]);
    let date = json!({"type": "string", "format": "date"});
    let (array, bad) = column(date, Arc::new(arrow::array::Date32Array::from(vec![1, 3_000_000])));
    assert_eq!(array.as_primitive::<Date32Type>().values(), &[1]);
    assert_eq!(bad, ["2 value.c: a year beyond 9999"]);
}

#[test]
fn times_of_96_bits_reach_the_year_9999() {
    let message = "message spark { optional group meta { optional int96 ts; } optional group key { optional binary id (UTF8); }
                   optional group value { optional int96 c; } }";
    let mut bytes = Vec::new();
    let schema = Arc::new(parse_message_type(message).unwrap());
    let mut file = SerializedFileWriter::new(&mut bytes, schema, Arc::new(WriterProperties::new())).unwrap();
    let mut group = file.next_row_group().unwrap();
    // Julian days of 1970-01-01 and 9999-12-31, and nanoseconds of the day.
    let epoch = Int96::from(vec![1_000_001_000, 0, 2_440_588]);
    let last = Int96::from(vec![0, 0, 5_373_484]);
    for values in [vec![epoch, epoch], Vec::new(), vec![epoch, last]] {
        let mut column = group.next_column().unwrap().unwrap();
        if values.is_empty() {
            let ids = [ByteArray::from("a"), ByteArray::from("b")];
            column.typed::<ByteArrayType>().write_batch(&ids, Some(&[2, 2]), None).unwrap();
        } else {
            column.typed::<Int96Type>().write_batch(&values, Some(&[2, 2]), None).unwrap();
        }
        column.close().unwrap();
    }
    group.close().unwrap();
    file.close().unwrap();
    let schema = table(json!({"id": {"type": "string"}}), json!({"c": {"type": "string", "format": "date-time"}}));
    let decoded = read(&schema, Bytes::from(bytes)).unwrap();
    assert_eq!(decoded.bad, []);
    let times = decoded.batch.column_by_name("c").unwrap().as_primitive::<TimestampMicrosecondType>();
    assert_eq!(times.values(), &[1_000_001, 253_402_214_400_000_000]);
    assert_eq!(decoded.batch.column(1).as_primitive::<TimestampMicrosecondType>().values(), &[1_000_001; 2]);
}

#[test]
fn nested_values_of_other_types_are_taken_or_refused() {
    let object =
        json!({"type": "object", "additionalProperties": false, "properties": {"n": {"type": "integer", "format": "int16"}}});
    let members: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(100_000)]));
    let stranger: ArrayRef = Arc::new(StringArray::from(vec!["x", "y", "z"]));
    let array = arrow::array::StructArray::try_from(vec![("n", members), ("stranger", stranger)]).unwrap();
    let (array, bad) = column(object.clone(), Arc::new(array));
    assert_eq!((array.is_valid(0), array.is_valid(1)), (true, false));
    assert_eq!(array.as_struct().column(0).as_primitive::<Int16Type>().value(0), 1);
    assert_eq!(bad, ["3 value.c.n: an integer beyond the range of the column"]);
    let (array, bad) = column(object, Arc::new(StringArray::from(vec!["{\"n\":5}", "{}", "[]", "x"])));
    assert_eq!((array.len(), array.is_valid(0), array.is_valid(1)), (2, true, false));
    assert_eq!(bad.len(), 2);
    // An object in a file where the schema knows no members is JSON text.
    let array = arrow::array::StructArray::try_from(vec![("a", Arc::new(Int32Array::from(vec![1])) as ArrayRef)]).unwrap();
    let (array, bad) = column(json!({"type": "object"}), Arc::new(array));
    assert_eq!((array.as_string::<i32>().value(0), bad.len()), ("{\"a\":1}", 0));
    let list = arrow::array::ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
    let (array, bad) = column(json!({"type": "array", "items": {"type": "string"}}), Arc::new(list));
    assert_eq!(array.as_list::<i32>().value(0).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("1"), None]);
    assert!(array.is_null(1) && bad.is_empty());
}

#[test]
fn bad_rows_are_shown_as_json_and_leave_nothing() {
    let schema = table(
        json!({"id": {"type": "integer"}}),
        json!({"t": {"type": "string"}, "n": {"type": "integer", "format": "int16"}}),
    );
    let file = || {
        write(vec![
            ("meta.ts", Arc::new(TimestampMicrosecondArray::from(vec![Some(0), Some(0), None, Some(0), Some(0)])) as ArrayRef),
            ("meta.action", Arc::new(StringArray::from(vec![Some("U"), Some("D"), None, Some("Q"), None]))),
            ("key.id", Arc::new(Int64Array::from(vec![Some(1), Some(2), Some(3), Some(4), None]))),
            (
                "value.t",
                Arc::new(StringArray::from(vec!["__dap_oversized_truncated__", "x", "y", "z", "__dap_oversized_truncated__"])),
            ),
            ("value.n", Arc::new(Int64Array::from(vec![1, 99_999, 1, 1, 1]))),
        ])
    };
    let decoded = read(&schema, file()).unwrap();
    let seen: Vec<_> = decoded.bad.iter().map(|(error, _)| (error.line, error.column.as_deref().unwrap())).collect();
    assert_eq!(seen, [(3, "meta.ts"), (4, "meta.action"), (5, "key.id")]);
    assert_eq!(decoded.bad[2].1, br#"{"meta.ts":"1970-01-01T00:00:00Z","value.t":"__dap_oversized_truncated__","value.n":1}"#);
    assert_eq!(decoded.counts, DecodeCounts { rows: 2, deletes: 1, bad_rows: 3, oversized: 1, ..DecodeCounts::default() });
    let (mut options, _) = options();
    options.bad_rows = BadRows::Fail;
    let mut batches = super::super::parquet(file(), Arc::new(schema), options).unwrap();
    let error = batches.next().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.get("line"), error.get("column")), (Kind::Data, Some("3"), Some("meta.ts")));
    assert!(batches.next().is_none());
}

#[test]
fn unusable_files_fail_the_table() {
    let schema = everything();
    let ts: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0]));
    let id: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    for (file, column) in [
        (write(vec![("key.id", id.clone()), ("key.part", id.clone())]), "meta.ts"),
        (write(vec![("meta.ts", ts.clone()), ("key.id", id.clone())]), "key.part"),
    ] {
        let error = read(&schema, file).unwrap_err();
        assert_eq!((error.kind(), error.get("column")), (Kind::Data, Some(column)));
    }
    let whole = write(vec![("meta.ts", ts), ("key.id", id.clone()), ("key.part", id.clone()), ("value.unknown", id)]);
    assert_eq!(read(&schema, whole.clone()).unwrap().counts.rows, 1);
    for cut in [0, 3, 8, whole.len() / 2, whole.len() - 1] {
        let error = read(&schema, whole.slice(..cut)).unwrap_err();
        assert_eq!(
            (error.kind(), error.message(), error.get("object")),
            (Kind::Data, "The Parquet file cannot be read", Some("part-1"))
        );
    }
}

#[test]
fn enormous_rows_are_read_a_few_at_a_time() {
    let schema = table(json!({"id": {"type": "integer"}}), json!({"t": {"type": "string"}}));
    let texts: Vec<String> = (0..100).map(|row| char::from(b'a' + row % 26).to_string().repeat(20_000)).collect();
    let file = write(vec![
        ("meta.ts", Arc::new(TimestampMicrosecondArray::from(vec![0; 100])) as ArrayRef),
        ("key.id", Arc::new(Int64Array::from_iter_values(0..100))),
        ("value.t", Arc::new(StringArray::from(texts.clone()))),
    ]);
    let (mut options, _) = options();
    options.batch_bytes = 50_000;
    let batches: Vec<RecordBatch> =
        super::super::parquet(file, Arc::new(schema.clone()), options).unwrap().collect::<Result<_>>().unwrap();
    assert!(batches.iter().all(|batch| batch.num_rows() <= 3));
    let all = concat_batches(&change_schema(&schema, Nested::Typed), &batches).unwrap();
    assert_eq!(all.column_by_name("t").unwrap().as_string::<i32>().iter().map(Option::unwrap).collect::<Vec<_>>(), texts);
}

/// Rows of one value column `c` and how many of each text, in one row group.
fn repeated_texts(properties: WriterProperties, texts: &[(usize, &str)]) -> Bytes {
    let fields = [
        Field::new("meta.ts", TimestampMicrosecondArray::from(vec![0]).data_type().clone(), true),
        Field::new("key.id", DataType::Int64, true),
        Field::new("value.c", DataType::Utf8, true),
    ];
    let schema = Arc::new(arrow::datatypes::Schema::new(fields.to_vec()));
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema.clone(), Some(properties)).unwrap();
    let mut id = 0;
    for (count, text) in texts {
        let mut left = *count;
        while left > 0 {
            let rows = left.min(20);
            let ids = Int64Array::from_iter_values(id..id + rows as i64);
            let columns: Vec<ArrayRef> = vec![
                Arc::new(TimestampMicrosecondArray::from(vec![0; rows])),
                Arc::new(ids),
                Arc::new(StringArray::from(vec![*text; rows])),
            ];
            writer.write(&RecordBatch::try_new(schema.clone(), columns).unwrap()).unwrap();
            id += rows as i64;
            left -= rows;
        }
    }
    writer.close().unwrap();
    Bytes::from(bytes)
}

/// Dictionaries and shared prefixes hide the size of rows, so the number of rows per read depends on their decoded size.
#[test]
fn what_is_read_at_once_follows_the_decoded_size() {
    let schema = table(json!({"id": {"type": "integer"}}), json!({"c": {"type": "string"}}));
    let (long, longer) = ("x".repeat(60_000), "y".repeat(300_000));
    let plain = || WriterProperties::builder().set_max_row_group_row_count(None).set_max_row_group_bytes(None);
    let without_sizes = || plain().set_statistics_enabled(EnabledStatistics::None);
    let prefixes =
        || without_sizes().set_dictionary_enabled(false).set_column_encoding("value.c".into(), Encoding::DELTA_BYTE_ARRAY);
    let files = [
        ("sizes in the footer", repeated_texts(plain().build(), &[(9_000, &long)]), 9_000),
        ("a dictionary", repeated_texts(without_sizes().build(), &[(9_000, &long)]), 9_000),
        ("beyond 31 bits", repeated_texts(without_sizes().build(), &[(7_500, &longer)]), 7_500),
        ("short texts first", repeated_texts(without_sizes().build(), &[(20_000, "a"), (2_000, &longer)]), 22_000),
        ("shared prefixes", repeated_texts(prefixes().build(), &[(2_000, &longer)]), 2_000),
        ("shared prefixes after short texts", repeated_texts(prefixes().build(), &[(20_000, "a"), (300, &longer)]), 20_300),
    ];
    for (name, file, expected) in files {
        assert!(file.len() < 1 << 20, "{name}: {}", file.len());
        let options = DecodeOptions { batch_rows: 8192, batch_bytes: 512 << 10, ..options().0 };
        let mut batches = super::super::parquet(file, Arc::new(schema.clone()), options).unwrap();
        let (mut rows, mut largest) = (0, 0);
        for batch in batches.by_ref() {
            let batch = batch.unwrap();
            rows += batch.num_rows();
            largest = largest.max(batch.get_array_memory_size());
        }
        assert_eq!(rows, expected, "{name}");
        assert!(largest < 2 << 20, "{name}: {largest}");
        // A batch may be larger once, until the size is known.
        let bound = if name == "shared prefixes after short texts" { 90 << 20 } else { 10 << 20 };
        assert!(batches.largest_read() < bound, "{name}: {}", batches.largest_read());
    }
}

#[test]
fn times_of_parquet_outside_the_years_1_to_9999_become_null_on_request() {
    let schema = table(
        json!({"id": {"type": "integer"}}),
        json!({"at": {"type": "string", "format": "date-time"}, "on": {"type": "string", "format": "date"}}),
    );
    let file = write(vec![
        ("meta.ts", Arc::new(TimestampMicrosecondArray::from(vec![0])) as ArrayRef),
        ("key.id", Arc::new(Int64Array::from(vec![7]))),
        ("value.at", Arc::new(TimestampMillisecondArray::from(vec![317_000_000_000_000]))),
        ("value.on", Arc::new(arrow::array::Date32Array::from(vec![-800_000]))),
    ]);
    let read = |out_of_range, bad_rows| {
        let options = DecodeOptions { out_of_range, bad_rows, ..options().0 };
        let mut batches = super::super::parquet(file.clone(), Arc::new(schema.clone()), options).unwrap();
        let all = batches.by_ref().collect::<Result<Vec<_>>>()?;
        Ok::<_, crate::Error>((all, batches.counts().clone()))
    };
    let error = read(OutOfRange::Fail, BadRows::Fail).unwrap_err();
    assert_eq!((error.get("reason"), error.get("key")), (Some("a year beyond 9999"), Some("id=7")));
    let (batches, counts) = read(OutOfRange::Null, BadRows::Fail).unwrap();
    assert_eq!((counts.rows, counts.nulled_times), (1, 2));
    assert!(batches[0].column_by_name("at").unwrap().is_null(0) && batches[0].column_by_name("on").unwrap().is_null(0));
}

/// Row groups of a file that has columns of all the encodings whose decoders are known to panic on damage.
fn fragile(rows: usize, version: WriterVersion) -> Bytes {
    let numbers = || (0..rows).map(|row| row as i64);
    let properties = WriterProperties::builder()
        .set_writer_version(version)
        .set_max_row_group_row_count(Some(40))
        .set_column_dictionary_enabled("value.t".into(), false)
        .set_column_encoding("value.t".into(), Encoding::DELTA_BYTE_ARRAY)
        .set_column_dictionary_enabled("value.l".into(), false)
        .set_column_encoding("value.l".into(), Encoding::DELTA_LENGTH_BYTE_ARRAY)
        .set_column_dictionary_enabled("value.n".into(), false)
        .set_column_encoding("value.n".into(), Encoding::DELTA_BINARY_PACKED)
        .build();
    let decimals = Decimal128Array::from_iter_values(numbers().map(|n| i128::from(n % 23) * 100));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("meta.ts", Arc::new(TimestampMicrosecondArray::from_iter_values(numbers()))),
        ("key.id", Arc::new(Int64Array::from_iter_values(numbers()))),
        ("value.d", Arc::new(decimals.with_precision_and_scale(20, 2).unwrap())),
        ("value.t", Arc::new(StringArray::from_iter_values(numbers().map(|n| format!("text {}", n / 3))))),
        ("value.n", Arc::new(Int64Array::from_iter(numbers().map(|n| (n % 5 > 0).then_some(n * n))))),
        ("value.s", Arc::new(StringArray::from_iter_values(numbers().map(|n| format!("word {}", n % 7))))),
        ("value.l", Arc::new(StringArray::from_iter(numbers().map(|n| (n % 3 > 0).then(|| "long ".repeat(n as usize % 9)))))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    Bytes::from(bytes)
}

const FRAGILE_ROWS: usize = 200;

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]

    /// Either an error or all rows: never fewer, and never a panic.
    #[test]
    fn a_damaged_file_is_an_error_or_whole(
        places in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>(), 1_usize..12), 1..4),
        is_random: bool,
        is_v1: bool,
    ) {
        let schema = table(
            json!({"id": {"type": "integer"}}),
            json!({
                "d": {"type": "number", "multipleOf": 0.01, "exclusiveMinimum": -1e18, "exclusiveMaximum": 1e18},
                "t": {"type": "string"}, "n": {"type": "integer"}, "s": {"type": "string"}, "l": {"type": "string"}
            }),
        );
        let version = if is_v1 { WriterVersion::PARQUET_1_0 } else { WriterVersion::PARQUET_2_0 };
        let mut bytes = fragile(FRAGILE_ROWS, version).to_vec();
        for (place, byte, count) in places {
            let start = place.index(bytes.len());
            let end = (start + count).min(bytes.len());
            bytes[start..end].fill(if is_random { byte } else { 0xff });
        }
        let (options, bad) = options();
        let read = super::super::parquet(Bytes::from(bytes), Arc::new(schema), options)
            .and_then(|batches| batches.map(|batch| batch.map(|batch| batch.num_rows())).sum::<Result<usize>>());
        if let Ok(rows) = read {
            proptest::prop_assert_eq!(rows + bad.lock().unwrap().len(), FRAGILE_ROWS);
        }
    }
}

/// A count of values in a page that is larger than memory is an error; the Parquet library would allocate for it and abort.
#[test]
fn a_page_that_claims_more_values_than_it_has_is_refused() {
    let schema = Arc::new(table(
        json!({"id": {"type": "integer"}}),
        json!({"t": {"type": "string"}, "n": {"type": "integer"}, "l": {"type": "string"}}),
    ));
    let read = |bytes: Vec<u8>| {
        super::super::parquet(Bytes::from(bytes), schema.clone(), options().0)
            .and_then(|batches| batches.map(|batch| batch.map(|batch| batch.num_rows())).sum::<Result<usize>>())
    };
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        let file = fragile(FRAGILE_ROWS, version).to_vec();
        assert_eq!(read(file.clone()).unwrap(), FRAGILE_ROWS);
        // Blocks of 128 values in four parts, then the number of values: the header of delta-encoded integers and lengths.
        let headers: Vec<usize> =
            file.windows(3).enumerate().filter(|(_, bytes)| *bytes == [0x80, 1, 4]).map(|(place, _)| place).collect();
        assert!(headers.len() >= 5 * 3, "three in each of five row groups, not {}", headers.len());
        let mut refused = 0;
        for header in headers {
            for count in [&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f][..], &[0xff, 0xff, 0xff, 0xff, 7], &[41]] {
                let mut damaged = file.clone();
                damaged[header + 3..][..count.len()].copy_from_slice(count);
                match read(damaged) {
                    Ok(rows) => assert_eq!(rows, FRAGILE_ROWS),
                    Err(error) => {
                        assert_eq!((error.kind(), error.get("object")), (Kind::Data, Some("part-1")));
                        refused += 1;
                    }
                }
            }
        }
        assert!(refused >= 5 * 3 * 3, "{refused}");
    }
}

/// The size of an unpacked page is in its header. The Parquet library would allocate up to 2 GiB for it.
#[test]
fn a_page_that_claims_to_be_larger_than_its_column_or_a_limit_is_refused() {
    let schema = Arc::new(table(json!({"id": {"type": "integer"}}), json!({"c": {"type": "string"}})));
    let text = "text ".repeat(300_000);
    let read = |bytes: Vec<u8>, max_page: u64| {
        let options = DecodeOptions { max_page, ..options().0 };
        super::super::parquet(Bytes::from(bytes), schema.clone(), options)
            .and_then(|batches| batches.map(|batch| batch.map(|batch| batch.num_rows())).sum::<Result<usize>>())
    };
    let (gzip, brotli, zstd) = (GzipLevel::default(), BrotliLevel::default(), ZstdLevel::default());
    for compression in [
        Compression::SNAPPY,
        Compression::GZIP(gzip),
        Compression::BROTLI(brotli),
        Compression::LZ4_RAW,
        Compression::ZSTD(zstd),
    ] {
        for (version, has_dictionary) in [(WriterVersion::PARQUET_1_0, false), (WriterVersion::PARQUET_2_0, true)] {
            let properties = WriterProperties::builder()
                .set_writer_version(version)
                .set_compression(compression)
                .set_dictionary_enabled(has_dictionary)
                .set_statistics_enabled(EnabledStatistics::Chunk)
                .build();
            let file = repeated_texts(properties, &[(3, &text)]).to_vec();
            assert_eq!(read(file.clone(), 1 << 30).unwrap(), 3, "{compression:?}");
            let footer = ParquetMetaDataReader::new().parse_and_finish(&Bytes::from(file.clone())).unwrap();
            let chunk = footer.row_group(0).columns().last().unwrap();
            assert_eq!(chunk.column_path().string(), "value.c");
            let (start, _) = chunk.byte_range();
            let start = usize::try_from(start).unwrap();
            // The type of the page, then its size as a variable-length integer of four bytes.
            assert_eq!((file[start], file[start + 2]), (0x15, 0x15));
            let size = start + 3;
            assert!(file[size..size + 3].iter().all(|byte| byte & 0x80 != 0) && file[size + 3] & 0x80 == 0, "{compression:?}");
            let mut damaged = file.clone();
            damaged[size..size + 4].copy_from_slice(&[0xfe, 0xff, 0xff, 0x7f]);
            let error = read(damaged, 1 << 30).unwrap_err();
            let cause = error.causes().join(": ");
            assert_eq!((error.kind(), error.get("object")), (Kind::Data, Some("part-1")));
            assert!(error.get("table").is_some(), "{error:?}");
            assert!(cause.contains("value.c") && cause.contains("claims 134217727 bytes"), "{compression:?}: {cause}");
            // Where the footer agrees, the memory limit is left.
            let error = read(file, 1 << 20).unwrap_err();
            let cause = error.causes().join(": ");
            assert!(cause.contains("value.c") && cause.contains("--memory-limit"), "{compression:?}: {cause}");
        }
    }
}

/// Files that made the decoders of other projects panic; the fuzz target `objects` begins with them.
#[test]
fn the_damaged_files_of_the_corpus_are_refused_or_whole() {
    let schema = table(
        json!({"id": {"type": "integer"}}),
        json!({
            "d": {"type": "number", "multipleOf": 0.01, "exclusiveMinimum": -1e18, "exclusiveMaximum": 1e18},
            "t": {"type": "string"}
        }),
    );
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/objects");
    let (mut refused, mut whole) = (Vec::new(), 0);
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let file = Bytes::from(std::fs::read(&path).unwrap());
        let (options, bad) = options();
        let read = super::super::parquet(file, Arc::new(schema.clone()), options)
            .and_then(|batches| batches.map(|batch| batch.map(|batch| batch.num_rows())).sum::<Result<usize>>());
        match read {
            Ok(rows) => {
                assert_eq!(rows + bad.lock().unwrap().len(), 80, "{}", path.display());
                whole += 1;
            }
            Err(error) => {
                assert_eq!((error.kind(), error.get("object")), (Kind::Data, Some("part-1")), "{}", path.display());
                refused.push(format!("{} {error:?}", path.file_name().unwrap().display()));
            }
        }
    }
    assert!(whole > 0, "{refused:?}");
    let panics = refused.iter().filter(|line| line.contains("panic at parquet-")).count();
    assert!(panics > 0, "{refused:?}");
}
