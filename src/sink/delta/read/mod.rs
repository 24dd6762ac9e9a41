//! Reading the data files of a table.

pub(crate) mod data_file;
pub(crate) mod row_reader;
