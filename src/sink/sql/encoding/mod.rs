//! The parts of the encoding of record batches that all databases share: values by type, JSON text, times of day, and checks of a
//! batch's values.

mod inspection;
mod json_text;
mod time_of_day;
mod values;

pub(super) use self::inspection::{
    count_json, count_nul, first_non_finite, flush_subnormal, has_longer, has_more_bytes, key_of, missing_key,
    nullify_non_finite, replace_column, unknown_values,
};
#[cfg(feature = "mysql")]
pub(super) use self::json_text::replace_half_pairs;
#[cfg(feature = "postgres")]
pub(super) use self::json_text::replace_refused_escapes;
pub(super) use self::json_text::{has_half_pair, has_nul};
pub(super) use self::time_of_day::{DAY_MICROS, time_of_day};
pub(super) use self::values::Values;
