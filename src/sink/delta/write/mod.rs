//! Writing files: Parquet, partitions, deletion vectors, uploads. Commits nothing.

pub(in crate::sink::delta) mod deletion_vectors;
pub(in crate::sink::delta) mod encodings;
pub(in crate::sink::delta) mod parquet_writer;
pub(in crate::sink::delta) mod partition_router;
pub(in crate::sink::delta) mod partitioned_writer;
pub(in crate::sink::delta) mod schema_cast;
pub(in crate::sink::delta) mod upload_buffer;
