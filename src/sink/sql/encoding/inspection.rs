//! Finds values that a table may be unable to hold: nulls, long strings, unknown enum values, NaN. Pure functions; the load decides what to
//! do about them.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::{Error, Kind, Result, ResultExt};

/// Maximum number of characters of a key column's value in a message.
const KEY_CHARACTERS: usize = 80;

/// The key of a row for messages: `id=5`, or `id=5, user_id=6`. Long values are cut.
pub(in crate::sink::sql) fn key_of(batch: &RecordBatch, keys: &[String], row: usize) -> String {
    let options = FormatOptions::default().with_null("null");
    let columns = keys.iter().filter_map(|key| {
        let array = batch.column_by_name(key)?;
        let mut value = ArrayFormatter::try_new(array.as_ref(), &options).ok()?.value(row).to_string();
        if let Some((end, _)) = value.char_indices().nth(KEY_CHARACTERS) {
            value.truncate(end);
            value.push('…');
        }
        Some(format!("{key}={value}"))
    });
    columns.collect::<Vec<_>>().join(", ")
}

/// The strings of a column, or of the items of its arrays, with a function from the index of a string to its row.
fn strings(array: &ArrayRef) -> Option<(&StringArray, impl Fn(usize) -> usize)> {
    let list = array.as_list_opt::<i32>();
    let strings = match list {
        Some(list) => list.values().as_string_opt::<i32>()?,
        None => array.as_string_opt::<i32>()?,
    };
    let row = move |index: usize| match list {
        Some(list) => list.value_offsets().partition_point(|offset| *offset as usize <= index) - 1,
        None => index,
    };
    Some((strings, row))
}

/// Whether a string has more than `longest` characters.
pub(in crate::sink::sql) fn has_longer(array: &ArrayRef, longest: usize) -> bool {
    let Some((strings, _)) = strings(array) else { return false };
    strings.iter().flatten().any(|text| text.len() > longest && text.chars().count() > longest)
}

/// Whether a string has more than `most` bytes.
pub(in crate::sink::sql) fn has_more_bytes(array: &ArrayRef, most: usize) -> bool {
    let Some(strings) = array.as_string_opt::<i32>() else { return false };
    // Most batches are shorter than one such string.
    strings.value_data().len() > most && strings.iter().flatten().any(|text| text.len() > most)
}

/// The enum values that are not known, each with the first row that has it.
pub(in crate::sink::sql) fn unknown_values(array: &ArrayRef, known: &HashSet<String>) -> Vec<(String, usize)> {
    let Some((strings, row)) = strings(array) else { return Vec::new() };
    let mut unknown: Vec<(String, usize)> = Vec::new();
    // There are few values, in runs, so comparing with the last one saves most lookups.
    let mut last = "";
    for (index, text) in strings.iter().enumerate() {
        let Some(text) = text else { continue };
        if text == last && index > 0 || known.contains(text) || unknown.iter().any(|(value, _)| value == text) {
            last = text;
            continue;
        }
        unknown.push((text.to_owned(), row(index)));
    }
    unknown
}

/// The row of the first NaN or infinity of a column.
pub(in crate::sink::sql) fn first_non_finite(array: &ArrayRef) -> Option<usize> {
    fn find<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, is_odd: impl Fn(T::Native) -> bool) -> Option<usize> {
        array.iter().position(|value| value.is_some_and(&is_odd))
    }
    match array.data_type() {
        DataType::Float32 => find(array.as_primitive::<Float32Type>(), |value| !value.is_finite()),
        DataType::Float64 => find(array.as_primitive::<Float64Type>(), |value| !value.is_finite()),
        _ => None,
    }
}

/// The column with null in place of NaN and infinity, and how many there were.
pub(in crate::sink::sql) fn nullify_non_finite(array: &ArrayRef) -> (ArrayRef, u64) {
    let kept: ArrayRef = match array.data_type() {
        DataType::Float32 => {
            let floats = array.as_primitive::<Float32Type>().iter();
            Arc::new(floats.map(|value| value.filter(|value| value.is_finite())).collect::<PrimitiveArray<Float32Type>>())
        }
        DataType::Float64 => {
            let floats = array.as_primitive::<Float64Type>().iter();
            Arc::new(floats.map(|value| value.filter(|value| value.is_finite())).collect::<PrimitiveArray<Float64Type>>())
        }
        _ => return (Arc::clone(array), 0),
    };
    let count = (kept.null_count() - array.null_count()) as u64;
    (kept, count)
}

/// The column with zero in place of subnormal numbers, and how many there were. `None`: there are none.
pub(in crate::sink::sql) fn flush_subnormal(array: &ArrayRef) -> Option<(ArrayRef, u64)> {
    fn flush<T: ArrowPrimitiveType>(
        array: &PrimitiveArray<T>,
        is_subnormal: impl Fn(T::Native) -> bool,
    ) -> Option<(ArrayRef, u64)> {
        let count = array.iter().flatten().filter(|value| is_subnormal(*value)).count() as u64;
        let flush = |value| if is_subnormal(value) { T::default_value() } else { value };
        (count > 0).then(|| (Arc::new(array.unary::<_, T>(flush)) as ArrayRef, count))
    }
    match array.data_type() {
        DataType::Float32 => flush(array.as_primitive::<Float32Type>(), f32::is_subnormal),
        DataType::Float64 => flush(array.as_primitive::<Float64Type>(), f64::is_subnormal),
        _ => None,
    }
}

/// How many strings contain the character NUL, at any depth.
pub(in crate::sink::sql) fn count_nul(array: &dyn Array) -> u64 {
    if let Some(strings) = array.as_string_opt::<i32>() {
        let offsets = strings.value_offsets();
        let (start, end) = (offsets[0] as usize, offsets[strings.len()] as usize);
        if !strings.value_data()[start..end].contains(&0) {
            return 0;
        }
        return strings.iter().flatten().filter(|text| text.contains('\0')).count() as u64;
    }
    if let Some(list) = array.as_list_opt::<i32>() {
        let offsets = list.value_offsets();
        let (start, end) = (offsets[0] as usize, offsets[list.len()] as usize);
        return count_nul(&list.values().slice(start, end - start));
    }
    array.as_struct_opt().map_or(0, |members| members.columns().iter().map(|member| count_nul(member)).sum())
}

/// How many JSON strings satisfy `is_refused`.
pub(in crate::sink::sql) fn count_json(array: &dyn Array, is_refused: impl Fn(&str) -> bool) -> u64 {
    let strings = array.as_string_opt::<i32>();
    strings.map_or(0, |strings| strings.iter().flatten().filter(|text| is_refused(text)).count() as u64)
}

/// The batch with one column replaced. Kind `Bug` if the lengths differ.
pub(in crate::sink::sql) fn replace_column(batch: &RecordBatch, index: usize, array: ArrayRef) -> Result<RecordBatch> {
    let data_type = array.data_type().clone();
    let mut columns = batch.columns().to_vec();
    columns[index] = array;
    let schema = batch.schema();
    let fields = schema.fields().iter().enumerate().map(|(place, field)| {
        if place != index {
            return Arc::clone(field);
        }
        Arc::new(field.as_ref().clone().with_data_type(data_type.clone()).with_nullable(true))
    });
    let schema = Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()));
    RecordBatch::try_new(schema, columns).context(Kind::Bug, "A column of a batch cannot be replaced")
}

/// The error for a row without a key.
pub(in crate::sink::sql) fn missing_key(column: &str, batch: &RecordBatch, keys: &[String], row: usize) -> Error {
    Error::new(Kind::Data, "A row has no value in a key column")
        .with_field("column", column)
        .with_field("key", key_of(batch, keys, row))
        .hint("the table was not changed; report the row to the service's support")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array, ListBuilder, StringBuilder};

    fn list(items: &[Option<&[&str]>]) -> ArrayRef {
        let mut list = ListBuilder::new(StringBuilder::new());
        for item in items {
            match item {
                Some(strings) => {
                    strings.iter().for_each(|text| list.values().append_value(text));
                    list.append(true);
                }
                None => list.append(false),
            }
        }
        Arc::new(list.finish())
    }

    #[test]
    fn keys_are_printed_and_long_ones_are_cut() {
        let (a, b): (ArrayRef, ArrayRef) =
            (Arc::new(Int64Array::from(vec![5, 6])), Arc::new(StringArray::from(vec![Some("x"), None])));
        let batch = RecordBatch::try_from_iter_with_nullable([("a", a, true), ("b", b, true)]).unwrap();
        assert_eq!(key_of(&batch, &["a".into(), "b".into()], 0), "a=5, b=x");
        assert_eq!(key_of(&batch, &["a".into(), "b".into()], 1), "a=6, b=null");
        let long: ArrayRef = Arc::new(StringArray::from(vec!["ü".repeat(6000)]));
        let batch = RecordBatch::try_from_iter([("a", long)]).unwrap();
        assert_eq!(key_of(&batch, &["a".into()], 0), format!("a={}…", "ü".repeat(80)));
    }

    #[test]
    fn long_strings_and_unknown_values_are_found_in_columns_and_arrays() {
        let column: ArrayRef = Arc::new(StringArray::from(vec![Some("üü"), None, Some("new"), Some("new"), Some("a")]));
        assert!(has_longer(&column, 2) && !has_longer(&column, 3));
        let known = HashSet::from(["üü".to_owned(), "a".to_owned()]);
        assert_eq!(unknown_values(&column, &known), [("new".to_owned(), 2)]);
        assert!(has_more_bytes(&column, 3) && !has_more_bytes(&column, 4));
        let array = list(&[Some(&["a"]), None, Some(&[]), Some(&["üü", "odd"])]);
        assert!(has_longer(&array, 2) && !has_longer(&array, 3));
        assert_eq!(unknown_values(&array, &known), [("odd".to_owned(), 3)]);
        let empty_first: ArrayRef = Arc::new(StringArray::from(vec![""]));
        assert_eq!(unknown_values(&empty_first, &known), [(String::new(), 0)]);
    }

    #[test]
    fn numbers_that_do_not_fit_are_replaced_and_counted() {
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), None, Some(f64::NAN), Some(f64::INFINITY)]));
        assert_eq!(first_non_finite(&floats), Some(2));
        let (kept, count) = nullify_non_finite(&floats);
        assert_eq!((kept.null_count(), count), (3, 2));
        assert_eq!(first_non_finite(&kept), None);
        let tiny: ArrayRef =
            Arc::new(Float64Array::from(vec![Some(5e-324), None, Some(-1e-310), Some(f64::MIN_POSITIVE), Some(0.0)]));
        let (flushed, count) = flush_subnormal(&tiny).unwrap();
        assert_eq!(count, 2);
        assert_eq!(
            &flushed,
            &(Arc::new(Float64Array::from(vec![Some(0.0), None, Some(0.0), Some(f64::MIN_POSITIVE), Some(0.0)])) as ArrayRef)
        );
        assert!(flush_subnormal(&flushed).is_none());
        assert_eq!(count_nul(&StringArray::from(vec!["a\0\0", "b"])), 1);
        let list = list(&[Some(&["a\0", "b\0"]), None, Some(&["c\0"])]);
        let nested = arrow::array::StructArray::from(vec![(
            Arc::new(arrow::datatypes::Field::new("texts", list.data_type().clone(), true)),
            list,
        )]);
        assert_eq!((count_nul(&nested), count_nul(&nested.slice(1, 2))), (3, 1));
    }
}
