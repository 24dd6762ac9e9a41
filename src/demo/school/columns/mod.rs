//! The columns of a table: their types, the rules by which they are filled, and the cells of a row.

pub(crate) mod names;
pub(crate) mod row;
pub(crate) mod rule;
pub(crate) mod rules;
pub(crate) mod shape;
