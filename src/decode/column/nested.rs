//! Columns of objects and arrays. An object whose members are all null is null itself in every format, since expanded files cannot distinguish
//! the two.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, StructArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{FieldRef, Fields};

use super::super::fault::{Fault, Read};
use super::super::json::Cursor;
use super::builder::Builder;
use super::names::{Found, Names};
use super::tally::{Cell, Tally};
use super::validity::Bits;
use crate::error::{Kind, Result, ResultExt};
use crate::schema::{self, ColumnType, ELEMENT, Nested};

/// Columns that are filled from a JSON object: a group of a record, or the members of a nested object.
#[derive(Debug)]
pub(in crate::decode) struct Object<C> {
    pub(in crate::decode) names: Names,
    pub(in crate::decode) columns: Vec<C>,
    labels: Vec<String>,
    /// The prefix for names of unknown members: `value.` or `value.settings.`.
    path: String,
    /// Whether a null or repeated member is a fault, as in keys.
    strict: bool,
}

impl<C: Builder> Object<C> {
    /// The columns of the key.
    pub(in crate::decode) fn key(columns: &[schema::Column]) -> Self {
        Self { strict: true, ..Self::new(columns, "key.") }
    }

    pub(in crate::decode) fn new(columns: &[schema::Column], path: &str) -> Self {
        let labels: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        let members = columns.iter().map(|column| C::new(&column.column_type, &format!("{path}{}.", column.name)));
        Self {
            names: Names::new(labels.iter().map(String::as_str)),
            columns: members.collect(),
            labels,
            path: path.to_owned(),
            strict: false,
        }
    }

    pub(in crate::decode) fn label(&self, number: usize) -> &str {
        self.labels.get(number).map_or("", String::as_str)
    }

    pub(in crate::decode) fn reserve(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|column| column.reserve(rows));
    }

    pub(in crate::decode) fn truncate(&mut self, row: usize) {
        self.columns.iter_mut().for_each(|column| column.truncate(row));
    }

    /// Makes the row null in all columns. It must be the last one.
    pub(in crate::decode) fn unset(&mut self, row: usize) {
        self.columns.iter_mut().for_each(|column| column.unset(row));
    }

    /// Reads the JSON object at the cursor. Returns `false` if all members are null. The row must be empty.
    pub(in crate::decode) fn json(&mut self, cursor: &mut Cursor<'_>, row: usize, tally: &mut Tally) -> Read<bool> {
        cursor.expect(b'{', "not an object")?;
        if cursor.peek_after_blanks() == b'}' {
            cursor.at += 1;
            return Ok(false);
        }
        self.names.begin();
        let mut any = false;
        let mut twice = false;
        loop {
            match self.names.next(cursor)? {
                Found::Member(number) => {
                    let column = &mut self.columns[number];
                    let null = cursor.peek_after_blanks() == b'n';
                    if self.strict && (null || column.is_set(row)) {
                        let reason = if null { "the key is missing or null" } else { "the key is given twice" };
                        return Err(Fault::new(reason).inside(self.label(number)));
                    }
                    if null {
                        cursor.null()?;
                        // If a member is given twice, the last one counts.
                        twice |= column.is_set(row);
                        column.unset(row);
                    } else {
                        match column.json(cursor, row, tally) {
                            Ok(some) => {
                                any |= some;
                                twice |= !some;
                            }
                            Err(fault) => return Err(fault.inside(self.label(number))),
                        }
                    }
                }
                Found::Unknown(name) => {
                    if let Some(name) = name {
                        tally.unknown_column(format!("{}{name}", self.path));
                    }
                    cursor.skip_value()?;
                }
            }
            if cursor.comma_or(b'}')? {
                break;
            }
        }
        if twice {
            any = self.columns.iter().any(|column| column.is_set(row));
        }
        Ok(any)
    }

    pub(in crate::decode) fn finish(&mut self, rows: usize) -> Result<Vec<ArrayRef>> {
        self.columns.iter_mut().map(|column| column.finish(rows)).collect()
    }
}

/// A nested object.
#[derive(Debug)]
pub(in crate::decode) struct StructColumn<C> {
    pub(in crate::decode) object: Object<C>,
    pub(super) valid: Bits,
    fields: Fields,
}

impl<C: Builder> StructColumn<C> {
    pub(super) fn new(members: &[schema::Column], path: &str) -> Self {
        let fields = match schema::arrow_type(&ColumnType::Struct(members.to_vec()), Nested::Typed) {
            arrow::datatypes::DataType::Struct(fields) => fields,
            _ => Fields::empty(),
        };
        Self { object: Object::new(members, path), valid: Bits::default(), fields }
    }

    pub(super) fn reserve(&mut self, rows: usize) {
        self.object.reserve(rows);
        self.valid.reserve(rows);
    }

    pub(super) fn truncate(&mut self, row: usize) {
        self.object.truncate(row);
        self.valid.truncate(row);
    }

    pub(super) fn unset(&mut self, row: usize) {
        if self.valid.get(row) {
            self.object.unset(row);
            self.valid.unset(row);
        }
    }

    pub(super) fn json(&mut self, cursor: &mut Cursor<'_>, row: usize, tally: &mut Tally) -> Read<bool> {
        self.unset(row);
        let any = self.object.json(cursor, row, tally)?;
        if any {
            self.valid.set(row);
        }
        Ok(any)
    }

    /// Reads a member of an object that is spread over several columns of a file.
    pub(super) fn leaf(&mut self, path: &[usize], cell: Cell<'_>, row: usize, tally: &mut Tally) -> Read<()> {
        let Some((&number, rest)) = path.split_first() else { return Ok(()) };
        let Some(column) = self.object.columns.get_mut(number) else { return Ok(()) };
        match column.leaf(rest, cell, row, tally) {
            Ok(some) => {
                if some {
                    self.valid.set(row);
                }
                Ok(())
            }
            Err(fault) => Err(fault.inside(self.object.label(number))),
        }
    }

    pub(super) fn finish(&mut self, rows: usize) -> Result<ArrayRef> {
        let members = self.object.finish(rows)?;
        let nulls = self.valid.take_nulls(rows);
        let array = StructArray::try_new_with_length(self.fields.clone(), members, nulls, rows);
        Ok(Arc::new(array.context(Kind::Bug, "Members of a nested object do not fit its type")?))
    }
}

/// An array.
#[derive(Debug)]
pub(in crate::decode) struct ListColumn<C> {
    pub(super) item: C,
    /// The start of each row so far, and the end of the last.
    offsets: Vec<i32>,
    pub(super) valid: Bits,
    field: FieldRef,
}

impl<C: Builder> ListColumn<C> {
    pub(super) fn new(item: &ColumnType, path: &str) -> Self {
        let field = arrow::datatypes::Field::new(ELEMENT, schema::arrow_type(item, Nested::Typed), true);
        Self {
            item: C::new(item, &format!("{path}{ELEMENT}.")),
            offsets: vec![0],
            valid: Bits::default(),
            field: Arc::new(field),
        }
    }

    pub(super) fn reserve(&mut self, rows: usize) {
        self.valid.reserve(rows);
    }

    /// Removes `row` and all later rows, including half-written ones.
    pub(super) fn truncate(&mut self, row: usize) {
        self.cut(row);
        self.valid.truncate(row);
    }

    pub(super) fn unset(&mut self, row: usize) {
        if self.offsets.len() > row + 1 {
            self.cut(row);
            self.valid.unset(row);
        }
    }

    fn cut(&mut self, row: usize) {
        self.offsets.truncate(row + 1);
        let items = self.end();
        self.item.truncate(items);
    }

    fn end(&self) -> usize {
        self.offsets.last().map_or(0, |&end| end as usize)
    }

    /// Begins the list of `row` and returns the position of its first item.
    pub(super) fn begin(&mut self, row: usize) -> usize {
        self.unset(row);
        let end = self.end();
        self.offsets.resize(row + 1, end as i32);
        end
    }

    /// Reserves space for the item at `place`.
    #[inline]
    pub(super) fn room(&mut self, place: usize) {
        // By doubling, since the number of items is not known in advance.
        if place.is_power_of_two() || place == 0 {
            self.item.reserve((2 * place).max(16));
        }
    }

    /// Ends the list of `row`.
    pub(super) fn commit(&mut self, row: usize, end: usize) -> Read<()> {
        let end = i32::try_from(end).map_err(|_| Fault::new("more items than a batch can hold"))?;
        self.offsets.push(end);
        self.valid.set(row);
        Ok(())
    }

    pub(super) fn json(&mut self, cursor: &mut Cursor<'_>, row: usize, tally: &mut Tally) -> Read<()> {
        let mut place = self.begin(row);
        cursor.expect(b'[', "not an array")?;
        if cursor.peek_after_blanks() == b']' {
            cursor.at += 1;
            return self.commit(row, place);
        }
        loop {
            self.room(place);
            if cursor.peek_after_blanks() == b'n' {
                cursor.null()?;
            } else if let Err(fault) = self.item.json(cursor, place, tally) {
                return Err(fault.inside(ELEMENT));
            }
            place += 1;
            tally.bytes += ITEM_BYTES;
            if cursor.comma_or(b']')? {
                return self.commit(row, place);
            }
        }
    }

    pub(super) fn finish(&mut self, rows: usize) -> Result<ArrayRef> {
        self.begin(rows);
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        let items = offsets.last().map_or(0, |&end| end as usize);
        let items = self.item.finish(items)?;
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        let array = ListArray::try_new(self.field.clone(), offsets, items, self.valid.take_nulls(rows));
        Ok(Arc::new(array.context(Kind::Bug, "Items of an array do not fit its type")?))
    }
}

/// The estimated size of an item in addition to its text, in bytes.
pub(super) const ITEM_BYTES: usize = 8;
