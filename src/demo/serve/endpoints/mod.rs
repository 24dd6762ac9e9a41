//! The endpoints of the API, except the status of jobs.

pub(crate) mod download;
pub(crate) mod login;
pub(crate) mod object;
pub(crate) mod query;
pub(crate) mod tokens;
