//! Jobs and their result files.

pub(crate) mod job;
pub(crate) mod run;
pub(crate) mod store;
