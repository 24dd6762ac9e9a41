//! A load and the table modes: current rows, all changes, history (SCD type 2).

pub(in crate::sink::delta) mod append_log;
pub(in crate::sink::delta) mod load;
pub(in crate::sink::delta) mod scd2;
pub(in crate::sink::delta) mod upsert;
