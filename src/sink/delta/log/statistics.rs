//! Statistics of one data file for its `add` action: rows, nulls, smallest and greatest value of the leading columns. No I/O.
//!
//! Bounds may be wider than the values, and are omitted where no safe bound exists. They are never narrower: readers skip files by
//! them.

use std::borrow::Cow;
use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray, RecordBatch, StringArray};
use arrow::compute::{max, min, nullif};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, NaiveDate};

use crate::error::{Kind, Result, ResultExt};
use crate::sink::delta::log::columns::{LakeColumn, LakeType};

/// Number of leaf columns with statistics; readers use no more by default.
const INDEXED_LEAVES: usize = 32;
/// Maximum length of a string bound in characters.
const TEXT_PREFIX: usize = 32;

/// Minimum and maximum of a file's first key column; arrays of one value.
#[derive(Debug, Clone)]
pub(crate) struct KeyBounds {
    /// No key of the file is below it.
    pub(crate) min: ArrayRef,
    /// No key of the file is above it.
    pub(crate) max: ArrayRef,
}

/// Collects the statistics of a file from its batches, which have the file schema.
#[derive(Debug)]
pub(crate) struct FileStats {
    rows: u64,
    columns: Vec<(String, Node)>,
    nulls: Vec<u64>,
}

#[derive(Debug)]
enum Node {
    Skipped,
    Leaf { nulls: u64, bounds: Bounds },
    Struct(Vec<(String, Node)>),
}

#[derive(Debug, Clone, PartialEq)]
enum Bounds {
    /// The type has no bounds, or a value rules them out.
    Never,
    /// No value yet.
    None,
    Integer(i64, i64),
    Timestamp(i64, i64),
    Date(i32, i32),
    Decimal(i128, i128, i8),
    Float(f64, f64),
    Text(String, String),
}

impl FileStats {
    /// Empty statistics of a file with these columns.
    pub(crate) fn new(columns: &[LakeColumn]) -> Self {
        let mut left = INDEXED_LEAVES;
        Self { rows: 0, columns: nodes(columns, &mut left), nulls: vec![0; columns.len()] }
    }

    /// Adds a batch.
    pub(crate) fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        for (index, array) in batch.columns().iter().enumerate() {
            self.nulls[index] += array.null_count() as u64;
            self.columns[index].1.update(array)?;
        }
        Ok(())
    }

    /// Number of rows so far.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// For each column, whether it has nulls.
    pub(crate) fn has_nulls(&self) -> Vec<bool> {
        self.nulls.iter().map(|nulls| *nulls > 0).collect()
    }

    /// The statistics as JSON for the log. Written by hand, because a number may be a decimal of 38 digits.
    pub(crate) fn json(&self) -> String {
        let mut text = format!("{{\"numRecords\":{}", self.rows);
        for (member, statistic) in [("minValues", Stat::Min), ("maxValues", Stat::Max), ("nullCount", Stat::Nulls)] {
            let _ = write!(text, ",\"{member}\":{}", object(&self.columns, statistic));
        }
        text.push('}');
        text
    }
}

/// The statistics of a file with a deletion vector: its bounds may be wider than its values. Edits the JSON text, because a number
/// may be a decimal of 38 digits.
pub(crate) fn with_wide_bounds(stats: &str) -> String {
    const TIGHT: &str = "\"tightBounds\":";
    if stats.contains(&format!("{TIGHT}false")) {
        return stats.to_owned();
    }
    let stats = stats.replace(&format!(",{TIGHT}true"), "").replace(&format!("{TIGHT}true,"), "");
    let open = stats.trim_end().strip_suffix('}').unwrap_or("{").trim_end();
    let comma = if open.ends_with('{') { "" } else { "," };
    format!("{open}{comma}{TIGHT}false}}")
}

fn nodes(columns: &[LakeColumn], left: &mut usize) -> Vec<(String, Node)> {
    columns
        .iter()
        .map(|column| {
            let node = match &column.kind {
                LakeType::Struct(members) => Node::Struct(nodes(members, left)),
                _ if *left == 0 => Node::Skipped,
                kind => {
                    *left -= 1;
                    let bounded = match kind {
                        LakeType::Leaf(leaf) => !matches!(leaf, DataType::Boolean),
                        _ => false,
                    };
                    Node::Leaf { nulls: 0, bounds: if bounded { Bounds::None } else { Bounds::Never } }
                }
            };
            (column.physical.clone(), node)
        })
        .collect()
}

impl Node {
    fn update(&mut self, array: &ArrayRef) -> Result<()> {
        match self {
            Node::Skipped => {}
            Node::Leaf { nulls, bounds } => {
                *nulls += array.null_count() as u64;
                if *bounds != Bounds::Never {
                    let old = std::mem::replace(bounds, Bounds::None);
                    *bounds = old.join(Bounds::of(array.as_ref()));
                }
            }
            Node::Struct(members) => {
                let array = array.as_struct();
                // A member of a null struct is null, whatever its own buffer says.
                let absent = array.nulls().map(|nulls| BooleanArray::new(!nulls.inner(), None));
                for ((_, member), inner) in members.iter_mut().zip(array.columns()) {
                    match &absent {
                        Some(absent) => member.update(&masked(inner, absent)?)?,
                        None => member.update(inner)?,
                    }
                }
            }
        }
        Ok(())
    }
}

fn masked(array: &ArrayRef, absent: &BooleanArray) -> Result<ArrayRef> {
    nullif(array, absent).context(Kind::Bug, "Statistics of a nested column failed")
}

impl Bounds {
    fn of(array: &dyn Array) -> Self {
        match array.data_type() {
            DataType::Int16 => range::<Int16Type>(array).map_or(Self::None, |(min, max)| Self::Integer(min.into(), max.into())),
            DataType::Int32 => range::<Int32Type>(array).map_or(Self::None, |(min, max)| Self::Integer(min.into(), max.into())),
            DataType::Int64 => range::<Int64Type>(array).map_or(Self::None, |(min, max)| Self::Integer(min, max)),
            DataType::Date32 => range::<Date32Type>(array).map_or(Self::None, |(min, max)| Self::Date(min, max)),
            DataType::Timestamp(..) => {
                range::<TimestampMicrosecondType>(array).map_or(Self::None, |(min, max)| Self::Timestamp(min, max))
            }
            DataType::Decimal128(_, scale) => {
                range::<Decimal128Type>(array).map_or(Self::None, |(min, max)| Self::Decimal(min, max, *scale))
            }
            DataType::Float32 => floats(array.as_primitive::<Float32Type>().iter().flatten().map(f64::from)),
            DataType::Float64 => floats(array.as_primitive::<Float64Type>().iter().flatten()),
            DataType::Utf8 => strings(array.as_string()),
            _ => Self::Never,
        }
    }

    fn join(self, other: Self) -> Self {
        use Bounds::*;
        match (self, other) {
            (Never, _) | (_, Never) => Never,
            (None, bounds) | (bounds, None) => bounds,
            (Integer(a, b), Integer(c, d)) => Integer(a.min(c), b.max(d)),
            (Timestamp(a, b), Timestamp(c, d)) => Timestamp(a.min(c), b.max(d)),
            (Date(a, b), Date(c, d)) => Date(a.min(c), b.max(d)),
            (Decimal(a, b, scale), Decimal(c, d, _)) => Decimal(a.min(c), b.max(d), scale),
            (Float(a, b), Float(c, d)) => Float(a.min(c), b.max(d)),
            (Text(a, b), Text(c, d)) => Text(a.min(c), b.max(d)),
            _ => Never,
        }
    }

    fn min_json(&self) -> Option<String> {
        match self {
            Self::Never | Self::None => Option::None,
            Self::Integer(min, _) => Some(min.to_string()),
            Self::Timestamp(min, _) => timestamp(min.div_euclid(1000)),
            Self::Date(min, _) => date(*min),
            Self::Decimal(min, _, scale) => Some(decimal(*min, *scale)),
            // Readers may distinguish the two zeros.
            Self::Float(min, _) => float(if *min == 0.0 { -0.0 } else { *min }),
            Self::Text(min, _) => Some(quoted(min.char_indices().nth(TEXT_PREFIX).map_or(min, |(end, _)| &min[..end]))),
        }
    }

    fn max_json(&self) -> Option<String> {
        match self {
            Self::Never | Self::None => Option::None,
            Self::Integer(_, max) => Some(max.to_string()),
            Self::Timestamp(_, max) => timestamp(-(-i128::from(*max)).div_euclid(1000) as i64),
            Self::Date(_, max) => date(*max),
            Self::Decimal(_, max, scale) => Some(decimal(*max, *scale)),
            Self::Float(_, max) => float(if *max == 0.0 { 0.0 } else { *max }),
            Self::Text(_, max) => upper_bound(max).map(|max| quoted(&max)),
        }
    }
}

fn range<T: ArrowPrimitiveType>(array: &dyn Array) -> Option<(T::Native, T::Native)>
where
    T::Native: arrow::array::ArrowNativeTypeOp,
{
    let array: &PrimitiveArray<T> = array.as_primitive();
    min(array).zip(max(array))
}

/// Compares prefixes of eight bytes as integers first: for most strings that suffices.
fn strings(array: &StringArray) -> Bounds {
    let mut valid = (0..array.len()).filter(|row| array.is_valid(*row)).map(|row| array.value(row));
    let Some(first) = valid.next() else { return Bounds::None };
    let (mut min, mut max) = ((prefix(first), first), (prefix(first), first));
    for text in valid {
        let prefix = prefix(text);
        if min.0 < prefix && prefix < max.0 {
            continue;
        }
        min = min.min((prefix, text));
        max = max.max((prefix, text));
    }
    Bounds::Text(min.1.to_owned(), max.1.to_owned())
}

/// The first eight bytes as an integer with the same order; shorter strings are padded with zeros.
#[inline]
fn prefix(text: &str) -> u64 {
    let text = text.as_bytes();
    match text.first_chunk() {
        Some(chunk) => u64::from_be_bytes(*chunk),
        None => text.iter().rev().fold(0, |prefix, byte| prefix >> 8 | u64::from(*byte) << 56),
    }
}

/// Readers disagree on the order of NaN, so one NaN rules out the bounds of its column.
fn floats(values: impl Iterator<Item = f64>) -> Bounds {
    let mut bounds = Bounds::None;
    for value in values {
        if value.is_nan() {
            return Bounds::Never;
        }
        bounds = match bounds {
            Bounds::Float(min, max) => Bounds::Float(min.min(value), max.max(value)),
            _ => Bounds::Float(value, value),
        };
    }
    bounds
}

/// `None` for infinity, which JSON does not have.
fn float(value: f64) -> Option<String> {
    value.is_finite().then(|| serde_json::Number::from_f64(value).map(|number| number.to_string())).flatten()
}

fn decimal(value: i128, scale: i8) -> String {
    let digits = value.unsigned_abs().to_string();
    let scale = usize::from(scale.unsigned_abs());
    let sign = if value < 0 { "-" } else { "" };
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

/// Milliseconds, as all readers write and expect. `None` for years that readers cannot parse.
fn timestamp(millis: i64) -> Option<String> {
    let time = DateTime::from_timestamp_millis(millis)?;
    (1..=9999).contains(&time.year()).then(|| format!("\"{}\"", time.format("%Y-%m-%dT%H:%M:%S%.3fZ")))
}

fn date(days: i32) -> Option<String> {
    let date = NaiveDate::from_epoch_days(days)?;
    (1..=9999).contains(&date.year()).then(|| format!("\"{}\"", date.format("%Y-%m-%d")))
}

/// A short string that is not below `text` in byte order: a prefix of `text` and a character above the next one.
fn upper_bound(text: &str) -> Option<Cow<'_, str>> {
    let mut cuts = text.char_indices().skip(TEXT_PREFIX).peekable();
    if cuts.peek().is_none() {
        return Some(text.into());
    }
    cuts.take(TEXT_PREFIX).find(|(_, next)| *next < char::MAX).map(|(end, next)| {
        let above = if next < '\u{7f}' { '\u{7f}' } else { char::MAX };
        format!("{}{above}", &text[..end]).into()
    })
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Which statistic of a column.
#[derive(Clone, Copy)]
enum Stat {
    Min,
    Max,
    Nulls,
}

fn object(nodes: &[(String, Node)], statistic: Stat) -> String {
    let mut text = String::from("{");
    for (name, node) in nodes {
        let value = match (node, statistic) {
            (Node::Skipped, _) => None,
            (Node::Struct(members), _) => Some(object(members, statistic)).filter(|text| text != "{}"),
            (Node::Leaf { nulls, .. }, Stat::Nulls) => Some(nulls.to_string()),
            (Node::Leaf { bounds, .. }, Stat::Min) => bounds.min_json(),
            (Node::Leaf { bounds, .. }, Stat::Max) => bounds.max_json(),
        };
        if let Some(value) = value {
            let comma = if text.len() > 1 { "," } else { "" };
            let _ = write!(text, "{comma}{}:{value}", quoted(name));
        }
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray, StructArray,
        TimestampMicrosecondArray,
    };
    use arrow::buffer::NullBuffer;
    use arrow::datatypes::{Field, Fields, Schema};
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn stats_of(columns: Vec<(&str, ArrayRef)>) -> Value {
        let fields: Fields = columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
        let lake = LakeColumn::from_fields(&fields).unwrap();
        let batch =
            RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array)| array).collect()).unwrap();
        let mut stats = FileStats::new(&lake);
        stats.update(&batch.slice(0, 1)).unwrap();
        stats.update(&batch.slice(1, batch.num_rows() - 1)).unwrap();
        serde_json::from_str(&stats.json()).unwrap()
    }

    #[test]
    fn timestamp_bounds_are_rounded_outwards_to_milliseconds() {
        let times = TimestampMicrosecondArray::from(vec![Some(-1), None, Some(1_500)]).with_timezone("UTC");
        let days = Date32Array::from(vec![Some(0), Some(-1), None]);
        let far = TimestampMicrosecondArray::from(vec![Some(i64::MIN), Some(0), Some(i64::MAX)]).with_timezone("UTC");
        let stats = stats_of(vec![("t", Arc::new(times)), ("d", Arc::new(days)), ("far", Arc::new(far))]);
        assert_eq!(
            stats,
            json!({
                "numRecords": 3,
                "minValues": {"t": "1969-12-31T23:59:59.999Z", "d": "1969-12-31"},
                "maxValues": {"t": "1970-01-01T00:00:00.002Z", "d": "1970-01-01"},
                "nullCount": {"t": 1, "d": 1, "far": 0},
            })
        );
    }

    #[test]
    fn values_without_a_safe_bound_have_none() {
        let stats = stats_of(vec![
            ("nan", Arc::new(Float64Array::from(vec![1.0, f64::NAN]))),
            ("inf", Arc::new(Float64Array::from(vec![1.5, f64::INFINITY]))),
            ("zero", Arc::new(Float64Array::from(vec![0.0, 0.0]))),
            ("flag", Arc::new(BooleanArray::from(vec![true, false]))),
            ("none", Arc::new(StringArray::from(vec![None::<&str>, None]))),
        ]);
        assert_eq!(stats["minValues"], json!({"inf": 1.5, "zero": -0.0}));
        assert_eq!(stats["maxValues"], json!({"zero": 0.0}));
        assert_eq!(stats["nullCount"], json!({"nan": 0, "inf": 0, "zero": 0, "flag": 0, "none": 2}));
    }

    #[test]
    fn bounds_of_files_with_deletion_vectors_are_wide() {
        let plain = r#"{"numRecords":3,"minValues":{"d":-0.10}}"#;
        let wide = r#"{"numRecords":3,"minValues":{"d":-0.10},"tightBounds":false}"#;
        assert_eq!(with_wide_bounds(plain), wide);
        assert_eq!(with_wide_bounds(wide), wide);
        assert_eq!(with_wide_bounds(r#"{"numRecords":3,"tightBounds":true,"minValues":{"d":-0.10}}"#), wide);
        assert_eq!(with_wide_bounds(r#"{"numRecords":3,"minValues":{"d":-0.10},"tightBounds":true}"#), wide);
        assert_eq!(with_wide_bounds("{}"), r#"{"tightBounds":false}"#);
    }

    #[test]
    fn decimals_keep_all_their_digits() {
        let array = Decimal128Array::from(vec![i128::pow(10, 38) - 1, -5]).with_precision_and_scale(38, 2).unwrap();
        let lake = LakeColumn::from_fields(&Fields::from(vec![Field::new("d", array.data_type().clone(), true)])).unwrap();
        let mut stats = FileStats::new(&lake);
        stats.update(&RecordBatch::try_from_iter([("d", Arc::new(array) as ArrayRef)]).unwrap()).unwrap();
        assert!(stats.json().contains(r#""minValues":{"d":-0.05},"maxValues":{"d":999999999999999999999999999999999999.99}"#));
    }

    #[test]
    fn members_of_null_structs_count_as_null_and_have_no_bounds() {
        let fields = Fields::from(vec![Field::new("a", DataType::Int64, true)]);
        let inner = Int64Array::from(vec![5, 900, 7]);
        let array = StructArray::new(fields, vec![Arc::new(inner)], Some(NullBuffer::from(vec![true, false, true])));
        let stats = stats_of(vec![("s", Arc::new(array))]);
        assert_eq!(stats["minValues"], json!({"s": {"a": 5}}));
        assert_eq!(stats["maxValues"], json!({"s": {"a": 7}}));
        assert_eq!(stats["nullCount"], json!({"s": {"a": 1}}));
    }

    #[test]
    fn only_the_leading_leaf_columns_have_statistics() {
        let columns: Vec<(String, ArrayRef)> =
            (0..40).map(|n| (format!("c{n}"), Arc::new(Int64Array::from(vec![n, n])) as ArrayRef)).collect();
        let stats = stats_of(columns.iter().map(|(name, array)| (name.as_str(), Arc::clone(array))).collect());
        assert_eq!(stats["nullCount"].as_object().unwrap().len(), 32);
    }

    proptest! {
        #[test]
        fn string_bounds_of_a_batch_are_those_of_its_values(texts in prop::collection::vec(prop::option::of("[a\0é\u{10ffff}]{0,12}"), 0..20)) {
            let found = Bounds::of(&StringArray::from_iter(texts.iter()));
            let values = texts.iter().flatten();
            match (values.clone().min(), values.max()) {
                (Some(min), Some(max)) => prop_assert_eq!(found, Bounds::Text(min.clone(), max.clone())),
                _ => prop_assert_eq!(found, Bounds::None),
            }
        }

        #[test]
        fn string_bounds_include_all_values_and_are_short(texts in prop::collection::vec("[ab~\u{7f}é\u{10ffff}]{0,70}", 1..6)) {
            let array: ArrayRef = Arc::new(StringArray::from_iter_values(texts.iter().chain(["b".to_owned()].iter())));
            let stats = stats_of(vec![("t", array)]);
            let min = stats["minValues"]["t"].as_str().unwrap();
            prop_assert!(min.chars().count() <= 32);
            for text in &texts {
                prop_assert!(min <= text.as_str());
            }
            if let Some(max) = stats["maxValues"]["t"].as_str() {
                prop_assert!(max.chars().count() <= 65);
                for text in &texts {
                    prop_assert!(max >= text.as_str());
                }
            }
        }
    }
}
