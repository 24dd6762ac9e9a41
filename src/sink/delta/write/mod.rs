//! Writing files: Parquet, partitions, deletion vectors, uploads. Commits nothing.

pub(crate) mod deletion_vectors;
pub(crate) mod encodings;
pub(crate) mod parquet_writer;
pub(crate) mod partition_router;
pub(crate) mod partition_spill;
pub(crate) mod partitioned_writer;
pub(crate) mod partitioning;
pub(crate) mod schema_cast;
pub(crate) mod uncommitted_files;
pub(crate) mod upload_buffer;
