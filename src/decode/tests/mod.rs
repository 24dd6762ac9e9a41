//! Tests of whole decoders: rules with hand-written rows, and properties over random rows in all formats and modes.

mod files;
mod model;
mod properties;
mod rules;
mod tables;

use std::sync::{Arc, Mutex};

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;

use super::*;
use crate::model::Format;
use crate::schema::{TableSchema, change_schema};

/// The output of a decoder.
#[derive(Debug)]
struct Decoded {
    /// All rows in one batch.
    batch: RecordBatch,
    /// The number of rows of each batch.
    sizes: Vec<usize>,
    counts: DecodeCounts,
    bad: Vec<BadRow>,
}

type BadRow = (RowError, Vec<u8>);

/// Options for tests, and the list that receives unreadable rows.
fn options() -> (DecodeOptions, Arc<Mutex<Vec<BadRow>>>) {
    let bad = Arc::new(Mutex::new(Vec::new()));
    let taken = bad.clone();
    let take = move |error: &RowError, raw: &[u8]| {
        taken.lock().unwrap().push((error.clone(), raw.to_vec()));
        Ok(())
    };
    let options = DecodeOptions {
        object_number: 3,
        object_name: "part-1".to_owned(),
        batch_rows: 1000,
        batch_bytes: 1 << 20,
        max_page: 1 << 30,
        max_line: 1 << 20,
        nested: Nested::Typed,
        bad_rows: BadRows::SetAside(Arc::new(take)),
        out_of_range: OutOfRange::Fail,
        names_keys: true,
        needs_action: false,
        needs_required: false,
    };
    (options, bad)
}

/// Decodes `parts`, which are pushed one after the other.
fn decode_parts<'p>(
    schema: &TableSchema,
    format: Format,
    parts: impl IntoIterator<Item = &'p [u8]>,
    change: impl FnOnce(&mut DecodeOptions),
) -> Result<Decoded> {
    let (mut options, bad) = options();
    change(&mut options);
    let target = change_schema(schema, options.nested);
    let mut decoder = TextDecoder::new(Arc::new(schema.clone()), format, options)?;
    let mut batches = Vec::new();
    for part in parts {
        decoder.push(part, &mut batches)?;
    }
    decoder.finish(&mut batches)?;
    let bad = bad.lock().unwrap().clone();
    let sizes = batches.iter().map(RecordBatch::num_rows).collect();
    Ok(Decoded { batch: concat_batches(&target, &batches).unwrap(), sizes, counts: decoder.counts().clone(), bad })
}

fn decode(schema: &TableSchema, format: Format, text: &str) -> Decoded {
    decode_parts(schema, format, [text.as_bytes()], |_| {}).unwrap()
}

/// The error of a decoder that does not set rows aside.
fn failure(schema: &TableSchema, format: Format, text: &str) -> crate::Error {
    decode_parts(schema, format, [text.as_bytes()], |options| options.bad_rows = BadRows::Fail).unwrap_err()
}

#[test]
fn decoders_may_move_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<TextDecoder>();
    is_send::<ParquetBatches>();
}
