//! Names of the columns that every change batch has before the columns of its table.

/// Name of the column of a change batch that says `U` or `D` (Utf8, never null).
pub const ACTION: &str = "_action";
/// Name of the column with the commit time (Timestamp(us, "UTC"), never null).
pub const TS: &str = "_ts";
/// Name of the column with the place in the result (UInt64, never null): object number << 40 | row number.
pub const SEQ: &str = "_seq";
