//! Casts batches of changes and of existing files to the schema of new files. No I/O.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchOptions, StructArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, SchemaRef};

use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::sink::delta::log::columns::{LakeColumn, LakeType, position_of_name};
use crate::sink::delta::log::system_columns::default_value;

/// Which names the columns of a batch have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnNames {
    /// Those of change batches.
    Logical,
    /// Those of data files.
    Physical,
}

impl ColumnNames {
    fn of(self, column: &LakeColumn) -> &str {
        match self {
            ColumnNames::Logical => &column.name,
            ColumnNames::Physical => &column.physical,
        }
    }
}

/// Casts a batch to `target`, the file schema of `columns`: columns in that order, missing columns null, narrower types widened,
/// unknown columns omitted. Kind `Data` if a key is null or a value does not fit.
pub(crate) fn cast_to_file_schema(
    batch: &RecordBatch,
    columns: &[LakeColumn],
    target: &SchemaRef,
    names: ColumnNames,
) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let mut arrays = Vec::with_capacity(columns.len());
    for (column, field) in columns.iter().zip(target.fields()) {
        let fields = batch.schema_ref().fields().iter();
        let position = position_of_name(fields.map(|field| field.name().as_str()), names.of(column));
        let array = match position.map(|position| batch.column(position)) {
            Some(array) => cast_array(array, &column.kind, field.data_type(), names).with_field("column", &column.name)?,
            None => default_value(column, rows).unwrap_or_else(|| new_null_array(field.data_type(), rows)),
        };
        if !field.is_nullable() && array.null_count() > 0 {
            return Err(Error::new(Kind::Data, "A row has no value in a key column").with_field("column", &column.name));
        }
        arrays.push(array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(target), arrays, &options)
        .context(Kind::Bug, "Rows do not match the schema of their file")
}

fn cast_array(array: &ArrayRef, kind: &LakeType, target: &DataType, names: ColumnNames) -> Result<ArrayRef> {
    match (kind, target) {
        (LakeType::Struct(members), DataType::Struct(fields)) => {
            let Some(source) = array.as_struct_opt() else { return Err(shape_error()) };
            let mut arrays = Vec::with_capacity(members.len());
            for (member, field) in members.iter().zip(fields) {
                // Old files may have a name in another case.
                arrays.push(match position_of_name(source.column_names().into_iter(), names.of(member)) {
                    Some(position) => cast_array(source.column(position), &member.kind, field.data_type(), names)?,
                    None => new_null_array(field.data_type(), source.len()),
                });
            }
            let made = StructArray::try_new_with_length(fields.clone(), arrays, source.nulls().cloned(), source.len());
            Ok(Arc::new(made.context(Kind::Bug, "Rows do not match the schema of their file")?))
        }
        (LakeType::List(item), DataType::List(field)) => {
            let Some(source) = array.as_list_opt::<i32>() else { return Err(shape_error()) };
            let values = cast_array(source.values(), item, field.data_type(), names)?;
            let made = ListArray::try_new(Arc::clone(field), source.offsets().clone(), values, source.nulls().cloned());
            Ok(Arc::new(made.context(Kind::Bug, "Rows do not match the schema of their file")?))
        }
        _ if array.data_type() == target => Ok(Arc::clone(array)),
        _ => {
            let options = CastOptions { safe: false, ..CastOptions::default() };
            // The cause is dropped, because it quotes the value.
            cast_with_options(array, target, &options)
                .map_err(|_| Error::new(Kind::Data, "A value does not fit the type of its column"))
        }
    }
}

fn shape_error() -> Error {
    Error::new(Kind::Data, "A nested column does not match its schema")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::delta::log::columns::file_schema;
    use arrow::array::{Int32Array, Int64Array, StringArray};
    use arrow::buffer::{NullBuffer, OffsetBuffer};
    use arrow::datatypes::{Field, Fields, Int64Type, Schema};

    #[test]
    fn missing_members_become_null_and_narrow_types_are_widened() {
        let old = Fields::from(vec![Field::new("a", DataType::Int32, false)]);
        let new = Fields::from(vec![Field::new("b", DataType::Utf8, true), Field::new("a", DataType::Int64, true)]);
        let of = |inner: Fields| {
            Fields::from(vec![
                Field::new("id", DataType::Int64, false),
                Field::new("s", DataType::Struct(inner.clone()), true),
                Field::new("l", DataType::List(Arc::new(Field::new("item", DataType::Struct(inner), true))), true),
            ])
        };
        let members = StructArray::new(
            old.clone(),
            vec![Arc::new(Int32Array::from(vec![1, 2, 3]))],
            Some(NullBuffer::from(vec![true, false, true])),
        );
        let item = Arc::new(Field::new("item", DataType::Struct(old.clone()), true));
        let list = ListArray::new(item, OffsetBuffer::from_lengths([2, 0, 1]), Arc::new(members.clone()), None);
        let ids = Int64Array::from(vec![7, 8, 9]);
        let batch =
            RecordBatch::try_new(Arc::new(Schema::new(of(old))), vec![Arc::new(ids), Arc::new(members), Arc::new(list)])
                .unwrap();
        let mut columns = LakeColumn::from_fields(&of(new)).unwrap();
        columns.push(LakeColumn::from_fields(&Fields::from(vec![Field::new("late", DataType::Utf8, true)])).unwrap().remove(0));
        let target = file_schema(&columns, &["id".into()]);
        // A slice, because its nested arrays have offsets.
        let cast = cast_to_file_schema(&batch.slice(1, 2), &columns, &target, ColumnNames::Logical).unwrap();
        assert_eq!(cast.schema(), target);
        let nested = cast.column(1).as_struct();
        assert!(nested.is_null(0) && nested.is_valid(1));
        assert_eq!(nested.column_by_name("a").unwrap().as_primitive::<Int64Type>().value(1), 3);
        assert_eq!(nested.column_by_name("b").unwrap().null_count(), 2);
        let list = cast.column(2).as_list::<i32>();
        assert_eq!((list.value_length(0), list.value_length(1)), (0, 1));
        assert_eq!(list.value(1).as_struct().column_by_name("a").unwrap().as_primitive::<Int64Type>().value(0), 3);
        assert_eq!(cast.column(3).null_count(), 2);
    }

    #[test]
    fn an_error_about_a_row_does_not_contain_its_values() {
        let columns = LakeColumn::from_fields(&Fields::from(vec![Field::new("id", DataType::Int64, false)])).unwrap();
        let target = file_schema(&columns, &["id".into()]);
        let batch = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![Some(77), None])) as ArrayRef)]).unwrap();
        let error = cast_to_file_schema(&batch, &columns, &target, ColumnNames::Logical).unwrap_err();
        assert_eq!((error.kind(), error.get("column")), (Kind::Data, Some("id")));
        let batch = RecordBatch::try_from_iter([("id", Arc::new(StringArray::from(vec!["secret"])) as ArrayRef)]).unwrap();
        let error = cast_to_file_schema(&batch, &columns, &target, ColumnNames::Logical).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        assert!(!format!("{error:?}").contains("secret"));
    }
}
