//! Names of the columns that every change batch has before the columns of its table.

/// The operation: `U` for upsert or `D` for delete (Utf8, never null).
pub const ACTION: &str = "_action";
/// The commit time on the service (Timestamp(us, "UTC"), never null).
pub const TS: &str = "_ts";
/// The position in the result: object number << 40 | row number (UInt64, never null).
pub const SEQ: &str = "_seq";
