//! The rows that a load writes in each table mode: current rows, a log of changes, or history (SCD type 2).

pub(crate) mod append_log;
pub(crate) mod change_batches;
pub(crate) mod commit_plan;
pub(crate) mod context;
pub(crate) mod local_executor;
pub(crate) mod scd2;
pub(crate) mod table_design;
pub(crate) mod upsert;
