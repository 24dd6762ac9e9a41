//! Any bytes as JSONL, CSV or TSV of a table with every type: no panic, and the same rows, counts and errors for any split of the input.
//!
//! The first byte selects the format and the form of nested columns, the second the positions of the splits.
#![no_main]

use std::sync::{Arc, LazyLock, Mutex};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use daplake::internals::decode::{BadRows, DecodeCounts, DecodeOptions, RowError, TextDecoder};
use daplake::internals::schema::{Nested, TableSchema};
use daplake::{Format, TableRef};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

static SCHEMA: LazyLock<Arc<TableSchema>> = LazyLock::new(|| {
    let source = json!({"properties": {
        "key": {"properties": {
            "id": {"type": "integer", "format": "int64"},
            "name": {"type": "string"},
        }, "required": ["id", "name"]},
        "value": {"properties": {
            "flag": {"type": "boolean"},
            "small": {"type": "integer", "format": "int16"},
            "whole": {"type": "integer", "format": "int32"},
            "number": {"type": "number", "format": "float64"},
            "single": {"type": "number", "format": "float32"},
            "price": {"type": "number", "minimum": -10000, "maximum": 10000, "exclusiveMaximum": 10000, "multipleOf": 0.01},
            "text": {"type": "string"},
            "state": {"type": "string", "enum": ["open", "closed"]},
            "moment": {"type": "string", "format": "date-time"},
            "day": {"type": "string", "format": "date"},
            "clock": {"type": "string", "format": "time"},
            "uuid": {"type": "string", "format": "uuid"},
            "numbers": {"type": "array", "items": {"type": "integer", "format": "int64"}},
            "words": {"type": "array", "items": {"type": "string"}},
            "inner": {"type": "object", "properties": {
                "a": {"type": "integer", "format": "int64"},
                "b": {"type": "string"},
                "c": {"type": "object", "properties": {"d": {"type": "boolean"}}},
            }},
            "anything": {"type": "object"},
        }, "required": ["text"]},
    }});
    Arc::new(TableSchema::read(&TableRef::new("canvas", "everything"), 1, source).expect("the schema is fine"))
});

#[derive(Debug, PartialEq)]
struct Seen {
    rows: Option<RecordBatch>,
    counts: DecodeCounts,
    bad: Vec<(RowError, Vec<u8>)>,
    error: Option<String>,
}

fn read(format: Format, nested: Nested, pieces: &[&[u8]]) -> Seen {
    let bad = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&bad);
    let options = DecodeOptions {
        batch_rows: 7,
        batch_bytes: 4096,
        max_line: 4096,
        names_keys: false,
        nested,
        bad_rows: BadRows::SetAside(Arc::new(move |error, row| {
            taken.lock().expect("no panic before").push((error.clone(), row.to_vec()));
            Ok(())
        })),
        ..DecodeOptions::new(0, "fuzz")
    };
    let mut decoder = TextDecoder::new(Arc::clone(&SCHEMA), format, options).expect("the options are fine");
    let mut batches = Vec::new();
    let mut work = || {
        for piece in pieces {
            decoder.push(piece, &mut batches)?;
        }
        decoder.finish(&mut batches)
    };
    let error = work().err().map(|error| error.to_string());
    let counts = decoder.counts().clone();
    let rows = batches.first().map(|first| concat_batches(first.schema_ref(), &batches).expect("one schema"));
    if error.is_none() {
        assert_eq!(rows.as_ref().map_or(0, RecordBatch::num_rows) as u64, counts.rows);
    }
    let bad = std::mem::take(&mut *bad.lock().expect("no panic before"));
    Seen { rows, counts, bad, error }
}

fuzz_target!(|data: &[u8]| {
    let [how, cut, bytes @ ..] = data else { return };
    let format = [Format::Jsonl, Format::Csv, Format::Tsv][usize::from(how % 3)];
    let nested = if how & 0x80 == 0 { Nested::Typed } else { Nested::Json };
    let whole = read(format, nested, &[bytes]);
    let pieces: Vec<&[u8]> = bytes.chunks(usize::from(*cut).max(1)).collect();
    let parts = read(format, nested, &pieces);
    // After an error the batches that were returned before it may differ.
    if whole.error.is_none() || parts.error.is_none() {
        assert_eq!(whole, parts);
    }
});
