//! One record of a table, independent of file formats. No I/O.

use std::borrow::Cow;

use crate::model::{Op, Timestamp};

/// A typed value of one column (or member).
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// No value.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Any integer width.
    Int(i64),
    /// A double, NaN and infinities included.
    Float(f64),
    /// `unscaled * 10^-scale`.
    Decimal(i128, u8),
    /// Text, enum members, UUIDs, addresses, JSON text.
    Text(Cow<'static, str>),
    /// Timestamp in UTC.
    Time(Timestamp),
    /// Days since 1970-01-01.
    Date(i32),
    /// Members of a fixed-shape object, in schema order, nulls included.
    Object(Vec<(Cow<'static, str>, Cell)>),
    /// Array.
    List(Vec<Cell>),
}

/// One row of a snapshot or an increment. The table's [`Layout`] has the names of the columns, in the same order.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Commit time.
    pub ts: Timestamp,
    /// Upsert or delete.
    pub op: Op,
    /// Key cells.
    pub key: Vec<Cell>,
    /// Value cells; `None` for a delete.
    pub value: Option<Vec<Cell>>,
}

/// Column names of a table at one schema version.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Key columns.
    pub key: Vec<String>,
    /// Value columns, with member names for objects of fixed shape.
    pub value: Vec<Field>,
}

/// A value column of a [`Layout`].
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Column name.
    pub name: String,
    /// Members of an object of fixed shape (one column per leaf in expanded mode); empty for other types.
    pub members: Vec<Field>,
}

impl Layout {
    /// Converts a record with the layout `from` to this layout. Columns and members are matched by name: missing ones become null, and those
    /// that this layout does not have are dropped.
    pub fn reshape(&self, from: &Layout, record: Record) -> Record {
        let value = record.value.map(|cells| {
            let named = from.value.iter().map(|field| field.name.as_str()).zip(cells).collect();
            arrange(&self.value, named)
        });
        Record { value, ..record }
    }
}

fn arrange(fields: &[Field], mut named: Vec<(&str, Cell)>) -> Vec<Cell> {
    let mut take = |name: &str| match named.iter_mut().find(|(known, _)| *known == name) {
        Some((_, cell)) => std::mem::replace(cell, Cell::Null),
        None => Cell::Null,
    };
    let cell = |field: &Field| match take(&field.name) {
        Cell::Object(members) => {
            let old: Vec<_> = members.iter().map(|(name, cell)| (name.as_ref(), cell.clone())).collect();
            let names = field.members.iter().map(|member| Cow::Owned(member.name.clone()));
            Cell::Object(names.zip(arrange(&field.members, old)).collect())
        }
        other => other,
    };
    fields.iter().map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, members: &[&str]) -> Field {
        let members = members.iter().map(|member| field(member, &[])).collect();
        Field { name: name.to_owned(), members }
    }

    #[test]
    fn reshape_matches_columns_and_members_by_name() {
        let from = Layout { key: vec!["id".into()], value: vec![field("a", &[]), field("o", &["x"]), field("gone", &[])] };
        let to = Layout { key: vec!["id".into()], value: vec![field("new", &[]), field("o", &["y", "x"]), field("a", &[])] };
        let record = Record {
            ts: Timestamp::from_micros(7),
            op: Op::Upsert,
            key: vec![Cell::Int(1)],
            value: Some(vec![Cell::Bool(true), Cell::Object(vec![("x".into(), Cell::Int(5))]), Cell::Int(9)]),
        };
        let reshaped = to.reshape(&from, record.clone());
        let object = Cell::Object(vec![("y".into(), Cell::Null), ("x".into(), Cell::Int(5))]);
        assert_eq!(reshaped.value, Some(vec![Cell::Null, object, Cell::Bool(true)]));
        assert_eq!((reshaped.ts, &reshaped.key), (record.ts, &record.key));
        assert_eq!(from.reshape(&from, record.clone()), record);
    }
}
