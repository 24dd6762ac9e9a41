//! Column statistics of a data file: from the JSON of the Delta log to the counts and binary bounds of an Iceberg manifest. No I/O.
//!
//! A value that cannot be converted has no bound. Bounds may be wider than the values, never narrower.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::schema::{Field, Type, decimal};

/// The members of a statistics object. Raw, because a number may be a decimal of 38 digits.
type Members<'a> = BTreeMap<String, &'a RawValue>;

/// Some writers truncate timestamps to milliseconds.
const TRUNCATED_MICROS: i64 = 999;

/// Statistics of a data file by field id.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Metrics {
    pub(super) rows: Option<i64>,
    pub(super) value_counts: Vec<(i32, i64)>,
    pub(super) null_counts: Vec<(i32, i64)>,
    pub(super) lower: Vec<(i32, Vec<u8>)>,
    pub(super) upper: Vec<(i32, Vec<u8>)>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Stats<'a> {
    num_records: Option<i64>,
    #[serde(borrow)]
    min_values: Option<&'a RawValue>,
    #[serde(borrow)]
    max_values: Option<&'a RawValue>,
    #[serde(borrow)]
    null_count: Option<&'a RawValue>,
}

impl Metrics {
    /// The statistics of a file with these fields.
    pub(super) fn new(fields: &[Field], stats: Option<&str>) -> Self {
        let stats: Stats<'_> = stats.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let mut metrics = Self { rows: stats.num_records, ..Self::default() };
        metrics.add(fields, stats.min_values, stats.max_values, stats.null_count);
        metrics
    }

    fn add(&mut self, fields: &[Field], min: Option<&RawValue>, max: Option<&RawValue>, nulls: Option<&RawValue>) {
        let (min, max, nulls) = (members(min), members(max), members(nulls));
        for field in fields {
            let name = field.physical();
            let (min, max, nulls) = (min.get(name).copied(), max.get(name).copied(), nulls.get(name).copied());
            match &field.kind {
                Type::Struct(inner) => self.add(inner, min, max, nulls),
                Type::List { .. } => {}
                Type::Primitive(kind) => {
                    if let (Some(rows), Some(nulls)) = (self.rows, nulls.and_then(|nulls| nulls.get().parse().ok())) {
                        self.value_counts.push((field.id, rows));
                        self.null_counts.push((field.id, nulls));
                    }
                    self.lower.extend(min.and_then(|value| bound(kind, value.get(), 0)).map(|bound| (field.id, bound)));
                    let max = max.and_then(|value| bound(kind, value.get(), TRUNCATED_MICROS));
                    self.upper.extend(max.map(|bound| (field.id, bound)));
                }
            }
        }
    }
}

fn members(object: Option<&RawValue>) -> Members<'_> {
    object.and_then(|object| serde_json::from_str(object.get()).ok()).unwrap_or_default()
}

/// A value in Iceberg's binary form. `micros` is added to timestamps.
fn bound(kind: &str, json: &str, micros: i64) -> Option<Vec<u8>> {
    let text = || serde_json::from_str::<String>(json).ok();
    Some(match kind {
        "int" => json.parse::<i32>().ok()?.to_le_bytes().to_vec(),
        "long" => json.parse::<i64>().ok()?.to_le_bytes().to_vec(),
        "float" => (json.parse::<f64>().ok()? as f32).to_le_bytes().to_vec(),
        "double" => json.parse::<f64>().ok()?.to_le_bytes().to_vec(),
        "string" => text()?.into_bytes(),
        "date" => days(&text()?)?.to_le_bytes().to_vec(),
        "timestamptz" => {
            let time = DateTime::parse_from_rfc3339(&text()?).ok()?;
            time.timestamp_micros().checked_add(micros)?.to_le_bytes().to_vec()
        }
        _ => unscaled(json, decimal(kind)?.1)?,
    })
}

/// Days since 1970 of a date such as `2026-01-31`.
pub(super) fn days(date: &str) -> Option<i32> {
    date.parse::<NaiveDate>().ok().map(|date| date.to_epoch_days())
}

/// The unscaled value of a decimal, as the shortest big-endian two's complement.
fn unscaled(json: &str, scale: u32) -> Option<Vec<u8>> {
    let (whole, fraction) = json.split_once('.').unwrap_or((json, ""));
    let missing = usize::try_from(scale).ok()?.checked_sub(fraction.len())?;
    let value: i128 = format!("{whole}{fraction}{}", "0".repeat(missing)).parse().ok()?;
    let bytes = value.to_be_bytes();
    // A leading byte that only repeats the sign is redundant.
    let is_redundant = |pair: &[u8]| matches!(pair, [0, next] if *next < 0x80) || matches!(pair, [0xff, next] if *next >= 0x80);
    let start = bytes.windows(2).take_while(|pair| is_redundant(pair)).count();
    Some(bytes.get(start..)?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_binary_form_of_the_specification() {
        assert_eq!(bound("int", "34", 0).unwrap(), [0x22, 0, 0, 0]);
        assert_eq!(bound("long", "34", 0).unwrap(), [0x22, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bound("float", "1.0", 0).unwrap(), [0, 0, 0x80, 0x3f]);
        assert_eq!(bound("double", "-1.0", 0).unwrap(), [0, 0, 0, 0, 0, 0, 0xf0, 0xbf]);
        assert_eq!(bound("string", "\"\\u00e9x\"", 0).unwrap(), "éx".as_bytes());
        assert_eq!(bound("date", "\"1969-12-31\"", 0).unwrap(), (-1_i32).to_le_bytes());
        assert_eq!(bound("timestamptz", "\"1970-01-01T00:00:00.001Z\"", 999).unwrap(), 1_999_i64.to_le_bytes());
        for (json, bytes) in [
            ("14.20", vec![0x05, 0x8c]),
            ("-1", vec![0x9c]),
            ("1.28", vec![0x00, 0x80]),
            ("-1.28", vec![0x80]),
            ("0", vec![0]),
            (
                "99999999999999999999999999999999999.99",
                9_999_999_999_999_999_999_999_999_999_999_999_999_i128.to_be_bytes().to_vec(),
            ),
        ] {
            assert_eq!(bound("decimal(38, 2)", json, 0).unwrap(), bytes, "{json}");
        }
        assert_eq!(bound("decimal(38, 2)", "1.234", 0), None);
        assert_eq!(bound("int", "3000000000", 0), None);
        assert_eq!(bound("date", "7", 0), None);
    }
}
