//! A Puffin file with the deletion vectors of one commit. No I/O.
//!
//! The blob of a vector has the same bytes as the vector in a Delta file: size, magic number, bitmap and CRC-32.

use serde_json::{Value, json};

use super::manifest::VectorReference;
use crate::sink::delta::write::deletion_vectors;

const MAGIC: &[u8] = b"PFA1";
/// Id of the virtual column for the position of a row.
const ROW_POSITION: i32 = 2_147_483_645;

/// A Puffin file that is being written.
pub(super) struct PuffinFile {
    bytes: Vec<u8>,
    blobs: Vec<Value>,
}

impl PuffinFile {
    pub(super) fn new() -> Self {
        Self { bytes: MAGIC.to_vec(), blobs: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// Adds the vector of a data file. `encoded` is the bitmap with its magic number.
    pub(super) fn push(&mut self, data_file: String, rows: i64, encoded: &[u8]) -> VectorReference {
        let offset = self.bytes.len();
        deletion_vectors::frame(encoded, &mut self.bytes);
        let length = self.bytes.len() - offset;
        self.blobs.push(json!({
            "type": "deletion-vector-v1",
            "fields": [ROW_POSITION],
            "snapshot-id": -1,
            "sequence-number": -1,
            "offset": offset,
            "length": length,
            "properties": {"referenced-data-file": data_file, "cardinality": rows.to_string()},
        }));
        VectorReference { data_file, offset: offset as i64, length: length as i64 }
    }

    /// The bytes of the file.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let footer = json!({
            "blobs": self.blobs,
            "properties": {"created-by": concat!("daplake ", env!("CARGO_PKG_VERSION"))},
        });
        let footer = footer.to_string();
        self.bytes.extend_from_slice(MAGIC);
        self.bytes.extend_from_slice(footer.as_bytes());
        self.bytes.extend_from_slice(&(footer.len() as u32).to_le_bytes());
        // No flags: the footer is not compressed.
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(MAGIC);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_blobs_and_a_footer() {
        let mut file = PuffinFile::new();
        let blob = file.push("a.parquet".to_owned(), 2, b"bitmap");
        assert_eq!((blob.offset, blob.length), (4, 14));
        let bytes = file.finish();
        assert_eq!(&bytes[..4], MAGIC);
        assert_eq!(&bytes[4..8], [0, 0, 0, 6]);
        assert_eq!(&bytes[bytes.len() - 4..], MAGIC);
        let size = u32::from_le_bytes(bytes[bytes.len() - 12..bytes.len() - 8].try_into().unwrap()) as usize;
        let footer = &bytes[bytes.len() - 12 - size..bytes.len() - 12];
        let footer: Value = serde_json::from_slice(footer).unwrap();
        assert_eq!(footer["blobs"][0]["properties"]["cardinality"], "2");
        assert_eq!(&bytes[bytes.len() - 16 - size..bytes.len() - 12 - size], MAGIC);
    }
}
