//! Reading data files of a table.

pub(in crate::sink::delta) mod data_file;
