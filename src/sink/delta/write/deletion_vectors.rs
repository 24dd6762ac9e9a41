//! Encodes and decodes deletion vectors: bitmaps of the deleted rows of a data file ("Deletion Vector Format" of the Delta
//! protocol).
//!
//! A vector is a magic number and a roaring bitmap of 64-bit row numbers in portable form. Small vectors are inline in the log. The
//! other vectors of a commit share one file: a version byte, then for each vector its size, its bytes and their CRC-32.

use std::sync::Arc;

use deltalake::ObjectStore;
use deltalake::kernel::{DeletionVectorDescriptor, StorageType};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use roaring::{RoaringBitmap, RoaringTreemap};
use uuid::Uuid;

use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::sink::delta::write::uncommitted_files::FileRegistry;

/// Magic number of a roaring bitmap array in portable form.
const MAGIC: u32 = 1_681_511_377;
/// Version of the file format.
const FILE_VERSION: u8 = 1;
/// Maximum size in bytes of an inline vector: readers save a request, and the log hardly grows.
const INLINE_BYTES: usize = 192;
/// Length in characters of a file's id in a descriptor.
const ID_LENGTH: usize = 20;

/// The file with the deletion vectors of one commit.
#[derive(Debug)]
pub(crate) struct VectorFile {
    id: Uuid,
    bytes: Vec<u8>,
}

impl VectorFile {
    /// A file without vectors.
    pub(crate) fn new() -> Self {
        Self { id: Uuid::new_v4(), bytes: vec![FILE_VERSION] }
    }

    /// Adds a vector of deleted rows and returns its descriptor for the log. Kind `Unsupported` if it is too large.
    pub(crate) fn push(&mut self, rows: &RoaringBitmap) -> Result<DeletionVectorDescriptor> {
        let encoded = encode(rows)?;
        let too_large = || Error::new(Kind::Unsupported, "A deletion vector is too large");
        let size_in_bytes = i32::try_from(encoded.len()).map_err(|_| too_large())?;
        let cardinality = rows.len() as i64;
        if encoded.len() <= INLINE_BYTES {
            let mut padded = encoded;
            padded.resize(padded.len().next_multiple_of(4), 0);
            return Ok(DeletionVectorDescriptor {
                storage_type: StorageType::Inline,
                path_or_inline_dv: z85_encode(&padded),
                offset: None,
                size_in_bytes,
                cardinality,
            });
        }
        let offset = i32::try_from(self.bytes.len()).map_err(|_| too_large())?;
        frame(&encoded, &mut self.bytes);
        Ok(DeletionVectorDescriptor {
            storage_type: StorageType::UuidRelativePath,
            path_or_inline_dv: z85_encode(self.id.as_bytes()),
            offset: Some(offset),
            size_in_bytes,
            cardinality,
        })
    }

    /// Writes the file, unless all vectors are inline, and returns its size in bytes. The file is added to `registry` first.
    pub(crate) async fn finish(self, store: &Arc<dyn ObjectStore>, registry: &FileRegistry) -> Result<u64> {
        if self.bytes.len() == 1 {
            return Ok(0);
        }
        let name = file_name("", &self.id);
        registry.add(&name);
        let size = self.bytes.len() as u64;
        let put = store.put(&Path::from(name.as_str()), PutPayload::from(self.bytes)).await;
        put.context(Kind::Target, "A deletion vector cannot be written").with_field("file", name)?;
        Ok(size)
    }
}

/// Adds an encoded vector to a file: its size, its bytes and their CRC-32.
pub(crate) fn frame(encoded: &[u8], file: &mut Vec<u8>) {
    file.extend_from_slice(&(encoded.len() as u32).to_be_bytes());
    file.extend_from_slice(encoded);
    file.extend_from_slice(&crc32fast::hash(encoded).to_be_bytes());
}

/// Reads a vector: the positions of the deleted rows. Kind `Target` if it cannot be read or is damaged.
pub(crate) async fn read(store: &Arc<dyn ObjectStore>, vector: &DeletionVectorDescriptor) -> Result<RoaringBitmap> {
    let rows = decode(&read_encoded(store, vector).await?).map_err(|error| match file_of(vector) {
        Some(file) => error.with_field("file", file),
        None => error,
    })?;
    if rows.len() as i64 != vector.cardinality {
        return Err(Error::new(Kind::Target, "The number of rows in a deletion vector differs from the log"));
    }
    Ok(rows)
}

/// Reads a vector in its encoded form: magic number and bitmap. Kind `Target` if it cannot be read or does not match its checksum.
pub(crate) async fn read_encoded(store: &Arc<dyn ObjectStore>, vector: &DeletionVectorDescriptor) -> Result<Vec<u8>> {
    let broken = |message: &'static str| Error::new(Kind::Target, message);
    let size = usize::try_from(vector.size_in_bytes).map_err(|_| broken("The size of a deletion vector is invalid"))?;
    match vector.storage_type {
        StorageType::Inline => {
            let bytes = z85_decode(&vector.path_or_inline_dv);
            let bytes = bytes.ok_or_else(|| broken("An inline deletion vector cannot be read"))?;
            Ok(bytes.get(..size.min(bytes.len())).unwrap_or_default().to_vec())
        }
        StorageType::UuidRelativePath => {
            let name = relative_name(&vector.path_or_inline_dv);
            let name = name.ok_or_else(|| broken("The name of a deletion vector file cannot be read"))?;
            // The version byte of the file is not read: magic number and checksum are enough.
            let start =
                u64::try_from(vector.offset.unwrap_or(1)).map_err(|_| broken("The offset of a deletion vector is invalid"))?;
            let read = store.get_range(&Path::from(name.as_str()), start..start + size as u64 + 8).await;
            let bytes = read.context(Kind::Target, "A deletion vector cannot be read").with_field("file", &name)?;
            unframe(&bytes, size).map(<[u8]>::to_vec).with_field("file", &name)
        }
        StorageType::AbsolutePath => Err(broken("The table has deletion vectors outside of its folder")
            .hint("the table is a shallow clone; load into a new target")),
    }
}

/// Path in the table's folder of the file that holds a vector; `None` for an inline vector.
pub(crate) fn file_of(vector: &DeletionVectorDescriptor) -> Option<String> {
    match vector.storage_type {
        StorageType::UuidRelativePath => relative_name(&vector.path_or_inline_dv),
        StorageType::Inline | StorageType::AbsolutePath => None,
    }
}

fn relative_name(text: &str) -> Option<String> {
    let cut = text.len().checked_sub(ID_LENGTH)?;
    let (prefix, id) = (text.get(..cut)?, text.get(cut..)?);
    Some(file_name(prefix, &Uuid::from_slice(&z85_decode(id)?).ok()?))
}

fn file_name(prefix: &str, id: &Uuid) -> String {
    let slash = if prefix.is_empty() { "" } else { "/" };
    format!("{prefix}{slash}deletion_vector_{id}.bin")
}

fn encode(rows: &RoaringBitmap) -> Result<Vec<u8>> {
    let mut rows = rows.clone();
    rows.optimize();
    let rows = RoaringTreemap::from_bitmaps([(0, rows)]);
    let mut bytes = Vec::with_capacity(4 + rows.serialized_size());
    bytes.extend_from_slice(&MAGIC.to_le_bytes());
    rows.serialize_into(&mut bytes).context(Kind::Bug, "A deletion vector cannot be encoded")?;
    Ok(bytes)
}

/// The bytes of a vector without size and checksum, which are verified.
fn unframe(framed: &[u8], size: usize) -> Result<&[u8]> {
    let parts = framed.split_first_chunk::<4>().and_then(|(size, rest)| Some((size, rest.split_last_chunk::<4>()?)));
    let Some((found, (bytes, sum))) = parts else {
        return Err(Error::new(Kind::Target, "A deletion vector file is truncated"));
    };
    if u32::from_be_bytes(*found) as usize != size || bytes.len() != size {
        return Err(Error::new(Kind::Target, "The size of a deletion vector differs from the log"));
    }
    if u32::from_be_bytes(*sum) != crc32fast::hash(bytes) {
        return Err(Error::new(Kind::Target, "A deletion vector does not match its checksum"));
    }
    Ok(bytes)
}

/// A vector with its size and checksum.
#[cfg(test)]
pub(crate) fn read_framed(framed: &[u8]) -> Result<RoaringBitmap> {
    decode(unframe(framed, framed.len() - 8)?)
}

fn decode(bytes: &[u8]) -> Result<RoaringBitmap> {
    let broken = || Error::new(Kind::Target, "A deletion vector cannot be decoded");
    let (magic, rest) = bytes.split_first_chunk::<4>().ok_or_else(broken)?;
    if u32::from_le_bytes(*magic) != MAGIC {
        return Err(broken());
    }
    let rows = RoaringTreemap::deserialize_from(rest).map_err(|error| broken().caused_by(error))?;
    let mut low = RoaringBitmap::new();
    for (high, rows) in rows.bitmaps() {
        if high != 0 {
            return Err(Error::new(Kind::Unsupported, "A data file has too many rows"));
        }
        low |= rows;
    }
    Ok(low)
}

const Z85: &[u8; 85] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/// Encodes bytes, whose number must be a multiple of four, in the protocol's "base85".
fn z85_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() / 4 * 5);
    for chunk in bytes.as_chunks::<4>().0 {
        let word = u32::from_be_bytes(*chunk);
        let digits = [85_u32.pow(4), 85_u32.pow(3), 85_u32.pow(2), 85, 1].map(|power| Z85[(word / power % 85) as usize]);
        text.extend(digits.map(char::from));
    }
    text
}

fn z85_decode(text: &str) -> Option<Vec<u8>> {
    let (chunks, rest) = text.as_bytes().as_chunks::<5>();
    if !rest.is_empty() {
        return None;
    }
    let mut bytes = Vec::with_capacity(chunks.len() * 4);
    for chunk in chunks {
        let mut word = 0_u64;
        for digit in chunk {
            word = word * 85 + Z85.iter().position(|known| known == digit)? as u64;
        }
        bytes.extend_from_slice(&u32::try_from(word).ok()?.to_be_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;
    use proptest::prelude::*;

    fn store() -> Arc<dyn ObjectStore> {
        Arc::new(InMemory::new())
    }

    #[test]
    fn base85_matches_the_protocol() {
        // From the ZeroMQ specification, and the example of the Delta protocol.
        assert_eq!(z85_encode(&[0x86, 0x4F, 0xD2, 0x6F, 0xB5, 0x59, 0xF7, 0x5B]), "HelloWorld");
        assert_eq!(
            relative_name("ab^-aqEH.-t@S}K{vb[*k^").unwrap(),
            "ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin"
        );
        assert_eq!(relative_name("too short"), None);
        assert_eq!(z85_decode("HelloWorl"), None);
        assert_eq!(z85_decode("Hello\"orld"), None);
        assert_eq!(z85_decode("#####"), None, "exceeds 32 bits");
    }

    #[tokio::test]
    async fn the_example_vector_of_the_protocol_is_read() {
        // The example of the Delta protocol: rows 3, 4, 7, 11, 18, 29.
        let vector = DeletionVectorDescriptor {
            storage_type: StorageType::Inline,
            path_or_inline_dv: "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L".into(),
            offset: None,
            size_in_bytes: 44,
            cardinality: 6,
        };
        let rows = read(&store(), &vector).await.unwrap();
        assert_eq!(rows.iter().collect::<Vec<_>>(), [3, 4, 7, 11, 18, 29]);
        let wrong = DeletionVectorDescriptor { cardinality: 5, ..vector };
        assert_eq!(read(&store(), &wrong).await.unwrap_err().kind(), Kind::Target);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn vectors_of_a_commit_survive_a_round_trip(
            vectors in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(0..100_u32, 0..20),
                    prop::collection::vec(any::<u32>(), 0..300),
                    (any::<u16>(), 0..3000_u32).prop_map(|(from, rows)| (u32::from(from)..u32::from(from) + rows).collect()),
                ],
                0..6,
            )
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (store, registry) = (store(), FileRegistry::default());
                let mut file = VectorFile::new();
                let vectors: Vec<RoaringBitmap> = vectors.into_iter().map(RoaringBitmap::from_iter).collect();
                let descriptors: Vec<_> = vectors.iter().map(|rows| file.push(rows).unwrap()).collect();
                let bytes = file.finish(&store, &registry).await.unwrap();
                prop_assert_eq!(bytes > 0, descriptors.iter().any(|vector| file_of(vector).is_some()));
                for (rows, vector) in vectors.iter().zip(&descriptors) {
                    prop_assert_eq!(&read(&store, vector).await.unwrap(), rows);
                }
                Ok(())
            })?;
        }

        #[test]
        fn invalid_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..60), size in 0..80_usize) {
            let _ = decode(&bytes);
            let _ = unframe(&bytes, size);
            prop_assert_eq!(z85_decode(&z85_encode(&bytes)).unwrap(), &bytes[..bytes.len() / 4 * 4]);
        }
    }

    #[tokio::test]
    async fn a_changed_byte_is_detected() {
        let store = store();
        let mut file = VectorFile::new();
        let vector = file.push(&(0..40_000).step_by(3).collect()).unwrap();
        let name = file_of(&vector).unwrap();
        file.bytes[1000] ^= 1;
        file.finish(&store, &FileRegistry::default()).await.unwrap();
        let error = read(&store, &vector).await.unwrap_err();
        assert!(error.message().contains("checksum"), "{error:?}");
        assert_eq!(error.get("file"), Some(name.as_str()));
    }
}
