//! Which values a server can hold.

use super::table::SqlColumn;

/// Values that columns of a server can hold.
pub(in crate::sink::sql) trait ValueLimits {
    /// Whether floating-point columns hold NaN and infinity.
    fn holds_non_finite(&self) -> bool;

    /// Whether floating-point columns hold subnormal numbers. If not, they become zero.
    fn holds_subnormal(&self) -> bool {
        true
    }

    /// Whether strings hold the character NUL. If not, the connection writes U+2400 instead.
    fn holds_nul(&self) -> bool;

    /// Whether the server parses values of such a column as JSON, and so refuses half of a surrogate pair.
    fn is_json(&self, _sql_type: &str) -> bool {
        false
    }

    /// Maximum number of UTF-8 bytes that the column can hold, if the service may send more.
    fn most_bytes(&self, _column: &SqlColumn) -> Option<usize> {
        None
    }

    /// Whether all ways of writing rows refuse a repeated key, so that change sets need no deduplication before.
    fn refuses_duplicates(&self) -> bool {
        false
    }
}
