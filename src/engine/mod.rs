//! DataFusion as this program uses it: one session with a memory limit, spill files, sorting, and streams of record batches of bounded size.

mod external_sorter;
mod segment_file;
mod session;
mod sort;
mod spill;
mod spill_buffer;
mod streams;
mod tables;

pub use external_sorter::ExternalSorter;
pub(crate) use segment_file::{Segment, SegmentEncoder, SegmentFile};
pub use session::{Engine, EngineOptions, engine_error};
pub use sort::sort_by_columns;
pub(crate) use sort::sorted_plan;
pub use spill_buffer::SpillBuffer;
pub(crate) use streams::{BatchSender, count_rows, share_batches, stream_from_task, streams_from_tasks};
pub use streams::{batch_stream, combine_streams, rebatch, split_batch};
pub use tables::streaming_table;
