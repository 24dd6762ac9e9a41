//! Damaged objects: either an error or all rows; never fewer rows, and never a panic.
//!
//! Input that begins like a Parquet file is read unchanged and must give as many rows as its footer promises. In any other input the first
//! bytes select the format, compression, and the number of rows; the rest are edits of four bytes each: two for the position, one for the
//! value, one for the length.
#![no_main]

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use bytes::Bytes;
use daplake::internals::decode::{self, BadRows, DecodeOptions, TextDecoder};
use daplake::internals::fetch::Gunzip;
use daplake::internals::schema::{Nested, TableSchema};
use daplake::{Format, TableRef};
use flate2::Compression;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;
use parquet::arrow::ArrowWriter;
use parquet::basic::Encoding;
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::properties::{WriterProperties, WriterVersion};
use serde_json::json;

static SCHEMA: LazyLock<Arc<TableSchema>> = LazyLock::new(|| {
    let source = json!({"properties": {
        "key": {"properties": {"id": {"type": "integer", "format": "int64"}}, "required": ["id"]},
        "value": {"properties": {
            "d": {"type": "number", "multipleOf": 0.01, "exclusiveMinimum": -1e18, "exclusiveMaximum": 1e18},
            "t": {"type": "string"},
        }},
    }});
    Arc::new(TableSchema::read(&TableRef::new("canvas", "t"), 1, source).expect("the schema is fine"))
});

/// Options that set rows aside, and the number of these rows.
fn options() -> (DecodeOptions, Arc<AtomicU64>) {
    let bad = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&bad);
    let options = DecodeOptions {
        batch_rows: 7,
        batch_bytes: 4096,
        max_line: 4096,
        nested: Nested::Typed,
        bad_rows: BadRows::SetAside(Arc::new(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })),
        names_keys: false,
        ..DecodeOptions::new(0, "fuzz")
    };
    (options, bad)
}

/// The number of rows of an object, including those set aside.
fn parquet_rows(bytes: &[u8]) -> Option<u64> {
    let (options, bad) = options();
    let batches = decode::parquet(Bytes::copy_from_slice(bytes), Arc::clone(&SCHEMA), options).ok()?;
    let rows = batches.map(|batch| batch.map(|batch| batch.num_rows() as u64)).sum::<daplake::Result<u64>>().ok()?;
    Some(rows + bad.load(Ordering::Relaxed))
}

fn text_rows(format: Format, text: &[u8]) -> Option<u64> {
    let (options, bad) = options();
    let mut decoder = TextDecoder::new(Arc::clone(&SCHEMA), format, options).expect("the options are fine");
    let mut batches = Vec::new();
    decoder.push(text, &mut batches).and_then(|()| decoder.finish(&mut batches)).ok()?;
    let rows: u64 = batches.iter().map(|batch: &RecordBatch| batch.num_rows() as u64).sum();
    Some(rows + bad.load(Ordering::Relaxed))
}

fn text(format: Format, rows: u64) -> Vec<u8> {
    let line = |id: u64| match format {
        Format::Tsv => format!("{id}\t2024-01-01T00:00:00Z\t{id}.25\ttext {id}\n"),
        _ => format!(
            "{{\"key\":{{\"id\":{id}}},\"value\":{{\"d\":{id}.25,\"t\":\"text {id}\"}},\"meta\":{{\"ts\":\"2024-01-01T00:00:00Z\"}}}}\n"
        ),
    };
    let header = if format == Format::Tsv { "key.id\tmeta.ts\tvalue.d\tvalue.t\n" } else { "" };
    (header.to_owned() + &(0..rows).map(line).collect::<String>()).into_bytes()
}

fn parquet_file(rows: u64) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_max_row_group_row_count(Some(20))
        .set_column_dictionary_enabled("value.t".into(), false)
        .set_column_encoding("value.t".into(), Encoding::DELTA_BYTE_ARRAY);
    let numbers = || 0..rows as i64;
    let decimals = Decimal128Array::from_iter_values(numbers().map(|n| i128::from(n % 13) * 25));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("meta.ts", Arc::new(TimestampMicrosecondArray::from_iter_values(numbers()))),
        ("key.id", Arc::new(Int64Array::from_iter_values(numbers()))),
        ("value.d", Arc::new(decimals.with_precision_and_scale(20, 2).expect("a fitting precision"))),
        ("value.t", Arc::new(StringArray::from_iter_values(numbers().map(|n| format!("text {}", n / 3))))),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.build())).expect("a writer");
    writer.write(&batch).expect("rows");
    writer.into_inner().expect("a file")
}

fn damage(bytes: &mut [u8], damages: &[u8]) {
    for step in damages.chunks_exact(4).take(4) {
        let place = usize::from(u16::from_le_bytes([step[0], step[1]])) % bytes.len().max(1);
        let end = (place + usize::from(step[3] % 16) + 1).min(bytes.len());
        bytes[place..end].fill(step[2]);
    }
}

/// The number of rows in text: in formats without quotes, each line is a record.
fn lines(format: Format, text: &[u8]) -> u64 {
    let is_blank = |line: &&[u8]| line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
    let is_empty = |line: &&[u8]| matches!(line, [] | [b'\r']);
    let lines = text.split(|byte| *byte == b'\n').skip(usize::from(format == Format::Tsv));
    lines.filter(|line| if format == Format::Tsv { !is_empty(line) } else { !is_blank(line) }).count() as u64
}

fuzz_target!(|data: &[u8]| {
    if data.starts_with(b"PAR1") {
        let mut reader = ParquetMetaDataReader::new();
        let parsed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            reader.try_parse(&Bytes::copy_from_slice(data)).and_then(|()| reader.finish())
        }));
        let promised = parsed.ok().and_then(Result::ok).map(|metadata| metadata.file_metadata().num_rows() as u64);
        if let Some(rows) = parquet_rows(data) {
            assert_eq!(Some(rows), promised);
        }
        return;
    }
    let [kind, rows, damages @ ..] = data else { return };
    let rows = u64::from(*rows % 60) + 1;
    match kind % 5 {
        0 => {
            let mut file = parquet_file(rows);
            damage(&mut file, damages);
            assert!(parquet_rows(&file).is_none_or(|read| read == rows));
        }
        kind @ (1 | 2) => {
            let format = if kind == 1 { Format::Jsonl } else { Format::Tsv };
            let whole = text(format, rows);
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            let mut packed = encoder.write_all(&whole).and_then(|()| encoder.finish()).expect("memory is enough");
            damage(&mut packed, damages);
            let (mut gunzip, mut unpacked) = (Gunzip::default(), Vec::new());
            if gunzip.push(&packed, &mut unpacked).and_then(|()| gunzip.finish()).is_ok() {
                assert_eq!(unpacked, whole);
                assert_eq!(text_rows(format, &unpacked), Some(rows));
            }
        }
        kind => {
            let format = if kind == 3 { Format::Jsonl } else { Format::Tsv };
            let mut text = text(format, rows);
            damage(&mut text, damages);
            if let Some(read) = text_rows(format, &text) {
                assert_eq!(read, lines(format, &text));
            }
        }
    }
});
