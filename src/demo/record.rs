//! One record of a table as the school knows it, before any file format. No I/O.

use std::borrow::Cow;

use crate::model::{Op, Timestamp};

/// A typed value of one column (or member).
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Absent.
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
    /// Moment in UTC.
    Time(Timestamp),
    /// Days since 1970-01-01.
    Date(i32),
    /// Members of a fixed-shape object, in schema order, nulls included.
    Object(Vec<(Cow<'static, str>, Cell)>),
    /// Array.
    List(Vec<Cell>),
}

/// One row of a snapshot or of an increment. Names of the columns are in the table's [`Layout`], in the same order.
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
    /// Value columns; for an object of fixed shape with the names of its members.
    pub value: Vec<Field>,
}

/// A value column of a [`Layout`].
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Column name.
    pub name: String,
    /// Members, when it is an object of fixed shape (one column per leaf in expanded mode).
    pub members: Vec<Field>,
}
